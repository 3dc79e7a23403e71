// Directed schedules: what random clusters do not meet often enough, one rule of the scheme a case. Each was seen to fail
// when its rule is left out of the source (tools/mutations).
#include <doctest/doctest.h>

#include "sim/fleet.h"
#include "sim/trace.h"

using namespace tally;
using namespace tally::sim;
using namespace std::chrono_literals;

namespace {

FleetConfig config_of(uint16_t nodes, Rule rule, Duration wait) {
  FleetConfig config;
  config.nodes = nodes;
  rule.on_isolation = OnIsolation::closed;
  rule.on_amnesia = OnAmnesia::deny;
  rule.wait = wait;
  config.rules = {std::move(rule)};
  return config;
}

void check_bounds(const Fleet& fleet) {
  for (const Violation& v : fleet.violations())
    FAIL_CHECK(v.rule << "/" << v.key << " at " << describe(v.at) << ": " << v.what);
}

void burst(Fleet& fleet, Duration at, uint16_t rank, uint32_t n) {
  fleet.at(at, [&fleet, rank, n] {
    for (uint32_t i = 0; i < n; ++i) fleet.take(rank, "api", "k");
  });
}

}  // namespace

TEST_CASE("a member that lost its state file does not vote in the window that its last life voted in ahead") {
  Fleet fleet(config_of(3, window_rule("api", Algorithm::fixed_window, 100, 2s, 0), 500ms));
  const Group group = fleet.group("api", "k");
  const uint16_t owner = group.rank[0], voter = group.rank[1], other = group.rank[2];
  fleet.at(1500ms, [&] {
    fleet.network().cut(owner, other);
    fleet.network().cut(other, owner);
  });
  fleet.evenly(owner, "api", "k", 160, 1600ms, 1990ms);  // so that the window at 2 s is granted ahead, by two votes
  fleet.at(1930ms, [&] { fleet.crash(voter, false); });
  fleet.at(1931ms, [&] { fleet.start(voter); });
  fleet.at(1990ms, [&] { fleet.network().cut_off(owner); });
  burst(fleet, 2010ms, owner, 100);
  burst(fleet, 2020ms, other, 200);
  burst(fleet, 2300ms, other, 200);
  fleet.run_until(3500ms);
  check_bounds(fleet);
  CHECK(fleet.windows("api", "k").at(900'000'001).admitted >= 20);
}

TEST_CASE("a lease that is spent at its very end is charged as of that end, on clocks that run apart") {
  for (Duration spent = 340ms; spent <= 430ms; spent += 1ms) {
    FleetConfig config = config_of(3, bucket_rule("api", 2000, 2000, 1s, 0), 0ms);
    config.link.delay_min = config.link.delay_max = 50us;
    config.clocks.resize(3);
    const Group group = Fleet(config).group("api", "k");
    const uint16_t owner = group.rank[0], lessee = group.rank[1];
    config.clocks[owner].drift_ppm = 4'900;
    config.clocks[lessee].drift_ppm = -4'900;
    Fleet fleet(config);
    const Duration asked = 1s;
    fleet.at(asked, [&] { fleet.take(lessee, "api", "k", 1000); });  // nobody waits: what is granted stays
    fleet.at(asked + 10ms, [&] {
      fleet.network().cut(lessee, owner);
      fleet.network().cut(owner, lessee);
    });
    fleet.at(asked + spent, [&] { fleet.take(lessee, "api", "k", 1000); });
    fleet.evenly(owner, "api", "k", 3000, asked + spent, asked + spent + 300ms);
    fleet.run_until(asked + 1s);
    CAPTURE(describe(spent));
    check_bounds(fleet);
    if (spent < 380ms) CHECK(fleet.tally("api", "k", lessee).admitted() == 1000);
    CHECK(fleet.tally("api", "k", owner).admitted() >= 900);
  }
}

TEST_CASE("what two nodes give back of one use may be used again once") {
  Fleet fleet(config_of(4, window_rule("api", Algorithm::fixed_window, 10, 1min, 0), 200ms));
  burst(fleet, 1s, 0, 10);
  burst(fleet, 1200ms, 1, 1);
  burst(fleet, 1200ms, 2, 1);
  uint32_t given = 0;
  fleet.at(1800ms, [&] { given += fleet.give(1, "api", "k", 10); });
  fleet.at(1800ms, [&] { given += fleet.give(2, "api", "k", 10); });
  for (uint16_t rank = 0; rank < 4; ++rank) burst(fleet, 2500ms, rank, 30);
  fleet.run_until(4s);
  check_bounds(fleet);
  CHECK(given == 20);  // each was told that it could
  CHECK(fleet.tally("api", "k").admitted() == 20);
}
