#include "core/top_sketch.h"

#include <algorithm>

namespace tally {

TopSketch::TopSketch() : entries_(kEntries) {
  heap_.reserve(kEntries);
  clear();
}

void TopSketch::clear() {
  heap_.clear();
  index_.fill(kNone);
}

void TopSketch::add(uint16_t rule, std::string_view key, KeyHash hash, bool limited, uint64_t weight) {
  Place entry = index_[cell_of(hash)];
  if (entry == kNone) {
    const bool full = heap_.size() == kEntries;
    entry = full ? heap_.front().entry : static_cast<Place>(heap_.size());
    Entry& taken = entries_[entry];
    const uint64_t missed = full ? taken.all() : 0;
    if (full) unlink(taken.hash);
    taken.hash = hash;
    taken.admitted = taken.limited = 0;
    taken.missed = missed;
    taken.key.assign(key);
    taken.rule = rule;
    index_[cell_of(hash)] = entry;
    if (!full) {
      heap_.emplace_back();
      put(heap_.size() - 1, {0, entry});
      rise(heap_.size() - 1);
    }
  }
  Entry& found = entries_[entry];
  (limited ? found.limited : found.admitted) += weight;
  heap_[in_heap_[entry]].all = found.all();
  sink(in_heap_[entry]);
}

void TopSketch::take_back(KeyHash hash, uint64_t weight) {
  const Place entry = index_[cell_of(hash)];
  if (entry == kNone) return;
  Entry& found = entries_[entry];
  const uint64_t back = std::min(weight, found.admitted);
  found.admitted -= back;
  found.missed += back;  // its place among the others stays
}

// Of the hash, or the free one where it belongs.
size_t TopSketch::cell_of(KeyHash hash) const {
  size_t at = home_of(hash);
  while (index_[at] != kNone && entries_[index_[at]].hash != hash) at = (at + 1) % kIndex;
  return at;
}

// Those behind it move up, as far as they may.
void TopSketch::unlink(KeyHash hash) {
  size_t hole = cell_of(hash);
  for (size_t at = (hole + 1) % kIndex; index_[at] != kNone; at = (at + 1) % kIndex) {
    const size_t home = home_of(entries_[index_[at]].hash);
    if ((at + kIndex - home) % kIndex < (at + kIndex - hole) % kIndex) continue;
    index_[hole] = index_[at];
    hole = at;
  }
  index_[hole] = kNone;
}

void TopSketch::put(size_t at, Node node) {
  heap_[at] = node;
  in_heap_[node.entry] = static_cast<Place>(at);
}

void TopSketch::sink(size_t at) {
  const Node node = heap_[at];
  for (;;) {
    size_t child = 2 * at + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && heap_[child + 1].all < heap_[child].all) ++child;
    if (heap_[child].all >= node.all) break;
    put(at, heap_[child]);
    at = child;
  }
  put(at, node);
}

void TopSketch::rise(size_t at) {
  const Node node = heap_[at];
  for (; at > 0 && heap_[(at - 1) / 2].all > node.all; at = (at - 1) / 2) put(at, heap_[(at - 1) / 2]);
  put(at, node);
}

}  // namespace tally
