// Fleets that share a limit of a month or a year: across its end, beside clocks that are wrong, and through
// restarts.
#include <doctest/doctest.h>

#include <algorithm>

#include "core/calendar.h"
#include "seed.h"
#include "sim/fleet.h"
#include "sim/trace.h"

using namespace tally;
using namespace tally::sim;
using namespace std::chrono_literals;

namespace {

constexpr uint32_t kFive = 50'000, kHalf = 500'000;  // of the limit, in millionths

constexpr WallTime midnight(int year, int month, int day) {
  return WallTime(std::chrono::sys_days(std::chrono::year(year) / month / day).time_since_epoch());
}

FleetConfig config_of(uint16_t nodes, uint32_t limit, Duration window, WallTime epoch,
                      uint32_t overcount_ppm = kFive) {
  FleetConfig config;
  config.nodes = nodes;
  config.rules = {window_rule("quota", Algorithm::fixed_window, limit, window, overcount_ppm)};
  config.rules[0].on_isolation = OnIsolation::closed;
  config.epoch = epoch;
  config.seed = test_seed(11);
  return config;
}

void burst(Fleet& fleet, uint16_t rank, int n) {
  for (int i = 0; i < n; ++i) fleet.take(rank, "quota", "k");
}

uint64_t counted_in(const Fleet& fleet, int64_t window) {
  const auto& windows = fleet.windows("quota", "k");
  const auto found = windows.find(window);
  return found == windows.end() ? 0 : static_cast<uint64_t>(found->second.net());
}

void bound_holds(Fleet& fleet) {
  fleet.audit();
  for (const auto& [window, count] : fleet.windows("quota", "k"))
    CHECK(static_cast<uint64_t>(count.net()) <= fleet.bound("quota"));
  for (const Violation& v : fleet.violations()) FAIL_CHECK(describe(v.at) << ": " << v.what);
}

}  // namespace

TEST_CASE("over the end of a month, of a leap year's February and of a year, each window has its own limit") {
  struct Boundary {
    Duration window;
    WallTime end;
    int64_t before;  // the number of the window that ends
  };
  for (const Boundary& b :
       {Boundary{kMonth, midnight(2027, 2, 1), 2027 * 12},
        Boundary{kMonth, midnight(2028, 3, 1), 2028 * 12 + 1}, Boundary{kYear, midnight(2029, 1, 1), 2028}}) {
    Fleet fleet(config_of(5, 100, b.window, b.end - 10s));
    for (uint16_t rank = 0; rank < 5; ++rank) fleet.evenly(rank, "quota", "k", 90, 2s + 7ms * rank, 20s);
    fleet.run_until(12s);
    bound_holds(fleet);
    fleet.run_until(22s);
    bound_holds(fleet);
    CHECK(fleet.tally("quota", "k").offered() == 450);
    CHECK(fleet.windows("quota", "k").size() == 2);
    CHECK(counted_in(fleet, b.before) >= 99);
    CHECK(counted_in(fleet, b.before + 1) >= 99);
  }
}

TEST_CASE(
    "clocks that are early, late and set at the end of a month never make a window of more than the bound") {
  FleetConfig config = config_of(5, 100, kMonth, midnight(2027, 3, 1) - 10s);
  config.clocks = {{2s}, {-2s}, {500ms, 100}, {-40h}, {3h}};
  Fleet fleet(std::move(config));
  for (uint16_t rank = 0; rank < 5; ++rank) fleet.poisson(rank, "quota", "k", 30, 2s, 20s);
  fleet.at(9s, [&] { fleet.step_wall_clock(0, -4s); });
  fleet.at(10s, [&] { fleet.step_wall_clock(1, 4s); });
  fleet.at(12s, [&] { fleet.step_wall_clock(3, 40h); });
  fleet.at(15s, [&] { fleet.step_wall_clock(4, -3h); });
  for (const Duration when : {8s, 10s, 13s, 18s, 23s}) {
    fleet.run_until(when);
    bound_holds(fleet);
  }
  CHECK(fleet.tally("quota", "k").admitted() >= 100);
}

// From the last day of January over February into March and back: less than a mean month, and two windows
// back.
TEST_CASE(
    "a clock that skips February and is set back, again and again, brings no floor to the January it comes "
    "back to") {
  for (uint16_t rank = 0; rank < 5; ++rank) {  // the owner is one of them
    Fleet fleet(config_of(5, 50, kMonth, midnight(2027, 1, 31) + 12h, kHalf));
    fleet.run_until(2s);
    for (uint16_t n = 0; n < 5; ++n) burst(fleet, n, 40);
    fleet.run_for(1s);
    CHECK(fleet.tally("quota", "k").admitted() >= 50);
    const auto floor_of_january = [&] {
      return fleet.limiter(rank).floor_in(fleet.rule("quota").limit, 2027 * 12);
    };
    fleet.step_wall_clock(rank, 27 * 24h);
    fleet.run_for(50ms);
    fleet.step_wall_clock(rank, -27 * 24h);  // from February: one window back, which is remembered
    fleet.run_for(50ms);
    CHECK(floor_of_january() == 5);
    for (int i = 0; i < 20; ++i) {
      fleet.step_wall_clock(rank, 28 * 24h + 13h);
      burst(fleet, rank, 1);
      fleet.run_for(50ms);
      fleet.step_wall_clock(rank, -(28 * 24h + 13h));
      CHECK(floor_of_january() == 0);
      burst(fleet, rank, 20);
      fleet.run_for(200ms);
    }
    CHECK(counted_in(fleet, 2027 * 12) <= 75);
    bound_holds(fleet);
  }
}

TEST_CASE(
    "a month is kept by nodes that are killed and restarted one after the other, and by their next ones") {
  Fleet fleet(config_of(5, 1000, kMonth, midnight(2027, 1, 31) + 23h));
  for (uint16_t rank = 0; rank < 5; ++rank) fleet.poisson(rank, "quota", "k", 20, 2s, 60s);
  for (uint16_t rank = 0; rank < 5; ++rank) {
    const Duration down = 5s + 10s * rank;
    fleet.at(down, [&fleet, rank] { fleet.crash(rank); });
    fleet.at(down + 2s, [&fleet, rank] { fleet.start(rank); });
  }
  for (Duration when = 10s; when <= 62s; when += 10s) {
    fleet.run_until(when);
    bound_holds(fleet);
  }
  CHECK(counted_in(fleet, 2027 * 12) >= 900);
  CHECK(fleet.windows("quota", "k").size() == 1);
}
