// The slot table: one cache line a key, shared by every thread, no lock and no allocation after construction.
//
// Thread rule: every call may be made from any thread, except those under "the cluster thread's", which one
// thread at a time makes. All words of a slot are atomic.
//
// A slot holds, for a key under a window:
//   hash (2 words) | two count cells | two ceiling cells | generation, flags | ask mark, last use
// A cell is (window number mod 2^32, value); which of the two is in use is the window's parity, so rolling over is
// the same compare-and-swap as counting, and the window before can still be read. `count` is used + returned,
// `ceiling` is floor + granted + refunded; a decision is count + cost <= ceiling; neither ever falls within a window.
// A cell whose tag is not the window's stands for count 0, and ceiling = the floor.
//
// For a token bucket the same words hold: the arrival time of the plain or the floor bucket (TAT, monotonic ns; count
// cell 0), the lease's count and ceiling (8-bit lease tag, 56-bit nanoseconds; count cell 1, ceiling cell 0) and the
// lease's end (monotonic ns; ceiling cell 1).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/hash.h"
#include "base/time.h"
#include "core/rules.h"

namespace tally {

// A slot and the life of its key in it. Stale once the key was evicted: every call then says so and changes nothing.
struct SlotRef {
  uint32_t index = 0;
  uint32_t generation = 0;  // never 0 in a living slot
  friend bool operator==(const SlotRef&, const SlotRef&) = default;
};

// What the cluster thread knows of a key beyond this node; written by it, read by workers (fleets only).
struct Knowledge {
  uint32_t window = 0;          // tag of the window that `elsewhere` belongs to
  uint32_t elsewhere = 0;       // windows: used by the rest of the fleet, as known, less what this node returned
  MonoTime tat{};               // buckets: the owner's arrival time, as known, on this node's clock
  MonoTime exhausted_until{};   // ask nothing and wait for nothing before; epoch: not exhausted
  bool isolated = false;        // no grant backed by a majority for isolation_after
};

class SlotTable;  // see below; Slot is its private layout
struct Slot;

class SlotTable {
 public:
  // Reserves and pre-faults room for `keys` keys at a load of 0.9; `seed` seeds the hash. `with_knowledge`: fleets.
  SlotTable(size_t keys, uint64_t seed, bool with_knowledge);
  ~SlotTable();
  SlotTable(const SlotTable&) = delete;
  SlotTable& operator=(const SlotTable&) = delete;

  uint64_t seed() const { return seed_; }
  size_t capacity() const;  // slots
  size_t occupied() const;  // slots that hold a key
  uint64_t evicted_live() const;
  uint64_t evicted_idle() const;

  // --- the cluster thread's ---------------------------------------------------------------------------------------
  // Each returns false (or nullopt) and changes nothing where `ref` is stale.

  // Windows. `window` is the tag (number mod 2^32). count: 0 where the cell holds another window.
  std::optional<uint32_t> count(SlotRef ref, uint32_t window) const;
  // The ceiling in the cell, nullopt also where none was raised for that window (it is the floor then).
  std::optional<uint32_t> ceiling(SlotRef ref, uint32_t window) const;
  // Sets the ceiling to the larger of `ceiling` and what is there. A cell that holds a later window is left alone.
  bool raise_ceiling(SlotRef ref, uint32_t window, uint32_t ceiling);
  // A return is a take: raises the count by compare-and-swap so that at most `leave` stays unspent under `ceiling`,
  // and returns by how much it was raised (0: nothing to take, or stale). Requires the ceiling in force.
  uint32_t take_back(SlotRef ref, uint32_t window, uint32_t ceiling, uint32_t leave);

  // Buckets. Amounts in nanoseconds of emission.
  struct Lease {
    uint8_t tag = 0;
    int64_t count = 0;
    int64_t ceiling = 0;
    MonoTime end{};
  };
  std::optional<Lease> lease(SlotRef ref) const;
  // Starts lease `tag` at count 0 and returns the final count of the lease before it (the old lease ends at once).
  std::optional<int64_t> open_lease(SlotRef ref, uint8_t tag, int64_t ceiling, MonoTime end);
  // Raises ceiling and end of the running lease `tag`; false also where another lease runs.
  bool raise_lease(SlotRef ref, uint8_t tag, int64_t ceiling, MonoTime end);
  // As take_back, for the running lease.
  int64_t take_back_lease(SlotRef ref, uint8_t tag, int64_t leave);

  bool set_knowledge(SlotRef ref, const Knowledge& knowledge);
  // A worker notes a key as soon as its count (windows) or lease count (buckets) passes `count`, once until the next
  // call of set_ask_at. 0xffffffff...: never.
  bool set_ask_at(SlotRef ref, uint64_t count);
  // Workers note a key at its first use after this.
  bool clear_noted(SlotRef ref);
  // The key is known to the cluster thread; a key in use by it is evicted after those that are not.
  bool living(SlotRef ref) const;

 private:
  friend class Limiter;
  const uint64_t seed_;
};

}  // namespace tally
