// Fleets in which a host's system clock is set back while its daemon runs.
#include <doctest/doctest.h>

#include <algorithm>

#include "sim/fleet.h"
#include "sim/trace.h"

using namespace tally;
using namespace tally::sim;
using namespace std::chrono_literals;

namespace {

constexpr uint32_t kHalf = 500'000;  // of the limit, in millionths

Fleet fleet_of(uint16_t nodes, Algorithm algorithm, uint32_t limit, Duration window, uint32_t overcount_ppm) {
  FleetConfig config;
  config.nodes = nodes;
  config.rules = {window_rule("api", algorithm, limit, window, overcount_ppm)};
  config.rules[0].on_isolation = OnIsolation::closed;
  return Fleet(std::move(config));
}

void burst(Fleet& fleet, uint16_t rank, int n) {
  for (int i = 0; i < n; ++i) fleet.take(rank, "api", "k");
}

void bound_holds(const Fleet& fleet, std::string_view what) {
  const Tally tally = fleet.tally("api", "k");
  int64_t most = 0;
  for (const auto& [window, count] : fleet.windows("api", "k"))
    most = std::max(most, static_cast<int64_t>(count.net()));
  MESSAGE(what << ": admitted " << tally.admitted() << " of " << tally.offered() << ", " << most
               << " in the fullest window, bound " << fleet.bound("api"));
  for (const Violation& v : fleet.violations()) FAIL_CHECK(describe(v.at) << ": " << v.what);
}

}  // namespace

TEST_CASE(
    "a clock that runs ahead and is set back, again and again, brings no floor to the window it comes back "
    "to") {
  for (uint16_t rank = 0; rank < 5; ++rank) {  // the owner is one of them
    Fleet fleet = fleet_of(5, Algorithm::fixed_window, 50, 1min, kHalf);
    fleet.run_until(2s);
    for (uint16_t n = 0; n < 5; ++n) burst(fleet, n, 40);
    fleet.run_for(1s);
    CHECK(fleet.tally("api", "k").admitted() >= 50);
    for (int k = 1; k <= 20; ++k) {
      fleet.step_wall_clock(rank, 2min * k);
      burst(fleet, rank, 1);
      fleet.run_for(50ms);
      fleet.step_wall_clock(rank, -2min * k);
      burst(fleet, rank, 20);
      fleet.run_for(200ms);
    }
    CHECK(fleet.now() < 60s);  // all in one window
    bound_holds(fleet, "rank " + std::to_string(rank));
  }
}

TEST_CASE(
    "a step back by less than a window takes no floor, and one by more gives it back in later windows") {
  for (const Duration back : {30s, 90s}) {
    Fleet fleet = fleet_of(5, Algorithm::fixed_window, 50, 1min, kHalf);
    fleet.run_until(130s);       // in the third window
    fleet.network().cut_off(3);  // so that it has its floor alone
    fleet.step_wall_clock(3, -back);
    burst(fleet, 3, 20);
    fleet.run_for(100ms);
    const uint64_t at_once = fleet.tally("api", "k").admitted();
    CHECK(at_once == (back < 1min ? 5 : 0));
    fleet.run_until(130s + back +
                    1min);  // its clock is past the latest time seen, in a window that began after it
    burst(fleet, 3, 20);
    fleet.run_for(100ms);
    CHECK(fleet.tally("api", "k").admitted() == at_once + 5);
    bound_holds(fleet, "back by " + describe(back));
  }
}

TEST_CASE("a node whose clock was set back is served by the others meanwhile") {
  for (const Algorithm algorithm : {Algorithm::fixed_window, Algorithm::sliding_window}) {
    Fleet fleet = fleet_of(5, algorithm, 50, 10s, kHalf);
    fleet.run_until(2s);
    const auto stepped = static_cast<uint16_t>((fleet.owner("api", "k") + 1) % 5);
    fleet.step_wall_clock(stepped, 1h);
    fleet.run_for(1s);
    fleet.step_wall_clock(stepped, -1h);
    fleet.evenly(stepped, "api", "k", 40, 11s, 19s);
    fleet.run_until(21s);
    CHECK(fleet.tally("api", "k").admitted() >= 35);
    bound_holds(fleet, "after an hour ahead");
  }
}

TEST_CASE("what was used in a window that a clock comes back to is not told as less") {
  for (uint16_t rank = 0; rank < 3; ++rank) {
    Fleet fleet = fleet_of(3, Algorithm::fixed_window, 60, 1s, kHalf);
    fleet.run_until(2s);
    fleet.evenly(rank, "api", "k", 60 * 8, fleet.now(), fleet.now() + 8s);
    fleet.step_wall_clock(rank, 3500ms);
    fleet.run_for(3s);
    fleet.step_wall_clock(rank, -4800ms);
    fleet.run_for(5s);
    bound_holds(fleet, "rank " + std::to_string(rank));
  }
}
