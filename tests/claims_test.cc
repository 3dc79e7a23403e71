// Claims under attack: ballots of two lives, promises that come late, resets and gifts across a claim, numbers from nobody.
// Whole nodes, wired by hand; each case broke a bound, or starved a key, once.
#include <doctest/doctest.h>

#include "core/windows.h"
#include "node_fixture.h"

using namespace tally;
using namespace tally::test;

namespace {

constexpr Duration kWindow = secs(3600);
constexpr Overcount kStrict = {.ppm = 0, .unbounded = false};

Rule hundred() {
  Rule rule = window_rule(Algorithm::fixed_window, 100, kWindow, kStrict);
  rule.on_isolation = OnIsolation::closed;
  return rule;
}
Rule hundred_tokens(Duration emission = secs(1)) {
  Rule rule = bucket_rule(100, emission * 100, kStrict);
  rule.on_isolation = OnIsolation::closed;
  return rule;
}

// A fleet of six and a key: the members of its group, and three nodes that are none.
struct Stage {
  Fleet fleet;
  std::string key;
  uint16_t a, b, c, x, y, z;
  int64_t net = 0;
  std::function<bool(uint16_t, uint16_t)> is_cut;

  explicit Stage(const Rule& rule) : fleet(6, rule) {
    fleet.must_settle = false;
    fleet.until_ready();
    key = fleet.key_of(0);
    const Group group = fleet.group(key);
    std::vector<uint16_t> others;
    for (uint16_t rank = 0; rank < 6; ++rank)
      if (!group.contains(rank)) others.push_back(rank);
    a = group.rank[0], b = group.rank[1], c = group.rank[2];
    x = others[0], y = others[1], z = others[2];
  }
  void burst(uint16_t rank, uint32_t n) { net += fleet.admitted_of(rank, key, n); }
  void restart(uint16_t rank) {
    fleet.stop(rank);
    fleet.pass(ms(20));
    fleet.start(rank, {.incarnation = 20, .first = false, .reckoned_start = fleet.now().wall});
  }
  void say(uint16_t from, uint16_t to, const Entry& entry) {
    DatagramWriter writer(fleet.header(from, to), kPublicIdKey);
    REQUIRE(writer.add(entry));
    fleet.node(to).receive(writer.finish(), from, fleet.now());
  }
  // A report that makes `to` know the key.
  Report known() const {
    Report report;
    report.key = fleet.id(key);
    const Rule& rule = fleet.rule(0);
    report.rule = static_cast<uint32_t>(rule.seed);
    report.terms = {rule.limit.algorithm, rule.limit.limit, rule.max_overcount, rule.limit.window, rule.limit.emission};
    report.line = 99;
    report.stamp = 1;
    return report;
  }
  void cut_off(uint16_t rank) {
    fleet.cut = [rank](uint16_t from, uint16_t to) { return from == rank || to == rank; };
  }
};

}  // namespace

TEST_CASE("a promise to a claimant's earlier life counts for nothing in the next one, however late it comes") {
  for (const Rule& rule : {hundred(), hundred_tokens()}) {
    Stage s(rule);
    std::vector<std::pair<uint16_t, Accepted>> promises;
    s.fleet.watch = [&](const Entry& entry, uint16_t from, uint16_t to) {
      const auto* accepted = std::get_if<Accepted>(&entry);
      if (accepted != nullptr && accepted->claim && !accepted->refused && to == s.b) promises.emplace_back(from, *accepted);
    };
    bool a_cut = true, c_mute = false;
    s.fleet.cut = [&](uint16_t from, uint16_t to) {
      return (a_cut && (from == s.a || to == s.a)) || (c_mute && from == s.c && to == s.b);
    };
    for (int i = 0; i < 40; ++i) {
      s.burst(s.x, 10);
      s.fleet.pass(ms(50));
    }
    REQUIRE(s.net >= 85);
    const auto early = promises;
    REQUIRE_FALSE(early.empty());
    c_mute = true;  // and so it reads nothing anew
    s.restart(s.b);
    s.fleet.pass(ms(500));
    for (int i = 0; i < 5; ++i) {
      s.burst(s.z, 1);
      s.fleet.pass(ms(100));
    }
    for (const auto& [from, promise] : early) s.say(from, s.b, promise);
    s.fleet.settle();
    a_cut = c_mute = false;
    for (int i = 0; i < 30; ++i) {
      s.burst(s.z, 10);
      s.burst(s.y, 10);
      s.fleet.pass(ms(50));
    }
    const auto regrown = rule.limit.algorithm == Algorithm::token_bucket ? s.fleet.since / secs(1) : 0;
    CHECK(s.net <= 100 + regrown);
  }
}

TEST_CASE("what was given back under a ballot is not given back again by the books of its owner's next life") {
  Stage s(hundred());
  bool a_cut = true, x_cut = false;
  s.fleet.cut = [&](uint16_t from, uint16_t to) {
    return (a_cut && (from == s.a || to == s.a)) || (x_cut && (from == s.x || to == s.x));
  };
  const auto rounds = [&](int n, std::initializer_list<uint16_t> ranks, uint32_t each) {
    for (int i = 0; i < n; ++i) {
      for (const uint16_t rank : ranks) s.burst(rank, each);
      s.fleet.pass(ms(100));
    }
  };
  rounds(5, {s.x}, 1);
  a_cut = false;
  rounds(5, {s.y, s.z}, 8);
  rounds(20, {s.x, s.y}, 5);
  REQUIRE(s.net >= 80);
  s.net -= s.fleet.give(s.y, s.key, 40);
  s.fleet.pass(ms(300));
  rounds(20, {s.x}, 10);
  CHECK(s.net <= 100);
  x_cut = true;  // who used what was issued again is not heard any more
  s.restart(s.b);
  a_cut = true;
  rounds(10, {s.c}, 1);
  a_cut = false;
  rounds(20, {s.z, s.y, s.c}, 10);
  CHECK(s.net <= 100);
}

TEST_CASE("a bucket's reset leaves alone what an owner before has leased") {
  Stage s(hundred_tokens());
  s.say(s.z, s.b, s.known());
  s.fleet.take(s.x, s.key, 50);
  s.fleet.settle();  // leased to it, and not spent
  REQUIRE(s.fleet.node(s.b).claim(s.fleet.id(s.key), 0, s.fleet.now()));
  s.fleet.settle();
  REQUIRE(s.fleet.node(s.b).stats().claims_won == 1);
  s.fleet.pass(ms(20));
  s.fleet.reset(s.y, s.key);
  uint32_t after = s.fleet.admitted_of(s.z, s.key, 100);
  if (admitted(s.fleet.take(s.x, s.key, 50))) after += 50;
  CHECK(after <= 101);
  CHECK(after >= 50);
}

TEST_CASE("a bucket whose rule changes between a claim and its promises is held to the new one, not to one's burst at another's rate") {
  const Rule coarse = bucket_rule(1, secs(4), kStrict), fine = bucket_rule(4, secs(1), kStrict);  // both fill in 4 s
  Stage s(coarse);
  s.burst(s.x, 1);
  s.fleet.pass(ms(100));
  s.say(s.x, s.b, s.known());
  s.cut_off(s.a);
  REQUIRE(s.fleet.node(s.b).claim(s.fleet.id(s.key), 0, s.fleet.now()));
  s.fleet.use(s.b, fine);
  uint64_t furthest = 0;
  s.fleet.watch = [&](const Entry& entry, uint16_t from, uint16_t) {
    const auto* mark = std::get_if<Mark>(&entry);
    if (mark != nullptr && !mark->claim && from == s.b) furthest = std::max(furthest, mark->mark);
  };
  s.fleet.pass(ms(200));
  CHECK(furthest > static_cast<uint64_t>(nanos(secs(3))));  // it has the bucket, which is empty
  CHECK(furthest <= static_cast<uint64_t>(nanos(bucket_mark_max(secs(4), secs(1)))));
}

TEST_CASE("who stood still for longer than members keep a bucket's mark owns it no more when it goes on") {
  const Rule rule = bucket_rule(10, ms(200), kStrict);  // full in 2 s
  Stage s(rule);
  s.cut_off(s.a);
  for (int i = 0; i < 20 && s.net == 0; ++i) {  // the next of the group claims it
    s.burst(s.y, 1);
    s.fleet.pass(ms(50));
  }
  REQUIRE(s.net > 0);
  s.fleet.cut = nullptr;
  auto stands_still = std::move(s.fleet[s.b].node);
  s.fleet.pass(bucket_keep(secs(2), secs(1)) * 2);  // nobody asks: all others forget
  const int64_t before = s.net;
  const Duration asked = s.fleet.since;
  for (int i = 0; i < 8; ++i) {
    s.burst(s.x, 10);  // of the natural owner
    s.fleet.pass(ms(20));
  }
  REQUIRE(s.net >= before + 9);
  s.fleet[s.b].node = std::move(stands_still);
  for (int i = 0; i < 4; ++i) {
    s.fleet.pass(ms(50));
    s.burst(s.y, 10);
  }
  CHECK(s.net <= before + 10 + (s.fleet.since - asked) / ms(200) + 1);
}

TEST_CASE("members keep a bucket's mark for as long as the longest of the rules that it was used by needs") {
  const Rule shorter = bucket_rule(10, secs(1), kStrict), longer = bucket_rule(100, secs(1), kStrict);
  Stage s(longer);
  s.burst(s.x, 1);
  s.fleet.pass(ms(100));
  s.fleet.use(s.y, shorter);
  Duration least = Duration::max();
  s.fleet.watch = [&](const Entry& entry, uint16_t from, uint16_t) {
    const auto* mark = std::get_if<Mark>(&entry);
    if (mark != nullptr && from == s.a) least = std::min(least, mark->length);
  };
  s.fleet.stop(s.x);  // and only the shorter one is reported
  for (int i = 0; i < 16; ++i) {  // until the mark of before has to be followed by another
    s.burst(s.y, 1);
    s.fleet.pass(ms(500));
  }
  CHECK(least == bucket_keep(secs(100), secs(1)));
}

TEST_CASE("a lessee of a bucket that moved follows it") {
  Stage s(hundred_tokens(ms(100)));
  for (int i = 0; i < 5; ++i) {
    s.burst(s.x, 1);
    s.fleet.pass(ms(250));
  }
  s.say(s.z, s.b, s.known());
  REQUIRE(s.fleet.node(s.b).claim(s.fleet.id(s.key), 0, s.fleet.now()));
  s.fleet.settle();
  s.net = 0;
  for (int i = 0; i < 40; ++i) {
    s.burst(s.x, 1);
    s.fleet.pass(ms(250));
  }
  CHECK(s.net >= 38);
}

TEST_CASE("a ballot at the end of its numbers, from anybody, stops nothing") {
  for (const bool by_report : {true, false}) {
    Stage s(hundred());
    if (by_report) {
      Report report = s.known();
      report.window = window_at(s.fleet.now().wall, kWindow);
      report.has_ballot = true;
      report.ballot = {UINT32_MAX, s.fleet.roster.id(s.a)};
      s.say(s.z, s.b, report);
    } else {
      Mark mark;
      mark.key = s.fleet.id(s.key);
      mark.window = window_at(s.fleet.now().wall, kWindow);
      mark.ballot = {UINT32_MAX, s.fleet.roster.id(s.b)};
      mark.claim = true;
      mark.length = kWindow;
      s.say(s.b, s.a, mark);
      s.say(s.b, s.c, mark);
    }
    for (int i = 0; i < 20; ++i) {
      s.burst(s.x, 1);
      s.burst(s.y, 1);
      s.fleet.pass(ms(250));
    }
    CHECK(s.net >= 36);
  }
}

TEST_CASE("refusals of windows that nobody speaks of are not remembered") {
  Stage s(hundred());
  s.burst(s.x, 1);
  Accepted refused;
  refused.key = s.fleet.id(s.key);
  refused.refused = true;
  refused.ballot = {7, s.fleet.roster.id(s.b)};
  for (int64_t window = 1'000'000'000; window < 1'000'001'000; ++window) {
    refused.window = window;
    s.say(s.b, s.a, refused);
  }
  s.burst(s.x, 20);
  CHECK(s.net == 21);
  CHECK(s.fleet.explain(s.a, s.key).ballot_counter == 0);
}
