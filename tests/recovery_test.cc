// A restarted member reads its registers anew from all others, and has its vote back when it has; no sooner.
#include <doctest/doctest.h>

#include "core/windows.h"
#include "node_fixture.h"
#include "sim/fleet.h"
#include "sim/trace.h"

using namespace tally;

namespace {

constexpr Duration kDay = std::chrono::hours(24);

Rule day_rule(uint32_t limit) {
  Rule rule = test::window_rule(Algorithm::fixed_window, limit, kDay, {.ppm = 0, .unbounded = false});
  rule.on_isolation = OnIsolation::closed;
  return rule;
}

Life later_life(const test::Fleet& fleet, uint64_t incarnation) {
  return {.incarnation = incarnation, .first = false, .previous = incarnation - 10, .reckoned_start = fleet.now().wall};
}

}  // namespace

TEST_CASE("a restarted member votes again in a window of a day once it has read its marks from both others") {
  using namespace test;
  Fleet fleet(3, day_rule(100));
  fleet.until_ready();
  const std::string key = fleet.key_of(0);
  const uint16_t member = fleet.group(key).rank[1], other = fleet.group(key).rank[2];
  CHECK(fleet.admitted_of(0, key, 20) == 20);
  fleet.stop(member);
  fleet.start(member, later_life(fleet, 20));
  fleet.pass(ms(300));
  CHECK(fleet.node(member).ready());
  // With the third one gone its vote is needed.
  fleet.stop(other);
  const uint32_t more = fleet.admitted_of(0, key, 60);
  CHECK(more == 60);
}

TEST_CASE("a member that has read from one other only has no vote, and is ready at last all the same") {
  using namespace test;
  Fleet fleet(3, day_rule(100));
  fleet.until_ready();
  const std::string key = fleet.key_of(0);
  const uint16_t member = fleet.group(key).rank[1], other = fleet.group(key).rank[2];
  CHECK(fleet.admitted_of(0, key, 20) == 20);
  fleet.stop(other);
  fleet.stop(member);
  fleet.start(member, later_life(fleet, 20));
  fleet.pass(ms(300));
  CHECK_FALSE(fleet.node(member).ready());
  fleet.must_settle = false;
  const uint32_t more = fleet.admitted_of(0, key, 60);
  CHECK(more <= 7);  // what the mark left: a sixteenth
  fleet.pass(secs(10), ms(50));
  CHECK(fleet.node(member).ready());
  // The third one is back, and has forgotten too: neither can vouch for the other.
  fleet.start(other, later_life(fleet, 30));
  fleet.pass(secs(2), ms(50));
  CHECK(fleet.admitted_of(0, key, 60) == 0);
}

TEST_CASE("what was promised and accepted is told: an older owner is refused after a restart too") {
  using namespace test;
  Fleet fleet(3, day_rule(100));
  fleet.until_ready();
  const std::string key = fleet.key_of(0);
  const Group group = fleet.group(key);
  CHECK(fleet.admitted_of(group.rank[1], key, 20) == 20);
  REQUIRE(fleet.node(group.rank[1]).claim(fleet.id(key), window_at(fleet.now().wall, kDay), fleet.now()) == false);
  fleet.stop(0);  // its keys are claimed
  uint32_t more = 0;
  for (int i = 0; i < 60; ++i) {
    more += fleet.admits(group.rank[1], key) ? 1 : 0;
    fleet.pass(ms(10));
  }
  REQUIRE(more >= 20);
  fleet.start(0, later_life(fleet, 20));
  fleet.pass(ms(300));
  CHECK(fleet.node(0).ready());
  CHECK(fleet.explain(0, key).ballot_counter == 0);  // it has no books of the key, and does not begin any
  uint32_t rest = 0;
  for (int i = 0; i < 100; ++i) {
    rest += fleet.admits(0, key) ? 1 : 0;
    fleet.pass(ms(5));
  }
  CHECK(20 + more + rest <= 100);
  CHECK(20 + more + rest >= 85);
}

TEST_CASE("nodes restarted one after the other, each when the one before is ready, keep a window of a day and its votes") {
  using namespace std::chrono_literals;
  sim::FleetConfig config;
  config.nodes = 5;
  Rule rule = sim::window_rule("api", Algorithm::fixed_window, 1000, kDay, 0);
  rule.on_isolation = OnIsolation::closed;
  config.rules = {rule};
  config.epoch = WallTime(std::chrono::seconds(1'800'000'000 / 86'400 * 86'400 + 3600));
  sim::Fleet fleet(config);
  for (uint16_t rank = 0; rank < 5; ++rank)
    for (int key = 0; key < 20; ++key) fleet.evenly(rank, "api", "k" + std::to_string(key), 20, 1s, 19s);
  fleet.run_until(2s);
  for (uint16_t rank = 0; rank < 5; ++rank) {
    fleet.crash(rank);
    fleet.run_for(200ms);
    fleet.start(rank);
    REQUIRE(fleet.run_until_ready(2s));
    fleet.run_for(500ms);
  }
  fleet.run_until(20s);
  for (const sim::Violation& v : fleet.violations()) FAIL_CHECK(v.rule << "/" << v.key << ": " << v.what);
  uint64_t admitted = 0, offered = 0;
  for (int key = 0; key < 20; ++key) {
    admitted += fleet.tally("api", "k" + std::to_string(key)).admitted();
    offered += fleet.tally("api", "k" + std::to_string(key)).offered();
  }
  MESSAGE("admitted " << admitted << " of " << offered);
  CHECK(admitted * 100 >= offered * 90);  // who asks a node that is down gets nothing
}

TEST_CASE("more entries than fit one answer are read in turns, over a network that loses and reorders") {
  using namespace std::chrono_literals;
  sim::FleetConfig config;
  config.nodes = 3;
  config.keys = 4000;
  config.link.delay_max = 3ms;
  config.link.loss = 0.1;
  Rule rule = sim::window_rule("api", Algorithm::fixed_window, 100, kDay, 0);
  rule.on_isolation = OnIsolation::closed;
  config.rules = {rule};
  sim::Fleet fleet(config);
  for (int key = 0; key < 1500; ++key) fleet.evenly(static_cast<uint16_t>(key % 3), "api", "k" + std::to_string(key), 2, 1s, 3s);
  fleet.run_until(4s);
  const uint64_t kept = fleet.node(1).stats().registers;
  REQUIRE(kept >= 1400);
  fleet.crash(1);
  fleet.start(1);
  REQUIRE(fleet.run_until_ready(5s));
  CHECK(fleet.node(1).stats().registers >= kept);
  for (const sim::Violation& v : fleet.violations()) FAIL_CHECK(v.rule << "/" << v.key << ": " << v.what);
}
