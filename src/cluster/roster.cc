#include "cluster/roster.h"

#include <algorithm>
#include <utility>

#include "base/fail.h"

namespace tally {
namespace {

// Every part with its length before it, so that no two lists give the same bytes.
void append_number(std::string& to, uint64_t n) {
  for (unsigned shift = 0; shift < 64; shift += 8) to.push_back(static_cast<char>(n >> shift));
}

}  // namespace

size_t Groups::place_of(uint16_t rank) const {
  if (const size_t place = current.place_of(rank); place < kGroupMax) return place;
  return kGroupMax + previous.place_of(rank);
}

Roster::Roster(const NodeList& current, const std::optional<NodeList>& previous, const IdKey& key) : entries_(current.entries) {
  if (previous) {
    CHECK_THAT(previous->version < current.version);
    entries_.insert(entries_.end(), previous->entries.begin(), previous->entries.end());
    std::ranges::sort(entries_);
    entries_.erase(std::ranges::unique(entries_).begin(), entries_.end());
  }
  std::ranges::sort(entries_);
  for (const std::string& entry : entries_) {
    by_id_.emplace_back(keyed_hash(entry, key), static_cast<uint16_t>(ids_.size()));
    ids_.push_back(by_id_.back().first);
  }
  std::ranges::sort(by_id_);
  current_ = listed(current, key);
  if (previous) previous_ = listed(*previous, key);
}

Roster::List Roster::listed(const NodeList& from, const IdKey& key) const {
  CHECK_THAT(!from.entries.empty() && from.entries.size() <= kRosterMax && from.entries.size() <= from.size);
  List list{from.version, from.size, 0, {}, {}, std::vector<bool>(entries_.size())};
  for (const std::string& entry : from.entries) {
    list.ranks.push_back(*rank_of(entry));
    list.listed[list.ranks.back()] = true;
  }
  std::ranges::sort(list.ranks);
  CHECK_THAT(std::ranges::adjacent_find(list.ranks) == list.ranks.end());
  std::string text;
  append_number(text, from.size);
  for (const uint16_t rank : list.ranks) {
    append_number(text, entries_[rank].size());
    text += entries_[rank];
  }
  for (const std::string& entry : from.owners) {
    list.owners.push_back(*rank_of(entry));
    CHECK_THAT(list.listed[list.owners.back()]);
  }
  std::ranges::sort(list.owners);
  CHECK_THAT(std::ranges::adjacent_find(list.owners) == list.owners.end());
  if (list.owners == list.ranks) list.owners.clear();  // the same as where none are named
  for (const uint16_t rank : list.owners) {  // each for the second time: no entry of another list
    append_number(text, entries_[rank].size());
    text += entries_[rank];
  }
  if (list.owners.empty()) list.owners = list.ranks;
  list.hash = keyed_hash(text, key);
  return list;
}

std::optional<Which> Roster::find(uint32_t version, uint64_t hash) const {
  for (const Which which : {Which::current, Which::previous})
    if (version == list(which).version && hash == list(which).hash) return which;
  return std::nullopt;
}

std::optional<uint16_t> Roster::rank_of(NodeId id) const {
  const auto it = std::ranges::lower_bound(by_id_, id, {}, &std::pair<NodeId, uint16_t>::first);
  if (it == by_id_.end() || it->first != id) return std::nullopt;
  return it->second;
}

std::optional<uint16_t> Roster::rank_of(const std::string& entry) const {
  const auto it = std::ranges::lower_bound(entries_, entry);
  if (it == entries_.end() || *it != entry) return std::nullopt;
  return static_cast<uint16_t>(it - entries_.begin());
}

Groups Roster::groups(const WireId& key) const {
  Groups groups;
  groups.current = group_in(current_, key);
  groups.previous = previous_ ? group_in(*previous_, key) : groups.current;
  return groups;
}

Group Roster::group_in(const List& list, const WireId& key) const {
  Group group;
  std::array<uint64_t, kGroupMax> weights{};  // of group.rank, falling
  const uint64_t word = key.word();
  for (const uint16_t r : list.owners) {
    const uint64_t weight = mix(word ^ ids_[r]);
    size_t place = group.size;
    while (place > 0 && weights[place - 1] < weight) --place;
    if (place == kGroupMax) continue;
    if (group.size < kGroupMax) ++group.size;
    for (size_t i = group.size - 1u; i > place; --i) {
      weights[i] = weights[i - 1];
      group.rank[i] = group.rank[i - 1];
    }
    weights[place] = weight;
    group.rank[place] = r;
  }
  return group;
}

}  // namespace tally
