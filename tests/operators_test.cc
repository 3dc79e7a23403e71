// What operators do to a fleet: one name on two hosts, and rules that are not the same everywhere.
#include <doctest/doctest.h>

#include "sim/fleet.h"
#include "sim/trace.h"

using namespace tally;
using namespace tally::sim;
using namespace std::chrono_literals;

namespace {

Rule closed(Rule rule) {
  rule.on_isolation = OnIsolation::closed;
  return rule;
}
Rule fixed(uint32_t limit, uint32_t ppm, Duration window = 1min) {
  return closed(window_rule("api", Algorithm::fixed_window, limit, window, ppm));
}

FleetConfig config_of(Rule rule) {
  FleetConfig config;
  config.nodes = 5;
  config.rules = {std::move(rule)};
  return config;
}

uint64_t admitted(const Fleet& fleet, uint16_t host) { return fleet.tally("api", "k", host).admitted(); }

void check_bounds(const Fleet& fleet) {
  for (const Violation& v : fleet.violations())
    FAIL_CHECK(v.rule << "/" << v.key << " at " << describe(v.at) << ": " << v.what);
}

void press(Fleet& fleet) {
  for (uint16_t host = 0; host < fleet.hosts(); ++host) fleet.poisson(host, "api", "k", 200, 4s, 5s);
  fleet.run_until(6s);
}

}  // namespace

TEST_CASE("a clone that its peers can tell has nothing") {
  FleetConfig config = config_of(fixed(100, 500'000));
  config.clones = {2};
  Fleet fleet(config);
  fleet.at(2s, [&] { fleet.start(5); });
  press(fleet);
  CHECK(admitted(fleet, 5) == 0);
  CHECK(admitted(fleet, 2) >= 10);  // the one that was there first has its floor
  CHECK(fleet.node(5).stats().dropped.contains("this_node_is_a_clone"));
  check_bounds(fleet);
}

TEST_CASE("a clone that nobody can tell has the floor of its name once more, and no more than that") {
  FleetConfig config = config_of(fixed(100, 500'000));
  config.clones = {2, 2};
  Fleet fleet(config);
  for (const uint16_t clone : {uint16_t{5}, uint16_t{6}}) fleet.network().cut_off(clone);
  fleet.at(2s, [&] { fleet.start(5); });
  fleet.at(2s, [&] { fleet.start(6); });
  press(fleet);
  CHECK(admitted(fleet, 5) == 10);
  CHECK(admitted(fleet, 6) == 10);
  CHECK(fleet.bound("api") == 170);
  check_bounds(fleet);
}

TEST_CASE(
    "where hosts have different limits, what is admitted is no more than the larger, and the smaller is "
    "served") {
  for (const bool bucket : {false, true}) {
    Rule large = bucket ? closed(bucket_rule("api", 100, 100, 1min, 0)) : fixed(100, 0);
    Rule small = bucket ? closed(bucket_rule("api", 40, 100, 1min, 0)) : fixed(40, 0);
    for (uint16_t odd = 0; odd < 5; ++odd) {
      FleetConfig config = config_of(large);
      config.own_rules = {{odd, small}};
      Fleet fleet(config);
      press(fleet);
      const uint64_t all = fleet.tally("api", "k").admitted();
      CHECK(all >= 40);
      CHECK(all <= 105);  // a bucket goes on by 1.7 a second
      check_bounds(fleet);
    }
  }
}

TEST_CASE("the bound of different limits and overcounts is made of the largest of each, wherever they are") {
  FleetConfig config = config_of(fixed(100, 50'000));
  config.own_rules = {{1, fixed(60, 500'000)}, {3, fixed(120, 0)}};
  Fleet fleet(config);
  press(fleet);
  CHECK(fleet.bound("api") == 180);
  check_bounds(fleet);
}

TEST_CASE(
    "a host whose window or algorithm differs shares no limit with the others, and neither breaks the "
    "other's") {
  const Rule others[] = {fixed(100, 0, 30s),
                         closed(window_rule("api", Algorithm::sliding_window, 100, 1min, 0)),
                         closed(bucket_rule("api", 100, 100, 1min, 0))};
  for (const Rule& other : others) {
    FleetConfig config = config_of(fixed(100, 0));
    const uint16_t owner = Fleet(config).owner("api", "k");
    const auto odd = static_cast<uint16_t>((owner + 1) % 5);
    config.own_rules = {{odd, other}};
    Fleet fleet(config);
    press(fleet);
    CHECK(fleet.node(owner).stats().dropped.at("rule_mismatch") > 0);
    CHECK(fleet.tally("api", "k").admitted() - admitted(fleet, odd) >= 99);
    check_bounds(fleet);
  }
}

TEST_CASE("once a key is reset, a request that waits is admitted: at the host that was told, and at the others") {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    Rule rule = fixed(5, 0, 24h);
    rule.wait = 5s;
    FleetConfig config = config_of(rule);
    config.seed = seed;
    config.sync_interval = 20ms;
    config.link.delay_min = 100us;
    config.link.delay_max = 20ms;
    Fleet fleet(config);
    const auto spender = static_cast<uint16_t>(seed % 5);
    const auto resetter = static_cast<uint16_t>(seed / 5 % 5);
    for (int i = 0; i < 6; ++i) fleet.at(1s, [&] { fleet.take(spender, "api", "k"); });
    fleet.at(2s, [&] { fleet.reset(resetter, "api", "k"); });
    for (uint16_t host = 0; host < 5; ++host)  // all have heard of it by 30 ms later
      fleet.at(2s + 30ms * (host != resetter) + 1ms * (seed / 25), [&fleet, host] { fleet.take(host, "api", "k"); });
    fleet.run_until(10s);
    CAPTURE(seed);
    CAPTURE(spender);
    CAPTURE(resetter);
    CHECK(fleet.tally("api", "k").admitted() == 10);
    check_bounds(fleet);
  }
}
