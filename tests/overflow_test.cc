// A full register: what its sketch keeps for keys that found no room, and what it must not say of them.
#include <doctest/doctest.h>

#include "cluster/recovery.h"
#include "cluster/registers.h"
#include "cluster_fixture.h"
#include "core/windows.h"
#include "sim/fleet.h"

using namespace tally;
using namespace tally::test;
using namespace std::chrono_literals;

namespace {

constexpr Duration kWindow = secs(10);

// A member with a vote everywhere, whose table is full with one key for as long as its bucket is not idle,
// and which keeps all others in the two cells of a window, or in many.
struct Full {
  static constexpr Duration kTableFor = secs(5);
  Now now = at(Duration(0));
  Roster roster;
  Standing standing;
  Succession succession;
  Recovery recovery;
  Registers registers;
  Random random{5};
  Peers peers;
  Mail mail;

  explicit Full(size_t cells, size_t nodes = 3, bool first_life = true)
      : roster(roster_of(nodes)),
        standing(first_life, now.wall, ms(100), false, now),
        succession(roster, 0, {}, {}, standing, ms(100), now),
        recovery(roster, 0, 7, standing, succession),
        registers(1, cells, roster, standing, succession, recovery),
        peers(roster, 0, std::nullopt, ms(100)),
        mail(roster, peers, 7, kPublicIdKey) {
    if (!first_life) read_all();
    const auto taken = registers.accept(bucket(random_key(random), secs(1), ballot(0), kTableFor), now);
    REQUIRE(taken.has_value());
    REQUIRE(registers.size() == 1);
  }
  // A later life, which all others have told that they remember everything, and that there is nothing.
  void read_all() {
    for (uint16_t other = 1; other < roster.count(); ++other) {
      RegistersEnd end;
      end.life = 7;
      end.snapshot = 1;
      end.votes_from_ns = nanos(WallTime::min());
      end.clock_ns = nanos(now.wall);
      end.remembers = Duration::max();
      recovery.on_end(end, other, 1, mail, now);
    }
  }
  int64_t running() const { return window_at(now.wall, kWindow); }
  void pass(Duration d) {
    now.mono += d;
    now.wall += d;
    standing.tick(now, true);
    for (int i = 0; i < 40; ++i) registers.expire(now);
  }
  Ballot ballot(uint32_t counter, uint16_t rank = 1) const { return {counter, roster.id(rank)}; }
  static Mark mark(const WireId& key, int64_t window, uint64_t amount, Ballot ballot, bool sliding = false) {
    Mark m;
    m.key = key;
    m.window = window;
    m.ballot = ballot;
    m.mark = amount;
    m.length = kWindow;
    m.sliding = sliding;
    return m;
  }
  static Mark claim(const WireId& key, int64_t window, Ballot ballot, uint64_t life) {
    Mark m = mark(key, window, 0, ballot);
    m.claim = true;
    m.number = life;
    return m;
  }
  static Mark bucket(const WireId& key, Duration remaining, Ballot ballot, Duration keep) {
    Mark m;
    m.key = key;
    m.ballot = ballot;
    m.mark = static_cast<uint64_t>(nanos(remaining));
    m.length = keep;
    m.number = 1;
    return m;
  }
  // The answer to somebody who reads anew.
  RegistersEnd told(uint64_t life) {
    ReadRegisters read;
    read.life = life;
    recovery.on_read(read, 1, registers, mail, now);
    mail.flush(peers, now);
    RegistersEnd end;
    for (const Outgoing& out : mail.take()) {
      Datagram datagram;
      REQUIRE(decode(out.bytes, kPublicIdKey, datagram) == DecodeError::none);
      for (const Entry& entry : datagram.entries)
        if (const auto* e = std::get_if<RegistersEnd>(&entry)) end = *e;
    }
    return end;
  }
};

constexpr size_t kMany = 4096;
constexpr size_t kTwo = 16;  // two for each window

}  // namespace

TEST_CASE(
    "a full register accepts marks, refuses what is below a promise and tells a claimant what it accepted") {
  Full m(kMany);
  const WireId key = random_key(m.random);
  const int64_t w = m.running();
  const auto first = m.registers.accept(Full::mark(key, w, 40, m.ballot(0)), m.now);
  REQUIRE(first.has_value());
  CHECK(first->taken());
  CHECK(first->mark == 40);
  CHECK(m.registers.size() == 1);
  CHECK(m.registers.overflowed() == 1);
  CHECK(m.registers.overflow_cells() == 2);
  const auto promise = m.registers.accept(Full::claim(key, w, m.ballot(2, 2), 9), m.now);
  REQUIRE(promise.has_value());
  CHECK(promise->taken());
  CHECK(promise->mark == 40);
  const auto late = m.registers.accept(Full::mark(key, w, 50, m.ballot(0)), m.now);
  REQUIRE(late.has_value());
  CHECK(late->refused);
  CHECK(late->ballot == m.ballot(2, 2));
  CHECK(m.registers.look(key, w, m.now)->mark == 40);
  const auto again = m.registers.accept(Full::claim(key, w, m.ballot(2, 2), 9), m.now);
  CHECK(again->taken());
  const auto other_life = m.registers.accept(Full::claim(key, w, m.ballot(2, 2), 10), m.now);
  CHECK(other_life->refused);
}

TEST_CASE("an acceptance out of a shared cell is of what was asked, a promise tells the largest") {
  Full m(kTwo);
  const WireId key = random_key(m.random), other = random_key(m.random);
  const int64_t w = m.running();
  m.registers.accept(Full::mark(other, w, 90, m.ballot(0)), m.now);
  CHECK(m.registers.accept(Full::mark(key, w, 10, m.ballot(0)), m.now)->mark == 10);
  CHECK(m.registers.accept(Full::claim(key, w, m.ballot(1, 2), 9), m.now)->mark == 90);
  CHECK(m.registers.look(key, w, m.now)->shared);
}

TEST_CASE("an entry that is opened when there is room again begins with what the sketch has of its key") {
  for (const bool bucket : {false, true}) {
    Full m(kMany);
    const WireId key = random_key(m.random);
    const int64_t w = bucket ? 0 : m.running();
    const auto mark = [&](uint64_t n, Ballot ballot) {
      return bucket ? Full::bucket(key, secs(static_cast<int64_t>(n)), ballot, secs(60))
                    : Full::mark(key, w, n, ballot);
    };
    const auto told = [&] {
      return bucket ? m.registers.look(key, w, m.now)->mark / 1'000'000'000
                    : m.registers.look(key, w, m.now)->mark;
    };
    m.registers.accept(mark(40, m.ballot(3, 2)), m.now);
    m.pass(Full::kTableFor);
    REQUIRE(m.registers.size() == 0);
    const auto older = m.registers.accept(mark(1, m.ballot(2, 1)), m.now);
    REQUIRE(older.has_value());
    CHECK(older->refused);
    CHECK(older->ballot == m.ballot(3, 2));
    CHECK(m.registers.accept(mark(5, m.ballot(3, 2)), m.now)->taken());
    CHECK(m.registers.size() == 1);
    CHECK_FALSE(m.registers.look(key, w, m.now)->shared);
    CHECK(told() >= (bucket ? 36 : 40));
    CHECK(m.registers.overflowed() == 1);
  }
}

TEST_CASE("of the window before, a sketch tells its mark under nobody's ballot, in the table too") {
  for (const bool moved : {false, true}) {
    Full m(kMany);
    const WireId key = random_key(m.random);
    const int64_t w = m.running();
    m.registers.accept(Full::mark(key, w, 40, m.ballot(0), true), m.now);
    if (moved) {  // a claim opens an entry, and accepts nothing under its own ballot
      m.pass(Full::kTableFor);
      REQUIRE(m.registers.accept(Full::claim(key, w, m.ballot(1, 2), 9), m.now)->taken());
      REQUIRE(m.registers.size() == 1);
    }
    m.pass(kWindow - (moved ? Full::kTableFor : Duration(0)));
    const auto next = m.registers.accept(Full::mark(key, w + 1, 3, m.ballot(0), true), m.now);
    REQUIRE(next.has_value());
    CHECK(next->previous_told);
    CHECK(next->previous_mark == 40);
    CHECK(next->previous_ballot == kNobodysBallot);
  }
  Full m(kMany);  // nothing was accepted
  const WireId key = random_key(m.random);
  const auto next = m.registers.accept(Full::mark(key, m.running(), 3, m.ballot(0), true), m.now);
  REQUIRE(next.has_value());
  CHECK(next->previous_told);
  CHECK(next->previous_mark == 0);
  CHECK(next->previous_ballot == Ballot{});
}

TEST_CASE("what a sketch keeps of a window it keeps for as long as a table would") {
  Full m(kMany);
  const WireId key = random_key(m.random);
  const int64_t w = m.running();
  m.registers.accept(Full::mark(key, w, 40, m.ballot(0)), m.now);
  m.pass(kWindow * 3 - Duration(1));
  REQUIRE(m.registers.look(key, w, m.now).has_value());
  CHECK(m.registers.look(key, w, m.now)->mark == 40);
  m.pass(Duration(1));
  CHECK_FALSE(m.registers.look(key, w, m.now).has_value());
  CHECK(m.registers.overflow_cells() == 0);
}

TEST_CASE("a bucket's mark in the sketch is kept with its margin, and its promise for its keep") {
  Full m(kMany);
  const WireId key = random_key(m.random);
  const auto answer = m.registers.accept(Full::bucket(key, ms(3200), m.ballot(2, 2), secs(4)), m.now);
  REQUIRE(answer.has_value());
  CHECK(answer->mark == static_cast<uint64_t>(nanos(ms(3200))));
  CHECK(m.registers.look(key, 0, m.now)->mark == static_cast<uint64_t>(nanos(ms(3300))));
  m.pass(secs(4) - Duration(1));
  CHECK(m.registers.accept(Full::bucket(key, ms(100), m.ballot(0), secs(4)), m.now)->refused);
  m.pass(Duration(1));
  CHECK(m.registers.accept(Full::bucket(key, ms(100), m.ballot(0), secs(4)), m.now)->taken());
}

TEST_CASE("a promise that is another group's is told as one that a member of the key's group could have") {
  Full m(kTwo, 7);
  const int64_t w = m.running();
  for (int i = 0; i < 200;
       ++i) {  // keys of all groups, claimed by their members in turn; all share two cells
    const WireId key = random_key(m.random);
    const Group group = m.roster.group(key);
    const auto answer = m.registers.accept(Full::mark(key, w, 1, {0, m.roster.id(group.rank[0])}), m.now);
    REQUIRE(answer.has_value());
    if (answer->refused) {
      const auto rank = m.roster.rank_of(answer->ballot.node);
      REQUIRE(rank.has_value());
      REQUIRE(group.contains(*rank));
      REQUIRE(answer->ballot.counter >= 1);
    }
    const Ballot promised =
        m.registers.look(key, w, m.now) ? m.registers.look(key, w, m.now)->promised : Ballot{};
    const uint16_t claimant = group.rank[static_cast<size_t>(i) % group.size];
    const auto promise =
        m.registers.accept(Full::claim(key, w, {promised.counter + 1, m.roster.id(claimant)}, 9), m.now);
    REQUIRE(promise.has_value());
    CHECK(promise->taken());  // above all that was told
    const auto lower = m.registers.accept(Full::mark(key, w, 1, {0, m.roster.id(group.rank[0])}), m.now);
    CHECK((lower->refused || promise->ballot.counter == 0));
  }
}

TEST_CASE(
    "without cells a full register does not answer, and vouches for no window of which it lost a mark of its "
    "own") {
  Full m(0);
  const WireId key = random_key(m.random);
  const int64_t w = m.running();
  CHECK_FALSE(m.registers.accept(Full::mark(key, w, 40, m.ballot(0)), m.now).has_value());
  CHECK(m.registers.refused_full() == 1);
  CHECK(m.registers.overflowed() == 0);
  CHECK(m.told(100).votes_from_ns <
        nanos(window_start(w, kWindow)));  // it answered nobody, so nobody relies on it
  m.registers.remember_own(Full::mark(key, w, 40, m.ballot(0)), m.now);
  CHECK(m.told(101).votes_from_ns > nanos(window_start(w, kWindow)));
  CHECK(m.told(102).votes_from_ns <= nanos(window_start(w + 1, kWindow)));
  CHECK(m.told(103).remembers > secs(1000));
  m.registers.remember_own(Full::bucket(key, secs(1), m.ballot(0), secs(20)), m.now);
  CHECK(m.told(104).remembers == Duration(0));
  m.pass(secs(20));
  CHECK(m.told(105).remembers > secs(1000));
}

TEST_CASE("who has marks in a sketch vouches for no window that began before them, and not for buckets") {
  Full m(kMany);
  const WireId key = random_key(m.random);
  const int64_t w = m.running();
  CHECK(m.told(100).votes_from_ns == nanos(WallTime::min()));
  SUBCASE("windows") {
    m.registers.accept(Full::mark(key, w, 40, m.ballot(0)), m.now);
    CHECK(m.told(101).votes_from_ns > nanos(window_start(w, kWindow)));
    CHECK(m.told(101).votes_from_ns <= nanos(window_start(w + 1, kWindow)));
    CHECK(m.told(101).remembers > secs(1000));
    m.pass(kWindow * 3);
    CHECK(m.told(102).votes_from_ns == nanos(WallTime::min()));
  }
  SUBCASE("buckets") {
    m.registers.accept(Full::bucket(key, secs(1), m.ballot(0), secs(20)), m.now);
    CHECK(m.told(101).remembers == Duration(0));
    CHECK(m.told(101).votes_from_ns == nanos(WallTime::min()));
  }
  SUBCASE("as of the list: a bucket that leaves the sketch for the table later is not in it") {
    m.registers.accept(Full::bucket(key, secs(1), m.ballot(0), secs(7)), m.now);
    CHECK(m.told(101).remembers == Duration(0));
    m.pass(secs(5));  // there is room
    REQUIRE(m.registers.accept(Full::bucket(key, secs(1), m.ballot(0), secs(7)), m.now)->taken());
    m.pass(secs(2));
    REQUIRE(m.registers.overflow_cells() == 0);
    REQUIRE(m.registers.look(key, 0, m.now).has_value());
    CHECK(m.told(101).remembers == Duration(0));
    CHECK(m.told(102).remembers > secs(1000));  // a new list has it
  }
}

TEST_CASE("what is read anew where the table is full goes into the sketch") {
  Full m(kMany, 3, false);
  const WireId key = random_key(m.random);
  Registered told;
  told.key = key;
  told.window = m.running();
  told.length = kWindow;
  told.promised = told.mark_ballot = m.ballot(2, 2);
  told.promised_life = 9;
  told.mark = 40;
  CHECK(m.registers.restore(told, m.now));
  const auto held = m.registers.look(key, told.window, m.now);
  REQUIRE(held.has_value());
  CHECK(held->mark == 40);
  CHECK(held->promised == m.ballot(2, 2));
  CHECK(m.registers.accept(Full::mark(key, told.window, 1, m.ballot(0)), m.now)->refused);
  told.window -= 3;  // long over: there is nothing to keep
  CHECK(m.registers.restore(told, m.now));
  CHECK_FALSE(m.registers.look(key, told.window, m.now).has_value());
  told.key = random_key(m.random);
  told.window = 0;
  told.length = secs(20);
  told.mark = static_cast<uint64_t>(nanos(secs(16)));
  CHECK(m.registers.restore(told, m.now));
  CHECK(m.registers.look(told.key, 0, m.now)->mark == static_cast<uint64_t>(nanos(ms(16'500))));
}

TEST_CASE("a mark of this node's own that it may not vote for is kept in the sketch all the same") {
  Full m(kMany);
  const WireId key = random_key(m.random);
  m.registers.remember_own(Full::mark(key, m.running(), 40, m.ballot(1, 0)), m.now);
  CHECK(m.registers.look(key, m.running(), m.now)->mark == 40);
  CHECK(m.told(100).votes_from_ns > nanos(window_start(m.running(), kWindow)));
}

TEST_CASE(
    "a natural owner may begin where only other keys are in its cells, and not where its own claim may be") {
  Full m(kTwo);
  const WireId key = random_key(m.random), other = random_key(m.random), third = random_key(m.random);
  const int64_t w = m.running();
  CHECK(m.registers.may_begin(key, w, m.now));
  m.registers.accept(Full::mark(other, w, 90, m.ballot(0)), m.now);
  m.registers.accept(Full::claim(other, w, m.ballot(1, 2), 9), m.now);
  CHECK(m.registers.may_begin(key, w, m.now));
  CHECK_FALSE(m.registers.may_begin(other, w, m.now));
  m.registers.accept(Full::claim(third, w, m.ballot(2, 2), 9), m.now);
  CHECK_FALSE(m.registers.may_begin(key, w, m.now));
}

namespace {

// Three nodes with one place each in their registers, which is taken for the whole test, under a rule without
// floors.
sim::FleetConfig full_fleet(const Rule& rule, size_t cells) {
  sim::FleetConfig config;
  config.nodes = 3;
  config.registers = 1;
  config.overflow_cells = cells;
  config.rules = {sim::window_rule("first", Algorithm::fixed_window, 10, 1h, 0), rule};
  for (Rule& r : config.rules) r.on_isolation = OnIsolation::closed;
  return config;
}

Rule strict(Algorithm algorithm, uint32_t limit) {
  return algorithm == Algorithm::token_bucket ? sim::bucket_rule("api", limit, 1, 1min, 0)
                                              : sim::window_rule("api", algorithm, limit, 10min, 0);
}

constexpr Algorithm kAlgorithms[] = {Algorithm::fixed_window, Algorithm::sliding_window,
                                     Algorithm::token_bucket};
constexpr uint32_t kLimit = 20;
constexpr int kKeys = 30;

struct Served {
  uint64_t admitted = 0, before = 0, overflowed = 0, full = 0, claims = 0;
};

// 30 keys, each asked for twice its limit over all nodes; with `kill`, the owner of the first is killed
// half-way.
Served run(Algorithm algorithm, size_t cells, bool kill, bool room = false) {
  sim::FleetConfig config = full_fleet(strict(algorithm, kLimit), cells);
  if (room) config.registers = 1000;
  sim::Fleet fleet(config);
  fleet.at(1s, [&] { fleet.take(0, "first", "k"); });
  const auto key = [](int n) { return "k" + std::to_string(n); };
  for (int n = 0; n < kKeys; ++n)
    for (uint16_t rank = 0; rank < 3; ++rank) fleet.evenly(rank, "api", key(n), kLimit, 2s, 8s);
  Served result;
  fleet.run_until(2600ms);
  for (int n = 0; n < kKeys; ++n) result.before += fleet.tally("api", key(n)).admitted();
  if (kill) fleet.crash(fleet.owner("api", key(0)));
  fleet.run_until(9s);
  for (const sim::Violation& v : fleet.violations()) FAIL_CHECK(v.key << ": " << v.what);
  for (int n = 0; n < kKeys; ++n) result.admitted += fleet.tally("api", key(n)).admitted();
  result.overflowed = fleet.marks_overflowed();
  for (uint16_t rank = 0; rank < 3; ++rank) {
    if (!fleet.is_up(rank)) continue;
    const NodeStats stats = fleet.node(rank).stats();
    CHECK((room || stats.registers <= 1));
    CHECK(stats.overflow_cells <= cells);
    const auto full = stats.dropped.find("registers_full");
    result.full += full != stats.dropped.end() ? full->second : 0;
    result.claims += stats.claims_won;
  }
  return result;
}

}  // namespace

TEST_CASE("keys that find no room in any register are served up to their limit, and no further") {
  for (const Algorithm algorithm : kAlgorithms) {
    const Served none = run(algorithm, 0, false);
    const Served many = run(algorithm, 4096, false);
    const Served few = run(algorithm, 64, false);
    MESSAGE("algorithm " << static_cast<int>(algorithm) << ", of " << kKeys * kLimit << ": without cells "
                         << none.admitted << ", with many " << many.admitted << ", with few " << few.admitted
                         << "; marks overflowed " << many.overflowed << ", " << few.overflowed);
    CHECK(none.admitted <= kLimit);  // of the key that came first, where it did
    CHECK(none.full > 0);
    CHECK(many.admitted >= kKeys * kLimit * 9 / 10);
    CHECK(many.admitted <= kKeys * (kLimit + 1));
    CHECK(many.full == 0);
    CHECK(many.overflowed > 100);
    CHECK(few.admitted >= kKeys * kLimit / 4);
  }
}

TEST_CASE(
    "an owner of keys that found no room is taken over from, and all that it may have issued is charged") {
  for (const Algorithm algorithm : kAlgorithms) {
    const Served room = run(algorithm, 0, true, true);
    const Served many = run(algorithm, 4096, true);
    const Served few = run(algorithm, 64, true);
    MESSAGE("algorithm " << static_cast<int>(algorithm) << ": " << many.before << " before, then "
                         << many.admitted - many.before << " of " << kKeys * kLimit - many.before
                         << " more (with room for all " << room.admitted - room.before << "), " << many.claims
                         << " claims; with few cells " << few.admitted - few.before << " of "
                         << kKeys * kLimit - few.before << ", " << few.claims << " claims");
    CHECK(many.claims > 0);
    CHECK(many.admitted >= room.admitted * 95 / 100);
    CHECK(few.admitted > few.before);
  }
}

TEST_CASE(
    "a bucket that begins where the sketch may know of earlier books of it begins with what those may have "
    "issued") {
  for (const bool shared : {false, true}) {
    sim::Fleet fleet(full_fleet(strict(Algorithm::token_bucket, kLimit),
                                shared ? 16 : 4096));  // two cells for all buckets, or 512
    fleet.at(1s, [&] { fleet.take(0, "first", "k"); });
    fleet.evenly(0, "api", "spent", kLimit, 2s, 3s);
    fleet.evenly(0, "api", "new", kLimit, 4s, 5s);
    fleet.run_until(6s);
    REQUIRE(fleet.tally("api", "spent").admitted() == kLimit);
    MESSAGE(std::string(shared ? "in the same cells " : "in cells of its own ")
            << fleet.tally("api", "new").admitted());
    CHECK((fleet.tally("api", "new").admitted() == 0) == shared);
  }
}
