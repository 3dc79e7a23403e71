// The roster: the numbered list of nodes that may own keys, and the group of each key.
//
// Thread rule: immutable after construction.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "cluster/wire.h"

namespace tally {

inline constexpr size_t kRosterMax = 1000;

// Ranks of the members of a key's group in rendezvous order; the first is the natural owner.
struct Group {
  std::array<uint16_t, kGroupMax> rank{};
  uint8_t size = 0;

  size_t majority() const { return size / 2 + 1u; }
  bool contains(uint16_t r) const { return place_of(r) < kGroupMax; }
  size_t place_of(uint16_t r) const {  // kGroupMax: no member
    for (size_t i = 0; i < size; ++i)
      if (rank[i] == r) return i;
    return kGroupMax;
  }
};

// The largest of the values that a majority of the group has reached; `reached` by place in the group.
template <typename T>
T reached_by_majority(const Group& group, const std::array<T, kGroupMax>& reached) {
  T largest{};
  for (size_t i = 0; i < group.size; ++i) {
    size_t at_least = 0;
    for (size_t j = 0; j < group.size; ++j) at_least += reached[j] >= reached[i] ? 1 : 0;
    if (at_least >= group.majority() && reached[i] > largest) largest = reached[i];
  }
  return largest;
}

class Roster {
 public:
  // `entries`: unique, in any order, 1 to kRosterMax; a node's rank is its place in the sorted list. `size`
  // is cluster.size (the split of the floors), at least the number of entries.
  Roster(std::vector<std::string> entries, uint32_t version, uint32_t size, const IdKey& key);

  size_t count() const { return entries_.size(); }
  uint32_t version() const { return version_; }
  uint32_t size() const { return size_; }
  uint64_t hash() const {
    return hash_;
  }  // of (sorted list, size): equal lists have equal hashes on every node
  const std::string& entry(uint16_t rank) const { return entries_[rank]; }
  NodeId id(uint16_t rank) const { return ids_[rank]; }
  std::optional<uint16_t> rank_of(NodeId id) const;
  std::optional<uint16_t> rank_of(const std::string& entry) const;

  // Highest random weight (Thaler and Ravishankar 1998): the three largest mix(key, node), all where there
  // are fewer.
  Group group(const WireId& key) const;

 private:
  std::vector<std::string> entries_;                // sorted
  std::vector<NodeId> ids_;                         // by rank
  std::vector<std::pair<NodeId, uint16_t>> by_id_;  // sorted
  uint32_t version_;
  uint32_t size_;
  uint64_t hash_ = 0;
};

}  // namespace tally
