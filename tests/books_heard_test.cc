// Books that answer about some keys and are silent about others: which keys a node takes for isolated.
#include <doctest/doctest.h>

#include "node_fixture.h"

using namespace tally;
using namespace tally::test;
using namespace std::chrono_literals;

TEST_CASE("a key is isolated when its books have not answered about it, and no other key of theirs is") {
  Rule rule = window_rule(Algorithm::fixed_window, 100, 1h, {.ppm = 0});
  rule.on_isolation = OnIsolation::closed;
  Fleet fleet(3, rule);
  fleet.until_ready();
  const Duration isolation_after = Pace{}.isolation_after;
  fleet.pass(isolation_after + 100ms);
  const std::string key = fleet.key_of(1);
  std::string other;
  for (int i = 0; other.empty(); ++i)
    if (const std::string one = "other" + std::to_string(i); fleet.group(one).rank[0] == 1) other = one;
  Duration silent_for{0};  // about the one key
  fleet.node(0).books_heard_by(1, [&](const WireId& id) { return fleet.now().mono - (id == fleet.id(key) ? silent_for : Duration(0)); });
  fleet.cut = [](uint16_t from, uint16_t to) { return from == 0 && to == 1; };  // what is asked gets no answer, though all are heard
  fleet.must_settle = false;

  silent_for = isolation_after;
  CHECK(fleet.take(0, key).verdict == Verdict::starved);
  fleet.settle();
  CHECK_FALSE(fleet.explain(0, key).isolated);
  silent_for += 1ms;
  CHECK(fleet.take(0, key).verdict == Verdict::starved);
  CHECK(fleet.take(0, other).verdict == Verdict::starved);
  fleet.settle();
  CHECK(fleet.explain(0, key).isolated);
  CHECK(fleet.take(0, key).verdict == Verdict::isolated);
  CHECK_FALSE(fleet.explain(0, other).isolated);

  // Nor is one of another owner, which is judged as ever.
  const std::string third = fleet.key_of(2);
  CHECK(fleet.admits(0, third));
}
