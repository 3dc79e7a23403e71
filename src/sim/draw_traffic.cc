// What applications ask for in a random cluster.
#include <algorithm>

#include "sim/cluster_plan.h"
#include "sim/trace.h"

namespace tally::sim {
namespace {

using namespace std::chrono_literals;

constexpr int kFillers = 48;  // more keys than the smallest slot table has room for

constexpr double kStreamsMost = 4'000;  // asks a second for one key, at all nodes together

std::string at_host(uint16_t rank) { return " at " + std::to_string(rank); }

void burst_at(ClusterPlan& plan, Duration at, uint16_t rank, const std::string& rule, const std::string& key,
              uint64_t n, uint32_t cost) {
  plan.add(
      at, rank,
      std::to_string(n) + " asks of " + std::to_string(cost) + " for " + rule + "/" + key + at_host(rank),
      [rank, rule, key, n, cost](Fleet& fleet) {
        for (uint64_t i = 0; i < n; ++i) fleet.take(rank, rule, key, cost);
      });
}

// Now and then everything at some nodes within a moment, and nothing in between.
void draw_bursts(Random& random, ClusterPlan& plan, const std::string& rule, const std::string& key) {
  const Limit& limit = plan.rule(rule).limit;
  Duration at = up_to(random, 1s);
  while (at < plan.length) {
    for (uint64_t n = 1 + random.below(3); n > 0; --n) {
      const uint64_t most = pick<uint64_t>(random, {1, 1 + limit.limit / 2, 2 * uint64_t{limit.limit}});
      const uint64_t asks = 1 + random.below(std::min<uint64_t>(300, most));
      const uint16_t rank = plan.any_node(random);
      burst_at(plan, std::min(at + up_to(random, 30ms), plan.length), rank, rule, key, asks, 1);
    }
    if (plan.kind == Kind::boundary)
      at = std::max(at + 20ms, near_boundary(random, limit, std::min(plan.length, at + limit.window * 2)));
    else
      at += up_to(random, bucket_keep(limit.burst_span(), plan.config.lease) * 5 / 4);
  }
}

// So much else at one host that a key in use is evicted; then that key again.
void draw_crowds(Random& random, ClusterPlan& plan) {
  for (uint64_t n = 4 + random.below(8); n > 0; --n) {
    const uint16_t rank = plan.any_node(random);
    const auto cost = static_cast<uint32_t>(pick<uint64_t>(random, {1, 20, 80}));
    const auto& [rule, key] = plan.keys[random.below(plan.keys.size())];
    plan.add(up_to(random, plan.length), rank,
             "one ask for " + rule + "/" + key + ", then a crowd of other keys" + at_host(rank),
             [rank, cost, rule = rule, key = key](Fleet& fleet) {
               fleet.take(rank, rule, key);
               for (int i = 0; i < kFillers; ++i)
                 fleet.take(rank, "filler", "filler-" + std::to_string(i), cost);
             });
  }
}

void draw_streams(Random& random, ClusterPlan& plan, const std::string& rule, const std::string& key) {
  const uint32_t limit = plan.rule(rule).limit.limit;
  const uint64_t streams = plan.pressed() ? plan.config.nodes : 1 + random.below(plan.config.nodes);
  const Duration from = up_to(random, 1s);
  for (uint64_t s = 0; s < streams; ++s) {
    const double part = plan.pressed() ? 1.0 : pick(random, {0.1, 0.5, 2.0});
    const double most = std::min(400.0, kStreamsMost / plan.config.nodes);
    const double rate = std::max(3.0, std::min(most, limit * part));
    const auto rank = plan.pressed() ? static_cast<uint16_t>(s) : plan.any_node(random);
    plan.add_ahead(
        from, rank,
        std::to_string(static_cast<int>(rate)) + " asks a second for " + rule + "/" + key + at_host(rank),
        [rank, rule, key, rate, from, until = plan.length](Fleet& fleet) {
          fleet.poisson(rank, rule, key, rate, from, until);
        });
  }
}

void draw_gives_and_resets(Random& random, ClusterPlan& plan, const std::string& rule,
                           const std::string& key) {
  const uint32_t limit = plan.rule(rule).limit.limit;
  for (uint64_t gives = !plan.unheard_claims && random.chance(0.4) ? 1 + random.below(4) : 0; gives > 0;
       --gives) {
    const uint16_t rank = plan.any_node(random);
    const auto n = static_cast<uint32_t>(1 + random.below(limit));
    plan.add(up_to(random, plan.length), rank,
             "give " + std::to_string(n) + " of " + rule + "/" + key + at_host(rank),
             [rank, rule, key, n](Fleet& fleet) { fleet.give(rank, rule, key, n); });
  }
  for (uint64_t resets = random.chance(0.15) ? 1 + random.below(2) : 0; resets > 0; --resets) {
    const uint16_t rank = plan.any_node(random);
    plan.add(up_to(random, plan.length), rank, "reset " + rule + "/" + key + at_host(rank),
             [rank, rule, key](Fleet& fleet) { fleet.reset(rank, rule, key); });
  }
}

}  // namespace

void draw_traffic(Random& random, ClusterPlan& plan) {
  for (const auto& [rule, key] : plan.keys) {
    if (plan.kind == Kind::quiet || (plan.kind == Kind::boundary && random.chance(0.5))) {
      draw_bursts(random, plan, rule, key);
      continue;
    }
    draw_streams(random, plan, rule, key);
    const uint32_t limit = plan.rule(rule).limit.limit;
    const uint64_t bursts = random.below(6);
    for (uint64_t b = 0; b < bursts; ++b) {
      const uint16_t rank = plan.any_node(random);
      const auto n = 1 + random.below(std::min<uint64_t>(300, 2 * uint64_t{limit}));
      const auto cost = static_cast<uint32_t>(random.chance(0.8) ? 1 : 1 + random.below(limit));
      burst_at(plan, up_to(random, plan.length), rank, rule, key, n, cost);
    }
    draw_gives_and_resets(random, plan, rule, key);
  }
  if (plan.kind == Kind::crowded) draw_crowds(random, plan);
}

}  // namespace tally::sim
