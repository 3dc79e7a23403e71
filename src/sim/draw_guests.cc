// Guests of a random cluster: hosts that are in no list, and come and go.
#include <algorithm>

#include "sim/cluster_plan.h"
#include "sim/trace.h"

namespace tally::sim {
namespace {

using namespace std::chrono_literals;

constexpr uint64_t kGuestsMost = 6;

void draw_use(Random& random, ClusterPlan& plan, uint16_t guest, const std::string& rule, const std::string& key) {
  const uint32_t limit = plan.rule(rule).limit.limit;
  const std::string what = rule + "/" + key + " at guest " + std::to_string(guest);
  if (random.chance(0.5)) {
    const double rate = std::clamp(limit * pick(random, {0.1, 0.5, 2.0}), 3.0, 400.0);
    const Duration from = up_to(random, 1s);
    plan.add_ahead(from, guest, std::to_string(static_cast<int>(rate)) + " asks a second for " + what,
                   [guest, rule, key, rate, from, until = plan.length](Fleet& fleet) { fleet.poisson(guest, rule, key, rate, from, until); });
  }
  for (uint64_t bursts = random.below(4); bursts > 0; --bursts) {
    const uint64_t n = 1 + random.below(std::min<uint64_t>(300, 2 * uint64_t{limit}));
    const auto cost = static_cast<uint32_t>(random.chance(0.8) ? 1 : 1 + random.below(limit));
    plan.add(up_to(random, plan.length), guest, std::to_string(n) + " asks of " + std::to_string(cost) + " for " + what,
             [guest, rule, key, n, cost](Fleet& fleet) {
               for (uint64_t i = 0; i < n; ++i) fleet.take(guest, rule, key, cost);
             });
  }
  // As in draw_traffic.cc.
  if (!plan.unheard_claims && random.chance(0.2)) {
    const auto n = static_cast<uint32_t>(1 + random.below(limit));
    plan.add(up_to(random, plan.length), guest, "give " + std::to_string(n) + " of " + what,
             [guest, rule, key, n](Fleet& fleet) { fleet.give(guest, rule, key, n); });
  }
  if (random.chance(0.05))
    plan.add(up_to(random, plan.length), guest, "reset " + what, [guest, rule, key](Fleet& fleet) { fleet.reset(guest, rule, key); });
}

void draw_lives(Random& random, ClusterPlan& plan, uint16_t guest) {
  const std::string who = "guest " + std::to_string(guest);
  for (uint64_t n = random.below(4); n > 0; --n) {
    const Duration from = up_to(random, plan.length);
    const Duration for_long = up_to(random, pick<Duration>(random, {0s, 300ms, 4s}));
    switch (random.below(4)) {
      case 0:
        plan.add(from, guest, who + " stands still for " + describe(for_long), [guest, for_long](Fleet& fleet) { fleet.pause(guest, for_long); });
        continue;
      case 1:
        plan.add(from, guest, who + " is cut off", [guest](Fleet& fleet) { fleet.network().cut_off(guest); });
        plan.add(from + for_long, 0, "all cuts mended", [](Fleet& fleet) { fleet.network().mend_all(); });
        continue;
      case 2:
        plan.add(from, guest, who + " leaves", [guest](Fleet& fleet) { fleet.leave(guest); });
        break;
      default:
        plan.add(from, guest, who + " crashes", [guest](Fleet& fleet) { fleet.crash(guest, false); });
        break;
    }
    plan.add(from + for_long, guest, who + " starts under another name", [guest](Fleet& fleet) {
      if (!fleet.is_up(guest)) fleet.start(guest);
    });
  }
}

}  // namespace

void draw_guests(Random& random, ClusterPlan& plan) {
  FleetConfig& config = plan.config;
  config.guests = static_cast<uint16_t>(1 + random.below(kGuestsMost));
  config.size += config.guests;  // so many nodes at most in all: what an isolated one takes its part of
  const auto first = static_cast<uint16_t>(config.nodes + config.clones.size());
  config.clocks.resize(first);
  for (uint16_t i = 0; i < config.guests; ++i) {
    const auto guest = static_cast<uint16_t>(first + i);
    config.clocks.push_back(draw_clock(random, plan.kind));
    for (const auto& [rule, key] : plan.keys)
      if (random.chance(0.6)) draw_use(random, plan, guest, rule, key);
    draw_lives(random, plan, guest);
  }
}

}  // namespace tally::sim
