#include "core/decide.h"

#include <algorithm>

#include "core/windows.h"

namespace tally {
namespace {

uint32_t within(int64_t remaining, const Limit& limit) {
  return static_cast<uint32_t>(std::clamp<int64_t>(remaining, 0, limit.limit));
}

// From `now` to a place in or after the window. At least 1 ns: a wait of nothing is no wait.
Duration until(WallTime t, WallTime now) { return std::max(t - now, Duration(1)); }

// How far into the window; nothing where it begins after now.
Duration elapsed_in(int64_t window, const Limit& limit, WallTime now) {
  return std::clamp(now - window_start(window, limit.window), Duration(0), limit.window);
}

}  // namespace

Answer decide_fixed(const Limit& limit, uint32_t count, uint32_t cost, int64_t window, WallTime now) {
  Answer answer;
  answer.limit = limit.limit;
  const uint64_t used = uint64_t{count} + cost;
  const bool admitted = used <= limit.limit;
  const int64_t after = static_cast<int64_t>(admitted ? used : count);
  const Duration rest = until(window_end(window, limit.window), now);
  answer.remaining = within(int64_t{limit.limit} - after, limit);
  answer.reset_after = after != 0 ? rest : Duration(0);
  if (admitted) return answer;
  answer.verdict = Verdict::over_limit;
  answer.retry_after = rest;
  return answer;
}

Answer decide_sliding(const Limit& limit, uint32_t previous, uint32_t count, uint32_t cost, int64_t window,
                      WallTime now) {
  Answer answer;
  answer.limit = limit.limit;
  const Duration elapsed = elapsed_in(window, limit, now);
  const WallTime start = window_start(window, limit.window), end = window_end(window, limit.window);
  const uint64_t carried = carried_over(previous, elapsed, limit.window);
  const bool admitted = carried + count + cost <= limit.limit;
  const uint64_t own = uint64_t{count} + (admitted ? cost : 0);
  answer.remaining = within(int64_t{limit.limit} - static_cast<int64_t>(carried + own), limit);
  if (own != 0)
    answer.reset_after = until(end + limit.window, now);
  else if (carried != 0)
    answer.reset_after = until(end, now);
  if (admitted) return answer;
  answer.verdict = Verdict::over_limit;
  // The earliest time at which it fits if nothing more comes: as this window's past fades, or as this window
  // does.
  const int64_t room = int64_t{limit.limit} - count - cost;
  const WallTime fits =
      room >= 0 ? start + elapsed_when_carried(previous, static_cast<uint32_t>(room), limit.window)
                : end + elapsed_when_carried(count, limit.limit - std::min(cost, limit.limit), limit.window);
  answer.retry_after = until(fits, now);
  return answer;
}

Answer decide_bucket(const Limit& limit, MonoTime& tat, uint32_t cost, MonoTime now) {
  Answer answer;
  answer.limit = limit.limit;
  const Duration tolerance = limit.burst_span();
  const MonoTime before = std::max(tat, now);
  const MonoTime after = before + limit.emission * static_cast<int64_t>(cost);
  const Duration early = after - tolerance - now;
  const bool admitted = early <= Duration(0);
  answer.reset_after = (admitted ? after : before) - now;
  const Duration room = tolerance - answer.reset_after;
  answer.remaining = nanos(limit.emission) > 0 ? within(room / limit.emission, limit) : limit.limit;
  if (admitted) {
    tat = after;
  } else {
    answer.verdict = Verdict::over_limit;
    answer.retry_after = early;
  }
  return answer;
}

Answer refused_for_ever(Answer state) {
  state.verdict = Verdict::over_limit;
  state.retry_after = Duration(-1);
  return state;
}

namespace {

// Why a lessee refuses.
void refuse(Answer& answer, const Knowledge& knowledge, bool knowledge_holds, MonoTime now) {
  const Duration exhausted = knowledge.exhausted_until - now;
  answer.retry_after = Duration(0);
  if (knowledge_holds && exhausted > Duration(0)) {
    answer.verdict = Verdict::over_limit;
    answer.retry_after = exhausted;
  } else {
    answer.verdict = knowledge.isolated ? Verdict::isolated : Verdict::starved;
  }
}

}  // namespace

Answer decide_spend(const Limit& limit, const WindowState& state, const Knowledge& knowledge, uint32_t cost,
                    Now now) {
  Answer answer;
  answer.limit = limit.limit;
  answer.isolated = knowledge.isolated;
  answer.heard = knowledge.heard;
  const uint64_t used = uint64_t{state.count} + cost;
  const bool admitted = used <= state.ceiling;
  const bool known = knowledge.window == static_cast<uint32_t>(state.window);
  const int64_t elsewhere = known ? int64_t{knowledge.elsewhere} : 0;
  const int64_t after = static_cast<int64_t>(admitted ? used : state.count);
  answer.remaining =
      within(std::max(int64_t{state.ceiling} - after, int64_t{limit.limit} - elsewhere - after), limit);
  const bool sliding = limit.algorithm == Algorithm::sliding_window;
  const WallTime end = window_end(state.window, limit.window);
  if (after != 0 || elsewhere != 0)
    answer.reset_after = until(sliding ? end + limit.window : end, now.wall);
  else if (sliding && state.previous != 0)
    answer.reset_after = until(end, now.wall);
  if (!admitted) refuse(answer, knowledge, known, now.mono);
  return answer;
}

BucketDecision decide_spend(const Limit& limit, const BucketState& state, const Knowledge& knowledge,
                            uint32_t cost, Now now) {
  BucketDecision decision;
  Answer& answer = decision.answer;
  const int64_t need = nanos(limit.emission) * static_cast<int64_t>(cost);
  int64_t lease_left = state.lease_left;
  decision.floor_tat = state.floor_tat;
  if (need <= lease_left) {
    decision.purse = Purse::lease;
    lease_left -= need;
    answer.lease_end = cost != 0 ? state.lease_end : MonoTime::max();
  }
  // The floor bucket is a GCRA of its own: as large as the limit's in time, slower by size / e.
  const bool has_floor = limit.floor_emission > Duration(0);
  MonoTime tat = std::max(state.floor_tat, now.mono);
  // A bucket that is shut has its arrival time at the end of all time: nothing may be added to it.
  const bool may_ask = has_floor && cost <= limit.floor && tat - limit.burst_span() <= now.mono;
  if (decision.purse == Purse::none && may_ask) {
    const MonoTime after = tat + limit.floor_emission * static_cast<int64_t>(cost);
    if (after - limit.burst_span() <= now.mono) {
      decision.purse = Purse::floor;
      decision.floor_tat = tat = after;
    }
  }
  answer.limit = limit.limit;
  answer.isolated = knowledge.isolated;
  answer.heard = knowledge.heard;
  const Duration floor_busy = has_floor && tat != MonoTime::max() ? tat - now.mono : Duration(0);
  const Duration fleet_busy = std::max(knowledge.tat - now.mono, Duration(0));
  const auto tokens = [&](Duration left, Duration each) {
    return left > Duration(0) && each > Duration(0) ? left / each : int64_t{0};
  };
  const int64_t floor_left =
      has_floor && tat != MonoTime::max() ? tokens(limit.burst_span() - floor_busy, limit.floor_emission) : 0;
  const int64_t here = tokens(Duration(lease_left), limit.emission) + floor_left;
  answer.remaining = within(std::max(here, tokens(limit.burst_span() - fleet_busy, limit.emission)), limit);
  answer.reset_after = std::max(floor_busy, fleet_busy);
  if (decision.purse == Purse::none) refuse(answer, knowledge, true, now.mono);
  return decision;
}

}  // namespace tally
