// What a process takes for later: never more than there is, a quarter of it at most, and within every bound whenever it is spent before it
// lasts no longer.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <vector>

#include "core/decide.h"
#include "core/windows.h"
#include "core_fixture.h"
#include "sim/checkers.h"

namespace tally {
namespace {

using namespace test;

Portion portion(Bench& bench, std::string_view key, uint32_t most, Now now) {
  return bench.limiter.take_portion(bench.ask(key, 0), most, now, &bench.notes);
}

// What was taken and not yet spent.
struct Held {
  uint32_t amount;
  Duration until;
  int64_t window;
};

void run_windows(Random& random) {
  const bool sliding = random.chance(0.5);
  const auto limit = static_cast<uint32_t>(random.between(1, 200));
  Bench bench(window_rule(sliding ? Algorithm::sliding_window : Algorithm::fixed_window, limit, secs(10)));
  std::vector<Held> held;
  std::map<int64_t, uint64_t> admitted_in;
  Duration t = secs(3);
  for (int step = 0; step < 400; ++step) {
    t += ms(random.between(0, 400));
    const Now now = at(t);
    const int64_t window = window_at(now.wall, secs(10));
    const auto cost = static_cast<uint32_t>(random.between(1, 20));
    switch (random.below(4)) {
      case 0:
        if (cost <= limit && admitted(bench.take("k", cost, now))) admitted_in[window] += cost;
        break;
      case 1: {
        const uint32_t there = bench.peek("k", 0, now).remaining;
        const Portion p = portion(bench, "k", cost, now);
        CHECK(p.amount == std::min(cost, (there + 3) / 4));
        CHECK(p.window == window);
        if (p.amount > 0) held.push_back({p.amount, t + p.lasts, p.window});
        break;
      }
      case 2:  // spent later, while it lasts
        if (held.empty()) break;
        if (t < held.back().until) {
          CHECK(held.back().window == window);
          admitted_in[window] += held.back().amount;
        }
        held.pop_back();
        break;
      default:  // put back; in a later window that changes nothing
        if (held.empty()) break;
        const uint32_t before = bench.peek("k", 0, now).remaining;
        const uint32_t given = bench.limiter.give(bench.ask("k", 0), held.back().amount, now, held.back().window);
        CHECK(given == (held.back().window == window ? held.back().amount : 0));
        if (given == 0) CHECK(bench.peek("k", 0, now).remaining == before);
        held.pop_back();
    }
  }
  for (const auto& [window, n] : admitted_in) CHECK(n <= limit);
}

// A bucket in true time, taken from by a process that holds what it has as long as it may, by a clock that is 3 % slow, and then spends all,
// beside others.
struct BucketRun {
  Random& random;
  const bool fleet;
  Rule rule;
  Bench bench;
  sim::ReferenceBucket reference;
  std::vector<Held> held;
  Duration t = secs(3);
  uint64_t spent = 0;
  // The owner that leases to this node: it keeps its arrival time ahead of what it leased and has not heard of as spent.
  MonoTime tat{};
  uint8_t tag = 0;

  static Rule draw(Random& random) {
    Rule rule = bucket_rule(static_cast<uint32_t>(random.between(20, 500)), ms(random.between(1, 10)), Overcount{0, false});
    rule.process_hold = std::min<Duration>(rule.limit.emission * int64_t{rule.limit.limit} / 2, ms(random.between(1, 500)));
    return rule;
  }
  BucketRun(Random& random_, bool fleet_, const Rule& rule_)
      : random(random_), fleet(fleet_), rule(rule_), bench(rule, fleet, Share{0, fleet ? 3u : 1u}), reference(rule.limit, 0, 0) {}

  void wait(Duration d) {
    t += d;
    if (!fleet) return;
    const auto ref = bench.slots.ref_of(bench.ask("k").hash);
    const auto lease = ref ? bench.slots.lease(*ref) : std::nullopt;
    if (lease && lease->tag != 0) tat = std::max(tat, std::min(at(t).mono, lease->end) + Duration(lease->ceiling - lease->count));
  }
  void lease() {
    if (!fleet) return;
    bench.take("k", 1, at(t));  // it has to be known
    const auto ref = bench.slots.ref_of(bench.ask("k").hash);
    MonoTime probe = tat;
    Answer answer;
    decide_bucket(bench.rule.limit, probe, 0, at(t).mono, answer);
    const int64_t there = answer.remaining;
    tat = std::max(tat, at(t).mono) + bench.rule.limit.emission * there;
    bench.slots.open_lease(*ref, ++tag, nanos(bench.rule.limit.emission) * there, at(t).mono + ms(1000));
  }
  void spend(uint64_t cost) {
    spent += cost;
    CHECK(reference.admit(cost, t));
  }
  void take_portions() {
    for (int64_t n = random.between(1, 6); n > 0; --n) {
      const Portion p = portion(bench, "k", UINT32_MAX, at(t));
      CHECK(p.lasts == rule.process_hold);
      if (p.amount > 0) held.push_back({p.amount, t + by_slow_clock(p.lasts), 0});
    }
  }
  static Duration by_slow_clock(Duration d) { return d + d / 32; }
  void spend_held() {
    for (const Held& one : held)
      if (t < one.until) spend(one.amount);
    held.clear();
  }
  void take_all() {
    while (admitted(bench.take("k", 1, at(t)))) spend(1);
  }
  void run() {
    for (int round = 0; round < 20; ++round) {
      wait(random.chance(0.5) ? bench.rule.limit.burst_span() * 2 : ms(random.between(0, 100)));
      lease();
      take_portions();
      wait(random.chance(0.7) ? by_slow_clock(rule.process_hold) - Duration(1) : ms(random.between(0, 600)));
      lease();
      if (random.chance(0.5)) spend_held();
      take_all();
      spend_held();
    }
    CHECK(spent > 0);
  }
};

void run_bucket(Random& random, bool fleet) {
  const Rule rule = BucketRun::draw(random);
  BucketRun(random, fleet, rule).run();
}

TEST_CASE("a window's portions and all else that is admitted stay under the limit, spent or put back") {
  Random random(seed());
  for (int i = 0; i < kRounds; ++i) run_windows(random);
}

TEST_CASE("a bucket's portions, held as long as they last, break no interval's promise") {
  Random random(seed() + 1);
  for (int i = 0; i < kRounds; ++i) run_bucket(random, false);
}

TEST_CASE("in a fleet a bucket's portions come from the lease, and break no interval's promise") {
  Random random(seed() + 2);
  for (int i = 0; i < kRounds; ++i) run_bucket(random, true);
}

TEST_CASE("in a fleet a window's portion comes from under the ceiling, and the cluster thread is told of it") {
  Bench bench(window_rule(Algorithm::fixed_window, 100, secs(10), Overcount{500'000, false}), true, Share{0, 5});
  bench.limiter.open_floors(WallTime::min(), MonoTime::min());
  CHECK(portion(bench, "k", 100, at(secs(1))).amount == 3);  // of a floor of 10
  const auto notes = bench.noted();
  REQUIRE(notes.size() == 1);
  CHECK(notes[0].kind == Note::Kind::used);
  const SlotRef ref = notes[0].slot;
  bench.slots.raise_ceiling(ref, static_cast<uint32_t>(window_at(at(secs(1)).wall, secs(10))), 50);
  CHECK(portion(bench, "k", 100, at(secs(1))).amount == 12);
  CHECK(portion(bench, "k", 5, at(secs(1))).amount == 5);
}

TEST_CASE("a bucket whose tokens nobody may hold gives no portion, and has all of its burst") {
  Bench bench(bucket_rule(100, ms(10)));
  CHECK(portion(bench, "k", 100, at(secs(1))).amount == 0);
  CHECK(bench.peek("k", 0, at(secs(1))).remaining == 100);
}

TEST_CASE("what is taken off a burst stays off when a reload takes the hold away, half of the burst at most") {
  Rule rule = bucket_rule(200, ms(20));
  rule.process_hold = secs(1);
  const RuleSet first({rule}, Rule{}, Share{}, kPublicIdKey);
  CHECK(first.by_id(0).limit.limit == 148);
  rule.process_hold = Duration(0);
  const RuleSet second({rule}, Rule{}, Share{}, kPublicIdKey, &first);
  CHECK(second.by_id(0).limit.limit == 148);
  rule.limit.limit = 30;
  const RuleSet third({rule}, Rule{}, Share{}, kPublicIdKey, &second);
  CHECK(third.by_id(0).limit.limit == 15);
  CHECK(RuleSet({rule}, Rule{}, Share{}, kPublicIdKey).by_id(0).limit.limit == 30);
  Rule copied = first.by_id(0);  // as a region makes the rules of the level above from its own
  copied.process_hold = Duration(0);
  CHECK(RuleSet({copied}, Rule{}, Share{}, kPublicIdKey).by_id(0).limit.limit == 148);
}

TEST_CASE("an account names its window and its table") {
  Bench bench(window_rule(Algorithm::fixed_window, 100, secs(10)));
  SlotTable other_table(1000, seed() + 1, false);
  const Limiter other(other_table, false);
  CHECK(bench.limiter.account_of(5) == bench.limiter.account_of(5));
  CHECK(bench.limiter.account_of(5) != bench.limiter.account_of(6));
  CHECK(bench.limiter.account_of(5) != other.account_of(5));
  CHECK(bench.limiter.account_of(-1) >= 0);
}

}  // namespace
}  // namespace tally
