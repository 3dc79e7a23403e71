// What goes wrong in a random cluster: links, partitions, crashes, lost state files, claims.
#include <algorithm>

#include "sim/cluster_plan.h"
#include "sim/trace.h"

namespace tally::sim {
namespace {

using namespace std::chrono_literals;

std::string host(uint16_t rank) { return "host " + std::to_string(rank); }
std::string pair_of(uint16_t a, uint16_t b) { return std::to_string(a) + " and " + std::to_string(b); }

std::string text(const LinkTerms& t) {
  return describe(t.delay_min) + ".." + describe(t.delay_max) + ", loss " +
         std::to_string(t.loss).substr(0, 4) + ", duplicates " + std::to_string(t.duplicate).substr(0, 4) +
         ", late " + std::to_string(t.straggle).substr(0, 4) + " up to " + describe(t.straggle_by);
}

void draw_partition(Random& random, ClusterPlan& plan, Duration from, Duration until) {
  const uint64_t kind = random.below(3);
  const uint16_t a = plan.any_node(random), b = plan.any_node(random);
  std::vector<bool> side;
  std::string sides;
  for (uint16_t rank = 0; rank < plan.config.nodes; ++rank) {
    side.push_back(random.chance(0.5));
    if (side.back()) sides += " " + std::to_string(rank);
  }
  if (kind == 0)
    plan.add(from, 0, "split:" + sides + " from the others",
             [side](Fleet& fleet) { fleet.network().split(side); });
  if (kind == 1)
    plan.add(from, a, host(a) + " is cut off", [a](Fleet& fleet) { fleet.network().cut_off(a); });
  if (kind == 2)
    plan.add(from, std::max(a, b), "cut from " + std::to_string(a) + " to " + std::to_string(b),
             [a, b](Fleet& fleet) { fleet.network().cut(a, b); });
  plan.add(until, 0, "all cuts mended", [](Fleet& fleet) { fleet.network().mend_all(); });
}

void draw_fault(Random& random, ClusterPlan& plan) {
  Duration from = up_to(random, plan.length);
  if (plan.kind == Kind::boundary && random.chance(0.7))
    from =
        near_boundary(random, plan.rule(plan.keys[random.below(plan.keys.size())].first).limit, plan.length);
  const bool brief = plan.kind == Kind::quiet ? random.chance(0.2) : plan.pressed() || random.chance(0.5);
  const Duration for_long = up_to(random, brief ? 300ms : 4s);
  const uint16_t rank = plan.any_node(random);
  switch (random.below(5)) {
    case 0:
      return draw_partition(random, plan, from, from + for_long);
    case 1:
      return plan.add(from, rank, host(rank) + " stands still for " + describe(for_long),
                      [rank, for_long](Fleet& fleet) { fleet.pause(rank, for_long); });
    case 2:
      // From dice of the moment: what a seed drew before there was any choice it still draws.
      plan.add(from, rank, host(rank) + (nanos(from) % 4 == 0 ? " leaves, and its registers are lost" : " leaves"),
               [rank, keep = nanos(from) % 4 != 0](Fleet& fleet) { fleet.leave(rank, keep); });
      break;
    default:
      plan.add(from, rank, host(rank) + " crashes", [rank](Fleet& fleet) { fleet.crash(rank); });
      break;
  }
  const Duration set_back = random.chance(0.2) ? up_to(random, 5s) : Duration(0);
  plan.add(from + for_long, rank,
           host(rank) + " starts again" +
               (set_back > 0s ? ", its clock set back by " + describe(set_back) : std::string()),
           [rank, set_back](Fleet& fleet) {
             if (fleet.is_up(rank)) return;
             fleet.step_wall_clock(rank, -set_back);
             fleet.start(rank);
           });
}

// One node is killed and begins anew without its state file; the others live and are heard, and so remember
// it.
void draw_losses(Random& random, ClusterPlan& plan) {
  const uint16_t rank = plan.any_node(random);
  for (uint64_t n = 1 + random.below(8); n > 0; --n) {
    const Duration from = std::max(up_to(random, plan.length), Duration(1s));
    const bool keep_state = random.chance(0.2);
    plan.add(from, rank, host(rank) + (keep_state ? " crashes" : " crashes and loses its state file"),
             [rank, keep_state](Fleet& fleet) { fleet.crash(rank, keep_state); });
    plan.add(from + up_to(random, 300ms), rank, host(rank) + " starts again", [rank](Fleet& fleet) {
      if (!fleet.is_up(rank)) fleet.start(rank);
    });
  }
}

void add_claim(ClusterPlan& plan, Duration at, uint16_t rank, int64_t ahead, const std::string& rule,
               const std::string& key) {
  plan.add(std::min(at, plan.length), rank,
           host(rank) + " claims " + rule + "/" + key + (ahead > 0 ? ", the next window" : ""),
           [rank, ahead, rule, key](Fleet& fleet) { fleet.claim(rank, rule, key, ahead); });
}

// A member claims a key while it and one of its group, the natural owner mostly, do not hear each other:
// whoever is deposed learns of it from the third alone, if at all.
void draw_unheard_claims(Random& random, ClusterPlan& plan) {
  for (uint64_t n = random.below(9); n > 0; --n) {
    const auto& [rule, key] = plan.keys[random.below(plan.keys.size())];
    const Group group = plan.group(rule, key);
    const uint16_t claimant = group.rank[random.below(group.size)];
    const uint16_t deaf = group.rank[random.chance(0.7) ? 0 : random.below(group.size)];
    if (claimant == deaf) continue;
    const uint16_t highest = std::max(claimant, deaf);
    const bool boundary = plan.kind == Kind::boundary && random.chance(0.7);
    const Duration at =
        boundary ? near_boundary(random, plan.rule(rule).limit, plan.length) : up_to(random, plan.length);
    plan.add(at, highest, pair_of(claimant, deaf) + " do not hear each other",
             [claimant, deaf](Fleet& fleet) {
               fleet.network().cut(claimant, deaf);
               fleet.network().cut(deaf, claimant);
             });
    const auto ahead = static_cast<int64_t>(random.below(boundary ? 2 : 1));
    add_claim(plan, at + 5ms, claimant, ahead, rule, key);
    if (random.chance(0.4))  // both claim, and neither hears of the other
      add_claim(plan, at + up_to(random, 100ms), deaf, ahead, rule, key);
    const Duration deaf_for = up_to(random, pick<Duration>(random, {300ms, 1500ms}));
    plan.add(std::min(at + deaf_for, plan.length), highest,
             pair_of(claimant, deaf) + " hear each other again", [claimant, deaf](Fleet& fleet) {
               fleet.network().mend(claimant, deaf);
               fleet.network().mend(deaf, claimant);
             });
  }
}

// Any node claims any key at any time, whoever owns it: in bursts, so that claims meet.
void draw_claims(Random& random, ClusterPlan& plan) {
  if (random.chance(0.5)) return;
  for (uint64_t n = random.below(8); n > 0; --n) {
    const auto& [rule, key] = plan.keys[random.below(plan.keys.size())];
    const bool boundary = plan.kind == Kind::boundary || random.chance(0.2);
    const Duration at =
        boundary ? near_boundary(random, plan.rule(rule).limit, plan.length) : up_to(random, plan.length);
    for (uint64_t i = 1 + random.below(3); i > 0; --i) {
      const uint16_t rank = plan.any_node(random);
      const auto ahead = static_cast<int64_t>(random.below(boundary ? 2 : 1));
      add_claim(plan, at + up_to(random, 20ms), rank, ahead, rule, key);
    }
  }
}

}  // namespace

void draw_links(Random& random, ClusterPlan& plan) {
  if (plan.kind == Kind::forgetful || random.chance(0.5)) return;
  const uint64_t odd = random.below(uint64_t{plan.config.nodes} * 2);
  for (uint64_t i = 0; i < odd; ++i) {
    const LinkTerms terms = draw_link(random);
    const uint16_t to = plan.any_node(random), from = plan.any_node(random);
    plan.add_ahead(Duration(0), std::max(from, to),
                   "link from " + std::to_string(from) + " to " + std::to_string(to) + ": " + text(terms),
                   [from, to, terms](Fleet& fleet) { fleet.network().link(from, to) = terms; });
  }
}

void draw_faults(Random& random, ClusterPlan& plan) {
  if (plan.kind == Kind::forgetful)
    draw_losses(random, plan);
  else if (plan.config.nodes > 1)
    for (uint64_t n = random.below(plan.pressed() ? 12 : 6); n > 0; --n) draw_fault(random, plan);
  if (plan.config.nodes > 1) draw_claims(random, plan);
  if (plan.unheard_claims) draw_unheard_claims(random, plan);
}

}  // namespace tally::sim
