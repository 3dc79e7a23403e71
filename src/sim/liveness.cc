#include "sim/liveness.h"

#include <algorithm>
#include <memory>

#include "cluster/bucket_book.h"
#include "cluster/standing.h"
#include "sim/starvation.h"
#include "sim/trace.h"

namespace tally::sim {
namespace {

using namespace std::chrono_literals;

// Denied, an application asks once more: sooner than a node gives back what nobody seems to want (a sync
// interval).
constexpr Duration kAgainAfter = 3ms;

// To the latest that any has shown: going on from there takes no window back.
void agree_on_time(Fleet& fleet) {
  for (const uint16_t rank : fleet.names())
    fleet.step_wall_clock(rank, fleet.latest_wall() - fleet.clock(rank).wall);
}

void end_faults(Fleet& fleet) {
  fleet.call_off();
  fleet.network().mend_all();
  fleet.network().set_all(LinkTerms{});
  for (uint16_t clone = fleet.nodes(); clone < fleet.first_guest(); ++clone) fleet.crash(clone);
  Duration paused = fleet.now();
  for (const uint16_t rank : fleet.names()) paused = std::max(paused, fleet.paused_until(rank));
  fleet.run_until(paused);
  agree_on_time(fleet);
  for (const uint16_t rank : fleet.names())
    if (!fleet.is_up(rank)) fleet.start(rank);
}

// Who takes itself for a clone serves nothing more: nothing but another life of its name may make it.
bool any_shut(Fleet& fleet, const ClusterPlan& plan) {
  bool any = false;
  for (const uint16_t rank : fleet.names()) {
    if (!fleet.node(rank).stats().dropped.contains("this_node_is_a_clone")) continue;
    any = true;
    fleet.violate(plan.keys[0].first, plan.keys[0].second, "clones",
                  "host " + std::to_string(rank) + " takes itself for a clone, and there is none");
  }
  return any;
}

}  // namespace

uint32_t shared_limit(const ClusterPlan& plan, const Rule& rule) {
  const Duration trip = LinkTerms{}.delay_max * 2;
  if (rule.limit.window > 0s && rule.limit.window < (plan.config.sync_interval + trip) * 5) return 0;
  uint32_t limit = rule.limit.limit;
  for (const OwnRule& own : plan.config.own_rules) {
    if (own.rule.name != rule.name) continue;
    if (own.rule.limit.algorithm != rule.limit.algorithm || own.rule.limit.window != rule.limit.window)
      return 0;
    limit = std::min(limit, own.rule.limit.limit);
  }
  return limit;
}

namespace {

// One request that is made until it is admitted.
struct Request {
  uint16_t rank;
  std::string rule, key;
  Duration until;
  Outcome last = Outcome::lost;
};

void ask(Fleet& fleet, const std::shared_ptr<Request>& request) {
  fleet.take(request->rank, request->rule, request->key, 1, [&fleet, request](Outcome outcome) {
    request->last = outcome;
    if (outcome != Outcome::admitted && fleet.now() + kAgainAfter < request->until)
      fleet.at(fleet.now() + kAgainAfter, [&fleet, request] { ask(fleet, request); });
  });
}

// At half of the limit, one request at a host at most.
void serve(Fleet& fleet, const ClusterPlan& plan, const std::string& rule_name, const std::string& key,
           Random& random) {
  const Rule& rule = plan.rule(rule_name);
  const uint32_t limit = shared_limit(plan, rule);
  if (limit == 0) return;
  const std::vector<uint16_t> names = fleet.names();
  const auto asking = std::clamp<uint32_t>(limit / 2, 1, static_cast<uint32_t>(names.size()));
  const uint16_t first = plan.any_node(random);
  std::vector<std::shared_ptr<Request>> requests;
  for (uint32_t i = 0; i < asking; ++i) {
    const uint16_t rank = names[(first + i) % names.size()];
    requests.push_back(
        std::make_shared<Request>(Request{rank, rule_name, key, fleet.now() + answer_time(rule.limit, plan.config.lease)}));
    ask(fleet, requests.back());
  }
  fleet.at(requests.front()->until, [&fleet, requests] {
    for (const auto& r : requests)
      if (r->last != Outcome::admitted)
        fleet.violate(
            r->rule, r->key, "liveness",
            "host " + std::to_string(r->rank) +
                " admits nothing though all faults are long over: " + std::string(outcome_name(r->last)));
  });
}

}  // namespace

Duration recovery_time(const FleetConfig& config) {
  const Duration ahead = look_ahead(config.sync_interval);
  Duration longest{0};
  const auto consider = [&](const Limit& limit) {
    const bool bucket = limit.algorithm == Algorithm::token_bucket;
    longest = std::max(longest, bucket ? bucket_keep(limit.burst_span(), config.lease) * 2
                                       : config.horizon_step + ahead * 2 + limit.window * 2);
  };
  for (const Rule& rule : config.rules) consider(rule.limit);
  for (const OwnRule& own : config.own_rules) consider(own.rule.limit);
  return longest + 2s;
}

Duration answer_time(const Limit& limit, Duration lease) {
  return 1s + (limit.algorithm == Algorithm::token_bucket ? bucket_keep(limit.burst_span(), lease) : limit.window * 2);
}

void check_service(Fleet& fleet, const ClusterPlan& plan) {
  if (any_shut(fleet, plan)) return;
  for (const uint16_t rank : fleet.names())
    if (!fleet.node(rank).ready())
      fleet.violate(plan.keys[0].first, plan.keys[0].second, "readiness",
                    "host " + std::to_string(rank) + " is not ready though all faults are long over");
  Random random(plan.config.seed);
  Duration longest{0};
  for (const auto& [rule, key] : plan.keys) {
    serve(fleet, plan, rule, key, random);
    longest = std::max(longest, answer_time(plan.rule(rule).limit, plan.config.lease));
  }
  fleet.run_for(longest);
}

void check_liveness(Fleet& fleet, const ClusterPlan& plan) {
  end_faults(fleet);
  fleet.run_for(recovery_time(plan.config));
  agree_on_time(fleet);
  check_service(fleet, plan);
  if (!fleet.violations().empty()) return;
  agree_on_time(fleet);
  check_starvation(fleet, plan);
}

}  // namespace tally::sim
