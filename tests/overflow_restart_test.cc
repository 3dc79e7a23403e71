// Restarts of fleets whose registers are full: what a sketch cannot list, and what can be begun anew.
#include <doctest/doctest.h>

#include "cluster_fixture.h"
#include "sim/fleet.h"
#include "sim/trace.h"

using namespace tally;

namespace {

constexpr Duration kDay = std::chrono::hours(24);

// Three hosts whose registers have one place each, taken from the first second on.
struct Crowd {
  sim::Fleet fleet;

  static sim::FleetConfig config(const Rule& rule) {
    sim::FleetConfig config;
    config.nodes = 3;
    config.rules = {sim::window_rule("first", Algorithm::fixed_window, 10, kDay, 0), rule};
    for (Rule& r : config.rules) r.on_isolation = OnIsolation::closed;
    config.registers = 1;
    config.epoch = WallTime(std::chrono::seconds(1'800'000'000 / 86'400 * 86'400 + 3600));
    return config;
  }
  explicit Crowd(const Rule& rule) : fleet(config(rule)) {
    fleet.run_until(test::secs(1));
    fleet.take(0, "first", "k");
    fleet.run_until(test::secs(2));
  }
  void no_violation() const {
    for (const sim::Violation& v : fleet.violations())
      FAIL_CHECK(v.key << " at " << sim::describe(v.at) << ": " << v.what);
  }
  void apart(uint16_t a, uint16_t b) {
    fleet.network().cut(a, b);
    fleet.network().cut(b, a);
  }
};

Rule long_rule(bool bucket, OnAmnesia on_amnesia) {
  Rule rule = bucket ? sim::bucket_rule("api", 100, 1, std::chrono::hours(1), 0)
                     : sim::window_rule("api", Algorithm::fixed_window, 100, kDay, 0);
  rule.on_amnesia = on_amnesia;
  return rule;
}

}  // namespace

TEST_CASE("a restarted member has no vote where the others keep in sketches what they cannot list") {
  for (const bool bucket : {false, true}) {
    Crowd crowd(long_rule(bucket, OnAmnesia::deny));
    sim::Fleet& fleet = crowd.fleet;
    const Group group = fleet.group("api", "k");
    const uint16_t owner = group.rank[0], partner = group.rank[1], third = group.rank[2];
    crowd.apart(owner, third);  // which hears of no mark
    fleet.evenly(owner, "api", "k", 100, test::secs(2), test::secs(6));
    fleet.run_until(test::secs(7));
    const uint64_t before = fleet.tally("api", "k").admitted();
    REQUIRE(before >= 40);
    REQUIRE(fleet.marks_overflowed() > 0);
    fleet.crash(partner);
    fleet.start(partner);
    REQUIRE(fleet.run_until_ready(test::secs(12)));
    fleet.network().cut_off(owner);
    const Duration from = fleet.now();
    for (const uint16_t rank : {partner, third})
      fleet.evenly(rank, "api", "k", 100, from, from + test::secs(4));
    fleet.run_until(from + test::secs(6));
    const uint64_t after = fleet.tally("api", "k").admitted();
    MESSAGE(std::string(bucket ? "bucket: " : "window: ")
            << before << " before, " << after - before << " after the restart");
    CHECK(after <= 102);
    crowd.no_violation();
  }
}

TEST_CASE("where one of the three restarts, those that have a key in their sketches serve it on") {
  Crowd crowd(long_rule(false, OnAmnesia::forget));
  sim::Fleet& fleet = crowd.fleet;
  const Group group = fleet.group("api", "k");
  fleet.evenly(group.rank[0], "api", "k", 30, test::secs(2), test::secs(4));
  fleet.run_until(test::secs(5));
  REQUIRE(fleet.tally("api", "k").admitted() == 30);
  fleet.crash(group.rank[0]);
  fleet.start(group.rank[0]);
  REQUIRE(fleet.run_until_ready(test::secs(12)));
  const Duration from = fleet.now();
  fleet.evenly(group.rank[1], "api", "k", 200, from, from + test::secs(5));
  fleet.run_until(from + test::secs(6));
  MESSAGE("in all " << fleet.tally("api", "k").admitted());
  CHECK(fleet.tally("api", "k").admitted() >= 80);
  crowd.no_violation();
}

TEST_CASE(
    "a key is begun anew once for each death of all three where the table has room for it, and not at all "
    "where it has none") {
  Crowd crowd(long_rule(false, OnAmnesia::forget));
  sim::Fleet& fleet = crowd.fleet;
  fleet.evenly(0, "api", "k", 40, test::secs(2), test::secs(4));
  fleet.run_until(test::secs(5));
  REQUIRE(fleet.tally("api", "k").admitted() == 40);
  for (uint16_t rank = 0; rank < 3; ++rank) fleet.crash(rank);
  for (uint16_t rank = 0; rank < 3; ++rank) fleet.start(rank);
  REQUIRE(fleet.run_until_ready(test::secs(12)));
  const Duration from = fleet.now();
  fleet.evenly(0, "api", "k", 200, from, from + test::secs(4));                      // has the one place
  fleet.evenly(0, "api", "other", 200, from + test::secs(1), from + test::secs(4));  // has none
  fleet.run_until(from + test::secs(6));
  const uint64_t begun = fleet.tally("api", "k").admitted() - 40,
                 other = fleet.tally("api", "other").admitted();
  MESSAGE("begun anew " << begun << ", without a place " << other);
  CHECK(begun >= 80);
  CHECK(begun <= 100);
  CHECK(other == 0);
}
