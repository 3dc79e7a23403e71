// Window arithmetic. A window is its number: floor(wall time / W) since the Unix epoch, or of the week, month or
// year (calendar.h), so every node with a true clock names the same window alike, and the bound can be stated per
// number whatever the clocks say.
#pragma once

#include "base/time.h"
#include "core/calendar.h"

namespace tally {

constexpr int64_t window_at(WallTime t, Duration window) {
  if (is_calendar(window)) [[unlikely]]
    return calendar_number(t, window);
  const int64_t n = nanos(t), w = nanos(window);
  return n >= 0 ? n / w : -((-n + w - 1) / w);
}
constexpr WallTime window_start(int64_t number, Duration window) {
  if (is_calendar(window)) [[unlikely]]
    return calendar_start(number, window);
  return WallTime(window * number);
}
constexpr WallTime window_end(int64_t number, Duration window) { return window_start(number + 1, window); }
// As window_start, of any number: in nanoseconds that may be beyond every WallTime.
constexpr __int128 window_start_wide(int64_t number, Duration window) {
  if (is_calendar(window)) [[unlikely]]
    return nanos(calendar_start(number, window));
  return static_cast<__int128>(window.count()) * number;
}
constexpr Duration elapsed_in_window(WallTime t, Duration window) {
  return t - window_start(window_at(t, window), window);
}

// The sliding window counter weighs by a length: the next two require that the window is none of the calendar's.

// used * (1 - elapsed / window), rounded up: what of the window before still counts (Cloudflare, "How we built rate
// limiting capable of scaling to millions of domains", 2017).
constexpr uint32_t carried_over(uint32_t used, Duration elapsed, Duration window) {
  const auto left = static_cast<unsigned __int128>(nanos(window - elapsed));
  const auto w = static_cast<unsigned __int128>(nanos(window));
  return static_cast<uint32_t>((left * used + w - 1) / w);
}

// The smallest elapsed time in the window at which carried_over(used, ., window) <= target; `window` where target is 0.
constexpr Duration elapsed_when_carried(uint32_t used, uint32_t target, Duration window) {
  if (used <= target) return Duration(0);
  const auto w = static_cast<unsigned __int128>(nanos(window));
  // ceil((w - x) * used / w) <= target  <=>  (w - x) * used <= target * w
  const auto left = static_cast<unsigned __int128>(target) * w / used;
  return window - Duration(static_cast<int64_t>(left));
}

}  // namespace tally
