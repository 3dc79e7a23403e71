#include "cluster/registers.h"

#include <doctest/doctest.h>

#include <map>
#include <set>

#include "cluster_fixture.h"
#include "core/windows.h"
#include "seed.h"

using namespace tally;
using namespace tally::test;

namespace {

constexpr Duration kWindow = secs(10);

// A member with a vote everywhere, whose clock is at the beginning of a window.
struct Voter {
  Now now = at(Duration(0));
  Standing standing;
  Roster roster = roster_of(3);
  Succession succession{roster, 0, {}, {}, standing, ms(100), now};
  Recovery recovery{roster, 0, 1, standing, succession};
  Registers registers;
  WireId key;

  explicit Voter(size_t entries_max = 100, size_t overflow_max = 0) : standing(true, {}, ms(100), false, now), registers(entries_max, overflow_max, roster, standing, succession, recovery) {}
  // A later life, which both others have told that they remember everything, and nothing of the key.
  explicit Voter(WallTime reckoned_start) : standing(false, reckoned_start, ms(100), true, now), registers(100, 0, roster, standing, succession, recovery) {
    const Peers peers(roster, 0, std::nullopt, ms(100));
    Mail mail(roster, peers, 1, kPublicIdKey);
    for (const uint16_t other : {uint16_t{1}, uint16_t{2}}) {
      RegistersEnd end;
      end.life = end.snapshot = 1;
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
  }
  Mark mark(int64_t window, uint64_t amount, Ballot ballot = {0, 5}, bool sliding = false) const {
    Mark m;
    m.key = key;
    m.window = window;
    m.ballot = ballot;
    m.mark = amount;
    m.length = kWindow;
    m.sliding = sliding;
    return m;
  }
  Mark bucket(Duration remaining, uint64_t number, Ballot ballot = {0, 5}, Duration keep = secs(10)) const {
    Mark m;
    m.key = key;
    m.ballot = ballot;
    m.mark = static_cast<uint64_t>(nanos(remaining));
    m.length = keep;
    m.number = number;
    return m;
  }
};

}  // namespace

TEST_CASE("a mark is accepted, and the largest is kept and told") {
  Voter m;
  const int64_t w = m.running();
  auto answer = m.registers.accept(m.mark(w, 10), m.now);
  REQUIRE(answer.has_value());
  CHECK_FALSE(answer->refused);
  CHECK(answer->key == m.key);
  CHECK(answer->window == w);
  CHECK(answer->ballot == Ballot{0, 5});
  CHECK(answer->mark == 10);
  CHECK(m.registers.accept(m.mark(w, 30), m.now)->mark == 30);
  CHECK(m.registers.accept(m.mark(w, 20), m.now)->mark == 30);  // late, and harmless
  REQUIRE(m.registers.look(m.key, w, m.now).has_value());
  CHECK(m.registers.look(m.key, w, m.now)->mark == 30);
  CHECK(m.registers.size() == 1);
}

TEST_CASE("a ballot below the promised one is refused, with the promised one") {
  Voter m;
  const int64_t w = m.running();
  m.registers.accept(m.mark(w, 40, {2, 7}), m.now);
  for (const Ballot older : {Ballot{0, 9}, Ballot{1, 9}, Ballot{2, 6}}) {
    const auto answer = m.registers.accept(m.mark(w, 50, older), m.now);
    REQUIRE(answer.has_value());
    CHECK(answer->refused);
    CHECK(answer->ballot == Ballot{2, 7});
    CHECK(answer->mark == 40);
  }
  CHECK(m.registers.look(m.key, w, m.now)->mark == 40);
}

TEST_CASE("a higher ballot keeps the marks of the ones before") {
  Voter m;
  const int64_t w = m.running();
  m.registers.accept(m.mark(w, 40, {0, 5}), m.now);
  const auto answer = m.registers.accept(m.mark(w, 15, {1, 6}), m.now);
  REQUIRE(answer.has_value());
  CHECK_FALSE(answer->refused);
  CHECK(answer->mark == 40);
  CHECK(m.registers.look(m.key, w, m.now)->ballot == Ballot{1, 6});
}

TEST_CASE("keys and windows have marks of their own") {
  Voter m;
  const int64_t w = m.running();
  m.registers.accept(m.mark(w, 10), m.now);
  m.pass(secs(9));
  m.registers.accept(m.mark(w + 1, 20), m.now);
  Mark other = m.mark(w, 30);
  other.key.bytes[0] = 1;
  m.registers.accept(other, m.now);
  CHECK(m.registers.look(m.key, w, m.now)->mark == 10);
  CHECK(m.registers.look(m.key, w + 1, m.now)->mark == 20);
  CHECK(m.registers.look(other.key, w, m.now)->mark == 30);
  CHECK_FALSE(m.registers.look(other.key, w + 1, m.now).has_value());
}

TEST_CASE("where a member has no vote it does not answer and keeps nothing") {
  Voter m;
  const int64_t w = m.running();
  SUBCASE("further ahead than the look-ahead") {
    CHECK_FALSE(m.registers.accept(m.mark(w + 1, 10), m.now).has_value());
    m.pass(secs(9));
    CHECK(m.registers.accept(m.mark(w + 1, 10), m.now).has_value());
    CHECK_FALSE(m.registers.accept(m.mark(w + 2, 10), m.now).has_value());
    CHECK(m.registers.refused_no_vote() == 2);
  }
  SUBCASE("a later life, in windows that began before its start plus the look-ahead") {
    Standing later(false, m.now.wall + secs(4), ms(100), true, m.now);
    const Succession succession(m.roster, 0, {}, {}, later, ms(100), m.now);
    const Recovery nothing_read(m.roster, 0, 1, later, succession);
    Registers registers(10, 0, m.roster, later, succession, nothing_read);
    CHECK_FALSE(registers.accept(m.mark(w, 10), m.now).has_value());
    CHECK(registers.size() == 0);
    CHECK(registers.refused_no_vote() == 1);
    Now after = at(secs(10));
    later.tick(after, true);
    CHECK_FALSE(registers.accept(m.mark(w, 10), after).has_value());
    CHECK(registers.accept(m.mark(w + 1, 10), after).has_value());
  }
  SUBCASE("a first life that is still asking") {
    Standing asking(true, {}, ms(100), true, m.now);
    const Succession succession(m.roster, 0, {}, {}, asking, ms(100), m.now);
    const Recovery nothing_read(m.roster, 0, 1, asking, succession);
    Registers registers(10, 0, m.roster, asking, succession, nothing_read);
    CHECK_FALSE(registers.accept(m.mark(w, 10), m.now).has_value());
    CHECK_FALSE(registers.accept(m.bucket(secs(1), 1), m.now).has_value());
    CHECK(registers.size() == 0);
  }
}

TEST_CASE("a fixed window that is over hears a late owner out for one more window") {
  Voter m;
  const int64_t w = m.running();
  m.registers.accept(m.mark(w, 10), m.now);
  m.pass(kWindow);
  CHECK(m.registers.accept(m.mark(w, 20), m.now)->mark == 20);
  m.pass(kWindow);
  CHECK_FALSE(m.registers.accept(m.mark(w, 30), m.now).has_value());
}

TEST_CASE("a sliding window is closed the moment it was left, and only then told to the next") {
  Voter m;
  const int64_t w = m.running();
  const Ballot b{0, 5};
  m.registers.accept(m.mark(w, 10, b, true), m.now);
  m.pass(kWindow - Duration(1));
  auto next = m.registers.accept(m.mark(w + 1, 3, b, true), m.now);  // ahead of its beginning
  REQUIRE(next.has_value());
  CHECK_FALSE(next->previous_told);
  CHECK(m.registers.accept(m.mark(w, 12, b, true), m.now)->mark == 12);

  m.pass(Duration(1));
  CHECK_FALSE(m.registers.accept(m.mark(w, 99, b, true), m.now).has_value());
  next = m.registers.accept(m.mark(w + 1, 3, b, true), m.now);
  REQUIRE(next.has_value());
  CHECK(next->previous_told);
  CHECK(next->previous_ballot == b);
  CHECK(next->previous_mark == 12);
}

TEST_CASE("a later life that has read the others votes in what runs, but not where its last life may have told a window as over") {
  const WallTime now = at(Duration(0)).wall;
  for (const bool sliding : {true, false}) {
    Voter early(now);  // its last life's clock cannot have been further
    CHECK(early.registers.accept(early.mark(early.running(), 10, {0, 5}, sliding), early.now).has_value());
    Voter late(now + kWindow);
    CHECK(late.registers.accept(late.mark(late.running(), 10, {0, 5}, sliding), late.now).has_value() == !sliding);
    Voter later(now + kWindow * 2);
    CHECK_FALSE(later.registers.accept(later.mark(later.running(), 10, {0, 5}, sliding), later.now).has_value());
  }
}

TEST_CASE("of a window before in which it accepted nothing, a member with a vote there tells that") {
  Voter m;
  const auto answer = m.registers.accept(m.mark(m.running(), 3, {0, 5}, true), m.now);
  REQUIRE(answer.has_value());
  CHECK(answer->previous_told);
  CHECK(answer->previous_mark == 0);
  CHECK(answer->previous_ballot == Ballot{});
}

TEST_CASE("a member without a vote in the window before tells nothing of it") {
  const Now start = at(-secs(9));
  Standing later(false, {}, ms(100), true, start);
  const Roster roster = roster_of(3);
  const Succession succession(roster, 0, {}, {}, later, ms(100), start);
  const Recovery nothing_read(roster, 0, 1, later, succession);
  Registers registers(10, 0, roster, later, succession, nothing_read);
  Voter m;
  later.tick(m.now, true);
  CHECK_FALSE(registers.may_tell(m.key, m.running() - 1, kWindow));
  const auto answer = registers.accept(m.mark(m.running(), 3, {0, 5}, true), m.now);
  REQUIRE(answer.has_value());
  CHECK_FALSE(answer->previous_told);
  const Now next = at(secs(10));
  later.tick(next, true);
  CHECK(registers.may_tell(m.key, m.running(), kWindow));
}

TEST_CASE("a fixed window's next one is told nothing of it") {
  Voter m;
  CHECK_FALSE(m.registers.accept(m.mark(m.running(), 3), m.now)->previous_told);
}

TEST_CASE("a full register takes no new key and forgets none") {
  Voter m(2);
  const int64_t w = m.running();
  std::vector<Mark> marks;
  for (uint8_t i = 0; i < 4; ++i) {
    marks.push_back(m.mark(w, 10));
    marks.back().key.bytes[0] = i;
    CHECK(m.registers.accept(marks.back(), m.now).has_value() == (i < 2));
  }
  CHECK(m.registers.size() == 2);
  CHECK(m.registers.refused_full() == 2);
  marks[0].mark = 11;
  CHECK(m.registers.accept(marks[0], m.now)->mark == 11);
  CHECK(m.registers.look(marks[1].key, w, m.now)->mark == 10);
}

TEST_CASE("windows that are long over are forgotten, and their places are free again") {
  Voter m(1);
  const int64_t w = m.running();
  m.registers.accept(m.mark(w, 10), m.now);
  m.pass(kWindow * 3 - Duration(1));
  m.registers.expire(m.now);
  CHECK(m.registers.size() == 1);
  m.pass(Duration(1));
  m.registers.expire(m.now);
  CHECK(m.registers.size() == 0);
  CHECK(m.registers.accept(m.mark(m.running(), 10), m.now).has_value());
}

TEST_CASE("a mark without a length, or with one that no window has, is not answered") {
  Voter m;
  for (const Duration length : {Duration(0), Duration(-1), kWindowMin - Duration(1), kWindowMax + Duration(1),
                                Duration::min(), Duration::max()}) {
    Mark mark = m.mark(m.running(), 10);
    mark.length = length;
    CHECK_FALSE(m.registers.accept(mark, m.now).has_value());
  }
  CHECK(m.registers.size() == 0);
}

TEST_CASE("a bucket's mark is kept a thirty-second longer than told, and its number echoed") {
  Voter m;
  const auto answer = m.registers.accept(m.bucket(ms(3200), 17), m.now);
  REQUIRE(answer.has_value());
  CHECK_FALSE(answer->refused);
  CHECK(answer->number == 17);
  CHECK(answer->window == 0);
  CHECK(answer->ballot == Ballot{0, 5});
  CHECK(m.registers.look(m.key, 0, m.now)->mark == static_cast<uint64_t>(nanos(ms(3300))));
  m.pass(ms(300));
  CHECK(m.registers.look(m.key, 0, m.now)->mark == static_cast<uint64_t>(nanos(ms(3000))));
  m.pass(ms(3001));
  CHECK(m.registers.look(m.key, 0, m.now)->mark == 0);
}

TEST_CASE("a bucket's mark only moves on") {
  Voter m;
  m.registers.accept(m.bucket(ms(3200), 1), m.now);
  m.registers.accept(m.bucket(ms(320), 2), m.now);  // an old one, late
  CHECK(m.registers.look(m.key, 0, m.now)->mark == static_cast<uint64_t>(nanos(ms(3300))));
}

TEST_CASE("a bucket's older ballot is refused until the register was idle for as long as it is kept") {
  Voter m;
  m.registers.accept(m.bucket(secs(1), 1, {2, 5}, secs(10)), m.now);
  m.pass(secs(10) - Duration(1));
  const auto refused = m.registers.accept(m.bucket(secs(1), 2, {0, 5}, secs(10)), m.now);
  REQUIRE(refused.has_value());
  CHECK(refused->refused);
  CHECK(refused->ballot == Ballot{2, 5});
  CHECK(refused->number == 2);
  m.pass(Duration(1));  // a refused mark does not keep the register
  CHECK_FALSE(m.registers.look(m.key, 0, m.now).has_value());
  const auto begun = m.registers.accept(m.bucket(secs(1), 3, {0, 5}, secs(10)), m.now);
  REQUIRE(begun.has_value());
  CHECK_FALSE(begun->refused);
}

TEST_CASE("a bucket's register is kept for the longest that any of its marks asked for") {
  Voter m;
  m.registers.accept(m.bucket(secs(1), 1, {0, 5}, secs(20)), m.now);
  m.registers.accept(m.bucket(secs(1), 2, {0, 5}, secs(10)), m.now);
  m.pass(secs(20) - Duration(1));
  m.registers.expire(m.now);
  CHECK(m.registers.look(m.key, 0, m.now).has_value());
  m.pass(Duration(1));
  m.registers.expire(m.now);
  CHECK(m.registers.size() == 0);
}

TEST_CASE("a bucket's mark further ahead than any bucket reaches is not answered") {
  Voter m;
  Mark far = m.bucket(secs(1), 1);
  far.mark = ~uint64_t{0};
  CHECK_FALSE(m.registers.accept(far, m.now).has_value());
  far = m.bucket(secs(1), 1);
  far.length = Duration::max();
  CHECK_FALSE(m.registers.accept(far, m.now).has_value());
  CHECK(m.registers.size() == 0);
}

TEST_CASE(
    "a member of a later life votes for a bucket once it has been up for as long as registers are kept") {
  const Now start = at(Duration(0));
  Standing later(false, {}, ms(100), true, start);
  const Roster roster = roster_of(3);
  const Succession succession(roster, 0, {}, {}, later, ms(100), start);
  const Recovery nothing_read(roster, 0, 1, later, succession);
  Registers registers(10, 0, roster, later, succession, nothing_read);
  Voter m;
  CHECK_FALSE(registers.accept(m.bucket(secs(1), 1), at(secs(10) - Duration(1))).has_value());
  CHECK(registers.accept(m.bucket(secs(1), 1), at(secs(10))).has_value());
}

TEST_CASE(
    "in any order of marks, promises and marks only grow, no open one is lost and what was told of a past "
    "stays true") {
  Random random(test_seed(304));
  for (int round = 0; round < kRandomRounds; ++round) {
    Voter m(8);
    struct Known {
      Ballot promised;
      uint64_t mark = 0;
    };
    std::map<std::pair<uint8_t, int64_t>, Known> model;
    std::map<std::pair<uint8_t, int64_t>, uint64_t> told;  // of a sliding window's past
    for (int step = 0; step < 150; ++step) {
      if (random.chance(0.2)) m.pass(ms(random.between(0, 4000)));
      if (random.chance(0.2)) m.registers.expire(m.now);
      const auto k = static_cast<uint8_t>(random.below(3));
      const bool sliding = k != 0;  // a key has one algorithm
      Mark mark = m.mark(m.running() + random.between(-2, 2), random.below(100),
                         {static_cast<uint32_t>(random.below(3)), random.below(3)}, sliding);
      mark.key.bytes[0] = k;
      const std::pair name{k, mark.window};
      const auto before = model.find(name);
      const auto answer = m.registers.accept(mark, m.now);
      if (!answer) continue;
      Known& known = model[name];
      if (mark.ballot < known.promised) {
        REQUIRE(answer->refused);
        REQUIRE(answer->ballot == known.promised);
      } else {
        REQUIRE_FALSE(answer->refused);
        known = {mark.ballot, std::max(known.mark, mark.mark)};
      }
      REQUIRE(answer->mark == known.mark);
      REQUIRE((before == model.end() || mark.window >= m.running() - 1));
      REQUIRE_FALSE(told.contains(name));  // told, so closed
      if (!answer->previous_told) continue;
      REQUIRE(sliding);
      const std::pair past{k, mark.window - 1};
      const auto had = model.find(past);
      REQUIRE(answer->previous_mark == (had == model.end() ? 0 : had->second.mark));
      told[past] = answer->previous_mark;
    }
    for (const auto& [name, known] : model) {
      if (name.second < m.running() - 1) continue;
      WireId key;
      key.bytes[0] = name.first;
      const auto found = m.registers.look(key, name.second, m.now);
      REQUIRE(found.has_value());
      REQUIRE(found->mark == known.mark);
      REQUIRE(found->ballot == known.promised);
    }
  }
}

TEST_CASE("marks of a month are kept until two more are over, and taken for the running one and its neighbours") {
  constexpr auto midnight = [](int month, int day) {
    return WallTime(std::chrono::sys_days(std::chrono::year(2027) / month / day).time_since_epoch());
  };
  Voter m;
  const auto at_day = [&](int month, int day) { m.pass(midnight(month, day) - m.now.wall); };
  const auto mark = [&](int month, uint64_t amount) {
    Mark asked = m.mark(2027 * 12 + month - 1, amount);
    asked.length = kMonth;
    return m.registers.accept(asked, m.now);
  };
  at_day(1, 31);
  CHECK(mark(1, 7)->mark == 7);
  CHECK_FALSE(mark(2, 1));  // begins later than anybody may vote ahead
  at_day(2, 28);
  CHECK(mark(2, 5)->mark == 5);
  CHECK(mark(1, 3)->mark == 7);  // a late owner is heard out
  at_day(3, 1);
  CHECK_FALSE(mark(1, 3));
  at_day(3, 31);
  m.registers.expire(m.now);
  CHECK(m.registers.look(m.key, 2027 * 12, m.now).has_value());
  at_day(5, 1);
  for (int i = 0; i < 100; ++i) m.registers.expire(m.now);
  CHECK_FALSE(m.registers.look(m.key, 2027 * 12, m.now).has_value());
}
