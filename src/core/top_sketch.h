// The keys that are asked for most, in bounded memory: Space-Saving with weights (Metwally, Agrawal and El
// Abbadi 2005; with weights and over several sketches: Agarwal et al., Mergeable Summaries, 2012).
//
// Thread rule: one owner. Pure. Allocates only for a key that is longer than any that its entry had before.
//
// There are kEntries entries. A key that has none takes over the one that counts least, and what that had
// counted is kept apart as `missed`: so much may have been counted of the new key before, and no more. With W
// being all the weight that came in:
// - what an entry counts is never more than what came in of its key, and at most W / kEntries less;
// - a key of which more than W / kEntries came in has an entry.
// Of several sketches with streams of their own both hold of the sums.
//
// Memory: kEntries * 106 bytes, and the keys.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"

namespace tally {

class TopSketch {
 public:
  static constexpr size_t kEntries = 1'024;

  struct Entry {
    KeyHash hash;  // of rule and key: what an entry goes by
    uint64_t admitted = 0, limited = 0;
    uint64_t missed = 0;  // at most so much of the key was not counted
    std::string key;
    uint16_t rule = 0;  // its id
    uint64_t all() const { return admitted + limited + missed; }
  };

  TopSketch();

  // `weight`: 1 or more; sums stay below 2^64.
  void add(uint16_t rule, std::string_view key, KeyHash hash, bool limited, uint64_t weight);
  // So much of what was admitted of the key was not; nothing where it has no entry.
  void take_back(KeyHash hash, uint64_t weight);
  void clear();
  std::span<const Entry> entries() const { return std::span(entries_).first(heap_.size()); }  // in no order

 private:
  using Place = uint16_t;
  static constexpr Place kNone = UINT16_MAX;
  static constexpr size_t kIndex = 4 * kEntries;
  struct Node {
    uint64_t all;
    Place entry;
  };

  static size_t home_of(KeyHash hash) { return hash.lo % kIndex; }
  size_t cell_of(KeyHash hash) const;
  void unlink(KeyHash hash);
  void put(size_t at, Node node);
  void sink(size_t at);
  void rise(size_t at);

  std::vector<Entry> entries_;           // kEntries; those in use come first
  std::vector<Node> heap_;               // of those in use; the least is in front
  std::array<Place, kEntries> in_heap_;  // by entry: its place there
  std::array<Place, kIndex> index_;      // by hash, open addressing: its entry
};

}  // namespace tally
