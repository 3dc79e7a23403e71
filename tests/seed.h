// The seed of a random test: TALLY_SEED where it is set, else the test's own. Printed, so that a run can be
// replayed.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <cstdlib>

namespace tally {

inline uint64_t test_seed(uint64_t otherwise) {
  const char* set = std::getenv("TALLY_SEED");
  const uint64_t seed = set != nullptr ? std::strtoull(set, nullptr, 0) : otherwise;
  MESSAGE("TALLY_SEED=" << seed);
  return seed;
}

}  // namespace tally
