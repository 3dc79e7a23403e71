#include "sim/random_cluster.h"

#include <algorithm>

#include "sim/liveness.h"

namespace tally::sim {
namespace {

// Of the clusters.
constexpr double kLarge = 0.03;  // many nodes
constexpr double kFull = 0.25;   // registers too small for the keys
constexpr double kFewOwn = 0.1;  // keys belong to some of the nodes alone
// Of those with faults.
constexpr double kAttacked = 0.3;  // strangers and old datagrams come in
constexpr double kCloned = 0.1;    // a name lives twice
constexpr double kAtOdds = 0.1;    // hosts have different rules of one name
constexpr double kReloaded = 0.1;  // hosts change their rules
constexpr double kPaced = 0.1;     // hosts sync at intervals of their own
constexpr double kByThemselves = 0.3;  // processes admit by themselves
constexpr double kVisited = 0.2;  // hosts that are in no list come and go
constexpr double kWide = 0.25;     // a rougher world; not where a peer that remembers must be heard in time
constexpr double kMiddling = 0.1;  // of those: 11 to 19 nodes

constexpr int kAudits = 10;             // in a run
constexpr size_t kCellsToServe = 4096;  // in which every window of a run finds some

void count_windows(const Fleet& fleet, const ClusterPlan& plan, ClusterResult& result) {
  for (const auto& [rule, key] : plan.keys) {
    const Tally tally = fleet.tally(rule, key);
    result.offered += tally.offered();
    result.admitted += tally.admitted();
    for (const auto& [window, count] : fleet.windows(rule, key)) {
      ++result.windows;
      result.windows_full += count.net() >= fleet.rule(rule).limit.limit;
    }
  }
}

}  // namespace

ClusterPlan random_cluster(uint64_t seed, const ClusterOptions& options) {
  Random random(seed);
  ClusterPlan plan = draw_cluster(random, options.faults);
  plan.seed = seed;
  // From dice of their own: what a seed drew before there was any of these it still draws.
  Random more(mix(seed));
  if (plan.config.nodes > 1 && more.chance(kLarge)) grow(more, plan, 20, kNodesMost);
  Random room(mix(~seed));
  if (room.chance(kFull)) draw_full_registers(room, plan);
  // Where a window finds no cells either, nobody is served: that is no fault of the fleet.
  if (options.liveness) plan.config.overflow_cells = std::max(plan.config.overflow_cells, kCellsToServe);
  Random wider(mix(mix(seed)));
  const bool wide = options.faults && plan.config.nodes > 1 && plan.kind != Kind::forgetful && wider.chance(kWide);
  if (wide && wider.chance(kMiddling)) grow(wider, plan, 11, 19);
  Random few(mix(~mix(seed)));
  if (plan.config.nodes > 1 && few.chance(kFewOwn)) draw_owners(few, plan);
  draw_links(random, plan);
  draw_traffic(random, plan);
  if (options.faults) draw_faults(random, plan);
  if (!options.faults || plan.config.nodes == 1) return plan;
  if (more.chance(kAttacked)) draw_attacks(more, plan);
  // A clone of a key's only owner issues what it likes until it is told: docs/design.md, a cloned name.
  if (more.chance(kCloned) && plan.config.owners.size() != 1) draw_clones(more, plan);
  if (more.chance(kAtOdds)) draw_own_rules(more, plan);
  if (wide) draw_wide(wider, plan);
  Random reloads(mix(mix(~seed)));
  if (plan.config.own_rules.empty() && reloads.chance(kReloaded)) draw_reloads(reloads, plan);
  Random paces(mix(~mix(mix(seed))));
  if (paces.chance(kPaced)) draw_paces(paces, plan);
  Random guests(mix(mix(~mix(seed))));
  if (guests.chance(kVisited)) draw_guests(guests, plan);
  Random processes(mix(~mix(mix(~seed))));
  if (plan.config.own_rules.empty() && processes.chance(kByThemselves)) draw_processes(processes, plan);
  return plan;
}

ClusterResult run_cluster(const ClusterPlan& plan, const ClusterOptions& options) {
  FleetConfig config = plan.config;
  config.sliding_late = options.sliding_late;
  Fleet fleet(config);
  if (options.trace) fleet.trace(options.trace_rule, options.trace_key, options.trace);
  for (const Step& step : plan.steps) step.arrange(fleet);
  for (int part = 1; part <= kAudits; ++part) {
    fleet.run_until(plan.length * part / kAudits);
    fleet.audit();
  }

  ClusterResult result;
  result.seed = plan.seed;
  result.about = about(plan);
  result.log_hash = fleet.log_hash();
  result.events = fleet.events();
  result.traffic = fleet.traffic();
  result.marks_overflowed = fleet.marks_overflowed();
  result.by_processes = fleet.admitted_by_processes();
  count_windows(fleet, plan, result);
  if (options.liveness) {
    check_liveness(fleet, plan);
    fleet.audit();
  }
  result.violations = fleet.violations();
  return result;
}

ClusterResult run_random_cluster(uint64_t seed, const ClusterOptions& options) {
  return run_cluster(random_cluster(seed, options), options);
}

}  // namespace tally::sim
