// Keys with limits of their own, on whole nodes that are wired by hand: owners learn them from reports.
#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/overrides.h"
#include "node_fixture.h"

using namespace tally;
using namespace tally::test;

namespace {

constexpr Overcount kStrict{.ppm = 0, .unbounded = false};

Rule window_of(uint32_t limit, Algorithm algorithm = Algorithm::fixed_window, Overcount e = kStrict) {
  Rule rule = window_rule(algorithm, limit, secs(60), e);
  rule.on_isolation = OnIsolation::closed;
  return rule;
}

Rule bucket_of(uint32_t burst, Duration emission = secs(1'000)) {
  Rule rule = bucket_rule(burst, emission, kStrict);
  rule.on_isolation = OnIsolation::closed;
  return rule;
}

// With overrides whose numbers are those of other rules.
Rule with(Rule rule, const std::vector<std::pair<std::string, Rule>>& others) {
  const auto overrides = std::make_shared<Overrides>();
  for (const auto& [key, other] : others) REQUIRE(overrides->add(key, {Treatment::limited, other.limit, 0, {}}).empty());
  rule.overrides = overrides;
  return rule;
}

// Of so many requests at each node in turns.
uint32_t admitted_in_turns(Fleet& fleet, const std::string& key, int rounds) {
  uint32_t total = 0;
  for (int i = 0; i < rounds; ++i) {
    for (uint16_t rank = 0; rank < 3; ++rank) total += fleet.admits(rank, key) ? 1 : 0;
    fleet.pass(ms(10));
  }
  return total;
}

}  // namespace

TEST_CASE("a fleet admits the limit of a key's override, larger or smaller than the rule's, exactly where it is strict") {
  const Rule sliding = window_of(10, Algorithm::sliding_window);
  for (const Rule& rule : {with(window_of(10), {{"big", window_of(50)}, {"small", window_of(3)}}),
                           with(sliding, {{"big", window_of(50, Algorithm::sliding_window)}, {"small", window_of(3, Algorithm::sliding_window)}}),
                           with(bucket_of(10), {{"big", bucket_of(50, secs(500))}, {"small", bucket_of(3)}})}) {
    CAPTURE(static_cast<int>(rule.limit.algorithm));
    Fleet fleet(3, rule);
    fleet.until_ready();
    fleet.pass(ms(300));
    CHECK(admitted_in_turns(fleet, "big", 30) == 50);
    CHECK(admitted_in_turns(fleet, "small", 30) == 3);
    CHECK(admitted_in_turns(fleet, "other", 30) == 10);
  }
}

TEST_CASE("floors and the budget of an override are parts of its own limit") {
  Fleet fleet(3, with(window_of(10, Algorithm::fixed_window, {.ppm = 150'000, .unbounded = false}), {{"big", window_of(40)}}));  // 6 over, and 1
  fleet.until_ready();
  for (uint16_t rank = 0; rank < 3; ++rank) {
    CHECK(fleet.explain(rank, "big").floor == 2);
    CHECK(fleet.explain(rank, "other").floor == (rank == 0 ? 1 : 0));
  }
  const uint32_t total = admitted_in_turns(fleet, "big", 40);
  CHECK(total >= 40);
  CHECK(total <= 46);
}

TEST_CASE("an owner that dies is followed by one that knows the override's limit from the reports") {
  Fleet fleet(3, with(window_of(5), {{"big*", window_of(40)}}));
  fleet.until_ready();
  std::string key = "big";
  while (fleet.group(key).rank[0] != 0) key += "x";
  uint32_t total = fleet.admitted_of(1, key, 10) + fleet.admitted_of(2, key, 10);
  CHECK(total == 20);
  fleet.stop(0);
  fleet.pass(secs(3));
  for (int i = 0; i < 40; ++i) {
    total += fleet.admits(1, key) ? 1 : 0;
    total += fleet.admits(2, key) ? 1 : 0;
    fleet.pass(ms(20));
  }
  CHECK(total > 20);
  CHECK(total <= 40);
}

TEST_CASE("an override that is lowered ends what is granted beyond it, and one that is raised begins with the next window") {
  Fleet fleet(3, with(window_of(5), {{"k", window_of(40)}, {"l", window_of(10)}}));
  fleet.until_ready();
  CHECK(fleet.admitted_of(0, "k", 15) == 15);
  CHECK(admitted_in_turns(fleet, "l", 10) == 10);
  for (uint16_t rank = 0; rank < 3; ++rank) fleet.use(rank, with(window_of(5), {{"k", window_of(20)}, {"l", window_of(30)}}));
  CHECK(15 + admitted_in_turns(fleet, "k", 20) == 20);
  CHECK(admitted_in_turns(fleet, "l", 20) == 0);
  fleet.pass(secs(60));
  CHECK(admitted_in_turns(fleet, "l", 20) == 30);
  CHECK(admitted_in_turns(fleet, "k", 20) == 20);
}

TEST_CASE("while hosts have different overrides the fleet admits no more than the larger limit") {
  for (const uint16_t other : {uint16_t{0}, uint16_t{1}, uint16_t{2}}) {
    Fleet fleet(3, with(window_of(5), {{"k", window_of(30)}}));
    fleet.until_ready();
    fleet.use(other, window_of(5));  // has none
    CHECK(admitted_in_turns(fleet, "k", 30) <= 30);
    CHECK(admitted_in_turns(fleet, "other", 30) == 5);
  }
}

TEST_CASE("rules with and without an override differ in their fingerprints") {
  Fleet fleet(3, with(window_of(5), {{"k", window_of(30)}}));
  fleet.until_ready();
  fleet.use(1, with(window_of(5), {{"k", window_of(31)}}));
  fleet.pass(secs(2));
  std::vector<bool> mismatch;
  for (const PeerStatus& peer : fleet.node(0).peers(fleet.now())) mismatch.push_back(peer.rules_mismatch);
  CHECK(mismatch == std::vector<bool>{false, true, false});
}
