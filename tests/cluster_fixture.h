// What the tests of the cluster share: rosters in one line, keys, rounds.
#pragma once

#include <string>
#include <vector>

#include "base/random.h"
#include "cluster/roster.h"
#include "core_fixture.h"

namespace tally::test {

// How often a random test begins anew. Sanitizers slow everything by ten.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
inline constexpr int kRandomRounds = 20;
#else
inline constexpr int kRandomRounds = 300;
#endif

// In sorted order, so that a node's place is its rank.
inline std::vector<std::string> entries_of(size_t n) {
  std::vector<std::string> entries;
  for (size_t i = 0; i < n; ++i)
    entries.push_back("host-" + std::string(1, static_cast<char>('a' + i)) + ":8381");
  return entries;
}

inline Roster roster_of(size_t n) { return Roster(entries_of(n), 1, static_cast<uint32_t>(n), kPublicIdKey); }

inline WireId random_key(Random& random) {
  WireId id;
  for (uint8_t& b : id.bytes) b = static_cast<uint8_t>(random.next());
  return id;
}

inline Group group_of(uint8_t size) {
  Group group;
  group.size = size;
  for (uint16_t i = 0; i < size; ++i) group.rank[i] = i;
  return group;
}

}  // namespace tally::test
