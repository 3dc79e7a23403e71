// What a process takes to admit by itself: as much as is there, up to what it wants, in one exchange.
#include <algorithm>

#include "core/decide.h"
#include "core/limiter.h"
#include "core/slots_find.h"
#include "core/slots_layout.h"
#include "core/windows.h"

namespace tally {
namespace {

constexpr uint64_t kPart = 4;

// Of `there`, for one process that wants `most`.
uint32_t part_of(uint64_t there, uint32_t most) {
  return static_cast<uint32_t>(std::min<uint64_t>(most, (there + kPart - 1) / kPart));
}

}  // namespace

Portion Limiter::take_portion(const Ask& ask, uint32_t most, Now now, NoteRing* notes) {
  Portion portion;
  for (int tries = 0; tries < kDecisionTries; ++tries) {
    const Held held = slots_.find_or_insert(ask.hash, ask.place, *ask.limit, now);
    if (!held) break;
    const bool settled = ask.limit->algorithm == Algorithm::token_bucket
                             ? portion_of_bucket(ask, most, held, now, notes, portion)
                             : portion_of_window(ask, most, held, now, notes, portion);
    if (settled) return portion;
  }
  return {};
}

// False to try again.
bool Limiter::portion_of_window(const Ask& ask, uint32_t most, Held held, const Now& now, NoteRing* notes,
                                Portion& portion) {
  const Limit& limit = *ask.limit;
  WindowView v = view(held, ask, now.wall);
  const auto tag = static_cast<uint32_t>(v.window);
  Ask part = ask;
  part.cost = 0;
  if (fleet_) {
    const WindowState state = window_state(*held.slot, v, limit);
    part.cost = part_of(state.ceiling > state.count ? state.ceiling - state.count : 0, most);
  } else {
    Answer there;
    decide_alone(part, v, now.wall, there);
    part.cost = part_of(there.remaining, most);
  }
  portion = {part.cost, window_end(v.window, limit.window) - now.wall, v.window};
  if (part.cost == 0) return held.still();
  if (v.first || !v.previous_known) {
    begin_window(held, ask, v);
    return false;
  }
  const uint32_t count = v.count + part.cost;
  if (!held.slot->count[tag & 1].compare_exchange_strong(v.word, Cell{tag, count}.word())) return false;
  if (fleet_ ? !held.still() : !holds_still(part, v, held, now)) return false;
  if (fleet_) portion.urgent = note_use(ask, held, count, notes);
  return true;
}

// In a fleet of a lease alone: a floor bucket is what this node has for those who ask it. The lease's end means nothing to who holds a part of
// it: what was taken before the end is counted as spent, and what is spent later than taken was taken off the burst.
bool Limiter::portion_of_bucket(const Ask& ask, uint32_t most, Held held, const Now& now, NoteRing* notes,
                                Portion& portion) {
  const Limit& limit = *ask.limit;
  portion = {0, ask.rule->process_hold, 0};
  // What processes hold is taken off the rule's burst, and off none of an override.
  if (portion.lasts <= Duration(0) || limit != ask.rule->limit) return true;
  if (!fleet_) {
    uint64_t word = held.slot->count[0].load();
    MonoTime tat = arrival_of(word);
    Answer there;
    decide_bucket(limit, tat, 0, now.mono, there);
    portion.amount = part_of(there.remaining, most);
    tat = std::max(arrival_of(word), now.mono) + limit.emission * static_cast<int64_t>(portion.amount);
    return (portion.amount == 0 || held.slot->count[0].compare_exchange_strong(word, arrival_word(tat))) &&
           held.still();
  }
  LeaseView lease = lease_of(*held.slot, now.mono);
  if (lease.left <= 0) return held.still();
  portion.amount = part_of(static_cast<uint64_t>(lease.left / nanos(limit.emission)), most);
  if (portion.amount == 0) return held.still();
  LeaseCell count = LeaseCell::of(lease.count_word);
  count.amount += nanos(limit.emission) * static_cast<int64_t>(portion.amount);
  if (!held.slot->count[1].compare_exchange_strong(lease.count_word, count.word()) || !held.still())
    return false;
  portion.urgent = note_use(ask, held, static_cast<uint64_t>(count.amount), notes);
  return true;
}

}  // namespace tally
