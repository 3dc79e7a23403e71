// What the load generator of the benchmark draws its keys by.
#include "../tools/bench/zipf.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/random.h"

namespace tally {
namespace {

TEST_CASE("a rank is drawn as often as one divided by it") {
  constexpr uint32_t kRanks = 1'000;
  constexpr int kDraws = 2'000'000;
  Random random(17);
  const bench::Zipf zipf(kRanks);
  std::vector<int> drawn(kRanks + 1);
  for (int i = 0; i < kDraws; ++i) {
    const uint32_t rank = zipf.draw([&] { return random.unit(); });
    REQUIRE(rank >= 1);
    REQUIRE(rank <= kRanks);
    ++drawn[rank];
  }
  double sum = 0;
  for (uint32_t rank = 1; rank <= kRanks; ++rank) sum += 1.0 / rank;
  double chi2 = 0;  // with 999 degrees of freedom: 999 on average, and 1,200 in one of 100,000 honest runs
  for (uint32_t rank = 1; rank <= kRanks; ++rank) {
    const double expected = kDraws / sum / rank, off = drawn[rank] - expected;
    chi2 += off * off / expected;
  }
  CHECK(chi2 < 1'200);
}

TEST_CASE("of one rank that one is drawn, and of ten million none beyond") {
  Random random(17);
  CHECK(bench::Zipf(1).draw([&] { return random.unit(); }) == 1);
  const bench::Zipf zipf(10'000'000);
  uint32_t most = 0;
  for (int i = 0; i < 1'000'000; ++i) most = std::max(most, zipf.draw([&] { return random.unit(); }));
  CHECK(most <= 10'000'000);
  CHECK(most > 9'000'000);
}

}  // namespace
}  // namespace tally
