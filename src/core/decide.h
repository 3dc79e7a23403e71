// The arithmetic of a decision: numbers in, an Answer out.
//
// Thread rule: pure functions. 64-bit sums of 32-bit counts, and times under 2^62 ns plus spans under 2^56
// ns, so nothing overflows. Where cost is 0 the answer is the state. All of `answer` is written anew; it is
// passed rather than returned because an answer that is copied while its parts are still on their way to the
// cache waits for them (5 ns of a decision).
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/time.h"
#include "core/limiter.h"
#include "core/rules.h"
#include "core/slots.h"
#include "core/windows.h"

namespace tally {

inline uint32_t within(int64_t remaining, const Limit& limit) {
  return static_cast<uint32_t>(std::clamp<int64_t>(remaining, 0, limit.limit));
}

// From `now` to a place in or after the window. At least 1 ns: a wait of nothing is no wait.
inline Duration until(WallTime t, WallTime now) { return std::max(t - now, Duration(1)); }

// How far into the window; nothing where it begins after now.
inline Duration elapsed_in(int64_t window, const Limit& limit, WallTime now) {
  return std::clamp(now - window_start(window, limit.window), Duration(0), limit.window);
}

// A node alone. `window` is the number that is decided in, which may begin after `now` (a clock that lags).
inline void decide_fixed(const Limit& limit, uint32_t count, uint32_t cost, int64_t window, WallTime now,
                         Answer& answer) {
  answer = {};
  answer.limit = limit.limit;
  const uint64_t used = uint64_t{count} + cost;
  const Duration rest = until(window_end(window, limit.window), now);
  if (used <= limit.limit) {
    answer.remaining = limit.limit - static_cast<uint32_t>(used);
    answer.reset_after = used != 0 ? rest : Duration(0);
    return;
  }
  answer.verdict = Verdict::over_limit;
  answer.remaining = limit.limit - std::min(count, limit.limit);
  answer.reset_after = count != 0 ? rest : Duration(0);
  answer.retry_after = rest;
}

// Cloudflare's counter: what was used in the window before counts by the part of it that a sliding window
// still covers.
inline void decide_sliding(const Limit& limit, uint32_t previous, uint32_t count, uint32_t cost,
                           int64_t window, WallTime now, Answer& answer) {
  answer = {};
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
  if (admitted) return;
  answer.verdict = Verdict::over_limit;
  // The earliest time at which it fits if nothing more comes: as this window's past fades, or as this window
  // does.
  const int64_t room = int64_t{limit.limit} - count - cost;
  const WallTime fits =
      room >= 0 ? start + elapsed_when_carried(previous, static_cast<uint32_t>(room), limit.window)
                : end + elapsed_when_carried(count, limit.limit - std::min(cost, limit.limit), limit.window);
  answer.retry_after = until(fits, now);
}

// GCRA as redis-cell does it (limit = burst). `tat` becomes the new arrival time where admitted.
inline void decide_bucket(const Limit& limit, MonoTime& tat, uint32_t cost, MonoTime now, Answer& answer) {
  answer = {};
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
}

// Why a lessee refuses.
inline void refuse(Answer& answer, const Knowledge& knowledge, bool knowledge_holds, MonoTime now) {
  const Duration exhausted = knowledge.exhausted_until - now;
  answer.retry_after = Duration(0);
  if (knowledge_holds && exhausted > Duration(0)) {
    answer.verdict = Verdict::over_limit;
    answer.retry_after = exhausted;
  } else {
    answer.verdict = knowledge.isolated ? Verdict::isolated : Verdict::starved;
  }
}

// A fleet, window: admitted where count + cost <= ceiling.
struct WindowState {
  int64_t window = 0;
  uint32_t previous = 0;  // counted here in the window before
  uint32_t count = 0;
  uint32_t ceiling = 0;
};
inline void decide_spend(const Limit& limit, const WindowState& state, const Knowledge& knowledge,
                         uint32_t cost, Now now, Answer& answer) {
  answer = {};
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
}

// A fleet, bucket: from the lease where it has enough, else from the floor bucket.
struct BucketState {
  int64_t lease_left = 0;  // ns of emission; 0 where no lease runs
  MonoTime lease_end = MonoTime::max();
  MonoTime floor_tat{};  // of the floor bucket
};
enum class Purse : uint8_t { none, lease, floor };
struct BucketDecision {
  Purse purse = Purse::none;
  MonoTime floor_tat{};  // after
};
inline BucketDecision decide_spend(const Limit& limit, const BucketState& state, const Knowledge& knowledge,
                                   uint32_t cost, Now now, Answer& answer) {
  BucketDecision decision;
  answer = {};
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

// Cost above the limit: the state as it is, refused for ever.
inline Answer refused_for_ever(Answer state) {
  state.verdict = Verdict::over_limit;
  state.retry_after = Duration(-1);
  return state;
}

}  // namespace tally
