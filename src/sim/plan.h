// One run of a plan: a rule, a fleet and its traffic under one setting, by the real engine in virtual time.
//
// Thread rule: pure; the same terms, setting and traffic give the same result.
//
// Everything is measured against the exact limiter (sim/exact.h: the plain algorithm on one node), for all
// three algorithms alike:
//   admissible   what it admits of all that was offered, each request at the time it came
//   overcount    what it refuses of the stream that the fleet admitted, each request at the time it was
//   answered:
//                for a fixed window this is what was admitted beyond the limit
//   undercount   what is admissible, less what the fleet admitted without the overcount
// Counts are costs. Windows are those of each key; a bucket's are burst / rate long.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/time.h"
#include "core/rules.h"
#include "sim/traffic.h"

namespace tally::sim {

// What the operator chooses or is given, and what a plan compares.
struct PlanSetting {
  Duration sync_interval = std::chrono::milliseconds(100);
  Duration round_trip = std::chrono::microseconds(500);  // of every pair of nodes
  double loss = 0;                                       // the part of the datagrams that is lost
  Duration isolation_after = std::chrono::seconds(2);
  Duration lease = std::chrono::seconds(1);
};

struct PlanTerms {
  Rule rule;
  uint16_t nodes = 1;
  std::vector<std::string> keys;  // by number; those that are missing are named by it
  Duration length{0};             // of the run; at least until the last arrival, and a second
  Duration origin{0};             // of the traffic's time 0 on the wall clock, from the start of any window
  uint64_t seed = 1;
};

struct PlanResult {
  PlanSetting setting;
  uint64_t requests = 0;
  uint64_t offered = 0, admissible = 0, admitted = 0;
  uint64_t overcount = 0;        // of all windows
  uint64_t overcount_worst = 0;  // of one window of one key
  double overcount_mean = 0;     // of the windows in which there was more than is admissible
  uint64_t windows_full = 0;     // how many these were
  uint64_t most_in_window = 0;   // admitted for one key in one window
  uint64_t bound = 0;            // windows: L + floor(e * L), what none may pass while nobody is isolated
  uint64_t no_grant = 0;         // refused because nothing came in time
  uint64_t waited = 0;           // requests that waited for a grant
  Duration wait_p50{0}, wait_p99{0};  // of those that waited

  uint16_t nodes = 1;
  Duration length{0};
  uint64_t datagrams = 0, entries = 0;
  uint64_t bytes = 0;                   // with the headers of IPv4 and UDP
  std::vector<std::string> violations;  // of what must always hold: none, or there is a bug

  uint64_t undercount() const {
    const uint64_t rightly = admitted - overcount;
    return admissible > rightly ? admissible - rightly : 0;
  }
  double kept() const;  // the part of the admissible that was admitted: 0 to 1; 1 where nothing was offered
  double bytes_per_s() const { return per_node_second(bytes); }  // of one node
  double datagrams_per_s() const { return per_node_second(datagrams); }
  double per_node_second(uint64_t n) const;
};

// Requires arrivals in order of time, with nodes below terms.nodes. `progress` hears of the part that is
// done.
PlanResult run_plan(const PlanTerms& terms, const PlanSetting& setting, std::span<const Arrival> arrivals,
                    const std::function<void(double)>& progress = {});

}  // namespace tally::sim
