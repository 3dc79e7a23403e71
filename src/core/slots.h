// The slot table: one cache line a key, shared by every thread, no lock and no allocation after construction.
//
// Thread rule: every call may be made from any thread, except those under "the cluster thread's", which one
// thread at a time makes. All words of a slot are atomic.
//
// A slot holds, for a key under a window:
//   hash, state, generation (2 words) | two count cells | two ceiling cells | flags, expiry | ask mark
// A cell is (window number mod 2^32, value); which of the two is in use is the window's parity, so rolling
// over is the same compare-and-swap as counting, and the window before can still be read. `count` is used +
// returned, `ceiling` is floor + granted + refunded; a decision is count + cost <= ceiling; neither ever
// falls within a window. A cell whose tag is not the window's stands for count 0, and ceiling = the floor.
//
// For a token bucket the same words hold: the arrival time of the plain or the floor bucket (TAT, monotonic
// ns; count cell 0), the lease's count and ceiling (8-bit lease tag, 56-bit nanoseconds; count cell 1,
// ceiling cell 0) and the lease's end (monotonic ns; ceiling cell 1).
//
// How a key comes and goes without a lock is told in slots.cc.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/hash.h"
#include "base/time.h"
#include "core/rules.h"
#include "core/slots_sketch.h"
#include "core/slots_tags.h"
#include "core/slots_word.h"

namespace tally {

// A slot and the life of its key in it. Stale once the key was evicted: every call then says so and changes
// nothing.
struct SlotRef {
  uint32_t index = 0;
  uint32_t generation = 0;  // never 0 in a living slot
  friend bool operator==(const SlotRef&, const SlotRef&) = default;
};

inline constexpr uint32_t kNoPlace = UINT32_MAX;  // no slot's index

// When something was heard, in 31 bits: units of 2^20 ns (about a millisecond) modulo 2^31 (26 days); 0:
// never.
inline constexpr int kHeardShift = 20;
inline constexpr uint32_t kHeardMax = (uint32_t{1} << 31) - 1;
constexpr uint32_t heard_tick(MonoTime t) {
  const auto tick = static_cast<uint32_t>(nanos(t) >> kHeardShift) & kHeardMax;
  return tick != 0 ? tick : 1;
}
// How old it is, rounded up to a whole unit. What was heard after the clock was read (within a minute) is
// new.
constexpr Duration age_of(uint32_t heard, MonoTime now) {
  constexpr uint32_t kMinute = 1 << 16;
  const uint32_t age = (heard_tick(now) - heard) & kHeardMax;
  return Duration((int64_t{age > kHeardMax - kMinute ? 0 : age} + 1) << kHeardShift);
}

// What the cluster thread knows of a key beyond this node; written by it, read by workers (fleets only).
struct Knowledge {
  uint32_t window = 0;    // tag of the window that `elsewhere` and `exhausted_until` belong to
  int32_t elsewhere = 0;  // windows: used by the rest of the fleet, as known, less what this node returned
  MonoTime tat{};         // buckets: the owner's arrival time, as known, on this node's clock
  MonoTime exhausted_until{};  // ask nothing and wait for nothing before; epoch: not exhausted
  bool isolated = false;       // no grant backed by a majority for isolation_after
  uint32_t heard = 0;          // heard_tick of the owner's last word
};

struct alignas(64) Slot {
  Word key;         // generation:32 | low bits of the hash:30 | state:2
  Word hash;        // KeyHash::hi
  Word count[2];    // windows: (tag:32, count:32); buckets: TAT, (lease tag:8, count:56)
  Word ceiling[2];  // windows: (tag:32, ceiling:32); buckets: (lease tag:8, ceiling:56), end
  Word life;  // low bits of the generation:16 | log2:6 | bucket, noted:2 | pins:6 | expiry:34; see slots.cc
  Word ask_at;
};
static_assert(sizeof(Slot) == 64 && alignof(Slot) == 64);

// A cell of a window.
struct Cell {
  uint32_t tag = 0;
  uint32_t value = 0;
  static constexpr Cell of(uint64_t word) {
    return {static_cast<uint32_t>(word >> 32), static_cast<uint32_t>(word)};
  }
  constexpr uint64_t word() const { return uint64_t{tag} << 32 | value; }
};

// A cell of a lease. `amount`: nanoseconds of emission.
struct LeaseCell {
  static constexpr int64_t kAmountMax = (int64_t{1} << 56) - 1;
  uint8_t tag = 0;
  int64_t amount = 0;
  static constexpr LeaseCell of(uint64_t word) {
    return {static_cast<uint8_t>(word >> 56), static_cast<int64_t>(word & static_cast<uint64_t>(kAmountMax))};
  }
  constexpr uint64_t word() const { return uint64_t{tag} << 56 | static_cast<uint64_t>(amount); }
};

// By how many windows the cell of parity `parity` is ahead of window `tag`; 0 where it is not. Windows are
// compared by signed difference; a cell further ahead than any clock could explain was left behind 2^32
// windows ago. A tag of the wrong parity is no window's: the cell was not used yet.
inline constexpr int32_t kAheadMax = 1 << 24;
constexpr uint32_t ahead(uint32_t cell_tag, uint32_t parity, uint32_t tag) {
  const auto d = static_cast<int32_t>(cell_tag - tag);
  if (d <= 0) [[likely]]
    return 0;
  return ((cell_tag ^ parity) & 1) == 0 && d <= kAheadMax ? static_cast<uint32_t>(d) : 0;
}
// The tag of a cell not used yet, in a slot that was taken in window `window`: that window's or the one
// before.
constexpr uint32_t unused_tag(uint32_t parity, uint32_t window) {
  return window - ((window ^ parity ^ 1) & 1);
}

// A key's slot as it was found. That life is over once the slot's key word is another. Two words, so that it
// is passed in registers.
struct Held {
  Slot* slot = nullptr;
  uint64_t key = 0;
  explicit operator bool() const { return slot != nullptr; }
  bool still() const { return slot->key.load() == key; }
};

class SlotTable {
 public:
  // Reserves and pre-faults room for `keys` keys at a load of 11/12; `seed` seeds the hash. `with_knowledge`:
  // fleets. Throws std::bad_alloc.
  SlotTable(size_t keys, uint64_t seed, bool with_knowledge);
  ~SlotTable();
  SlotTable(const SlotTable&) = delete;
  SlotTable& operator=(const SlotTable&) = delete;

  uint64_t seed() const { return seed_; }
  size_t capacity() const { return buckets_ * kWays; }  // slots
  size_t occupied() const { return occupied_.load(); }  // slots that hold a key
  uint64_t evicted_live() const { return evicted_live_.load(); }
  uint64_t evicted_idle() const { return evicted_idle_.load(); }

  // --- the cluster thread's
  // --------------------------------------------------------------------------------------- Each returns
  // false (or nullopt) and changes nothing where `ref` is stale.

  // Windows. `window` is the tag (number mod 2^32). count: 0 where the cell holds an earlier window, nullopt
  // also where it holds a later one: what was counted is not known any more, and 0 would be taken for the
  // last word on it.
  std::optional<uint32_t> count(SlotRef ref, uint32_t window) const;
  // The ceiling in the cell, nullopt also where none was raised for that window (it is the floor then).
  std::optional<uint32_t> ceiling(SlotRef ref, uint32_t window) const;
  // Sets the ceiling to the larger of `ceiling` and what is there. A cell that holds a later window is left
  // alone.
  bool raise_ceiling(SlotRef ref, uint32_t window, uint32_t ceiling);
  // A return is a take: raises the count by compare-and-swap so that at most `leave` stays unspent under
  // `ceiling`, and returns by how much it was raised (0: nothing to take, or stale). Requires the ceiling in
  // force. Where the key has not been counted in the window yet, an earlier life may have been, and may be
  // forgotten if the window is over by any worker's clock: so without `end`, the window's end, nothing is
  // returned then once keys were evicted.
  uint32_t take_back(SlotRef ref, uint32_t window, uint32_t ceiling, uint32_t leave,
                     WallTime end = WallTime::min());

  // Buckets. Amounts in nanoseconds of emission.
  struct Lease {
    uint8_t tag = 0;
    int64_t count = 0;
    int64_t ceiling = 0;
    MonoTime end{};
  };
  // Where the tags of count and ceiling differ (none was opened yet): tag 0, nothing, and an end long past.
  std::optional<Lease> lease(SlotRef ref) const;
  // Starts lease `tag` at count 0 and returns the final count of the lease before it (the old lease ends at
  // once). `tag` is not that of the lease before it.
  std::optional<int64_t> open_lease(SlotRef ref, uint8_t tag, int64_t ceiling, MonoTime end);
  // Raises ceiling and end of the running lease `tag`; false also where another lease runs.
  bool raise_lease(SlotRef ref, uint8_t tag, int64_t ceiling, MonoTime end);
  // As take_back, for the running lease.
  int64_t take_back_lease(SlotRef ref, uint8_t tag, int64_t leave);

  bool set_knowledge(SlotRef ref, const Knowledge& knowledge);
  // A worker notes a key as soon as its count (windows) or lease count (buckets) passes `count`, once until
  // the next call of set_ask_at. 0xffffffff...: never.
  bool set_ask_at(SlotRef ref, uint64_t count);
  // Workers note a key at its first use after this.
  bool clear_noted(SlotRef ref);
  // The key is known to the cluster thread; a key in use by it is evicted after those that are not.
  void prefetch(SlotRef ref) const;  // of several, before they are looked at
  bool living(SlotRef ref) const;
  // Nothing that was here before the call is here after it, and every SlotRef of before is stale: a node's
  // next life knows nothing of the last one's ceilings. Workers may go on; a key that they bring meanwhile
  // stays.
  void forget_all();
  // Where the key is, if it is here. Any thread.
  std::optional<SlotRef> ref_of(KeyHash hash) const;

 private:
  friend class Limiter;
  friend struct TableProbe;  // tests/model
  struct Homes {             // the two buckets that a key may be in; the first is its home
    size_t a, b;
  };
  struct alignas(32) Known {
    Word life;  // heard:31 | isolated:1 (bit 32) | generation:32; 0: nothing is known
    Word used;  // window:32 | elsewhere:32
    Word tat;
    Word exhausted;
  };

  // --- the limiter's
  void prefetch(KeyHash hash) const;
  // The index of the slot that likely has the key, kNoPlace where there is none.
  uint32_t prefetch_slot(KeyHash hash) const;
  // `place`: where to look first, unless it is kNoPlace.
  Held find(KeyHash hash, uint32_t place = kNoPlace) const;
  Held living_at(size_t index, KeyHash hash) const;
  // The key's slot, which it is given where it has none, under `limit`. Empty only if others hold every place
  // it could have.
  Held find_or_insert(KeyHash hash, uint32_t place, const Limit& limit, const Now& now);
  const Sketch& sketch() const { return *sketch_; }
  // The slot will not be taken for idle before `tick`. To be called before a count for a later window is
  // written.
  void keep_until(Held held, int64_t tick);
  // The same where the window's length is known by its logarithm only.
  void keep_for(Held held, uint32_t window);
  Knowledge knowledge(Held held) const;
  // While a slot is pinned it is given to no other key. For what would do harm on another key: lowering a
  // count, and the first count of a window, which begins with what this key had before. False: the life is
  // over, or too many have pinned it.
  bool pin(Held held);
  void unpin(Held held);
  bool set_noted(Held held);  // true for the one that set it
  static bool noted(Held held);
  bool clear_noted(Held held);

  // --- how keys come and go (slots.cc)
  Homes homes_of(KeyHash hash) const;
  struct Candidates;
  Candidates candidates(KeyHash hash) const;
  template <typename Fits>
  Held find_where(KeyHash hash, Fits fits) const;
  Held insert(KeyHash hash, const Limit& limit, const Now& now);
  Held reserve(Homes homes, KeyHash hash, const Now& now);
  Held reserve_free(size_t bucket, KeyHash hash);
  Held reserve_by_eviction(Homes homes, KeyHash hash, const Now& now);
  Held least_wanted(Homes homes, const Now& now) const;
  bool drain(Held dying, const Now& now);
  void fill(Held reserved, KeyHash hash, const Limit& limit, const Now& now);
  void release(Held reserved);
  void publish(uint64_t committed);
  void set_tag(uint32_t index, uint16_t tag) { tally::set_tag(tags_of(index / kWays), index % kWays, tag); }
  Word* tags_of(size_t bucket) const { return tags_ + bucket * kTagWords; }
  Held hold(SlotRef ref) const;
  uint32_t index_of(Held held) const { return static_cast<uint32_t>(held.slot - slots_); }
  SlotRef ref_of(Held held) const { return {index_of(held), static_cast<uint32_t>(held.key >> 32)}; }

  const uint64_t seed_;
  const size_t buckets_;
  void* mapping_ = nullptr;
  size_t mapping_bytes_ = 0;
  Slot* slots_ = nullptr;
  Word* tags_ = nullptr;     // kTagWords a bucket
  Word* commits_ = nullptr;  // one a bucket: the last insertion of a key whose home it is
  Known* known_ = nullptr;   // one a slot; nullptr alone
  Word* sketch_words_ = nullptr;
  std::optional<Sketch> sketch_;
  alignas(64) Word occupied_{0};
  Word evicted_live_{0};
  Word evicted_idle_{0};
};

}  // namespace tally
