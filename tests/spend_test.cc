// A node of a fleet: what is spent under ceilings and leases, against models that keep every number by its
// window; what the cluster thread is told; and that none of it allocates.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <new>

#include "core_fixture.h"

namespace {
size_t allocations = 0;  // the tests here have one thread
}
// noinline: g++ 12 takes the malloc in an inlined new for a mismatch with delete
[[gnu::noinline]] void* operator new(size_t n) {
  ++allocations;
  if (void* p = std::malloc(n != 0 ? n : 1)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace tally {
namespace {

using namespace test;
using Wide = __int128;

constexpr Overcount kFifth{200'000, false};
constexpr WallTime kAlways = WallTime::min();
constexpr MonoTime kFull = MonoTime::min();

// The books of one key under a window: everything by number. The slot holds two numbers, one of each parity:
// a number is out of reach once a later one of its parity was written.
struct Books {
  int64_t limit, floor;
  std::map<int64_t, int64_t> count, ceiling;

  static int64_t latest(const std::map<int64_t, int64_t>& numbers, int64_t w) {
    for (auto it = numbers.rbegin(); it != numbers.rend() && it->first > w; ++it)
      if (((it->first ^ w) & 1) == 0) return it->first;
    return w;
  }
  static int64_t at(const std::map<int64_t, int64_t>& numbers, int64_t w, int64_t otherwise) {
    const auto it = numbers.find(w);
    return it == numbers.end() || latest(numbers, w) != w ? otherwise : it->second;
  }
  int64_t counted(int64_t w) const { return at(count, w, 0); }
  int64_t in_force(int64_t w) const { return at(ceiling, w, floor); }
};

void run_books(Random& random) {
  const bool sliding = random.chance(0.5);
  const uint32_t limit = static_cast<uint32_t>(random.chance(0.2) ? kLimitMax : random.between(1, 200));
  const Duration window = random.chance(0.5) ? secs(10) : kWindowMin;
  const Share share{static_cast<uint32_t>(random.below(3)), 3};
  Bench bench(
      window_rule(sliding ? Algorithm::sliding_window : Algorithm::fixed_window, limit, window, kFifth), true,
      share);
  bench.limiter.open_floors(kAlways, kFull);
  Books books{limit, floor_of(limit, kFifth, share), {}, {}};
  REQUIRE(bench.rule.limit.floor == books.floor);
  Knowledge knowledge;
  bool noted = false;
  uint64_t ask_at = UINT64_MAX;
  SlotRef ref;
  Duration clock{0};
  for (int i = 0; i < 6000; ++i) {
    if (random.chance(0.1)) clock += Duration(random.between(0, nanos(window)));
    if (random.chance(0.02)) clock -= Duration(random.between(0, nanos(window)));
    const Now now = at(clock);
    const int64_t own = nanos(now.wall) / nanos(window);
    const int64_t w = Books::latest(books.count, own);
    const auto tag = static_cast<uint32_t>(w);
    const uint64_t action = ref.generation == 0 ? 0 : random.below(16);
    const int64_t other = own + static_cast<int64_t>(random.below(2));
    const auto other_tag = static_cast<uint32_t>(other);
    if (action < 9) {
      const auto cost = static_cast<uint32_t>(random.between(action == 8 ? 0 : 1, std::max(1u, limit / 10)));
      const bool peek = action == 8 || cost == 0;
      const int64_t count = books.counted(w), ceiling = books.in_force(w);
      const bool fits = count + cost <= ceiling;
      const Answer a = peek ? bench.peek("k", cost, now) : bench.take("k", cost, now);
      const int64_t after = count + (fits ? cost : 0);
      const bool known = knowledge.window == tag;
      const int64_t elsewhere = known ? knowledge.elsewhere : 0;
      REQUIRE(a.limit == limit);
      REQUIRE(a.isolated == knowledge.isolated);
      REQUIRE(a.heard == knowledge.heard);
      REQUIRE(a.remaining ==
              std::clamp<int64_t>(std::max(ceiling - after, limit - elsewhere - after), 0, limit));
      const bool exhausted = known && knowledge.exhausted_until > now.mono;
      const Verdict refused = exhausted            ? Verdict::over_limit
                              : knowledge.isolated ? Verdict::isolated
                                                   : Verdict::starved;
      REQUIRE(a.verdict == (fits ? Verdict::admitted : refused));
      REQUIRE(a.retry_after == (fits        ? Duration(-1)
                                : exhausted ? knowledge.exhausted_until - now.mono
                                            : Duration(0)));
      const Duration rest = WallTime(window * (w + 1)) - now.wall;
      const bool past = sliding && books.at(books.count, w - 1, 0) != 0;
      const bool some = after != 0 || elsewhere != 0;
      REQUIRE(a.reset_after == (some ? rest + (sliding ? window : Duration(0)) : past ? rest : Duration(0)));
      if (fits && !peek) books.count[w] = after;
      // What the cluster thread hears.
      const auto notes = bench.noted();
      std::vector<Note::Kind> expected;
      if (fits && !peek && !noted) expected.push_back(Note::Kind::used), noted = true;
      if (fits && !peek && static_cast<uint64_t>(after) > ask_at)
        expected.push_back(Note::Kind::low), ask_at = UINT64_MAX;
      if (!fits && !peek && refused == Verdict::starved) expected.push_back(Note::Kind::starved), noted = true;
      REQUIRE(notes.size() == expected.size());
      for (size_t n = 0; n < notes.size(); ++n) {
        REQUIRE(notes[n].kind == expected[n]);
        REQUIRE(notes[n].cost == cost);
        REQUIRE(notes[n].rule == 0);
        REQUIRE(notes[n].hash == bench.limiter.hash(bench.rule, "k"));
        REQUIRE(notes[n].id == wire_id("k", bench.rule.id_key));
        REQUIRE(notes[n].limit == bench.rule.limit);
        ref = notes[n].slot;
      }
    } else if (action < 11) {
      const auto ceiling = static_cast<uint32_t>(random.between(0, int64_t{limit} * 5 / 4));
      REQUIRE(bench.slots.raise_ceiling(ref, other_tag, ceiling));
      if (Books::latest(books.ceiling, other) == other)
        books.ceiling[other] = std::max<int64_t>(ceiling, books.at(books.ceiling, other, 0));
    } else if (action == 11) {
      const auto ceiling = static_cast<uint32_t>(books.in_force(other));
      const auto leave = static_cast<uint32_t>(random.between(0, std::max(1u, limit / 4)));
      const int64_t target = int64_t{ceiling} - leave;
      const bool reachable = Books::latest(books.count, other) == other;
      const int64_t taken = reachable ? std::max<int64_t>(0, target - books.counted(other)) : 0;
      REQUIRE(bench.slots.take_back(ref, other_tag, ceiling, leave) == taken);
      if (taken > 0) books.count[other] = target;
    } else if (action == 12) {
      const auto counted = bench.slots.count(ref, other_tag);
      REQUIRE(counted.has_value() == (Books::latest(books.count, other) == other));
      REQUIRE(counted.value_or(0) == static_cast<uint32_t>(books.counted(other)));
      const auto ceiling = bench.slots.ceiling(ref, other_tag);
      REQUIRE(ceiling.has_value() == (books.at(books.ceiling, other, -1) >= 0));
      if (ceiling) REQUIRE(*ceiling == books.in_force(other));
    } else if (action == 13) {
      knowledge = {tag,
                   static_cast<int32_t>(random.between(-int64_t{limit} / 4, limit)),
                   {},
                   now.mono,
                   random.chance(0.3),
                   static_cast<uint32_t>(random.below(uint64_t{kHeardMax} + 1))};
      if (random.chance(0.5)) knowledge.exhausted_until += Duration(random.between(0, nanos(window)));
      REQUIRE(bench.slots.set_knowledge(ref, knowledge));
    } else if (action == 14) {
      ask_at = random.chance(0.2) ? UINT64_MAX : random.below(limit);
      REQUIRE(bench.slots.set_ask_at(ref, ask_at));
    } else {
      REQUIRE(bench.slots.clear_noted(ref));
      noted = false;
    }
  }
}

TEST_CASE("a fleet's node spends exactly what floor, grants and returns allow, and says what it must") {
  Random random(seed() + 10);
  for (int round = 0; round < kRounds; ++round) run_books(random);
}

TEST_CASE("a bucket's answer, too, says that its owner cannot be asked, and when it was heard") {
  Bench bench(bucket_rule(60, secs(1), kFifth), true, {0, 3});
  bench.limiter.open_floors(kAlways, kFull);
  REQUIRE(admitted(bench.take("k", 1, at(secs(0)))));
  Knowledge knowledge;
  knowledge.isolated = true;
  knowledge.heard = heard_tick(at(secs(0)).mono);
  REQUIRE(bench.slots.set_knowledge(bench.noted().at(0).slot, knowledge));
  for (int i = 0; i < 20; ++i) {  // the floor bucket, and then nothing
    const Answer a = bench.take("k", 1, at(secs(1)));
    REQUIRE(a.isolated);
    REQUIRE(a.heard == knowledge.heard);
    REQUIRE(admitted(a) == (a.verdict != Verdict::isolated));
  }
}

TEST_CASE(
    "an age is the time since, a few milliseconds too much at most, and what is newer than the clock is "
    "new") {
  constexpr Duration kUnit = Duration(int64_t{1} << kHeardShift);
  Random random(seed() + 12);
  for (int i = 0; i < 10'000; ++i) {
    const MonoTime heard(Duration(random.between(0, int64_t{1} << 60)));
    const Duration since(random.between(0, int64_t{1} << random.between(0, 50)));  // up to 13 days
    const Duration age = age_of(heard_tick(heard), heard + since);
    REQUIRE(age >= since);
    REQUIRE(age <= since + kUnit * 3);  // a tick that would be 0 is 1
    REQUIRE(heard_tick(heard) != 0);
    REQUIRE(age_of(heard_tick(heard + secs(1)), heard) == kUnit);
  }
}

// One bucket in a fleet: a lease and a floor bucket, in wide numbers.
struct Purses {
  Wide emission, floor_emission, span;
  uint8_t tag = 0;
  Wide count = 0, ceiling = 0, end = -1;
  Wide floor_tat;

  Wide lease_left(Wide t) const { return t < end ? std::max<Wide>(0, ceiling - count) : 0; }
  bool floor_fits(Wide cost, Wide t) const {
    return floor_emission > 0 && std::max(floor_tat, t) + cost * floor_emission - span <= t;
  }
};

void run_purses(Random& random) {
  const auto burst = static_cast<uint32_t>(random.between(1, 60));
  const Duration emission(random.between(1, nanos(secs(3))));
  const Share share{0, static_cast<uint32_t>(random.between(2, 4))};
  Bench bench(bucket_rule(burst, emission, kFifth), true, share);
  const Now start = at(secs(0));
  const bool later_life = random.chance(0.5);
  bench.limiter.open_floors(kAlways, later_life ? start.mono : kFull);
  const Limit& limit = bench.rule.limit;
  Purses purses{nanos(emission), nanos(limit.floor_emission), nanos(limit.burst_span()), 0, 0, 0, -1, 0};
  purses.floor_tat = later_life ? nanos(start.mono) + purses.span : 0;
  SlotRef ref;
  MonoTime known_tat{};
  Duration clock{0};
  for (int i = 0; i < 4000; ++i) {
    if (random.chance(0.5)) clock += Duration(random.between(0, nanos(emission) * 2));
    const Now now = at(clock);
    const Wide t = nanos(now.mono);
    const uint64_t action = ref.generation == 0 ? 0 : random.below(12);
    if (action < 8) {
      const auto cost = static_cast<uint32_t>(random.between(1, std::max(1u, burst / 3)));
      const Wide need = cost * purses.emission;
      const bool leased = need <= purses.lease_left(t), floor = !leased && purses.floor_fits(cost, t);
      const bool peek = action == 7;
      const Answer a = peek ? bench.peek("k", cost, now) : bench.take("k", cost, now);
      REQUIRE(admitted(a) == (leased || floor));
      if (!admitted(a)) REQUIRE(a.verdict == Verdict::starved);
      REQUIRE(nanos(a.lease_end) == static_cast<int64_t>(leased ? purses.end : INT64_MAX));
      Purses after = purses;
      if (leased) after.count += need;
      if (floor) after.floor_tat = std::max(purses.floor_tat, t) + cost * purses.floor_emission;
      const Wide busy = std::max<Wide>(0, after.floor_tat - t),
                 fleet = std::max<Wide>(0, nanos(known_tat) - t);
      const Wide here =
          after.lease_left(t) / purses.emission +
          (purses.floor_emission > 0 ? std::max<Wide>(0, purses.span - busy) / purses.floor_emission : 0);
      const Wide there = std::max<Wide>(0, purses.span - fleet) / purses.emission;
      REQUIRE(a.remaining == static_cast<uint32_t>(std::clamp<Wide>(std::max(here, there), 0, burst)));
      if (purses.floor_emission > 0)
        REQUIRE(nanos(a.reset_after) == static_cast<int64_t>(std::max(busy, fleet)));
      if (!peek) purses = after;
      for (const Note& note : bench.noted()) ref = note.slot;
    } else if (action == 8) {
      const auto tag = static_cast<uint8_t>(purses.tag + 1);
      const Wide ceiling = random.between(0, static_cast<int64_t>(purses.span));
      const Wide end = t + random.between(0, nanos(emission) * 8);
      REQUIRE(bench.slots.open_lease(ref, tag, static_cast<int64_t>(ceiling),
                                     mono(Duration(static_cast<int64_t>(end)))) ==
              static_cast<int64_t>(purses.count));
      purses.tag = tag, purses.count = 0, purses.ceiling = ceiling, purses.end = end;
    } else if (action == 9) {
      const auto tag = static_cast<uint8_t>(random.chance(0.8) ? purses.tag : purses.tag + 1);
      const Wide ceiling = random.between(0, static_cast<int64_t>(purses.span));
      const Wide end = t + random.between(0, nanos(emission) * 8);
      const bool runs = tag == purses.tag && purses.end >= 0;
      REQUIRE(bench.slots.raise_lease(ref, tag, static_cast<int64_t>(ceiling),
                                      mono(Duration(static_cast<int64_t>(end)))) == runs);
      if (runs) purses.ceiling = std::max(purses.ceiling, ceiling), purses.end = std::max(purses.end, end);
    } else if (action == 10) {
      const auto tag = static_cast<uint8_t>(random.chance(0.8) ? purses.tag : purses.tag + 1);
      const Wide leave = random.between(0, static_cast<int64_t>(purses.span));
      const bool runs = tag == purses.tag && purses.end >= 0;
      const Wide taken = runs ? std::max<Wide>(0, purses.ceiling - leave - purses.count) : 0;
      REQUIRE(bench.slots.take_back_lease(ref, tag, static_cast<int64_t>(leave)) ==
              static_cast<int64_t>(taken));
      purses.count += taken;
      const auto lease = bench.slots.lease(ref);
      REQUIRE(lease);
      REQUIRE(lease->tag == purses.tag);
      REQUIRE(lease->count == static_cast<int64_t>(purses.count));
      REQUIRE(lease->ceiling == static_cast<int64_t>(purses.ceiling));
    } else {
      known_tat = now.mono + Duration(random.between(0, static_cast<int64_t>(purses.span)));
      REQUIRE(bench.slots.set_knowledge(ref, {0, 0, known_tat, {}, false}));
    }
  }
}

TEST_CASE("a fleet's bucket spends its lease first, then its floor, to the nanosecond") {
  Random random(seed() + 11);
  for (int round = 0; round < kRounds; ++round) run_purses(random);
}

TEST_CASE("floors are shut until they are opened, and count only in windows that begin after") {
  Bench bench(window_rule(Algorithm::fixed_window, 100, secs(10), kFifth), true, {0, 2});
  const Limit& limit = bench.rule.limit;
  CHECK(bench.take("k", 1, at(secs(0))).verdict == Verdict::starved);
  bench.limiter.open_floors(at(secs(1)).wall, kFull);
  CHECK(bench.take("k", 1, at(secs(2))).verdict == Verdict::starved);
  CHECK(admitted(bench.take("k", 10, at(secs(10)))));
  CHECK(bench.take("k", 1, at(secs(10))).verdict == Verdict::starved);
  CHECK(bench.limiter.floor_in(limit, INT64_MAX) == 10);
  CHECK(bench.limiter.floor_in(limit, INT64_MIN) == 0);
  bench.limiter.open_floors(WallTime::max(), MonoTime::max());
  CHECK(bench.take("k", 1, at(secs(20))).verdict == Verdict::starved);
  CHECK(bench.limiter.floor_in(limit, INT64_MIN) == 0);
}

TEST_CASE("floor buckets are shut until they are opened, and fill from empty in a later life") {
  Bench bench(bucket_rule(100, ms(100), kFifth), true, {0, 2});  // a floor of 10, one per second
  REQUIRE(bench.rule.limit.floor == 10);
  REQUIRE(bench.rule.limit.floor_emission == secs(1));
  CHECK(bench.take("k", 1, at(secs(0))).verdict == Verdict::starved);
  bench.limiter.open_floors(kAlways, at(secs(0)).mono);
  CHECK(bench.take("k", 1, at(ms(999))).verdict == Verdict::starved);
  CHECK(admitted(bench.take("k", 1, at(ms(1000)))));
  CHECK(bench.take("k", 1, at(ms(1000))).verdict == Verdict::starved);
  CHECK(admitted(bench.take("new", 1, at(ms(1000)))));
  bench.limiter.open_floors(kAlways, kFull);
  CHECK(admitted(bench.take("other", 10, at(ms(1000)))));
  bench.limiter.open_floors(WallTime::max(), MonoTime::max());
  CHECK(bench.take("other", 1, at(secs(100))).verdict == Verdict::starved);
  CHECK(bench.take("another", 1, at(secs(100))).verdict == Verdict::starved);
}

TEST_CASE("exhausted holds for the window it was said of") {
  Bench bench(window_rule(Algorithm::fixed_window, 100, secs(10), Overcount{0, false}), true, {0, 2});
  CHECK(bench.take("k", 1, at(secs(0))).verdict == Verdict::starved);
  const SlotRef ref = bench.noted().at(0).slot;
  const auto tag = static_cast<uint32_t>(nanos(at(secs(0)).wall) / nanos(secs(10)));
  CHECK(bench.slots.set_knowledge(ref, {tag, 100, {}, at(secs(10)).mono, false}));
  const Answer a = bench.take("k", 1, at(secs(4)));
  CHECK(a.verdict == Verdict::over_limit);
  CHECK(a.retry_after == secs(6));
  CHECK(a.remaining == 0);
  CHECK(bench.noted().empty());
  CHECK(bench.take("k", 1, at(secs(10))).verdict == Verdict::starved);
}

TEST_CASE("a full ring leaves the key to be noted at its next use") {
  Bench bench(window_rule(Algorithm::fixed_window, 1000, secs(10), {0, true}), true, {0, 2}, 1000, 2);
  bench.limiter.open_floors(kAlways, kFull);
  for (const char* key : {"a", "b", "c"}) CHECK(admitted(bench.take(key, 1, at(secs(0)))));
  CHECK(bench.limiter.notes_dropped() == 1);
  const auto first = bench.noted();
  REQUIRE(first.size() == 2);
  CHECK(admitted(bench.take("c", 1, at(secs(0)))));
  const auto second = bench.noted();
  REQUIRE(second.size() == 1);
  CHECK(second[0].id == wire_id("c", bench.rule.id_key));
  // The ask mark too is not forgotten.
  REQUIRE(bench.slots.set_ask_at(first[0].slot, 1));
  CHECK(admitted(bench.take("d", 1, at(secs(0)))));
  CHECK(admitted(bench.take("e", 1, at(secs(0)))));
  CHECK(admitted(bench.take("a", 1, at(secs(0)))));
  CHECK(bench.noted().size() == 2);
  CHECK(admitted(bench.take("a", 1, at(secs(0)))));
  const auto third = bench.noted();
  REQUIRE(third.size() == 1);
  CHECK(third[0].kind == Note::Kind::low);
}

TEST_CASE("every call of the cluster thread says when the key is gone, and changes nothing") {
  Bench bench(window_rule(Algorithm::fixed_window, 1000, secs(10), {0, true}), true, {0, 2});
  bench.limiter.open_floors(kAlways, kFull);
  CHECK(admitted(bench.take("a", 1, at(secs(0)))));
  SlotRef ref = bench.noted().at(0).slot;
  CHECK(bench.slots.living(ref));
  const auto tag = static_cast<uint32_t>(nanos(at(secs(0)).wall) / nanos(secs(10)));
  const SlotRef wrong[] = {{ref.index, ref.generation + 1}, {ref.index, 0}, {UINT32_MAX, 1}, {}};
  for (const SlotRef stale : wrong) {
    CHECK_FALSE(bench.slots.living(stale));
    CHECK_FALSE(bench.slots.count(stale, tag));
    CHECK_FALSE(bench.slots.ceiling(stale, tag));
    CHECK_FALSE(bench.slots.raise_ceiling(stale, tag, 5));
    CHECK(bench.slots.take_back(stale, tag, 5, 0) == 0);
    CHECK_FALSE(bench.slots.lease(stale));
    CHECK_FALSE(bench.slots.open_lease(stale, 1, 5, {}));
    CHECK_FALSE(bench.slots.raise_lease(stale, 1, 5, {}));
    CHECK(bench.slots.take_back_lease(stale, 1, 0) == 0);
    CHECK_FALSE(bench.slots.set_knowledge(stale, {}));
    CHECK_FALSE(bench.slots.set_ask_at(stale, 1));
    CHECK_FALSE(bench.slots.clear_noted(stale));
  }
  CHECK(bench.slots.count(ref, tag) == 1u);
  CHECK_FALSE(bench.slots.ceiling(ref, tag));
}

TEST_CASE("deciding, peeking, noting, inserting and evicting allocate nothing") {
  Random random(seed() + 12);
  for (const bool fleet : {false, true}) {
    for (const Algorithm algorithm :
         {Algorithm::sliding_window, Algorithm::fixed_window, Algorithm::token_bucket}) {
      const Rule rule = algorithm == Algorithm::token_bucket ? bucket_rule(50, ms(20), kFifth)
                                                             : window_rule(algorithm, 50, secs(1), kFifth);
      Bench bench(rule, fleet, {0, 2}, 300, 1 << 16);
      bench.limiter.open_floors(kAlways, kFull);
      char key[8] = "key:\0\0";
      const size_t before = allocations;
      uint64_t admitted_n = 0;
      for (int i = 0; i < 20'000; ++i) {
        key[4] = static_cast<char>(random.below(4));
        key[5] = static_cast<char>(random.below(256));
        const Now now = at(Duration(i * int64_t{300'000}));
        const std::string_view name(key, 6);
        admitted_n += admitted(bench.take(name, 1 + static_cast<uint32_t>(random.below(3)), now));
        (void)bench.peek(name, 1, now);
        (void)bench.limiter.give(bench.ask(name), 1, now);
      }
      CHECK(allocations == before);
      CHECK(admitted_n > 1000);
      CHECK(bench.slots.evicted_live() + bench.slots.evicted_idle() > 100);
      if (fleet) CHECK(bench.noted().size() > 1000);
    }
  }
}

}  // namespace
}  // namespace tally
