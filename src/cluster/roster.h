// The roster: the numbered list of nodes, who of them may own keys, and the group of each key. While a list replaces another, both.
//
// Thread rule: immutable after construction.
//
// Ranks are places in the sorted union of both lists, so that a node has one rank whichever list it is spoken of in; where there
// is no list before, that is the place in the list. Which of the two rules a window is for succession.h.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "cluster/wire.h"

namespace tally {

inline constexpr size_t kRosterMax = 1000;
// The entry that stands for books in Redis: no node, but it is reported to and grants as an owner does.
inline constexpr std::string_view kBooksEntry = "(books)";

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
  friend bool operator==(const Group&, const Group&) = default;
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

// A numbered list as operators write it.
struct NodeList {
  std::vector<std::string> entries;  // unique, in any order, 1 to kRosterMax
  uint32_t version = 1;
  uint32_t size = 1;  // cluster.size (the split of the floors), at least the number of entries
  std::vector<std::string> owners{};  // those of the entries that keys may belong to: aggregators; empty: all
};

enum class Which : uint8_t { current, previous };

// A key's group in both lists; without a list before, twice the same.
struct Groups {
  Group current, previous;

  const Group& of(Which which) const { return which == Which::current ? current : previous; }
  bool same() const { return current == previous; }
  bool contains(uint16_t rank) const { return place_of(rank) < kPlaces; }
  // One place for each member of either, whichever list it is looked for in: below kPlaces; else kPlaces.
  size_t place_of(uint16_t rank) const;
  static constexpr size_t kPlaces = 2 * kGroupMax;
};

class Roster {
 public:
  // The list that this node goes by, and the one that it replaces: of a lower version, left out once the change is over.
  Roster(const NodeList& current, const std::optional<NodeList>& previous, const IdKey& key);
  Roster(std::vector<std::string> entries, uint32_t version, uint32_t size, const IdKey& key)
      : Roster(NodeList{std::move(entries), version, size}, std::nullopt, key) {}

  size_t count() const { return entries_.size(); }  // of nodes in either list
  uint32_t version() const { return current_.version; }
  uint32_t size() const { return current_.size; }
  // Of (sorted list, size, owners): equal lists have equal hashes on every node.
  uint64_t hash() const { return current_.hash; }
  const std::string& entry(uint16_t rank) const { return entries_[rank]; }
  NodeId id(uint16_t rank) const { return ids_[rank]; }
  std::optional<uint16_t> rank_of(NodeId id) const;
  std::optional<uint16_t> rank_of(const std::string& entry) const;

  // Of a key in the current list, of its owners. Highest random weight (Thaler and Ravishankar 1998): the three largest mix(key, node), all
  // where there are fewer.
  Group group(const WireId& key) const { return group_in(current_, key); }
  Groups groups(const WireId& key) const;

  // --- while a list replaces another ---
  bool has_previous() const { return previous_.has_value(); }
  std::optional<Which> find(uint32_t version, uint64_t hash) const;
  uint32_t version_of(Which which) const { return list(which).version; }
  uint64_t hash_of(Which which) const { return list(which).hash; }
  // By rank, rising. Without a list before, `previous` is the current one.
  const std::vector<uint16_t>& ranks(Which which) const { return list(which).ranks; }
  bool lists(Which which, uint16_t rank) const { return rank < list(which).listed.size() && list(which).listed[rank]; }
  bool owns(Which which, uint16_t rank) const { return std::ranges::find(list(which).owners, rank) != list(which).owners.end(); }  // keys may belong to it

 private:
  struct List {
    uint32_t version = 0, size = 0;
    uint64_t hash = 0;
    std::vector<uint16_t> ranks, owners;
    std::vector<bool> listed;  // by rank
  };
  const List& list(Which which) const { return which == Which::previous && previous_ ? *previous_ : current_; }
  List listed(const NodeList& from, const IdKey& key) const;
  Group group_in(const List& list, const WireId& key) const;

  std::vector<std::string> entries_;                // sorted
  std::vector<NodeId> ids_;                         // by rank
  std::vector<std::pair<NodeId, uint16_t>> by_id_;  // sorted
  List current_;
  std::optional<List> previous_;
};

}  // namespace tally
