// Windows of the calendar: a week, a month or a year, in UTC. They are not all equally long, and so have no
// length.
//
// Thread rule: pure functions.
//
// Wherever a window is told by its length (Limit::window, terms and marks on the wire, registers), one of
// these stands for such a window. It is the mean length in the Gregorian calendar and one nanosecond: near
// enough for what only needs a size (rates, an order of magnitude), and no window's own. Whoever needs a
// place in time, or a bound, asks window_start and window_end (windows.h).
#pragma once

#include <chrono>
#include <cstdint>
#include <string_view>

#include "base/time.h"

namespace tally {

inline constexpr Duration kWeek = std::chrono::hours(7 * 24) + Duration(1);
inline constexpr Duration kMonth = std::chrono::seconds(2'629'746) + Duration(1);
inline constexpr Duration kYear = std::chrono::seconds(31'556'952) + Duration(1);

// They are odd, and next to no other window is: on the way of a decision that is one test of a bit.
constexpr bool is_calendar(Duration window) {
  if ((nanos(window) & 1) == 0) [[likely]]
    return false;
  return window == kWeek || window == kMonth || window == kYear;
}
static_assert(is_calendar(kWeek) && is_calendar(kMonth) && is_calendar(kYear));

// The least and the most that a window of that kind lasts; for any other its length.
constexpr Duration shortest_length(Duration window) {
  constexpr std::chrono::hours kDay(24);
  return window == kWeek    ? Duration(7 * kDay)
         : window == kMonth ? Duration(28 * kDay)
         : window == kYear  ? Duration(365 * kDay)
                            : window;
}
constexpr Duration longest_length(Duration window) {
  constexpr std::chrono::hours kDay(24);
  return window == kWeek    ? Duration(7 * kDay)
         : window == kMonth ? Duration(31 * kDay)
         : window == kYear  ? Duration(366 * kDay)
                            : window;
}

// "week", "month" or "year"; "" for any other window.
constexpr std::string_view calendar_name(Duration window) {
  return window == kWeek ? "week" : window == kMonth ? "month" : window == kYear ? "year" : "";
}

// What window_at and window_start say of them. Require is_calendar(window).
//
// The number of a year is the year, that of a month 12 times the year and the months before it (January: 0),
// that of a week how many Mondays there were since that of 1969-12-29. So they follow each other without a
// gap, and none that a clock can show is 0, which is a bucket's, but for the first days of 1970.
[[gnu::cold]] int64_t calendar_number(WallTime t, Duration window);
// Of any number: the earliest or the latest time there is, where it would be beyond.
[[gnu::cold]] WallTime calendar_start(int64_t number, Duration window);

}  // namespace tally
