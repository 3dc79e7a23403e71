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

Roster::Roster(std::vector<std::string> entries, uint32_t version, uint32_t size, const IdKey& key)
    : entries_(std::move(entries)), version_(version), size_(size) {
  std::ranges::sort(entries_);
  CHECK_THAT(!entries_.empty() && entries_.size() <= kRosterMax && entries_.size() <= size_);
  CHECK_THAT(std::ranges::adjacent_find(entries_) == entries_.end());

  std::string listed;
  append_number(listed, size_);
  for (const std::string& entry : entries_) {
    append_number(listed, entry.size());
    listed += entry;
    by_id_.emplace_back(keyed_hash(entry, key), static_cast<uint16_t>(ids_.size()));
    ids_.push_back(by_id_.back().first);
  }
  std::ranges::sort(by_id_);
  hash_ = keyed_hash(listed, key);
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

Group Roster::group(const WireId& key) const {
  Group group;
  std::array<uint64_t, kGroupMax> weights{};  // of group.rank, falling
  const uint64_t word = key.word();
  for (size_t r = 0; r < ids_.size(); ++r) {
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
    group.rank[place] = static_cast<uint16_t>(r);
  }
  return group;
}

}  // namespace tally
