// What operators do to a random cluster: a name that is used twice, rules that are not the same everywhere.
#include <algorithm>

#include "sim/cluster_plan.h"
#include "sim/trace.h"

namespace tally::sim {
namespace {

using namespace std::chrono_literals;

void draw_clone(Random& random, ClusterPlan& plan) {
  const uint16_t name = plan.any_node(random);
  const auto clone = static_cast<uint16_t>(plan.config.nodes + plan.config.clones.size());
  plan.config.clones.push_back(name);
  plan.config.clocks.resize(size_t{clone} + 1);
  if (random.chance(0.3)) plan.config.clocks[clone].offset = up_to(random, 200ms);
  const std::string who = "host " + std::to_string(clone) + ", a clone of " + std::to_string(name) + ",";
  const Duration from = up_to(random, plan.length / 2);
  plan.add(from, clone, who + " starts", [clone](Fleet& fleet) { fleet.start(clone); });
  if (random.chance(0.5)) {
    const Duration again = from + up_to(random, plan.length / 2);
    const bool keep_state = random.chance(0.5);
    if (!keep_state) plan.config.forgetful.push_back(name);
    plan.add(again, clone, who + " is started again", [clone, keep_state](Fleet& fleet) {
      fleet.crash(clone, keep_state);
      fleet.start(clone);
    });
  }
  if (random.chance(0.5)) {  // nobody can tell it in time
    const Duration cut_for = up_to(random, 3s);
    plan.add(from, clone, who + " is cut off for " + describe(cut_for), [clone, cut_for](Fleet& fleet) {
      fleet.network().cut_off(clone);
      fleet.at(fleet.now() + cut_for, [&fleet] { fleet.network().mend_all(); });
    });
  }
  for (const auto& [rule, key] : plan.keys) {
    const double rate = std::clamp<double>(plan.rule(rule).limit.limit, 3, 100);
    plan.add_ahead(from, clone, "asks for " + rule + "/" + key + " at host " + std::to_string(clone),
                   [clone, rule = rule, key = key, rate, from, until = plan.length](Fleet& fleet) {
                     fleet.poisson(clone, rule, key, rate, from, until);
                   });
  }
}

// The same kind of limit with other numbers.
void draw_numbers(Random& random, Rule& rule) {
  Limit& limit = rule.limit;
  if (random.chance(0.7)) {
    const uint64_t other =
        pick<uint64_t>(random, {1 + random.below(limit.limit), limit.limit + 1, limit.limit * 2});
    limit.limit = static_cast<uint32_t>(other);
  }
  if (random.chance(0.5)) rule.max_overcount.ppm = pick<uint32_t>(random, {0, 50'000, 500'000});
  if (limit.algorithm == Algorithm::token_bucket && random.chance(0.3))
    limit.emission = random.chance(0.5) ? limit.emission * 2 : std::max(limit.emission / 2, Duration(1));
}

// Another kind of limit under the same name.
Rule draw_form(Random& random, const Rule& rule) {
  const uint32_t limit = rule.limit.limit, ppm = rule.max_overcount.ppm;
  const Duration window = random.chance(0.5) && rule.limit.window > 0s
                              ? rule.limit.window
                              : pick<Duration>(random, {300ms, 1s, 2s, 5s});
  Rule other;
  switch (random.below(3)) {
    case 0:
      other = window_rule(rule.name, Algorithm::fixed_window, limit, window, ppm);
      break;
    case 1:
      other = window_rule(rule.name, Algorithm::sliding_window, limit, window, ppm);
      break;
    default:
      other = bucket_rule(rule.name, limit, limit, window, ppm);
      break;
  }
  other.on_isolation = rule.on_isolation;
  other.on_amnesia = rule.on_amnesia;
  other.wait = rule.wait;
  return other;
}

}  // namespace

void draw_clones(Random& random, ClusterPlan& plan) {
  for (uint64_t n = 1 + random.below(2); n > 0; --n) draw_clone(random, plan);
}

void draw_own_rules(Random& random, ClusterPlan& plan) {
  for (const Rule& rule : plan.config.rules) {
    if (random.chance(0.3)) continue;
    Rule other = random.chance(0.3) ? draw_form(random, rule) : rule;
    draw_numbers(random, other);
    for (uint16_t rank = 0; rank < plan.config.nodes; ++rank)
      if (random.chance(0.4)) plan.config.own_rules.push_back({rank, other});
  }
}

void draw_reloads(Random& random, ClusterPlan& plan) {
  for (const Rule& rule : plan.config.rules) {
    if (random.chance(0.3)) continue;
    Rule other = rule;
    draw_numbers(random, other);
    for (uint16_t rank = 0; rank < plan.config.nodes; ++rank) plan.config.own_rules.push_back({rank, other});
  }
  plan.config.own_rules_later = true;
  const auto reload = [&](Duration at, uint16_t rank, bool other) {
    const Duration workers_after = up_to(random, 3ms);
    plan.add(at, rank, "host " + std::to_string(rank) + (other ? " reloads other rules" : " reloads the rules that it had first"),
             [rank, other, workers_after](Fleet& fleet) { fleet.reload(rank, other, workers_after); });
  };
  // Host by host, as a rollout goes; some are rolled back.
  const Duration apart = pick<Duration>(random, {0ms, 20ms, 300ms});
  Duration at = up_to(random, plan.length * 2 / 3);
  for (uint16_t rank = 0; rank < plan.config.nodes; ++rank, at += apart) {
    if (random.chance(0.1)) continue;
    reload(at, rank, true);
    if (random.chance(0.2)) reload(at + up_to(random, plan.length / 4), rank, false);
  }
}


void draw_paces(Random& random, ClusterPlan& plan) {
  const auto draw = [&] {
    const Duration sync = std::min(pick<Duration>(random, {5ms, 20ms, 50ms, 100ms, 250ms}), plan.config.sync_interval);
    return Pace{sync, std::max(pick<Duration>(random, {500ms, 1s, 2s}), plan.config.sync_interval * 5)};
  };
  for (uint16_t rank = 0; rank < plan.config.nodes; ++rank) {
    Duration at{0};
    for (uint64_t changes = random.below(4); changes > 0; --changes) {
      const Pace pace = draw();
      plan.add(at, rank, "host " + std::to_string(rank) + " syncs every " + describe(pace.sync_interval),
               [rank, pace](Fleet& fleet) { fleet.set_pace(rank, pace); });
      at += up_to(random, plan.length / 3);
    }
  }
}

}  // namespace tally::sim
