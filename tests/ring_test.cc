// The bounded queue between a worker and the cluster thread.
#include "base/ring.h"

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <thread>

namespace tally {
namespace {

TEST_CASE("a ring gives back what was pushed, in order, and refuses when full") {
  Ring<int> ring(4);
  int out = 0;
  CHECK_FALSE(ring.pop(out));
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < 4; ++i) CHECK(ring.push(round * 10 + i));
    CHECK_FALSE(ring.push(99));
    CHECK(ring.pop(out));
    CHECK(out == round * 10);
    CHECK(ring.push(round * 10 + 4));
    for (int i = 1; i < 5; ++i) {
      CHECK(ring.pop(out));
      CHECK(out == round * 10 + i);
    }
    CHECK_FALSE(ring.pop(out));
  }
}

TEST_CASE("a ring's capacity is rounded up to a power of two") {
  Ring<int> ring(5);
  int n = 0;
  while (ring.push(n)) ++n;
  CHECK(n == 8);
}

TEST_CASE("two threads pass a million values through a small ring: none lost, none torn, none out of order") {
  struct Value {
    uint64_t number;
    std::array<uint64_t, 5> copies;
  };
  constexpr uint64_t kValues = 1'000'000;
  Ring<Value> ring(64);
  std::thread pusher([&] {
    for (uint64_t i = 0; i < kValues;) {
      if (ring.push({i, {i, i, i, i, i}}))
        ++i;
      else
        std::this_thread::yield();
    }
  });
  uint64_t expected = 0, wrong = 0;
  for (Value v; expected < kValues;) {
    if (!ring.pop(v)) {
      std::this_thread::yield();
      continue;
    }
    wrong += v.number != expected;
    for (const uint64_t copy : v.copies) wrong += copy != expected;
    ++expected;
  }
  pusher.join();
  Value v;
  CHECK(wrong == 0);
  CHECK_FALSE(ring.pop(v));
}

}  // namespace
}  // namespace tally
