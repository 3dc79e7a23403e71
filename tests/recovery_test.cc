// A restarted member reads its registers anew from all others, and has its vote back when it has; no sooner.
#include <doctest/doctest.h>

#include "core/windows.h"
#include "node_fixture.h"
#include "seed.h"
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
  return {.incarnation = incarnation, .first = false, .reckoned_start = fleet.now().wall};
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
  CHECK(more <= 12);  // what the mark was ahead: a sixteenth, and what a round trip is of a sync interval
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

TEST_CASE("who claims without a vote of its own tells of the claim all the same") {
  using namespace test;
  Fleet fleet(3, day_rule(100));
  fleet.until_ready();
  const std::string key = fleet.key_of(0);
  const uint16_t claimant = fleet.group(key).rank[1], reader = fleet.group(key).rank[2];
  CHECK(fleet.admitted_of(reader, key, 20) == 20);
  fleet.must_settle = false;
  fleet.stop(0);  // so that nobody who restarts has a vote
  fleet.stop(claimant);
  fleet.start(claimant, later_life(fleet, 20));
  for (int i = 0; i < 100; ++i) {  // asks its own node at last, which claims
    fleet.admits(claimant, key);
    fleet.pass(ms(10));
  }
  REQUIRE(fleet.node(claimant).stats().claims_started > 0);
  fleet.stop(reader);
  Ballot told;
  fleet.watch = [&](const Entry& entry, uint16_t from, uint16_t to) {
    const auto* registered = std::get_if<Registered>(&entry);
    if (registered != nullptr && from == claimant && to == reader) told = std::max(told, registered->promised);
  };
  fleet.start(reader, later_life(fleet, 30));
  fleet.pass(ms(300));
  CHECK(told.counter >= 1);
  CHECK(told.node == fleet.roster.id(claimant));
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

namespace {

// Three nodes that have admitted `spent` of a limit of 100; then those named start again with nothing but their state files.
struct Restarted {
  test::Fleet fleet;
  std::string key;
  uint32_t spent;

  Restarted(const Rule& rule, const std::vector<uint16_t>& restarted) : fleet(3, rule), key((fleet.until_ready(), fleet.key_of(0))) {
    spent = fleet.admitted_of(0, key, 60);
    fleet.pass(test::ms(200));
    fleet.must_settle = false;
    for (const uint16_t rank : restarted) fleet.stop(rank);
    for (const uint16_t rank : restarted) fleet.start(rank, later_life(fleet, 20 + rank));
    fleet.pass(test::secs(2), test::ms(10));
  }
  uint32_t more() {
    uint32_t n = 0;
    for (int i = 0; i < 300; ++i) {
      n += fleet.admits(static_cast<uint16_t>(i % 3), key) ? 1 : 0;
      fleet.pass(test::ms(10));
    }
    return n;
  }
};

Rule forgetting(Rule rule, OnAmnesia on_amnesia) {
  rule.on_amnesia = on_amnesia;
  return rule;
}

}  // namespace

TEST_CASE("where nobody is left who remembers, the rule says whether the window begins anew") {
  for (const Algorithm algorithm : {Algorithm::fixed_window, Algorithm::sliding_window}) {
    Rule rule = day_rule(100);
    rule.limit.algorithm = algorithm;
    Restarted all(forgetting(rule, OnAmnesia::forget), {0, 1, 2});
    REQUIRE(all.spent == 60);
    const uint32_t more = all.more();
    CHECK(more >= 95);
    CHECK(more <= 100);
    CHECK(all.fleet.node(0).stats().begun_anew + all.fleet.node(1).stats().begun_anew + all.fleet.node(2).stats().begun_anew == 1);
    Restarted denied(forgetting(rule, OnAmnesia::deny), {0, 1, 2});
    CHECK(denied.more() == 0);
  }
}

TEST_CASE("one that remembers is enough for nothing to be begun anew, and too little to go on") {
  const Rule rule = forgetting(day_rule(100), OnAmnesia::forget);
  for (uint16_t keeper = 0; keeper < 3; ++keeper) {
    std::vector<uint16_t> restarted{0, 1, 2};
    std::erase(restarted, keeper);
    Restarted two(rule, restarted);
    CHECK(two.spent + two.more() <= 100);
  }
}

TEST_CASE("one that remembers nothing of the key, but all of its own time, is enough for it not to be begun anew") {
  using namespace std::chrono_literals;
  sim::FleetConfig config;
  config.nodes = 3;
  config.rules = {forgetting(sim::window_rule("api", Algorithm::fixed_window, 100, 60s, 0), OnAmnesia::forget)};
  config.rules[0].on_isolation = OnIsolation::closed;
  sim::Fleet fleet(config);
  const Group group = fleet.group("api", "k");
  fleet.at(300ms, [&] { fleet.network().cut_off(group.rank[2]); });
  fleet.evenly(group.rank[0], "api", "k", 60, 400ms, 500ms);
  fleet.at(900ms, [&] {
    fleet.network().mend_all();
    for (const size_t place : {size_t{0}, size_t{1}}) fleet.crash(group.rank[place]);
  });
  fleet.at(950ms, [&] {
    for (const size_t place : {size_t{0}, size_t{1}}) fleet.start(group.rank[place]);
  });
  for (uint16_t rank = 0; rank < 3; ++rank) fleet.evenly(rank, "api", "k", 300, 1s, 8s);
  fleet.run_until(9s);
  for (const sim::Violation& v : fleet.violations()) FAIL_CHECK(v.rule << "/" << v.key << ": " << v.what);
  CHECK(fleet.tally("api", "k").admitted() == 60);
}

TEST_CASE("a bucket that nobody remembers begins full at once, not when the members may have forgotten") {
  Rule rule = test::bucket_rule(100, std::chrono::seconds(50), {.ppm = 0, .unbounded = false});
  rule.on_isolation = OnIsolation::closed;
  Restarted all(forgetting(rule, OnAmnesia::forget), {0, 1, 2});
  const uint32_t more = all.more();
  CHECK(more >= 95);
  CHECK(more <= 100);
  Restarted denied(forgetting(rule, OnAmnesia::deny), {0, 1, 2});
  CHECK(denied.more() == 0);
}

TEST_CASE("what was begun anew is remembered: two more deaths after it begin nothing anew") {
  Restarted all(forgetting(day_rule(100), OnAmnesia::forget), {0, 1, 2});
  uint32_t more = 0;
  for (int i = 0; i < 30; ++i) more += all.fleet.admits(0, all.key) ? 1 : 0;
  all.fleet.pass(test::ms(300), test::ms(10));
  CHECK(more >= 25);
  for (const uint16_t rank : {uint16_t{0}, uint16_t{1}}) all.fleet.stop(rank);
  for (const uint16_t rank : {uint16_t{0}, uint16_t{1}}) all.fleet.start(rank, later_life(all.fleet, 40 + rank));
  all.fleet.pass(test::secs(2), test::ms(10));
  CHECK(more + all.more() <= 100);
}

TEST_CASE("while one member lives on, members that crash again and again begin nothing anew") {
  using namespace std::chrono_literals;
  const uint64_t seed = test_seed(341);
  uint64_t admitted = 0, bound = 0;
  for (uint64_t round = 0; round < scaled(40, 4); ++round) {
    Random random(seed + round);
    sim::FleetConfig config;
    config.nodes = 3;
    config.seed = seed + round;
    config.sync_interval = 20ms;
    config.link.delay_max = 250us + Duration(random.between(0, nanos(Duration(3ms))));
    config.link.loss = random.chance(0.5) ? 0.1 : 0;
    config.link.duplicate = 0.1;
    const Algorithm algorithm = random.chance(0.5) ? Algorithm::fixed_window : Algorithm::sliding_window;
    Rule window = sim::window_rule("window", algorithm, 200, random.chance(0.5) ? kDay : Duration(15s), 0);
    Rule bucket = sim::bucket_rule("bucket", 100, 100, 20s, 0);
    for (Rule* rule : {&window, &bucket}) {
      rule->on_isolation = OnIsolation::closed;
      rule->on_amnesia = OnAmnesia::forget;
      config.rules.push_back(*rule);
    }
    sim::Fleet fleet(config);
    const auto keeper = static_cast<uint16_t>(random.below(3));
    for (uint16_t rank = 0; rank < 3; ++rank)
      for (const char* rule : {"window", "bucket"}) fleet.poisson(rank, rule, "k", 40, 1s, 12s);
    for (uint16_t rank = 0; rank < 3; ++rank) {
      if (rank == keeper) continue;
      for (Duration t = 1s;;) {
        t += Duration(random.between(nanos(Duration(100ms)), nanos(Duration(3s))));
        if (t > 12s) break;
        fleet.at(t, [&fleet, rank] { fleet.crash(rank); });
        t += Duration(random.between(0, nanos(Duration(400ms))));
        fleet.at(t, [&fleet, rank] { fleet.start(rank); });
      }
    }
    fleet.run_until(13s);
    for (const sim::Violation& v : fleet.violations())
      FAIL_CHECK("seed " << config.seed << ": " << v.rule << "/" << v.key << ": " << v.what);
    for (uint16_t rank = 0; rank < 3; ++rank) CHECK(fleet.node(rank).stats().begun_anew == 0);
    admitted += fleet.tally("window", "k").admitted();
    bound += 200;
  }
  MESSAGE("windows admitted " << admitted << " of " << bound);
  CHECK(admitted * 2 > bound);
}
