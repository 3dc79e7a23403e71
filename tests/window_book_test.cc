#include "cluster/window_book.h"

#include <doctest/doctest.h>

#include "cluster_fixture.h"
#include "core/windows.h"
#include "seed.h"

using namespace tally;
using namespace tally::test;

namespace {

constexpr Duration kWindow = secs(10);
constexpr int64_t kNumber = window_at(wall(kEpoch), kWindow);  // begins at at(0)
constexpr Ballot kBallot{0, 1000};
constexpr Duration kRecent = ms(350);
constexpr Duration kSync = ms(100), kNear = ms(0), kFar = ms(60);  // round trips of the group

Terms terms_of(uint32_t limit, Algorithm algorithm = Algorithm::fixed_window, Overcount e = {}) {
  Terms terms;
  terms.algorithm = algorithm;
  terms.limit = limit;
  terms.max_overcount = e;
  terms.window = kWindow;
  return terms;
}

// What a lessee asks for.
struct Want {
  uint64_t waiting = 0;
  uint64_t ahead = 0;  // beyond what waits
  uint64_t waiting_min = 1;
  uint64_t demand = 0;  // a second
  uint64_t used = 0;
};

struct Desk {
  WindowBook book;
  uint64_t stamp = 0;

  explicit Desk(Terms terms, uint8_t group = 1) : book(kNumber, terms, group_of(group), kBallot, kRecent) {}

  static LineKey key(uint16_t n) { return {n, 1, 1}; }
  Line& line(uint16_t n, uint64_t floor = 0) {
    Line* found = book.find(key(n));
    return found != nullptr ? *found : book.open(key(n), n, floor);
  }
  // A report of a lessee that has heard all that it was granted.
  Report report(uint16_t n, const Want& want) {
    const Line& l = line(n);
    Report r;
    r.ballot = kBallot;
    r.has_ballot = true;
    r.used = want.used;
    r.ceiling = l.floor + l.granted;
    r.granted_heard = l.granted;
    r.wanted = r.ceiling + want.waiting + want.ahead;
    r.waiting = want.waiting;
    r.waiting_min = want.waiting == 0 ? 0 : want.waiting_min;
    r.demand_milli = want.demand * 1000;
    r.stamp = ++stamp;
    return r;
  }
  void hear(uint16_t n, const Want& want, Duration since = ms(1)) {
    book.merge(line(n), report(n, want), at(since).mono);
  }
  uint64_t ask(uint16_t n, const Want& want, Duration since = ms(1), bool far = false) {
    hear(n, want, since);
    return book.issue(line(n), at(since), far);
  }
  // A mark that the whole group accepts.
  void accept_all(uint64_t mark) {
    book.propose(mark, at(ms(1)).mono);
    for (size_t i = 0; i < kGroupMax; ++i) book.accept(i, mark);
  }
  // Says that this is the window's past: used, and nothing of it still out.
  void past(uint64_t used) {
    Want want;
    want.used = used;
    Report r = report(9, want);
    r.final = true;
    book.merge(line(9), r, at(ms(1)).mono);
  }
};

}  // namespace

// ---- what may be had ----

TEST_CASE("a fixed window allows its limit, and ahead of its beginning a tenth less, for newcomers") {
  Desk d(terms_of(100));
  CHECK(d.book.allowance(at(Duration(0)).wall) == 100);
  CHECK(d.book.allowance(at(secs(9)).wall) == 100);
  CHECK(d.book.allowance(at(-Duration(1)).wall) == 90);
  CHECK(d.book.allowance(at(secs(11)).wall) == 100);
}

TEST_CASE("a sliding window allows what its past leaves, and nothing ahead of its beginning") {
  Desk before(terms_of(100, Algorithm::sliding_window));
  before.past(60);
  Desk d(terms_of(100, Algorithm::sliding_window));
  d.book.count_previous(&before.book, true);
  CHECK(d.book.allowance(at(-Duration(1)).wall) == 0);
  CHECK(d.book.allowance(at(Duration(0)).wall) == 40);
  CHECK(d.book.allowance(at(secs(5)).wall) == 70);
  CHECK(d.book.allowance(at(secs(10) - Duration(1)).wall) == 99);  // what fades is rounded up
  CHECK(d.book.allowance(at(secs(10)).wall) == 100);
}

TEST_CASE("a request that waits gets its cost at once where the bucket of the group holds it") {
  Desk d(terms_of(10));
  CHECK(d.ask(1, {.waiting = 3}) == 3);
  CHECK(d.line(1).granted == 3);
  CHECK(d.book.outstanding() == 3);
  CHECK(d.book.remaining(at(ms(1)).wall) == 7);
}

TEST_CASE("the same report again asks for nothing new") {
  Desk d(terms_of(100));
  const Report r = d.report(1, {.waiting = 8});
  for (int i = 0; i < 3; ++i) {
    d.book.merge(d.line(1), r, at(ms(1)).mono);
    CHECK(d.book.issue(d.line(1), at(ms(1)), false) == (i == 0 ? 8 : 0));
    CHECK(d.book.outstanding() == 8);
  }
}

TEST_CASE("an older report changes nothing that a newer one said") {
  Desk d(terms_of(100));
  Report old = d.report(1, {.waiting = 8, .used = 2});
  Report young = d.report(1, {.waiting = 1, .used = 5});
  young.returned = 4;
  d.line(1).granted = 10;
  d.book.merge(d.line(1), young, at(ms(2)).mono);
  d.book.merge(d.line(1), old, at(ms(3)).mono);
  CHECK(d.line(1).used == 5);
  CHECK(d.line(1).returned == 4);
  CHECK(d.line(1).waiting == 1);
  CHECK(d.line(1).wanted == young.wanted);
}

TEST_CASE("beyond what waits, a line on a near group holds little, and one on a far group has headroom") {
  Desk d(terms_of(160));
  CHECK(d.ask(1, {.ahead = 100, .demand = 50}) == 20);  // 160 / 8
  CHECK(d.ask(1, {.ahead = 100, .demand = 50}) == 0);   // it holds that already
  CHECK(d.ask(1, {.waiting = 5, .ahead = 1, .demand = 50}) == 5);
  Desk far(terms_of(160));
  CHECK(far.ask(1, {.ahead = 10, .demand = 50}, ms(1), true) == 50);  // 10 + 160 / 4
}

TEST_CASE("what a near line may hold falls with the lines that are active, and with what is left") {
  Desk d(terms_of(160));
  for (uint16_t n = 1; n <= 4; ++n) d.hear(n, {.ahead = 100, .demand = 50});
  CHECK(d.book.issue(d.line(1), at(ms(1)), false) == 5);  // 160 / (8 * 4)
  Desk stale(terms_of(160));
  for (uint16_t n = 2; n <= 4; ++n) stale.hear(n, {.ahead = 100, .demand = 50}, ms(1));
  CHECK(stale.ask(1, {.ahead = 100, .demand = 50}, ms(1) + kRecent + Duration(1)) ==
        20);  // the others fell silent
}

TEST_CASE("what is left is shared in proportion to demand") {
  Desk d(terms_of(100));
  d.hear(1, {.waiting = 100});
  d.hear(2, {.waiting = 100, .demand = 200});
  CHECK(d.book.issue(d.line(1), at(ms(1)), false) == 25);  // 100 of 400
  CHECK(d.line(1).turned_away);
  CHECK(d.book.unmet(at(ms(1)).mono) == 75);
}

TEST_CASE("near the limit quota goes out in whole requests of what waits") {
  Desk d(terms_of(12));
  CHECK(d.ask(1, {.waiting = 15, .waiting_min = 5}) == 10);
  CHECK(d.line(1).turned_away);
  CHECK(d.ask(2, {.waiting = 5, .waiting_min = 5}) == 0);  // 2 are left
  CHECK(d.line(2).turned_away);
  d.hear(1, {});
  d.hear(2, {});
  CHECK(d.ask(3, {.waiting = 2}) == 2);
  CHECK_FALSE(d.line(3).turned_away);
}

TEST_CASE("a share smaller than one request is one request") {
  Desk d(terms_of(20));
  for (uint16_t n = 2; n <= 9; ++n) d.hear(n, {.waiting = 20, .waiting_min = 5});
  CHECK(d.ask(1, {.waiting = 20, .waiting_min = 5}) == 5);
}

TEST_CASE("nobody gets as look-ahead what others wait for") {
  Desk d(terms_of(100), 3);
  CHECK(d.ask(1, {.waiting = 95}) == 0);  // no mark yet
  REQUIRE(d.book.unmet(at(ms(1)).mono) == 95);
  d.accept_all(100);
  CHECK(d.ask(2, {.ahead = 90, .demand = 1000}) <= 5);
}

TEST_CASE("an unbounded window issues nothing to a line that has its floor, which is the limit") {
  Desk d(terms_of(10, Algorithm::fixed_window, {.ppm = 0, .unbounded = true}), 3);
  d.line(1, 10);
  d.line(2, 10);
  CHECK(d.ask(1, {.waiting = 3, .used = 8}) == 0);
  CHECK(d.book.outstanding() == 8);
  CHECK_FALSE(d.book.exhausted(at(ms(1)).wall));
  d.ask(2, {.used = 4});
  CHECK(d.book.exhausted(at(ms(1)).wall));
  CHECK_FALSE(d.book.next_mark(at(ms(1)), kNear, kSync, 0).has_value());
}

TEST_CASE("an unbounded line that was stopped, or began without a floor, is granted what is left like any other") {
  Desk d(terms_of(10, Algorithm::fixed_window, {.ppm = 0, .unbounded = true}), 3);
  d.line(1, 10);
  Report stopped = d.report(1, {.used = 4});
  stopped.returned = 6;
  d.book.merge(d.line(1), stopped, at(ms(1)).mono);
  CHECK(d.book.outstanding() == 4);
  CHECK(d.ask(2, {.waiting = 2}) == 2);  // of a later life: it has no floor
  CHECK(d.book.outstanding() == 6);
  stopped.stamp = ++d.stamp;
  stopped.wanted = stopped.ceiling + 9;
  stopped.waiting = 9;
  d.book.merge(d.line(1), stopped, at(ms(1)).mono);
  CHECK(d.book.issue(d.line(1), at(ms(1)), false) == 4);
  CHECK(d.book.outstanding() == 10);
}

// ---- lines ----

TEST_CASE("a floor is charged when its line is first heard, whatever is left") {
  Desk d(terms_of(10), 3);
  d.line(1, 4);
  CHECK(d.book.outstanding() == 4);  // though no mark is accepted
  CHECK(d.book.remaining(at(ms(1)).wall) == 0);
  d.accept_all(10);
  CHECK(d.book.remaining(at(ms(1)).wall) == 6);
  CHECK(d.ask(2, {.waiting = 10}) == 6);
  d.line(3, 5);
  CHECK(d.book.outstanding() == 15);
}

TEST_CASE("no floor is charged beyond the limit, however much a report states") {
  Desk d(terms_of(10));
  d.line(1, ~uint64_t{0});
  CHECK(d.book.outstanding() == 10);
}

TEST_CASE("what comes back may be issued again, returned under this ballot only") {
  Desk d(terms_of(10));
  d.ask(1, {.waiting = 10});
  Report r = d.report(1, {.used = 4});
  r.returned = 6;
  r.ballot = {1, 7};
  d.book.merge(d.line(1), r, at(ms(2)).mono);
  CHECK(d.book.outstanding() == 10);
  CHECK(d.line(1).granted_heard == 0);
  r.ballot = kBallot;
  r.stamp = ++d.stamp;
  d.book.merge(d.line(1), r, at(ms(3)).mono);
  CHECK(d.book.outstanding() == 4);
  CHECK(d.ask(2, {.waiting = 10}) == 6);
}

TEST_CASE("a refund frees nothing at the owner, as the lessee itself may spend it again") {
  Desk d(terms_of(10));
  d.ask(1, {.waiting = 10});
  Report r = d.report(1, {.used = 10});
  r.refunded = 3;
  d.book.merge(d.line(1), r, at(ms(2)).mono);
  CHECK(d.book.used() == 7);
  CHECK(d.book.outstanding() == 10);
  CHECK(d.book.remaining(at(ms(2)).wall) == 0);
}

TEST_CASE("what others give back may be issued again, up to what the fleet used and no further") {
  Desk d(terms_of(10));
  d.ask(1, {.waiting = 10});
  d.hear(1, {.used = 10});
  Report r = d.report(2, {});
  r.given = 4;
  d.book.merge(d.line(2), r, at(ms(2)).mono);
  CHECK(d.book.used() == 6);
  CHECK(d.book.outstanding() == 6);
  r = d.report(2, {});
  r.given = 400;
  d.book.merge(d.line(2), r, at(ms(3)).mono);
  CHECK(d.book.used() == 0);
  CHECK(d.book.outstanding() == 0);
}

TEST_CASE("more used than was ever issued, in an isolation, is charged when it is heard") {
  Desk d(terms_of(10));
  d.ask(1, {.waiting = 2});
  d.hear(1, {.used = 9});
  CHECK(d.book.outstanding() == 9);
  CHECK(d.ask(2, {.waiting = 5}) == 1);
}

TEST_CASE("the smallest limit that a report states is the limit") {
  Desk d(terms_of(10));
  d.ask(1, {.waiting = 6});
  d.book.lower_limit(4);
  d.book.lower_limit(20);
  CHECK(d.book.limit() == 4);
  CHECK(d.ask(2, {.waiting = 5}) == 0);
}

// ---- used up ----

TEST_CASE("a window is exhausted when it is used, not when it is only granted out") {
  Desk d(terms_of(10));
  d.ask(1, {.waiting = 10});
  CHECK_FALSE(d.book.exhausted(at(ms(1)).wall));
  d.hear(1, {.used = 9});
  CHECK_FALSE(d.book.exhausted(at(ms(1)).wall));
  d.hear(1, {.used = 10});
  CHECK(d.book.exhausted(at(ms(1)).wall));
  CHECK(d.book.regrows_after(1, at(secs(4)).wall) == secs(6));
  CHECK_FALSE(d.book.exhausted(at(-Duration(1)).wall));  // not before it begins
  Report r = d.report(1, {.used = 10});
  r.refunded = 1;
  d.book.merge(d.line(1), r, at(ms(2)).mono);
  CHECK_FALSE(d.book.exhausted(at(ms(2)).wall));
}

TEST_CASE("a sliding window whose past is not known is never called exhausted") {
  Desk d(terms_of(10, Algorithm::sliding_window), 3);
  CHECK(d.book.allowance(at(Duration(0)).wall) == 0);
  CHECK_FALSE(d.book.exhausted(at(Duration(0)).wall));
  d.book.tell_previous(0, kBallot, 10);
  d.book.tell_previous(1, kBallot, 10);
  d.book.count_previous(nullptr, true);
  CHECK(d.book.exhausted(at(Duration(0)).wall));
}

TEST_CASE("a sliding window says to the nanosecond when a cost will fit again") {
  Random random(test_seed(311));
  int asked = 0;
  for (int i = 0; i < 20 * kRandomRounds; ++i) {
    const auto limit = static_cast<uint32_t>(random.between(1, 50));
    const auto before = random.below(limit + 1), used = random.below(limit + 1);
    const auto cost = static_cast<uint64_t>(random.between(1, limit));
    Desk past(terms_of(limit, Algorithm::sliding_window)), d(terms_of(limit, Algorithm::sliding_window));
    past.past(before);
    d.book.count_previous(&past.book, true);
    d.hear(1, {.used = used});
    const Duration elapsed(random.between(0, nanos(kWindow) - 1));
    const Duration after = d.book.regrows_after(cost, at(elapsed).wall);
    const auto fits = [&](Duration t) {
      if (t < kWindow) return used + cost <= d.book.allowance(at(t).wall);
      return carried_over(static_cast<uint32_t>(used), std::min(t - kWindow, kWindow), kWindow) + cost <=
             limit;
    };
    INFO("limit " << limit << " before " << before << " used " << used << " cost " << cost << " elapsed "
                  << nanos(elapsed));
    if (fits(elapsed)) continue;
    REQUIRE(after > Duration(0));
    REQUIRE(fits(elapsed + after));
    REQUIRE_FALSE(fits(elapsed + after - Duration(1)));
    ++asked;
  }
  CHECK(asked > 5 * kRandomRounds);
}

// ---- marks ----

TEST_CASE("a group of one needs no mark") {
  Desk d(terms_of(160));
  CHECK_FALSE(d.book.needs_marks());
  CHECK(d.book.accepted_mark() == 160);
  CHECK_FALSE(d.book.next_mark(at(ms(1)), kNear, kSync, 0).has_value());
}

TEST_CASE("a mark is in force once a majority has accepted it, this owner's and no larger one") {
  Desk d(terms_of(160), 3);
  d.book.propose(10, at(ms(1)).mono);
  CHECK(d.book.mark_pending());
  d.book.accept(0, 10);
  CHECK(d.book.accepted_mark() == 0);
  CHECK(d.ask(1, {.waiting = 5}) == 0);
  d.book.accept(2, 150);  // what an earlier owner had
  CHECK(d.book.accepted_mark() == 10);
  CHECK_FALSE(d.book.mark_pending());
  CHECK(d.ask(1, {.waiting = 50}) == 10);
  d.book.accept(1, 4);  // an old answer, late
  CHECK(d.book.accepted_mark() == 10);
}

TEST_CASE("in a group of two both must accept") {
  Desk d(terms_of(160), 2);
  d.book.propose(10, at(ms(1)).mono);
  d.book.accept(0, 10);
  CHECK(d.book.accepted_mark() == 0);
  d.book.accept(1, 7);
  CHECK(d.book.accepted_mark() == 7);
}

TEST_CASE("a mark is raised by what waits and a sixteenth of what is left, before it is needed") {
  Desk d(terms_of(160), 3);
  const Now now = at(ms(1));
  REQUIRE(d.book.next_mark(now, kNear, kSync, 0) == 10);
  d.accept_all(10);
  CHECK_FALSE(d.book.next_mark(now, kNear, kSync, 0).has_value());
  d.ask(1, {.waiting = 5});
  CHECK_FALSE(d.book.next_mark(now, kNear, kSync, 0).has_value());  // half of it is still ahead
  d.ask(1, {.waiting = 1});
  CHECK(d.book.next_mark(now, kNear, kSync, 0) == 16);  // 6 + ceil(154 / 16)
  d.ask(2, {.waiting = 40});
  CHECK(d.line(2).turned_away);
  CHECK(d.book.next_mark(now, kNear, kSync, 0) == 10 + 36 + 10);  // what is out, what waits, ceil(150 / 16)
}

TEST_CASE("a mark of a far group is raised by what is asked for meanwhile, by more the further it is, and by three quarters at most") {
  Desk d(terms_of(160), 3);
  const Now now = at(ms(1));
  CHECK(d.book.next_mark(now, kFar, kSync, 0) == 10);  // nobody asks for anything: as near
  d.hear(1, {.ahead = 1, .demand = 5});
  CHECK(d.book.next_mark(now, kFar, kSync, 0) == 10);
  d.hear(1, {.ahead = 1, .demand = 50});
  CHECK(d.book.next_mark(now, kNear, kSync, 0) == 10);
  CHECK(d.book.next_mark(now, kFar, kSync, 0) == 33);  // 3 times 50 a second, for two round trips and a sync interval
  d.hear(1, {.ahead = 1, .demand = 1000});
  CHECK(d.book.next_mark(now, kNear, kSync, 0) == 10);
  CHECK(d.book.next_mark(now, kFar, kSync, 0) == 106);  // 160 * (1 / 16 + 60 / 100)
  CHECK(d.book.next_mark(now, secs(10), kSync, 0) == 120);
  CHECK(d.book.next_mark(now, kNear, kSync, 30) == 40);
  CHECK(d.book.next_mark(now, kNear, kSync, 1'000'000) == 160);
}

TEST_CASE("before a sliding window begins its mark is raised as if nothing were carried over") {
  Desk d(terms_of(160, Algorithm::sliding_window), 3);
  CHECK(d.book.next_mark(at(-ms(100)), kNear, kSync, 0) == 10);
  CHECK(d.book.next_mark(at(ms(1)), kNear, kSync, 0) == 10);  // its past is not known yet
  d.book.tell_previous(0, kBallot, 160);
  d.book.tell_previous(1, kBallot, 160);
  d.book.count_previous(nullptr, true);
  CHECK_FALSE(d.book.next_mark(at(Duration(0)), kNear, kSync, 0).has_value());  // nothing is to be had
}

TEST_CASE("quota ahead of a window stays inside its mark and leaves the tenth") {
  Desk d(terms_of(100), 3);
  const WallTime ahead = at(-ms(100)).wall;
  CHECK(d.book.issue_ahead(d.line(1), 50, ahead) == 0);
  d.accept_all(30);
  CHECK(d.book.issue_ahead(d.line(1), 50, ahead) == 30);
  d.accept_all(100);
  CHECK(d.book.issue_ahead(d.line(2), 500, ahead) == 60);
  CHECK(d.book.outstanding() == 90);
}

// ---- the past of a sliding window ----

TEST_CASE("the past of a sliding window counts in full until a majority has told of it") {
  Desk d(terms_of(100, Algorithm::sliding_window), 3);
  const WallTime begin = at(Duration(0)).wall;
  d.book.tell_previous(1, kBallot, 30);
  d.book.count_previous(nullptr, true);
  CHECK_FALSE(d.book.previous_known());
  CHECK(d.book.allowance(begin) == 0);
  d.book.tell_previous(1, kBallot, 30);  // the same member again
  CHECK_FALSE(d.book.previous_known());
  d.book.tell_previous(2, kBallot, 40);
  CHECK(d.book.previous_known());
  d.book.count_previous(nullptr, true);
  CHECK(d.book.allowance(begin) == 60);  // the largest that was told
}

TEST_CASE("an owner counts by its own book of the window before only where no higher ballot was told") {
  Desk before(terms_of(100, Algorithm::sliding_window), 3);
  before.past(12);
  const WallTime begin = at(Duration(0)).wall;

  Desk own(terms_of(100, Algorithm::sliding_window), 3);
  own.book.tell_previous(0, kBallot, 40);
  own.book.tell_previous(1, {}, 0);  // a member that accepted nothing there
  own.book.count_previous(&before.book, true);
  CHECK(own.book.allowance(begin) == 88);

  Desk claimed(terms_of(100, Algorithm::sliding_window), 3);
  claimed.book.tell_previous(0, kBallot, 40);
  claimed.book.tell_previous(1, {1, 7}, 30);
  claimed.book.count_previous(&before.book, true);
  CHECK(claimed.book.allowance(begin) == 60);
  claimed.book.tell_previous(1, {0, 2}, 99);  // an older answer of that member
  claimed.book.count_previous(&before.book, true);
  CHECK(claimed.book.allowance(begin) == 60);
}

TEST_CASE("as the past, a line counts as issued until its last word, and as used from then on") {
  Desk d(terms_of(100));
  d.ask(1, {.waiting = 30});
  d.ask(2, {.waiting = 20});
  CHECK(d.book.as_previous() == 50);
  Report last = d.report(1, {.used = 11});
  last.refunded = 1;
  last.final = true;
  d.book.merge(d.line(1), last, at(secs(11)).mono);
  CHECK(d.book.as_previous() == 30);
  d.hear(2, {.used = 3});
  CHECK(d.book.as_previous() == 30);
}

// ---- at random ----

namespace {

// Lessees, members and a network around one book; every number is what really happened.
struct World {
  struct Lessee {
    LineKey key;
    uint16_t rank = 0;
    uint64_t floor = 0;
    bool has_ballot = false;
    bool gone = false;  // evicted or dead: spends nothing any more
    uint64_t granted = 0, returned = 0, refunded = 0, used = 0;
    uint64_t given = 0;      // what it gave back of what others used
    uint64_t given_for = 0;  // what others gave back of what it used
    uint64_t stamp = 0;

    uint64_t count() const { return used + returned; }
    uint64_t ceiling() const { return floor + granted + refunded; }
    uint64_t potential() const { return gone ? used - refunded : floor + granted - returned; }
  };
  struct Letter {
    size_t to = 0;  // lessee or member
    uint64_t number = 0;
    Report report;
    uint16_t rank = 0;
  };
  template <typename T>
  using Bag = std::vector<T>;

  Random& random;
  const uint8_t group;
  const Terms terms;
  const uint16_t nodes;
  WindowBook book;
  std::vector<Lessee> lessees;
  std::array<uint64_t, kGroupMax> members{};
  Bag<Letter> reports, grants, marks, acceptances;
  Duration since{-ms(200)};
  uint64_t issued = 0, given_back = 0;

  World(Random& r, uint8_t g, Terms t, uint16_t n)
      : random(r), group(g), terms(t), nodes(n), book(kNumber, t, group_of(g), kBallot, kRecent) {
    for (uint16_t rank = 0; rank < n; ++rank) {
      lessees.emplace_back();
      lessees.back().key = {rank, 1, 1};
      lessees.back().rank = rank;
      lessees.back().floor = floor_of(t.limit, t.max_overcount, {rank, n});
    }
  }

  Now now() const { return at(since); }
  size_t any() { return random.below(lessees.size()); }

  // One of the bag, in any order; it may come again, or never have come.
  bool draw(Bag<Letter>& bag, Letter& out) {
    if (bag.empty()) return false;
    std::swap(bag[random.below(bag.size())], bag.back());
    out = bag.back();
    if (random.chance(0.7)) bag.pop_back();
    return random.chance(0.9);
  }

  void report(size_t i, bool final = false) {
    Lessee& l = lessees[i];
    Letter letter;
    Report& r = letter.report;
    r.has_ballot = l.has_ballot;
    if (l.has_ballot) r.ballot = kBallot;
    r.floor = static_cast<uint32_t>(l.floor);
    r.used = l.used;
    r.returned = l.returned;
    r.refunded = l.refunded;
    r.given = l.given;
    r.ceiling = l.ceiling();
    r.granted_heard = l.granted;
    r.waiting = random.chance(0.5) ? random.below(terms.limit) : 0;
    r.waiting_min = r.waiting == 0 ? 0 : 1 + random.below(r.waiting);
    r.wanted = l.count() + r.waiting + random.below(20);
    r.demand_milli = random.below(100'000);
    r.stamp = ++l.stamp;
    r.final = final;
    letter.to = i;
    reports.push_back(letter);
  }

  void hear_report() {
    Letter letter;
    if (!draw(reports, letter)) return;
    const Lessee& l = lessees[letter.to];
    Line* line = book.find(l.key);
    if (line == nullptr) line = &book.open(l.key, l.rank, letter.report.has_ballot ? 0 : letter.report.floor);
    book.merge(*line, letter.report, now().mono);
    const bool far = random.chance(0.3);
    for (int i = 0; i < 2; ++i) {
      const uint64_t room = book.remaining(now().wall);
      const uint64_t amount = book.issue(*line, now(), far);
      REQUIRE(amount <= room);
      issued += amount;
      raise_mark();
    }
    Letter grant;
    grant.to = letter.to;
    grant.number = line->granted;
    grants.push_back(grant);
  }

  void hear_grant() {
    Letter letter;
    if (!draw(grants, letter)) return;
    Lessee& l = lessees[letter.to];
    l.granted = std::max(l.granted, letter.number);
    l.has_ballot = true;
  }

  void raise_mark() {
    const uint64_t before = book.proposed_mark();
    const auto mark = book.next_mark(now(), Duration(static_cast<int64_t>(random.below(200'000'000))), kSync, random.below(10));
    if (!mark) return;
    REQUIRE(*mark > before);
    REQUIRE(*mark <= terms.limit);
    book.propose(*mark, at(ms(1)).mono);
    book.accept(0, *mark);
    for (size_t m = 1; m < group; ++m) {
      Letter letter;
      letter.to = m;
      letter.number = *mark;
      marks.push_back(letter);
    }
  }

  void hear_mark() {
    Letter letter;
    if (!draw(marks, letter)) return;
    members[letter.to] = std::max(members[letter.to], letter.number);
    letter.number = members[letter.to];
    acceptances.push_back(letter);
  }

  void hear_acceptance() {
    Letter letter;
    if (draw(acceptances, letter)) book.accept(letter.to, letter.number);
  }

  void issue_ahead() {
    if (since >= Duration(0)) return;
    const size_t i = any();
    const Lessee& l = lessees[i];
    Line* line = book.find(l.key);
    if (line == nullptr) line = &book.open(l.key, l.rank, l.floor);
    if (book.issue_ahead(*line, random.below(terms.limit + 1), now().wall) == 0) return;
    Letter grant;
    grant.to = i;
    grant.number = line->granted;
    grants.push_back(grant);
  }

  // The rest of the world does what it may: each within its own ceiling and what was really used.
  void spend(Lessee& l) {
    if (l.gone || since < Duration(0)) return;
    const uint64_t left = l.ceiling() - l.count();
    l.used += random.chance(0.3) ? left : random.below(left + 1);
  }
  void give_up(Lessee& l) {
    if (l.gone || !l.has_ballot) return;
    l.returned += random.below(minus(l.ceiling(), l.count()) + 1);
  }
  void refund(Lessee& l) {
    if (!l.gone) l.refunded += random.below(l.used - l.refunded - l.given_for + 1);
  }
  void give(Lessee& giver, Lessee& of) {
    const Line* line = book.find(of.key);
    if (giver.gone || !giver.has_ballot || &giver == &of || line == nullptr) return;
    const uint64_t amount = random.below(minus(line->used, of.refunded + of.given_for) + 1);
    giver.given += amount;
    of.given_for += amount;
    given_back += amount;
  }
  // The key was evicted, or the node began a new life: a new line without a floor.
  void begin_anew(size_t i) {
    if (lessees[i].gone || lessees.size() > 20) return;
    Lessee next;
    next.key = lessees[i].key;
    next.rank = lessees[i].rank;
    if (random.chance(0.5))
      ++next.key.incarnation;
    else
      next.key.number = static_cast<uint32_t>(lessees.size()) + 10;
    while (book.find(next.key) != nullptr) ++next.key.incarnation;
    for (const Lessee& l : lessees)
      if (l.key == next.key) return;
    lessees[i].gone = true;
    lessees.push_back(next);
  }

  void step() {
    switch (random.below(16)) {
      case 0:
        since += ms(random.between(0, 300));
        break;
      case 1:
        return give_up(lessees[any()]);
      case 2:
        return refund(lessees[any()]);
      case 3:
        return give(lessees[any()], lessees[any()]);
      case 4:
        if (random.chance(0.1)) begin_anew(any());
        break;
      case 5:
        return issue_ahead();
      case 6:
        return hear_mark();
      case 7:
        return hear_acceptance();
      case 8:
      case 9:
        return spend(lessees[any()]);
      case 10:
      case 11:
        return report(any());
      case 12:
      case 13:
        return hear_report();
      case 14:
        return hear_grant();
      default:
        if (random.chance(0.2)) book.tell_previous(random.below(group), kBallot, random.below(terms.limit));
        book.count_previous(nullptr, true);
    }
  }

  void check() const {
    uint64_t charged = 0, uncharged = 0, potential = 0, net = 0, given = 0;
    for (const Line& line : book.lines()) charged += line.floor;
    for (const Lessee& l : lessees) {
      const bool known =
          std::ranges::any_of(book.lines(), [&](const Line& line) { return line.key == l.key; });
      if (!known) uncharged += l.floor;
      potential += l.potential();
      net += l.used - l.refunded;
      given += l.given;
    }
    REQUIRE(book.outstanding() <= std::min<uint64_t>(terms.limit, book.accepted_mark()) + charged);
    REQUIRE(potential <= book.outstanding() + given + uncharged);
    REQUIRE(net <= terms.limit + overcount_budget(terms.limit, terms.max_overcount) + given);
    REQUIRE(charged + uncharged <= overcount_budget(terms.limit, terms.max_overcount));
  }

  // Everybody's clock leaves the window; some of the last words arrive.
  void end() {
    since = kWindow;
    for (size_t i = 0; i < lessees.size(); ++i)
      if (!lessees[i].gone) report(i, true);
    for (int i = 0; i < 10; ++i) {
      hear_report_as_past();
      uint64_t net = 0, given = 0;
      for (const Lessee& l : lessees) {
        given += l.given;
        if (std::ranges::any_of(book.lines(), [&](const Line& line) { return line.key == l.key; }))
          net += l.used - l.refunded;
      }
      REQUIRE(book.as_previous() + given >= net);
    }
  }
  void hear_report_as_past() {
    Letter letter;
    if (!draw(reports, letter)) return;
    if (Line* line = book.find(lessees[letter.to].key)) book.merge(*line, letter.report, now().mono);
  }
};

}  // namespace

TEST_CASE(
    "whatever happens to messages, what is out stays under the accepted mark and the floors that were "
    "charged, and covers all that lessees may spend") {
  Random random(test_seed(312));
  uint64_t issued = 0, given_back = 0, marks_of_several = 0;
  for (int round = 0; round < kRandomRounds; ++round) {
    const uint32_t ppm[] = {0, 50'000, 300'000, kPartsPerMillion};
    const Terms terms = terms_of(static_cast<uint32_t>(random.between(1, 200)),
                                 random.chance(0.6) ? Algorithm::fixed_window : Algorithm::sliding_window,
                                 {.ppm = ppm[random.below(4)], .unbounded = false});
    const auto group = static_cast<uint8_t>(random.between(1, 3));
    World world(random, group, terms, static_cast<uint16_t>(random.between(2, 6)));
    INFO("round " << round << " limit " << terms.limit << " group " << int{group});
    for (int step = 0; step < 300; ++step) {
      world.step();
      world.check();
    }
    world.end();
    issued += world.issued;
    given_back += world.given_back;
    if (group > 1) marks_of_several += world.book.accepted_mark();
  }
  CHECK(issued > static_cast<uint64_t>(kRandomRounds) * 20);  // the worlds were not idle
  CHECK(given_back > static_cast<uint64_t>(kRandomRounds));
  CHECK(marks_of_several > static_cast<uint64_t>(kRandomRounds) * 10);
}

TEST_CASE("numbers of any size in a report are counted within bounds and give nobody more than is left") {
  Random random(test_seed(313));
  for (int round = 0; round < kRandomRounds; ++round) {
    const auto number = [&] {
      return random.chance(0.3) ? ~random.below(4) : random.next() >> random.below(64);
    };
    const auto limit = static_cast<uint32_t>(random.between(1, kLimitMax));
    const auto group = static_cast<uint8_t>(random.between(1, 3));
    Desk d(terms_of(limit, random.chance(0.5) ? Algorithm::fixed_window : Algorithm::sliding_window), group);
    for (int step = 0; step < 40; ++step) {
      const auto n = static_cast<uint16_t>(random.below(4));
      Report r;
      r.has_ballot = random.chance(0.7);
      r.ballot = random.chance(0.8) ? kBallot : Ballot{static_cast<uint32_t>(number()), number()};
      for (uint64_t* field : {&r.used, &r.returned, &r.refunded, &r.given, &r.ceiling, &r.granted_heard,
                              &r.wanted, &r.waiting_min, &r.waiting, &r.demand_milli, &r.stamp})
        *field = number();
      r.final = random.chance(0.1);
      const Now now = at(ms(random.between(-200, 21'000)));
      Line& line = d.line(n, number());
      d.book.merge(line, r, now.mono);
      const uint64_t room = d.book.remaining(now.wall);
      REQUIRE(room <= limit);
      REQUIRE(d.book.issue(line, now, random.chance(0.5)) <= room);
      if (const auto mark = d.book.next_mark(now, Duration(static_cast<int64_t>(random.below(1'000'000'000))), kSync, number() >> 1)) {
        REQUIRE(*mark <= limit);
        d.book.propose(*mark, at(ms(1)).mono);
      }
      d.book.accept(random.below(group), number());
      REQUIRE(d.book.accepted_mark() <= limit);
      d.book.tell_previous(random.below(group), r.ballot, number());
      d.book.count_previous(random.chance(0.5) ? &d.book : nullptr, true);
      REQUIRE(d.book.allowance(now.wall) <= limit);
      REQUIRE(d.book.used() <= uint64_t{4} << 40);
      REQUIRE(d.book.outstanding() <= uint64_t{5} << 40);
      REQUIRE(d.book.regrows_after(std::min<uint64_t>(number(), limit), now.wall) >= Duration(0));
      static_cast<void>(d.book.exhausted(now.wall));
      static_cast<void>(d.book.demand_share(line, now.mono, std::chrono::seconds(1)));
    }
  }
}

TEST_CASE("a book of a month says that all is used until the month ends, however long it is") {
  constexpr auto midnight = [](int month, int day) {
    return WallTime(std::chrono::sys_days(std::chrono::year(2026) / month / day).time_since_epoch());
  };
  Terms terms = terms_of(10);
  terms.window = kMonth;
  for (const auto& [month, days] : {std::pair(1, 31), std::pair(2, 28), std::pair(4, 30)}) {
    WindowBook book(2026 * 12 + month - 1, terms, group_of(1), kBallot, kRecent);
    CHECK(book.regrows_after(1, midnight(month, 1)) == std::chrono::hours(24 * days));
    CHECK(book.regrows_after(1, midnight(month, days)) == std::chrono::hours(24));
    CHECK(book.regrows_after(1, midnight(month, 1) - Duration(1)) == Duration(0));
    CHECK(book.regrows_after(1, midnight(month + 1, 1)) == Duration(0));
    CHECK(book.allowance(midnight(month, days)) == 10);
    CHECK(book.allowance(midnight(month, 1) - Duration(1)) == 9);  // ahead: a tenth is for newcomers
  }
}
