// A node alone, against models of the three algorithms that share nothing with the code: maps and 128-bit
// sums.
#include <doctest/doctest.h>

#include <map>

#include "core_fixture.h"

namespace tally {
namespace {

using namespace test;
using Wide = __int128;

// redis-cell's arithmetic (its README and replies), in nanoseconds, for any key.
struct CellModel {
  std::map<std::string, Wide> tat;

  struct Reply {
    bool limited;
    Wide limit, remaining, retry_after, reset_after;
  };
  Reply throttle(const std::string& key, Wide burst, Wide emission, Wide quantity, Wide now, bool write) {
    const auto it = tat.find(key);
    const Wide stored = it == tat.end() ? now : it->second;
    const Wide increment = emission * quantity, tolerance = emission * burst;
    const Wide next = (now > stored ? now : stored) + increment;
    const Wide allow_at = next - tolerance;
    Reply reply{now < allow_at, burst, 0, -1, 0};
    Wide ttl;
    if (reply.limited) {
      if (increment <= tolerance) reply.retry_after = allow_at - now;
      ttl = stored > now ? stored - now : 0;
    } else {
      ttl = next - now;
      if (write && quantity > 0) tat[key] = next;
    }
    if (tolerance - ttl > -emission) reply.remaining = (tolerance - ttl) / emission;
    if (reply.remaining < 0) reply.remaining = 0;
    reply.reset_after = ttl;
    return reply;
  }
};

void check_cell(const Answer& a, const CellModel::Reply& r) {
  REQUIRE(a.verdict == (r.limited ? Verdict::over_limit : Verdict::admitted));
  REQUIRE(a.limit == static_cast<uint32_t>(r.limit));
  REQUIRE(a.remaining == static_cast<uint32_t>(r.remaining));
  REQUIRE(nanos(a.retry_after) == static_cast<int64_t>(r.retry_after));
  REQUIRE(nanos(a.reset_after) == static_cast<int64_t>(r.reset_after));
}

// Fixed and sliding windows by the book: how much was admitted of which window number.
struct WindowModel {
  bool sliding;
  Wide limit, window;
  std::map<int64_t, Wide> used;  // less what was given back
  int64_t newest = INT64_MIN;    // a key's clock does not run backwards

  int64_t number(Wide t) const {
    Wide n = t / window;
    if (n * window > t) --n;
    return std::max(static_cast<int64_t>(n), newest);
  }
  Wide of(int64_t w) const {
    const auto it = used.find(w);
    return it == used.end() ? 0 : it->second;
  }
  Wide in_use(Wide t) const {
    const int64_t w = number(t);
    Wide elapsed = t - w * window;
    if (elapsed < 0) elapsed = 0;
    const Wide carried = sliding ? (of(w - 1) * (window - elapsed) + window - 1) / window : 0;
    return carried + of(w);
  }
  bool fits(Wide cost, Wide t) const { return in_use(t) + cost <= limit; }
  void add(Wide cost, Wide t) {
    newest = number(t);
    used[newest] += cost;
  }
};

void check_window(const Answer& a, const WindowModel& after, bool fits, Wide cost, Wide t) {
  REQUIRE(a.verdict == (fits ? Verdict::admitted : Verdict::over_limit));
  REQUIRE(a.limit == static_cast<uint32_t>(after.limit));
  REQUIRE(a.remaining == static_cast<uint32_t>(std::max<Wide>(0, after.limit - after.in_use(t))));
  if (fits || cost > after.limit) {
    REQUIRE(nanos(a.retry_after) == -1);
  } else {  // the earliest time at which it would fit
    REQUIRE(nanos(a.retry_after) > 0);
    REQUIRE(after.fits(cost, t + nanos(a.retry_after)));
    REQUIRE_FALSE(after.fits(cost, t + nanos(a.retry_after) - 1));
  }
  // All of it is there then, and not a nanosecond earlier.
  REQUIRE(after.in_use(t + nanos(a.reset_after)) == 0);
  if (nanos(a.reset_after) > 0) REQUIRE(after.in_use(t + nanos(a.reset_after) - 1) > 0);
}

Duration random_window(Random& random) {
  switch (random.below(4)) {
    case 0:
      return kWindowMin;
    case 1:
      return kWindowMax;
    case 2:
      return Duration(random.between(nanos(kWindowMin), nanos(secs(2))));
    default:
      return secs(random.between(1, 86'400));
  }
}

uint32_t random_limit(Random& random) {
  switch (random.below(4)) {
    case 0:
      return 1;
    case 1:
      return kLimitMax;
    case 2:
      return static_cast<uint32_t>(random.between(1, kLimitMax));
    default:
      return static_cast<uint32_t>(random.between(1, 50));
  }
}

uint32_t random_cost(Random& random, uint32_t limit) {
  switch (random.below(8)) {
    case 0:
      return 0;
    case 1:
      return static_cast<uint32_t>(std::min<uint64_t>(uint64_t{limit} + 1 + random.below(3), UINT32_MAX));
    case 2:
      return static_cast<uint32_t>(random.between(1, limit));
    default:
      return static_cast<uint32_t>(random.between(1, std::max<int64_t>(1, limit / 8)));
  }
}

void run_windows(bool sliding, Random& random) {
  const auto algorithm = sliding ? Algorithm::sliding_window : Algorithm::fixed_window;
  const Duration window = random_window(random);
  const uint32_t limit = random_limit(random);
  Bench bench(window_rule(algorithm, limit, window));
  const std::string keys[] = {"a", "b", std::string(1024, '\0'), "\r\n*1"};
  std::map<std::string, WindowModel> models;
  for (const auto& key : keys) models[key] = {sliding, limit, nanos(window), {}, INT64_MIN};
  Duration clock{0};
  for (int i = 0; i < 4000; ++i) {
    // Mostly small steps, sometimes to a boundary or over several windows, sometimes back.
    const int64_t w = nanos(window);
    const uint64_t step = random.below(20);
    if (step < 14)
      clock += Duration(random.between(0, w / 20));
    else if (step < 16)
      clock += Duration(random.between(0, 3 * w));
    else if (step == 16)
      clock += window - (kEpoch + clock) % window - Duration(random.below(2));
    else if (step == 17)
      clock -= Duration(random.between(0, 2 * w));
    if (clock > std::chrono::hours(24 * 366 * 150)) break;  // 64 bits of nanoseconds end in 2262
    const Now now{mono(secs(100)), wall(kEpoch + clock)};
    const std::string& key = keys[random.below(4)];
    WindowModel& model = models[key];
    const Wide t = nanos(now.wall);
    const uint64_t action = random.below(20);
    if (action == 0) {
      const auto n = random_cost(random, limit);
      const Wide there = model.of(model.number(t)), given = std::min<Wide>(std::min(n, limit), there);
      REQUIRE(bench.limiter.give(bench.ask(key), n, now) == static_cast<uint32_t>(given));
      if (given > 0) model.used[model.number(t)] -= given;
    } else if (action == 1 && random.chance(0.1)) {
      REQUIRE(bench.limiter.reset(bench.ask(key), now) == (model.newest != INT64_MIN));
      model.used.clear();
    } else {
      const uint32_t cost = random_cost(random, limit);
      const bool peek = action < 5;
      const bool fits = model.fits(cost, t);
      WindowModel after = model;
      if (fits && cost > 0) after.add(cost, t);
      const Answer answer = peek ? bench.peek(key, cost, now) : bench.take(key, cost, now);
      check_window(answer, after, fits, cost, t);
      if (!peek) model = after;
    }
  }
}

TEST_CASE("a first CL.THROTTLE u 15 30 60 1 is admitted with 15 left and two seconds to reset") {
  Bench bench(window_rule(Algorithm::fixed_window, 1, secs(1)));
  const Rule& rule = bench.rules.inline_rule();
  const Limit limit = inline_limit(rule, {}, 16, 30, secs(60));
  const Answer a =
      bench.limiter.take({&rule, &limit, "u", bench.limiter.hash(rule, "u"), 1}, at(secs(0)), nullptr);
  CHECK(a.verdict == Verdict::admitted);
  CHECK(a.limit == 16);
  CHECK(a.remaining == 15);
  CHECK(a.retry_after == Duration(-1));
  CHECK(a.reset_after == secs(2));
}

TEST_CASE("a bucket answers as redis-cell does, on random sequences") {
  Random random(seed() + 1);
  for (int round = 0; round < kRounds; ++round) {
    Bench bench(window_rule(Algorithm::fixed_window, 1, secs(1)));
    const Rule& rule = bench.rules.inline_rule();
    CellModel model;
    const uint32_t burst = random_limit(random);
    const int64_t emission_max = std::min<int64_t>(nanos(kBurstSpanMax) / burst, nanos(secs(86'400)));
    const auto count = static_cast<uint32_t>(random.between(1, 1000));
    const Duration period(random.between(1, emission_max) * std::min<int64_t>(count, 30));
    Limit limits[2] = {inline_limit(rule, {}, burst, count, period), {}};
    limits[1] = inline_limit(rule, {}, std::max(1u, burst / 3), count, period * 2);  // one key, two calls
    REQUIRE(nanos(limits[0].emission) * static_cast<Wide>(count) >= nanos(period));
    REQUIRE((nanos(limits[0].emission) - 1) * static_cast<Wide>(count) < nanos(period));
    Duration clock{0};
    for (int i = 0; i < 4000; ++i) {
      const Limit& limit = limits[random.below(10) == 0 ? 1 : 0];
      const int64_t emission = nanos(limit.emission);
      if (random.chance(0.7)) clock += Duration(random.between(0, emission));
      if (random.chance(0.01)) clock += Duration(random.between(0, nanos(limit.burst_span())));
      if (clock > secs(3'000'000'000)) break;  // 95 years of uptime
      const Now now = at(clock);
      const Wide t = nanos(now.mono);
      const std::string key(1, static_cast<char>('a' + random.below(3)));
      const uint32_t cost = random_cost(random, limit.limit);
      const Ask ask{&rule, &limit, key, bench.limiter.hash(rule, key), cost};
      const uint64_t action = random.below(12);
      if (action == 0) {
        const auto it = model.tat.find(key);
        const Wide busy = it == model.tat.end() ? 0 : std::max<Wide>(0, it->second - t);
        const Wide given = std::min<Wide>(std::min(cost, limit.limit), (busy + emission - 1) / emission);
        REQUIRE(bench.limiter.give(ask, cost, now) == static_cast<uint32_t>(given));
        if (given > 0) it->second = std::max<Wide>(t, it->second - given * emission);
      } else if (action == 1 && random.chance(0.1)) {
        REQUIRE(bench.limiter.reset(ask, now) == (model.tat.count(key) != 0));
        if (model.tat.count(key) != 0) model.tat[key] = std::min(model.tat[key], t);
      } else if (action == 2) {
        check_cell(bench.limiter.peek(ask, now), model.throttle(key, limit.limit, emission, cost, t, false));
      } else {
        check_cell(bench.limiter.take(ask, now, nullptr),
                   model.throttle(key, limit.limit, emission, cost, t, true));
      }
    }
  }
}

TEST_CASE("a fixed window admits what the model admits, on random sequences with clocks that jump") {
  Random random(seed() + 2);
  for (int round = 0; round < kRounds; ++round) run_windows(false, random);
}

TEST_CASE("a sliding window admits what the model admits, on random sequences with clocks that jump") {
  Random random(seed() + 3);
  for (int round = 0; round < kRounds; ++round) run_windows(true, random);
}

TEST_CASE("a place changes no answer, whichever key has it by now") {
  Random random(seed() + 4);
  for (const Algorithm algorithm : {Algorithm::fixed_window, Algorithm::sliding_window, Algorithm::token_bucket}) {
    for (const bool fleet : {false, true}) {
      const Rule rule = algorithm == Algorithm::token_bucket ? bucket_rule(5, secs(1), {0, true}) : window_rule(algorithm, 5, secs(10), {0, true});
      constexpr Share kShare{0, 3};
      constexpr size_t kTableKeys = 100, kKeys = 300;  // so that places go from key to key
      Bench plain(rule, fleet, kShare, kTableKeys), placed(rule, fleet, kShare, kTableKeys);
      for (Bench* bench : {&plain, &placed}) bench->limiter.open_floors(WallTime::min(), MonoTime::min());
      std::map<std::string, uint32_t> places;
      Duration t{0};
      for (int i = 0; i < 30 * kRounds; ++i) {
        t += ms(static_cast<int64_t>(random.below(20)));
        std::string key = "k";
        key += std::to_string(random.below(kKeys));
        Ask ask = placed.ask(key);
        const auto before = places.try_emplace(key, kNoPlace).first;
        ask.place = before->second;
        before->second = placed.limiter.prefetch_slot(ask.hash);
        if (random.below(2) == 0) ask.place = before->second;
        const Answer expected = plain.take(key, 1, at(t)), got = placed.limiter.take(ask, at(t), &placed.notes);
        REQUIRE(got.verdict == expected.verdict);
        REQUIRE(got.remaining == expected.remaining);
        REQUIRE(got.reset_after == expected.reset_after);
        REQUIRE(got.retry_after == expected.retry_after);
      }
      CHECK(placed.slots.evicted_live() + placed.slots.evicted_idle() > 0);
    }
  }
}

TEST_CASE("a cost above the limit is refused for ever and takes no place") {
  Bench bench(window_rule(Algorithm::sliding_window, 5, secs(10)));
  const Answer a = bench.take("k", 6, at(secs(0)));
  CHECK(a.verdict == Verdict::over_limit);
  CHECK(a.retry_after == Duration(-1));
  CHECK(a.remaining == 5);
  CHECK(bench.slots.occupied() == 0);
  CHECK(bench.limiter.peek(bench.ask("k", UINT32_MAX), at(secs(0))).retry_after == Duration(-1));
}

TEST_CASE("a peek takes no place and gives the answer that a take would") {
  Bench bench(window_rule(Algorithm::fixed_window, 5, secs(10)));
  CHECK(bench.peek("k", 3, at(secs(0))).remaining == 2);
  CHECK(bench.peek("k", 0, at(secs(0))).remaining == 5);
  CHECK(bench.slots.occupied() == 0);
  CHECK(bench.take("k", 3, at(secs(0))).remaining == 2);
  CHECK(bench.take("k", 0, at(secs(0))).remaining == 2);
  CHECK(bench.peek("k", 3, at(secs(0))).verdict == Verdict::over_limit);
  CHECK(bench.slots.occupied() == 1);
}

TEST_CASE("one key under two rules, and one rule whose window has changed, are counted apart") {
  Rule a = window_rule(Algorithm::fixed_window, 1, secs(10)), b = a;
  b.name = "b";
  const RuleSet rules({a, b}, Rule{}, {}, kPublicIdKey);
  a.limit.window = secs(20);
  const RuleSet changed({a, b}, Rule{}, {}, kPublicIdKey);
  SlotTable slots(100, seed(), false);
  Limiter limiter(slots, false);
  for (const Rule* rule : {&rules.by_id(0), &rules.by_id(1), &changed.by_id(0)}) {
    const Ask ask{rule, &rule->limit, "k", limiter.hash(*rule, "k"), 1};
    CHECK(admitted(limiter.take(ask, at(secs(0)), nullptr)));
    CHECK_FALSE(admitted(limiter.take(ask, at(secs(0)), nullptr)));
  }
  const Rule& same = changed.by_id(1);
  CHECK_FALSE(
      admitted(limiter.take({&same, &same.limit, "k", limiter.hash(same, "k"), 1}, at(secs(0)), nullptr)));
}

}  // namespace
}  // namespace tally
