// The checks that need more than one field. Private to src/config.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"
#include "config/values.h"

namespace tally {

inline std::string rule_path(size_t index) { return "rules[" + std::to_string(index) + "]"; }

constexpr std::string_view algorithm_name(Algorithm a) {
  switch (a) {
    case Algorithm::sliding_window:
      return "sliding_window";
    case Algorithm::fixed_window:
      return "fixed_window";
    case Algorithm::token_bucket:
      break;
  }
  return "token_bucket";
}

constexpr std::string_view isolation_name(OnIsolation policy) {
  switch (policy) {
    case OnIsolation::share:
      return "share";
    case OnIsolation::open:
      return "open";
    case OnIsolation::closed:
      break;
  }
  return "closed";
}

constexpr std::string_view amnesia_name(OnAmnesia policy) {
  return policy == OnAmnesia::forget ? "forget" : "deny";
}

constexpr std::string_view mode_name(Mode mode) { return mode == Mode::leased ? "leased" : "central"; }

inline std::string too_many(std::string_view what, size_t most, size_t got) {
  return "at most " + std::to_string(most) + " " + std::string(what) + ", got " + std::to_string(got);
}

// "" where a bucket of that rate may hold so much; else what is wrong with it.
std::string wrong_burst(Rate rate, uint32_t burst);

// "" where the name may be used; else what is wrong with it.
std::string wrong_node_name(std::string_view name);

// The smallest window in which a grant can come back in time: 4 * (sync interval + round trip), the round
// trip assumed.
inline constexpr Duration kRoundTripAssumed = std::chrono::milliseconds(1);
constexpr Duration shortest_leasing_window(Duration sync_interval) {
  return 4 * (sync_interval + kRoundTripAssumed);
}

// The smallest e in millionths that leaves none of `size` nodes without a floor; above kPartsPerMillion where
// none does.
constexpr uint64_t waiting_ends_at_ppm(uint32_t limit, uint32_t size) {
  return (uint64_t{size} * kPartsPerMillion + limit - 1) / limit;
}

}  // namespace tally
