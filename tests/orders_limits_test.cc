// Limits that are ordered of single keys and end again, on whole nodes that are wired by hand: of a rule with
// overrides only workers know what holds afterwards.
#include <doctest/doctest.h>

#include <memory>
#include <string>

#include "core/overrides.h"
#include "node_fixture.h"

using namespace tally;
using namespace tally::test;

namespace {

Rule rule_with(const std::string& key, uint32_t limit) {
  Rule rule = window_rule(Algorithm::fixed_window, 10, secs(60), {.ppm = 0, .unbounded = false});
  rule.on_isolation = OnIsolation::closed;
  Rule other = rule;
  other.limit.limit = limit;
  const auto overrides = std::make_shared<Overrides>();
  REQUIRE(overrides->add(key, {Treatment::limited, other.limit, 0, {}}).empty());
  rule.overrides = overrides;
  return rule;
}

// Of workers that know of an order (`limit`), or of none (0).
uint32_t admitted(Fleet& fleet, const std::string& key, uint32_t limit, int rounds = 60) {
  uint32_t total = 0;
  for (int i = 0; i < rounds; ++i) {
    for (uint16_t rank = 0; rank < 3; ++rank) {
      Ask ask = fleet.ask(rank, key);
      const Limit ordered = with_number(*ask.rule, Share{rank, 3}, limit);
      if (limit != 0) ask.limit = &ordered;
      Host& host = fleet[rank];
      Answer answer = host.limiter->take(ask, fleet.now(), host.notes.get());
      fleet.settle();
      if (answer.verdict == Verdict::starved) answer = host.limiter->take(ask, fleet.now(), nullptr);
      total += answer.verdict == Verdict::admitted ? 1 : 0;
    }
    fleet.pass(ms(10));
  }
  return total;
}

}  // namespace

TEST_CASE(
    "after an order a key goes by its override again, larger or smaller than the rule's limit, and by no "
    "more") {
  for (const uint32_t own : {50u, 7u})
    for (const bool lifts : {true, false})
      for (const bool known_before : {true, false}) {  // what its override comes to, to the nodes
        CAPTURE(own);
        CAPTURE(lifts);
        CAPTURE(known_before);
        Fleet fleet(3, rule_with("bob", own));
        fleet.until_ready();
        fleet.pass(ms(300));
        uint32_t total = known_before ? admitted(fleet, "bob", 0, 1) : 0;
        const Orders::Name bob{fleet.rule(0).name, "bob"};
        REQUIRE(fleet.node(1).order(bob, OrderKind::limit, 5, secs(5), fleet.now()));
        fleet.pass(ms(100));
        total += admitted(fleet, "bob", 5);
        CHECK(total == 5);
        if (lifts)
          CHECK(fleet.node(2).lift(bob, fleet.now()));
        else
          fleet.pass(secs(5));
        total += admitted(fleet, "bob", 5, 20);  // workers that are late
        CHECK(total <= 5);
        total += admitted(fleet, "bob", 0);
        CHECK(total == own);
        fleet.pass(secs(60));
        CHECK(admitted(fleet, "bob", 0) == own);
      }
}

TEST_CASE("a report that is late by an order does not hold the key at the order's limit") {
  Fleet fleet(3, rule_with("bob", 50));
  fleet.until_ready();
  fleet.pass(ms(300));
  const Orders::Name bob{fleet.rule(0).name, "bob"};
  const uint16_t owner = fleet.group("bob").rank[0], late = static_cast<uint16_t>((owner + 1) % 3);
  REQUIRE(fleet.node(owner).order(bob, OrderKind::limit, 5, secs(60), fleet.now()));
  fleet.pass(ms(100));
  CHECK(admitted(fleet, "bob", 5) == 5);
  bool cut = false;  // does not hear that it was lifted
  fleet.cut = [&](uint16_t, uint16_t to) { return cut && to == late; };
  cut = true;
  CHECK(fleet.node(owner).lift(bob, fleet.now()));
  fleet.pass(ms(200));
  Ask ask = fleet.ask(late, "bob");
  const Limit ordered = with_number(*ask.rule, Share{late, 3}, 5);
  ask.limit = &ordered;
  fleet[late].limiter->take(ask, fleet.now(), fleet[late].notes.get());
  fleet.pass(ms(200));
  cut = false;
  fleet.pass(secs(3));
  CHECK(admitted(fleet, "bob", 0) == 45);
}
