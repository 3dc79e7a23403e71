// Processes of a random cluster that admit by themselves.
#include <algorithm>

#include "sim/cluster_plan.h"
#include "sim/trace.h"

namespace tally::sim {
namespace {

using namespace std::chrono_literals;

constexpr uint64_t kProcessesMost = 6;

// Streams that make a key hot, and bursts that come when what is held is old: at the end of a window, or of what may be held.
void draw_use(Random& random, ClusterPlan& plan, size_t process, const std::string& rule, const std::string& key) {
  const Limit& limit = plan.rule(rule).limit;
  const uint16_t host = plan.config.processes[process].host;
  const std::string what = rule + "/" + key + " in process " + std::to_string(process);
  if (random.chance(0.5)) {
    const double rate = std::clamp(limit.limit * pick(random, {0.5, 2.0, 10.0}), 50.0, 2'000.0);
    const Duration from = up_to(random, plan.length / 2);
    plan.add_ahead(from, host, std::to_string(static_cast<int>(rate)) + " asks a second for " + what,
                   [process, rule, key, rate, from, until = std::min(plan.length, from + 2s)](Fleet& fleet) {
                     fleet.poisson_by(process, rule, key, rate, from, until);
                   });
  }
  // A few asks that make it hot, some more that each come back with a portion, and one time at which all that is held is spent.
  for (uint64_t rounds = 2 + random.below(8); rounds > 0; --rounds) {
    Duration at = random.chance(0.5) ? near_boundary(random, limit, plan.length) : up_to(random, plan.length);
    const Duration apart = plan.config.processes[process].answers_most * 2 + 1ms;
    const auto burst = [&](uint64_t n) {
      plan.add(std::min(at, plan.length), host, std::to_string(n) + " asks for " + what, [process, rule, key, n](Fleet& fleet) {
        for (uint64_t i = 0; i < n; ++i) fleet.take_by(process, rule, key);
      });
    };
    burst(4);
    for (uint64_t more = random.below(4); more > 0; --more) {
      at += apart;
      burst(1);
    }
    at += up_to(random, pick<Duration>(random, {2ms, 30ms, 200ms, 1s}));
    burst(1 + random.below(std::min<uint64_t>(300, 2 * uint64_t{limit.limit})));
  }
}

}  // namespace

void draw_processes(Random& random, ClusterPlan& plan) {
  for (Rule& rule : plan.config.rules) {
    if (rule.limit.algorithm != Algorithm::token_bucket || random.chance(0.2)) continue;
    rule.process_hold = std::min<Duration>(pick<Duration>(random, {5ms, 20ms, 200ms}), rule.limit.burst_span() / 2);
    if (tokens_held(rule) > rule.limit.limit / 2) rule.process_hold = Duration(0);
  }
  for (uint64_t n = 1 + random.below(kProcessesMost); n > 0; --n) {
    const size_t process = plan.config.processes.size();
    plan.config.processes.push_back({plan.any_node(random), pick<Duration>(random, {5ms, 10ms, 50ms, 1s}), pick<Duration>(random, {20us, 1ms, 30ms})});
    for (const auto& [rule, key] : plan.keys)
      if (random.chance(0.7)) draw_use(random, plan, process, rule, key);
  }
}

}  // namespace tally::sim
