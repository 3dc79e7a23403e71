// Fleets in which an operator orders something of a key at one node: who knows it when, through loss, cuts
// and restarts.
#include <doctest/doctest.h>

#include <algorithm>

#include "seed.h"
#include "sim/fleet.h"

using namespace tally;
using namespace tally::sim;
using namespace std::chrono_literals;

namespace {

const Orders::Name kBob{"api", "bob"};

FleetConfig config_of(uint16_t nodes, double loss = 0) {
  FleetConfig config;
  config.nodes = nodes;
  config.rules = {window_rule("api", Algorithm::fixed_window, 100, 1min, 50'000)};
  config.link.loss = loss;
  config.seed = test_seed(5);
  return config;
}

void order(Fleet& fleet, uint16_t rank, const Orders::Name& name, OrderKind kind, Duration lasts,
           uint32_t limit = 0) {
  REQUIRE(fleet.node(rank).order(name, kind, limit, lasts, fleet.clock(rank)));
  fleet.nudge(rank);
}
bool lift(Fleet& fleet, uint16_t rank, const Orders::Name& name) {
  const bool lifted = fleet.node(rank).lift(name, fleet.clock(rank));
  fleet.nudge(rank);
  return lifted;
}

OrderKind held(Fleet& fleet, uint16_t rank, const Orders::Name& name) {
  for (const KeyOrder& o : fleet.node(rank).orders().in_force(fleet.clock(rank).wall))
    if (Orders::Name{o.rule, o.key} == name) return o.kind;
  return OrderKind::lifted;
}
size_t held(Fleet& fleet, uint16_t rank) {
  return fleet.node(rank).orders().in_force(fleet.clock(rank).wall).size();
}

bool all_hold(Fleet& fleet, const Orders::Name& name, OrderKind kind) {
  for (uint16_t rank = 0; rank < fleet.hosts(); ++rank)
    if (fleet.is_up(rank) && held(fleet, rank, name) != kind) return false;
  return true;
}
bool all_hold(Fleet& fleet, size_t orders) {
  for (uint16_t rank = 0; rank < fleet.hosts(); ++rank)
    if (fleet.is_up(rank) && held(fleet, rank) != orders) return false;
  return true;
}

}  // namespace

TEST_CASE("an order is known to all at once, guests too, and so is that it was lifted") {
  FleetConfig config = config_of(20);
  config.guests = 3;
  config.owners = {0, 1, 2};
  Fleet fleet(std::move(config));
  fleet.run_until(3s);
  order(fleet, 7, kBob, OrderKind::block, 1h);
  fleet.run_for(1s);
  CHECK(all_hold(fleet, kBob, OrderKind::block));
  CHECK(lift(fleet, 0, kBob));
  fleet.run_for(1s);
  CHECK(all_hold(fleet, kBob, OrderKind::lifted));
}

TEST_CASE("an order ends by itself, at each by its own clock") {
  FleetConfig config = config_of(5);
  config.clocks = {{}, {200ms}, {-200ms}};
  Fleet fleet(std::move(config));
  fleet.run_until(3s);
  order(fleet, 0, kBob, OrderKind::block, 10s);
  fleet.run_for(9s);
  CHECK(all_hold(fleet, kBob, OrderKind::block));
  fleet.run_for(2s);
  CHECK(all_hold(fleet, kBob, OrderKind::lifted));
  for (uint16_t rank = 0; rank < 5; ++rank) CHECK(fleet.node(rank).orders().size() == 0);
}

TEST_CASE("where a third of the datagrams is lost all know within two seconds") {
  Fleet fleet(config_of(10, 0.33));
  fleet.run_until(3s);
  for (int i = 0; i < 20; ++i)
    order(fleet, static_cast<uint16_t>(i % 10), {"api", std::to_string(i)}, OrderKind::block, 1h);
  fleet.run_for(2s);
  CHECK(all_hold(fleet, size_t{20}));
}

TEST_CASE(
    "who was cut off knows a thousand orders, and is heard with its own, within ten seconds of contact") {
  Fleet fleet(config_of(5));
  fleet.run_until(3s);
  fleet.network().cut_off(3);
  for (int i = 0; i < 1000; ++i)
    order(fleet, static_cast<uint16_t>(i % 3), {"api", std::to_string(i)}, OrderKind::block, 1h);
  order(fleet, 3, kBob, OrderKind::allow, 1h);
  fleet.run_for(30s);
  CHECK(held(fleet, 3) == 1);
  CHECK(held(fleet, 4) == 1000);
  fleet.network().mend_all();
  fleet.run_for(10s);
  CHECK(all_hold(fleet, size_t{1001}));
}

TEST_CASE("a node that restarts without a file has them from the others within three seconds") {
  Fleet fleet(config_of(5));
  fleet.run_until(3s);
  for (int i = 0; i < 100; ++i) order(fleet, 1, {"api", std::to_string(i)}, OrderKind::block, 1h);
  fleet.run_for(1s);
  fleet.crash(2);
  fleet.run_for(1s);
  fleet.start(2);
  fleet.run_for(3s);
  CHECK(all_hold(fleet, size_t{100}));
}

TEST_CASE("what was lifted or replaced while a node was away does not come back with it") {
  for (const bool lifts : {false, true}) {
    Fleet fleet(config_of(5));
    fleet.run_until(3s);
    order(fleet, 0, kBob, OrderKind::block, 1h);
    fleet.run_for(1s);
    fleet.network().cut_off(3);
    if (lifts)
      CHECK(lift(fleet, 1, kBob));
    else
      order(fleet, 1, kBob, OrderKind::allow, 5s);
    fleet.run_for(20s);
    CHECK(held(fleet, 3, kBob) == OrderKind::block);
    CHECK(held(fleet, 0, kBob) == OrderKind::lifted);
    fleet.network().mend_all();
    fleet.run_for(5s);
    CHECK(all_hold(fleet, kBob, OrderKind::lifted));
  }
}

TEST_CASE("where no order is known, nobody speaks of orders") {
  Fleet fleet(config_of(5));
  fleet.run_until(10s);
  for (uint16_t rank = 0; rank < 5; ++rank) {
    const NodeStats stats = fleet.node(rank).stats();
    CHECK(stats.entries_out[Entry(KeyOrder{}).index()] == 0);
    CHECK(stats.entries_out[Entry(OrdersDigest{}).index()] == 0);
  }
}

TEST_CASE("nodes that know the same do not tell each other all, again and again") {
  Fleet fleet(config_of(5));
  fleet.run_until(3s);
  for (int i = 0; i < 500; ++i) order(fleet, 0, {"api", std::to_string(i)}, OrderKind::block, 1h);
  fleet.run_for(20s);
  CHECK(all_hold(fleet, size_t{500}));
  const auto told = [&] {
    uint64_t sum = 0;
    for (uint16_t rank = 0; rank < 5; ++rank)
      sum += fleet.node(rank).stats().entries_out[Entry(KeyOrder{}).index()];
    return sum;
  };
  const uint64_t before = told();
  fleet.run_for(20s);
  CHECK(told() == before);
}

TEST_CASE(
    "when a lower limit is lifted or ends, the rest of the window goes by the rule's again, spent before or "
    "not") {
  for (const Algorithm algorithm : {Algorithm::fixed_window, Algorithm::sliding_window})
    for (const bool lifts : {true, false}) {
      CAPTURE(lifts);
      FleetConfig config = config_of(3);
      config.rules = {window_rule("api", algorithm, 100, 1h, 0)};
      config.rules[0].on_isolation = OnIsolation::closed;
      config.link.delay_max = 3ms;  // reports by the order are late
      config.clocks = {{}, {100ms}, {-100ms}};
      Fleet fleet(std::move(config));
      fleet.run_until(3s);
      const auto ask_all = [&] {
        for (int i = 0; i < 200; ++i) {
          for (const char* key : {"bob", "eve", "joe"}) fleet.take(static_cast<uint16_t>(i % 3), "api", key);
          fleet.run_for(5ms);
        }
        return fleet.tally("api", "bob").admitted();
      };
      for (const char* key : {"bob", "eve", "joe"}) order(fleet, 1, {"api", key}, OrderKind::limit, 5s, 10);
      fleet.run_for(500ms);
      CHECK(ask_all() == 10);
      if (lifts)
        for (const char* key : {"bob", "eve", "joe"}) CHECK(lift(fleet, 0, {"api", key}));
      else
        fleet.run_for(5s);
      fleet.run_for(500ms);
      CHECK(ask_all() == 100);
      CHECK(fleet.tally("api", "eve").admitted() == 100);
      CHECK(fleet.tally("api", "joe").admitted() == 100);
    }
}

TEST_CASE(
    "books and accounts go by another limit of a key at once, up and down, while those of other keys stay") {
  FleetConfig config = config_of(3);
  config.rules[0].on_isolation = OnIsolation::closed;
  Fleet fleet(std::move(config));
  fleet.run_until(3s);
  const auto granted = [&](const std::string& key) {
    for (int i = 0; i < 300; ++i) fleet.take(0, "api", key);
    fleet.run_for(1s);
    return fleet.tally("api", key).admitted();
  };
  order(fleet, 1, {"api", "few"}, OrderKind::limit, 1h, 10);
  fleet.run_for(500ms);
  CHECK(granted("few") <= 10 + 5);  // workers of the simulation ask by the rule, with its floors: 5 of 100
  CHECK(granted("others") >= 99);
  CHECK(granted("others") <= 105);
}
