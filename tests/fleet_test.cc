// Whole fleets on a virtual clock: the cases that the product exists for. Each says what was admitted of
// which limit and under which bound; the bound holds always, the accuracy where the network is clean.
//
// Everything is seeded: TALLY_SEED replays one seed, TALLY_CLUSTERS sets how many random clusters are run.
#include <doctest/doctest.h>

#include <cstdlib>
#include <set>

#include "seed.h"
#include "sim/fleet.h"
#include "sim/random_cluster.h"
#include "sim/trace.h"

using namespace tally;
using namespace tally::sim;
using namespace std::chrono_literals;

namespace {

constexpr Algorithm kSliding = Algorithm::sliding_window;
constexpr Algorithm kFixed = Algorithm::fixed_window;
constexpr uint32_t kPercent = 10'000;  // of an overcount, in millionths
constexpr Duration kSettled = 2s;      // the start is over long before

FleetConfig config_of(uint16_t nodes, std::vector<Rule> rules, uint64_t seed = 1) {
  FleetConfig config;
  config.nodes = nodes;
  config.rules = std::move(rules);
  config.seed = seed;
  return config;
}
Rule closed(Rule rule) {
  rule.on_isolation = OnIsolation::closed;
  return rule;
}
Rule with_wait(Rule rule, Duration wait) {
  rule.wait = wait;
  return rule;
}
Rule api(uint32_t limit, Duration window = 1min, uint32_t overcount_ppm = 5 * kPercent) {
  return closed(window_rule("api", kSliding, limit, window, overcount_ppm));
}

void burst(Fleet& fleet, uint16_t rank, std::string_view rule, std::string_view key, int n) {
  for (int i = 0; i < n; ++i) fleet.take(rank, rule, key);
}

// The line of a case, and what must hold in every one.
Tally told(const Fleet& fleet, std::string_view what, std::string_view rule, std::string_view key) {
  const Tally tally = fleet.tally(rule, key);
  MESSAGE(what << ": admitted " << tally.admitted() << " of " << tally.offered() << " offered, limit "
               << fleet.rule(rule).limit.limit << ", bound " << fleet.bound(rule) << "; waited "
               << tally.waited << " (most " << describe(tally.waited_most) << "), no_grant "
               << tally.by_outcome[static_cast<size_t>(Outcome::no_grant)] << "; "
               << fleet.traffic().datagrams << " datagrams, " << fleet.traffic().bytes << " bytes");
  for (const Violation& v : fleet.violations())
    FAIL_CHECK(v.rule << "/" << v.key << " at " << describe(v.at) << ": " << v.what);
  return tally;
}

uint64_t reports_sent(Fleet& fleet) {
  uint64_t sum = 0;
  for (uint16_t rank = 0; rank < fleet.nodes(); ++rank) sum += fleet.node(rank).stats().entries_out[0];
  return sum;
}

}  // namespace

// --- clean networks: the bound and the accuracy ---

TEST_CASE("five doors: of 80 at each at once, as many come in as the limit says") {
  for (const Duration wait : {20ms, 0ms}) {
    Fleet fleet(config_of(5, {with_wait(api(100), wait)}));
    fleet.run_until(kSettled);
    for (uint16_t door = 0; door < 5; ++door) burst(fleet, door, "api", "club", 80);
    fleet.run_for(1s);
    const Tally t = told(fleet, "five doors, wait " + describe(wait), "api", "club");
    CHECK(t.offered() == 400);
    if (wait > 0ms) CHECK(t.admitted() >= 99);
  }
}

TEST_CASE("five registers: 20 at each, one limit just reached and one half of it") {
  for (const uint32_t limit : {100u, 50u}) {
    Fleet fleet(config_of(5, {api(limit)}));
    fleet.run_until(kSettled);
    for (uint16_t r = 0; r < 5; ++r) burst(fleet, r, "api", "stock", 20);
    fleet.run_for(1s);
    const Tally t = told(fleet, "five registers", "api", "stock");
    CHECK(t.admitted() >= limit * 99 / 100);
  }
}

TEST_CASE("toll booths: cars that arrive evenly at the limit all pass, two windows long") {
  Fleet fleet(config_of(5, {closed(window_rule("toll", kFixed, 100, 20s, 5 * kPercent))}));
  for (uint16_t booth = 0; booth < 5; ++booth)
    for (int w = 0; w < 2; ++w)
      fleet.evenly(booth, "toll", "road", 20, 20s * (w + 1) + 37ms * booth, 20s * (w + 2));
  fleet.run_until(61s);
  const Tally t = told(fleet, "toll booths", "toll", "road");
  CHECK(t.offered() == 200);
  CHECK(t.admitted() == 200);
}

TEST_CASE("uneven: two of ten nodes may use the whole limit, and then one more is refused") {
  Fleet fleet(config_of(10, {api(1000)}));
  fleet.evenly(1, "api", "k", 500, 2s, 12s);
  fleet.evenly(2, "api", "k", 500, 2s, 12s);
  fleet.run_until(13s);
  const Tally t = told(fleet, "uneven", "api", "k");
  CHECK(t.admitted() >= 990);
  burst(fleet, 1, "api", "k", 100);
  fleet.run_for(1s);
  CHECK(told(fleet, "and a hundred more", "api", "k").admitted() <= 1050);
}

TEST_CASE("disaster: twenty nodes hit at once") {
  Fleet fleet(config_of(20, {api(1000)}));
  for (uint16_t n = 0; n < 20; ++n) fleet.poisson(n, "api", "k", 1000, 2s, 3s);
  fleet.run_until(4s);
  const Tally t = told(fleet, "disaster", "api", "k");
  CHECK(t.admitted() >= 990);
  CHECK(t.admitted() <= 1010);
}

TEST_CASE("a strict login rule over ten nodes admits exactly its limit, whichever nodes are asked") {
  for (const uint32_t limit : {3u, 5u, 10u}) {
    Fleet fleet(config_of(10, {closed(window_rule("login", kSliding, limit, 15min, 0)), api(100)}));
    for (uint16_t n = 0; n < 9; ++n)
      fleet.at(2s + 400ms * n, [&fleet, n] { fleet.take(n, "login", "user"); });
    fleet.evenly(4, "api", "user", 50, 2s, 5s);
    fleet.run_until(8s);
    CHECK(told(fleet, "nine logins at nine nodes", "login", "user").admitted() == std::min(9u, limit));
    CHECK(told(fleet, "beside it", "api", "user").admitted() == 50);
  }
}

TEST_CASE("a single request is no demand: it asks for itself and for nothing ahead") {
  Fleet fleet(config_of(5, {closed(window_rule("login", kFixed, 100, 15min, 0))}));
  fleet.run_until(kSettled);
  const auto asker = static_cast<uint16_t>((fleet.owner("login", "user") + 1) % 5);
  std::vector<std::string> reports;
  fleet.trace("login", "user", [&](const std::string& line) {
    if (line.find("report") != std::string::npos) reports.push_back(line);
  });
  fleet.take(asker, "login", "user");
  fleet.run_for(90ms);
  REQUIRE_FALSE(reports.empty());
  for (const std::string& line : reports) {
    CAPTURE(line);
    CHECK(line.find("demand") == std::string::npos);
    CHECK(line.find("wanted=1 ") != std::string::npos);
  }
}

TEST_CASE("a small limit over ten nodes, where floors are 0 or 1, loses next to nothing") {
  for (const uint32_t limit : {10u, 60u, 100u}) {
    Fleet fleet(config_of(10, {api(limit)}));
    for (uint16_t n = 0; n < 10; ++n) fleet.poisson(n, "api", "k", limit / 50.0, 2s, 12s);  // twice the limit
    fleet.run_until(13s);
    const Tally t = told(fleet, "small limit", "api", "k");
    CHECK(t.admitted() * 100 >= std::min<uint64_t>(t.offered(), limit) * 99);
    MESSAGE("reports sent: " << reports_sent(fleet));
  }
}

TEST_CASE("traffic at 92 % of the limit, spread over ten nodes that do not wait, is admitted") {
  Fleet fleet(config_of(10, {with_wait(closed(window_rule("api", kFixed, 1000, 10s, 5 * kPercent)), 0ms)}));
  for (uint16_t n = 0; n < 10; ++n) fleet.poisson(n, "api", "k", 9.2, 2s, 32s);
  fleet.run_until(33s);
  const Tally t = told(fleet, "92 %", "api", "k");
  CHECK(t.admitted() * 1000 >= t.offered() * 985);
}

TEST_CASE("a token bucket shared by five nodes gives its burst and its rate, not more") {
  for (const uint32_t overcount : {0u, 5 * kPercent}) {
    Fleet fleet(config_of(5, {closed(bucket_rule("feed", 100, 50, 1s, overcount))}));
    for (uint16_t n = 0; n < 5; ++n) fleet.poisson(n, "feed", "k", 30, 2s, 22s);  // three times the rate
    fleet.run_until(23s);
    const Tally t = told(fleet, "bucket", "feed", "k");
    CHECK(t.admitted() >= 1000);  // 100 + 20 s * 50/s = 1100
    CHECK(fleet.fullest("feed", "k") <= 1.0);
  }
}

TEST_CASE("a bucket of one token and a window of a limit of one work across nodes") {
  Fleet fleet(config_of(
      4, {closed(bucket_rule("one", 1, 2, 1s, 0)), closed(window_rule("single", kSliding, 1, 5s, 0))}));
  for (uint16_t n = 0; n < 4; ++n) {
    fleet.evenly(n, "one", "k", 100, 2s + 7ms * n, 12s);
    fleet.evenly(n, "single", "k", 20, 2s + 7ms * n, 4s);
  }
  fleet.run_until(13s);
  CHECK(told(fleet, "bucket of one", "one", "k").admitted() >= 10);
  CHECK(told(fleet, "limit of one", "single", "k").admitted() == 1);
}

TEST_CASE("a node alone is the plain limiter") {
  Fleet fleet(config_of(1, {api(100), bucket_rule("feed", 10, 10, 1s, 5 * kPercent)}));
  fleet.evenly(0, "api", "k", 300, 2s, 4s);
  fleet.evenly(0, "feed", "k", 300, 2s, 4s);
  fleet.run_until(5s);
  CHECK(told(fleet, "alone", "api", "k").admitted() == 100);
  const uint64_t fed = told(fleet, "alone, bucket", "feed", "k").admitted();
  CHECK(fed >= 28);
  CHECK(fed <= 30);
  CHECK(fleet.traffic().datagrams == 0);
}

TEST_CASE("ten thousand keys that stay under their floor cost no entry") {
  FleetConfig config = config_of(5, {api(100)});
  config.keys = 20'000;
  Fleet fleet(config);
  fleet.run_until(kSettled);
  for (int i = 0; i < 10'000; ++i)
    fleet.take(static_cast<uint16_t>(i % 5), "api", "quiet-" + std::to_string(i));
  fleet.run_for(3s);
  CHECK(fleet.violations().empty());
  CHECK(reports_sent(fleet) == 0);
  uint64_t admitted = 0;
  for (int i = 0; i < 10'000; ++i) admitted += fleet.tally("api", "quiet-" + std::to_string(i)).admitted();
  CHECK(admitted == 10'000);
}

// --- refunds, resets, unbounded, isolation ---

TEST_CASE("what is given back can be taken again, at another node too") {
  Fleet fleet(config_of(3, {closed(window_rule("api", kFixed, 20, 1min, 0))}));
  fleet.run_until(kSettled);
  burst(fleet, 0, "api", "k", 30);
  fleet.run_for(500ms);
  CHECK(fleet.tally("api", "k").admitted() == 20);
  CHECK(fleet.give(0, "api", "k", 5) == 5);
  fleet.run_for(500ms);
  burst(fleet, 1, "api", "k", 10);
  fleet.run_for(500ms);
  CHECK(told(fleet, "after a refund", "api", "k").admitted() == 25);
}

TEST_CASE("a reset at one node opens the limit at all of them") {
  Fleet fleet(config_of(3, {closed(window_rule("api", kFixed, 20, 1min, 0))}));
  fleet.run_until(kSettled);
  for (uint16_t n = 0; n < 3; ++n) burst(fleet, n, "api", "k", 15);
  fleet.run_for(500ms);
  CHECK(fleet.tally("api", "k").admitted() == 20);
  fleet.reset(1, "api", "k");
  fleet.run_for(1s);
  for (uint16_t n = 0; n < 3; ++n) burst(fleet, n, "api", "k", 15);
  fleet.run_for(500ms);
  const uint64_t admitted = told(fleet, "after a reset", "api", "k").admitted();
  CHECK(admitted >= 38);
  CHECK(admitted <= 40);
}

TEST_CASE("what was given back for others before a reset does not count after it") {
  for (const Rule& rule : {closed(window_rule("api", kFixed, 20, 1min, 0)), closed(window_rule("api", Algorithm::sliding_window, 20, 1min, 0)),
                           closed(bucket_rule("api", 20, 1, 1h, 0))}) {
    CAPTURE(static_cast<int>(rule.limit.algorithm));
    Fleet fleet(config_of(3, {rule}));
    fleet.run_until(kSettled);
    const auto all_at = [&](uint16_t n) {
      burst(fleet, n, "api", "k", 30);
      fleet.run_for(500ms);
      return fleet.tally("api", "k").admitted();
    };
    for (const uint16_t n : {uint16_t{1}, uint16_t{2}}) burst(fleet, n, "api", "k", 1);
    REQUIRE(all_at(0) == 20);
    REQUIRE(fleet.give(1, "api", "k", 6) == 6);  // one is its own
    fleet.run_for(500ms);
    const uint64_t before = all_at(0);
    REQUIRE(before >= (rule.limit.algorithm == Algorithm::token_bucket ? 20 : 26));
    REQUIRE(fleet.give(2, "api", "k", 4) == 4);
    fleet.reset(2, "api", "k");  // before anybody has heard of that
    fleet.run_for(1s);
    CHECK(all_at(0) <= before + 20);
    const uint64_t admitted = all_at(1);
    CHECK(admitted <= before + 20);
    CHECK(admitted >= before + 18);
  }
}

TEST_CASE("an unbounded rule never waits, and is stopped soon after the fleet has used the limit") {
  Rule rule = api(1000);
  rule.max_overcount.unbounded = true;
  Fleet fleet(config_of(10, {rule}));
  for (uint16_t n = 0; n < 10; ++n) fleet.evenly(n, "api", "k", 500, 2s, 7s);  // 1,000/s in all
  fleet.run_until(8s);
  const Tally t = told(fleet, "unbounded", "api", "k");
  CHECK(t.waited == 0);
  CHECK(t.admitted() >= 1000);
  CHECK(t.admitted() <= 1250);  // a sync interval and what it takes to say so
}

TEST_CASE(
    "a node cut off goes on by its policy: closed with nothing, share with its part, open with the limit") {
  struct Case {
    OnIsolation policy;
    uint64_t least, most;
  };
  for (const Case c : {Case{OnIsolation::closed, 0, 25}, Case{OnIsolation::share, 20, 100},
                       Case{OnIsolation::open, 95, 105}}) {
    Rule rule = window_rule("api", kFixed, 100, 1min, 5 * kPercent);
    rule.on_isolation = c.policy;
    FleetConfig config = config_of(5, {rule});
    config.isolation_possible = true;
    Fleet fleet(config);
    fleet.run_until(kSettled);
    const auto owner = fleet.owner("api", "k");
    const auto lonely = static_cast<uint16_t>((owner + 1) % 5);
    fleet.network().cut_off(lonely);
    fleet.run_for(4s);
    fleet.evenly(lonely, "api", "k", 200, fleet.now(), fleet.now() + 4s);
    fleet.run_for(6s);
    const uint64_t admitted = told(fleet, "cut off", "api", "k").admitted();
    CHECK(admitted >= c.least);
    CHECK(admitted <= c.most);
  }
}

// --- bad networks, crashes: the bound ---

TEST_CASE("loss of 20 %, duplicates and reordering cost little and never the bound") {
  FleetConfig config = config_of(10, {api(1000)});
  config.link = {250us, 5ms, 0.2, 0.2, 0.05, 500ms};
  Fleet fleet(config);
  for (uint16_t n = 0; n < 10; ++n) fleet.poisson(n, "api", "k", 60, 2s, 12s);
  fleet.run_until(14s);
  const Tally t = told(fleet, "loss", "api", "k");
  CHECK(t.admitted() >= 900);
}

TEST_CASE("a partition in the middle of a rush never breaks the bound, whichever way it runs") {
  for (int kind = 0; kind < 3; ++kind) {
    Fleet fleet(config_of(10, {api(1000)}, 7));
    for (uint16_t n = 0; n < 10; ++n) fleet.poisson(n, "api", "k", 200, 2s, 8s);
    fleet.at(2500ms, [&] {
      const uint16_t owner = fleet.owner("api", "k");
      std::vector<bool> half(10);
      for (size_t i = 0; i < 5; ++i) half[i] = true;
      if (kind == 0) fleet.network().split(half);
      if (kind == 1) fleet.network().cut_off(owner);
      if (kind == 2)
        for (uint16_t n = 0; n < 10; ++n)
          if (n != owner) fleet.network().cut(owner, n);
    });
    fleet.at(5s, [&] { fleet.network().mend_all(); });
    fleet.run_until(10s);
    told(fleet, kind == 0 ? "split in halves" : kind == 1 ? "owner cut off" : "owner not heard", "api", "k");
  }
}

TEST_CASE("an owner killed in the middle of a disaster never breaks the bound, dead or back again") {
  for (const bool back : {false, true}) {
    Fleet fleet(config_of(20, {api(1000), closed(bucket_rule("feed", 100, 100, 1s, 5 * kPercent))}, 3));
    for (uint16_t n = 0; n < 20; ++n) {
      fleet.poisson(n, "api", "k", 1000, 2s, 3s);
      fleet.poisson(n, "feed", "k", 30, 2s, 6s);
    }
    fleet.at(2020ms, [&] {
      fleet.crash(fleet.owner("api", "k"));
      fleet.crash(fleet.owner("feed", "k"));
    });
    if (back)
      fleet.at(2500ms, [&] {
        for (uint16_t n = 0; n < 20; ++n)
          if (!fleet.is_up(n)) fleet.start(n);
      });
    fleet.run_until(8s);
    told(fleet, back ? "owner killed and back" : "owner killed", "api", "k");
    told(fleet, "its bucket", "feed", "k");
  }
}

TEST_CASE("every node restarted one after the other in a running window never breaks the bound") {
  FleetConfig config = config_of(5, {api(200), closed(window_rule("strict", kFixed, 50, 1min, 0))});
  config.horizon_step = 0s;
  Fleet fleet(config);
  for (uint16_t n = 0; n < 5; ++n) {
    fleet.poisson(n, "api", "k", 30, 2s, 20s);
    fleet.poisson(n, "strict", "k", 10, 2s, 20s);
    fleet.at(4s + 2s * n, [&fleet, n] { fleet.crash(n); });
    fleet.at(4500ms + 2s * n, [&fleet, n] { fleet.start(n); });
  }
  fleet.run_until(22s);
  told(fleet, "rolling restart", "api", "k");
  told(fleet, "rolling restart, strict", "strict", "k");
}

TEST_CASE("a floor is there once a window, however often its node is started again") {
  FleetConfig config = config_of(5, {closed(window_rule("api", kFixed, 50, 1min, 50 * kPercent))});
  config.horizon_step = 0s;  // what keeps the floor away is the start alone
  Fleet fleet(config);
  fleet.run_until(kSettled);
  for (uint16_t n = 0; n < 5; ++n) burst(fleet, n, "api", "k", 40);
  fleet.run_for(1s);
  CHECK(fleet.tally("api", "k").admitted() >= 50);
  for (int round = 0; round < 4; ++round) {
    for (uint16_t n = 0; n < 5; ++n) {
      fleet.crash(n);
      fleet.run_for(300ms);
      fleet.start(n);
      fleet.run_for(1500ms);
      burst(fleet, n, "api", "k", 20);
      fleet.run_for(500ms);
    }
  }
  CHECK(fleet.now() < 60s);  // all in one window
  told(fleet, "floors and restarts", "api", "k");
}

TEST_CASE("a node that lost its state file is no first life where its peers remember it") {
  Fleet fleet(config_of(5, {api(100)}));
  fleet.run_until(kSettled);
  for (uint16_t n = 0; n < 5; ++n) burst(fleet, n, "api", "k", 1);  // each floor of 1
  fleet.run_for(100ms);
  for (uint16_t n = 0; n < 5; ++n) {
    fleet.crash(n, false);
    fleet.run_for(1100ms);
    fleet.start(n);
    fleet.run_for(2s);
    burst(fleet, n, "api", "k", 80);
    fleet.run_for(500ms);
  }
  told(fleet, "state files lost", "api", "k");
}

TEST_CASE("a node that lost its state file and is back in the same second is no first life either") {
  Fleet fleet(config_of(5, {closed(window_rule("api", kFixed, 100, 1min, 50 * kPercent))}));
  REQUIRE(fleet.run_until_ready(100ms));
  for (uint16_t n = 0; n < 5; ++n) burst(fleet, n, "api", "k", 40);
  fleet.run_for(100ms);
  CHECK(fleet.tally("api", "k").admitted() >= 99);
  for (uint16_t n = 0; n < 5; ++n) {
    fleet.crash(n, false);
    fleet.run_for(5ms);
    fleet.start(n);
    fleet.run_for(75ms);
    burst(fleet, n, "api", "k", 40);
    fleet.run_for(25ms);
  }
  CHECK(fleet.now() < 1s);  // all within the second in which the first lives began
  told(fleet, "state files lost, back at once", "api", "k");
}

TEST_CASE("a grant to an earlier life of a node that arrives late gives its next life nothing") {
  uint64_t admitted = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    FleetConfig config = config_of(5, {closed(window_rule("api", kFixed, 100, 1min, 0))}, seed);
    config.link = {250us, 250us, 0, 1, 0.5, 2s};  // every datagram twice, half of them late
    Fleet fleet(config);
    fleet.run_until(kSettled);
    uint16_t lessee = 0;  // no member of the group: only its own line is at stake
    while (fleet.group("api", "k").contains(lessee)) ++lessee;
    burst(fleet, lessee, "api", "k", 60);
    fleet.run_for(300ms);
    fleet.crash(lessee);
    fleet.run_for(100ms);
    fleet.start(lessee);
    for (int i = 0; i < 40; ++i) {
      burst(fleet, lessee, "api", "k", 5);
      fleet.run_for(50ms);
    }
    admitted += fleet.tally("api", "k").admitted();
    for (const Violation& v : fleet.violations())
      FAIL_CHECK("seed " << seed << " at " << describe(v.at) << ": " << v.what);
  }
  CHECK(admitted > 20 * 60);  // some are served after the start, too
}

TEST_CASE("early and late clocks spend in their own window numbers, each within the bound") {
  FleetConfig config = config_of(
      6, {closed(window_rule("fix", kFixed, 50, 2s, 0)), closed(window_rule("sli", kSliding, 50, 2s, 0))});
  config.clocks = {{0ms, 0}, {700ms, 0}, {-700ms, 0}, {1900ms, 4000}, {-5s, -4000}, {10ms, 0}};
  Fleet fleet(config);
  for (uint16_t n = 0; n < 6; ++n) {
    fleet.poisson(n, "fix", "k", 20, 2s, 14s);
    fleet.poisson(n, "sli", "k", 20, 2s, 14s);
  }
  fleet.run_until(15s);
  told(fleet, "skewed clocks, fixed", "fix", "k");
  told(fleet, "skewed clocks, sliding", "sli", "k");
  CHECK(fleet.windows("fix", "k").size() >= 7);
}

TEST_CASE("a table with fewer places than keys may only deny more") {
  FleetConfig config = config_of(3, {closed(window_rule("api", kFixed, 20, 1min, 20 * kPercent))});
  config.keys = 32;
  Fleet fleet(config);
  fleet.run_until(kSettled);
  Random random(5);
  for (int i = 0; i < 6000; ++i) {
    fleet.take(static_cast<uint16_t>(random.below(3)), "api", "k" + std::to_string(random.below(200)));
    fleet.run_for(500us);
  }
  fleet.run_for(500ms);
  for (const Violation& v : fleet.violations())
    FAIL_CHECK(v.key << " at " << describe(v.at) << ": " << v.what);
}

// --- random clusters ---

TEST_CASE("random clusters under every fault stay within their bounds") {
  const uint64_t clusters = scaled(2'000);
  const uint64_t seed = test_seed(1'000);
  ClusterResult all;
  for (uint64_t i = 0; i < clusters; ++i) {
    const ClusterResult r = run_random_cluster(seed + i);
    if (!r.violations.empty()) {
      const Violation& v = r.violations.front();
      FAIL_CHECK("tally-sim --seed " << r.seed << ": " << r.violations.size()
                                     << " violations, the first: " << v.rule << "/" << v.key << " at "
                                     << describe(v.at) << ": " << v.what << "; " << r.about);
    }
    all.events += r.events;
    all.offered += r.offered;
    all.admitted += r.admitted;
    all.windows += r.windows;
    all.windows_full += r.windows_full;
  }
  MESSAGE(clusters << " clusters: " << all.events << " events, admitted " << all.admitted << " of "
                   << all.offered << ", " << all.windows << " windows, " << all.windows_full
                   << " at their limit");
  if (clusters >= 100) CHECK(all.windows_full > clusters);  // the bound was put to the test
}

TEST_CASE("random clusters serve again after every fault, and who waits there is served") {
  const uint64_t clusters = scaled(500);
  const uint64_t seed = test_seed(20'000);
  ClusterOptions options;
  options.liveness = true;
  for (uint64_t i = 0; i < clusters; ++i) {
    const ClusterResult r = run_random_cluster(seed + i, options);
    if (r.violations.empty()) continue;
    const Violation& v = r.violations.front();
    FAIL_CHECK("tally-sim --liveness --seed " << r.seed << ": " << v.checker << ", " << v.rule << "/" << v.key << " at " << describe(v.at)
                                              << ": " << v.what << "; " << r.about);
  }
  MESSAGE(clusters << " clusters");
}

TEST_CASE("the same seed gives the same run, event by event, and another seed another") {
  std::set<uint64_t> hashes;
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    const uint64_t hash = run_random_cluster(seed).log_hash;
    CHECK(run_random_cluster(seed).log_hash == hash);
    hashes.insert(hash);
  }
  CHECK(hashes.size() == 5);
}
