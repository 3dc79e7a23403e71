// One event in N is taken, by chance, and N follows how many there are.
#include "core/sampler.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "core_fixture.h"

namespace tally {
namespace {

using test::mono;
using test::ms;

// Lets `n` events happen from `from` on, spread over `lasts`; returns how many were taken, and by their
// weights how many there would be.
struct Taken {
  uint64_t n = 0, weight = 0;
};
Taken happen(Sampler& sampler, MonoTime from, Duration lasts, uint64_t n) {
  Taken taken;
  for (uint64_t i = 0; i < n; ++i) {
    const MonoTime now = from + lasts * static_cast<int64_t>(i) / static_cast<int64_t>(n);
    sampler.tick(now);
    if (!sampler.due()) continue;
    ++taken.n;
    taken.weight += sampler.take(now);
  }
  return taken;
}

TEST_CASE("as long as there are few, all are taken") {
  Sampler sampler(test::seed());
  for (int second = 1; second < 20; ++second) {
    const Taken taken = happen(sampler, mono(test::secs(second)), test::secs(1), 8'000);
    CHECK(taken.n == 8'000);
    CHECK(taken.weight == 8'000);
  }
}

TEST_CASE("of millions some 8,000 a second are taken, and stand for all") {
  Sampler sampler(test::seed());
  happen(sampler, mono(test::secs(1)), test::secs(1), 5'000'000);  // N finds its way
  const Taken taken = happen(sampler, mono(test::secs(2)), test::secs(1), 5'000'000);
  CHECK(taken.n <= 10'000);
  CHECK(taken.n >= 7'000);
  const double n = sampler.one_in(), six_sigma = 6 * std::sqrt(5e6 * n);
  CHECK(std::abs(static_cast<double>(taken.weight) - 5e6) < six_sigma);
}

TEST_CASE("a sudden rush is cut off after some thousands, within its first milliseconds") {
  Sampler sampler(test::seed());
  happen(sampler, mono(test::secs(1)), test::secs(1), 100);
  const Taken taken = happen(sampler, mono(test::secs(2)), ms(90), 800'000);
  CHECK(taken.n <
        11 * Sampler::kMost);  // N doubles for each thousand, and 2^10 thousands are more than these
  CHECK(sampler.one_in() >= 256);
}

TEST_CASE("after a pause all are taken again") {
  Sampler sampler(test::seed());
  happen(sampler, mono(test::secs(1)), test::secs(1), 5'000'000);
  REQUIRE(sampler.one_in() > 100);
  // The event after the pause is still waited for by the old N; tick() comes first.
  CHECK(happen(sampler, mono(test::secs(2) + 2 * Sampler::kPeriod), ms(50), 10).n == 10);
}

TEST_CASE("what comes in step with the sampling is taken as often as all else") {
  Sampler sampler(test::seed());
  sampler.hold(64);
  std::array<uint64_t, 64> taken{};
  constexpr int kRoundTrips = 64'000;
  for (int i = 0; i < kRoundTrips; ++i)
    for (uint64_t& place : taken) {
      if (!sampler.due()) continue;
      ++place;
      sampler.take(mono(ms(i)));
    }
  CHECK(sampler.one_in() == 64);
  for (const uint64_t n : taken) {  // 1,000 each, with a standard deviation of 31
    CHECK(n > 800);
    CHECK(n < 1'200);
  }
}

}  // namespace
}  // namespace tally
