#include "sim/random_cluster.h"

#include <algorithm>

#include "sim/trace.h"

namespace tally::sim {
namespace {

using namespace std::chrono_literals;

struct Plan {
  FleetConfig config;
  std::vector<std::pair<std::string, std::string>> keys;  // rule, key
  Duration length{0};
  // Under pressure every node is asked for more than there is, under the tightest bound, and faults are
  // short: the smallest amount too much shows.
  bool pressed = false;
};

template <typename T>
T pick(Random& random, std::initializer_list<T> from) {
  return from.begin()[random.below(from.size())];
}

Duration up_to(Random& random, Duration most) { return Duration(random.between(0, nanos(most))); }

Rule draw_rule(Random& random, int index, bool closed) {
  const auto limit =
      static_cast<uint32_t>(pick<uint64_t>(random, {1, 3, 10, 60, 200, 1 + random.below(300)}));
  const uint32_t ppm = pick<uint32_t>(random, {0, 0, 50'000, 100'000, 500'000});
  const std::string name = "rule-" + std::to_string(index);
  Rule rule;
  if (random.chance(0.35)) {
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

Plan draw_plan(Random& random, bool faults) {
  Plan plan;
  FleetConfig& config = plan.config;
  plan.pressed = random.chance(0.5);
  config.seed = random.next();
  config.nodes = static_cast<uint16_t>(pick<uint64_t>(random, {1, 2, 3, 3, 4, 5, 7, 10}));
  config.size = config.nodes + static_cast<uint32_t>(random.chance(0.2) ? random.below(10) : 0);
  const int rules = 1 + static_cast<int>(random.below(4));
  for (int i = 0; i < rules; ++i) {
    config.rules.push_back(draw_rule(random, i, plan.pressed || random.chance(0.6)));
    const uint64_t keys = 1 + random.below(3);
    for (uint64_t k = 0; k < keys; ++k)
      plan.keys.emplace_back(config.rules.back().name, "key-" + std::to_string(k));
  }
  config.link = draw_link(random);
  config.sync_interval = pick<Duration>(random, {20ms, 100ms, 100ms, 250ms});
  config.isolation_after = pick<Duration>(random, {500ms, 2s});
  config.lease = pick<Duration>(random, {200ms, 1s});
  config.horizon_step = pick<Duration>(random, {0s, 1s, 10s});
  config.keys = pick<size_t>(random, {16, 1000});
  config.isolation_possible = true;
  for (uint16_t rank = 0; rank < config.nodes; ++rank) {
    HostClock clock;
    if (random.chance(0.5)) clock.offset = up_to(random, pick<Duration>(random, {5ms, 200ms, 3s}));
    if (random.chance(0.3)) clock.drift_ppm = static_cast<int32_t>(random.between(-4'500, 4'500));
    config.clocks.push_back(clock);
  }
  plan.length = faults ? 8s : 5s;
  return plan;
}

uint16_t any_node(Random& random, const Fleet& fleet) {
  return static_cast<uint16_t>(random.below(fleet.nodes()));
}

// Bursts and steady streams, at some nodes or all, mostly above the limit.
void draw_traffic(Random& random, Fleet& fleet, const Plan& plan) {
  for (const auto& [rule, key] : plan.keys) {
    const uint32_t limit = fleet.rule(rule).limit.limit;
    const uint64_t streams = plan.pressed ? fleet.nodes() : 1 + random.below(fleet.nodes());
    const Duration from = up_to(random, 1s);
    for (uint64_t s = 0; s < streams; ++s) {
      const double rate = std::min(400.0, limit * (plan.pressed ? 1.0 : pick(random, {0.1, 0.5, 2.0})));
      const auto rank = plan.pressed ? static_cast<uint16_t>(s) : any_node(random, fleet);
      fleet.poisson(rank, rule, key, std::max(rate, 3.0), from, plan.length);
    }
    const uint64_t bursts = random.below(6);
    for (uint64_t b = 0; b < bursts; ++b) {
      const uint16_t rank = any_node(random, fleet);
      const auto n = 1 + random.below(std::min<uint64_t>(300, 2 * uint64_t{limit}));
      const auto cost = static_cast<uint32_t>(random.chance(0.8) ? 1 : 1 + random.below(limit));
      fleet.at(up_to(random, plan.length), [&fleet, rank, rule, key, n, cost] {
        for (uint64_t i = 0; i < n; ++i) fleet.take(rank, rule, key, cost);
      });
    }
    if (!plan.pressed && random.chance(0.3)) {
      const uint16_t rank = any_node(random, fleet);
      const auto n = static_cast<uint32_t>(1 + random.below(limit));
      fleet.at(up_to(random, plan.length), [&fleet, rank, rule, key, n] { fleet.give(rank, rule, key, n); });
    }
    if (!plan.pressed && random.chance(0.1)) {
      const uint16_t rank = any_node(random, fleet);
      fleet.at(up_to(random, plan.length), [&fleet, rank, rule, key] { fleet.reset(rank, rule, key); });
    }
  }
}

void draw_links(Random& random, Fleet& fleet) {
  if (random.chance(0.5)) return;
  const uint64_t odd = random.below(uint64_t{fleet.nodes()} * 2);
  for (uint64_t i = 0; i < odd; ++i)
    fleet.network().link(any_node(random, fleet), any_node(random, fleet)) = draw_link(random);
}

void draw_partition(Random& random, Fleet& fleet, Duration from, Duration until) {
  const uint64_t kind = random.below(3);
  const uint16_t a = any_node(random, fleet), b = any_node(random, fleet);
  std::vector<bool> side;
  for (uint16_t rank = 0; rank < fleet.nodes(); ++rank) side.push_back(random.chance(0.5));
  fleet.at(from, [&fleet, kind, a, b, side] {
    if (kind == 0) fleet.network().split(side);
    if (kind == 1) fleet.network().cut_off(a);
    if (kind == 2) fleet.network().cut(a, b);
  });
  fleet.at(until, [&fleet] { fleet.network().mend_all(); });
}

void draw_fault(Random& random, Fleet& fleet, const Plan& plan) {
  const Duration from = up_to(random, plan.length);
  const Duration for_long = up_to(random, plan.pressed || random.chance(0.5) ? 300ms : 4s);
  const uint16_t rank = any_node(random, fleet);
  switch (random.below(5)) {
    case 0:
      return draw_partition(random, fleet, from, from + for_long);
    case 1:
      fleet.at(from, [&fleet, rank, for_long] { fleet.pause(rank, for_long); });
      return;
    case 2:
      fleet.at(from, [&fleet, rank] { fleet.leave(rank); });
      break;
    default:
      fleet.at(from, [&fleet, rank] { fleet.crash(rank); });
      break;
  }
  const Duration set_back = random.chance(0.2) ? up_to(random, 5s) : Duration(0);
  fleet.at(from + for_long, [&fleet, rank, set_back] {
    if (fleet.is_up(rank)) return;
    fleet.step_wall_clock(rank, -set_back);
    fleet.start(rank);
  });
}

// Any node claims any key at any time, whoever owns it: in bursts, so that claims meet.
void draw_claims(Random& random, Fleet& fleet, const Plan& plan) {
  if (random.chance(0.5)) return;
  for (uint64_t n = random.below(8); n > 0; --n) {
    const auto& [rule, key] = plan.keys[random.below(plan.keys.size())];
    const Duration at = up_to(random, plan.length);
    for (uint64_t i = 1 + random.below(3); i > 0; --i) {
      const uint16_t rank = any_node(random, fleet);
      fleet.at(std::min(at + up_to(random, 20ms), plan.length), [&fleet, rank, rule = rule, key = key] { fleet.claim(rank, rule, key); });
    }
  }
}

std::string policy_name(OnIsolation policy) {
  return policy == OnIsolation::closed ? "closed" : policy == OnIsolation::share ? "share" : "open";
}

std::string about(const Plan& plan) {
  const FleetConfig& c = plan.config;
  std::string text = (plan.pressed ? "pressed, " : "") + std::to_string(c.nodes) + " nodes of " +
                     std::to_string(c.size) + ", sync " + describe(c.sync_interval) + ", delay " +
                     describe(c.link.delay_min) + ".." + describe(c.link.delay_max) + ", loss " +
                     std::to_string(c.link.loss).substr(0, 4) + ", rules";
  for (const Rule& r : c.rules) {
    const bool bucket = r.limit.algorithm == Algorithm::token_bucket;
    text += " [" + std::to_string(r.limit.limit) +
            (bucket ? " a token every " + describe(r.limit.emission)
                    : (r.limit.algorithm == Algorithm::fixed_window ? " fixed " : " sliding ") +
                          describe(r.limit.window)) +
            " e=" + std::to_string(r.max_overcount.ppm / 10'000) + "% " + policy_name(r.on_isolation) +
            " wait " + describe(r.wait) + "]";
  }
  return text;
}

void count_windows(const Fleet& fleet, const Plan& plan, ClusterResult& result) {
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

ClusterResult run_random_cluster(uint64_t seed, const ClusterOptions& options) {
  Random random(seed);
  const Plan plan = draw_plan(random, options.faults);
  Fleet fleet(plan.config);
  if (options.trace) fleet.trace(options.trace_rule, options.trace_key, options.trace);
  draw_links(random, fleet);
  draw_traffic(random, fleet, plan);
  if (options.faults && fleet.nodes() > 1)
    for (uint64_t n = random.below(plan.pressed ? 12 : 6); n > 0; --n) draw_fault(random, fleet, plan);
  if (options.faults && fleet.nodes() > 1) draw_claims(random, fleet, plan);
  fleet.run_until(plan.length);

  ClusterResult result;
  result.seed = seed;
  result.about = about(plan);
  result.violations = fleet.violations();
  result.log_hash = fleet.log_hash();
  result.events = fleet.events();
  result.traffic = fleet.traffic();
  count_windows(fleet, plan, result);
  return result;
}

}  // namespace tally::sim
