// Registers that a node leaves for its next life: it votes on at once, whoever else is there, and nothing is issued twice.
#include <doctest/doctest.h>

#include "cluster/recovery.h"
#include "cluster/registers.h"
#include "node_fixture.h"
#include "sim/fleet.h"
#include "sim/trace.h"

using namespace tally;
using namespace std::chrono_literals;

namespace {

constexpr uint32_t kLimit = 100;

Rule day_rule() {
  Rule rule = test::window_rule(Algorithm::fixed_window, kLimit, 24h, {.ppm = 0, .unbounded = false});
  rule.name.assign("api");
  rule.on_isolation = OnIsolation::closed;
  rule.on_amnesia = OnAmnesia::deny;
  return rule;
}

// Three nodes, a key that one of them owns, and the two others of its group.
struct Three {
  test::Fleet fleet{3, day_rule()};
  std::string key;
  uint16_t owner = 0, member = 0, other = 0;
  uint64_t lives = 20;

  Three() {
    fleet.until_ready();
    key = fleet.key_of(0);
    member = fleet.group(key).rank[1];
    other = fleet.group(key).rank[2];
  }
  std::shared_ptr<const Memory> leave(uint16_t rank) {
    fleet.node(rank).leave(fleet.now());
    fleet.settle();
    const auto memory = std::make_shared<const Memory>(fleet.node(rank).memory(fleet.now()));
    fleet.stop(rank);
    return memory;
  }
  void start(uint16_t rank, std::shared_ptr<const Memory> memory) {
    fleet.start(rank, {.incarnation = lives++, .first = false, .reckoned_start = fleet.now().wall, .tenure = {}, .memory = std::move(memory)});
  }
  uint32_t take(uint16_t rank, uint32_t tries) {
    fleet.must_settle = false;
    uint32_t n = 0;
    for (uint32_t i = 0; i < tries; ++i) {
      n += fleet.admits(rank, key) ? 1 : 0;
      fleet.pass(test::ms(20));
    }
    return n;
  }
};

}  // namespace

TEST_CASE("all who are left restart one after the other while one is dead, and its keys go on being served") {
  Three three;
  uint32_t taken = three.take(three.owner, 20);
  CHECK(taken == 20);
  three.fleet.stop(three.other);  // for good, with what it accepted
  for (const uint16_t rank : {three.member, three.owner}) {
    auto memory = three.leave(rank);
    three.fleet.pass(test::ms(100));
    three.start(rank, std::move(memory));
    three.fleet.pass(test::ms(300));
    CHECK(three.fleet.node(rank).ready());
  }
  taken += three.take(three.member, 120);
  CHECK(taken <= kLimit);
  CHECK(taken >= kLimit * 8 / 10);  // what was under marks is lost, twice
}

TEST_CASE("without what the last life has left a member has no vote while another is dead") {
  Three three;
  CHECK(three.take(three.owner, 20) == 20);
  three.fleet.stop(three.other);
  three.leave(three.member);
  three.start(three.member, nullptr);
  three.fleet.pass(test::ms(300));
  CHECK_FALSE(three.fleet.node(three.member).ready());
  CHECK(three.take(three.owner, 60) <= 20);  // what the mark was ahead, by a demand of many a second
}

TEST_CASE("a memory of a life before the last is none") {
  using namespace test;
  const Now now = at(secs(100));
  const Roster roster = roster_of(3);
  const Standing standing{false, now.wall, ms(100), true, now};
  const Succession succession{roster, 0, {}, {}, standing, ms(100), now};
  Recovery recovery{roster, 0, 9, standing, succession};
  Registers registers{1000, 0, roster, standing, succession, recovery};
  Memory memory;
  memory.incarnation = 7;
  memory.worth.votes_from_ns = nanos(WallTime::min());
  memory.worth.clock_ns = nanos(now.wall);
  recovery.remember(memory, registers, now);
  const int64_t window = nanos(now.wall) / nanos(Duration(10s)) - 1;
  CHECK(recovery.has_read({}, window, 10s));
  CHECK(recovery.complete());
  recovery.heard_of_life(7);  // a peer knows that one, too
  recovery.heard_of_life(3);
  CHECK(recovery.has_read({}, window, 10s));
  recovery.heard_of_life(8);
  CHECK_FALSE(recovery.has_read({}, window, 10s));
  CHECK_FALSE(recovery.complete());
}

TEST_CASE("a group of one has no marks to remember: its rules decide, as after any restart") {
  sim::FleetConfig config;
  config.nodes = 2;
  config.owners = {0};
  config.rules = {day_rule()};
  sim::Fleet fleet(config);
  REQUIRE(fleet.run_until_ready(2s));
  fleet.evenly(1, "api", "k", 30, 2s, 3s);
  fleet.run_until(4s);
  REQUIRE(fleet.tally("api", "k").admitted() == 30);
  fleet.leave(0);
  fleet.run_for(100ms);
  fleet.start(0);
  fleet.evenly(1, "api", "k", 200, 5s, 10s);
  fleet.run_until(12s);
  CHECK(fleet.tally("api", "k").admitted() < kLimit);  // on_amnesia: deny
  CHECK(fleet.violations().empty());
}

TEST_CASE("a bucket of an hour survives the restart of all while one is dead") {
  sim::FleetConfig config;
  config.nodes = 3;
  Rule rule = sim::bucket_rule("feed", kLimit, kLimit, 1h, 0);
  rule.on_isolation = OnIsolation::closed;
  config.rules = {rule};
  sim::Fleet fleet(config);
  REQUIRE(fleet.run_until_ready(2s));
  fleet.evenly(0, "feed", "k", 10, 2s, 3s);
  fleet.run_until(6s);
  REQUIRE(fleet.tally("feed", "k").admitted() == 10);
  fleet.crash(2);
  for (const uint16_t rank : {uint16_t{0}, uint16_t{1}}) {
    fleet.leave(rank);
    fleet.run_for(100ms);
    fleet.start(rank);
    fleet.run_for(5s);
  }
  fleet.evenly(1, "feed", "k", 150, fleet.now(), fleet.now() + 60s);
  fleet.run_for(70s);
  CHECK(fleet.tally("feed", "k").admitted() >= 60);
  CHECK(fleet.violations().empty());
}
