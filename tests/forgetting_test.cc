// Attacks on reading registers anew and on beginning anew: schedules that once broke the bound, locked a key or flooded the network.
#include <doctest/doctest.h>

#include "cluster/recovery.h"
#include "cluster/registers.h"
#include "core/windows.h"
#include "node_fixture.h"
#include "seed.h"
#include "sim/fleet.h"
#include "sim/trace.h"

using namespace tally;

namespace {

constexpr Duration kDay = std::chrono::hours(24);

Rule day_rule(uint32_t limit, OnAmnesia on_amnesia) {
  Rule rule = test::window_rule(Algorithm::fixed_window, limit, kDay, {.ppm = 0, .unbounded = false});
  rule.on_isolation = OnIsolation::closed;
  rule.on_amnesia = on_amnesia;
  return rule;
}

// Three nodes of which any may be killed and started again with nothing but their state files.
struct Stage {
  test::Fleet fleet;
  std::string key;
  uint64_t next = 20;

  explicit Stage(const Rule& rule) : fleet(3, rule), key((fleet.until_ready(), fleet.key_of(0))) { fleet.must_settle = false; }
  void restart(const std::vector<uint16_t>& ranks, Duration after = test::secs(2)) {
    for (const uint16_t rank : ranks) fleet.stop(rank);
    for (const uint16_t rank : ranks) {
      fleet.start(rank, {.incarnation = next, .first = false, .reckoned_start = fleet.now().wall});
      next += 20;
    }
    fleet.pass(after, test::ms(10));
  }
  uint32_t take(const std::vector<uint16_t>& ranks, int tries = 300) {
    uint32_t n = 0;
    for (int i = 0; i < tries; ++i) {
      n += fleet.admits(ranks[static_cast<size_t>(i) % ranks.size()], key) ? 1 : 0;
      fleet.pass(test::ms(10));
    }
    return n;
  }
  uint64_t begun() {
    uint64_t n = 0;
    for (uint16_t rank = 0; rank < 3; ++rank) n += fleet.node(rank).stats().begun_anew;
    return n;
  }
};

}  // namespace

TEST_CASE("where nobody has a vote any more and all three live, a window begins anew, though marks of it were read") {
  Stage lives(day_rule(100, OnAmnesia::forget));
  const uint32_t spent = lives.take({0, 1, 2}, 20);
  REQUIRE(spent == 20);
  lives.restart({1, 2});  // two at once
  lives.restart({0});     // later the third
  for (uint16_t rank = 0; rank < 3; ++rank) CHECK(lives.fleet.node(rank).ready());
  const uint32_t more = lives.take({0, 1, 2}, 600);
  MESSAGE("admitted " << more << " more");
  CHECK(more > 0);
  CHECK(more <= 100);
}

TEST_CASE("two do not vote anew without the third, which would know nothing of it") {
  Stage lives(day_rule(100, OnAmnesia::forget));
  REQUIRE(lives.take({0, 1, 2}, 20) == 20);
  lives.restart({0, 1, 2});
  const Group group = lives.fleet.group(lives.key);
  const uint16_t third = group.rank[2];
  bool apart = false;
  lives.fleet.watch = [&](const Entry& entry, uint16_t, uint16_t) {
    if (const auto* mark = std::get_if<Mark>(&entry); mark != nullptr && mark->anew()) apart = true;
  };
  lives.fleet.cut = [&](uint16_t from, uint16_t to) { return apart && (from == third || to == third); };
  const uint32_t first = lives.take({group.rank[0], group.rank[1]}, 500);
  lives.fleet.watch = {};
  lives.fleet.cut = {};
  MESSAGE("two without the third: " << first << ", begun anew " << lives.begun());
  lives.restart({group.rank[0], group.rank[1]});  // the third lives on
  const uint32_t second = lives.take({0, 1, 2}, 500);
  MESSAGE("then: " << second << ", begun anew " << lives.begun());
  CHECK(first + second <= 100);
}

TEST_CASE("who has begun anew with two that are dead since does not begin once more") {
  Stage stage(day_rule(100, OnAmnesia::forget));
  REQUIRE(stage.take({0, 1, 2}, 20) == 20);
  stage.restart({0, 1, 2});
  const Group group = stage.fleet.group(stage.key);
  const uint16_t third = group.rank[2];
  bool apart = false;
  stage.fleet.watch = [&](const Entry& entry, uint16_t, uint16_t) {
    if (const auto* mark = std::get_if<Mark>(&entry); mark != nullptr && !mark->claim && mark->ballot.counter > 0) apart = true;
  };
  stage.fleet.cut = [&](uint16_t from, uint16_t to) { return apart && (from == third || to == third); };
  const uint32_t first = stage.take({group.rank[0], group.rank[1]}, 300);
  REQUIRE(stage.begun() == 1);
  CHECK(first >= 90);
  stage.fleet.watch = {};
  stage.fleet.cut = {};
  stage.restart({group.rank[0], group.rank[1]});  // the third has promised, and knows nothing of what followed
  CHECK(first + stage.take({0, 1, 2}, 300) <= 100);
}

TEST_CASE("a claimant that begins anew and is cut off for two seconds does not lock the key") {
  Stage lives(day_rule(100, OnAmnesia::forget));
  REQUIRE(lives.take({0, 1, 2}, 20) == 20);
  lives.restart({0, 1, 2});
  bool apart = false;
  uint16_t claimant = 99;
  lives.fleet.watch = [&](const Entry& entry, uint16_t from, uint16_t) {
    if (const auto* mark = std::get_if<Mark>(&entry); mark != nullptr && mark->anew() && claimant == 99) claimant = from, apart = true;
  };
  lives.fleet.cut = [&](uint16_t from, uint16_t to) { return apart && (from == claimant || to == claimant); };
  const uint32_t first = lives.take({lives.fleet.group(lives.key).rank[0]}, 20);
  REQUIRE(claimant != 99);
  lives.fleet.pass(test::secs(2), test::ms(10));
  lives.fleet.watch = {};
  lives.fleet.cut = {};
  const uint32_t second = lives.take({0, 1, 2}, 1000);
  MESSAGE(first << " then " << second << ", begun anew " << lives.begun());
  CHECK(first + second <= 100);
  CHECK(second > 50);
}

TEST_CASE("a claimant that dies with its claim to begin anew under way does not lock the key") {
  Stage lives(day_rule(100, OnAmnesia::forget));
  REQUIRE(lives.take({0, 1, 2}, 20) == 20);
  lives.restart({0, 1, 2});
  uint16_t claimant = 99, reached = 99;
  lives.fleet.watch = [&](const Entry& entry, uint16_t from, uint16_t to) {
    if (const auto* mark = std::get_if<Mark>(&entry); mark != nullptr && mark->anew() && claimant == 99) claimant = from, reached = to;
  };
  // It reaches one other; then the claimant is dead.
  lives.fleet.cut = [&](uint16_t from, uint16_t to) { return claimant != 99 && (to == claimant || (from == claimant && to != reached)); };
  lives.take({lives.fleet.group(lives.key).rank[0]}, 1);
  REQUIRE(claimant != 99);
  lives.fleet.watch = {};
  lives.fleet.cut = {};
  lives.restart({claimant});
  const uint32_t more = lives.take({0, 1, 2}, 1000);
  MESSAGE("admitted " << more << ", begun anew " << lives.begun());
  CHECK(more > 50);
  CHECK(more <= 100);
}

TEST_CASE("the window after one that was begun anew counts what was accepted there") {
  for (const bool restarted : {false, true}) {
    Rule rule = test::window_rule(Algorithm::sliding_window, 100, test::secs(60), {.ppm = 0, .unbounded = false});
    rule.on_isolation = OnIsolation::closed;
    rule.on_amnesia = OnAmnesia::forget;
    Stage lives(rule);
    if (restarted) lives.restart({0, 1, 2});
    REQUIRE(lives.take({0, 1, 2}, 30) == 30);
    const int64_t window = window_at(lives.fleet.now().wall, test::secs(60));
    while (window_at(lives.fleet.now().wall, test::secs(60)) == window) lives.fleet.pass(test::ms(100), test::ms(100));
    lives.fleet.pass(test::secs(3), test::ms(50));
    const uint32_t more = lives.take({0, 1, 2}, 200);
    MESSAGE(std::string(restarted ? "begun anew: " : "as ever: ") << more);
    CHECK(more >= 60);
  }
}

namespace {

// Who reads anew, alone: what it hears is written by hand.
struct Reader {
  Now now = test::at(test::secs(100));
  Roster roster = test::roster_of(3);
  Standing standing{false, now.wall, test::ms(100), true, now};
  Succession succession{roster, 0, {}, {}, standing, test::ms(100), now};
  Recovery recovery{roster, 0, 7, standing, succession};
  Registers registers{1000, 0, roster, standing, succession, recovery};
  Peers peers{roster, 0, std::nullopt, test::ms(100)};
  Mail mail{roster, peers, 7, kPublicIdKey};
  WireId key;

  RegistersEnd end(uint64_t snapshot, uint64_t count, WallTime clock) const {
    RegistersEnd e;
    e.life = 7;
    e.snapshot = snapshot;
    e.count = count;
    e.votes_from_ns = nanos(WallTime::min());
    e.clock_ns = nanos(clock);
    e.remembers = Duration::max();
    return e;
  }
  Registered entry(uint64_t snapshot, uint64_t index, Duration length) const {
    Registered r;
    r.life = 7;
    r.snapshot = snapshot;
    r.index = index;
    r.key = key;
    r.window = window_at(now.wall, test::secs(10));
    r.length = length;
    r.promised = r.mark_ballot = {1, 5};
    r.mark = 60;
    if (length == Duration(0)) r.clock_ns = nanos(now.wall + test::secs(30));
    return r;
  }
};

}  // namespace

TEST_CASE("an entry that was over when it was told counts as absent by the clock by which it was over") {
  Reader r;
  const int64_t window = window_at(r.now.wall, test::secs(10));
  r.recovery.on_end(r.end(1, 0, r.now.wall), 2, 1, r.mail, r.now);
  // The first answer lost its entry, the second its end; between the two the teller's clock left the window by three.
  r.recovery.on_end(r.end(1, 1, r.now.wall + test::secs(20)), 1, 1, r.mail, r.now);
  r.recovery.on_registered(r.entry(1, 0, Duration(0)), 1, 1, r.registers, r.now);
  CHECK_FALSE(r.recovery.has_read(r.key, window, test::secs(10)));
}

TEST_CASE("a teller whose host was booted anew numbers its list from a lower clock, and is heard") {
  Reader r;
  r.recovery.on_end(r.end(1'000'000'000'000, 0, r.now.wall), 2, 1, r.mail, r.now);
  r.recovery.on_end(r.end(1'000'000'000'000, 1, r.now.wall), 1, 1, r.mail, r.now);  // 1000 s after its boot; dies before it told the entry
  r.recovery.on_end(r.end(20'000'000'000, 0, r.now.wall), 1, 2, r.mail, r.now);     // 20 s after the next boot
  CHECK(r.recovery.complete());
}

TEST_CASE("a network that duplicates one datagram of ten makes no questions of questions") {
  using namespace std::chrono_literals;
  uint64_t datagrams[2]{};
  for (const bool duplicates : {false, true}) {
    sim::FleetConfig config;
    config.nodes = 3;
    config.keys = 60'000;
    Rule rule = sim::window_rule("api", Algorithm::fixed_window, 100, kDay, 0);
    rule.on_isolation = OnIsolation::closed;
    config.rules = {rule};
    config.check_wire = false;
    config.thread_delay = 20us;
    sim::Fleet fleet(config);
    for (int key = 0; key < 6'000; ++key) fleet.evenly(static_cast<uint16_t>(key % 3), "api", "k" + std::to_string(key), 1, 1s, 3s);
    fleet.run_until(4s);
    if (duplicates)
      for (uint16_t a = 0; a < 3; ++a)
        for (uint16_t b = 0; b < 3; ++b)
          if (a != b) fleet.network().link(a, b).duplicate = 0.1;
    fleet.crash(1);
    fleet.start(1);
    const uint64_t before = fleet.traffic().datagrams;
    const Duration began = fleet.now();
    for (int i = 0; i < 2000 && !fleet.node(1).ready() && fleet.traffic().datagrams - before < 400'000; ++i) fleet.run_for(200us);
    datagrams[duplicates] = fleet.traffic().datagrams - before;
    MESSAGE(std::string(duplicates ? "with duplicates: " : "without: ") << datagrams[duplicates] << " datagrams in "
            << sim::describe(fleet.now() - began) << ", ready " << fleet.node(1).ready() << ", registers " << fleet.node(1).stats().registers);
  }
  CHECK(datagrams[1] < datagrams[0] * 2);
}

TEST_CASE("what a peer said to a life before the last one does not shut this one for ever") {
  Stage lives(day_rule(100, OnAmnesia::deny));
  test::Fleet& fleet = lives.fleet;
  fleet.stop(1);
  fleet.start(1, {.incarnation = 40, .first = false, .reckoned_start = fleet.now().wall});  // 20, 30, 40: a loop of crashes
  DatagramWriter writer(fleet.header(2, 1), kPublicIdKey);
  REQUIRE(writer.add(Clone{20, 10, false}));  // late
  fleet.node(1).receive(writer.finish(), 2, fleet.now());
  fleet.pass(test::ms(500));
  CHECK(fleet.dropped(1, "this_node_is_a_clone") == 0);
}

namespace {

using namespace std::chrono_literals;

sim::FleetConfig three(uint32_t limit, Duration window) {
  sim::FleetConfig config;
  config.nodes = 3;
  Rule rule = sim::window_rule("api", Algorithm::fixed_window, limit, window, 0);
  rule.on_isolation = OnIsolation::closed;
  rule.on_amnesia = OnAmnesia::deny;
  rule.wait = 200ms;
  config.rules = {rule};
  return config;
}

void burst(sim::Fleet& fleet, Duration at, uint16_t rank, const std::string& key, uint32_t n) {
  fleet.at(at, [&fleet, rank, key, n] {
    for (uint32_t i = 0; i < n; ++i) fleet.take(rank, "api", key);
  });
}

}  // namespace

TEST_CASE("what a teller's clock has left while it told is not voted in again") {
  uint64_t broken = 0, runs = 0;
  for (uint64_t seed = 1; seed <= scaled(20, 4); ++seed) {
    sim::FleetConfig config = three(10, 60s);
    config.seed = seed;
    sim::Fleet fleet(config);
    std::vector<std::string> keys;
    for (int i = 0; keys.size() < 60; ++i)
      if (fleet.owner("api", "k" + std::to_string(i)) == 0) keys.push_back("k" + std::to_string(i));
    const uint16_t teller = 0, reader = 1, third = 2;
    fleet.at(1s, [&] { fleet.network().cut_off(third); });
    for (const std::string& key : keys) burst(fleet, 1200ms, teller, key, 15);
    fleet.at(2s, [&] { fleet.crash(reader); });
    fleet.at(2s, [&] {
      for (const auto& [from, to] : {std::pair(third, reader), std::pair(reader, third)}) fleet.network().mend(from, to);
      fleet.network().link(teller, reader).loss = 0.5;
    });
    fleet.at(2100ms, [&] { fleet.start(reader); });
    fleet.at(2150ms, [&] { fleet.step_wall_clock(teller, 180s); });  // the teller's clock leaps; it spends nothing more
    fleet.at(3500ms, [&] { fleet.network().cut_off(teller); });
    for (const std::string& key : keys) burst(fleet, 4s, third, key, 15);
    for (const std::string& key : keys) burst(fleet, 4500ms, third, key, 15);
    fleet.run_until(6s);
    ++runs;
    broken += !fleet.violations().empty();
    if (!fleet.violations().empty()) MESSAGE("seed " << seed << ": " << fleet.violations()[0].what);
  }
  MESSAGE("broken in " << broken << " of " << runs);
  CHECK(broken == 0);
}

TEST_CASE("who has read anew from one whose clock had left a window does not vouch for that window") {
  sim::FleetConfig config = three(100, 60s);
  config.horizon_step = 0s;
  sim::Fleet fleet(config);
  const Group group = fleet.group("api", "k");
  const uint16_t early = group.rank[0], reader = group.rank[1], third = group.rank[2];
  const auto mend_all = [&] { fleet.network().mend_all(); };
  fleet.at(1s, [&] { fleet.network().cut_off(third); });
  burst(fleet, 1200ms, early, "k", 150);  // marked by these two
  fleet.at(3s, mend_all);
  fleet.at(3s, [&] { fleet.step_wall_clock(early, 180s); });  // three windows on: forgotten here
  fleet.at(5s, [&] { fleet.crash(reader); });
  fleet.at(5100ms, [&] { fleet.start(reader); });  // reads from both, and has no vote itself
  fleet.at(7s, [&] { fleet.crash(early, false); });
  fleet.at(7100ms, [&] {
    fleet.step_wall_clock(early, -180s);  // set right, and started without its state file
    fleet.start(early);
  });
  for (Duration t = 9s; t < 14s; t += 500ms)
    for (const uint16_t rank : {early, reader, third}) burst(fleet, t, rank, "k", 20);
  fleet.run_until(15s);
  MESSAGE("admitted " << fleet.tally("api", "k").admitted());
  for (const sim::Violation& v : fleet.violations()) FAIL_CHECK(sim::describe(v.at) << ": " << v.what);
}

TEST_CASE("a ballot that comes again after a second forgetting counts nothing that was given back under the first one") {
  Rule rule = day_rule(100, OnAmnesia::forget);
  test::Fleet fleet(4, rule);
  fleet.until_ready();
  fleet.must_settle = false;
  std::string key;
  for (int i = 0; key.empty(); ++i)
    if (const Group group = fleet.group("key" + std::to_string(i)); !group.contains(3)) key = "key" + std::to_string(i);
  const Group group = fleet.group(key);
  uint64_t next = 20;
  const auto restart = [&] {
    for (size_t i = 0; i < 3; ++i) fleet.stop(group.rank[i]);
    for (size_t i = 0; i < 3; ++i) {
      fleet.start(group.rank[i], {.incarnation = next, .first = false, .reckoned_start = fleet.now().wall});
      next += 20;
    }
    fleet.pass(test::secs(2), test::ms(10));
  };
  const auto take = [&](uint16_t rank, int tries) {
    uint32_t n = 0;
    for (int i = 0; i < tries; ++i) {
      n += fleet.admits(rank, key) ? 1 : 0;
      fleet.pass(test::ms(10));
    }
    return n;
  };
  restart();
  const uint32_t other = take(group.rank[0], 50), here = take(3, 5);
  REQUIRE(other == 50);
  fleet.pass(test::ms(300), test::ms(10));
  const uint32_t given = fleet.give(3, key, 45);
  fleet.pass(test::ms(300), test::ms(10));
  MESSAGE("first: " << other << " and " << here << ", given back " << given << ", ballot " << fleet.explain(3, key).ballot_counter);
  restart();
  uint32_t more = take(group.rank[0], 60);
  MESSAGE("then " << more << ", ballot " << fleet.explain(group.rank[0], key).ballot_counter);
  more += take(3, 20);
  more += take(group.rank[0], 200);
  MESSAGE("in all " << more << ", ballot " << fleet.explain(group.rank[0], key).ballot_counter);
  CHECK(more <= 100);
}

TEST_CASE("who has no room for what it reads asks for it more and more seldom") {
  Reader r;
  Registers small(2, 0, r.roster, r.standing, r.succession, r.recovery);
  r.recovery.tick(r.mail, r.now);
  r.recovery.on_end(r.end(1, 0, r.now.wall), 2, 1, r.mail, r.now);
  r.recovery.on_end(r.end(1, 3, r.now.wall), 1, 1, r.mail, r.now);
  for (uint64_t i = 0; i < 3; ++i) {
    Registered entry = r.entry(1, i, kDay);
    entry.window = window_at(r.now.wall, kDay) - static_cast<int64_t>(i);
    r.recovery.on_registered(entry, 1, 1, small, r.now);
  }
  CHECK_FALSE(r.recovery.complete());
  Peers peers(r.roster, 0, std::nullopt, test::ms(100));
  r.mail.flush(peers, r.now);
  const uint64_t before = r.mail.entries()[Entry(ReadRegisters{}).index()];
  for (int i = 0; i < 600; ++i) {
    r.now.mono += test::ms(100);
    r.recovery.tick(r.mail, r.now);
    r.mail.flush(peers, r.now);
  }
  const uint64_t asked = r.mail.entries()[Entry(ReadRegisters{}).index()] - before;
  MESSAGE(asked << " questions in a minute, each for up to 400 entries");
  CHECK(asked <= 70);
}

TEST_CASE("a roster member of no group of the keys cannot fill a reading node's register with entries that never end") {
  Reader r;
  Random random(5);
  for (uint64_t i = 0; i < 2000; ++i) {
    Registered entry = r.entry(1, i, test::ms(1));
    entry.key = test::random_key(random);
    entry.window = int64_t{1} << 60;  // of a millisecond: long after the end of the world
    entry.mark = UINT64_MAX;
    entry.promised.counter = UINT32_MAX;
    r.recovery.on_registered(entry, 1, 1, r.registers, r.now);
  }
  for (int i = 0; i < 1000; ++i) {
    r.now.mono += test::secs(86'400);
    r.now.wall += test::secs(86'400);
    r.standing.tick(r.now, true);
    r.registers.expire(r.now);
  }
  MESSAGE(r.registers.size() << " entries of 1000 after a thousand days");
  CHECK(r.registers.size() == 0);
}
