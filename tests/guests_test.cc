// Guests: nodes that are in no list, lessees of those that are.
#include <doctest/doctest.h>

#include "core/windows.h"
#include "node_fixture.h"
#include "sim/fleet.h"
#include "sim/trace.h"

using namespace tally;
using namespace std::chrono_literals;
using sim::Fleet;
using sim::FleetConfig;
using sim::Outcome;

namespace {

Rule fixed(uint32_t limit, OnIsolation policy, Duration window = 1min) {
  Rule rule = sim::window_rule("api", Algorithm::fixed_window, limit, window, 0);
  rule.on_isolation = policy;
  rule.wait = 50ms;
  return rule;
}

FleetConfig three_and(uint16_t guests, Rule rule) {
  FleetConfig config;
  config.nodes = 3;
  config.size = static_cast<uint32_t>(3 + guests);
  config.guests = guests;
  config.rules = {std::move(rule)};
  return config;
}

void check_bounds(const Fleet& fleet) {
  for (const sim::Violation& v : fleet.violations())
    FAIL_CHECK(v.rule << "/" << v.key << " at " << sim::describe(v.at) << ": " << v.what);
}

uint64_t of(const Fleet& fleet, uint16_t rank, Outcome outcome) {
  return fleet.tally("api", "k", rank).by_outcome[static_cast<size_t>(outcome)];
}

}  // namespace

TEST_CASE("two of ten guests use the whole limit, and nobody more than that") {
  Fleet fleet(three_and(10, fixed(100, OnIsolation::closed)));
  REQUIRE(fleet.run_until_ready(2s));
  for (const uint16_t guest : {uint16_t{5}, uint16_t{9}}) fleet.evenly(guest, "api", "k", 80, fleet.now(), fleet.now() + 5s);
  fleet.run_for(6s);
  CHECK(fleet.tally("api", "k").admitted() == 100);
  CHECK(of(fleet, 5, Outcome::admitted) > 0);
  CHECK(of(fleet, 9, Outcome::admitted) > 0);
  check_bounds(fleet);
}

TEST_CASE("guests of a single aggregator share a limit through it") {
  FleetConfig config = three_and(4, fixed(30, OnIsolation::closed));
  config.nodes = 1;
  config.owners = {0};
  Fleet fleet(config);
  REQUIRE(fleet.run_until_ready(2s));
  for (uint16_t guest = 1; guest < 5; ++guest) fleet.evenly(guest, "api", "k", 20, fleet.now(), fleet.now() + 5s);
  fleet.run_for(6s);
  CHECK(fleet.tally("api", "k").admitted() == 30);
  check_bounds(fleet);
}

TEST_CASE("guests come and go, each under a name of its own, and what the dead held is not issued again") {
  Fleet fleet(three_and(2, fixed(200, OnIsolation::closed)));
  REQUIRE(fleet.run_until_ready(2s));
  for (int life = 0; life < 8; ++life) {
    for (const uint16_t guest : {uint16_t{3}, uint16_t{4}}) fleet.evenly(guest, "api", "k", 20, fleet.now(), fleet.now() + 400ms);
    fleet.run_for(500ms);
    fleet.crash(3, false);
    fleet.leave(4);
    fleet.start(3);
    fleet.start(4);
    REQUIRE(fleet.run_until_ready(2s));
  }
  fleet.evenly(3, "api", "k", 300, fleet.now(), fleet.now() + 5s);
  fleet.run_for(6s);
  CHECK(fleet.tally("api", "k").admitted() <= 200);
  CHECK(fleet.tally("api", "k").admitted() >= 150);  // each death costs what was held unspent
  check_bounds(fleet);
}

TEST_CASE("a guest whose key's owner dies goes on with the next of the group") {
  Fleet fleet(three_and(2, fixed(1000, OnIsolation::closed)));
  REQUIRE(fleet.run_until_ready(2s));
  fleet.poisson(3, "api", "k", 100, fleet.now(), fleet.now() + 4s);
  fleet.run_for(1s);
  fleet.crash(fleet.owner("api", "k"));
  fleet.run_for(500ms);
  const uint64_t before = of(fleet, 3, Outcome::admitted);
  fleet.run_for(2s);
  CHECK(of(fleet, 3, Outcome::admitted) > before + 150);
  check_bounds(fleet);
}

TEST_CASE("a guest that hears nobody is isolated, and one that only had nothing to ask is not") {
  FleetConfig config = three_and(300, fixed(100, OnIsolation::closed));
  Fleet fleet(config);
  REQUIRE(fleet.run_until_ready(2s));
  fleet.run_for(5s);  // the owners' gossip comes to each of so many every three seconds
  for (uint16_t guest = 3; guest < 23; ++guest) fleet.take(guest, "api", "k");
  fleet.run_for(100ms);
  CHECK(fleet.tally("api", "k").admitted() == 20);
  fleet.network().cut_off(30);
  fleet.run_for(config.isolation_after + 1s);
  fleet.take(30, "api", "k");
  fleet.run_for(100ms);
  CHECK(of(fleet, 30, Outcome::isolated) + of(fleet, 30, Outcome::no_grant) == 1);
  CHECK(fleet.explain(30, "api", "k").isolated);
  fleet.network().mend_all();
  fleet.run_for(1s);
  fleet.take(30, "api", "k");
  fleet.run_for(100ms);
  CHECK(of(fleet, 30, Outcome::admitted) == 1);
  check_bounds(fleet);
}

TEST_CASE("a reset at one guest is one at all") {
  Fleet fleet(three_and(3, fixed(12, OnIsolation::closed)));
  REQUIRE(fleet.run_until_ready(2s));
  for (uint16_t guest = 3; guest < 6; ++guest) fleet.evenly(guest, "api", "k", 20, fleet.now(), fleet.now() + 1s);
  fleet.run_for(2s);
  REQUIRE(fleet.tally("api", "k").admitted() == 12);
  CHECK(fleet.reset(4, "api", "k"));
  fleet.run_for(500ms);
  for (uint16_t guest = 3; guest < 6; ++guest) fleet.evenly(guest, "api", "k", 20, fleet.now(), fleet.now() + 1s);
  fleet.run_for(2s);
  CHECK(fleet.tally("api", "k").admitted() == 24);
  check_bounds(fleet);
}

namespace {

constexpr NodeId kStranger = 4711;
constexpr uint64_t kLife = 99;

// Three nodes that own keys, and datagrams of a guest, written by hand.
struct Door {
  test::Fleet fleet{3, test::window_rule(Algorithm::fixed_window, 30, 1min, {.ppm = 0, .unbounded = false})};
  Header header;

  Door() {
    fleet.until_ready();
    header = fleet.header(1, 0, kLife);
    header.sender = kStranger;
  }
  std::optional<uint16_t> say(const Entry& entry, std::optional<uint16_t> from = std::nullopt) {
    ++header.sequence;
    const Taken taken = fleet.node(0).receive(test::datagram_of(header, {entry}), from, fleet.now());
    return taken.moved ? taken.from : std::nullopt;
  }
  std::vector<PeerStatus> guests() {
    std::vector<PeerStatus> all;
    for (const PeerStatus& peer : fleet.node(0).peers(fleet.now()))
      if (peer.role == PeerRole::guest) all.push_back(peer);
    return all;
  }
};

}  // namespace

TEST_CASE("a guest is known by its name, wherever its newest datagram comes from") {
  Door door;
  const auto rank = door.say(Hello{});
  REQUIRE(rank == 3);
  REQUIRE(door.guests().size() == 1);
  CHECK(door.guests().front().up);
  CHECK(door.guests().front().rank == 3);
  CHECK(door.say(Hello{}, rank) == rank);
  CHECK(door.say(Hello{}) == rank);  // from a new address
  door.header.sequence -= 2;
  CHECK(door.say(Hello{}) == std::nullopt);  // an older one, from a third
  CHECK(door.fleet.dropped(0, "wrong_source") == 1);
  door.header.sequence += 10;
  CHECK(door.say(Hello{}, 1) == std::nullopt);  // from the place of a node in the list
  CHECK(door.fleet.dropped(0, "wrong_source") == 2);
  CHECK(door.guests().size() == 1);
}

TEST_CASE("who goes by another list is no guest") {
  Door door;
  door.header.roster_hash ^= 1;
  CHECK(door.say(Hello{}) == std::nullopt);
  CHECK(door.fleet.dropped(0, "roster") == 1);
  CHECK(door.guests().empty());
}

TEST_CASE("a guest says what a lessee has to say, and nothing else") {
  Door door;
  const auto rank = door.say(Hello{});
  Mark mark;
  mark.key = door.fleet.id("k");
  mark.ballot = {1, kStranger};
  mark.claim = true;
  const Entry refused[] = {mark, Accepted{}, Grant{}, Clone{1, 10, false}, ReadRegisters{kLife, 0}, Registered{}, RegistersEnd{}, Moved{}};
  for (const Entry& entry : refused) door.say(entry, rank);
  CHECK(door.fleet.dropped(0, "not_member") == std::size(refused));
  CHECK(door.fleet.dropped(0, "this_node_is_a_clone") == 0);
  CHECK(door.fleet.admitted_of(0, "k", 40) == 30);
}

TEST_CASE("a rank is given again when its guest was silent for a minute, and no sooner") {
  Door door;
  CHECK(door.say(Hello{}) == 3);
  door.header.sender = kStranger + 1;
  CHECK(door.say(Hello{}) == 4);
  door.fleet.pass(61s, 500ms);
  door.header.sender = kStranger + 2;
  CHECK(door.say(Hello{}) == 3);
  door.header.sender = kStranger + 1;
  CHECK(door.say(Hello{}) == 4);  // it is still known there
  CHECK(door.guests().size() == 2);
}

TEST_CASE("there are no more guests than places, and who finds none is counted") {
  Door door;
  door.fleet.guests_max = 1;
  door.fleet.stop(0);
  door.fleet.start(0, {.incarnation = 20, .first = true, .reckoned_start = {}});
  door.fleet.pass(test::ms(100));
  CHECK(door.say(Hello{}) == 3);
  door.header.sender = kStranger + 1;
  CHECK(door.say(Hello{}) == std::nullopt);
  CHECK(door.fleet.dropped(0, "guests_full") == 1);
  CHECK(door.fleet.dropped(0, "foreign") == 0);
  CHECK(door.guests().size() == 1);
}

TEST_CASE("a guest whose rank another one has by now is told at its own") {
  Rule rule = test::window_rule(Algorithm::fixed_window, 30, 24h, {.ppm = 0, .unbounded = false});
  test::Fleet fleet(3, rule);
  fleet.until_ready();
  std::vector<uint16_t> told;
  fleet.watch = [&](const Entry& entry, uint16_t from, uint16_t to) {
    if (std::holds_alternative<Grant>(entry) && from == 0 && to >= 3) told.push_back(to);
  };
  Header header = fleet.header(1, 0, kLife);
  const std::string key = fleet.key_of(0);
  const auto say = [&](NodeId who, const Entry& entry) {
    header.sender = who;
    ++header.sequence;
    fleet.node(0).receive(test::datagram_of(header, {entry}), std::nullopt, fleet.now());
    fleet.pass(test::ms(20));
  };
  const auto report = [&](uint64_t wanted) {
    Report r;
    r.key = fleet.id(key);
    r.rule = static_cast<uint32_t>(fleet.rule(0).seed);
    r.terms = {Algorithm::fixed_window, 30, {.ppm = 0, .unbounded = false}, Duration(24h), Duration(0)};
    r.window = window_at(fleet.now().wall, 24h);
    r.line = 1;
    r.wanted = r.waiting = wanted;
    r.waiting_min = 1;
    r.stamp = static_cast<uint64_t>(nanos(fleet.now().mono));
    return r;
  };
  say(kStranger, report(2));
  REQUIRE_FALSE(told.empty());
  CHECK(std::ranges::all_of(told, [](uint16_t rank) { return rank == 3; }));
  fleet.pass(61s, 500ms);
  say(kStranger + 1, Hello{});  // has rank 3 from now on
  told.clear();
  say(kStranger, report(4));
  REQUIRE_FALSE(told.empty());
  CHECK(std::ranges::all_of(told, [](uint16_t rank) { return rank == 4; }));
}

TEST_CASE("who was cut off finds the next of the group when the owner has died meanwhile") {
  for (const OnIsolation policy : {OnIsolation::closed, OnIsolation::share}) {
    FleetConfig config = three_and(0, fixed(1000, policy));
    config.isolation_possible = true;
    Fleet fleet(config);
    REQUIRE(fleet.run_until_ready(2s));
    const uint16_t owner = fleet.owner("api", "k");
    const auto lessee = static_cast<uint16_t>((owner + 1) % 3);
    fleet.evenly(lessee, "api", "k", 2000, fleet.now(), fleet.now() + 20s);
    fleet.run_for(1s);
    fleet.network().cut_off(lessee);
    fleet.run_for(config.isolation_after + 2s);
    fleet.crash(owner);
    fleet.network().mend_all();
    fleet.run_for(3s);
    const uint64_t before = of(fleet, lessee, Outcome::admitted);
    fleet.run_for(3s);
    CHECK(of(fleet, lessee, Outcome::admitted) > before + 100);
    check_bounds(fleet);
  }
}

// Before, whoever answered first after contact was told to take over from whom the guest had not heard yet, nor asked: 41 times here, and in a run of
// two regions 40 % of a limit was lost with what the owner had raised its mark by.
TEST_CASE("guests that were cut off with one member have no key taken from an owner that lives") {
  uint64_t claims = 0;
  for (int round = 0; round < 20; ++round) {
    FleetConfig config = three_and(4, fixed(2'000, OnIsolation::closed));
    config.seed = 100 + static_cast<uint64_t>(round);
    Fleet fleet(config);
    sim::LinkTerms far;
    far.delay_min = 29ms;
    far.delay_max = 31ms;
    fleet.network().set_all(far);
    REQUIRE(fleet.run_until_ready(5s));
    for (int k = 0; k < 6; ++k)
      for (uint16_t guest = 3; guest < 7; ++guest) fleet.evenly(guest, "api", "k" + std::to_string(k), 1'000, fleet.now(), fleet.now() + 40s);
    fleet.run_for(5s);
    fleet.network().split({true, false, false, true, true, false, false});
    fleet.run_for(15s + round * 7ms);
    for (uint16_t rank = 0; rank < 3; ++rank) claims -= fleet.node(rank).stats().claims_started;  // of the keys whose owner is cut off
    fleet.network().mend_all();
    fleet.run_for(10s);
    for (uint16_t rank = 0; rank < 3; ++rank) claims += fleet.node(rank).stats().claims_started;
    check_bounds(fleet);
  }
  CHECK(claims <= 8);  // by a claim that the lone member began when it was cut off
}
