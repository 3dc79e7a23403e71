#include "core/calendar.h"

#include <algorithm>

namespace tally {
namespace {

constexpr int64_t kDayNs = 86'400'000'000'000;
constexpr int64_t kDaysMax =
    nanos(WallTime::max()) / kDayNs;  // whole days of WallTime on either side of 1970
constexpr int64_t kNumberMax =
    30'000;  // beyond every WallTime, by years, months or weeks; and years that std::chrono can have
constexpr int64_t kMondayBefore1970 = -3;  // 1970 began on a Thursday

constexpr int64_t floor_of(int64_t n, int64_t d) { return n / d - (n % d < 0 ? 1 : 0); }

// Days since 1970 of the first day. Requires |number| <= kNumberMax.
int64_t first_day(int64_t number, Duration window) {
  if (window == kWeek) return number * 7 + kMondayBefore1970;
  const int64_t months = window == kMonth ? number : number * 12;
  const std::chrono::year year(static_cast<int>(floor_of(months, 12)));
  const std::chrono::month month(static_cast<unsigned>(months - floor_of(months, 12) * 12) + 1);
  return std::chrono::sys_days(year / month / 1).time_since_epoch().count();
}

}  // namespace

int64_t calendar_number(WallTime t, Duration window) {
  const int64_t day = floor_of(nanos(t), kDayNs);
  if (window == kWeek) return floor_of(day - kMondayBefore1970, 7);
  const std::chrono::year_month_day date{std::chrono::sys_days(std::chrono::days(day))};
  const int64_t year = static_cast<int>(date.year());
  return window == kYear ? year : year * 12 + static_cast<unsigned>(date.month()) - 1;
}

WallTime calendar_start(int64_t number, Duration window) {
  const int64_t day = first_day(std::clamp(number, -kNumberMax, kNumberMax), window);
  if (day < -kDaysMax) return WallTime::min();
  if (day > kDaysMax) return WallTime::max();
  return WallTime(Duration(day * kDayNs));
}

}  // namespace tally
