// Envoy's units of time, and the windows that they stand for. A month is 30 days and a year 365, as Envoy takes them.
//
// Thread rule: pure.
#pragma once

#include <array>
#include <chrono>
#include <optional>

#include "base/time.h"

namespace tally::rls {

struct Unit {
  int number;  // in RateLimitUnit and in RateLimitResponse.RateLimit.Unit
  Duration length;
};
inline constexpr std::array<Unit, 6> kUnits = {{{1, std::chrono::seconds(1)},
                                                {2, std::chrono::minutes(1)},
                                                {3, std::chrono::hours(1)},
                                                {4, std::chrono::hours(24)},
                                                {5, std::chrono::hours(24 * 30)},
                                                {6, std::chrono::hours(24 * 365)}}};

// nullopt: Envoy has no such number, or it is UNKNOWN (0).
constexpr std::optional<Duration> length_of_unit(int number) {
  for (const Unit& unit : kUnits)
    if (unit.number == number) return unit.length;
  return std::nullopt;
}

// UNKNOWN (0) where none has this length.
constexpr int unit_of_length(Duration length) {
  for (const Unit& unit : kUnits)
    if (unit.length == length) return unit.number;
  return 0;
}

}  // namespace tally::rls
