// What a lessee believes of its owner, what it gives back twice, and what an owner makes of a limit that changes: whole
// nodes, wired by hand.
#include <doctest/doctest.h>

#include "core/windows.h"
#include "node_fixture.h"

using namespace tally;
using namespace tally::test;

namespace {

constexpr Duration kWindow = secs(60);

Rule rule_of(uint32_t limit, Algorithm algorithm = Algorithm::fixed_window, Overcount e = {.ppm = 0, .unbounded = false}) {
  Rule rule = window_rule(algorithm, limit, kWindow, e);
  rule.on_isolation = OnIsolation::closed;
  return rule;
}

// The grants that `owner` sent to `to`, the newest last.
struct Overheard {
  std::vector<Grant> grants;
  Overheard(Fleet& fleet, uint16_t owner, uint16_t to) {
    fleet.watch = [this, owner, to](const Entry& entry, uint16_t from, uint16_t at) {
      if (const auto* grant = std::get_if<Grant>(&entry); grant != nullptr && from == owner && at == to) grants.push_back(*grant);
    };
  }
};

}  // namespace

TEST_CASE("a grant that was overtaken by a newer one tells nothing, but for the numbers that only grow") {
  Fleet fleet(3, rule_of(30));
  fleet.until_ready();
  const std::string key = fleet.key_of(1);
  const Overheard overheard(fleet, 1, 0);
  REQUIRE(fleet.admits(0, key));
  REQUIRE_FALSE(overheard.grants.empty());
  Grant newer = overheard.grants.back(), older = newer;
  newer.granted += 1;
  older.granted += 3;
  older.exhausted = true;
  older.ask_again = secs(50);
  older.used_fleet = 30;
  Header header = fleet.header(1, 0);
  header.sequence = 1'000'002;
  fleet.node(0).receive(datagram_of(header, {newer}), 1, fleet.now());
  header.sequence = 1'000'001;
  fleet.node(0).receive(datagram_of(header, {older}), 1, fleet.now());
  CHECK(fleet.explain(0, key).used_fleet < 30);
  CHECK(fleet.explain(0, key).ceiling == older.granted);
  for (int i = 0; i < 3; ++i) CHECK(admitted(fleet.take(0, key)));
  CHECK(fleet.take(0, key).verdict == Verdict::starved);  // it may be asked for: nothing is used up

  header.sequence = 1'000'003;
  fleet.node(0).receive(datagram_of(header, {older}), 1, fleet.now());
  CHECK(fleet.take(0, key).verdict == Verdict::over_limit);  // now it is news
}

TEST_CASE("what an owner said before it heard of a reset tells nothing after it") {
  Fleet fleet(3, rule_of(5));
  fleet.until_ready();
  const std::string key = fleet.key_of(1);
  const Overheard overheard(fleet, 1, 0);
  CHECK(fleet.admitted_of(0, key, 6) == 5);
  fleet.pass(ms(100));
  REQUIRE_FALSE(overheard.grants.empty());
  Grant late = overheard.grants.back();
  REQUIRE(late.exhausted);
  fleet.cut = [](uint16_t, uint16_t) { return true; };
  CHECK(fleet.reset(0, key));
  late.stamp = 0;
  Header header = fleet.header(1, 0);
  header.sequence = 1'000'002;
  fleet.node(0).receive(datagram_of(header, {late}), 1, fleet.now());
  // What it had is given back, so that nothing is spent twice; the owner is asked for more, and not taken to have none.
  CHECK(fleet.take(0, key).verdict == Verdict::starved);
}

TEST_CASE("a member without books, which tells of no reset, is believed all the same who has them") {
  Fleet fleet(3, rule_of(30));
  fleet.until_ready();
  const std::string key = fleet.key_of(1);
  Overheard overheard(fleet, 1, 0);
  REQUIRE(fleet.admits(0, key));
  REQUIRE_FALSE(overheard.grants.empty());
  Grant refusal = overheard.grants.back();
  REQUIRE(fleet.reset(0, key));
  refusal.refused = true;
  refusal.ballot = {1, fleet.roster.id(2)};
  refusal.ask = fleet.roster.id(2);
  refusal.reset = 0;
  std::set<uint16_t> asked;
  fleet.watch = [&](const Entry& entry, uint16_t from, uint16_t to) {
    if (from == 0 && std::holds_alternative<Report>(entry)) asked.insert(to);
  };
  fleet.node(0).receive(datagram_of(fleet.header(1, 0), {refusal}), 1, fleet.now());
  for (int i = 0; i < 5; ++i) fleet.take(0, key);
  fleet.settle();
  CHECK(asked == std::set<uint16_t>{2});
}

TEST_CASE("who is named as having claimed it since is asked at once, whatever refusals came before") {
  Fleet fleet(3, rule_of(30));
  fleet.until_ready();
  const std::string key = fleet.key_of(1);
  Overheard overheard(fleet, 1, 0);
  REQUIRE(fleet.admits(0, key));
  REQUIRE_FALSE(overheard.grants.empty());
  Grant refusal = overheard.grants.back();
  refusal.refused = true;
  std::vector<uint16_t> asked;
  fleet.watch = [&](const Entry& entry, uint16_t from, uint16_t to) {
    if (from == 0 && std::holds_alternative<Report>(entry)) asked.push_back(to);
  };
  fleet.cut = [](uint16_t, uint16_t) { return true; };
  for (int i = 0; i < 5; ++i) fleet.take(0, key);
  const auto refuse = [&](uint16_t from, uint32_t ballot, NodeId ask) {
    refusal.ballot = {ballot, fleet.roster.id(2)};
    refusal.ask = ask;
    asked.clear();
    fleet.node(0).receive(datagram_of(fleet.header(from, 0), {refusal}), from, fleet.now());
    fleet.pass(ms(2), ms(1));
    return asked;
  };
  CHECK(refuse(1, 1, fleet.roster.id(2)) == std::vector<uint16_t>{2});
  refuse(2, 2, 0);  // it has only begun to claim
  CHECK(refuse(1, 2, fleet.roster.id(2)) == std::vector<uint16_t>{2});
  CHECK(refuse(1, 2, fleet.roster.id(2)).empty());  // in circles no further
}

TEST_CASE("a grant counts only from a member of the key's group, under its own ballot") {
  Fleet fleet(5, rule_of(30));
  fleet.until_ready();
  const std::string key = fleet.key_of(1);
  const Overheard overheard(fleet, 1, 0);
  REQUIRE(fleet.admits(0, key));
  Grant grant = overheard.grants.back();
  const uint64_t ceiling = fleet.explain(0, key).ceiling;
  grant.granted += 20;
  for (uint16_t from = 1; from < 5; ++from) {
    if (from == 1) continue;
    fleet.node(0).receive(datagram_of(fleet.header(from, 0), {grant}), from, fleet.now());  // another's ballot
    Grant own = grant;
    own.ballot.node = fleet.roster.id(from);
    own.ballot.counter = 7;
    if (!fleet.group(key).contains(from)) fleet.node(0).receive(datagram_of(fleet.header(from, 0), {own}), from, fleet.now());
  }
  CHECK(fleet.explain(0, key).ceiling == ceiling);
  CHECK(fleet.dropped(0, "not_owner") >= 4);
}

TEST_CASE("what was given back once is not given back again while the owner does not know of it yet") {
  Fleet fleet(3, rule_of(30));
  fleet.until_ready();
  const std::string key = fleet.key_of(1);
  CHECK(fleet.admitted_of(0, key, 10) == 10);
  CHECK(fleet.admitted_of(2, key, 10) == 10);
  fleet.pass(ms(300));
  fleet.cut = [](uint16_t, uint16_t) { return true; };
  CHECK(fleet.give(0, key, 20) == 20);  // ten of its own, ten of the other's
  CHECK(fleet.give(0, key, 20) == 0);
  fleet.cut = {};
  fleet.pass(ms(300));
  CHECK(fleet.give(0, key, 20) == 0);
  CHECK(fleet.admitted_of(2, key, 60) + fleet.admitted_of(0, key, 60) == 30);
}

TEST_CASE("late copies of the reports that gave tokens back give none a second time, once their line was forgotten") {
  Fleet fleet(3, bucket_rule(20, secs(50), {.ppm = 0, .unbounded = false}));
  fleet.until_ready();
  const std::string key = fleet.key_of(1);
  std::vector<std::pair<Header, Report>> reports;
  fleet.watch = [&](const Entry& entry, uint16_t from, uint16_t to) {
    const auto* report = std::get_if<Report>(&entry);
    if (report == nullptr || from != 0 || to != 1) return;
    reports.emplace_back(fleet.header(0, 1), *report);
    reports.back().first.echo_mono_ns = static_cast<uint64_t>(nanos(fleet.now().mono - ms(20)));
  };
  uint32_t admitted = fleet.admitted_of(0, key, 20);
  fleet.pass(ms(300));
  REQUIRE(fleet.give(0, key, 10) == 10);
  fleet.pass(ms(300));
  fleet.watch = {};
  REQUIRE(reports.back().second.given > reports.front().second.given);
  admitted += fleet.admitted_of(2, key, 40);
  CHECK(admitted >= 28);
  fleet.pass(secs(5));  // the owner forgets the line of node 0
  for (const auto& [header, report] : reports) fleet.node(1).receive(datagram_of(header, {report}), 0, fleet.now());
  admitted += fleet.admitted_of(2, key, 40);
  CHECK(admitted <= 31);
}

TEST_CASE("what a node gives back of a bucket after it was silent for long counts") {
  Fleet fleet(3, bucket_rule(20, secs(50), {.ppm = 0, .unbounded = false}));
  fleet.until_ready();
  const std::string key = fleet.key_of(1);
  CHECK(fleet.admitted_of(0, key, 20) == 20);
  for (int i = 0; i < 2; ++i) {
    fleet.pass(secs(10));
    REQUIRE(fleet.give(0, key, 5) == 5);
    fleet.pass(ms(300));
    const uint32_t admitted = fleet.admitted_of(2, key, 10);
    CHECK(admitted >= 4);  // one token may still be on its way
    CHECK(admitted <= 5);
  }
}

TEST_CASE("a node that has only just started does not take itself for cut off") {
  Fleet fleet(3, rule_of(30));
  fleet.until_ready();
  const std::string key = fleet.key_of(1);
  fleet.must_settle = false;
  fleet.stop(0);
  fleet.start(0, {.incarnation = 20, .first = false, .reckoned_start = fleet.now().wall});
  fleet.take(0, key);  // before it has heard of anybody
  fleet.settle();
  CHECK_FALSE(fleet.explain(0, key).isolated);
}

TEST_CASE("what is given back counts up to what was used when it was heard, not against what is used later") {
  Fleet fleet(3, rule_of(30));
  fleet.until_ready();
  const std::string key = fleet.key_of(1);
  CHECK(fleet.admitted_of(2, key, 10) == 10);
  // Two nodes give the same ten back, each before it can hear of the other.
  fleet.admits(0, key);
  fleet.admits(1, key);
  fleet.pass(ms(300));
  fleet.cut = [](uint16_t, uint16_t) { return true; };
  CHECK(fleet.give(0, key, 11) >= 9);
  CHECK(fleet.give(1, key, 11) >= 9);
  fleet.cut = {};
  fleet.pass(ms(300));
  CHECK(fleet.admitted_of(2, key, 60) + fleet.admitted_of(0, key, 60) <= 30);
}

TEST_CASE("a bucket is not given back twice what it owes") {
  Fleet fleet(3, bucket_rule(20, secs(200), {.ppm = 0, .unbounded = false}));
  fleet.until_ready();
  const std::string key = fleet.key_of(1);
  CHECK(fleet.admitted_of(0, key, 20) == 20);
  fleet.pass(ms(300));
  fleet.cut = [](uint16_t, uint16_t) { return true; };
  const uint32_t first = fleet.give(0, key, 12);
  CHECK(first == 12);
  CHECK(fleet.give(0, key, 12) <= 8);
}

TEST_CASE("a limit that was raised holds from the next window on, also for a key that never rests") {
  Fleet fleet(3, rule_of(30));
  fleet.until_ready();
  const std::string key = fleet.key_of(1);
  uint16_t other = 0;  // knows a smaller limit yet
  Report report;
  report.key = fleet.id(key);
  report.rule = static_cast<uint32_t>(fleet.rule(1).seed);
  report.terms = {Algorithm::fixed_window, 20, {.ppm = 0, .unbounded = false}, kWindow, {}};
  report.line = 77;
  const auto say = [&] {
    report.window = window_at(fleet.now().wall, kWindow);
    report.stamp = static_cast<uint64_t>(nanos(fleet.now().mono));
    Header header = fleet.header(other, 1);
    fleet.node(1).receive(datagram_of(header, {report}), other, fleet.now());
  };
  say();
  CHECK(fleet.admitted_of(2, key, 40) == 20);
  for (int i = 0; i < 60; ++i) {  // in use all the time
    fleet.pass(secs(1), ms(100));
    report.terms.limit = 30;
    if (i % 2 == 0) fleet.take(2, key);
    fleet.settle();
  }
  const auto window = window_at(fleet.now().wall, kWindow);
  say();
  CHECK(fleet.admitted_of(2, key, 40) >= 28);
  CHECK(window_at(fleet.now().wall, kWindow) == window);
}

TEST_CASE("an unbounded sliding window that was stopped is served again as it regrows") {
  Rule rule = rule_of(30, Algorithm::sliding_window, {.ppm = 0, .unbounded = true});
  Fleet fleet(3, rule);
  fleet.until_ready();
  fleet.pass(secs(50), ms(500));
  for (uint16_t rank = 0; rank < 3; ++rank)
    for (int i = 0; i < 12; ++i) CHECK(admitted(fleet.take(rank, "k")));
  fleet.pass(secs(1), ms(50));
  for (uint16_t rank = 0; rank < 3; ++rank) fleet.take(rank, "k");  // so that all of it is known
  fleet.pass(secs(1), ms(50));
  // The next window: what was used decays. One node asks, once a second; it is stopped at its eleventh.
  uint32_t admitted_later = 0;
  for (int second = 0; second < 55; ++second) {
    admitted_later += fleet.admits(0, "k") ? 1 : 0;
    fleet.pass(secs(1), ms(50));
  }
  CHECK(admitted_later >= 20);
  CHECK(admitted_later <= 30);
}

TEST_CASE("a node of a later life, which has no floor, is granted under an unbounded rule what the limit leaves") {
  Fleet fleet(3, rule_of(30, Algorithm::fixed_window, {.ppm = 0, .unbounded = true}));
  fleet.until_ready();
  const std::string key = fleet.key_of(1);
  for (int i = 0; i < 12; ++i) CHECK(admitted(fleet.take(2, key)));
  fleet.stop(0);
  fleet.start(0, {.incarnation = 20, .first = false, .reckoned_start = fleet.now().wall});
  fleet.pass(ms(200));
  const uint32_t more = fleet.admitted_of(0, key, 40);
  CHECK(more >= 15);
  CHECK(more <= 30);
}

TEST_CASE("a node that leaves asks for nothing any more") {
  Fleet fleet(3, rule_of(160));
  fleet.until_ready();
  const std::string key = fleet.key_of(2);
  for (int i = 0; i < 30; ++i) fleet.admits(0, key);
  fleet.pass(ms(50));
  std::vector<Report> last;
  fleet.watch = [&](const Entry& entry, uint16_t from, uint16_t) {
    if (const auto* report = std::get_if<Report>(&entry); report != nullptr && from == 0) last.push_back(*report);
  };
  fleet.node(0).leave(fleet.now());
  fleet.settle();
  REQUIRE_FALSE(last.empty());
  for (const Report& report : last) CHECK(report.wanted <= report.ceiling);
}
