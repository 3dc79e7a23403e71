// What a random test takes from the environment: its seed (TALLY_SEED, else the test's own; printed, so that a run can be replayed), and
// how much it does (TALLY_CLUSTERS; less of it where a sanitizer makes all slow).
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>

namespace tally {

inline uint64_t test_seed(uint64_t otherwise) {
  const char* set = std::getenv("TALLY_SEED");
  const uint64_t seed = set != nullptr ? std::strtoull(set, nullptr, 0) : otherwise;
  MESSAGE("TALLY_SEED=" << seed);
  return seed;
}

// Of `whole` rounds, clusters or keys, as many as TALLY_CLUSTERS is of 2,000, and at least `least`; all where it is not set.
inline uint64_t scaled(uint64_t whole, uint64_t least = 1) {
  const char* set = std::getenv("TALLY_CLUSTERS");
  return set != nullptr ? std::max<uint64_t>(least, std::strtoull(set, nullptr, 0) * whole / 2'000) : whole;
}

}  // namespace tally
