// The hot path: a decision is one look-up and one compare-and-swap on one cache line.
//
// Thread rule: any thread, each with its own NoteRing. Nothing here allocates, locks, reads a clock or logs.
//
// A node alone runs `take` (the algorithm itself) on the slot. In a fleet every decision is `spend`
// (count + cost <= ceiling) whatever the algorithm; the algorithm lives with the owner of the key, which runs it on
// its ledger. What the cluster thread has to hear of goes into the worker's ring as a Note.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

#include "base/hash.h"
#include "base/ring.h"
#include "base/time.h"
#include "core/rules.h"
#include "core/slots.h"

namespace tally {

// One question. `rule`, `key` and the hash must outlive the call.
struct Ask {
  const Rule* rule = nullptr;
  const Limit* limit = nullptr;  // &rule->limit, or an inline limit
  std::string_view key;
  KeyHash hash;
  uint32_t cost = 1;  // 0: a peek; more than the limit: refused, never possible
};

enum class Verdict : uint8_t {
  admitted,
  over_limit,  // refused: the limit is used up
  starved,     // refused for now: this node has no quota and the owner can still be asked (fleets)
  isolated,    // refused: no quota, and nobody to ask
};

struct Answer {
  Verdict verdict = Verdict::admitted;
  uint32_t limit = 0;
  uint32_t remaining = 0;     // interface: max(ceiling - count, limit - used_fleet as known), within [0, limit]
  Duration retry_after{-1};   // -1: was admitted, or never (cost above the limit)
  Duration reset_after{0};    // until all of the limit is there again if nothing more comes
};

// Worker to cluster thread: a key that was used or found too little.
struct Note {
  enum class Kind : uint8_t {
    used,     // first use since the cluster thread looked last
    low,      // the count passed its ask mark
    starved,  // a request found too little; `cost` is what it wanted
  };
  Kind kind = Kind::used;
  uint16_t rule = 0;  // RuleSet id
  uint32_t cost = 0;
  SlotRef slot;
  WireId id;
  Limit limit;
};
using NoteRing = Ring<Note>;

class Limiter {
 public:
  // `fleet`: spend under ceilings; otherwise take. Floors are shut in a fleet until open_floors.
  Limiter(SlotTable& slots, bool fleet);

  KeyHash hash(const Rule& rule, std::string_view key) const { return hash_key(key, slots_.seed(), rule.seed); }
  void prefetch(KeyHash hash) const;

  // `notes` is required in a fleet, ignored alone. Starved asks are noted each time, uses once until looked at.
  Answer take(const Ask& ask, Now now, NoteRing* notes);
  // The answer that take would give now; writes nothing. With ask.cost 0: the state of the key.
  Answer peek(const Ask& ask, Now now) const;

  // Alone only. Gives back up to `n` of what the running window took (a bucket: of what is not yet refilled); returns
  // how much that was.
  uint32_t give(const Ask& ask, uint32_t n, Now now);
  // Alone only. Forgets the key's counts; false where the key is not here.
  bool reset(const Ask& ask, Now now);

  // Fleets. Floors count in windows that begin at `from` or later; floor buckets are empty at `buckets_empty_at` and
  // fill from there (a first life passes a time long past). Called once by the cluster thread.
  void open_floors(WallTime from, MonoTime buckets_empty_at);
  // The floor in force for a window. Any thread.
  uint32_t floor_in(const Limit& limit, int64_t window) const;

  bool fleet() const { return fleet_; }
  SlotTable& slots() { return slots_; }
  uint64_t notes_dropped() const;  // a full ring: the key is noted again at its next use

 private:
  SlotTable& slots_;
  const bool fleet_;
};

}  // namespace tally
