// The other ways to keep one limit on many hosts, as small models: what each would have admitted of the same
// arrivals at one key.
//
// Thread rule: pure; the same terms and arrivals give the same decisions. Clocks are true everywhere.
//
// Each model is given the most that its scheme can hope for (no host ever fails, the store never queues, sums
// go to everybody and not to a few), so that what is said against a scheme is said against its best case.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/time.h"
#include "core/rules.h"
#include "sim/traffic.h"

namespace tally::sim {

struct ModelTerms {
  Limit limit;
  uint16_t nodes = 1;
  Duration round_trip{0};  // between any two hosts; to the store
  Duration sync_interval = std::chrono::milliseconds(100);
  double loss = 0;   // part of the datagrams
  WallTime epoch{};  // true wall time when arrivals count from 0
  uint64_t seed = 1;
};

struct Decisions {
  std::vector<bool> admitted;  // by arrival
  Duration decided_after{0};   // after the arrival: when the request counts
  Duration answered_after{0};  // what every request waits for its answer
};

// One exact limiter for the whole fleet, asked in no time: what was admissible.
Decisions exact(const ModelTerms& terms, std::span<const Arrival> arrivals);
// Each host has a limiter of its own, with all of the limit.
Decisions each_alone(const ModelTerms& terms, std::span<const Arrival> arrivals);
// Each host has a limiter of its own, with its part of the limit; what does not divide goes to the first
// hosts. A bucket: of the burst, and 1/N of the rate.
Decisions equal_parts(const ModelTerms& terms, std::span<const Arrival> arrivals);
// One exact limiter in a store (Redis), asked at every request.
Decisions shared_store(const ModelTerms& terms, std::span<const Arrival> arrivals);
// Each host counts what it admits and tells all others its sum at every sync interval (the n-th of N hosts
// begins n/N of an interval late), and admits while what it counted and was told stays within the limit. A
// bucket: each host has the whole of it, and what others tell to have admitted drains it.
Decisions gossiped_sums(const ModelTerms& terms, std::span<const Arrival> arrivals);

struct Baseline {
  std::string_view name;
  Decisions (*decide)(const ModelTerms& terms, std::span<const Arrival> arrivals);
};
inline constexpr Baseline kBaselines[] = {{"each alone", each_alone},
                                          {"L/N each", equal_parts},
                                          {"shared store", shared_store},
                                          {"gossiped sums", gossiped_sums}};

}  // namespace tally::sim
