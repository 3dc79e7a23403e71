#include "sim/starvation.h"

#include <algorithm>
#include <memory>

#include "cluster/bucket_book.h"
#include "core/windows.h"
#include "sim/liveness.h"

namespace tally::sim {
namespace {

using namespace std::chrono_literals;

constexpr uint32_t kRequestsMost = 40;
constexpr uint32_t kDeniedOneOf = 10;
constexpr Duration kWaitLeast = 20ms;  // a rule that waits for less may miss what is on its way

// Of a window a part from its beginning, so that no clock that runs a little apart is in another; of a bucket when nothing is left of its past.
struct Times {
  Duration first{0}, apart{0};
};

// Until the owner raises no mark any more of a bucket that nobody asks for, and the last one is over at its members.
Duration rest(const Limit& limit, const FleetConfig& config) {
  return config.sync_interval * 4 + 100ms + bucket_keep(limit.burst_span(), config.lease);
}

Times times_of(const Fleet& fleet, const Limit& limit, const FleetConfig& config, uint32_t requests) {
  if (limit.algorithm == Algorithm::token_bucket) return {fleet.now() + rest(limit, config), limit.emission * 2};
  const Duration next = limit.window - elapsed_in_window(fleet.clock(0).wall, limit.window);
  return {fleet.now() + next + limit.window / 10, limit.window * 6 / 10 / static_cast<int64_t>(requests)};
}

struct Count {
  uint32_t asked = 0, denied = 0;
};

}  // namespace

void check_starvation(Fleet& fleet, const ClusterPlan& plan) {
  Random random(plan.config.seed + 1);
  const std::vector<uint16_t> names = fleet.names();
  Duration end = fleet.now();
  for (const auto& [name, key] : plan.keys) {
    const Rule& rule = plan.rule(name);
    const uint32_t limit = shared_limit(plan, rule);
    const uint16_t first = plan.any_node(random);
    const bool at_odds = std::ranges::any_of(plan.config.own_rules, [&](const OwnRule& own) { return own.rule.name == name; });
    if (limit == 0 || at_odds || rule.wait < kWaitLeast) continue;
    const auto requests = std::clamp<uint32_t>(limit / 2, 1, kRequestsMost);
    const Times times = times_of(fleet, rule.limit, plan.config, requests);
    const auto count = std::make_shared<Count>();
    for (uint32_t i = 0; i < requests; ++i) {
      const uint16_t rank = names[(first + i) % names.size()];
      fleet.at(times.first + times.apart * static_cast<int64_t>(i), [&fleet, rank, name = name, key = key, count] {
        fleet.take(rank, name, key, 1, [count](Outcome outcome) {
          ++count->asked;
          count->denied += outcome != Outcome::admitted;
        });
      });
    }
    const Duration over = times.first + times.apart * static_cast<int64_t>(requests) + rule.wait;
    fleet.at(over, [&fleet, name = name, key = key, count] {
      if (count->denied > count->asked / kDeniedOneOf)
        fleet.violate(name, key, "starvation",
                      std::to_string(count->denied) + " of " + std::to_string(count->asked) +
                          " requests that waited were denied, at half of the limit");
    });
    end = std::max(end, over);
  }
  fleet.run_until(end);
}

}  // namespace tally::sim
