// A node alone: the algorithm itself, on the slot. What a fleet does instead is in limiter_fleet.cc.
//
// Every change is one compare-and-swap, after which the slot's key word is read again: if the life is over
// the cost is lost on whoever has the cell now, and the decision starts over (slots.cc).
#include "core/limiter.h"

#include <algorithm>

#include "core/decide.h"
#include "core/slots_layout.h"
#include "core/windows.h"

namespace tally {

namespace {
constexpr uint64_t kShut = INT64_MAX;
}

Limiter::Limiter(SlotTable& slots, bool fleet)
    : slots_(slots), fleet_(fleet), floors_from_(kShut), buckets_empty_at_(kShut) {}

Answer Limiter::take(const Ask& ask, Now now, NoteRing* notes) {
  if (ask.cost == 0) return peek(ask, now);
  if (ask.cost > ask.limit->limit) {
    Ask state = ask;
    state.cost = 0;
    return refused_for_ever(peek(state, now));
  }
  const bool bucket = ask.limit->algorithm == Algorithm::token_bucket;
  if (fleet_) return bucket ? spend_bucket(ask, now, notes) : spend_window(ask, now, notes);
  return bucket ? take_bucket(ask, now) : take_window(ask, now);
}

Answer Limiter::peek(const Ask& ask, Now now) const {
  if (ask.cost > ask.limit->limit) {
    Ask state = ask;
    state.cost = 0;
    return refused_for_ever(peek(state, now));
  }
  if (fleet_) return peek_fleet(ask, now);
  for (;;) {
    const Held held = slots_.find(ask.hash);
    // What it would begin with; copied into words, so that one function reads both.
    const Beginning begin = held ? Beginning{} : slots_.beginning(ask.hash, newcomer(ask, now));
    const Word fresh[2] = {begin.count[0], begin.count[1]};
    const Word* counts = held ? held.slot->count : fresh;
    Answer answer;
    if (ask.limit->algorithm == Algorithm::token_bucket) {
      MonoTime tat = arrival_of(counts[0].load());
      answer = decide_bucket(*ask.limit, tat, ask.cost, now.mono);
    } else {
      answer = decide_alone(ask, view(counts, *ask.limit, now.wall), now.wall);
    }
    if (!held || held.still()) return answer;
  }
}

// The window in use is read before the one before it, so that the latter is final (see holds_still). A cell
// that is ahead of this worker's clock was written by a faster one: the decision is made in that window, as
// if the clock had already reached it, and every window number keeps its bound. In a fleet only the cell in
// use says so: the other may have been begun ahead of time, by a return.
Limiter::WindowView Limiter::view(const Word* counts, const Limit& limit, WallTime now) const {
  WindowView v;
  for (v.window = window_at(now, limit.window);;) {
    const auto tag = static_cast<uint32_t>(v.window);
    v.word = counts[tag & 1].load();
    v.previous_word = counts[(tag & 1) ^ 1].load();
    const Cell cell = Cell::of(v.word), other = Cell::of(v.previous_word);
    uint32_t further = ahead(cell.tag, tag);
    if (!fleet_) further = std::max(further, ahead(other.tag, tag));
    v.window += further;
    if (further != 0) continue;
    v.count = cell.tag == tag ? cell.value : 0;
    v.previous = other.tag == tag - 1 ? other.value : 0;
    return v;
  }
}

Answer Limiter::decide_alone(const Ask& ask, const WindowView& v, WallTime now) const {
  if (ask.limit->algorithm == Algorithm::fixed_window)
    return decide_fixed(*ask.limit, v.count, ask.cost, v.window, now);
  return decide_sliding(*ask.limit, v.previous, v.count, ask.cost, v.window, now);
}

// After the cost was written: was the decision still right by then? A sliding window rests on two cells and
// swaps one. If the window has been left meanwhile, or the one before it has grown so that the cost would not
// have fitted, the cost is lost and the decision starts over.
bool Limiter::holds_still(const Ask& ask, const WindowView& v, const Held& held, Now now) const {
  if (ask.limit->algorithm == Algorithm::sliding_window) {
    const auto tag = static_cast<uint32_t>(v.window);
    const uint64_t word = held.slot->count[(tag & 1) ^ 1].load();
    if (word != v.previous_word) {
      WindowView later = v;
      const Cell other = Cell::of(word);
      later.previous = other.tag == tag - 1 ? other.value : 0;
      if (ahead(other.tag, tag) != 0 || decide_alone(ask, later, now.wall).verdict != Verdict::admitted)
        return false;
    }
  }
  return held.still();
}

Answer Limiter::take_window(const Ask& ask, Now now) {
  const Limit& limit = *ask.limit;
  for (;;) {
    const Held held = slots_.find_or_insert(ask.hash, newcomer(ask, now));
    if (!held) return crowded_out(limit, Verdict::over_limit);
    WindowView v = view(held.slot->count, limit, now.wall);
    const Answer answer = decide_alone(ask, v, now.wall);
    if (answer.verdict != Verdict::admitted) {
      if (held.still()) return answer;
      continue;
    }
    const auto tag = static_cast<uint32_t>(v.window);
    if (Cell::of(v.word).tag != tag) slots_.keep_until(held, last_tick(limit, v.window));
    const uint64_t next = Cell{tag, v.count + ask.cost}.word();
    if (held.slot->count[tag & 1].compare_exchange_strong(v.word, next) && holds_still(ask, v, held, now))
      return answer;
  }
}

Answer Limiter::take_bucket(const Ask& ask, Now now) {
  for (;;) {
    const Held held = slots_.find_or_insert(ask.hash, newcomer(ask, now));
    if (!held) return crowded_out(*ask.limit, Verdict::over_limit);
    uint64_t word = held.slot->count[0].load();
    MonoTime tat = arrival_of(word);
    const Answer answer = decide_bucket(*ask.limit, tat, ask.cost, now.mono);
    const bool admitted = answer.verdict == Verdict::admitted;
    if (admitted && !held.slot->count[0].compare_exchange_strong(word, arrival_word(tat))) continue;
    if (held.still()) return answer;
  }
}

// Lowers a count, which must not land on another key: the slot is pinned. `settled`: false to try again.
uint32_t Limiter::give_back(const Ask& ask, uint32_t n, const Held& held, Now now, bool& settled) {
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
    WindowView v = view(slot.count, limit, now.wall);
    const auto tag = static_cast<uint32_t>(v.window);
    given = std::min(n, v.count);
    settled =
        given == 0 || slot.count[tag & 1].compare_exchange_strong(v.word, Cell{tag, v.count - given}.word());
  }
  return given;
}

uint32_t Limiter::give(const Ask& ask, uint32_t n, Now now) {
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
    const uint32_t given = give_back(ask, n, held, now, settled);
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
  // In 128 bits: the window may be any number, the time the end of all time.
  const auto start = static_cast<__int128>(window) * nanos(limit.window);
  return start >= static_cast<int64_t>(floors_from_.load()) ? limit.floor : 0;
}

// Every place that the key could have is held by others at this moment, which takes more threads than a
// bucket has slots. Denied.
Answer Limiter::crowded_out(const Limit& limit, Verdict verdict) {
  Answer answer;
  answer.verdict = verdict;
  answer.limit = limit.limit;
  answer.retry_after = verdict == Verdict::over_limit ? Duration(1'000'000) : Duration(0);
  return answer;
}

}  // namespace tally
