// A node alone: the algorithm itself, on the slot. What a fleet does instead is in limiter_fleet.cc.
//
// Every change is one compare-and-swap, after which the slot's key word is read again: if the life is over
// the cost is lost on whoever has the cell now, and the decision starts over (slots.cc).
#include "core/limiter.h"

#include <algorithm>

#include "core/decide.h"
#include "core/slots_find.h"
#include "core/slots_layout.h"
#include "core/windows.h"

namespace tally {

namespace {
constexpr uint64_t kShut = INT64_MAX;
}

Answer answer_by(const Applied& applied, Duration lasts) {
  Answer answer;
  const bool exempt = applied.treatment == Treatment::exempt;
  answer.verdict = exempt ? Verdict::exempt : Verdict::blocked;
  answer.limit = answer.remaining = exempt ? applied.limit->limit : 0;
  if (!exempt && lasts > Duration(0)) answer.retry_after = answer.reset_after = lasts;
  return answer;
}

Limiter::Limiter(SlotTable& slots, bool fleet)
    : slots_(slots), fleet_(fleet), floors_from_(kShut), buckets_empty_at_(kShut) {}

void Limiter::prefetch(KeyHash hash) const { slots_.prefetch(hash); }
void Limiter::prefetch_slot(KeyHash hash) const { slots_.prefetch_slot(hash); }

Answer Limiter::take(const Ask& ask, Now now, NoteRing* notes) {
  if (ask.cost == 0 || ask.cost > ask.limit->limit) return peek(ask, now);
  return settle(ask, now, notes);
}

// One answer from beginning to end, so that it is made where the caller wants it and never copied. Flat, as
// all of this is: an instruction that waits for a slot to come from memory holds a place that the next
// decision could use meanwhile.
[[gnu::flatten]] Answer Limiter::settle(const Ask& ask, const Now& now, NoteRing* notes) {
  Answer answer;
  for (int tries = 0; tries < kDecisionTries; ++tries) {
    const Held held = slots_.find_or_insert(ask.hash, *ask.limit, now);
    if (!held) break;
    if (decide(ask, held, now, notes, answer)) return answer;
  }
  crowd_out(*ask.limit, answer);
  return answer;
}

[[gnu::flatten]] bool Limiter::decide(const Ask& ask, Held held, const Now& now, NoteRing* notes,
                                      Answer& answer) {
  const bool bucket = ask.limit->algorithm == Algorithm::token_bucket;
  if (fleet_)
    return bucket ? spend_bucket(ask, held, now, notes, answer) : spend_window(ask, held, now, notes, answer);
  return bucket ? take_bucket(ask, held, now, answer) : take_window(ask, held, now, answer);
}

Answer Limiter::peek(const Ask& ask, Now now) const {
  if (ask.cost > ask.limit->limit) {
    Ask state = ask;
    state.cost = 0;
    return refused_for_ever(peek(state, now));
  }
  return fleet_ ? peek_fleet(ask, now) : peek_alone(ask, now);
}

Answer Limiter::peek_alone(const Ask& ask, const Now& now) const {
  Answer answer;
  for (;;) {
    const Held held = slots_.find(ask.hash);
    if (ask.limit->algorithm == Algorithm::token_bucket) {
      MonoTime tat = held ? arrival_of(held.slot->count[0].load()) : slots_.sketch().arrival(ask.hash.hi);
      decide_bucket(*ask.limit, tat, ask.cost, now.mono, answer);
    } else {
      decide_alone(ask, view(held, ask, now.wall), now.wall, answer);
    }
    if (!held || held.still()) return answer;
  }
}

// The window to decide in and what was counted there; of a slot, or of a key that has none.
//
// A cell that is ahead of this worker's clock was written by a faster one: the decision is made in that
// window, as if the clock had already reached it, and every window number keeps its bound. In a fleet only
// the cell in use says so: the other may have been begun ahead of time, by a return. The cell in use is read
// before the one before it, so that the latter is final (see holds_still).
Limiter::WindowView Limiter::view(Held held, const Ask& ask, WallTime now) const {
  WindowView v;
  v.window = window_at(now, ask.limit->window);
  for (;;) {
    const auto tag = static_cast<uint32_t>(v.window);
    const uint32_t parity = tag & 1, before = parity ^ 1;
    v.word = held ? held.slot->count[parity].load() : fresh_count(parity, v.window);
    v.previous_word = held ? held.slot->count[before].load() : fresh_count(before, v.window);
    const Cell cell = Cell::of(v.word), other = Cell::of(v.previous_word);
    uint32_t further = ahead(cell.tag, parity, tag);
    if (!fleet_) further = std::max(further, ahead(other.tag, before, tag));
    if (further != 0) {  // a branch, so that what follows does not wait for this sum
      v.window += further;
      continue;
    }
    v.first = cell.tag != tag;
    v.count = v.first ? 0 : cell.value;
    v.previous_known = other.tag == tag - 1 || fleet_ || ask.limit->algorithm != Algorithm::sliding_window;
    v.previous = other.tag == tag - 1 ? other.value : 0;
    if (!slots_.sketch().forgets() || (!v.first && v.previous_known)) {
      v.previous_known = true;
      return v;
    }
    if (look_up(v, ask, now)) return v;
  }
}

// The first count of a window: an earlier life of the key may have been counted there. False where that could
// have been forgotten: by a clock that was seen evicting, the window is over. Then the decision is made in
// that clock's window.
[[gnu::noinline]] bool Limiter::look_up(WindowView& v, const Ask& ask, WallTime now) const {
  const Sketch& sketch = slots_.sketch();
  const uint32_t most = fleet_ ? ask.limit->floor : kLimitMax;
  const auto tag = static_cast<uint32_t>(v.window);
  if (v.first) v.count = std::min(sketch.count(ask.hash.hi, tag), most);
  if (!v.previous_known) v.previous = std::min(sketch.count(ask.hash.hi, tag - 1), most);
  const int64_t newest = window_at(std::max(now, sketch.newest_wall()), ask.limit->window);
  if (newest <= v.window) return true;
  v.window = newest;
  return false;
}

// Writes down what the first count of a window begins with; the caller looks again. An exchange that was
// prepared for another key could begin this key's window without its past: hence the pin.
[[gnu::noinline]] void Limiter::begin_window(Held held, const Ask& ask, WindowView& v) {
  if (!slots_.pin(held)) return;
  const auto tag = static_cast<uint32_t>(v.window);
  Word* count = held.slot->count;
  slots_.keep_until(held, last_tick(*ask.limit, v.window));
  if (!v.previous_known)
    count[(tag & 1) ^ 1].compare_exchange_strong(v.previous_word, Cell{tag - 1, v.previous}.word());
  if (v.first) count[tag & 1].compare_exchange_strong(v.word, Cell{tag, v.count}.word());
  slots_.unpin(held);
}

void Limiter::decide_alone(const Ask& ask, const WindowView& v, WallTime now, Answer& answer) const {
  if (ask.limit->algorithm == Algorithm::fixed_window)
    decide_fixed(*ask.limit, v.count, ask.cost, v.window, now, answer);
  else
    decide_sliding(*ask.limit, v.previous, v.count, ask.cost, v.window, now, answer);
}

// After the cost was written: was the decision still right by then? A sliding window rests on two cells and
// swaps one. If the window has been left meanwhile, or the one before it has grown so that the cost would not
// have fitted, the cost is lost and the decision starts over.
bool Limiter::holds_still(const Ask& ask, const WindowView& v, Held held, const Now& now) const {
  if (ask.limit->algorithm == Algorithm::sliding_window) {
    const auto tag = static_cast<uint32_t>(v.window);
    const uint64_t word = held.slot->count[(tag & 1) ^ 1].load();
    if (word != v.previous_word) {
      WindowView later = v;
      const Cell other = Cell::of(word);
      later.previous = other.tag == tag - 1 ? other.value : 0;
      Answer answer;
      decide_alone(ask, later, now.wall, answer);
      if (ahead(other.tag, (tag & 1) ^ 1, tag) != 0 || answer.verdict != Verdict::admitted) return false;
    }
  }
  return held.still();
}

bool Limiter::take_window(const Ask& ask, Held held, const Now& now, Answer& answer) {
  WindowView v = view(held, ask, now.wall);
  decide_alone(ask, v, now.wall, answer);
  if (answer.verdict != Verdict::admitted) return held.still();
  if (v.first || !v.previous_known) {
    begin_window(held, ask, v);
    return false;
  }
  const auto tag = static_cast<uint32_t>(v.window);
  const uint64_t next = Cell{tag, v.count + ask.cost}.word();
  return held.slot->count[tag & 1].compare_exchange_strong(v.word, next) && holds_still(ask, v, held, now);
}

bool Limiter::take_bucket(const Ask& ask, Held held, const Now& now, Answer& answer) {
  uint64_t word = held.slot->count[0].load();
  MonoTime tat = arrival_of(word);
  decide_bucket(*ask.limit, tat, ask.cost, now.mono, answer);
  if (answer.verdict == Verdict::admitted &&
      !held.slot->count[0].compare_exchange_strong(word, arrival_word(tat)))
    return false;
  return held.still();
}

// Lowers a count, which must not land on another key: the slot is pinned. `settled`: false to try again.
uint32_t Limiter::give_back(const Ask& ask, uint32_t n, Held held, const Now& now, std::optional<int64_t> only_in,
                            bool& settled) {
  const Limit& limit = *ask.limit;
  Slot& slot = *held.slot;
  uint32_t given = 0;
  if (limit.algorithm == Algorithm::token_bucket) {
    uint64_t word = slot.count[0].load();
    const Duration busy = arrival_of(word) - std::min(now.mono, arrival_of(word));
    const int64_t taken = (nanos(busy) + nanos(limit.emission) - 1) / nanos(limit.emission);
    given = static_cast<uint32_t>(std::min<int64_t>(n, taken));
    const MonoTime tat = std::max(arrival_of(word) - limit.emission * static_cast<int64_t>(given), now.mono);
    settled = given == 0 || slot.count[0].compare_exchange_strong(word, arrival_word(tat));
  } else {
    WindowView v = view(held, ask, now.wall);
    const auto tag = static_cast<uint32_t>(v.window);
    given = only_in.value_or(v.window) == v.window ? std::min(n, v.count) : 0;
    if (given != 0 && v.first) {
      begin_window(held, ask, v);
      return 0;
    }
    settled =
        given == 0 || slot.count[tag & 1].compare_exchange_strong(v.word, Cell{tag, v.count - given}.word());
  }
  return given;
}

uint32_t Limiter::give(const Ask& ask, uint32_t n, Now now, std::optional<int64_t> only_in) {
  n = std::min(n, ask.limit->limit);
  if (fleet_ || n == 0) return 0;
  for (;;) {
    const Held held = slots_.find(ask.hash);
    if (!held) return 0;
    if (!slots_.pin(held)) {
      if (held.still()) return 0;  // too many are giving back at once
      continue;
    }
    bool settled = false;
    const uint32_t given = give_back(ask, n, held, now, only_in, settled);
    slots_.unpin(held);
    // Evicted meanwhile, it may or may not be in what was remembered: not given twice.
    if (settled) return given;
  }
}

bool Limiter::reset(const Ask& ask, Now now) {
  if (fleet_) return false;
  for (;;) {
    const Held held = slots_.find(ask.hash);
    if (!held) return false;
    if (!slots_.pin(held)) {
      if (held.still()) return false;
      continue;
    }
    Slot& slot = *held.slot;
    if (ask.limit->algorithm == Algorithm::token_bucket) {
      uint64_t word = slot.count[0].load();
      const uint64_t full = arrival_word(std::min(arrival_of(word), now.mono));
      while (!slot.count[0].compare_exchange_weak(word, full)) {
      }
    } else {
      for (Word& count : slot.count) {
        uint64_t word = count.load();
        while (!count.compare_exchange_weak(word, Cell{Cell::of(word).tag, 0}.word())) {
        }
      }
    }
    slots_.unpin(held);
    return true;
  }
}

void Limiter::open_floors(WallTime from, MonoTime buckets_empty_at) {
  floors_from_.store(static_cast<uint64_t>(nanos(from)));
  buckets_empty_at_.store(static_cast<uint64_t>(nanos(buckets_empty_at)));
}

uint32_t Limiter::floor_in(const Limit& limit, int64_t window) const {
  if (limit.floor == 0) return 0;
  // The window may be any number, the time the end of all time.
  return window_start_wide(window, limit.window) >= static_cast<int64_t>(floors_from_.load()) ? limit.floor : 0;
}

// Every place that the key could have is held by others at this moment, or it was taken from the key again
// each time before it could be counted. That takes more threads than a bucket has slots. Denied.
void Limiter::crowd_out(const Limit& limit, Answer& answer) const {
  answer = {};
  answer.verdict = fleet_ ? Verdict::starved : Verdict::over_limit;
  answer.limit = limit.limit;
  answer.retry_after = Duration(fleet_ ? 0 : 1'000'000);
}

}  // namespace tally
