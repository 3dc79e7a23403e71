#include "sim/random_cluster.h"

#include <algorithm>

#include "sim/trace.h"

namespace tally::sim {
namespace {

using namespace std::chrono_literals;

// What a cluster is to try most.
enum class Kind {
  mixed,
  pressed,  // every node is asked for more than there is, under the tightest bound, and faults are short: the
            // smallest amount too much shows
  crowded,    // pressed, in slot tables with too little room: keys in use are evicted and come back
  forgetful,  // pressed, and one node loses its state file again and again, where others remember its name
  quiet,      // buckets that lie idle between bursts about as long as a member keeps their marks
  boundary,   // windows: bursts, claims and faults around their ends, clocks that differ little
};

struct Plan {
  FleetConfig config;
  Kind kind = Kind::mixed;
  std::vector<std::pair<std::string, std::string>> keys;  // rule, key
  Duration length{0};
  bool unheard_claims = false;  // and then nothing is given back: docs/mutations.md, the first hole
  bool pressed() const { return kind != Kind::mixed; }
};

constexpr const char* kKindNames[] = {"mixed", "pressed", "crowded", "forgetful", "quiet", "boundary"};
constexpr int kFillers = 48;  // more keys than the smallest slot table has room for

template <typename T>
T pick(Random& random, std::initializer_list<T> from) {
  return from.begin()[random.below(from.size())];
}

Duration up_to(Random& random, Duration most) { return Duration(random.between(0, nanos(most))); }

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
  config.isolation_after = pick<Duration>(random, {500ms, 2s});
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
  for (uint16_t rank = 0; rank < config.nodes; ++rank) {
    HostClock clock;
    const Duration most = plan.kind == Kind::boundary ? pick<Duration>(random, {5ms, 200ms})
                                                      : pick<Duration>(random, {5ms, 200ms, 3s});
    if (random.chance(0.5)) clock.offset = up_to(random, most);
    if (random.chance(0.3)) clock.drift_ppm = static_cast<int32_t>(random.between(-4'500, 4'500));
    config.clocks.push_back(clock);
  }
  plan.length = faults ? 8s : 5s;
  plan.unheard_claims = faults && config.nodes > 2 && plan.kind != Kind::forgetful && random.chance(0.5);
  if (plan.kind == Kind::quiet) plan.length = 12s;
  return plan;
}

uint16_t any_node(Random& random, const Fleet& fleet) {
  return static_cast<uint16_t>(random.below(fleet.nodes()));
}

void burst_at(Fleet& fleet, Duration at, uint16_t rank, const std::string& rule, const std::string& key,
              uint64_t n, uint32_t cost) {
  fleet.at(at, [&fleet, rank, rule, key, n, cost] {
    for (uint64_t i = 0; i < n; ++i) fleet.take(rank, rule, key, cost);
  });
}

// About a boundary of the key's windows; a bucket: anywhere.
Duration near_boundary(Random& random, const Limit& limit, Duration length) {
  if (limit.window <= Duration(0)) return up_to(random, length);
  const Duration around =
      limit.window * static_cast<int64_t>(1 + random.below(static_cast<uint64_t>(length / limit.window)));
  const Duration at = around + up_to(random, 250ms) - (random.chance(0.7) ? 250ms : 100ms);
  return std::clamp(at, Duration(0), length);
}

// Now and then everything at some nodes within a moment, and nothing in between.
void draw_bursts(Random& random, Fleet& fleet, const Plan& plan, const std::string& rule,
                 const std::string& key) {
  const Limit& limit = fleet.rule(rule).limit;
  Duration at = up_to(random, 1s);
  while (at < plan.length) {
    for (uint64_t n = 1 + random.below(3); n > 0; --n) {
      const uint64_t most = pick<uint64_t>(random, {1, 1 + limit.limit / 2, 2 * uint64_t{limit.limit}});
      burst_at(fleet, std::min(at + up_to(random, 30ms), plan.length), any_node(random, fleet), rule, key,
               1 + random.below(std::min<uint64_t>(300, most)), 1);
    }
    if (plan.kind == Kind::boundary)
      at = std::max(at + 20ms, near_boundary(random, limit, std::min(plan.length, at + limit.window * 2)));
    else
      at += up_to(random, bucket_keep(limit.burst_span(), plan.config.lease) * 5 / 4);
  }
}

// So much else at one host that a key in use is evicted; then that key again.
void draw_crowds(Random& random, Fleet& fleet, const Plan& plan) {
  for (uint64_t n = 4 + random.below(8); n > 0; --n) {
    const uint16_t rank = any_node(random, fleet);
    const auto cost = static_cast<uint32_t>(pick<uint64_t>(random, {1, 20, 80}));
    const auto& [rule, key] = plan.keys[random.below(plan.keys.size())];
    fleet.at(up_to(random, plan.length), [&fleet, rank, cost, rule = rule, key = key] {
      fleet.take(rank, rule, key);
      for (int i = 0; i < kFillers; ++i) fleet.take(rank, "filler", "filler-" + std::to_string(i), cost);
    });
  }
}

void draw_traffic(Random& random, Fleet& fleet, const Plan& plan) {
  for (const auto& [rule, key] : plan.keys) {
    if (plan.kind == Kind::quiet || (plan.kind == Kind::boundary && random.chance(0.5))) {
      draw_bursts(random, fleet, plan, rule, key);
      continue;
    }
    const uint32_t limit = fleet.rule(rule).limit.limit;
    const uint64_t streams = plan.pressed() ? fleet.nodes() : 1 + random.below(fleet.nodes());
    const Duration from = up_to(random, 1s);
    for (uint64_t s = 0; s < streams; ++s) {
      const double rate = std::min(400.0, limit * (plan.pressed() ? 1.0 : pick(random, {0.1, 0.5, 2.0})));
      const auto rank = plan.pressed() ? static_cast<uint16_t>(s) : any_node(random, fleet);
      fleet.poisson(rank, rule, key, std::max(rate, 3.0), from, plan.length);
    }
    const uint64_t bursts = random.below(6);
    for (uint64_t b = 0; b < bursts; ++b) {
      const uint16_t rank = any_node(random, fleet);
      const auto n = 1 + random.below(std::min<uint64_t>(300, 2 * uint64_t{limit}));
      const auto cost = static_cast<uint32_t>(random.chance(0.8) ? 1 : 1 + random.below(limit));
      burst_at(fleet, up_to(random, plan.length), rank, rule, key, n, cost);
    }
    for (uint64_t gives = !plan.unheard_claims && random.chance(0.4) ? 1 + random.below(4) : 0; gives > 0;
         --gives) {
      const uint16_t rank = any_node(random, fleet);
      const auto n = static_cast<uint32_t>(1 + random.below(limit));
      fleet.at(up_to(random, plan.length), [&fleet, rank, rule, key, n] { fleet.give(rank, rule, key, n); });
    }
    for (uint64_t resets = random.chance(0.15) ? 1 + random.below(2) : 0; resets > 0; --resets) {
      const uint16_t rank = any_node(random, fleet);
      fleet.at(up_to(random, plan.length), [&fleet, rank, rule, key] { fleet.reset(rank, rule, key); });
    }
  }
}

void draw_links(Random& random, Fleet& fleet, const Plan& plan) {
  if (plan.kind == Kind::forgetful || random.chance(0.5)) return;
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
  Duration from = up_to(random, plan.length);
  if (plan.kind == Kind::boundary && random.chance(0.7))
    from =
        near_boundary(random, fleet.rule(plan.keys[random.below(plan.keys.size())].first).limit, plan.length);
  const bool brief = plan.kind == Kind::quiet ? random.chance(0.2) : plan.pressed() || random.chance(0.5);
  const Duration for_long = up_to(random, brief ? 300ms : 4s);
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

// One node is killed and begins anew without its state file; the others live and are heard, and so remember
// it.
void draw_losses(Random& random, Fleet& fleet, const Plan& plan) {
  const uint16_t rank = any_node(random, fleet);
  for (uint64_t n = 1 + random.below(8); n > 0; --n) {
    const Duration from = std::max(up_to(random, plan.length), Duration(1s));
    const bool keep_state = random.chance(0.2);
    fleet.at(from, [&fleet, rank, keep_state] { fleet.crash(rank, keep_state); });
    fleet.at(from + up_to(random, 300ms), [&fleet, rank] {
      if (!fleet.is_up(rank)) fleet.start(rank);
    });
  }
}

// A member claims a key while it and one of its group, the natural owner mostly, do not hear each other:
// whoever is deposed learns of it from the third alone, if at all.
void draw_unheard_claims(Random& random, Fleet& fleet, const Plan& plan) {
  for (uint64_t n = random.below(9); n > 0; --n) {
    const auto& [rule, key] = plan.keys[random.below(plan.keys.size())];
    const Group group = fleet.group(rule, key);
    const uint16_t claimant = group.rank[random.below(group.size)];
    const uint16_t deaf = group.rank[random.chance(0.7) ? 0 : random.below(group.size)];
    if (claimant == deaf) continue;
    const bool boundary = plan.kind == Kind::boundary && random.chance(0.7);
    const Duration at =
        boundary ? near_boundary(random, fleet.rule(rule).limit, plan.length) : up_to(random, plan.length);
    fleet.at(at, [&fleet, claimant, deaf] {
      fleet.network().cut(claimant, deaf);
      fleet.network().cut(deaf, claimant);
    });
    const auto ahead = static_cast<int64_t>(random.below(boundary ? 2 : 1));
    fleet.at(std::min(at + 5ms, plan.length),
             [&fleet, claimant, ahead, rule = rule, key = key] { fleet.claim(claimant, rule, key, ahead); });
    if (random.chance(0.4))  // both claim, and neither hears of the other
      fleet.at(std::min(at + up_to(random, 100ms), plan.length),
               [&fleet, deaf, ahead, rule = rule, key = key] { fleet.claim(deaf, rule, key, ahead); });
    const Duration deaf_for = up_to(random, pick<Duration>(random, {300ms, 1500ms}));
    fleet.at(std::min(at + deaf_for, plan.length), [&fleet, claimant, deaf] {
      fleet.network().mend(claimant, deaf);
      fleet.network().mend(deaf, claimant);
    });
  }
}

// Any node claims any key at any time, whoever owns it: in bursts, so that claims meet.
void draw_claims(Random& random, Fleet& fleet, const Plan& plan) {
  if (random.chance(0.5)) return;
  for (uint64_t n = random.below(8); n > 0; --n) {
    const auto& [rule, key] = plan.keys[random.below(plan.keys.size())];
    const bool boundary = plan.kind == Kind::boundary || random.chance(0.2);
    const Duration at =
        boundary ? near_boundary(random, fleet.rule(rule).limit, plan.length) : up_to(random, plan.length);
    for (uint64_t i = 1 + random.below(3); i > 0; --i) {
      const uint16_t rank = any_node(random, fleet);
      const auto ahead = static_cast<int64_t>(random.below(boundary ? 2 : 1));
      fleet.at(std::min(at + up_to(random, 20ms), plan.length),
               [&fleet, rank, ahead, rule = rule, key = key] { fleet.claim(rank, rule, key, ahead); });
    }
  }
}

std::string policy_name(OnIsolation policy) {
  return policy == OnIsolation::closed ? "closed" : policy == OnIsolation::share ? "share" : "open";
}

std::string about(const Plan& plan) {
  const FleetConfig& c = plan.config;
  std::string text = kKindNames[static_cast<int>(plan.kind)] + (", " + std::to_string(c.nodes)) +
                     " nodes of " + std::to_string(c.size) + ", sync " + describe(c.sync_interval) +
                     ", delay " + describe(c.link.delay_min) + ".." + describe(c.link.delay_max) + ", loss " +
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
  Plan plan = draw_plan(random, options.faults);
  plan.config.sliding_late = options.sliding_late;
  Fleet fleet(plan.config);
  if (options.trace) fleet.trace(options.trace_rule, options.trace_key, options.trace);
  draw_links(random, fleet, plan);
  draw_traffic(random, fleet, plan);
  if (plan.kind == Kind::crowded) draw_crowds(random, fleet, plan);
  if (options.faults && plan.kind == Kind::forgetful)
    draw_losses(random, fleet, plan);
  else if (options.faults && fleet.nodes() > 1)
    for (uint64_t n = random.below(plan.pressed() ? 12 : 6); n > 0; --n) draw_fault(random, fleet, plan);
  if (options.faults && fleet.nodes() > 1) draw_claims(random, fleet, plan);
  if (plan.unheard_claims) draw_unheard_claims(random, fleet, plan);
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
