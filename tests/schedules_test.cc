// Directed schedules: what random clusters do not meet often enough, one rule of the scheme a case. Each was
// seen to fail when its rule is left out of the source (tools/mutations).
#include <doctest/doctest.h>

#include "core/windows.h"
#include "node_fixture.h"
#include "sim/fleet.h"
#include "sim/trace.h"

using namespace tally;
using namespace tally::sim;
using namespace std::chrono_literals;

namespace {

FleetConfig config_of(uint16_t nodes, Rule rule, Duration wait) {
  FleetConfig config;
  config.nodes = nodes;
  rule.on_isolation = OnIsolation::closed;
  rule.on_amnesia = OnAmnesia::deny;
  rule.wait = wait;
  config.rules = {std::move(rule)};
  return config;
}

void check_bounds(const Fleet& fleet) {
  for (const Violation& v : fleet.violations())
    FAIL_CHECK(v.rule << "/" << v.key << " at " << describe(v.at) << ": " << v.what);
}

void burst(Fleet& fleet, Duration at, uint16_t rank, uint32_t n) {
  fleet.at(at, [&fleet, rank, n] {
    for (uint32_t i = 0; i < n; ++i) fleet.take(rank, "api", "k");
  });
}

}  // namespace

TEST_CASE("a member that lost its state file does not vote in the window that its last life voted in ahead") {
  Fleet fleet(config_of(3, window_rule("api", Algorithm::fixed_window, 100, 2s, 0), 500ms));
  const Group group = fleet.group("api", "k");
  const uint16_t owner = group.rank[0], voter = group.rank[1], other = group.rank[2];
  fleet.at(1500ms, [&] {
    fleet.network().cut(owner, other);
    fleet.network().cut(other, owner);
  });
  fleet.evenly(owner, "api", "k", 160, 1600ms,
               1990ms);  // so that the window at 2 s is granted ahead, by two votes
  fleet.at(1930ms, [&] { fleet.crash(voter, false); });
  fleet.at(1930ms, [&] { fleet.network().cut_off(owner); });  // who could tell it
  fleet.at(1931ms, [&] { fleet.start(voter); });
  burst(fleet, 2010ms, owner, 100);
  burst(fleet, 2020ms, other, 200);
  burst(fleet, 2300ms, other, 200);
  fleet.run_until(3500ms);
  check_bounds(fleet);
  CHECK(fleet.windows("api", "k").at(900'000'001).admitted >= 20);
}

TEST_CASE("what a member has forgotten, as its clock left the window long ago, is not told as absent") {
  Fleet fleet(config_of(3, window_rule("api", Algorithm::fixed_window, 100, 60s, 0), 500ms));
  const Group group = fleet.group("api", "k");
  const uint16_t owner = group.rank[0], voter = group.rank[1], other = group.rank[2];
  fleet.at(300ms, [&] {
    fleet.network().cut(owner, other);
    fleet.network().cut(other, owner);
  });
  burst(fleet, 400ms, owner, 150);  // under marks that the voter alone has accepted
  fleet.at(700ms, [&] { fleet.step_wall_clock(owner, 300s); });
  fleet.at(900ms, [&] { fleet.crash(voter); });
  fleet.at(901ms, [&] { fleet.start(voter); });
  fleet.at(1200ms, [&] { fleet.network().cut_off(owner); });
  fleet.evenly(other, "api", "k", 300, 1210ms, 4900ms);  // it claims, and needs the voter
  fleet.run_until(6s);
  check_bounds(fleet);
  CHECK(fleet.windows("api", "k").at(30'000'000).admitted == 100);
}

TEST_CASE("a promise of the last life is read anew with the mark: who was deposed by it stays so") {
  Fleet fleet(config_of(3, window_rule("api", Algorithm::fixed_window, 100, 60s, 0), 500ms));
  const Group group = fleet.group("api", "k");
  const uint16_t owner = group.rank[0], claimant = group.rank[1], voter = group.rank[2];
  fleet.at(300ms, [&] {
    fleet.network().cut(owner, claimant);
    fleet.network().cut(claimant, owner);
  });
  burst(fleet, 400ms, owner, 50);
  fleet.evenly(claimant, "api", "k", 100, 500ms, 800ms);  // it claims
  fleet.at(900ms, [&] { fleet.crash(voter); });
  fleet.at(901ms, [&] { fleet.start(voter); });
  burst(fleet, 1300ms, owner, 100);
  fleet.run_until(3s);
  check_bounds(fleet);
  CHECK(fleet.tally("api", "k", claimant).admitted() >= 40);
}

TEST_CASE("a lease that is spent at its very end is charged as of that end, on clocks that run apart") {
  for (Duration spent = 340ms; spent <= 430ms; spent += 1ms) {
    FleetConfig config = config_of(3, bucket_rule("api", 2000, 2000, 1s, 0), 0ms);
    config.link.delay_min = config.link.delay_max = 50us;
    config.clocks.resize(3);
    const Group group = Fleet(config).group("api", "k");
    const uint16_t owner = group.rank[0], lessee = group.rank[1];
    config.clocks[owner].drift_ppm = 4'900;
    config.clocks[lessee].drift_ppm = -4'900;
    Fleet fleet(config);
    const Duration asked = 1050ms;  // between two looks of the owner at its books
    fleet.at(asked, [&] { fleet.take(lessee, "api", "k", 1000); });  // nobody waits: what is granted stays
    fleet.at(asked + 10ms, [&] {
      fleet.network().cut(lessee, owner);
      fleet.network().cut(owner, lessee);
    });
    fleet.at(asked + spent, [&] { fleet.take(lessee, "api", "k", 1000); });
    const Duration after = asked + std::max(spent, Duration(400ms));  // nobody looks at the books between
    fleet.evenly(owner, "api", "k", 3000, after, after + 300ms);
    fleet.run_until(asked + 1s);
    CAPTURE(describe(spent));
    check_bounds(fleet);
    if (spent < 380ms) CHECK(fleet.tally("api", "k", lessee).admitted() == 1000);
    CHECK(fleet.tally("api", "k", owner).admitted() >= 900);
  }
}

TEST_CASE("what two nodes give back of one use may be used again once") {
  Fleet fleet(config_of(4, window_rule("api", Algorithm::fixed_window, 10, 1min, 0), 200ms));
  burst(fleet, 1s, 0, 10);
  burst(fleet, 1200ms, 1, 1);
  burst(fleet, 1200ms, 2, 1);
  uint32_t given = 0;
  fleet.at(1800ms, [&] { given += fleet.give(1, "api", "k", 10); });
  fleet.at(1800ms, [&] { given += fleet.give(2, "api", "k", 10); });
  for (uint16_t rank = 0; rank < 4; ++rank) burst(fleet, 2500ms, rank, 30);
  fleet.run_until(4s);
  check_bounds(fleet);
  CHECK(given == 20);  // each was told that it could
  CHECK(fleet.tally("api", "k").admitted() == 20);
}

TEST_CASE("nobody votes so far ahead that a restart could forget it before the window comes near") {
  FleetConfig config = config_of(5, window_rule("api", Algorithm::fixed_window, 100, 5s, 0), 500ms);
  config.horizon_step = 0s;
  config.clocks.resize(5);
  const Group group = Fleet(config).group("api", "k");
  const uint16_t owner = group.rank[0], voter = group.rank[1], other = group.rank[2];
  std::vector<uint16_t> early;  // by more than the look-ahead
  for (uint16_t rank = 0; rank < 5; ++rank)
    if (!group.contains(rank)) early.push_back(rank), config.clocks[rank].offset = 3200ms;
  Fleet fleet(config);
  fleet.network().cut(owner, other);
  fleet.network().cut(other, owner);
  burst(fleet, 1900ms, early[0], 150);
  fleet.at(2500ms, [&] { fleet.crash(voter); });
  fleet.at(2510ms, [&] { fleet.start(voter); });
  fleet.at(2550ms, [&] { fleet.network().cut_off(owner); });
  burst(fleet, 2900ms, early[1], 150);
  burst(fleet, 3400ms, early[1], 150);
  burst(fleet, 6s, early[1], 150);
  fleet.run_until(7s);
  check_bounds(fleet);
  CHECK(fleet.tally("api", "k", early[1]).admitted() > 0);  // when the window has come near
}

TEST_CASE("what a line gave back is not given back once more by the line that follows it after an eviction") {
  for (const Duration taken_after : {2ms, 4ms, 6ms, 8ms, 10ms, 15ms, 20ms}) {  // round trips are what they are
    FleetConfig config = config_of(4, window_rule("api", Algorithm::fixed_window, 100, 5s, 0), 0ms);
    config.keys = 16;
    config.rules.push_back(window_rule("filler", Algorithm::fixed_window, 10'000, 5s, 90 * 10'000));
    const uint16_t owner = Fleet(config).owner("api", "k");
    const auto lessee = static_cast<uint16_t>((owner + 1) % 4), hungry = static_cast<uint16_t>((owner + 2) % 4);
    Fleet fleet(config);
    fleet.at(1s, [&] { fleet.take(lessee, "api", "k", 60); });  // nobody waits: it holds 60 and spends none
    fleet.evenly(hungry, "api", "k", 75, 1050ms, 1120ms);  // more than the other 40: what is idle is recalled
    fleet.at(1150ms, [&] {
      for (int i = 0; i < 48; ++i) fleet.take(lessee, "filler", "f" + std::to_string(i), 500);
    });
    for (const uint16_t rank :
         {lessee, hungry}) {  // each asks for as much as is left, and takes it a little later
      const uint32_t cost = rank == lessee ? 50 : 48;
      const Duration asked = rank == lessee ? 1180ms : 1185ms;
      fleet.at(asked, [&, rank, cost] { fleet.take(rank, "api", "k", cost); });
      fleet.at(asked + taken_after, [&, rank, cost] { fleet.take(rank, "api", "k", cost); });
    }
    fleet.run_until(3s);
    check_bounds(fleet);
    CHECK(fleet.tally("api", "k", hungry).admitted() >= 40);
    CHECK(fleet.tally("api", "k", lessee).admitted() >= 50);  // nor is the new line taken for one of other books, and refused
  }
}

namespace {

// Three nodes, two of which do not hear each other: the natural owner, and another that claims the key
// through the third.
struct Rift {
  explicit Rift(Rule rule) : Rift(config_of(3, std::move(rule), 600ms)) {}
  explicit Rift(const FleetConfig& config) : fleet(config), group(fleet.group("api", "k")) {}
  void claim(Duration at) {
    fleet.at(at - 400ms, [this] { fleet.network().cut_off(claimant); });
    burst(fleet, at - 390ms, claimant, 1);  // hears of the key from itself, when nobody else answers
    fleet.at(at - 1ms, [this] {
      fleet.network().mend(third, claimant);
      fleet.network().mend(claimant, third);
    });
    fleet.at(at, [this] { claimed = fleet.claim(claimant, "api", "k"); });
  }
  Fleet fleet;
  const Group group;
  const uint16_t owner = group.rank[0], third = group.rank[1], claimant = group.rank[2];
  bool claimed = false;
};

}  // namespace

TEST_CASE("who has promised a ballot promises no lower one, whoever claims") {
  Rift rift(window_rule("api", Algorithm::fixed_window, 100, 5s, 0));
  Fleet& fleet = rift.fleet;
  const Roster& roster = fleet.node(0).roster();
  REQUIRE(roster.id(rift.owner) <
          roster.id(rift.claimant));  // so its ballot is the lower of two with one counter
  burst(fleet, 5200ms, rift.owner, 2);
  rift.claim(5500ms);
  fleet.at(5550ms, [&] { fleet.claim(rift.owner, "api", "k"); });
  burst(fleet, 5600ms, rift.owner, 150);
  burst(fleet, 5700ms, rift.claimant, 150);
  fleet.run_until(8s);
  check_bounds(fleet);
  CHECK(rift.claimed);
  CHECK(fleet.windows("api", "k").at(360'000'001).admitted >= 50);
}

TEST_CASE(
    "an owner does not count a sliding window by its own books where another was told to have ruled there") {
  Rift rift(window_rule("api", Algorithm::sliding_window, 100, 5s, 0));
  Fleet& fleet = rift.fleet;
  burst(fleet, 8s, rift.owner, 5);
  rift.claim(8300ms);
  burst(fleet, 8400ms, rift.claimant, 150);
  burst(fleet, 10'050ms, rift.owner, 150);
  fleet.run_until(11s);
  check_bounds(fleet);
  CHECK(rift.claimed);
  CHECK(fleet.windows("api", "k").at(360'000'001).admitted >= 80);
}

TEST_CASE(
    "a bucket's owner that no majority has heard for as long as a register is kept is its owner no longer") {
  FleetConfig config = config_of(3, bucket_rule("api", 100, 100, 1s, 0), 600ms);
  config.lease = 200ms;
  config.isolation_after = 20s;
  Rift rift(config);
  Fleet& fleet = rift.fleet;
  const auto between = [&](uint16_t a, uint16_t b, bool cut) {
    for (const auto& [from, to] : {std::pair(a, b), std::pair(b, a)})
      cut ? fleet.network().cut(from, to) : fleet.network().mend(from, to);
  };
  burst(fleet, 1s, rift.owner, 5);
  rift.claim(2s);
  burst(fleet, 2050ms, rift.claimant, 5);
  fleet.at(2100ms, [&] { fleet.network().cut_off(rift.third); });
  for (Duration t = 2100ms; t < 4500ms; t += 50ms)  // both keep their books
    for (const uint16_t rank : {rift.owner, rift.claimant}) burst(fleet, t, rank, 1);
  fleet.at(4s, [&] { between(rift.third, rift.owner, false); });  // the third has forgotten both
  burst(fleet, 4010ms, rift.owner, 150);
  fleet.at(4150ms, [&] { between(rift.third, rift.claimant, false); });
  burst(fleet, 4200ms, rift.claimant, 150);
  fleet.run_until(6s);
  check_bounds(fleet);
  CHECK(rift.claimed);
  CHECK(fleet.tally("api", "k").admitted() > 100);
}

TEST_CASE("a grant counts only where a member of the key's group sends it, under a ballot of its own") {
  Rule rule = window_rule("api", Algorithm::fixed_window, 10, 1min, 0);
  rule.wait = 20ms;
  test::Fleet fleet(4, rule);
  const std::string key = "k";
  const Group group = fleet.group(key);
  uint16_t stranger = 0;
  while (group.contains(stranger)) ++stranger;
  const uint16_t lessee = group.rank[1];
  uint32_t line = 0;
  fleet.watch = [&](const Entry& entry, uint16_t from, uint16_t) {
    if (const auto* report = std::get_if<Report>(&entry); report != nullptr && from == lessee)
      line = report->line;
  };
  fleet.until_ready();
  REQUIRE(fleet.admitted_of(lessee, key, 20) == 10);
  REQUIRE(line != 0);

  const auto forged = [&](uint16_t from, Ballot ballot) {
    Grant grant;
    grant.key = fleet.id(key);
    grant.window = window_at(fleet.now().wall, rule.limit.window);
    grant.ballot = ballot;
    grant.line = line;
    grant.incarnation = 10;
    grant.granted = 100;
    DatagramWriter writer(fleet.header(from, lessee), kPublicIdKey);
    REQUIRE(writer.add(grant));
    fleet.node(lessee).receive(writer.finish(), from, fleet.now());
    return fleet.admitted_of(lessee, key, 5);
  };
  const auto id = [&](uint16_t rank) { return fleet.roster.id(rank); };
  CHECK(forged(stranger, {9, id(stranger)}) == 0);
  CHECK(forged(stranger, {0, id(group.rank[0])}) == 0);
  CHECK(forged(group.rank[2], {0, id(group.rank[0])}) == 0);
  CHECK(fleet.dropped(lessee, "not_owner") == 3);
}

TEST_CASE("an owner whose clock has left a sliding window issues no more there than it counted as the past") {
  FleetConfig config = config_of(4, window_rule("api", Algorithm::sliding_window, 10, 2s, 0), 0ms);
  config.sliding_late = true;
  config.clocks.resize(4);
  const uint16_t owner = Fleet(config).owner("api", "k");
  const auto late = static_cast<uint16_t>((owner + 1) % 4), punctual = static_cast<uint16_t>((owner + 2) % 4);
  config.clocks[late].offset = -400ms;
  Fleet fleet(config);
  fleet.at(1s, [&] { fleet.take(punctual, "api", "k", 10); });  // granted, not spent: marked in this window
  fleet.at(2020ms,
           [&] { fleet.take(punctual, "api", "k", 10); });  // nothing was used before: granted in this one
  for (Duration t = 2030ms; t < 2080ms; t += 5ms) burst(fleet, t, late, 10);  // in the window before, still
  fleet.at(2095ms, [&] { fleet.take(punctual, "api", "k", 10); });
  fleet.run_until(2500ms);
  check_bounds(fleet);
}
