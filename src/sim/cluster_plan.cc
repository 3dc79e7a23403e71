#include "sim/cluster_plan.h"

#include <algorithm>

#include "base/fail.h"
#include "sim/trace.h"

namespace tally::sim {
namespace {

using namespace std::chrono_literals;

constexpr std::string_view kKindNames[] = {"mixed", "pressed", "crowded", "forgetful", "quiet", "boundary"};

Rule draw_rule(Random& random, int index, Kind kind, bool closed) {
  const auto limit =
      static_cast<uint32_t>(pick<uint64_t>(random, {1, 3, 10, 60, 200, 1 + random.below(300)}));
  const uint32_t ppm = pick<uint32_t>(random, {0, 0, 50'000, 100'000, 500'000});
  const std::string name = "rule-" + std::to_string(index);
  Rule rule;
  if (kind == Kind::quiet) {
    // A bucket that refills in the time that is drawn.
    const Duration span = pick<Duration>(random, {300ms, 1s, 2s});
    rule = bucket_rule(name, limit, limit, span, ppm);
  } else if (kind != Kind::boundary && random.chance(0.35)) {
    const auto count = static_cast<uint32_t>(1 + random.below(uint64_t{limit} + 1));
    rule = bucket_rule(name, limit, count, pick<Duration>(random, {100ms, 1s, 3s}), ppm);
  } else {
    const Algorithm algorithm = random.chance(0.5) ? Algorithm::fixed_window : Algorithm::sliding_window;
    rule = window_rule(name, algorithm, limit, pick<Duration>(random, {300ms, 1s, 2s, 5s}), ppm);
  }
  rule.on_isolation = closed ? OnIsolation::closed : pick(random, {OnIsolation::share, OnIsolation::open});
  rule.on_amnesia = OnAmnesia::deny;
  rule.wait = pick<Duration>(random, {0ms, 20ms, 20ms, 200ms});
  return rule;
}

std::string policy_name(OnIsolation policy) {
  return policy == OnIsolation::closed ? "closed" : policy == OnIsolation::share ? "share" : "open";
}

}  // namespace

std::string_view kind_name(Kind kind) { return kKindNames[static_cast<size_t>(kind)]; }

const Rule& ClusterPlan::rule(std::string_view name) const {
  const auto found = std::ranges::find(config.rules, name, &Rule::name);
  CHECK_THAT(found != config.rules.end());
  return *found;
}

Group ClusterPlan::group(std::string_view rule, std::string_view key) const {
  const Roster roster(host_list(config.nodes, config.size, config.owners), std::nullopt, kPublicIdKey);
  return roster.group(wire_id(key, rule_id_key(rule, kPublicIdKey)));
}

void ClusterPlan::add(Duration at, uint16_t highest, std::string what, std::function<void(Fleet&)> act) {
  add_ahead(at, highest, std::move(what),
            [at, act = std::move(act)](Fleet& fleet) { fleet.at(at, [&fleet, act] { act(fleet); }); });
}

void ClusterPlan::add_ahead(Duration at, uint16_t highest, std::string what,
                            std::function<void(Fleet&)> arrange) {
  steps.push_back({at, std::move(what), highest, std::move(arrange)});
}

std::string describe(const Rule& r) {
  const bool bucket = r.limit.algorithm == Algorithm::token_bucket;
  return std::to_string(r.limit.limit) +
         (bucket ? " a token every " + describe(r.limit.emission)
                 : (r.limit.algorithm == Algorithm::fixed_window ? " fixed " : " sliding ") +
                       describe(r.limit.window)) +
         " e=" + std::to_string(r.max_overcount.ppm / 10'000) + "% " + policy_name(r.on_isolation) +
         " wait " + describe(r.wait);
}

std::string about(const ClusterPlan& plan) {
  const FleetConfig& c = plan.config;
  std::string text = std::string(kind_name(plan.kind)) + ", " + std::to_string(c.nodes) + " nodes of " +
                     std::to_string(c.size) + ", sync " + describe(c.sync_interval) + ", delay " +
                     describe(c.link.delay_min) + ".." + describe(c.link.delay_max) + ", loss " +
                     std::to_string(c.link.loss).substr(0, 4) + ", rules";
  for (const Rule& r : c.rules) text += " [" + describe(r) + "]";
  if (plan.wide) text += ", wide";
  if (c.keep_datagrams) text += ", attacked";
  if (c.guests > 0) text += ", guests " + std::to_string(c.guests);
  if (!c.clones.empty()) text += ", clones " + std::to_string(c.clones.size());
  if (!c.own_rules.empty()) text += c.own_rules_later ? ", rules change" : ", rules at odds";
  if (!c.owners.empty()) text += ", keys belong to " + std::to_string(c.owners.size());
  if (c.registers < 1000) text += ", registers " + std::to_string(c.registers) + " and " + std::to_string(c.overflow_cells) + " cells";
  return text;
}

Duration up_to(Random& random, Duration most) { return Duration(random.between(0, nanos(most))); }

Duration near_boundary(Random& random, const Limit& limit, Duration length) {
  if (limit.window <= Duration(0)) return up_to(random, length);
  const Duration around =
      limit.window * static_cast<int64_t>(1 + random.below(static_cast<uint64_t>(length / limit.window)));
  const Duration at = around + up_to(random, 250ms) - (random.chance(0.7) ? 250ms : 100ms);
  return std::clamp(at, Duration(0), length);
}

LinkTerms draw_link(Random& random) {
  LinkTerms terms;
  terms.delay_min = pick<Duration>(random, {100us, 250us, 5ms, 30ms});
  terms.delay_max = terms.delay_min + up_to(random, pick<Duration>(random, {0ms, 1ms, 50ms}));
  terms.loss = pick(random, {0.0, 0.0, 0.05, 0.2});
  terms.duplicate = pick(random, {0.0, 0.1, 0.3});
  terms.straggle = pick(random, {0.0, 0.02, 0.1});
  terms.straggle_by = pick<Duration>(random, {100ms, 1s, 4s});
  return terms;
}

HostClock draw_clock(Random& random, Kind kind) {
  HostClock clock;
  const Duration most = kind == Kind::boundary ? pick<Duration>(random, {5ms, 200ms})
                                               : pick<Duration>(random, {5ms, 200ms, 3s});
  if (random.chance(0.5)) clock.offset = up_to(random, most);
  if (random.chance(0.3)) clock.drift_ppm = static_cast<int32_t>(random.between(-4'500, 4'500));
  return clock;
}

ClusterPlan draw_cluster(Random& random, bool faults) {
  ClusterPlan plan;
  FleetConfig& config = plan.config;
  plan.kind = pick(random, {Kind::mixed, Kind::mixed, Kind::mixed, Kind::pressed, Kind::pressed,
                            Kind::crowded, Kind::forgetful, Kind::quiet, Kind::boundary, Kind::boundary});
  config.seed = random.next();
  config.nodes = static_cast<uint16_t>(pick<uint64_t>(random, {1, 2, 3, 3, 4, 5, 7, 10}));
  if (plan.kind >= Kind::forgetful) config.nodes = std::max<uint16_t>(config.nodes, 3);
  config.size = config.nodes + static_cast<uint32_t>(random.chance(0.2) ? random.below(10) : 0);
  const int rules = 1 + static_cast<int>(random.below(4));
  for (int i = 0; i < rules; ++i) {
    config.rules.push_back(draw_rule(random, i, plan.kind, plan.pressed() || random.chance(0.6)));
    const uint64_t keys = 1 + random.below(3);
    for (uint64_t k = 0; k < keys; ++k)
      plan.keys.emplace_back(config.rules.back().name, "key-" + std::to_string(k));
  }
  config.link = draw_link(random);
  config.sync_interval = pick<Duration>(random, {20ms, 100ms, 100ms, 250ms});
  // At a few intervals a member that is well is now and then not heard of for that long.
  config.isolation_after = std::max(pick<Duration>(random, {500ms, 2s}), config.sync_interval * 5);
  config.lease = pick<Duration>(random, {200ms, 1s});
  config.horizon_step = pick<Duration>(random, {0s, 1s, 10s});
  config.keys = pick<size_t>(random, {16, 1000});
  config.isolation_possible = true;
  if (plan.kind == Kind::crowded) {
    config.keys = 16;
    config.rules.push_back(window_rule("filler", Algorithm::fixed_window, 1000, 1s, 900'000));
    config.rules.back().on_isolation = OnIsolation::closed;
  }
  if (plan.kind == Kind::forgetful) {  // a peer that remembers must be heard before the start is over
    config.link.delay_max = config.link.delay_min = std::min(config.link.delay_min, Duration(5ms));
    config.link.straggle = 0;
    config.link.loss = std::min(config.link.loss, 0.05);
  }
  if (plan.kind == Kind::quiet) config.lease = 200ms;
  for (uint16_t rank = 0; rank < config.nodes; ++rank) config.clocks.push_back(draw_clock(random, plan.kind));
  plan.length = faults ? 8s : 5s;
  plan.unheard_claims = faults && config.nodes > 2 && plan.kind != Kind::forgetful && random.chance(0.5);
  if (plan.kind == Kind::quiet) plan.length = 12s;
  return plan;
}

void draw_full_registers(Random& random, ClusterPlan& plan) {
  plan.config.registers = pick<size_t>(random, {1, 1, 2, 4, 8, 16});
  plan.config.overflow_cells = pick<size_t>(random, {2, 8, 16, 64, 256, 4096});
}

void draw_owners(Random& random, ClusterPlan& plan) {
  for (uint16_t rank = 0; rank < plan.config.nodes; ++rank) plan.config.owners.push_back(rank);
  std::ranges::shuffle(plan.config.owners, random);
  plan.config.owners.resize(random.between(1, plan.config.nodes - 1));
}

void grow(Random& random, ClusterPlan& plan, uint16_t least, uint16_t most) {
  FleetConfig& config = plan.config;
  const auto nodes = static_cast<uint16_t>(random.between(least, most));
  config.size += nodes - std::min(nodes, config.nodes);
  config.nodes = nodes;
  while (config.clocks.size() < nodes) config.clocks.push_back(draw_clock(random, plan.kind));
  plan.length = plan.kind == Kind::quiet ? 5s : 3s;
  if (plan.keys.size() > 3) plan.keys.resize(3);
}

}  // namespace tally::sim
