// Levels: regions that draw from a fleet above them.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

#include "doctest/doctest.h"
#include "seed.h"
#include "sim/world.h"

using namespace tally;
using namespace tally::sim;
using namespace std::chrono_literals;

namespace {

std::string described(const std::vector<Violation>& violations) {
  std::string text;
  for (const Violation& v : violations) text += std::string(v.checker) + ": " + v.what + "\n";
  return text;
}

Rule rule_of(Algorithm algorithm, uint32_t limit, uint32_t ppm) {
  Rule rule = window_rule("r", algorithm, limit, 60s, ppm);
  rule.on_isolation = OnIsolation::closed;
  return rule;
}

WorldConfig world_of(Rule rule) {
  WorldConfig config;
  config.rules = {std::move(rule)};
  config.far.delay_min = config.far.delay_max = 20ms;
  return config;
}

WorldConfig draw(Random& random, bool bucket) {
  const std::array algorithms{Algorithm::fixed_window, Algorithm::sliding_window};
  WorldConfig config;
  config.regions = static_cast<uint16_t>(random.between(1, 3));
  config.aggregators = static_cast<uint16_t>(random.between(1, 3));
  config.hosts = static_cast<uint16_t>(random.between(1, 4));
  config.owners = random.chance(0.2) ? 1 : 3;
  const auto limit = static_cast<uint32_t>(random.between(3, 300));
  const uint32_t ppm = random.chance(0.5) ? 0 : 100'000;
  Rule rule = rule_of(algorithms[random.below(2)], limit, ppm);
  rule.limit.window = random.chance(0.5) ? 5s : 60s;
  if (bucket) {
    rule = bucket_rule("r", limit, static_cast<uint32_t>(random.between(1, limit)), random.chance(0.5) ? 1s : 10s, ppm);
    rule.on_isolation = OnIsolation::closed;
    config.aggregators_drift_ppm = random.chance(0.5) ? 0 : static_cast<int32_t>(random.between(-4'500, 4'500));
  }
  rule.wait = random.chance(0.3) ? 0ms : 50ms;
  config.rules = {rule};
  for (LinkTerms* link : {&config.near, &config.far}) {
    link->delay_min = 100us;
    link->delay_max = Duration(random.between(100'000, link == &config.far ? 60'000'000 : 5'000'000));
    link->loss = random.chance(0.5) ? 0 : static_cast<double>(random.below(40)) / 100;
    link->duplicate = random.chance(0.5) ? 0 : 0.1;
  }
  for (uint16_t host = 0; host < config.hosts; ++host)
    config.clocks.push_back({random.chance(0.5) ? 0ns : Duration(random.between(-800'000'000, 800'000'000))});
  config.keys = random.chance(0.2) ? 16 : 1000;
  config.sync_interval = std::chrono::milliseconds(random.between(20, 200));
  return config;
}

void plan_traffic(World& world, const WorldConfig& config, Random& random, Duration begin, Duration end) {
  const double rate = static_cast<double>(config.rules.front().limit.limit) / 2;
  for (uint16_t region = 0; region < config.regions; ++region)
    for (uint16_t host = 0; host < config.hosts; ++host) {
      if (random.chance(0.3)) continue;
      Fleet& fleet = world.region(region);
      if (random.chance(0.5)) {
        fleet.poisson(world.host(host), "r", "k", rate * random.unit(), begin, end);
      } else {  // at once, now and then: what is held meanwhile is spent late
        const uint32_t at_once = 1 + static_cast<uint32_t>(random.below(config.rules.front().limit.limit));
        const Duration apart(random.between(200'000'000, 1'500'000'000));
        for (Duration at = begin + apart / 2; at < end; at += apart * static_cast<int64_t>(random.between(1, 3)) / 2)
          fleet.evenly(world.host(host), "r", "k", at_once, at, at + (random.chance(0.5) ? 0s : apart / 8));
      }
      // Other keys, so that small tables evict.
      for (int other = 0; other < 20; ++other)
        fleet.poisson(world.host(host), "r", "other" + std::to_string(random.below(60)), 1, begin, end);
      if (random.chance(0.3))
        fleet.at(begin + (end - begin) / 2, [&world, region, host] { world.give(region, host, "r", "k", 3); });
      const bool bucket = config.rules.front().limit.algorithm == Algorithm::token_bucket;  // what a reset takes back, nobody says
      if (random.chance(0.2) && !bucket) fleet.at(begin + (end - begin) / 3, [&fleet, &world, host] { fleet.reset(world.host(host), "r", "k"); });
    }
}

void plan_faults(World& world, const WorldConfig& config, Random& random, Duration begin, Duration end) {
  const auto some = [&] { return begin + Duration(random.between(0, nanos(end - begin))); };
  for (uint16_t region = 0; region < config.regions; ++region)
    for (uint16_t which = 0; which < config.aggregators; ++which) {
      if (!random.chance(0.4)) continue;
      const Duration at = some(), back = at + Duration(random.between(1'000'000, 4'000'000'000));
      const uint16_t rank = world.rank_above(region, which);
      switch (random.below(3)) {
        case 0:
          world.above().at(at, [&world, region, which] { world.crash(region, which); });
          world.above().at(back, [&world, region, which] { world.start(region, which); });
          break;
        case 1:
          world.above().at(at, [&world, rank] { world.above().network().cut_off(rank); });
          world.above().at(back, [&world] { world.above().network().mend_all(); });
          break;
        default:
          world.above().at(at, [&world, region, which, rank, back, at] {
            world.above().pause(rank, back - at);
            world.region(region).pause(world.aggregator(which), back - at);
          });
      }
    }
  const bool bucket = config.rules.front().limit.algorithm == Algorithm::token_bucket;
  if (random.chance(0.3) && !bucket)
    world.above().at(some(), [&world] {
      if (world.above().is_up(0)) world.above().reset(0, "r", "k");
    });
  for (uint16_t region = 0; region < config.regions; ++region) {  // who does not reach an aggregator goes to the next, or to none
    for (uint64_t i = random.below(6); i > 0; --i) {
      Fleet& fleet = world.region(region);
      const auto host = world.host(static_cast<uint16_t>(random.below(config.hosts)));
      const auto to = world.aggregator(static_cast<uint16_t>(random.below(config.aggregators)));
      const bool comes_back = random.chance(0.5);
      const Duration at = some();
      fleet.at(at, [&fleet, host, to, comes_back] {
        fleet.network().cut(host, to);
        if (!comes_back) fleet.network().cut(to, host);
      });
      fleet.at(at + Duration(random.between(200'000'000, 3'000'000'000)), [&fleet, host, to] {
        fleet.network().mend(host, to);
        fleet.network().mend(to, host);
      });
    }
  }
  if (config.owners > 1 && random.chance(0.5)) {
    const auto owner = static_cast<uint16_t>(random.below(config.owners));
    const Duration at = some();
    world.above().at(at, [&world, owner] { world.above().crash(owner); });
    world.above().at(at + 1s, [&world, owner] { world.above().start(owner); });
  }
}

// The first aggregator of the first region is down for that long.
void restart(World& world, Duration down) {
  world.crash(0, 0);
  world.run_for(down);
  world.start(0, 0);
}

}  // namespace

TEST_CASE("two regions share one limit, wherever its demand is") {
  for (const Algorithm algorithm : {Algorithm::fixed_window, Algorithm::sliding_window}) {
    World world(world_of(rule_of(algorithm, 1000, 50'000)));
    REQUIRE(world.run_until_ready(5s));
    const Duration t = world.now();
    // 90 % of the limit in one region, 5 % in the other.
    world.region(0).evenly(world.host(0), "r", "k", 600, t, t + 20s);
    world.region(0).evenly(world.host(1), "r", "k", 300, t, t + 20s);
    world.region(1).evenly(world.host(2), "r", "k", 50, t, t + 20s);
    world.run_for(21s);
    CHECK(world.admitted("r", "k") >= 940);
    // Then far more than is left, everywhere.
    for (uint16_t region = 0; region < 2; ++region)
      for (uint16_t host = 0; host < 3; ++host) world.region(region).evenly(world.host(host), "r", "k", 500, world.now(), world.now() + 5s);
    world.run_for(6s);
    CHECK(world.admitted("r", "k") >= 1000);
    CHECK(world.admitted("r", "k") <= world.bound("r"));
    CHECK(described(world.violations("r", "k")) == "");
  }
}

TEST_CASE("where nobody is far the first burst finds the whole limit, whichever region it comes to") {
  WorldConfig config = world_of(rule_of(Algorithm::sliding_window, 100, 0));
  config.far = LinkTerms{};
  World world(config);
  REQUIRE(world.run_until_ready(5s));
  for (uint16_t region = 0; region < 2; ++region)
    for (uint16_t host = 0; host < 3; ++host)
      for (int i = 0; i < 80; ++i) world.region(region).take(world.host(host), "r", "k");
  world.run_for(1s);
  CHECK(world.admitted("r", "k") == 100);
  CHECK(described(world.violations("r", "k")) == "");
}

TEST_CASE("an aggregator dies: its hosts go to the next, and what it had and did not issue is lost to the window") {
  WorldConfig config = world_of(rule_of(Algorithm::fixed_window, 1000, 0));
  config.aggregators = 3;
  World world(config);
  REQUIRE(world.run_until_ready(5s));
  Fleet& region = world.region(0);
  const Duration t = world.now();
  for (uint16_t host = 0; host < 3; ++host) region.evenly(world.host(host), "r", "k", 150, t, t + 10s);
  const uint16_t owner = region.owner("r", "k");
  REQUIRE(owner < config.aggregators);
  world.run_for(3s);
  const uint64_t before = world.admitted("r", "k");
  CHECK(before >= 130);
  world.crash(0, owner);
  world.run_for(3s);
  CHECK(world.admitted("r", "k") >= before + 110);  // 135 were asked for
  // It comes again with nothing in its books, and is asked no more in this window.
  world.start(0, owner);
  world.run_for(3s);
  for (uint16_t host = 0; host < 3; ++host) region.evenly(world.host(host), "r", "k", 600, world.now(), world.now() + 5s);
  world.run_for(8s);
  CHECK(world.admitted("r", "k") >= 850);
  CHECK(described(world.violations("r", "k")) == "");
}

TEST_CASE("an aggregator that has lost its books is told a ballot that it does not know, and begins above it") {
  uint64_t above = 0;
  for (uint64_t seed = 1; seed <= 6; ++seed) {  // ballots begin by chance: half of the time its new one is above already
    WorldConfig config = world_of(rule_of(Algorithm::fixed_window, 1000, 0));
    config.seed = seed;
    World world(config);
    REQUIRE(world.run_until_ready(5s));
    world.run_for(seed * 100ms);
    Fleet& region = world.region(0);
    const Duration t = world.now();
    for (uint16_t host = 0; host < 3; ++host) region.evenly(world.host(host), "r", "k", 150, t, t + 10s);
    world.run_for(3s);
    const uint32_t before = region.explain(world.host(0), "r", "k").ballot_counter;
    restart(world, 200ms);
    world.run_for(9s);
    above += region.explain(world.host(0), "r", "k").ballot_counter > before ? 1 : 0;
    CHECK(world.admitted("r", "k") >= 380);  // of 450; for about a second nobody answers
    CHECK(described(world.violations("r", "k")) == "");
  }
  CHECK(above == 6);
}

TEST_CASE("books that began anew stay, and what is returned to them is issued again") {
  WorldConfig config = world_of(rule_of(Algorithm::fixed_window, 600, 0));
  config.hosts = 6;
  config.far = LinkTerms{};
  World world(config);
  REQUIRE(world.run_until_ready(5s));
  Fleet& region = world.region(0);
  for (uint16_t host = 0; host < 6; ++host) region.evenly(world.host(host), "r", "k", 10, world.now(), world.now() + 2s);
  world.run_for(3s);
  restart(world, 100ms);
  world.run_for(2s);
  for (int i = 0; i < 24; ++i)  // bursts in turn: what one has left over, the next needs
    for (uint16_t host = 0; host < 6; ++host) {
      const Duration at = world.now() + i * 1s + host * 150ms;
      region.evenly(world.host(host), "r", "k", i % 6 == host ? 60 : 1, at, at + 500ms);
    }
  world.run_for(10s);
  const uint32_t ballot = region.explain(world.host(0), "r", "k").ballot_counter;
  world.run_for(16s);
  CHECK(region.explain(world.host(0), "r", "k").ballot_counter == ballot);
  CHECK(world.admitted("r", "k") >= 580);
  CHECK(described(world.violations("r", "k")) == "");
}

TEST_CASE("what was given back to one life of an aggregator is not counted by the next") {
  Rule rule = rule_of(Algorithm::fixed_window, 100, 0);
  rule.wait = 500ms;
  WorldConfig config = world_of(rule);
  config.regions = 1;
  config.far = LinkTerms{};
  config.keep_datagrams = true;
  World world(config);
  REQUIRE(world.run_until_ready(5s));
  Fleet& region = world.region(0);
  const auto ask = [&](uint16_t host, uint32_t n, Duration within) {
    region.evenly(world.host(host), "r", "k", n, world.now(), world.now() + within);
    world.run_for(within + 1s);
  };
  ask(0, 50, 100ms);
  ask(2, 1, 100ms);
  CHECK(region.give(world.host(2), "r", "k", 40) == 40);
  ask(0, 40, 3s);
  world.run_for(4s);
  Bytes first;  // of host 2, before it had heard of any ballot
  Datagram datagram;
  for (const auto& sent : region.datagrams()) {
    if (!first.empty() || sent.from != world.host(2) || sent.to != 0) continue;
    REQUIRE(decode(sent.bytes, kPublicIdKey, datagram) == DecodeError::none);
    for (const Entry& entry : datagram.entries)
      if (const auto* report = std::get_if<Report>(&entry); report != nullptr && !report->has_ballot) first = sent.bytes;
  }
  REQUIRE_FALSE(first.empty());
  restart(world, 100ms);
  world.run_for(50ms);
  region.inject(world.host(2), 0, first);  // it was late, and opens a line in the new books
  world.run_for(3s);
  ask(1, 100, 8s);
  ask(2, 1, 100ms);
  ask(1, 200, 8s);
  CHECK(described(world.violations("r", "k")) == "");
}

TEST_CASE("a request that costs most of the limit is served where several regions ask for such") {
  Rule rule = rule_of(Algorithm::fixed_window, 100, 0);
  rule.wait = 100ms;
  WorldConfig config = world_of(rule);
  config.regions = 3;
  World world(config);
  REQUIRE(world.run_until_ready(5s));
  for (int i = 0; i < 100; ++i)
    for (uint16_t region = 0; region < 3; ++region) {
      Fleet& fleet = world.region(region);
      fleet.at(world.now() + i * 200ms, [&fleet, &world] { fleet.take(world.host(0), "r", "k", 70); });
    }
  world.run_for(22s);
  CHECK(world.admitted("r", "k") == 70);
}

TEST_CASE("a host that passes a large floor goes on without a denial") {
  World world(world_of(rule_of(Algorithm::fixed_window, 20'000, 1'000'000)));
  REQUIRE(world.run_until_ready(5s));
  world.region(0).evenly(world.host(0), "r", "k", 6'000, world.now(), world.now() + 40s);
  world.run_for(41s);
  CHECK(world.region(0).tally("r", "k").admitted() >= 5'998);  // of 6,000; its floor is 2,500
}

TEST_CASE("a region that is cut off from the level above is isolated, and goes by its rule") {
  WorldConfig config = world_of(rule_of(Algorithm::fixed_window, 100, 0));
  World world(config);
  REQUIRE(world.run_until_ready(5s));
  world.above().network().cut_off(world.rank_above(0, 0));
  const Duration t = world.now();
  world.region(0).evenly(world.host(0), "r", "k", 160, t, t + 8s);
  world.run_for(9s);  // the aggregator finds it out, then its hosts by what it tells
  const Tally tally = world.region(0).tally("r", "k");
  CHECK(tally.admitted() == 0);
  CHECK(tally.by_outcome[static_cast<size_t>(Outcome::isolated)] > 20);
  world.above().network().mend_all();
  world.region(0).evenly(world.host(0), "r", "k", 50, world.now() + 1s, world.now() + 4s);
  world.run_for(5s);
  CHECK(world.admitted("r", "k") >= 45);
  CHECK(described(world.violations("r", "k")) == "");
}

namespace {

// A key that the first owner above does not own.
std::string key_of_others(World& world) {
  std::string key = "k";
  while (world.above().owner("r", key) == 0) key += "k";
  return key;
}

// Two regions of three aggregators, 60 ms there and back from each other; each place has an owner above.
WorldConfig places(Rule rule, uint64_t seed) {
  rule.wait = 300ms;
  WorldConfig config = world_of(std::move(rule));
  config.aggregators = 3;
  config.far.delay_min = config.far.delay_max = 30ms;
  config.seed = seed;
  return config;
}

// The first region and the first owner above are one place, all else the other; neither hears the other.
void cut_place(World& world) {
  std::vector<uint16_t> here{0}, there{1, 2};
  for (uint16_t which = 0; which < 3; ++which) {
    here.push_back(world.rank_above(0, which));
    there.push_back(world.rank_above(1, which));
  }
  for (const uint16_t one : here)
    for (const uint16_t other : there) {
      world.above().network().cut(one, other);
      world.above().network().cut(other, one);
    }
}

uint32_t highest_ballot_above(World& world, const std::string& key) {
  uint32_t highest = 0;
  for (uint16_t owner = 0; owner < 3; ++owner) highest = std::max(highest, world.above().explain(owner, "r", key).ballot_counter);
  return highest;
}

}  // namespace

TEST_CASE("a region that is cut off with one of the owners above says so within the window") {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    World world(places(rule_of(Algorithm::fixed_window, 1000, 0), seed));
    REQUIRE(world.run_until_ready(5s));
    const std::string key = key_of_others(world);
    const Duration t = world.now();
    for (uint16_t host = 0; host < 3; ++host) world.region(0).evenly(world.host(host), "r", key, 600, t, t + 9s);
    world.run_for(2s);
    cut_place(world);
    world.run_for(6s);  // it has spent what it had, then its aggregator finds it out, then its hosts
    CHECK(world.region(0).tally("r", key).by_outcome[static_cast<size_t>(Outcome::isolated)] > 20);
    CHECK(described(world.violations("r", key)) == "");
  }
}

TEST_CASE("when contact returns, who was cut off takes no key from an owner that lives") {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    Rule rule = rule_of(Algorithm::fixed_window, 1000, 0);
    rule.limit.window = 20s;
    World world(places(rule, seed));
    REQUIRE(world.run_until_ready(5s));
    const std::string key = key_of_others(world);
    cut_place(world);
    const Duration next = 20s;  // the clock begins on a whole window
    for (uint16_t region = 0; region < 2; ++region)
      for (uint16_t host = 0; host < 3; ++host) world.region(region).evenly(world.host(host), "r", key, 600, next - 8s, next + 12s);
    world.run_until(next + 2s);
    CHECK(highest_ballot_above(world, key) == 0);
    Network& network = world.above().network();
    const uint16_t owner = world.above().owner("r", key);
    network.mend_all();  // the owner is heard a little later than the third
    network.cut(0, owner);
    network.cut(owner, 0);
    world.run_for(100ms);
    network.mend_all();
    world.run_until(next + 12s);
    CHECK(highest_ballot_above(world, key) == 0);
    CHECK(world.windows("r", key).rbegin()->second >= 950);
    CHECK(described(world.violations("r", key)) == "");
  }
}

TEST_CASE("two regions share one token bucket, wherever its demand is") {
  Rule rule = bucket_rule("b", 100, 10, 1s, 0);
  rule.on_isolation = OnIsolation::closed;
  rule.wait = 200ms;
  World world(world_of(rule));
  REQUIRE(world.run_until_ready(5s));
  // 90 % of the rate in one region, and nothing in the other: all of it is admitted, for longer than the burst lasts.
  const Duration t = world.now();
  world.region(0).evenly(world.host(0), "b", "k", 180, t, t + 20s);
  world.run_for(21s);
  CHECK(world.admitted("b", "k") >= 178);
  // Then far more than there is, everywhere.
  const uint64_t before = world.admitted("b", "k");
  for (uint16_t region = 0; region < 2; ++region)
    for (uint16_t host = 0; host < 3; ++host) world.region(region).evenly(world.host(host), "b", "k", 500, world.now(), world.now() + 10s);
  world.run_for(11s);
  CHECK(world.admitted("b", "k") >= before + 190);  // 100, and 10 a second
  CHECK(described(world.violations("b", "k")) == "");
}

namespace {

// Tokens that the hosts of a region may spend now.
uint64_t held_in(World& world, uint16_t region, uint16_t hosts) {
  uint64_t held = 0;
  for (uint16_t host = 0; host < hosts; ++host) {
    const Explanation e = world.region(region).explain(world.host(host), "b", "k");
    held += e.ceiling - std::min(e.ceiling, e.used_here);
  }
  return held;
}

}  // namespace

TEST_CASE("no lease of a region outlives the one above that it is a part of") {
  Rule rule = bucket_rule("b", 600, 100, 1s, 0);
  rule.on_isolation = OnIsolation::closed;
  World world(world_of(rule));
  REQUIRE(world.run_until_ready(5s));
  const Duration cut = world.now() + 300ms;
  Fleet& region = world.region(0);
  region.evenly(world.host(0), "b", "k", 100, cut - 250ms, cut - 200ms);
  region.evenly(world.host(0), "b", "k", 50, cut - 200ms, cut + 4s);  // so that its lease goes on
  world.run_until(cut);
  world.above().network().cut_off(world.rank_above(0, 0));
  CHECK(held_in(world, 0, 3) > 50);
  const uint16_t rank = world.rank_above(0, 0);
  const auto above = world.above().node(rank).running_lease(wire_id("k", rule_id_key("b", kPublicIdKey)), world.above().clock(rank));
  REQUIRE(above.has_value());
  for (world.run_until(cut + (above->end - world.above().clock(rank).mono)); world.now() < cut + 4s; world.run_for(50ms))
    REQUIRE(held_in(world, 0, 3) == 0);
  CHECK(described(world.violations("b", "k")) == "");
}

TEST_CASE("another lease above takes nothing along of what was leased out of the one before") {
  uint64_t drawn_most = 0;
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    Rule rule = bucket_rule("b", 600, 100, 1s, 0);
    rule.on_isolation = OnIsolation::closed;
    WorldConfig config = world_of(rule);
    config.far = LinkTerms{};
    config.seed = seed;
    World world(config);
    REQUIRE(world.run_until_ready(5s));
    Fleet& region = world.region(0);
    // The owner above dies while host 0 holds a lease for what it expects to come. It asks now and then, and so do others, so
    // that the leases go on.
    const Duration death = world.now() + 200ms + seed * 10ms;
    world.above().at(death, [&world] { world.above().crash(world.above().owner("b", "k")); });
    region.evenly(world.host(0), "b", "k", 100, death - 150ms, death - 140ms);
    region.evenly(world.host(0), "b", "k", 40, death, death + 4s);
    region.evenly(world.host(1), "b", "k", 8, death, death + 4s);
    for (world.run_until(death + 1200ms); world.now() < death + 4s; world.run_for(50ms)) {  // by then leases of before have ended
      const uint64_t drawn = world.above().explain(world.rank_above(0, 0), "b", "k").used_here;
      drawn_most = std::max(drawn_most, drawn);
      REQUIRE(held_in(world, 0, 3) <= drawn);
    }
    CHECK(described(world.violations("b", "k")) == "");
  }
  CHECK(drawn_most > 0);
}

TEST_CASE("what is given back to a region's bucket, or taken back by a reset, the other region can have") {
  Rule rule = bucket_rule("b", 100, 1, 1s, 0);
  rule.on_isolation = OnIsolation::closed;
  rule.wait = 200ms;
  World world(world_of(rule));
  REQUIRE(world.run_until_ready(5s));
  const auto ask = [&](uint16_t region, uint32_t n) {
    const uint64_t before = world.admitted("b", "k");
    world.region(region).evenly(world.host(0), "b", "k", n, world.now(), world.now() + 1s);
    world.run_for(3s);
    return world.admitted("b", "k") - before;
  };
  CHECK(ask(0, 100) >= 98);
  CHECK(ask(1, 50) <= 6);  // a token comes in every second
  CHECK(world.give(0, 0, "b", "k", 40) == 40);
  world.run_for(2s);  // whoever was told that there is nothing asks again after a second
  const uint64_t given = ask(1, 80);
  CHECK(given >= 25);  // region 0 is awake by it, and expects as much demand as it had last: it leases some itself
  CHECK(given <= 48);
  CHECK(described(world.violations("b", "k")) == "");
  world.region(0).reset(world.host(0), "b", "k");  // of what it used about 50 have not come in again
  world.run_for(2s);
  const uint64_t again = ask(1, 80);
  CHECK(again >= 40);
  CHECK(again <= 60);
}

TEST_CASE("a key that is asked for in vain all the time waits for no more than came lately") {
  World world(world_of(rule_of(Algorithm::fixed_window, 100, 0)));
  REQUIRE(world.run_until_ready(5s));
  world.above().network().cut_off(world.rank_above(0, 0));
  uint64_t most = 0;
  world.region(0).trace("r", "k", [&](const std::string& line) {
    const size_t at = line.find(" waiting=");
    if (at != std::string::npos) most = std::max<uint64_t>(most, std::stoull(line.substr(at + 9)));
  });
  const Duration t = world.now();
  world.region(0).evenly(world.host(0), "r", "k", 200, t, t + 2s);  // each waits for 20 ms
  world.run_for(3s);
  CHECK(most >= 2);
  CHECK(most <= 5);
}

namespace {

void run_worlds(uint64_t worlds, bool buckets) {
  const uint64_t first = test_seed(1);
  uint64_t admitted = 0, at_limit = 0, windows = 0;
  for (uint64_t seed = first; seed < first + worlds; ++seed) {
    Random random(seed);
    WorldConfig config = draw(random, buckets);
    config.seed = seed;
    World world(config);
    const Rule& rule = config.rules.front();
    INFO("TALLY_SEED=", seed);
    world.run_until_ready(12s);
    const Duration begin = world.now(), end = begin + 12s;
    plan_traffic(world, config, random, begin, end);
    plan_faults(world, config, random, begin, end);
    world.run_until(end + 3s);
    CHECK(described(world.violations(rule.name, "k")) == "");
    for (const auto& [window, sum] : world.windows(rule.name, "k")) {
      admitted += sum;
      ++windows;
      at_limit += sum >= rule.limit.limit ? 1 : 0;
    }
  }
  MESSAGE(worlds << " worlds: admitted " << admitted << ", " << windows << " windows, " << at_limit << " at their limit");
  if (worlds >= 40) CHECK(at_limit > 0);
}

}  // namespace

TEST_CASE("random worlds stay within their bounds") { run_worlds(scaled(40, 4), false); }

TEST_CASE("random worlds with a token bucket stay within its bound") { run_worlds(scaled(200, 4), true); }
