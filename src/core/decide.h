// The arithmetic of a decision: numbers in, an Answer out.
//
// Thread rule: pure functions. 64-bit sums of 32-bit counts, and times under 2^62 ns plus spans under 2^56
// ns, so nothing overflows. Where cost is 0 the answer is the state.
#pragma once

#include <cstdint>

#include "base/time.h"
#include "core/limiter.h"
#include "core/rules.h"
#include "core/slots.h"

namespace tally {

// A node alone. `window` is the number that is decided in, which may begin after `now` (a clock that lags).
Answer decide_fixed(const Limit& limit, uint32_t count, uint32_t cost, int64_t window, WallTime now);
// Cloudflare's counter: what was used in the window before counts by the part of it that a sliding window
// still covers.
Answer decide_sliding(const Limit& limit, uint32_t previous, uint32_t count, uint32_t cost, int64_t window,
                      WallTime now);
// GCRA as redis-cell does it (limit = burst). `tat` becomes the new arrival time where admitted.
Answer decide_bucket(const Limit& limit, MonoTime& tat, uint32_t cost, MonoTime now);

// A fleet, window: admitted where count + cost <= ceiling.
struct WindowState {
  int64_t window = 0;
  uint32_t previous = 0;  // counted here in the window before
  uint32_t count = 0;
  uint32_t ceiling = 0;
};
Answer decide_spend(const Limit& limit, const WindowState& state, const Knowledge& knowledge, uint32_t cost,
                    Now now);

// A fleet, bucket: from the lease where it has enough, else from the floor bucket.
struct BucketState {
  int64_t lease_left = 0;  // ns of emission; 0 where no lease runs
  MonoTime lease_end = MonoTime::max();
  MonoTime floor_tat{};  // of the floor bucket
};
enum class Purse : uint8_t { none, lease, floor };
struct BucketDecision {
  Answer answer;
  Purse purse = Purse::none;
  MonoTime floor_tat{};  // after
};
BucketDecision decide_spend(const Limit& limit, const BucketState& state, const Knowledge& knowledge,
                            uint32_t cost, Now now);

// Cost above the limit: the state as it is, refused for ever.
Answer refused_for_ever(Answer state);

}  // namespace tally
