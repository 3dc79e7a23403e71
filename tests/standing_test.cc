#include "cluster/standing.h"

#include <doctest/doctest.h>

#include "base/random.h"
#include "cluster_fixture.h"
#include "seed.h"

using namespace tally;
using namespace tally::test;

namespace {

constexpr Duration kSync = ms(100);
constexpr Duration kAhead = secs(1);  // look_ahead(kSync)

Standing first_life(bool fleet = true) { return Standing(true, {}, kSync, fleet, at(Duration(0))); }
Standing later_life(Duration horizon = Duration(0)) {
  return Standing(false, wall(kEpoch + horizon), kSync, true, at(Duration(0)));
}
WallTime begins(Duration since) { return wall(kEpoch + since); }

}  // namespace

TEST_CASE("the look-ahead is four sync intervals, a second at least") {
  CHECK(look_ahead(ms(10)) == secs(1));
  CHECK(look_ahead(ms(100)) == secs(1));
  CHECK(look_ahead(ms(250)) == secs(1));
  CHECK(look_ahead(ms(251)) == ms(1004));
  CHECK(look_ahead(secs(1)) == secs(4));
}

TEST_CASE("a first life in a fleet has no floor and no vote until all peers answered") {
  Standing s = first_life();
  CHECK_FALSE(s.over());
  CHECK_FALSE(s.tick(at(ms(10)), false));
  CHECK(s.floors_from() == WallTime::max());
  CHECK(s.buckets_empty_at() > mono(secs(1'000'000'000)));
  CHECK_FALSE(s.may_vote(begins(Duration(0))));
  CHECK_FALSE(s.may_vote_bucket(ms(1), at(ms(10))));

  CHECK(s.tick(at(ms(20)), true));
  CHECK(s.over());
  CHECK(s.floors_from() == WallTime::min());
  CHECK(s.may_vote(begins(-secs(3600))));
  CHECK(s.may_vote_bucket(secs(1'000'000), at(ms(20))));
}

TEST_CASE("a first life whose peers stay silent begins after half a second, to the nanosecond") {
  Standing s = first_life();
  CHECK_FALSE(s.tick(at(kAskFirst - Duration(1)), false));
  CHECK_FALSE(s.over());
  CHECK(s.tick(at(kAskFirst), false));
  CHECK(s.may_vote(begins(Duration(0))));
}

TEST_CASE("the start is over once and is told once") {
  Standing s = first_life();
  CHECK(s.tick(at(ms(1)), true));
  CHECK_FALSE(s.tick(at(ms(2)), true));
  CHECK_FALSE(s.tick(at(secs(9)), false));
  Standing later = later_life();
  CHECK(later.over());
  CHECK_FALSE(later.tick(at(ms(1)), true));
}

TEST_CASE("a first life without a fleet has nobody to ask and begins with everything") {
  const Standing s = first_life(false);
  CHECK(s.over());
  CHECK(s.floors_from() == WallTime::min());
  CHECK(s.may_vote(begins(-secs(3600))));
  // Floor buckets have been filling for longer than any bucket takes.
  CHECK(s.buckets_empty_at() + kBurstSpanMax < at(Duration(0)).mono);
}

TEST_CASE("a first life that a peer remembers is a later one") {
  Standing s = first_life();
  s.tick(at(ms(30)), false);
  s.remembered(at(ms(40)));
  CHECK(s.tick(at(ms(50)), true));
  CHECK(s.floors_from() == begins(ms(40)));
  CHECK(s.buckets_empty_at() == at(Duration(0)).mono);
  CHECK_FALSE(s.may_vote(begins(Duration(0))));
  CHECK_FALSE(s.may_vote(begins(ms(40) + kAhead - Duration(1))));
  s.tick(at(ms(40)), true);
  CHECK(s.may_vote(begins(ms(40) + kAhead)));
  CHECK_FALSE(s.may_vote_bucket(secs(5), at(secs(5) - Duration(1))));
  CHECK(s.may_vote_bucket(secs(5), at(secs(5))));
}

TEST_CASE("being remembered after the start was over takes the vote away again") {
  Standing s = first_life();
  s.tick(at(kAskFirst), false);
  CHECK(s.may_vote(begins(Duration(0))));
  s.remembered(at(ms(600)));
  CHECK_FALSE(s.may_vote(begins(Duration(0))));
  CHECK(s.floors_from() == begins(ms(600)));
}

TEST_CASE("a later life reckons its start from the larger of its clock and its horizon") {
  CHECK(later_life(secs(7)).floors_from() == begins(secs(7)));
  CHECK(later_life(-secs(7)).floors_from() == begins(Duration(0)));
}

TEST_CASE("a later life votes for windows that begin its look-ahead after its start, and for none before") {
  Standing s = later_life(secs(5));
  CHECK_FALSE(s.may_vote(begins(-secs(60))));
  CHECK_FALSE(s.may_vote(begins(secs(5))));
  s.tick(at(secs(60)), true);
  CHECK_FALSE(s.may_vote(begins(secs(5))));
  CHECK_FALSE(s.may_vote(begins(secs(5) + kAhead - Duration(1))));
  CHECK(s.may_vote(begins(secs(5) + kAhead)));
}

TEST_CASE("a later life votes for a bucket once what it may have promised before is forgotten everywhere") {
  const Standing s = later_life();
  CHECK_FALSE(s.may_vote_bucket(secs(3), at(Duration(0))));
  CHECK_FALSE(s.may_vote_bucket(secs(3), at(secs(3) - Duration(1))));
  CHECK(s.may_vote_bucket(secs(3), at(secs(3))));
}

TEST_CASE("no life votes for a window that begins further ahead than the look-ahead") {
  Standing s = first_life(false);
  CHECK(s.may_vote(begins(kAhead)));
  CHECK_FALSE(s.may_vote(begins(kAhead + Duration(1))));
  s.tick(at(secs(2)), true);
  CHECK(s.may_vote(begins(secs(2) + kAhead)));
  CHECK_FALSE(s.may_vote(begins(secs(2) + kAhead + Duration(1))));
}

TEST_CASE("a clock that is set back takes nothing back") {
  Standing s = first_life(false);
  s.tick(at(secs(10)), true);
  Now back = at(secs(11));
  back.wall = begins(-secs(100));
  s.tick(back, true);
  CHECK(s.clock() == begins(secs(10)));
  CHECK(s.may_vote(begins(secs(10) + kAhead)));
}

TEST_CASE("a clock set back by more than a window leaves no floor in windows that began before the latest time seen") {
  for (const bool first : {true, false}) {
    Standing s(first, wall(kEpoch), kSync, false, at(Duration(0)));
    CHECK_FALSE(s.set_back(at(secs(100)), secs(10)));
    Now back = at(secs(101));
    back.wall = begins(secs(90));
    CHECK_FALSE(s.set_back(back, secs(10)));  // exactly a window: the one before is remembered
    CHECK(s.floors_from() == (first ? WallTime::min() : begins(Duration(0))));
    back.wall -= Duration(1);
    CHECK(s.set_back(back, secs(10)));
    CHECK(s.floors_from() == begins(secs(100)));
    CHECK_FALSE(s.set_back(back, secs(10)));  // told once
    back.wall = begins(secs(50));
    CHECK_FALSE(s.set_back(back, secs(10)));  // further back: nothing more to lose
    CHECK_FALSE(s.tick(back, true));
    CHECK(s.floors_from() == begins(secs(100)));
  }
}

TEST_CASE("a clock set back little by little is set back as well, and each time from the latest time seen") {
  Standing s = first_life(false);
  Now now = at(secs(100));
  CHECK_FALSE(s.set_back(now, secs(10)));
  for (int i = 0; i < 10; ++i) {
    now.wall -= secs(1);
    CHECK_FALSE(s.set_back(now, secs(10)));
  }
  now.wall -= Duration(1);
  CHECK(s.set_back(now, secs(10)));
  CHECK(s.floors_from() == begins(secs(100)));
  now.wall = begins(secs(300));
  CHECK_FALSE(s.set_back(now, secs(10)));
  CHECK(s.floors_from() == begins(secs(100)));
  now.wall = begins(secs(200));
  CHECK(s.set_back(now, secs(10)));
  CHECK(s.floors_from() == begins(secs(300)));
}

TEST_CASE("a clock that is set back takes no vote, and gives none in what was over") {
  Standing s = first_life(false);
  s.set_back(at(secs(100)), secs(10));
  Now back = at(secs(101));
  back.wall = begins(secs(40));
  REQUIRE(s.set_back(back, secs(10)));
  CHECK(s.clock() == begins(secs(100)));  // by which members and owners say what is over
  CHECK(s.may_vote(begins(secs(95))));
  CHECK(s.may_vote(begins(secs(100) + kAhead)));
  CHECK_FALSE(s.may_vote(begins(secs(100) + kAhead + Duration(1))));
}

TEST_CASE("a clock set back before the start is over opens nothing") {
  Standing s = first_life();
  Now back = at(ms(10));
  back.wall -= secs(3600);
  CHECK(s.set_back(back, secs(10)));
  CHECK(s.floors_from() == WallTime::max());
  CHECK(s.tick(back, true));
  CHECK(s.floors_from() == begins(Duration(0)));
}

TEST_CASE("a clone has no floor, no vote and no ownership, ever") {
  for (Standing s : {first_life(), first_life(false), later_life()}) {
    s.cloned();
    CHECK(s.is_clone());
    CHECK(s.over());  // nothing more is to come
    CHECK_FALSE(s.tick(at(secs(10)), true));
    s.remembered(at(secs(11)));
    s.tick(at(secs(100)), true);
    CHECK(s.floors_from() == WallTime::max());
    CHECK(s.buckets_empty_at() > mono(secs(1'000'000'000)));
    CHECK_FALSE(s.may_vote(begins(secs(100))));
    CHECK_FALSE(s.may_vote_bucket(ms(1), at(secs(100))));
  }
}

TEST_CASE("whatever happens, floors and votes of windows that a life was refused once stay refused") {
  Random random(test_seed(301));
  for (int round = 0; round < kRandomRounds; ++round) {
    const bool first = random.chance(0.5);
    const Duration horizon = ms(random.between(-3000, 3000));
    Standing s(first, wall(kEpoch + horizon), kSync, random.chance(0.8), at(Duration(0)));
    Duration mono_since{0};
    WallTime floors = WallTime::min();
    WallTime highest = at(Duration(0)).wall;
    WallTime stepped_from = WallTime::min();
    for (int step = 0; step < 60; ++step) {
      mono_since += ms(random.between(0, 60));
      Now now = at(mono_since);
      now.wall += ms(random.between(-2000, 2000));
      switch (random.below(8)) {
        case 0:
          s.remembered(now);
          break;
        case 1:
          if (random.chance(0.05)) s.cloned();
          break;
        case 2:
          if (s.set_back(now, ms(500))) {
            REQUIRE(now.wall < highest - ms(500));
            stepped_from = highest;
          }
          highest = std::max(highest, now.wall);
          break;
        default:
          s.tick(now, random.chance(0.1));
          highest = std::max(highest, now.wall);
      }
      REQUIRE(s.clock() == highest);
      const WallTime from = s.floors_from();
      if (s.over()) {
        REQUIRE(from >= floors);  // once open, floors are only ever taken back
        REQUIRE(from >= stepped_from);
        floors = from;
      } else {
        REQUIRE(from == WallTime::max());
      }
      const WallTime window = highest + ms(random.between(-3000, 3000));
      if (!s.may_vote(window)) continue;
      REQUIRE(s.over());
      REQUIRE_FALSE(s.is_clone());
      REQUIRE(window <= highest + kAhead);
      // A later life votes where it has floors, a look-ahead later; a step of the clock takes floors only.
      REQUIRE((from == WallTime::min() || from == stepped_from || window >= from + kAhead));
      if (!first) REQUIRE(window >= std::max(wall(kEpoch + horizon), wall(kEpoch)) + kAhead);
    }
  }
}
