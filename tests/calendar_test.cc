// Windows of the calendar: their numbers and ends against days that are counted one by one, and what a node
// counts in them.
#include <doctest/doctest.h>

#include <array>
#include <chrono>

#include "core/windows.h"
#include "core_fixture.h"

namespace tally {
namespace {

using namespace test;
using namespace std::chrono_literals;

constexpr std::array kKinds = {kWeek, kMonth, kYear};

constexpr WallTime midnight(int year, unsigned month, unsigned day) {
  return WallTime(
      std::chrono::sys_days(std::chrono::year(year) / static_cast<int>(month) / static_cast<int>(day))
          .time_since_epoch());
}
Duration lasts(int64_t number, Duration window) {
  return window_end(number, window) - window_start(number, window);
}
Now at_wall(WallTime t) { return {MonoTime(secs(100)) + (t - midnight(2026, 1, 1)), t}; }

// The calendar as it is taught, day by day.
struct Date {
  int year = 1970, month = 1, day = 1, weekday = 3;  // a Thursday, Monday being 0
  int64_t weeks = 0;                                 // begun since that of 1969-12-29

  bool leap() const { return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0); }
  int days_of_month() const {
    if (month == 2) return leap() ? 29 : 28;
    return month == 4 || month == 6 || month == 9 || month == 11 ? 30 : 31;
  }
  void next() {
    weekday = (weekday + 1) % 7;
    if (weekday == 0) ++weeks;
    if (++day <= days_of_month()) return;
    day = 1;
    if (++month <= 12) return;
    month = 1;
    ++year;
  }
};

TEST_CASE(
    "each day from 1970 to 2262 is in its week, month and year, from its first nanosecond to its last") {
  Date date;
  int64_t wrong = 0;
  WallTime today{};
  for (; today < midnight(2262, 4, 11); today += 24h, date.next()) {
    const std::array<int64_t, 3> numbers = {date.weeks, date.year * 12 + date.month - 1, date.year};
    const std::array<bool, 3> first = {date.weekday == 0, date.day == 1, date.day == 1 && date.month == 1};
    for (size_t i = 0; i < kKinds.size(); ++i) {
      wrong += window_at(today, kKinds[i]) != numbers[i];
      wrong += window_at(today + 24h - 1ns, kKinds[i]) != numbers[i];
      wrong += (window_start(numbers[i], kKinds[i]) == today) != first[i];
    }
  }
  CHECK(wrong == 0);
  CHECK(date.year == 2262);
}

TEST_CASE("windows follow each other without a gap, and each time is in one of them") {
  Random random(seed());
  for (int i = 0; i < 100'000; ++i) {
    const Duration window = random.chance(0.8)
                                ? kKinds[random.below(kKinds.size())]
                                : Duration(random.between(nanos(kWindowMin), nanos(kWindowMax)));
    const WallTime t(Duration(random.between(0, nanos(midnight(2261, 1, 1)))));
    const int64_t number = window_at(t, window);
    const WallTime start = window_start(number, window), end = window_end(number, window);
    CAPTURE(nanos(window));
    CAPTURE(nanos(t));
    REQUIRE(start <= t);
    REQUIRE(t < end);
    REQUIRE(end == window_start(number + 1, window));
    REQUIRE(window_at(start, window) == number);
    REQUIRE(window_at(end - 1ns, window) == number);
    REQUIRE(window_at(end, window) == number + 1);
    REQUIRE(end - start >= shortest_length(window));
    REQUIRE(end - start <= longest_length(window));
    REQUIRE(elapsed_in_window(t, window) == t - start);
  }
}

TEST_CASE("months and years are as long as they are") {
  const auto month = [](int year, int month_number) {
    return lasts(year * 12 + month_number - 1, kMonth) / 24h;
  };
  CHECK(month(2026, 1) == 31);
  CHECK(month(2026, 2) == 28);
  CHECK(month(2026, 4) == 30);
  CHECK(month(2026, 12) == 31);
  CHECK(month(2028, 2) == 29);
  CHECK(month(2000, 2) == 29);
  CHECK(month(2100, 2) == 28);
  CHECK(lasts(2026, kYear) == 365 * 24h);
  CHECK(lasts(2028, kYear) == 366 * 24h);
  CHECK(lasts(2100, kYear) == 365 * 24h);
  CHECK(window_at(midnight(2026, 11, 29), kMonth) == 2026 * 12 + 10);
  CHECK(window_start(window_at(midnight(2026, 11, 29), kWeek), kWeek) == midnight(2026, 11, 23));  // a Monday
}

TEST_CASE("only the three lengths are the calendar's, and no window of it has a bucket's number") {
  for (const Duration window : kKinds) {
    CHECK(is_calendar(window));
    CHECK_FALSE(is_calendar(window - 1ns));
    CHECK_FALSE(is_calendar(window + 1ns));
    CHECK_FALSE(is_calendar(window + 2ns));
    CHECK(window >= kWindowMin);
    CHECK(window <= kWindowMax);
    CHECK(window_at(midnight(1970, 1, 5), window) != 0);
  }
  CHECK_FALSE(is_calendar(24h * 7));
  CHECK_FALSE(is_calendar(24h * 30));
  CHECK_FALSE(is_calendar(24h * 365));
}

TEST_CASE("a number that no clock shows begins at the earliest or the latest time there is") {
  for (const Duration window : kKinds) {
    for (const int64_t far : {INT64_MAX, int64_t{1} << 40, int64_t{100'000}}) {
      CHECK(window_start(far, window) == WallTime::max());
      CHECK(window_start(-far, window) == WallTime::min());
    }
    CHECK(window_start(INT64_MIN, window) == WallTime::min());
    CHECK(window_start(window_at(WallTime::max(), window), window) <= WallTime::max());
    CHECK(window_end(window_at(WallTime::max(), window), window) == WallTime::max());
    CHECK(window_start(window_at(WallTime::min(), window), window) == WallTime::min());
  }
}

TEST_CASE("a node alone counts anew when the month does, and says when that is") {
  Bench bench(window_rule(Algorithm::fixed_window, 3, kMonth));
  const WallTime last = midnight(2026, 2, 1) - 1ms;
  for (int i = 0; i < 3; ++i) CHECK(admitted(bench.take("k", 1, at_wall(midnight(2026, 1, 1) + i * 24h))));
  const Answer over = bench.take("k", 1, at_wall(last));
  CHECK_FALSE(admitted(over));
  CHECK(over.retry_after == 1ms);
  const Answer anew = bench.take("k", 1, at_wall(midnight(2026, 2, 1)));
  CHECK(admitted(anew));
  CHECK(anew.remaining == 2);
  CHECK(anew.reset_after == 28 * 24h);
  CHECK(bench.take("k", 1, at_wall(midnight(2026, 3, 1) - 24h)).remaining == 1);  // the same month still
}

TEST_CASE("a fleet's node has its floor in each month, from where its floors are open") {
  Bench bench(window_rule(Algorithm::fixed_window, 100, kMonth, Overcount{200'000, false}), true,
              Share{0, 2});
  REQUIRE(bench.rule.limit.floor == 10);
  bench.limiter.open_floors(midnight(2026, 1, 15), MonoTime::max());  // in the middle of January
  CHECK(bench.limiter.floor_in(bench.rule.limit, 2026 * 12) == 0);
  CHECK(bench.limiter.floor_in(bench.rule.limit, 2026 * 12 + 1) == 10);
  CHECK(bench.limiter.floor_in(bench.rule.limit, INT64_MIN) == 0);
  const auto admits = [&](WallTime t) {
    int n = 0;
    for (int i = 0; i < 20; ++i) n += admitted(bench.take("k", 1, at_wall(t))) ? 1 : 0;
    return n;
  };
  CHECK(admits(midnight(2026, 1, 20)) == 0);
  CHECK(admits(midnight(2026, 2, 1)) == 10);
  CHECK(admits(midnight(2026, 2, 28)) == 0);
  CHECK(admits(midnight(2026, 3, 1)) == 10);
}

TEST_CASE("a key that was evicted is remembered to the end of its month, its year") {
  for (const auto& [window, first, last] :
       {std::tuple(kMonth, midnight(2026, 1, 1), midnight(2026, 2, 1) - 1s),
        std::tuple(kYear, midnight(2028, 1, 1), midnight(2029, 1, 1) - 1s)}) {
    Bench bench(window_rule(Algorithm::fixed_window, 10, window), false, {}, 20);
    CHECK(bench.take("k", 4, at_wall(first)).remaining == 6);
    for (int i = 0; i < 2000; ++i) bench.take("other" + std::to_string(i), 10, at_wall(last));
    CHECK(bench.slots.evicted_idle() == 0);  // nothing of the window was over
    CHECK_FALSE(bench.slots.ref_of(bench.limiter.hash(bench.rule, "k")));
    CHECK(bench.peek("k", 0, at_wall(last)).remaining <= 6);
    CHECK(bench.take("k", 10, at_wall(last + 1s)).remaining == 0);
  }
}

TEST_CASE("what a process takes lasts until the month ends") {
  Bench bench(window_rule(Algorithm::fixed_window, 100, kMonth));
  const Portion portion =
      bench.limiter.take_portion(bench.ask("k"), 8, at_wall(midnight(2026, 2, 28)), nullptr);
  CHECK(portion.amount == 8);
  CHECK(portion.lasts == 24h);
  CHECK(portion.window == 2026 * 12 + 1);
}

}  // namespace
}  // namespace tally
