// Lists of nodes that replace each other, node by node: whole fleets under load, hosts restarted into the next list in any order.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "cluster/succession.h"
#include "cluster_fixture.h"
#include "doctest/doctest.h"
#include "seed.h"
#include "sim/fleet.h"

using namespace tally;
using namespace tally::sim;
using namespace std::chrono_literals;

namespace {

std::string complaints(const Fleet& fleet) {
  std::string text;
  for (const Violation& v : fleet.violations()) text += std::string(v.checker) + ": " + v.what + "\n";
  return text;
}

// Restarts every host of either list into `list`, one after the other, with the list before beside it.
void move_all(Fleet& fleet, const FleetConfig& config, size_t list, Duration between) {
  std::vector<uint16_t> hosts = config.lists[list].hosts;
  hosts.insert(hosts.end(), config.lists[list - 1].hosts.begin(), config.lists[list - 1].hosts.end());
  std::ranges::sort(hosts);
  hosts.erase(std::ranges::unique(hosts).begin(), hosts.end());
  for (const uint16_t host : hosts) {
    if (fleet.is_up(host)) fleet.leave(host);
    REQUIRE(fleet.give_list(host, list, true));
    fleet.start(host);
    fleet.run_for(between);
  }
}

// And without it, once the change is over; hosts that are in the new list no more stop.
void settle_all(Fleet& fleet, const FleetConfig& config, size_t list, Duration between) {
  for (const uint16_t host : config.lists[list - 1].hosts)
    if (fleet.is_up(host) && std::ranges::find(config.lists[list].hosts, host) == config.lists[list].hosts.end()) fleet.leave(host);
  for (const uint16_t host : config.lists[list].hosts) {
    if (fleet.is_up(host)) fleet.leave(host);
    REQUIRE(fleet.give_list(host, list, false));
    fleet.start(host);
    fleet.run_for(between);
  }
}

}  // namespace

TEST_CASE("lists: nodes are added one by one and every window admits its limit") {
  FleetConfig config;
  config.nodes = 5;
  config.seed = 7;
  config.lists = {{{0, 1, 2}, 5, {}}, {{0, 1, 2, 3}, 5, {}}, {{0, 1, 2, 3, 4}, 5, {}}};
  config.rules = {window_rule("api", Algorithm::fixed_window, 400, 10s, 50'000)};
  config.rules[0].on_isolation = OnIsolation::closed;
  Fleet fleet(config);
  const Duration end = 200s;
  const uint64_t keys = scaled(10, 3);
  for (uint16_t host = 0; host < 5; ++host)
    for (uint64_t key = 0; key < keys; ++key)
      fleet.poisson(host, "api", "k" + std::to_string(key), 20, 0s, end);
  fleet.run_for(15s);
  for (size_t list = 1; list < config.lists.size(); ++list) {
    move_all(fleet, config, list, 2s);
    fleet.run_for(20s);
    settle_all(fleet, config, list, 2s);
    fleet.run_for(10s);
  }
  fleet.run_until(end);
  CHECK_MESSAGE(fleet.violations().empty(), complaints(fleet));
  uint64_t full = 0;
  for (uint64_t key = 0; key < keys; ++key) {
    const auto& windows = fleet.windows("api", "k" + std::to_string(key));
    for (const auto& [window, count] : windows)
      if (window != windows.begin()->first && window != windows.rbegin()->first) full += count.net() >= 380;
  }
  CHECK(full >= keys * 12);  // of 18 each; those in which hosts restart lose a part
}

namespace {

// A fleet with two or three lists, drawn at random, whose hosts move at random times, with crashes between.
void random_moves(uint64_t seed) {
  Random random(seed);
  FleetConfig config;
  config.seed = seed;
  config.nodes = static_cast<uint16_t>(3 + random.below(4));
  const size_t lists = 2 + random.below(2);
  for (size_t i = 0; i < lists; ++i) {
    HostList list;
    if (i > 0 && random.chance(0.6)) {  // one more or one fewer
      list.hosts = config.lists.back().hosts;
      const auto host = static_cast<uint16_t>(random.below(config.nodes));
      const auto found = std::ranges::find(list.hosts, host);
      if (found == list.hosts.end())
        list.hosts.push_back(host);
      else if (list.hosts.size() > 2)
        list.hosts.erase(found);
    } else {
      for (uint16_t host = 0; host < config.nodes; ++host)
        if (random.chance(0.6)) list.hosts.push_back(host);
      // A host alone begins each life with an empty table, whatever its lists.
      if (list.hosts.size() < 2) list.hosts = {0, 1};
    }
    list.size = static_cast<uint32_t>(list.hosts.size() + (random.chance(0.5) ? random.below(4) : 0));
    config.lists.push_back(list);
  }
  // One that is not in the last list may be stopped for good, and declared so.
  for (const uint16_t host : config.lists[lists - 2].hosts) {
    HostList& last = config.lists.back();
    if (std::ranges::find(last.hosts, host) == last.hosts.end() && last.gone.empty() && random.chance(0.3)) last.gone.push_back(host);
  }
  const Duration window = random.chance(0.5) ? Duration(3s) : random.chance(0.5) ? Duration(15s) : Duration(60s);
  const auto limit = static_cast<uint32_t>(random.chance(0.3) ? 3 + random.below(10) : 20 + random.below(200));
  const uint32_t e = random.chance(0.4) ? 0 : 200'000;
  config.rules = {window_rule("fixed", Algorithm::fixed_window, limit, window, e),
                  window_rule("sliding", Algorithm::sliding_window, limit, window, e),
                  bucket_rule("bucket", limit, limit, window, e)};
  for (Rule& rule : config.rules) {
    rule.on_amnesia = OnAmnesia::deny;
    rule.on_isolation = OnIsolation::closed;
    rule.wait = random.chance(0.5) ? Duration(20ms) : Duration(0);
  }
  config.link.delay_min = 200us;
  config.link.delay_max = random.chance(0.3) ? Duration(40ms) : Duration(2ms);
  config.link.loss = random.chance(0.4) ? 0.1 : 0;
  config.link.duplicate = random.chance(0.4) ? 0.1 : 0;
  config.clocks.resize(config.nodes);
  if (random.chance(0.3))
    for (HostClock& clock : config.clocks) clock.offset = std::chrono::milliseconds(random.below(2000));
  Fleet fleet(config);
  if (const char* key = std::getenv("TRACE"); key != nullptr)
    fleet.trace(std::getenv("TRACE_RULE"), key, [](const std::string& line) { std::puts(line.c_str()); });
  const Duration end = 90s;
  for (uint16_t host = 0; host < config.nodes; ++host)
    for (const Rule& rule : config.rules)
      for (int key = 0; key < 3; ++key) {
        const double most = 3.0 * limit / (static_cast<double>(nanos(window)) / 1e9);
        fleet.poisson(host, rule.name, "k" + std::to_string(key), std::min(200.0, most * random.unit()), 0s, end);
      }
  // Each list in its turn: the moves of its hosts, in any order, crashes among them; and the list before is left out.
  Duration at = 5s;
  bool forgot = false;  // one host loses its state file; two at once, and nobody could tell either of its life before
  std::vector<bool> dead(config.nodes);
  for (size_t list = 1; list < lists; ++list) {
    for (const uint16_t host : config.lists[list].gone) {
      dead[host] = true;
      fleet.at(at, [&fleet, host] { fleet.crash(host); });
    }
    std::vector<uint16_t> hosts(config.nodes);
    for (uint16_t host = 0; host < config.nodes; ++host) hosts[host] = host;
    for (int round = 0; round < 2; ++round) {
      for (size_t i = hosts.size(); i > 1; --i) std::swap(hosts[i - 1], hosts[random.below(i)]);
      for (const uint16_t host : hosts) {
        if (dead[host]) continue;
        at += std::chrono::milliseconds(random.below(2500));
        const bool keeps = forgot || !random.chance(0.1), dropped = round == 1;
        forgot = forgot || !keeps;
        fleet.at(at, [&fleet, &config, host, list, keeps, dropped] {
          const auto in = [&](size_t l) {
            return std::ranges::find(config.lists[l].hosts, host) != config.lists[l].hosts.end();
          };
          if (!in(list) && (dropped || !in(list - 1))) return fleet.crash(host);
          fleet.crash(host, keeps);
          const size_t now = fleet.list_of(host);
          // Where it may not go on yet it stays what it was.
          if (!fleet.give_list(host, list, !dropped)) (void)fleet.give_list(host, now, now > 0);
          if (fleet.list_of(host) == list || in(fleet.list_of(host))) fleet.start(host);
        });
        if (random.chance(0.3)) {
          const auto other = static_cast<uint16_t>(random.below(config.nodes));
          fleet.at(at + std::chrono::milliseconds(random.below(3000)), [&fleet, &dead, other] {
            if (dead[other] || !fleet.is_up(other)) return;
            fleet.crash(other);
            fleet.start(other);
          });
        }
      }
      at += std::chrono::milliseconds(random.below(15'000));
    }
  }
  fleet.run_until(end);
  if (std::getenv("SHOW") != nullptr) {
    std::printf("seed %llu window %lld s limit %u e %u lists", static_cast<unsigned long long>(seed),
                static_cast<long long>(nanos(window) / 1'000'000'000), limit, e);
    for (const HostList& list : config.lists) {
      std::printf(" [");
      for (const uint16_t host : list.hosts) std::printf("%u ", host);
      std::printf("/%u]", list.size);
    }
    std::printf("\n");
  }
  CHECK_MESSAGE(fleet.violations().empty(), "seed ", seed, "\n", complaints(fleet));
}

}  // namespace

TEST_CASE("lists: hosts that move at random times, crash and forget, never pass the bound") {
  const uint64_t seed = test_seed(1), clusters = scaled(100);
  for (uint64_t i = 0; i < clusters; ++i) random_moves(seed + i);
}

namespace {

constexpr Duration kSync = 100ms;

// One node's succession, told by hand: of lists {a, b, c} (version 1) and {b, c, d} (version 2).
struct OneNode {
  Now now = test::at(100s);
  Standing standing{false, now.wall, kSync, true, now};
  Roster roster{{{"host-b:8381", "host-c:8381", "host-d:8381"}, 2, 3}, NodeList{test::entries_of(3), 1, 3}, kPublicIdKey};
  Peers peers;
  Mail mail;
  Succession succession;
  Groups groups;

  explicit OneNode(uint16_t self, const Tenure& kept = {1, WallTime::max(), WallTime::min(), WallTime::min()})
      : peers(roster, self, std::nullopt, kSync), mail(roster, peers, 7, kPublicIdKey), succession(roster, self, kept, {}, standing, kSync, now) {
    while (const auto tenure = succession.to_keep()) succession.kept(*tenure, now);
    groups.current = test::group_of(3);
    groups.previous = test::group_of(3);
    for (uint16_t& rank : groups.current.rank) ++rank;  // b, c, d
  }
  void hear(uint16_t rank, WallTime leaves, bool buckets = true) {
    succession.on_moved({roster.id(rank), 2, roster.hash(), nanos(leaves), buckets}, rank, mail, now);
    while (const auto tenure = succession.to_keep()) succession.kept(*tenure, now);
  }
  bool part(Duration begins) const {  // in a window of a second
    return succession.takes_part(groups, nanos(test::at(begins).wall) / 1'000'000'000, 1s);
  }
  Which rules(Duration begins) const { return succession.rules(test::at(begins).wall); }
};

}  // namespace

TEST_CASE("lists: the new one rules once all but one of the one before have left") {
  OneNode b(1);
  CHECK(b.rules(1000s) == Which::previous);
  b.hear(0, test::at(110s).wall);
  CHECK(b.rules(1000s) == Which::previous);
  b.hear(2, test::at(120s).wall);
  CHECK(b.rules(119s) == Which::previous);
  CHECK(b.rules(120s) == Which::current);
  CHECK(b.succession.turned());
  CHECK_FALSE(b.succession.turned());
  CHECK(b.part(120s));
  CHECK_FALSE(b.succession.same_before(b.groups, nanos(test::at(120s).wall) / 1'000'000'000, 1s));
  CHECK(b.succession.same_before(b.groups, nanos(test::at(121s).wall) / 1'000'000'000, 1s));
  CHECK(b.succession.same_before(b.groups, nanos(test::at(119s).wall) / 1'000'000'000, 1s));
}

TEST_CASE("lists: a node leaves when all know, further ahead than it may have voted, and has no part after that") {
  OneNode b(1);
  Peers peers(b.roster, 1, std::nullopt, kSync);
  b.succession.tick(peers, b.now);
  CHECK_FALSE(b.succession.to_keep().has_value());
  b.hear(0, WallTime::max(), false);
  b.hear(2, WallTime::max(), false);
  b.succession.tick(peers, b.now);
  CHECK_FALSE(b.succession.to_keep().has_value());  // d does not know yet
  b.hear(3, WallTime::max(), false);
  b.succession.tick(peers, b.now);
  const auto left = b.succession.to_keep();
  REQUIRE(left.has_value());
  CHECK(left->leaves > b.standing.lives_clock() + look_ahead(kSync));
  const Duration leaves = left->leaves - test::at(0s).wall;
  CHECK_FALSE(b.part(leaves + 2s));  // though it is not in the state file yet
  b.succession.kept(*left, b.now);
  CHECK(b.part(leaves - 2s));
  CHECK_FALSE(b.part(leaves + 2s));
  CHECK(b.succession.takes_part(b.groups, 0, 1s));
  b.now.wall = left->leaves;
  b.standing.tick(b.now, true);
  b.succession.tick(peers, b.now);
  CHECK_FALSE(b.succession.takes_part(b.groups, 0, 1s));
}

namespace {

FleetConfig exact(std::vector<HostList> lists, uint16_t nodes, Rule rule) {
  FleetConfig config;
  config.nodes = nodes;
  config.lists = std::move(lists);
  rule.on_isolation = OnIsolation::closed;
  rule.on_amnesia = OnAmnesia::deny;
  config.rules = {std::move(rule)};
  return config;
}

void move_one(Fleet& fleet, uint16_t host, size_t list, bool with_previous = true) {
  if (fleet.is_up(host)) fleet.leave(host);
  REQUIRE(fleet.give_list(host, list, with_previous));
  fleet.start(host);
}

std::string key_name(int k) { return "k" + std::to_string(k); }

}  // namespace

TEST_CASE("lists: a bucket that passes over owes all that owners of before may have issued") {
  OneNode b(1);
  b.hear(0, test::at(110s).wall);
  CHECK(b.succession.bucket_base(b.groups, 9s) == MonoTime::min());
  b.hear(2, test::at(120s).wall);
  CHECK(b.succession.bucket_base(b.groups, 9s) == b.now.mono + 9s);
}

TEST_CASE("lists: what a node has told of its leaving holds in its next life, before it has ticked") {
  const OneNode left(0, {2, test::at(50s).wall, WallTime::max(), WallTime::min()});
  CHECK_FALSE(left.succession.takes_part(left.groups, 0, 1s));
  CHECK_FALSE(left.part(60s));
  const OneNode stays(0, {2, WallTime::max(), WallTime::max(), WallTime::min()});
  CHECK(stays.succession.takes_part(stays.groups, 0, 1s));
}

TEST_CASE("lists: a newcomer has no floor while those of the list before have theirs") {
  FleetConfig config = exact({{{0, 1, 2}, 3, {}}, {{0, 1, 2, 3, 4}, 5, {}}}, 5, window_rule("w", Algorithm::fixed_window, 30, 10s, 500'000));
  Fleet fleet(config);
  const auto ask_all = [&] {
    for (uint16_t host = 0; host < 5; ++host)
      for (int i = 0; fleet.is_up(host) && i < 20; ++i) fleet.take(host, "w", "k");
    fleet.run_for(500ms);
    fleet.audit();
  };
  fleet.run_until(12s);
  ask_all();
  for (const uint16_t host : std::vector<uint16_t>{3, 4, 0}) {
    move_one(fleet, host, 1);
    fleet.run_until((fleet.now() / 10s + 1) * 10s + 1s);
    ask_all();
  }
  CHECK_MESSAGE(fleet.violations().empty(), complaints(fleet));
}

TEST_CASE("lists: who has left does not come back to the list before at a restart") {
  OneNode b(1, {2, test::at(110s).wall, WallTime::max(), WallTime::min()});
  CHECK(b.part(109s));
  CHECK_FALSE(b.part(110s));
  CHECK(b.rules(1000s) == Which::previous);  // until the others say that they have left, too
}

TEST_CASE("lists: who lost its state file has no part under the list before") {
  OneNode b(1, {});
  CHECK_FALSE(b.part(101s));
  CHECK_FALSE(b.part(1000s));
  CHECK_FALSE(b.succession.takes_part(b.groups, 0, 1s));
  OneNode d(3, {});  // was in none
  d.hear(0, test::at(110s).wall);
  d.hear(1, test::at(110s).wall);
  CHECK(d.part(110s));
  CHECK(d.succession.takes_part(d.groups, 0, 1s));
}

TEST_CASE("lists: a change is over when the last has left, not before") {
  OneNode b(1, {2, test::at(110s).wall, WallTime::max(), WallTime::min()});
  b.hear(0, test::at(115s).wall);
  CHECK_FALSE(b.succession.settled());
  b.hear(2, test::at(120s).wall, false);
  CHECK_FALSE(b.succession.settled());  // it still has buckets
  b.hear(2, test::at(120s).wall);
  CHECK_FALSE(b.succession.settled());  // and so has this node
  Peers peers(b.roster, 1, std::nullopt, kSync);
  b.now.wall = test::at(111s).wall;
  b.standing.tick(b.now, true);
  b.succession.tick(peers, b.now);
  REQUIRE(b.succession.to_keep().has_value());
  CHECK(b.succession.to_keep()->settled == test::at(120s).wall);
}

TEST_CASE("lists: which list a node may go by") {
  const WallTime now = test::at(0s).wall;
  const Tenure over{3, WallTime::max(), now, WallTime::min()};
  Tenure running = over;
  running.settled = WallTime::max();
  CHECK(succeeds({}, 7, 0, now) == Succeeds::yes);
  CHECK(succeeds(over, 3, 0, now) == Succeeds::yes);
  CHECK(succeeds(over, 3, 0, now - 1ms) == Succeeds::unsettled);  // the new list does not rule yet by this clock
  CHECK(succeeds(over, 2, 0, now) == Succeeds::older);
  CHECK(succeeds(over, 2, 1, now) == Succeeds::older);
  CHECK(succeeds(over, 4, 0, now) == Succeeds::without_previous);
  CHECK(succeeds(over, 5, 4, now) == Succeeds::without_previous);
  CHECK(succeeds(over, 5, 3, now) == Succeeds::yes);
  CHECK(succeeds(running, 3, 2, now) == Succeeds::yes);
  CHECK(succeeds(running, 3, 0, now) == Succeeds::unsettled);
  CHECK(succeeds(running, 4, 3, now) == Succeeds::unsettled);
}

TEST_CASE("lists: a host alone becomes a fleet, and its window is its own until it has left") {
  FleetConfig config;
  config.nodes = 3;
  config.lists = {{{0}, 1, {}}, {{0, 1, 2}, 3, {}}};
  config.rules = {window_rule("login", Algorithm::fixed_window, 100, 60s, 0)};
  config.rules[0].on_amnesia = OnAmnesia::deny;
  config.rules[0].on_isolation = OnIsolation::closed;
  Fleet fleet(config);
  const Duration end = 170s;
  for (uint16_t host = 0; host < 3; ++host) fleet.poisson(host, "login", "k", 10, 0s, end);
  fleet.run_for(61s);  // a window of its own has just begun
  fleet.run_for(5s);
  move_all(fleet, config, 1, 1s);
  fleet.run_until(end);
  CHECK_MESSAGE(fleet.violations().empty(), complaints(fleet));
  CHECK(fleet.windows("login", "k").rbegin()->second.net() >= 95);
}

TEST_CASE("lists: hosts that leave and hosts that join reach each other, and every key is served under the new list") {
  const int keys = static_cast<int>(scaled(8, 2));
  for (const std::vector<HostList>& lists : {std::vector<HostList>{{{0, 1, 2}, 6, {}}, {{3, 4, 5}, 6, {}}},
                                             std::vector<HostList>{{{0, 1, 2}, 6, {}}, {{1, 2, 3}, 6, {}}},
                                             std::vector<HostList>{{{0, 1, 2}, 6, {}}, {{0, 1, 2, 3, 4, 5}, 6, {}}}}) {
    FleetConfig config = exact(lists, 6, window_rule("window", Algorithm::fixed_window, 20, 2s, 0));
    config.rules.push_back(bucket_rule("bucket", 20, 20, 2s, 0));
    config.rules.push_back(window_rule("sliding", Algorithm::sliding_window, 20, 2s, 0));
    for (Rule& rule : config.rules) rule.on_isolation = OnIsolation::closed;
    Fleet fleet(config);
    for (uint16_t host = 0; host < 6; ++host)
      for (const Rule& rule : config.rules)
        for (int k = 0; k < keys; ++k) fleet.poisson(host, rule.name, key_name(k), 4, 0s, 70s);
    fleet.run_for(10s);
    move_all(fleet, config, 1, 500ms);
    fleet.run_for(20s);
    for (const uint16_t host : lists[1].hosts) CHECK(fleet.node(host).tenure().settled != WallTime::max());
    settle_all(fleet, config, 1, 500ms);
    fleet.run_for(10s);
    std::map<std::string, uint64_t> before;
    for (const Rule& rule : config.rules)
      for (int k = 0; k < keys; ++k) before[rule.name + key_name(k)] = fleet.tally(rule.name, key_name(k)).admitted();
    fleet.run_for(10s);
    for (const Rule& rule : config.rules)
      for (int k = 0; k < keys; ++k) {
        INFO(rule.name, " ", key_name(k));
        CHECK(fleet.tally(rule.name, key_name(k)).admitted() - before[rule.name + key_name(k)] > 50);  // of 100, or of what is asked
      }
    CHECK_MESSAGE(fleet.violations().empty(), complaints(fleet));
  }
}

TEST_CASE("lists: who restarts reads its registers from the groups of both lists") {
  uint64_t tried = 0;
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    FleetConfig config = exact({{{0, 1, 2}, 4, {}}, {{0, 1, 2, 3}, 4, {}}}, 4, window_rule("w", Algorithm::fixed_window, 200, 20s, 0));
    config.seed = seed;
    Fleet fleet(config);
    fleet.run_until(45s);
    for (const uint16_t host : std::vector<uint16_t>{3, 1, 2}) {
      move_one(fleet, host, 1);
      fleet.run_for(500ms);
    }
    fleet.run_for(1s + seed * 7ms);
    move_one(fleet, 0, 1);
    const auto leaves = [&](uint16_t host) { return std::min(fleet.node(host).tenure().leaves, config.epoch + 1000s) - config.epoch; };
    for (int i = 0; i < 400 && (leaves(1) == 1000s || leaves(2) == 1000s) && leaves(0) == 1000s; ++i) fleet.run_for(1ms);
    if (leaves(0) == 1000s) fleet.pause(0, 84s - fleet.now());  // it leaves last, and late
    fleet.run_until(84s + 300ms);
    if (leaves(1) > 70s || leaves(2) > 70s || leaves(0) < 82s) continue;
    ++tried;
    // The window from 80 to 100 s is the new list's, though 0 has not left. 1 hears nothing of what 3 and 0 agree upon; then 0 restarts.
    fleet.network().cut_off(1);
    for (int k = 0; k < 10; ++k)
      for (const uint16_t host : std::vector<uint16_t>{3, 0}) fleet.poisson(host, "w", key_name(k), 400, fleet.now(), fleet.now() + 600ms);
    fleet.run_for(900ms);
    fleet.network().mend_all();
    fleet.network().cut_off(3);
    fleet.crash(0);
    fleet.run_for(1ms + seed * 2ms);
    fleet.start(0);
    for (int k = 0; k < 10; ++k) fleet.poisson(1, "w", key_name(k), 200, fleet.now(), fleet.now() + 4s);
    for (int i = 1; i < 100; ++i) fleet.at(fleet.now() + i * 2ms, [&fleet, i] { fleet.claim(1, "w", key_name(i % 10)); });
    fleet.run_for(6s);
    CHECK_MESSAGE(fleet.violations().empty(), complaints(fleet));
  }
  CHECK(tried > 0);
}

TEST_CASE("lists: of a node that is gone nobody knows by which clock it voted") {
  FleetConfig config = exact({{{0, 1, 2}, 5, {}}, {{1, 2, 3, 4}, 5, {0}}}, 5, window_rule("w", Algorithm::fixed_window, 100, 60s, 0));
  config.clocks.resize(5);
  for (uint16_t host = 2; host < 5; ++host) config.clocks[host].offset = -100s;
  Fleet fleet(config);
  const int keys = static_cast<int>(scaled(20, 4));
  for (uint16_t host = 0; host < 5; ++host)
    for (int k = 0; k < keys; ++k) fleet.poisson(host, "w", key_name(k), 20, 0s, 200s);
  fleet.run_until(12s);
  fleet.crash(0);
  for (uint16_t host = 1; host < 5; ++host) move_one(fleet, host, 1);
  fleet.run_until(200s);
  CHECK_MESSAGE(fleet.violations().empty(), complaints(fleet));
}

TEST_CASE("lists: newcomers with the new list alone take no part until they are told that it rules") {
  for (const bool under_way : {false, true}) {
    FleetConfig config = exact({{{0, 1, 2}, 5, {}}, {{0, 1, 2, 3, 4}, 5, {}}}, 5, window_rule("w", Algorithm::fixed_window, 100, 10s, 0));
    Fleet fleet(config);
    for (uint16_t host = 0; host < 5; ++host)
      for (int k = 0; k < 8; ++k) fleet.poisson(host, "w", key_name(k), 20, 0s, 70s);
    fleet.run_until(12s);
    for (uint16_t host = 0; under_way && host < 3; ++host) move_one(fleet, host, 1);
    fleet.network().split({false, false, false, true, true});
    for (const uint16_t host : std::vector<uint16_t>{3, 4}) move_one(fleet, host, 1, false);
    fleet.run_until(40s);
    fleet.network().mend_all();
    fleet.run_until(70s);
    CHECK_MESSAGE(fleet.violations().empty(), complaints(fleet));
  }
}

TEST_CASE("lists: a newcomer's bucket begins with what owners of before may have issued") {
  Fleet fleet(exact({{{0, 1, 2}, 5, {}}, {{0, 1, 2, 3, 4}, 5, {}}}, 5, bucket_rule("b", 200, 200, 9s, 0)));
  fleet.run_until(12s);
  for (const uint16_t host : std::vector<uint16_t>{0, 1, 2, 4}) {
    move_one(fleet, host, 1);
    fleet.run_for(200ms);
  }
  // 3 is not up yet, so the others wait for it, and choose their times ten seconds after the start.
  for (int k = 0; k < 40; ++k)
    for (uint16_t host = 0; host < 3; ++host) fleet.poisson(host, "b", key_name(k), 150, 23s, 24s);
  while (fleet.node(0).tenure().settled == WallTime::max() && fleet.now() < 60s) fleet.run_for(100ms);
  REQUIRE(fleet.now() < 60s);
  fleet.crash(0);
  REQUIRE(fleet.give_list(3, 1, false));
  fleet.start(3);
  fleet.run_for(700ms);
  for (int k = 0; k < 40; ++k) fleet.poisson(3, "b", key_name(k), 150, fleet.now(), fleet.now() + 3s);
  fleet.run_for(4s);
  CHECK_MESSAGE(fleet.violations().empty(), complaints(fleet));
}
