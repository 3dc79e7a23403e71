// The simulator's own parts: what the network does to datagrams, and that every checker finds what it is
// there to find.
#include <doctest/doctest.h>

#include <algorithm>

#include "seed.h"
#include "sim/checkers.h"
#include "sim/network.h"
#include "sim/trace.h"

using namespace tally;
using namespace tally::sim;
using namespace std::chrono_literals;

namespace {

Rule window_rule() {
  Rule rule;
  rule.name = "api";
  return rule;
}

Rule bucket(uint32_t burst, Duration emission, uint32_t overcount_ppm) {
  Rule rule;
  rule.name = "bucket";
  rule.limit.algorithm = Algorithm::token_bucket;
  rule.limit.limit = burst;
  rule.limit.emission = emission;
  rule.max_overcount.ppm = overcount_ppm;
  return rule;
}

// One key of one rule, and what is said of it.
struct Checked {
  explicit Checked(Rule r, uint64_t bound = 0, uint64_t mark_max = 0) : rule(std::move(r)) {
    id.bytes[0] = 7;
    const bool sliding = rule.limit.algorithm == Algorithm::sliding_window && rule.limit.window > 0s;
    key = checkers.add({&rule, "k", bound, mark_max, true, rule.max_overcount.ppm, 0, sliding}, id);
  }
  size_t found() const { return checkers.violations().size(); }
  void admitted(int64_t window, uint64_t cost, Duration at) {
    checkers.admitted(key, window, cost, at, WallTime(at));
  }
  void report(uint64_t used, Ballot ballot = {}, uint64_t returned = 0, uint64_t incarnation = 1,
              uint32_t line = 1) {
    Report r;
    r.key = id;
    r.window = 5;
    r.used = used;
    r.returned = returned;
    r.ballot = ballot;
    r.line = line;
    Header h;
    h.sender = 1;
    h.incarnation = incarnation;
    checkers.sent({h, {r}}, 1s);
  }
  void grant(uint64_t granted, NodeId receiver = 2, Ballot ballot = {}, uint64_t incarnation = 1) {
    Grant g;
    g.key = id;
    g.window = 5;
    g.granted = granted;
    g.ballot = ballot;
    g.incarnation = incarnation;
    Header h;
    h.sender = 1;
    h.receiver = receiver;
    checkers.sent({h, {g}}, 1s);
  }

  Rule rule;
  WireId id;
  Checkers checkers{0};
  size_t key = 0;
};

}  // namespace

TEST_CASE("a datagram is lost, doubled and delayed as often and as long as its link says") {
  Network network(2, test_seed(1));
  network.link(0, 1) = {10ms, 30ms, 0.2, 0.1, 0.05, 500ms};
  network.link(1, 0) = {1ms, 1ms, 0, 0, 0, 0ms};
  constexpr int kSent = 100'000;
  int none = 0, twice = 0, late = 0, copies = 0;
  Duration least = 1h, most{0};
  for (int i = 0; i < kSent; ++i) {
    const Network::Fate fate = network.send(0, 1);
    none += fate.copies == 0;
    twice += fate.copies == 2;
    for (int c = 0; c < fate.copies; ++c) {
      ++copies;
      least = std::min(least, fate.after[c]);
      most = std::max(most, fate.after[c]);
      late += fate.after[c] > 30ms;
    }
    const Network::Fate back = network.send(1, 0);
    REQUIRE(back.copies == 1);
    REQUIRE(back.after[0] == 1ms);
  }
  CHECK(std::abs(none - kSent * 0.2) < 800);    // deviation 126
  CHECK(std::abs(twice - kSent * 0.08) < 600);  // of those that were not lost
  CHECK(std::abs(late - copies * 0.05) < 600);
  CHECK(least >= 10ms);
  CHECK(least < 11ms);
  CHECK(most > 400ms);
  CHECK(most <= 530ms);
  CHECK(network.counts().sent == 2 * kSent);
  CHECK(network.counts().lost == static_cast<uint64_t>(none));
}

TEST_CASE("a spread of delays reorders, and the same seed does the same") {
  Network a(2, 5), b(2, 5), c(2, 6);
  LinkTerms terms;
  terms.delay_min = 0ms;
  terms.delay_max = 10ms;
  for (Network* n : {&a, &b, &c}) n->set_all(terms);
  int reordered = 0, differ = 0;
  Duration before{0};
  for (int i = 0; i < 1000; ++i) {
    const Duration d = a.send(0, 1).after[0];
    REQUIRE(b.send(0, 1).after[0] == d);
    differ += c.send(0, 1).after[0] != d;
    reordered += d + 1ms < before;  // sent 1 ms after the one before
    before = d;
  }
  CHECK(reordered > 200);
  CHECK(differ > 900);
}

TEST_CASE("a cut is of one direction, a split of both, and mending ends them") {
  Network network(4, 1);
  network.cut(0, 1);
  CHECK(network.send(0, 1).copies == 0);
  CHECK(network.send(1, 0).copies == 1);
  network.mend(0, 1);
  CHECK(network.send(0, 1).copies == 1);
  network.split({true, true, false, false});
  CHECK(network.send(0, 1).copies == 1);
  CHECK(network.send(0, 2).copies == 0);
  CHECK(network.send(3, 1).copies == 0);
  CHECK(network.send(3, 2).copies == 1);
  network.mend_all();
  network.cut_off(2);
  CHECK(network.send(2, 3).copies == 0);
  CHECK(network.send(0, 2).copies == 0);
  CHECK(network.send(0, 3).copies == 1);
  CHECK(network.counts().cut == 5);
}

TEST_CASE("one more than the bound in a window is found, and a refund or another window makes room") {
  Checked c(window_rule(), 105);
  c.admitted(5, 105, 1s);
  c.admitted(6, 105, 1s);
  CHECK(c.found() == 0);
  c.checkers.refunded(c.key, 5, 3);
  c.admitted(5, 3, 1s);
  CHECK(c.found() == 0);
  c.admitted(5, 1, 2s);
  REQUIRE(c.found() == 1);
  const Violation& v = c.checkers.violations()[0];
  CHECK(v.rule == "api");
  CHECK(v.key == "k");
  CHECK(v.at == 2s);
  CHECK(v.what == "window 5 admitted 109, refunded 3, bound 105");
  c.admitted(6, 1, 2s);
  CHECK(c.found() == 2);
  CHECK(c.checkers.windows(c.key).at(6).admitted == 106);
}

TEST_CASE("a sliding window may use what the window before leaves of the limit, and one more is found") {
  Rule rule = window_rule();
  rule.limit.algorithm = Algorithm::sliding_window;
  rule.limit.limit = 100;
  rule.limit.window = 1s;
  Checked c(rule, 110);  // ten of them floors
  c.admitted(5, 90, 5s + 500ms);
  c.admitted(6, 50, 6s + 250ms);  // of 90, 10 may be floors; three quarters of 80 still count
  CHECK(c.found() == 0);
  c.admitted(6, 1, 6s + 250ms);
  CHECK(c.found() == 1);
  c.admitted(6, 9, 6s + 400ms);
  CHECK(c.found() == 1);
  c.checkers.refunded(c.key, 5, 80);
  c.admitted(6, 50, 6s + 400ms);
  CHECK(c.found() == 1);
}

TEST_CASE("what a bucket was given back may be used once more, and after a reset all of it") {
  Checked c(bucket(10, 100ms, 0));
  c.admitted(0, 10, 1s);
  c.checkers.refunded(c.key, 0, 3);
  c.admitted(0, 3, 1s);
  CHECK(c.found() == 0);
  c.checkers.emptied(c.key);
  c.admitted(0, 10, 1s);
  CHECK(c.found() == 0);
  c.admitted(0, 1, 1s);
  CHECK(c.found() == 1);
}

TEST_CASE("who refunds more than it used is found, and a lease number that an earlier life gave out") {
  Checked c(bucket(10, 100ms, 0));
  Report r;
  r.key = c.id;
  r.used = r.refunded = 3;
  c.checkers.sent({{}, {r}}, 1s);
  CHECK(c.found() == 0);
  r.refunded = 4;
  c.checkers.sent({{}, {r}}, 1s);
  CHECK(c.found() == 1);
  Grant g;
  g.key = c.id;
  g.lease = 7;
  Header header;
  header.incarnation = 1;
  c.checkers.sent({header, {g}}, 1s);
  CHECK(c.found() == 1);
  header.incarnation = 2;
  c.checkers.sent({header, {g}}, 1s);
  CHECK(c.found() == 2);
}

TEST_CASE("a bucket may be used at its rate for ever, and one token more is found") {
  Checked c(bucket(10, 100ms, 0));
  c.admitted(0, 10, 1s);
  for (int i = 1; i <= 1000; ++i) c.admitted(0, 1, 1s + 100ms * i);
  CHECK(c.found() == 0);
  CHECK(c.checkers.fullest(c.key) == 1);
  c.admitted(0, 1, 101s + 99'999'999ns);
  CHECK(c.found() == 1);
}

TEST_CASE("the reference bucket refuses exactly what breaks the property in some interval") {
  // Against the definition: every interval between two admissions, both included.
  const uint64_t seed = test_seed(2);
  Random random(seed);
  int broken = 0, fine = 0;
  for (int run = 0; run < 3000; ++run) {
    const auto burst = static_cast<uint32_t>(1 + random.below(8));
    const Duration emission(1000);
    const uint32_t ppm = random.chance(0.5) ? 0 : 250'000;
    ReferenceBucket reference(bucket(burst, emission, ppm).limit, ppm, 0);
    std::vector<std::pair<int64_t, int64_t>> taken;  // when, cost
    int64_t at = 0;
    for (int i = 0; i < 40; ++i) {
      at += static_cast<int64_t>(random.below(2) * random.below(3000));
      const auto cost = static_cast<int64_t>(1 + random.below(2));
      taken.emplace_back(at, cost);
      bool holds = true;
      int64_t sum = 0;
      for (size_t k = taken.size(); k-- > 0;) {
        sum += taken[k].second;
        // sum <= (1 + e)(burst + T / emission), in whole numbers
        holds = holds && sum * 1'000'000 * 1000 <= (1'000'000 + ppm) * (burst * 1000 + (at - taken[k].first));
      }
      REQUIRE(reference.admit(static_cast<uint64_t>(cost), Duration(at)) == holds);
      (holds ? fine : broken)++;
      if (!holds) break;
    }
  }
  CHECK(broken > 1000);
  CHECK(fine > 1000);
}

TEST_CASE("a mark above the limit is found, whoever says it") {
  Checked c(window_rule(), 105, 100);
  Mark mark;
  mark.key = c.id;
  mark.mark = 100;
  Accepted accepted;
  accepted.key = c.id;
  accepted.mark = 100;
  c.checkers.sent({{}, {mark, accepted}}, 1s);
  CHECK(c.found() == 0);
  mark.mark = 101;
  c.checkers.sent({{}, {mark}}, 1s);
  CHECK(c.found() == 1);
  accepted.mark = 101;
  c.checkers.sent({{}, {accepted}}, 1s);
  CHECK(c.found() == 2);
  mark.key.bytes[3] = 1;  // a key that nobody announced
  c.checkers.sent({{}, {mark}}, 1s);
  CHECK(c.found() == 2);
}

TEST_CASE("a number that falls is found, and a new line, life or ballot begins anew") {
  Checked c(window_rule(), 105, 100);
  c.report(5, {0, 9}, 2);
  c.report(5, {0, 9}, 2);
  c.report(7, {1, 9}, 0);  // returned is of the ballot
  CHECK(c.found() == 0);
  c.report(6, {1, 9}, 0);
  CHECK(c.found() == 1);
  c.report(7, {0, 9}, 1);
  CHECK(c.found() == 2);
  c.report(0, {0, 9}, 0, 2);     // another life
  c.report(0, {0, 9}, 0, 1, 2);  // another line
  CHECK(c.found() == 2);

  c.grant(10);
  c.grant(3, 3);
  c.grant(3, 2, {1, 1});
  CHECK(c.found() == 2);
  c.grant(9);
  CHECK(c.found() == 3);
  c.grant(1, 2, {}, 2);  // to another life of that lessee
  CHECK(c.found() == 3);
}

TEST_CASE("a message is described with what is in it") {
  const Roster roster({"a", "b"}, 1, 2, kPublicIdKey);
  Report r;
  r.window = 5;
  r.ballot = {2, roster.id(1)};
  r.used = 3;
  r.second_choice = true;
  CHECK(describe(Entry{r}, roster) == "report w=5 ballot=2/1 line=0 used=3 ceiling=0 wanted=0 second_choice");
  Grant g;
  g.granted = 4;
  g.ask_again = 1500us;
  g.stamp = 1;
  CHECK(describe(Entry{g}, roster) == "grant line=0 granted=4 pool=0 ask_again=1.500ms");
  CHECK(key_of(Entry{r}) == r.key);
  CHECK(key_of(Entry{Member{}}) == std::nullopt);
}
