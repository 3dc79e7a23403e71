// A rougher world for some of the random clusters: networks that lose most of what is said or take half a second for it,
// each direction for itself, partitions that change shape, clocks that are set while hosts run, traffic that moves.
#include <algorithm>
#include <cmath>

#include "sim/cluster_plan.h"
#include "sim/trace.h"

namespace tally::sim {
namespace {

using namespace std::chrono_literals;

// 0.1 to 500 ms, short and long ones alike.
Duration draw_delay(Random& random) {
  constexpr double kDecades = 3.69897;  // log10(5000)
  return Duration(static_cast<int64_t>(1e5 * std::pow(10.0, random.unit() * kDecades)));
}

LinkTerms draw_rough_link(Random& random) {
  LinkTerms terms;
  terms.delay_min = draw_delay(random);
  terms.delay_max = std::min<Duration>(500ms, terms.delay_min + up_to(random, terms.delay_min));
  terms.loss = random.chance(0.5) ? 0.6 * random.unit() : 0;
  terms.duplicate = pick(random, {0.0, 0.1, 0.5});
  terms.straggle = pick(random, {0.0, 0.02, 0.1});
  terms.straggle_by = pick<Duration>(random, {100ms, 1s, 4s});
  return terms;
}

void draw_rough_network(Random& random, ClusterPlan& plan) {
  plan.config.link = draw_rough_link(random);
  const double odd = pick(random, {0.0, 0.3, 1.0});
  for (uint16_t from = 0; from < plan.config.nodes; ++from)
    for (uint16_t to = 0; to < plan.config.nodes; ++to) {
      if (from == to || !random.chance(odd)) continue;
      const LinkTerms terms = draw_rough_link(random);
      plan.add_ahead(Duration(0), std::max(from, to),
                     "rough link from " + std::to_string(from) + " to " + std::to_string(to) + ": " +
                         describe(terms.delay_min) + ".." + describe(terms.delay_max) + ", loss " +
                         std::to_string(terms.loss).substr(0, 4),
                     [from, to, terms](Fleet& fleet) { fleet.network().link(from, to) = terms; });
    }
}

// One split after the other, some of them only from one side to the other.
void draw_changing_partition(Random& random, ClusterPlan& plan) {
  Duration at = up_to(random, plan.length);
  for (uint64_t n = 2 + random.below(4); n > 0 && at < plan.length; --n) {
    std::vector<bool> side;
    std::string sides;
    for (uint16_t rank = 0; rank < plan.config.nodes; ++rank) {
      side.push_back(random.chance(0.5));
      if (side.back()) sides += " " + std::to_string(rank);
    }
    const bool one_way = random.chance(0.4);
    plan.add(at, 0, (one_way ? "not heard by the others, instead of what was cut:" : "split instead of what was cut:") + sides,
             [side, one_way](Fleet& fleet) {
               Network& network = fleet.network();
               network.mend_all();
               if (!one_way) return network.split(side);
               const auto named = static_cast<uint16_t>(std::min<size_t>(side.size(), fleet.nodes()));
               for (uint16_t a = 0; a < named; ++a)
                 for (uint16_t b = 0; b < named; ++b)
                   if (side[a] && !side[b]) network.cut(a, b);
             });
    at += up_to(random, 1500ms);
  }
  plan.add(std::min(at, plan.length), 0, "all cuts mended", [](Fleet& fleet) { fleet.network().mend_all(); });
}

void draw_clock_steps(Random& random, ClusterPlan& plan) {
  for (uint64_t n = 1 + random.below(4); n > 0; --n) {
    const uint16_t rank = plan.any_node(random);
    const Duration most = pick<Duration>(random, {20ms, 500ms, 5s});
    const Duration by = random.chance(0.5) ? up_to(random, most) : -up_to(random, most);
    plan.add(up_to(random, plan.length), rank,
             "the clock of host " + std::to_string(rank) + " is set " + (by < 0s ? "back by " : "ahead by ") +
                 describe(by < 0s ? -by : by),
             [rank, by](Fleet& fleet) { fleet.step_wall_clock(rank, by); });
  }
}

// All of a key's traffic at one host, then at another.
void draw_moving_traffic(Random& random, ClusterPlan& plan) {
  for (const auto& [rule, key] : plan.keys) {
    if (random.chance(0.5)) continue;
    const uint32_t limit = plan.rule(rule).limit.limit;
    const double rate = std::clamp<double>(limit * pick(random, {0.3, 1.0, 3.0}), 3, 400);
    Duration at = up_to(random, 1s);
    while (at < plan.length) {
      const Duration until = std::min(plan.length, at + pick<Duration>(random, {100ms, 500ms, 2s}));
      const uint16_t rank = plan.any_node(random);
      plan.add_ahead(at, rank,
                     std::to_string(static_cast<int>(rate)) + " asks a second for " + rule + "/" + key + " at " +
                         std::to_string(rank) + " until " + describe(until),
                     [rank, rule = rule, key = key, rate, at, until](Fleet& fleet) {
                       fleet.poisson(rank, rule, key, rate, at, until);
                     });
      at = until;
    }
  }
}

// Half of it at the first host of a random order, a quarter at the next, and so on.
void draw_skewed_traffic(Random& random, ClusterPlan& plan) {
  const uint16_t first = plan.any_node(random);
  for (const auto& [rule, key] : plan.keys) {
    double rate = std::min<double>(plan.rule(rule).limit.limit * 2.0, 400);
    for (uint16_t i = 0; i < plan.config.nodes && rate > 1; ++i, rate /= 2) {
      const auto rank = static_cast<uint16_t>((first + i) % plan.config.nodes);
      plan.add_ahead(Duration(0), rank,
                     std::to_string(static_cast<int>(rate)) + " asks a second for " + rule + "/" + key + " at " +
                         std::to_string(rank) + ", skewed",
                     [rank, rule = rule, key = key, rate, until = plan.length](Fleet& fleet) {
                       fleet.poisson(rank, rule, key, rate, Duration(0), until);
                     });
    }
  }
}

}  // namespace

void draw_wide(Random& random, ClusterPlan& plan) {
  plan.wide = true;
  if (random.chance(0.6)) draw_rough_network(random, plan);
  if (random.chance(0.5)) draw_changing_partition(random, plan);
  if (random.chance(0.5)) draw_clock_steps(random, plan);
  if (random.chance(0.5))
    draw_moving_traffic(random, plan);
  else
    draw_skewed_traffic(random, plan);
}

}  // namespace tally::sim
