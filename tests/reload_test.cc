// Rules change while a fleet runs, host by host. On a virtual clock, under the checkers of the bound, which is the larger
// limit's; random clusters that do so are among those of fleet_test.
#include <doctest/doctest.h>

#include <algorithm>

#include "core/windows.h"
#include "sim/fleet.h"
#include "sim/trace.h"

using namespace tally;
using namespace tally::sim;
using namespace std::chrono_literals;

namespace {

constexpr uint16_t kNodes = 5;
constexpr Duration kWindow = 4s;

// All hosts begin with `before`, and go over to `after` when they reload.
FleetConfig config_of(Rule before, Rule after) {
  FleetConfig config;
  config.nodes = kNodes;
  before.on_isolation = after.on_isolation = OnIsolation::closed;
  config.rules = {before};
  for (uint16_t rank = 0; rank < kNodes; ++rank) config.own_rules.push_back({rank, after});
  config.own_rules_later = true;
  return config;
}

// Asks at all hosts in turn, far more than there is, within one window of the first host's clock, from its beginning on.
uint64_t admitted_in_next_window(Fleet& fleet) {
  const Duration left = window_end(window_at(fleet.clock(0).wall, kWindow), kWindow) - fleet.clock(0).wall;
  fleet.run_for(left + 10ms);
  uint64_t admitted = 0;
  for (uint16_t i = 0; i < 200; ++i)
    fleet.at(fleet.now() + 10ms * i, [&fleet, &admitted, i] {
      fleet.take(i % kNodes, "api", "k", 1, [&admitted](Outcome outcome) { admitted += outcome == Outcome::admitted; });
    });
  fleet.run_for(3s);
  return admitted;
}

void reload_all(Fleet& fleet, bool other) {
  for (uint16_t rank = 0; rank < kNodes; ++rank) {
    fleet.reload(rank, other, 1ms);
    fleet.run_for(30ms);
  }
}

bool any_at_odds(Fleet& fleet) {
  for (uint16_t rank = 0; rank < kNodes; ++rank)
    if (std::ranges::any_of(fleet.node(rank).peers(fleet.clock(rank)), &PeerStatus::rules_mismatch)) return true;
  return false;
}

void check_bounds(const Fleet& fleet) {
  for (const Violation& v : fleet.violations()) FAIL_CHECK(v.rule << "/" << v.key << " at " << describe(v.at) << ": " << v.what);
}

}  // namespace

TEST_CASE("a limit that is raised or lowered host by host is shared all the time, and holds from the next window on") {
  for (const bool raised : {true, false}) {
    CAPTURE(raised);
    const Rule small = window_rule("api", Algorithm::fixed_window, 40, kWindow, 0), large = window_rule("api", Algorithm::fixed_window, 80, kWindow, 0);
    Fleet fleet(raised ? config_of(small, large) : config_of(large, small));
    REQUIRE(fleet.run_until_ready(5s));
    CHECK(admitted_in_next_window(fleet) == (raised ? 40 : 80));
    fleet.reload(0, true, 0ms);
    CHECK(admitted_in_next_window(fleet) == 40);  // the smaller, until all agree
    CHECK(any_at_odds(fleet));
    reload_all(fleet, true);
    CHECK(admitted_in_next_window(fleet) == (raised ? 80 : 40));
    CHECK_FALSE(any_at_odds(fleet));
    check_bounds(fleet);
  }
}
