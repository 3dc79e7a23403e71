// A table of what a node knows by key, whose look-ups can be begun for many keys before the first is needed.
//
// Thread rule: the cluster thread's.
//
// With 100,000 keys and more, what an entry of a datagram costs is the memory that it waits for: the place in
// the index, the value, what the value points to. std::unordered_map waits for each in turn (and for the
// neighbours in its chains); here the keys of a datagram are all prefetched, step by step, before the first
// entry is handled.
//
// Open addressing (linear probing, 8 bytes a cell, deletion by shifting back) leads to values that stay where
// they are, in chunks: a pointer to one is good until its key is erased, and growing moves cells alone.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/fail.h"
#include "base/hash.h"
#include "base/time.h"

namespace tally {

// What is done for several keys is begun for all of them first, in so many steps: cell, value, and what hangs
// on it.
inline constexpr int kPrefetchSteps = 4;

// The volatile asm is empty: g++ 12 takes what only reads and prefetches for a pure function, and leaves out
// calls whose result nobody uses.
inline void prefetch_line(const void* at) {
  __builtin_prefetch(at, 1);
  asm volatile("");
}

inline void prefetch_bytes(const void* at, size_t n) {
  for (size_t line = 0; line < n; line += 64) prefetch_line(static_cast<const char*>(at) + line);
}
template <typename T>
void prefetch_object(const T* object) {
  prefetch_bytes(object, sizeof(T));
}

// Calls `each` for all of `keys` in order; `prefetch(key, step)` is called ahead of it, one step a turn.
template <typename Keys, typename Prefetch, typename Each>
void with_prefetch(const Keys& keys, Prefetch prefetch, Each each) {
  constexpr size_t kApart = 4;  // keys between two steps
  for (size_t i = 0; i < keys.size() + kPrefetchSteps * kApart; ++i) {
    for (int step = 0; step < kPrefetchSteps; ++step)
      if (const size_t at = i - static_cast<size_t>(step) * kApart; at < keys.size())
        prefetch(keys[at], step);
    if (const size_t at = i - kPrefetchSteps * kApart; at < keys.size()) each(keys[at]);
  }
}

// As ==, without the call of memcmp that g++ 12 makes of it.
template <typename K>
bool same_key(const K& a, const K& b) {
  return a == b;
}
inline bool same_key(const WireId& a, const WireId& b) {
  uint32_t ends[2];
  std::memcpy(&ends[0], a.bytes.data() + 8, 4);
  std::memcpy(&ends[1], b.bytes.data() + 8, 4);
  return a.word() == b.word() && ends[0] == ends[1];
}

template <typename K, typename T, typename Hash = std::hash<K>>
class KeyTable {
 public:
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  T* find(const K& key) { return const_cast<T*>(std::as_const(*this).find(key)); }
  const T* find(const K& key) const {
    if (size_ == 0) return nullptr;
    const uint32_t hash = hash_of(key);
    for (size_t i = hash & mask(); cells_[i].place != kFree; i = (i + 1) & mask())
      if (cells_[i].hash == hash && same_key(item(cells_[i].place).key, key))
        return &*item(cells_[i].place).value;
    return nullptr;
  }
  // The key's value; a new one where there is none.
  T& operator[](const K& key) {
    if (T* there = find(key)) return *there;
    if ((size_ + 1) * 4 > cells_.size() * 3) grow();
    const uint32_t place = take_place();
    item(place).key = key;
    item(place).value.emplace();
    dues_[place >> kChunkBits] = MonoTime::min();
    put({hash_of(key), place});
    ++size_;
    return *item(place).value;
  }
  void erase(const K& key) {
    if (size_ == 0) return;
    const uint32_t hash = hash_of(key);
    size_t i = hash & mask();
    while (cells_[i].place != kFree && !(cells_[i].hash == hash && same_key(item(cells_[i].place).key, key)))
      i = (i + 1) & mask();
    if (cells_[i].place == kFree) return;
    item(cells_[i].place).value.reset();
    free_.push_back(cells_[i].place);
    --size_;
    // What was put behind its home because this cell was taken moves up.
    for (size_t next = (i + 1) & mask(); cells_[next].place != kFree; next = (next + 1) & mask()) {
      const size_t home = cells_[next].hash & mask();
      if (((next - home) & mask()) < ((next - i) & mask())) continue;
      cells_[i] = cells_[next];
      i = next;
    }
    cells_[i].place = kFree;
  }

  // In no order. `each` must not erase; sweep() is for that.
  template <typename Each>
  void for_each(Each each) {
    for (uint32_t place = 0; place < places_; ++place)
      if (item(place).value) each(item(place).key, *item(place).value);
  }
  template <typename Each>
  void for_each(Each each) const {
    for (uint32_t place = 0; place < places_; ++place)
      if (item(place).value) each(item(place).key, *item(place).value);
  }
  // Looks at a part of the table, at all of it in `rounds` calls. `look` says of a value when to look at it
  // again, at the earliest, or nullopt: it is erased. Chunks whose values are all to be looked at later cost
  // a comparison, so that what is idle costs next to nothing however much there is of it.
  template <typename Look>
  void sweep(size_t rounds, MonoTime now, Look look) {
    constexpr size_t kAtLeast = 4;
    for (size_t n = std::min(chunks_.size(), chunks_.size() / rounds + kAtLeast); n > 0; --n) {
      if (swept_ >= chunks_.size()) swept_ = 0;
      const size_t chunk = swept_++;
      if (dues_[chunk] > now) continue;
      MonoTime due = MonoTime::max();
      for (size_t i = 0; i < kChunk; ++i) {
        Item& at = chunks_[chunk][i];
        if (!at.value) continue;
        const std::optional<MonoTime> again = look(std::as_const(at.key), *at.value);
        if (!again)
          erase(at.key);
        else
          due = std::min(due, *again);
      }
      dues_[chunk] = due;
    }
  }

  // The first brings the key's cell, the second its value; each needs some time before the next.
  void prefetch_cell(const K& key) const {
    if (size_ != 0) prefetch_line(&cells_[hash_of(key) & mask()]);
  }
  // Without so many bytes at the value's end, which not everybody needs.
  void prefetch_value(const K& key, size_t without = 0) const {
    if (size_ == 0) return;
    const uint32_t hash = hash_of(key);
    for (size_t i = hash & mask(); cells_[i].place != kFree; i = (i + 1) & mask()) {
      if (cells_[i].hash != hash) continue;
      return prefetch_bytes(&item(cells_[i].place), sizeof(Item) - without);
    }
  }

 private:
  struct Item {
    K key{};
    std::optional<T> value;
  };
  static constexpr uint32_t kFree = UINT32_MAX;
  struct Cell {
    uint32_t hash = 0;
    uint32_t place = kFree;
  };
  static constexpr uint32_t kChunkBits = 6, kChunk = 1u << kChunkBits;

  static uint32_t hash_of(const K& key) { return static_cast<uint32_t>(Hash{}(key)); }
  size_t mask() const { return cells_.size() - 1; }
  Item& item(uint32_t place) { return chunks_[place >> kChunkBits][place & (kChunk - 1)]; }
  const Item& item(uint32_t place) const { return chunks_[place >> kChunkBits][place & (kChunk - 1)]; }

  uint32_t take_place() {
    if (!free_.empty()) {
      const uint32_t place = free_.back();
      free_.pop_back();
      return place;
    }
    CHECK_THAT(places_ < kFree);
    if ((places_ & (kChunk - 1)) == 0) {
      chunks_.push_back(std::make_unique<Item[]>(kChunk));
      dues_.push_back(MonoTime::min());
    }
    return places_++;
  }
  void put(Cell cell) {
    size_t i = cell.hash & mask();
    while (cells_[i].place != kFree) i = (i + 1) & mask();
    cells_[i] = cell;
  }
  void grow() {
    const std::vector<Cell> before =
        std::exchange(cells_, std::vector<Cell>(std::max<size_t>(16, cells_.size() * 2)));
    for (const Cell& cell : before)
      if (cell.place != kFree) put(cell);
  }

  std::vector<Cell> cells_;  // a power of two of them, a quarter or more of them free
  std::vector<std::unique_ptr<Item[]>> chunks_;
  std::vector<MonoTime> dues_;  // by chunk: when sweep() has to look at it
  std::vector<uint32_t> free_;  // places that were used
  uint32_t places_ = 0;
  size_t swept_ = 0;
  size_t size_ = 0;
};

}  // namespace tally
