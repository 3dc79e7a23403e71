// After the last fault a fleet serves again, within the stated time; and a fleet that does not is found.
#include "sim/liveness.h"

#include <doctest/doctest.h>

#include "sim/random_cluster.h"
#include "sim/starvation.h"
#include "sim/trace.h"

using namespace tally;
using namespace tally::sim;
using namespace std::chrono_literals;

namespace {

ClusterPlan plan_of(std::vector<Rule> rules) {
  ClusterPlan plan;
  plan.config.nodes = 5;
  for (Rule& rule : rules) {
    rule.on_isolation = OnIsolation::closed;
    rule.on_amnesia = OnAmnesia::deny;
    plan.keys.emplace_back(rule.name, "k");
  }
  plan.config.rules = std::move(rules);
  plan.length = 6s;
  return plan;
}

ClusterPlan three_kinds() {
  return plan_of({window_rule("fixed", Algorithm::fixed_window, 50, 2s, 0),
                  window_rule("sliding", Algorithm::sliding_window, 1, 1s, 0),
                  bucket_rule("bucket", 20, 20, 1s, 0)});
}

std::vector<Violation> violations_of(const ClusterPlan& plan) {
  ClusterOptions options;
  options.liveness = true;
  return run_cluster(plan, options).violations;
}

}  // namespace

TEST_CASE("a whole fleet that was killed, cut in pieces or standing still serves again in the stated time") {
  ClusterPlan plan = three_kinds();
  for (uint16_t host = 0; host < 5; ++host)
    for (const auto& [rule, key] : plan.keys)
      plan.add_ahead(1s, host, "asks", [host, rule = rule, key = key](Fleet& fleet) {
        fleet.poisson(host, rule, key, 30, 1s, 6s);
      });
  std::function<void(Fleet&, uint16_t)> fault;
  SUBCASE("killed") {
    fault = [](Fleet& fleet, uint16_t host) { fleet.crash(host); };
  }
  SUBCASE("cut in pieces") {
    fault = [](Fleet& fleet, uint16_t host) { fleet.network().cut_off(host); };
  }
  SUBCASE("standing still") {
    fault = [](Fleet& fleet, uint16_t host) { fleet.pause(host, host * 2s); };
  }
  for (uint16_t host = 0; host < 5; ++host)
    plan.add(4s, host, "fault", [fault, host](Fleet& fleet) { fault(fleet, host); });
  for (const Violation& v : violations_of(plan))
    FAIL_CHECK(v.checker << " " << v.rule << " at " << describe(v.at) << ": " << v.what);
}

TEST_CASE("hosts that serve nothing are found, each for each of its keys") {
  const ClusterPlan plan = plan_of({window_rule("fixed", Algorithm::fixed_window, 50, 2s, 0)});
  Fleet fleet(plan.config);
  fleet.run_until(2s);
  check_service(fleet, plan);
  CHECK(fleet.violations().empty());
  for (uint16_t host = 0; host < 5; ++host) fleet.network().cut_off(host);
  fleet.run_for(3s);
  check_service(fleet, plan);
  REQUIRE(fleet.violations().size() == 5);
  CHECK(fleet.violations()[0].checker == "liveness");
}

TEST_CASE("the stated times follow from the windows, the horizon, the look-ahead and a bucket's keeping") {
  FleetConfig config = plan_of({window_rule("w", Algorithm::fixed_window, 50, 5s, 0)}).config;
  config.horizon_step = 10s;
  CHECK(recovery_time(config) == 24s);  // 10 + 2 * 1 + 2 * 5 + 2
  CHECK(answer_time(config.rules[0].limit, 1s) == 11s);
  config.rules = {bucket_rule("b", 20, 20, 1s, 0)};
  CHECK(recovery_time(config) > 6s);
  CHECK(recovery_time(config) < 7s);
  CHECK(answer_time(config.rules[0].limit, 1s) > 3s);
  CHECK(answer_time(config.rules[0].limit, 1s) < 4s);
}

TEST_CASE("who waits and is denied at half of the limit is found, and in a fleet that is well there is none") {
  const ClusterPlan plan = plan_of({window_rule("fixed", Algorithm::fixed_window, 50, 2s, 0)});
  Fleet fleet(plan.config);
  fleet.run_until(2s);
  check_starvation(fleet, plan);
  CHECK(fleet.violations().empty());
  LinkTerms far;
  far.delay_min = far.delay_max = 15ms;  // a grant comes 30 ms after it was asked for, and the rule waits 20
  fleet.network().set_all(far);
  check_starvation(fleet, plan);
  REQUIRE(fleet.violations().size() == 1);
  CHECK(fleet.violations()[0].checker == "starvation");
}

// What the search has found, each mended: the seed, and what was wrong.
TEST_CASE("clusters in which the search found something wrong are well") {
  for (const uint64_t seed : {
           50145,    // a clock set back between two lives: taken for a clone by what the last life had under way
           7000869,  // datagrams said again from elsewhere: what was answered there reached the node
           50334,    // a round trip of seven seconds, measured by a datagram that was said again
           850424,   // by a straggler
           7001183,  // refusals were not heeded after a reset
           850095,   // the same
           9000528,  // a claim while a bucket is asked charges a whole mark: the stated time has it
           140001068,  // in a group of one, what was issued at the very end of a sliding window was not in its past: above the bound
       }) {
    ClusterOptions options;
    options.liveness = true;
    for (const Violation& v : run_random_cluster(seed, options).violations)
      FAIL_CHECK("tally-sim --liveness --seed " << seed << ": " << v.rule << "/" << v.key << " at " << describe(v.at) << ": " << v.what);
  }
}
