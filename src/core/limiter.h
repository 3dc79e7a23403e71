// The hot path: a decision is one look-up and one compare-and-swap on one cache line.
//
// Thread rule: any thread, each with its own NoteRing. Nothing here allocates, locks, reads a clock or logs.
//
// A node alone runs `take` (the algorithm itself) on the slot. In a fleet every decision is `spend`
// (count + cost <= ceiling) whatever the algorithm; the algorithm lives with the owner of the key, which runs
// it on its ledger. What the cluster thread has to hear of goes into the worker's ring as a Note.
#pragma once

#include <cstdint>
#include <optional>
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
  // An override of the key, which no limiter was asked for (answer_by):
  blocked,
  exempt,  // let through
};

struct Answer {
  Verdict verdict = Verdict::admitted;
  uint32_t limit = 0;
  uint32_t remaining = 0;  // interface: max(ceiling - count, limit - used_fleet as known), within [0, limit]
  Duration retry_after{-1};  // -1: admitted, or never (cost above the limit); starved, isolated: 0, the
                             // caller knows the sync interval
  Duration reset_after{0};   // until all of the limit is there again if nothing more comes
  // Leased tokens were spent: read the clock again before the answer is sent, and if it is not before this,
  // it is a denial (a process may have been stopped in between).
  MonoTime lease_end = MonoTime::max();
  // A low or starved note went into the ring: the cluster thread should look before its next tick.
  bool urgent = false;
  // Fleets: the key's owner could not be asked when this was decided, and how fresh its last word was.
  bool isolated = false;
  uint32_t heard = 0;  // heard_tick; 0: it was never heard of this key
};
static_assert(sizeof(Answer) == 48);

// The answer where there is nothing to count: 0 of 0 left to a blocked key, never to be tried again; all of the rule's limit to an exempt
// one. Requires a treatment other than limited.
// `lasts`: so long, then it may be another; 0: for good.
Answer answer_by(const Applied& applied, Duration lasts = Duration(0));

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
  KeyHash hash;
  WireId id;
  Limit limit;            // the ask's
  uint32_t requests = 1;  // starved: so many, all alike
};
using NoteRing = Ring<Note>;

// What a process has taken to admit by itself (src/client).
struct Portion {
  uint32_t amount = 0;
  Duration lasts{0};   // may be spent so long from `now` on: until the window ends; a bucket's for rule->process_hold
  int64_t window = 0;  // that it was taken in
  bool urgent = false;  // as in an Answer
};

struct WindowState;  // decide.h

class Limiter {
 public:
  // `fleet`: spend under ceilings; otherwise take. Floors are shut in a fleet until open_floors.
  Limiter(SlotTable& slots, bool fleet);

  KeyHash hash(const Rule& rule, std::string_view key) const {
    return hash_key(key, slots_.seed(), rule.table_seed);
  }
  // For a batch of keys: first this for all of them, then prefetch_slot for all, then take.
  void prefetch(KeyHash hash) const;
  void prefetch_slot(KeyHash hash) const;

  // In a fleet starved asks are noted each time, uses once until looked at. `notes` is nullptr alone, and for
  // the retry of an ask that waits: that is noted once, when it begins to.
  Answer take(const Ask& ask, Now now, NoteRing* notes);
  // Fleets. Tells the cluster thread of an ask that found too little without trying it: it stands behind
  // others that wait. Whether it went into the ring.
  bool note_starved(const Ask& ask, Now now, NoteRing& notes);
  // Takes up to `most` of what can be admitted here at once without asking anybody, and of that a quarter (rounded up): others are to find
  // something, too. Who takes it spends it before it lasts no longer. Noted like a take; ask.cost means nothing.
  Portion take_portion(const Ask& ask, uint32_t most, Now now, NoteRing* notes);
  // Names `window` and this table: what was taken in another window, or from a table that is gone, is nobody's to put back. 0 or more.
  int64_t account_of(int64_t window) const { return static_cast<int64_t>(mix(slots_.seed() ^ mix(static_cast<uint64_t>(window))) >> 1); }
  // The answer that take would give now; writes nothing. With ask.cost 0: the state of the key.
  Answer peek(const Ask& ask, Now now) const;

  // Alone only. Gives back up to `n` of what the running window took (a bucket: of what is not yet refilled);
  // returns how much that was. `only_in`: nothing, where another window than this one is counted in.
  uint32_t give(const Ask& ask, uint32_t n, Now now, std::optional<int64_t> only_in = std::nullopt);
  // Alone only. Forgets the key's counts; false where the key is not here.
  bool reset(const Ask& ask, Now now);

  // Fleets. Floors count in windows that begin at `from` or later; floor buckets are empty at
  // `buckets_empty_at` and fill from there (a first life passes a time long past). The largest times shut
  // them. The cluster thread's.
  void open_floors(WallTime from, MonoTime buckets_empty_at);
  // The floor in force for a window. Any thread.
  uint32_t floor_in(const Limit& limit, int64_t window) const;

  bool fleet() const { return fleet_; }
  SlotTable& slots() { return slots_; }
  uint64_t notes_dropped() const {
    return notes_dropped_.load();
  }  // a full ring: noted again at the key's next use

 private:
  friend struct LimiterProbe;  // tools/bench
  // What a decision of a window is made from.
  struct WindowView {
    int64_t window = 0;
    uint64_t word = 0;           // of the cell in use
    uint64_t previous_word = 0;  // of the other
    uint32_t count = 0;
    uint32_t previous = 0;
    bool first = false;          // the key's first count of this window in this life
    bool previous_known = true;  // false: alone, sliding, and `previous` is the sketch's
  };

  WindowView view(Held held, const Ask& ask, WallTime now) const;
  bool look_up(WindowView& view, const Ask& ask, WallTime now) const;
  void begin_window(Held held, const Ask& ask, WindowView& view);
  void decide_alone(const Ask& ask, const WindowView& view, WallTime now, Answer& answer) const;
  bool holds_still(const Ask& ask, const WindowView& view, Held held, const Now& now) const;
  // On the key's slot as it was found. False: the life of the slot is over or others were faster, to be tried
  // again from the look-up on.
  bool take_window(const Ask& ask, Held held, const Now& now, Answer& answer);
  bool take_bucket(const Ask& ask, Held held, const Now& now, Answer& answer);
  bool spend_window(const Ask& ask, Held held, const Now& now, NoteRing* notes, Answer& answer);
  bool spend_bucket(const Ask& ask, Held held, const Now& now, NoteRing* notes, Answer& answer);
  Answer settle(const Ask& ask, const Now& now, NoteRing* notes);
  bool decide(const Ask& ask, Held held, const Now& now, NoteRing* notes, Answer& answer);
  uint32_t give_back(const Ask& ask, uint32_t n, Held held, const Now& now, std::optional<int64_t> only_in, bool& settled);
  bool portion_of_window(const Ask& ask, uint32_t most, Held held, const Now& now, NoteRing* notes, Portion& portion);
  bool portion_of_bucket(const Ask& ask, uint32_t most, Held held, const Now& now, NoteRing* notes, Portion& portion);

  struct LeaseView {
    uint64_t count_word = 0;
    int64_t left = 0;
    MonoTime end{};
  };
  WindowState window_state(const Slot& slot, const WindowView& view, const Limit& limit) const;
  static LeaseView lease_of(const Slot& slot, MonoTime now);
  MonoTime floor_tat(uint64_t word, const Limit& limit) const;
  Answer peek_alone(const Ask& ask, const Now& now) const;
  Answer peek_fleet(const Ask& ask, const Now& now) const;
  bool note_starved(const Ask& ask, Held held, NoteRing* notes);              // whether it went into the ring
  bool note_use(const Ask& ask, Held held, uint64_t count, NoteRing* notes);  // whether that is urgent
  bool push(const Ask& ask, Held held, Note::Kind kind, NoteRing* notes);
  void crowd_out(const Limit& limit, Answer& answer) const;

  SlotTable& slots_;
  const bool fleet_;
  Word floors_from_;       // wall ns
  Word buckets_empty_at_;  // mono ns
  Word notes_dropped_{0};
};

}  // namespace tally
