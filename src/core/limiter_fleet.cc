// A node of a fleet: count + cost <= ceiling, whatever the algorithm.
#include <algorithm>

#include "core/decide.h"
#include "core/limiter.h"
#include "core/slots_find.h"
#include "core/slots_layout.h"
#include "core/windows.h"

namespace tally {

WindowState Limiter::window_state(const Slot& slot, const WindowView& v, const Limit& limit) const {
  const auto tag = static_cast<uint32_t>(v.window);
  const Cell ceiling = Cell::of(slot.ceiling[tag & 1].load());
  return {v.window, v.previous, v.count, ceiling.tag == tag ? ceiling.value : floor_in(limit, v.window)};
}

bool Limiter::spend_window(const Ask& ask, Held held, const Now& now, NoteRing* notes, Answer& answer) {
  const Limit& limit = *ask.limit;
  Slot& slot = *held.slot;
  WindowView v = view(held, ask, now.wall);
  decide_spend(limit, window_state(slot, v, limit), slots_.knowledge(held), ask.cost, now, answer);
  if (answer.verdict != Verdict::admitted) {
    if (!held.still()) return false;
    if (answer.verdict == Verdict::starved) answer.urgent = note_starved(ask, held, notes);
    return true;
  }
  if (v.first) {
    begin_window(held, ask, v);
    return false;
  }
  const auto tag = static_cast<uint32_t>(v.window);
  const uint32_t count = v.count + ask.cost;
  if (!slot.count[tag & 1].compare_exchange_strong(v.word, Cell{tag, count}.word()) || !held.still())
    return false;
  answer.urgent = note_use(ask, held, count, notes);
  return true;
}

// Ceiling, end, count, in this order: see SlotTable::open_lease.
Limiter::LeaseView Limiter::lease_of(const Slot& slot, MonoTime now) {
  LeaseView lease;
  const LeaseCell ceiling = LeaseCell::of(slot.ceiling[0].load());
  lease.end = arrival_of(slot.ceiling[1].load());
  lease.count_word = slot.count[1].load();
  const LeaseCell count = LeaseCell::of(lease.count_word);
  if (ceiling.tag == count.tag && now < lease.end)
    lease.left = std::max<int64_t>(ceiling.amount - count.amount, 0);
  return lease;
}

// The floor bucket can hold no more than what came in since all were empty.
MonoTime Limiter::floor_tat(uint64_t word, const Limit& limit) const {
  const MonoTime empty_at = arrival_of(buckets_empty_at_.load());
  const bool shut = empty_at > MonoTime::max() - limit.burst_span();
  return shut ? MonoTime::max() : std::max(arrival_of(word), empty_at + limit.burst_span());
}

bool Limiter::spend_bucket(const Ask& ask, Held held, const Now& now, NoteRing* notes, Answer& answer) {
  const Limit& limit = *ask.limit;
  Slot& slot = *held.slot;
  LeaseView lease = lease_of(slot, now.mono);
  uint64_t floor_word = slot.count[0].load();
  const BucketState state{lease.left, lease.end, floor_tat(floor_word, limit)};
  const BucketDecision decision = decide_spend(limit, state, slots_.knowledge(held), ask.cost, now, answer);
  LeaseCell count = LeaseCell::of(lease.count_word);
  bool written = true;
  if (decision.purse == Purse::lease) {
    count.amount += nanos(limit.emission) * static_cast<int64_t>(ask.cost);
    written = slot.count[1].compare_exchange_strong(lease.count_word, count.word());
  } else if (decision.purse == Purse::floor) {
    written = slot.count[0].compare_exchange_strong(floor_word, arrival_word(decision.floor_tat));
  }
  if (!written || !held.still()) return false;
  if (decision.purse != Purse::none)
    answer.urgent = note_use(ask, held, static_cast<uint64_t>(count.amount), notes);
  else if (answer.verdict == Verdict::starved)
    answer.urgent = note_starved(ask, held, notes);
  return true;
}

Answer Limiter::peek_fleet(const Ask& ask, const Now& now) const {
  const Limit& limit = *ask.limit;
  Answer answer;
  for (;;) {
    const Held held = slots_.find(ask.hash);
    const Knowledge knowledge = held ? slots_.knowledge(held) : Knowledge{};
    if (limit.algorithm == Algorithm::token_bucket) {
      const LeaseView lease = held ? lease_of(*held.slot, now.mono) : LeaseView{};
      const uint64_t word =
          held ? held.slot->count[0].load() : arrival_word(slots_.sketch().arrival(ask.hash.hi));
      const BucketState state{lease.left, lease.end, floor_tat(word, limit)};
      decide_spend(limit, state, knowledge, ask.cost, now, answer);
    } else {
      const WindowView v = view(held, ask, now.wall);
      const WindowState state = held ? window_state(*held.slot, v, limit)
                                     : WindowState{v.window, v.previous, v.count, floor_in(limit, v.window)};
      decide_spend(limit, state, knowledge, ask.cost, now, answer);
    }
    if (!held || held.still()) return answer;
  }
}

bool Limiter::note_starved(const Ask& ask, Now now, NoteRing& notes) {
  const Held held = slots_.find_or_insert(ask.hash, ask.place, *ask.limit, now);
  return held && note_starved(ask, held, &notes);
}

// Marked first: a slot that is noted is not idle, whatever its cells say, so it is still there when the note
// is taken.
bool Limiter::note_starved(const Ask& ask, Held held, NoteRing* notes) {
  const bool marked = notes != nullptr && slots_.set_noted(held);
  if (push(ask, held, Note::Kind::starved, notes)) return true;
  if (marked) slots_.clear_noted(held);
  return false;
}

// Counted first, looked at the marks after: the cluster thread clears the mark first and reads the count
// after, so one of the two sees the other.
bool Limiter::note_use(const Ask& ask, Held held, uint64_t count, NoteRing* notes) {
  if (!SlotTable::noted(held) && slots_.set_noted(held) && !push(ask, held, Note::Kind::used, notes))
    slots_.clear_noted(held);
  Word& mark = held.slot->ask_at;
  uint64_t ask_at = mark.load();
  if (count <= ask_at || !mark.compare_exchange_strong(ask_at, UINT64_MAX)) return false;
  if (push(ask, held, Note::Kind::low, notes)) return true;
  uint64_t never = UINT64_MAX;
  mark.compare_exchange_strong(never, ask_at);  // not said, so still to be said
  return false;
}

bool Limiter::push(const Ask& ask, Held held, Note::Kind kind, NoteRing* notes) {
  if (notes == nullptr) return false;  // a retry
  const WireId id = wire_id(ask.key, ask.rule->id_key);
  if (notes->push({kind, ask.rule->id, ask.cost, slots_.ref_of(held), ask.hash, id, *ask.limit})) return true;
  notes_dropped_.fetch_add(1, std::memory_order_relaxed);  // a figure for people
  return false;
}

}  // namespace tally
