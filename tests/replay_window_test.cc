// Which numbers were heard: against a set that keeps all of them.
#include "cluster/replay_window.h"

#include <doctest/doctest.h>

#include <set>

#include "base/random.h"
#include "seed.h"

using namespace tally;

TEST_CASE("a number is had once, in any order within reach") {
  ReplayWindow window;
  for (const uint64_t n : {uint64_t{1}, uint64_t{5}, uint64_t{3}, uint64_t{900}, uint64_t{2}, uint64_t{63}, uint64_t{64}}) {
    CHECK_FALSE(window.has(n));
    window.add(n);
    CHECK(window.has(n));
  }
  CHECK_FALSE(window.has(4));
  window.add(5 + ReplayWindow::kReach);
  CHECK_FALSE(window.has(6));
  CHECK(window.has(5));
  CHECK(window.has(4));  // beyond reach: it may have been here
}

TEST_CASE("it never forgets one within reach, and calls none heard that was not, on random orders") {
  Random random(test_seed(1));
  for (int round = 0; round < 20; ++round) {
    ReplayWindow window;
    std::set<uint64_t> model;
    uint64_t latest = 0, next = 1;
    for (int i = 0; i < 20'000; ++i) {
      if (random.chance(0.3)) next += random.chance(0.02) ? random.below(3000) : random.below(4);
      const uint64_t back = random.below(random.chance(0.05) ? 2000 : 40);
      const uint64_t n = next > back ? next - back : 1;
      REQUIRE(window.has(n) == (model.contains(n) || n + ReplayWindow::kReach < latest));
      window.add(n);
      if (n + ReplayWindow::kReach >= latest) model.insert(n);
      latest = std::max(latest, n);
    }
  }
}

TEST_CASE("the largest numbers do no harm") {
  ReplayWindow window;
  window.add(~uint64_t{0});
  CHECK(window.has(~uint64_t{0}));
  CHECK_FALSE(window.has(~uint64_t{0} - 1));
  CHECK(window.has(1));
}
