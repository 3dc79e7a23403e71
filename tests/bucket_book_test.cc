#include "cluster/bucket_book.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "cluster_fixture.h"
#include "seed.h"

using namespace tally;
using namespace tally::test;

namespace {

constexpr Ballot kBallot{0, 1000};
constexpr Duration kRecent = ms(350);
constexpr Duration kLease = secs(1);
constexpr Duration kEmission = ms(100);

Terms terms_of(uint32_t burst, Duration emission = kEmission) {
  Terms terms;
  terms.algorithm = Algorithm::token_bucket;
  terms.limit = burst;
  terms.emission = emission;
  return terms;
}

constexpr uint64_t tokens(uint64_t n) { return n * static_cast<uint64_t>(nanos(kEmission)); }
constexpr MonoTime mono_at(Duration since) { return at(since).mono; }

// What a lessee asks for, in tokens.
struct Want {
  uint64_t waiting = 0;
  uint64_t ahead = 0;
  uint64_t waiting_min = 1;
  uint64_t demand = 0;
  uint64_t used = 0, returned = 0;
};

struct Desk {
  BucketBook book;
  uint64_t stamp = 0;

  explicit Desk(uint32_t burst, uint8_t group = 1, Duration proven = Duration::max())
      : book(terms_of(burst), group_of(group), kBallot, kLease, kRecent, 0, {mono_at(Duration(0)), mono_at(Duration(0)), proven}) {}

  static LineKey key(uint16_t n) { return {n, 1, 1}; }
  BucketBook::Leased& line(uint16_t n) {
    BucketBook::Leased* found = book.find(key(n));
    return found != nullptr ? *found : book.open(key(n), n, {});
  }
  // A report of a lessee that has heard all that it was granted.
  Report report(uint16_t n, const Want& want) {
    const BucketBook::Leased& l = line(n);
    Report r;
    r.ballot = kBallot;
    r.has_ballot = true;
    r.lease = l.lease;
    r.used = tokens(want.used);
    r.returned = tokens(want.returned);
    r.ceiling = r.granted_heard = l.line.granted;
    r.waiting = tokens(want.waiting);
    r.waiting_min = want.waiting == 0 ? 0 : tokens(want.waiting_min);
    r.wanted = r.ceiling + tokens(want.waiting + want.ahead);
    r.demand_milli = tokens(want.demand) * 1000;
    r.stamp = ++stamp;
    return r;
  }
  void hear(uint16_t n, const Want& want, Duration since) {
    book.merge(line(n), report(n, want), mono_at(since));
  }
  uint64_t ask(uint16_t n, const Want& want, Duration since) {
    hear(n, want, since);
    return book.issue(line(n), mono_at(since)) / tokens(1);
  }
  void accept_all(Duration since, Duration look_ahead = ms(200)) {
    if (!book.next_mark(mono_at(since), look_ahead)) return;
    for (size_t i = 0; i < kGroupMax; ++i) book.accept(i, book.proposal().number);
  }
};

}  // namespace

TEST_CASE(
    "no mark is further ahead than the bucket and a lease with its margin, and registers are kept a little "
    "longer") {
  CHECK(bucket_mark_max(secs(10), secs(1)) == ms(11'030));
  CHECK(bucket_keep(secs(10), secs(1)) == Duration(11'802'100'000));
}

TEST_CASE("a lease is a quarter of the bucket at most, where four sync intervals fit into it") {
  CHECK(lease_for(secs(100), secs(1), ms(100)) == secs(1));
  CHECK(lease_for(secs(3), secs(1), ms(100)) == ms(750));
  CHECK(lease_for(secs(1), secs(1), ms(100)) == ms(400));
  CHECK(lease_for(secs(1), ms(300), ms(100)) == ms(300));
}

TEST_CASE(
    "a request that waits gets its tokens on a lease, which the owner keeps three per cent longer than it "
    "says") {
  Desk d(10);
  CHECK(d.ask(1, {.waiting = 3}, Duration(0)) == 3);
  const auto& leased = d.line(1);
  CHECK(leased.lease != 0);
  CHECK(leased.unreported() == tokens(3));
  CHECK(leased.end == mono_at(ms(1030)));
  CHECK(leased.length == secs(1));
  CHECK(d.book.tat() == mono_at(kEmission * 3));
  CHECK(d.book.room(mono_at(Duration(0))) == kEmission * 7);
}

TEST_CASE("the same report again asks for nothing new") {
  Desk d(10);
  const Report r = d.report(1, {.waiting = 2});
  for (int i = 0; i < 3; ++i) {
    d.book.merge(d.line(1), r, mono_at(ms(1)));
    CHECK(d.book.issue(d.line(1), mono_at(ms(1))) == (i == 0 ? tokens(2) : 0));
  }
}

TEST_CASE("half of the bucket at most is leased out, but one whole request always may be") {
  Desk d(10);
  CHECK(d.ask(1, {.ahead = 9, .demand = 9}, Duration(0)) == 5);
  CHECK(d.ask(2, {.ahead = 9, .demand = 9}, Duration(0)) == 0);
  CHECK(d.ask(2, {.waiting = 4, .waiting_min = 4}, Duration(0)) == 4);
  Desk whole(10);
  CHECK(whole.ask(1, {.waiting = 10, .waiting_min = 10}, Duration(0)) == 10);
  Desk single(1);
  CHECK(single.ask(1, {.waiting = 1}, Duration(0)) == 1);
  CHECK(single.ask(2, {.waiting = 1}, Duration(0)) == 0);
}

TEST_CASE("what is leased and not reported counts against the bucket for as long as the lease runs") {
  Desk d(10);
  d.ask(1, {.waiting = 5}, Duration(0));
  CHECK(d.book.room(mono_at(ms(900))) == kEmission * 5);  // nothing has come back in spite of the time
  d.hear(1, {.used = 2}, ms(900));
  CHECK(d.book.unreported() == tokens(3));
  CHECK(d.book.room(mono_at(ms(1000))) ==
        kEmission * 6);  // one a tenth of a second, from when it was reported
}

TEST_CASE("a lease that ends without a word was spent at its very end") {
  Desk d(10);
  d.ask(1, {.waiting = 5}, Duration(0));
  CHECK(d.book.room(mono_at(ms(1030))) == kEmission * 5);
  CHECK(d.line(1).lease == 0);
  CHECK(d.book.unreported() == 0);
  CHECK(d.book.room(mono_at(ms(1230))) == kEmission * 7);
  CHECK(d.book.room(mono_at(ms(1530))) == kEmission * 10);
  CHECK(d.book.room(mono_at(secs(100))) == kEmission * 10);

  Desk later(10);  // looked at only much later
  later.ask(1, {.waiting = 5}, Duration(0));
  CHECK(later.book.room(mono_at(ms(1230))) == kEmission * 7);
}

TEST_CASE("what is returned was not spent") {
  Desk d(10);
  d.ask(1, {.waiting = 5}, Duration(0));
  d.hear(1, {.used = 1, .returned = 3}, ms(500));
  CHECK(d.book.unreported() == tokens(1));
  // The used one was taken at the latest when it was reported; the one still out is held.
  CHECK(d.book.room(mono_at(ms(500))) == kEmission * 8);
  d.hear(1, {.used = 1, .returned = 3}, ms(500));
  CHECK(d.book.room(mono_at(ms(500))) == kEmission * 8);  // twice is once
}

TEST_CASE("a report of a lease that is over, or of another ballot, changes nothing of what was charged") {
  Desk d(10);
  d.ask(1, {.waiting = 5}, Duration(0));
  Report stale = d.report(1, {.returned = 5});
  stale.lease -= 1;
  d.book.merge(d.line(1), stale, mono_at(ms(10)));
  CHECK(d.book.unreported() == tokens(5));
  stale = d.report(1, {.returned = 5});
  stale.ballot = {1, 7};
  d.book.merge(d.line(1), stale, mono_at(ms(11)));
  CHECK(d.book.unreported() == tokens(5));
  const Report late = d.report(1, {.returned = 5});
  CHECK(d.book.room(mono_at(ms(1030))) == kEmission * 5);
  d.book.merge(d.line(1), late, mono_at(ms(1031)));
  CHECK(d.book.room(mono_at(ms(1030))) == kEmission * 5);
}

TEST_CASE("a lessee cannot report more than it was granted") {
  Desk d(10);
  d.ask(1, {.waiting = 4}, Duration(0));
  d.hear(1, {.used = 100, .returned = 3}, ms(1));
  CHECK(d.book.unreported() == 0);
  CHECK(d.line(1).line.used + d.line(1).line.returned == tokens(4));
  d.hear(1, {.returned = 1000}, ms(2));
  CHECK(d.book.room(mono_at(ms(2))) <= kEmission * 10);
}

TEST_CASE("a lease is renewed by every report while something of it is unspent, and not after") {
  Desk d(10);
  d.ask(1, {.waiting = 2}, Duration(0));
  const uint64_t first = d.line(1).lease;
  CHECK(d.ask(1, {.used = 1}, ms(500)) == 0);
  CHECK(d.line(1).lease == first);
  CHECK(d.line(1).end == mono_at(ms(1530)));
  CHECK(d.ask(1, {.used = 2}, ms(600)) == 0);
  CHECK(d.line(1).end == mono_at(ms(1530)));
  CHECK(d.ask(1, {.waiting = 1, .used = 2}, ms(700)) == 1);  // it goes on where more is asked for
  CHECK(d.line(1).lease == first);
  CHECK(d.line(1).end == mono_at(ms(1730)));
}

TEST_CASE("a new lease has a number that was never given out") {
  Desk d(10);
  d.ask(1, {.waiting = 1}, Duration(0));
  const uint64_t first = d.line(1).lease;
  CHECK(d.ask(1, {.waiting = 1}, ms(2000)) == 1);
  CHECK(d.line(1).lease > first);
  // A book that is begun anew.
  BucketBook again(terms_of(10), group_of(1), kBallot, kLease, kRecent, d.book.last_number(), {mono_at(Duration(0)), mono_at(Duration(0))});
  auto& leased = again.open(Desk::key(1), 1, {});
  Report r = d.report(1, {.waiting = 1});
  again.merge(leased, r, mono_at(ms(2010)));
  again.issue(leased, mono_at(ms(2010)));
  CHECK(leased.lease > d.line(1).lease);
}

TEST_CASE("what is left is shared in proportion to demand, in whole tokens") {
  Desk d(40);
  d.hear(1, {.waiting = 10, .waiting_min = 1}, Duration(0));
  d.hear(2, {.waiting = 30, .waiting_min = 1}, Duration(0));
  CHECK(d.book.issue(d.line(1), mono_at(Duration(0))) == tokens(10));
  Desk small(10);
  small.hear(1, {.waiting = 10, .waiting_min = 1}, Duration(0));
  small.hear(2, {.waiting = 30, .waiting_min = 1}, Duration(0));
  CHECK(small.book.issue(small.line(1), mono_at(Duration(0))) == tokens(2));  // a quarter of 10
  CHECK(small.line(1).line.turned_away);
  CHECK(small.book.unmet(mono_at(Duration(0))) == tokens(8));
}

TEST_CASE("a bucket is exhausted where not even all that is leased would help") {
  Desk d(10);
  d.ask(1, {.waiting = 10, .waiting_min = 10}, Duration(0));
  CHECK_FALSE(d.book.exhausted(tokens(1), mono_at(Duration(0))));
  d.hear(1, {.used = 10}, Duration(0));
  CHECK(d.book.exhausted(tokens(1), mono_at(Duration(0))));
  CHECK(d.book.regrows_after(tokens(1), mono_at(Duration(0))) == kEmission);
  CHECK(d.book.regrows_after(tokens(3), mono_at(ms(50))) == ms(250));
  CHECK_FALSE(d.book.exhausted(tokens(1), mono_at(kEmission)));
  CHECK(d.book.regrows_after(tokens(1), mono_at(secs(1))) == Duration(0));
}

TEST_CASE("a line that was opened by a report of no certain age counts what is given back after the first that is younger") {
  Desk d(10);
  d.ask(1, {.waiting = 8, .waiting_min = 8}, Duration(0));
  d.hear(1, {.used = 8}, Duration(0));
  const MonoTime now = mono_at(ms(10));
  const Duration room = d.book.room(now);
  BucketBook::Leased& late = d.book.open(Desk::key(2), 2, now);
  d.book.give(late, 0, mono_at(ms(5)), now);
  d.book.give(late, tokens(3), mono_at(ms(5)), now);
  CHECK(d.book.room(now) == room);  // counted by the line that was forgotten
  d.book.give(d.line(2), tokens(3), now + ms(1), now + ms(2));
  CHECK(d.book.room(now) == room);
  d.book.give(d.line(2), tokens(4), now + ms(1), now + ms(2));
  CHECK(d.book.room(now) == room + kEmission);
  d.book.give(d.line(2), tokens(4), now + ms(1), now + ms(2));
  CHECK(d.book.room(now) == room + kEmission);
}

TEST_CASE("a refund and a reset free what was taken, never what is still leased") {
  Desk d(10);
  d.ask(1, {.waiting = 8, .waiting_min = 8}, Duration(0));
  d.hear(1, {.used = 5}, Duration(0));
  const MonoTime now = mono_at(Duration(0));
  d.book.give(d.line(1), 0, now, now);
  d.book.give(d.line(1), tokens(2), now, now);
  CHECK(d.book.room(mono_at(Duration(0))) == kEmission * 4);
  d.book.give(d.line(1), tokens(1000), now, now);
  CHECK(d.book.room(mono_at(Duration(0))) == kEmission * 7);
  Desk reset(10);
  reset.ask(1, {.waiting = 8, .waiting_min = 8}, Duration(0));
  reset.hear(1, {.used = 5}, Duration(0));
  reset.book.reset(mono_at(Duration(0)));
  CHECK(reset.book.room(mono_at(Duration(0))) == kEmission * 7);
}

TEST_CASE("in a group nothing is leased before a majority has echoed the mark's number") {
  Desk d(10, 3);
  CHECK(d.ask(1, {.waiting = 3}, Duration(0)) == 0);
  CHECK(d.line(1).line.turned_away);
  const auto mark = d.book.next_mark(mono_at(Duration(0)), ms(200));
  REQUIRE(mark.has_value());
  CHECK(d.book.mark_pending());
  d.book.accept(0, mark->number);
  d.book.accept(1, 0);
  d.book.accept(1, mark->number + 1);  // never sent
  d.book.accept(1, mark->number + 8);
  CHECK(d.book.issue(d.line(1), mono_at(Duration(0))) == 0);
  d.book.accept(1, mark->number);
  CHECK(d.book.accepted_mark() == mark->mark);
  CHECK_FALSE(d.book.mark_pending());
  CHECK(d.book.issue(d.line(1), mono_at(Duration(0))) == tokens(3));
}

TEST_CASE("an echo of a mark too old to be known is no acceptance, and one of any recent mark is") {
  Desk d(10, 2);
  std::vector<BucketBook::Proposal> sent;
  for (int i = 0; i < 12; ++i)
    if (const auto mark = d.book.next_mark(mono_at(secs(i)), ms(200))) sent.push_back(*mark);
  REQUIRE(sent.size() == 12);
  d.book.accept(0, sent[11].number);
  d.book.accept(1, sent[3].number);
  CHECK(d.book.accepted_mark() == MonoTime{});
  d.book.accept(1, sent[4].number);
  CHECK(d.book.accepted_mark() == sent[4].mark);
  d.book.accept(1, sent[11].number);
  CHECK(d.book.accepted_mark() == sent[11].mark);
}

TEST_CASE(
    "a mark covers what is out for a whole lease, what waits and a margin, and is not raised before it is "
    "needed") {
  Desk d(160, 3);
  d.ask(1, {.waiting = 4}, Duration(0));
  const auto mark = d.book.next_mark(mono_at(Duration(0)), ms(200));
  REQUIRE(mark.has_value());
  CHECK(mark->mark == mono_at(ms(1030) + kEmission * 4 + kEmission * 10 + ms(200)));
  CHECK_FALSE(d.book.next_mark(mono_at(Duration(0)), ms(200)).has_value());
  CHECK_FALSE(d.book.next_mark(mono_at(ms(500)), ms(200)).has_value());
  d.hear(1, {.waiting = 4}, ms(700));
  CHECK(d.book.next_mark(mono_at(ms(700)), ms(200)).has_value());
}

TEST_CASE("no mark is raised for what waited at a line that has fallen silent") {
  Desk d(160, 3);
  d.ask(1, {.waiting = 100}, Duration(0));
  CHECK(d.line(1).line.turned_away);
  CHECK(d.book.unmet(mono_at(kRecent)) == tokens(100));
  CHECK(d.book.unmet(mono_at(kRecent + Duration(1))) == 0);
}

TEST_CASE("a lease that the lessee does not have is not renewed, so that a new one can follow it") {
  Desk d(20);
  REQUIRE(d.ask(1, {.waiting = 2}, Duration(0)) == 2);
  const uint64_t first = d.line(1).lease;
  const MonoTime end = d.line(1).end;
  // It leased to itself meanwhile, or never heard of it: what it says is of no lease.
  const auto ask_without = [&](Duration since) {
    Report r = d.report(1, {.waiting = 1});
    r.lease = r.used = r.granted_heard = r.ceiling = 0;
    r.wanted = tokens(1);
    d.book.merge(d.line(1), r, mono_at(since));
    d.book.issue(d.line(1), mono_at(since));
  };
  for (Duration since = ms(50); mono_at(since) < end; since += ms(50)) {
    ask_without(since);
    REQUIRE(d.line(1).lease == first);
    REQUIRE(d.line(1).end == end);
  }
  ask_without(end - mono_at(Duration(0)));
  CHECK(d.line(1).lease > first);
  CHECK(d.line(1).line.granted == tokens(1));
}

TEST_CASE("a lease is cut short where the accepted mark holds no whole one") {
  Desk d(10, 3);
  d.hear(1, {.waiting = 1}, Duration(0));
  d.accept_all(Duration(0));
  const MonoTime mark = d.book.accepted_mark();
  REQUIRE(d.ask(1, {.waiting = 1}, Duration(0)) == 1);
  // Renewed again and again, without a new mark.
  for (int i = 1; i <= 20; ++i) {
    d.ask(1, {.ahead = 1, .demand = 1}, ms(50 * i));
    const auto& leased = d.line(1);
    if (leased.lease == 0) break;
    CHECK(leased.end + Duration(static_cast<int64_t>(d.book.unreported())) <= mark);
    CHECK(mono_at(ms(50 * i)) + leased.length * 103 / 100 <= leased.end);
  }
}

TEST_CASE("a lease leaves room under the accepted mark for who asks next") {
  Desk d(10, 3);
  d.hear(1, {.waiting = 1}, Duration(0));
  d.accept_all(Duration(0), Duration(0));
  REQUIRE(d.book.accepted_mark() == mono_at(ms(1130)));  // a whole lease and one token
  CHECK(d.ask(1, {.waiting = 1}, Duration(0)) == 1);
  CHECK(d.ask(2, {.waiting = 1}, Duration(0)) == 1);
  CHECK(d.ask(3, {.waiting = 1}, Duration(0)) == 1);
  for (uint16_t n = 1; n <= 3; ++n) CHECK(d.line(n).length >= kLease / 2);
}

TEST_CASE("a bucket is idle when it is full, nothing is leased and no mark is in force") {
  Desk d(10, 3);
  CHECK(d.book.idle(mono_at(Duration(0))));
  d.hear(1, {.waiting = 2}, Duration(0));
  d.accept_all(Duration(0));
  CHECK_FALSE(d.book.idle(mono_at(Duration(0))));
  CHECK(d.ask(1, {.waiting = 2}, ms(1)) == 2);
  CHECK_FALSE(d.book.idle(mono_at(ms(1000))));
  CHECK_FALSE(d.book.idle(mono_at(ms(1040))));
  CHECK(d.book.idle(mono_at(secs(3))));
}

TEST_CASE("a longer burst than was proven to be there counts as used when the books began") {
  for (const bool proven : {true, false}) {
    CAPTURE(proven);
    Desk desk(10, 1, proven ? Duration::max() : kEmission * 10);
    CHECK(desk.book.room(mono_at(Duration(0))) == kEmission * 10);
    desk.book.use_terms(terms_of(100), kLease);
    const Duration room = desk.book.room(mono_at(Duration(0)));
    CHECK(room <= kEmission * (proven ? 100 : 10));
    CHECK(room >= kEmission * (proven ? 100 : 3));  // less what V has on top
    desk.book.use_terms(terms_of(10), kLease);
    desk.book.use_terms(terms_of(100), kLease);
    CHECK(desk.book.room(mono_at(Duration(0))) == room);  // once
    CHECK(desk.book.room(mono_at(kEmission * 100)) == kEmission * 100);
    CHECK(desk.book.longest_span() == kEmission * 100);
  }
}

TEST_CASE("calls with other parameters are answered by their own, and leases get no shorter") {
  Desk d(10);
  d.ask(1, {.waiting = 4}, Duration(0));
  d.book.use_terms(terms_of(20), ms(500));
  CHECK(d.book.burst_span() == kEmission * 20);
  CHECK(d.book.lease() == kLease);
  CHECK(d.book.room(mono_at(Duration(0))) == kEmission * 16);
  d.book.use_terms(terms_of(2), ms(500));
  CHECK(d.book.room(mono_at(Duration(0))) == Duration(0));
}

// ---- at random ----

namespace {

// The bucket as a judge sees it: GCRA over what was really spent, on the owner's clock.
struct Judge {
  Duration span;
  MonoTime tat{};
  Duration most{0};  // how far ahead it was at most
  uint64_t spent = 0;

  void spend(uint64_t amount, MonoTime when) {
    tat = std::max(tat, when) + Duration(static_cast<int64_t>(amount));
    spent += amount;
    most = std::max(most, tat - when);
  }
};

// A lessee with a clock of its own.
struct Lessee {
  LineKey key;
  Duration offset{0};
  int64_t drift_ppm = 0;
  bool late = false;  // spends all at the last moment
  bool has_ballot = false;
  uint64_t lease = 0, granted = 0, returned = 0, count = 0;
  MonoTime end{};  // on its own clock

  MonoTime clock(MonoTime t) const {
    const auto since = static_cast<__int128>(nanos(t));
    return t + offset + Duration(static_cast<int64_t>(since * drift_ppm / kPartsPerMillion));
  }
  bool runs(MonoTime t) const { return lease != 0 && clock(t) < end; }
  uint64_t left(MonoTime t) const { return runs(t) ? minus(granted, count) : 0; }
  // The last moment of the lease on the owner's clock.
  MonoTime last_moment() const {
    const auto shown = static_cast<__int128>(nanos(end - offset));
    MonoTime t(Duration(static_cast<int64_t>(shown * kPartsPerMillion / (kPartsPerMillion + drift_ppm))));
    while (clock(t) >= end) t -= Duration(1);
    while (clock(t + Duration(1)) < end) t += Duration(1);
    return t;
  }
};

struct World {
  struct Letter {
    size_t to = 0;
    LineKey key;
    Report report;
    uint64_t lease = 0, granted = 0, stamp = 0, number = 0;
    Duration lease_for{0};
  };
  using Bag = std::vector<Letter>;

  Random& random;
  const uint8_t group;
  const Duration emission;
  const uint32_t burst;
  const bool swift;  // letters arrive at once and the newest first; else in any order, late or never
  BucketBook book;
  Judge judge;
  std::vector<Lessee> lessees;
  Bag reports, grants, marks, acceptances;
  MonoTime now = mono_at(Duration(0));
  size_t renewed = 0;

  World(Random& r, uint8_t g, const Terms& t, Duration lease)
      : random(r),
        group(g),
        emission(t.emission),
        burst(t.limit),
        swift(r.chance(0.6)),
        book(t, group_of(g), kBallot, lease, kRecent, 0, {MonoTime{}, MonoTime{}}) {
    judge.span = book.burst_span();
    const auto n = random.between(1, 4);
    for (int64_t i = 0; i < n; ++i) {
      Lessee l;
      l.key = {static_cast<NodeId>(i), 1, 1};
      l.offset = ms(random.between(-50'000, 50'000));
      // Both clocks run within 1 % of the truth, so within 2 % of each other.
      l.drift_ppm = random.chance(0.4) ? -20'000 : random.between(-20'000, 20'000);
      l.late = random.chance(0.6);
      lessees.push_back(l);
    }
  }

  bool draw(Bag& bag, Letter& out) {
    if (bag.empty()) return false;
    if (!swift || random.chance(0.1)) std::swap(bag[random.below(bag.size())], bag.back());
    out = bag.back();
    if (random.chance(0.8)) bag.pop_back();
    return random.chance(0.95);
  }

  void spend(Lessee& l, bool all) {
    const uint64_t left = l.left(now);
    const uint64_t amount = all ? left : random.below(left + 1);
    if (amount == 0) return;
    l.count += amount;
    judge.spend(amount, now);
    REQUIRE(judge.tat - now <= judge.span);  // in no interval more than burst + t * rate
  }

  // Time goes on, and whoever is late spends in the last nanosecond of its lease.
  void pass(Duration d) {
    const MonoTime until = now + d;
    for (;;) {
      Lessee* next = nullptr;
      for (Lessee& l : lessees)
        if (l.late && l.left(now) > 0 && l.last_moment() <= until &&
            (next == nullptr || l.last_moment() < next->last_moment()))
          next = &l;
      if (next == nullptr) break;
      now = std::max(now, next->last_moment());
      spend(*next, true);
    }
    now = until;
  }

  void report(size_t i) {
    Lessee& l = lessees[i];
    Letter letter;
    letter.to = i;
    letter.key = l.key;
    Report& r = letter.report;
    const bool runs = l.runs(now);
    const uint64_t count = runs ? l.count : 0, ceiling = runs ? l.granted : 0;
    r.has_ballot = l.has_ballot;
    if (l.has_ballot) r.ballot = kBallot;
    r.lease = l.lease;
    r.used = minus(count, l.returned);
    r.returned = l.returned;
    r.granted_heard = l.granted;
    r.ceiling = ceiling;
    const auto one = static_cast<uint64_t>(nanos(emission));
    r.waiting =
        random.chance(0.6) ? one * (random.chance(0.5) ? random.below(6) : random.below(burst + 1)) : 0;
    r.waiting_min = r.waiting == 0 ? 0 : one * (1 + random.below(r.waiting / one));
    r.wanted = count + r.waiting + one * random.below(10);
    r.demand_milli = random.below(one * 20'000);
    r.stamp = static_cast<uint64_t>(nanos(l.clock(now)));
    reports.push_back(letter);
  }

  void answer(size_t to, const BucketBook::Leased& leased, uint64_t stamp) {
    Letter letter;
    letter.to = to;
    letter.key = leased.line.key;
    letter.lease = leased.lease;
    letter.granted = leased.line.granted;
    letter.lease_for = leased.length;
    letter.stamp = stamp;
    grants.push_back(letter);
    if (leased.line.granted > 0) ++renewed;
  }

  void hear_report() {
    Letter letter;
    if (!draw(reports, letter)) return;
    BucketBook::Leased* leased = book.find(letter.key);
    if (leased == nullptr) leased = &book.open(letter.key, 0, {});
    book.merge(*leased, letter.report, now);
    book.issue(*leased, now);
    raise_mark();
    if (leased->line.turned_away) book.issue(*leased, now);
    answer(letter.to, *leased, letter.report.stamp);
  }

  // Room came back, or a mark was accepted: those who were turned away, by the stamp of what they asked.
  void serve_turned_away() {
    for (auto& leased : book.lines())
      if (leased.line.turned_away && book.issue(leased, now) > 0)
        for (size_t i = 0; i < lessees.size(); ++i)
          if (lessees[i].key == leased.line.key) answer(i, leased, leased.line.stamp);
  }

  void hear_grant() {
    Letter letter;
    if (!draw(grants, letter)) return;
    Lessee& l = lessees[letter.to];
    if (letter.key != l.key || letter.lease == 0) return;
    l.has_ballot = true;
    const MonoTime end = MonoTime(Duration(static_cast<int64_t>(letter.stamp))) + letter.lease_for;
    if (letter.lease > l.lease) {
      l.lease = letter.lease;
      l.granted = letter.granted;
      l.returned = l.count = 0;
      l.end = end;
    } else if (letter.lease == l.lease) {
      l.granted = std::max(l.granted, letter.granted);
      l.end = std::max(l.end, end);
    }
  }

  void raise_mark() {
    const auto mark = book.next_mark(now, ms(random.between(0, 300)));
    if (!mark) return;
    REQUIRE(mark->mark <= now + bucket_mark_max(book.burst_span(), book.lease()));
    book.accept(0, mark->number);
    for (size_t m = 1; m < group; ++m) {
      Letter letter;
      letter.to = m;
      letter.number = mark->number;
      marks.push_back(letter);
    }
  }

  void hear_mark() {
    Letter letter;
    if (draw(marks, letter)) acceptances.push_back(letter);
  }

  void hear_acceptance() {
    Letter letter;
    if (draw(acceptances, letter)) book.accept(letter.to, letter.number);
  }

  void ask(size_t i) {
    report(i);
    if (!swift) return;
    hear_report();
    for (int member = 1; member < group; ++member) {
      hear_mark();
      hear_acceptance();
    }
    serve_turned_away();
    for (int grant = 0; grant < 3; ++grant) hear_grant();
  }

  void step() {
    Lessee& l = lessees[random.below(lessees.size())];
    switch (random.below(14)) {
      case 0:
      case 1:
        return pass(ms(random.between(0, 120)));
      case 2:
        return pass(random.chance(0.1) ? ms(random.between(0, 3000))
                                       : Duration(random.between(0, 1'000'000)));
      case 3:
      case 4:
        if (!l.late) spend(l, random.chance(0.5));
        return;
      case 5:
        if (random.chance(0.3)) {
          const uint64_t back = random.below(l.left(now) + 1);
          l.count += back;
          l.returned += back;
        }
        return;
      case 6:
        if (random.chance(0.03)) {  // evicted, or another life
          ++l.key.incarnation;
          l.has_ballot = false;
          l.lease = l.granted = l.returned = l.count = 0;
        }
        return;
      case 7:
        return hear_mark();
      case 8:
        return hear_acceptance();
      case 9:
        return serve_turned_away();
      case 10:
        return hear_grant();
      case 11:
        return ask(random.below(lessees.size()));
      case 12:
        if (random.chance(0.2)) {  // lines that hold nothing are forgotten
          book.settle(now);
          std::erase_if(book.lines(),
                        [&](const auto& leased) { return leased.lease == 0 && random.chance(0.5); });
        }
        return raise_mark();
      default:
        return hear_report();
    }
  }

  // What may be out is under the mark, so that a claimant that knows only the mark starts no lower.
  void check() {
    book.settle(now);
    REQUIRE(book.tat() >= std::max(judge.tat, now));
    if (group == 1) return;
    const MonoTime mark = std::max(now, book.accepted_mark());
    REQUIRE(book.tat() <= mark);
    MonoTime end{};
    for (const auto& leased : book.lines())
      if (leased.lease != 0 && leased.unreported() > 0) end = std::max(end, leased.end);
    if (end != MonoTime{})
      REQUIRE(end + Duration(static_cast<int64_t>(book.unreported())) <= book.accepted_mark());
    // The worst that lessees can still do: each at the last moment.
    std::vector<std::pair<MonoTime, uint64_t>> last;
    for (const Lessee& l : lessees)
      if (l.left(now) > 0) last.emplace_back(l.last_moment(), l.left(now));
    std::ranges::sort(last);
    MonoTime tat = judge.tat;
    for (const auto& [when, amount] : last)
      tat = std::max(tat, when) + Duration(static_cast<int64_t>(amount));
    REQUIRE(tat <= mark);
  }
};

}  // namespace

TEST_CASE(
    "lessees that spend as late as their own clocks allow never pass burst + t * rate, and what is out never "
    "passes the accepted mark") {
  Random random(test_seed(321));
  size_t renewed = 0, busy = 0, spent = 0;
  for (int round = 0; round < kRandomRounds; ++round) {
    const Terms terms = terms_of(static_cast<uint32_t>(random.between(1, 60)), ms(random.between(1, 120)));
    const Duration span = terms.emission * static_cast<int64_t>(terms.limit);
    const auto group = static_cast<uint8_t>(random.between(1, 3));
    World world(random, group, terms, lease_for(span, secs(1), ms(100)));
    INFO("round " << round << " burst " << terms.limit << " emission " << nanos(terms.emission) << " group "
                  << int{group});
    for (int step = 0; step < 600; ++step) {
      world.step();
      world.check();
    }
    renewed += world.renewed;
    spent += world.judge.spent > 0 ? 1 : 0;
    busy += world.judge.most > span / 2 ? 1 : 0;
  }
  // The worlds were not idle, and many were driven to the edge.
  CHECK(renewed > static_cast<size_t>(kRandomRounds) * 10);
  CHECK(spent > static_cast<size_t>(kRandomRounds) / 2);
  CHECK(busy > static_cast<size_t>(kRandomRounds) / 4);
}

TEST_CASE("numbers of any size in a report give nobody more than there is room for") {
  Random random(test_seed(322));
  for (int round = 0; round < kRandomRounds; ++round) {
    const auto number = [&] {
      return random.chance(0.3) ? ~random.below(4) : random.next() >> random.below(64);
    };
    const auto burst = static_cast<uint32_t>(random.between(1, kLimitMax));
    const auto group = static_cast<uint8_t>(random.between(1, 3));
    const Duration emission(random.between(1, nanos(kBurstSpanMax) / burst));
    const Terms terms = terms_of(burst, emission);
    const Duration span = emission * static_cast<int64_t>(burst);
    BucketBook book(terms, group_of(group), kBallot, lease_for(span, secs(1), ms(100)), kRecent, 0, {MonoTime{}, MonoTime{}});
    MonoTime now = mono_at(Duration(0));
    for (int step = 0; step < 40; ++step) {
      now += ms(random.between(0, 500));
      const LineKey key{random.below(4), 1, 1};
      BucketBook::Leased* leased = book.find(key);
      if (leased == nullptr) leased = &book.open(key, 0, now);
      Report r;
      r.has_ballot = random.chance(0.7);
      r.ballot = random.chance(0.8) ? kBallot : Ballot{static_cast<uint32_t>(number()), number()};
      for (uint64_t* field : {&r.used, &r.returned, &r.refunded, &r.given, &r.ceiling, &r.granted_heard,
                              &r.wanted, &r.waiting_min, &r.waiting, &r.demand_milli, &r.stamp})
        *field = number();
      r.lease = random.chance(0.7) ? leased->lease : number();
      book.merge(*leased, r, now);
      const Duration room = book.room(now);
      REQUIRE(room <= span);
      REQUIRE(book.issue(*leased, now) <= static_cast<uint64_t>(nanos(room)));
      if (random.chance(0.1)) book.give(*leased, number(), now + ms(random.below(2)), now);
      if (random.chance(0.1)) book.reset(now);
      book.next_mark(now, ms(200));
      book.accept(random.below(group), random.chance(0.7) ? book.proposal().number : number());
      static_cast<void>(book.exhausted(number(), now));
      REQUIRE(book.regrows_after(number(), now) >= Duration(0));
      REQUIRE(book.unreported() <= static_cast<uint64_t>(nanos(span)));
      static_cast<void>(book.demand_share(*leased, now, std::chrono::seconds(1)));
    }
  }
}
