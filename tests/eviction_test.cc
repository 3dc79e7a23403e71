// Many keys, several threads, a table too small: whoever is evicted and comes back is never admitted more
// than the books allow.
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>

#include "core_fixture.h"
#include "core_threads.h"

namespace tally {
namespace {

using namespace test;

// `moving`: the clock goes through many windows, and nothing is given back (a give does not say to which
// window).
void run_eviction(bool moving) {
  constexpr int64_t kLimit = 12;
  constexpr uint64_t kKeys = 240;  // the smallest table has 64 slots
  const Duration window = ms(10);
  Bench bench(window_rule(Algorithm::fixed_window, kLimit, window), false, {}, 20);
  SteppedClock clock;
  std::mutex mutex;
  std::map<std::pair<uint64_t, int64_t>, int64_t> used;
  int64_t passed = 0;
  in_threads(4, [&](size_t id) {
    Random random(seed() + id);
    std::map<std::pair<uint64_t, int64_t>, int64_t> mine;
    int64_t mine_passed = 0;
    for (int i = 0; i < 20'000 * kScale; ++i) {
      const Now now = at(moving ? clock.step(Duration(random.between(0, 20'000))) : Duration(0));
      for (int n = 0; n < 3; ++n) {
        const uint64_t key = random.chance(0.5) ? random.below(4) : random.below(kKeys);
        const std::string name = name_of(key);
        const Answer a = bench.limiter.take(bench.ask(name), now, nullptr);
        const int64_t w = window_of(a, now, window);
        if (admitted(a)) ++mine_passed, ++mine[{key, w}];
        if (!moving && admitted(a) && random.chance(0.2))
          mine[{key, w}] -= bench.limiter.give(bench.ask(name), 1, now);
      }
    }
    const std::lock_guard lock(mutex);
    for (const auto& [k, n] : mine) used[k] += n;
    passed += mine_passed;
  });
  int64_t worst = 0;
  for (const auto& [k, n] : used) worst = std::max(worst, n);
  MESSAGE("evicted alive " << bench.slots.evicted_live() << ", idle " << bench.slots.evicted_idle()
                           << ", admitted " << passed << ", fullest window " << worst);
  CHECK(worst <= kLimit);
  CHECK(bench.slots.evicted_live() > 100);
  CHECK(passed > kLimit * 50);
}

TEST_CASE("threads under eviction: no key of a fixed window passes its limit") { run_eviction(true); }

TEST_CASE("threads under eviction that give back: taken less given never passes the limit") {
  run_eviction(false);
}

TEST_CASE("threads under eviction: no bucket passes burst and refill") {
  constexpr uint32_t kBurst = 12;
  constexpr uint64_t kKeys = 240;  // the smallest table has 64 slots
  const Duration emission = ms(1);
  Bench bench(bucket_rule(kBurst, emission), false, {}, 20);
  SteppedClock clock;
  std::array<std::atomic<int64_t>, kKeys> used{};
  in_threads(4, [&](size_t id) {
    Random random(seed() + id);
    for (int i = 0; i < 20'000 * kScale; ++i) {
      const Now now = at(clock.step(Duration(random.between(0, 20'000))));
      const uint64_t key = random.chance(0.5) ? random.below(4) : random.below(kKeys);
      const std::string name = name_of(key);
      if (random.chance(0.05))
        used[key] -= bench.limiter.give(bench.ask(name), 2, now);
      else if (admitted(bench.limiter.take(bench.ask(name), now, nullptr)))
        ++used[key];
    }
  });
  const int64_t most = kBurst + clock.read() / emission;
  for (const auto& n : used) CHECK(n <= most);
  CHECK(bench.slots.evicted_live() > 100);
}

// A cluster thread that grants to each life of each key and takes back, while workers spend and evict.
struct Granter {
  struct Life {
    uint32_t window = 0;
    uint32_t ceiling = 0;
  };
  Bench& bench;
  std::map<std::pair<uint32_t, uint32_t>, Life> lives;
  std::map<std::pair<uint64_t, uint32_t>, int64_t>
      net;  // (KeyHash::hi, window): granted less returned, over all lives

  void act(const Note& note, int64_t number, Duration length, Random& random) {
    const auto window = static_cast<uint32_t>(number);
    Life& life = lives[{note.slot.index, note.slot.generation}];
    if (life.window != window) life = {window, bench.rule.limit.floor};
    int64_t& balance = net[{note.hash.hi, window}];
    const auto more = static_cast<uint32_t>(random.between(1, 4));
    if (random.chance(0.6)) {
      life.ceiling += more;
      balance += more;  // whether or not it arrives: it was issued
      bench.slots.raise_ceiling(note.slot, window, life.ceiling);
    } else if (const auto held = bench.slots.ceiling(note.slot, window)) {
      balance -= bench.slots.take_back(note.slot, window, *held, static_cast<uint32_t>(random.below(2)),
                                       WallTime(length * (number + 1)));
    }
    if (random.chance(0.3)) bench.slots.clear_noted(note.slot);
    if (random.chance(0.3)) bench.slots.set_knowledge(note.slot, {window, 1, {}, {}, false});
    if (random.chance(0.3)) bench.slots.set_ask_at(note.slot, life.ceiling / 2);
  }
};

TEST_CASE("threads under eviction in a fleet: no key passes its floor and what all its lives were granted") {
  constexpr Overcount kHalf{500'000, false};
  constexpr uint64_t kKeys = 240;  // the smallest table has 64 slots
  const Duration window = ms(10);
  Bench bench(window_rule(Algorithm::fixed_window, 40, window, kHalf), true, {0, 4}, 20);
  const uint32_t floor = bench.rule.limit.floor;
  REQUIRE(floor == 5);
  bench.limiter.open_floors(kAlways, kFull);
  SteppedClock clock;
  Granter granter{bench, {}, {}};
  std::mutex mutex;
  std::map<std::pair<uint64_t, uint32_t>, int64_t> used;
  std::array<std::unique_ptr<NoteRing>, 3> rings;
  for (auto& ring : rings) ring = std::make_unique<NoteRing>(256);
  std::atomic<int> running{3};
  in_threads(4, [&](size_t id) {
    Random random(seed() + id);
    if (id == 3) {
      while (running > 0)
        for (auto& ring : rings)
          for (Note note; ring->pop(note);)
            granter.act(note, nanos(at(clock.read()).wall) / nanos(window), window, random);
      return;
    }
    std::map<std::pair<uint64_t, uint32_t>, int64_t> mine;
    for (int i = 0; i < 30'000 * kScale; ++i) {
      const Now now = at(clock.step(Duration(random.between(0, 20'000))));
      const Ask ask = bench.ask("");
      const std::string name = name_of(random.chance(0.5) ? random.below(4) : random.below(kKeys));
      Ask real = ask;
      real.key = name;
      real.hash = bench.limiter.hash(bench.rule, name);
      const Answer a = bench.limiter.take(real, now, rings[id].get());
      if (admitted(a)) ++mine[{real.hash.hi, static_cast<uint32_t>(window_of(a, now, window))}];
    }
    const std::lock_guard lock(mutex);
    for (const auto& [k, n] : mine) used[k] += n;
    --running;
  });
  int64_t beyond_floor = 0;
  for (const auto& [k, n] : used) {
    const auto it = granter.net.find(k);
    const int64_t net = it == granter.net.end() ? 0 : it->second;
    CHECK(n <= floor + net);
    beyond_floor += n > floor;
  }
  MESSAGE("evicted alive " << bench.slots.evicted_live() << ", windows beyond the floor " << beyond_floor
                           << " of " << used.size());
  CHECK(bench.slots.evicted_live() > 100);
  CHECK(beyond_floor > 10);
}

TEST_CASE("threads in a fleet whose table is forgotten again and again: what was granted before buys nothing") {
  constexpr uint64_t kKeys = 40;
  const Duration window = secs(1);
  Bench bench(window_rule(Algorithm::fixed_window, 1'000'000, window), true, {}, 60);
  const Now now = at(secs(0));
  const auto tag = static_cast<uint32_t>(nanos(now.wall) / nanos(window));
  std::atomic<int64_t> admitted_in_all{0};
  std::atomic<bool> over{false};
  int64_t most = 0;
  size_t granted = 0, stale = 0;
  in_threads(4, [&](size_t id) {
    Random random(seed() + id);
    if (id != 0) {
      NoteRing notes(1 << 12);
      while (!over) {
        admitted_in_all += admitted(bench.limiter.take(bench.ask(name_of(random.below(kKeys))), now, &notes));
        for (Note note; notes.pop(note);) {
        }
      }
      return;
    }
    while (granted < 5'000 * kScale) {
      std::vector<SlotRef> known;  // of keys that were granted something
      for (uint64_t key = 0; key < kKeys; ++key) {
        const auto ref = bench.slots.ref_of(bench.ask(name_of(key)).hash);
        if (!ref || !bench.slots.raise_ceiling(*ref, tag, 5)) continue;
        known.push_back(*ref);
        most += 5;
      }
      granted += known.size();
      bench.slots.forget_all();
      for (const SlotRef ref : known) stale += !bench.slots.living(ref) && !bench.slots.raise_ceiling(ref, tag, 1'000);
    }
    over = true;
  });
  CHECK(stale == granted);
  CHECK(admitted_in_all > 0);
  CHECK(admitted_in_all <= most);
  bench.slots.forget_all();
  CHECK(bench.slots.occupied() == 0);
  for (uint64_t key = 0; key < 60; ++key) CHECK(!admitted(bench.take(name_of(key), 1, now)));  // every place is to be had
  CHECK(bench.slots.occupied() == 60);
  CHECK(bench.slots.evicted_live() == 0);
}

TEST_CASE("who found too little in an idle slot finds it there until the cluster thread has heard of it") {
  const auto stays = [](Rule rule) {
    Bench bench(std::move(rule), true, {0, 2}, 20);
    REQUIRE(bench.take("k", 1, at(secs(0))).verdict == Verdict::starved);
    const SlotRef first = bench.noted().at(0).slot;
    REQUIRE(bench.slots.clear_noted(first));
    // Its windows are over now, and so is all that a bucket could remember.
    REQUIRE(bench.take("k", 1, at(secs(100))).verdict == Verdict::starved);
    const SlotRef second = bench.noted().at(0).slot;
    REQUIRE(second == first);
    for (int i = 0; i < 1'000; ++i)
      CHECK(bench.limiter.take(bench.ask(name_of(i)), at(secs(100)), nullptr).verdict == Verdict::starved);
    CHECK(bench.slots.evicted_live() + bench.slots.evicted_idle() > 100);
    const bool stayed = bench.slots.living(second);
    bench.slots.clear_noted(second);
    for (int i = 0; i < 1'000; ++i) bench.limiter.take(bench.ask(name_of(i)), at(secs(200)), nullptr);
    CHECK_FALSE(bench.slots.living(second));  // and no longer
    return stayed;
  };
  CHECK(stays(window_rule(Algorithm::fixed_window, 100, secs(10))));
  CHECK(stays(window_rule(Algorithm::sliding_window, 100, secs(10))));
  CHECK(stays(bucket_rule(100, ms(10))));
}

TEST_CASE("of an ask that found a full ring no mark is left") {
  Bench bench(window_rule(Algorithm::fixed_window, 100, secs(10)), true, {0, 2}, 20, 2);
  for (const char* key : {"a", "b", "k"}) REQUIRE(bench.take(key, 1, at(secs(0))).verdict == Verdict::starved);
  REQUIRE(bench.limiter.notes_dropped() == 1);
  REQUIRE(bench.noted().size() == 2);
  bench.limiter.open_floors(kAlways, kFull);
  REQUIRE(admitted(bench.take("k", 1, at(secs(0)))));
  const auto notes = bench.noted();  // the first use after it is told
  REQUIRE(notes.size() == 1);
  CHECK(notes[0].kind == Note::Kind::used);
}

}  // namespace
}  // namespace tally
