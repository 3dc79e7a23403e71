// Processes that admit by themselves, beside the daemons of a fleet: they share its limit, and what they put back is what they took.
#include <doctest/doctest.h>

#include "core/windows.h"
#include "sim/fleet.h"

using namespace tally;
using namespace tally::sim;
using namespace std::chrono_literals;

namespace {

FleetConfig three(Rule rule) {
  FleetConfig config;
  config.nodes = 3;
  config.rules = {std::move(rule)};
  config.processes = {{0, 10ms, 100us}, {1, 10ms, 100us}, {1, 10ms, 100us}};
  config.isolation_possible = true;
  return config;
}

}  // namespace

TEST_CASE("processes of three hosts use a limit up and never pass it, most of it without a question") {
  for (const Algorithm algorithm : {Algorithm::fixed_window, Algorithm::sliding_window}) {
    Fleet fleet(three(window_rule("api", algorithm, 2'000, 5s, 50'000)));
    REQUIRE(fleet.run_until_ready(5s));
    const Duration begin = 10s;
    for (size_t process = 0; process < 3; ++process) fleet.poisson_by(process, "api", "k", 2'000, begin, begin + 4500ms);
    fleet.run_until(begin + 4500ms);
    CHECK(fleet.violations().empty());
    const uint64_t admitted = fleet.tally("api", "k").admitted();
    CHECK(admitted >= 1'980);
    CHECK(admitted <= 2'100);
    CHECK(fleet.admitted_by_processes() > admitted / 2);
    fleet.run_until(begin + 10s);
    fleet.audit();
    CHECK(fleet.violations().empty());
  }
}

TEST_CASE("what a quiet process held is there for others in the same window") {
  Fleet fleet(three(window_rule("api", Algorithm::fixed_window, 1'000, 3600s, 0)));
  REQUIRE(fleet.run_until_ready(5s));
  fleet.poisson_by(0, "api", "k", 4'000, fleet.now(), fleet.now() + 100ms);
  fleet.run_for(1s);
  const uint64_t before = fleet.tally("api", "k").admitted();
  CHECK(before > 100);
  CHECK(fleet.admitted_by_processes() > 0);
  fleet.poisson(2, "api", "k", 2'000, fleet.now(), fleet.now() + 5s);
  fleet.run_for(6s);
  CHECK(fleet.tally("api", "k").admitted() == 1'000);
  CHECK(fleet.violations().empty());
}

TEST_CASE("a bucket is shared with processes that hold its tokens, and its promise is kept") {
  Rule rule = bucket_rule("feed", 400, 1'000, 1s, 0);
  rule.process_hold = 50ms;
  Fleet fleet(three(rule));
  REQUIRE(fleet.run_until_ready(5s));
  for (size_t process = 0; process < 3; ++process) fleet.poisson_by(process, "feed", "k", 2'000, fleet.now(), fleet.now() + 5s);
  fleet.run_for(5s);
  CHECK(fleet.violations().empty());
  CHECK(fleet.admitted_by_processes() > 100);  // of a bucket that is empty most goes to who asks
  CHECK(fleet.tally("feed", "k").admitted() > 4'000);
}

TEST_CASE("what is put back when its window is over changes nothing in the next") {
  Fleet fleet(three(window_rule("api", Algorithm::fixed_window, 100, 1s, 300'000)));
  REQUIRE(fleet.run_until_ready(5s));
  const Rule& rule = fleet.rule("api");
  const KeyHash hash = fleet.limiter(0).hash(rule, "k");
  const WireId id = wire_id("k", rule.id_key);
  for (int i = 0; i < 8; ++i) fleet.take(0, "api", "k");
  fleet.run_for(10ms);
  const Now now = fleet.clock(0);
  const int64_t window = window_at(now.wall, 1s);
  CHECK(fleet.node(0).give(rule, rule.limit, hash, id, 3, now, window - 1) == 0);
  CHECK(fleet.node(0).give(rule, rule.limit, hash, id, 3, now, window + 1) == 0);
  CHECK(fleet.node(0).give(rule, rule.limit, hash, id, 3, now, window) == 3);
}
