// Envoy's units of time, and the windows that they stand for.
//
// Thread rule: pure.
#pragma once

#include <array>
#include <chrono>
#include <optional>

#include "base/time.h"
#include "core/calendar.h"

namespace tally::rls {

struct Unit {
  const char* name;
  int number;            // in RateLimitUnit and in RateLimitResponse.RateLimit.Unit
  Duration length;       // of a month 30 days and of a year 365, as Envoy takes them
  Duration calendar{0};  // the window of the calendar that it is as well; 0: none
};
inline constexpr std::array<Unit, 6> kUnits = {{{"second", 1, std::chrono::seconds(1)},
                                                {"minute", 2, std::chrono::minutes(1)},
                                                {"hour", 3, std::chrono::hours(1)},
                                                {"day", 4, std::chrono::hours(24)},
                                                {"month", 5, std::chrono::hours(24 * 30), kMonth},
                                                {"year", 6, std::chrono::hours(24 * 365), kYear}}};

// nullptr: Envoy has no such number, or it is UNKNOWN (0).
constexpr const Unit* unit_of_number(int number) {
  for (const Unit& unit : kUnits)
    if (unit.number == number) return &unit;
  return nullptr;
}

// `window`: as in Limit. False where it is 0, a bucket's.
constexpr bool is_window_of(const Unit& unit, Duration window) {
  return window != Duration(0) && (window == unit.length || window == unit.calendar);
}

// UNKNOWN (0) where none is this window.
constexpr int number_of_window(Duration window) {
  for (const Unit& unit : kUnits)
    if (is_window_of(unit, window)) return unit.number;
  return 0;
}

}  // namespace tally::rls
