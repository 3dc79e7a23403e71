// The slot table full, and under several threads: what was admitted is never more than the books allow, and
// exactly that where demand is higher and nobody was evicted.
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <barrier>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "core_fixture.h"
#include "core_threads.h"

namespace tally {
namespace {

using namespace test;
using Wide = __int128;

// --- one thread, a full table
// ---------------------------------------------------------------------------------------

// At a load of 0.9 about one key in ten thousand finds both its buckets full.
TEST_CASE("a table takes as many keys as it was made for and evicts next to none") {
  for (const size_t keys : {1000u, 30'000u, 200'000u}) {
    Bench bench(window_rule(Algorithm::fixed_window, 10, secs(3600)), false, {}, keys);
    for (uint64_t i = 0; i < keys; ++i) REQUIRE(admitted(bench.take(name_of(i), 1, at(secs(0)))));
    CHECK(bench.slots.evicted_live() <= keys / 2000);
    CHECK(bench.slots.occupied() + bench.slots.evicted_live() == keys);
    CHECK(bench.slots.capacity() * 9 / 10 <= keys + 40);
    for (uint64_t i = 0; i < keys; ++i) REQUIRE(bench.peek(name_of(i), 0, at(secs(0))).remaining == 9);
  }
}

TEST_CASE("keys whose windows are over make room, and nothing of them is remembered") {
  for (const auto algorithm : {Algorithm::fixed_window, Algorithm::sliding_window}) {
    Bench bench(window_rule(algorithm, 10, secs(1)), false, {}, 1000);
    for (int64_t round = 0; round < 20; ++round)
      for (uint64_t i = 0; i < 1000; ++i) {
        const Answer a = bench.take(name_of(static_cast<uint64_t>(round) * 1000 + i), 1, at(secs(round * 3)));
        REQUIRE(a.remaining == 9);
      }
    CHECK(bench.slots.evicted_live() <= 10);
    CHECK(bench.slots.evicted_idle() > 10'000);
  }
  Bench bench(bucket_rule(10, ms(100)), false, {}, 1000);
  for (int64_t round = 0; round < 20; ++round)
    for (uint64_t i = 0; i < 1000; ++i)
      REQUIRE(
          bench.take(name_of(static_cast<uint64_t>(round) * 1000 + i), 1, at(ms(round * 100))).remaining ==
          9);
  CHECK(bench.slots.evicted_live() <= 10);
}

TEST_CASE("a key in heavy use is not evicted by a flood of keys that come once") {
  Bench bench(window_rule(Algorithm::fixed_window, 1'000'000, secs(3600)), false, {}, 1000);
  for (uint64_t i = 0; i < 100'000; ++i) {
    REQUIRE(admitted(bench.take("hot", 1, at(secs(0)))));
    (void)bench.take(name_of(i), 1, at(secs(0)));
  }
  CHECK(bench.slots.evicted_live() > 90'000);
  CHECK(bench.peek("hot", 0, at(secs(0))).remaining == 900'000);
}

// Four times as many keys as there is room for: everything that is admitted must be admitted by a model that
// forgets nothing (of the same admissions). How much is denied beyond that is printed: it is the price of a
// table too small.
TEST_CASE("under eviction a fixed window admits no key more than its limit") {
  Random random(seed() + 30);
  constexpr uint32_t kLimit = 20;
  Bench bench(window_rule(Algorithm::fixed_window, kLimit, secs(10)), false, {}, 300);
  std::map<std::pair<uint64_t, int64_t>, int64_t> used;
  uint64_t fits = 0, passed = 0;
  for (int i = 0; i < 400'000; ++i) {
    const Now now = at(ms(i / 10));
    const uint64_t key = random.below(random.chance(0.5) ? 100 : 1200);
    const int64_t w = nanos(now.wall) / nanos(secs(10));
    int64_t& count = used[{key, w}];
    if (count > 0 && random.chance(0.05)) {
      count -= bench.limiter.give(bench.ask(name_of(key)), 1, now);
      continue;
    }
    fits += count < kLimit;
    if (!admitted(bench.take(name_of(key), 1, now))) continue;
    ++passed;
    REQUIRE(++count <= kLimit);
  }
  MESSAGE("evicted alive " << bench.slots.evicted_live() << ", admitted " << passed << " of " << fits);
  CHECK(bench.slots.evicted_live() > 1000);
  CHECK(passed > 10'000);
}

TEST_CASE("under eviction a sliding window never passes its allowance") {
  Random random(seed() + 31);
  constexpr int64_t kLimit = 20;
  const int64_t window = nanos(secs(10));
  Bench bench(window_rule(Algorithm::sliding_window, kLimit, secs(10)), false, {}, 300);
  std::map<std::pair<uint64_t, int64_t>, int64_t> used;
  uint64_t passed = 0;
  for (int i = 0; i < 400'000; ++i) {
    const Now now = at(ms(i / 5));
    const uint64_t key = random.below(random.chance(0.5) ? 100 : 1200);
    const int64_t t = nanos(now.wall), w = t / window;
    if (!admitted(bench.take(name_of(key), 1, now))) continue;
    ++passed;
    const Wide before = used[{key, w - 1}];
    const Wide carried = (before * (window - t % window) + window - 1) / window;
    REQUIRE(carried + ++used[{key, w}] <= kLimit);
  }
  CHECK(bench.slots.evicted_live() > 1000);
  CHECK(passed > 10'000);
}

TEST_CASE("under eviction a bucket never passes what burst and rate allow") {
  Random random(seed() + 32);
  constexpr uint32_t kBurst = 20;
  const Duration emission = ms(200);
  Bench bench(bucket_rule(kBurst, emission), false, {}, 300);
  std::unordered_map<uint64_t, Wide> tat;
  uint64_t passed = 0;
  for (int i = 0; i < 400'000; ++i) {
    const Now now = at(ms(i / 10));
    const uint64_t key = random.below(random.chance(0.5) ? 100 : 1200);
    Wide& arrival = tat[key];
    if (random.chance(0.05)) {
      arrival -= Wide{bench.limiter.give(bench.ask(name_of(key)), 2, now)} * nanos(emission);
      continue;
    }
    if (!admitted(bench.take(name_of(key), 1, now))) continue;
    ++passed;
    arrival = std::max<Wide>(arrival, nanos(now.mono)) + nanos(emission);
    REQUIRE(arrival - nanos(emission) * kBurst <= nanos(now.mono));
  }
  CHECK(bench.slots.evicted_live() > 1000);
  CHECK(passed > 10'000);
}

TEST_CASE("a worker whose clock lags behind the evictor's does not find a fresh window") {
  Bench bench(window_rule(Algorithm::fixed_window, 1, secs(1)), false, {}, 20);  // two buckets
  CHECK(admitted(bench.take("k", 1, at(ms(900)))));
  // A faster clock finds k idle and lets it go.
  for (uint64_t i = 0; i < 200; ++i) (void)bench.take(name_of(i), 1, at(ms(2100)));
  REQUIRE(bench.slots.evicted_idle() > 0);
  const Answer a = bench.take("k", 1, at(ms(900)));
  if (admitted(a)) CHECK(window_of(a, at(ms(900)), secs(1)) > nanos(at(ms(900)).wall) / nanos(secs(1)));
}

// --- one key, several threads
// ---------------------------------------------------------------------------------------

TEST_CASE("threads on one key of a fixed window admit exactly the limit in each window") {
  constexpr uint32_t kLimit = 1000;
  const Duration window = secs(1);
  for (const size_t threads : {2u, 4u}) {
    Bench bench(window_rule(Algorithm::fixed_window, kLimit, window));
    std::barrier sync(static_cast<std::ptrdiff_t>(threads));
    const int windows = 25 * kScale;
    std::vector<std::atomic<uint32_t>> passed(static_cast<size_t>(windows));
    in_threads(threads, [&](size_t id) {
      Random random(seed() + id);
      for (int w = 0; w < windows; ++w) {
        const Now now = at(window * w + ms(static_cast<int64_t>(id)));
        for (;;) {
          const auto cost = static_cast<uint32_t>(random.between(1, 3));
          const Answer a = bench.limiter.take(bench.ask("k", cost), now, nullptr);
          if (admitted(a))
            passed[static_cast<size_t>(w)] += cost;
          else if (cost == 1)
            break;
        }
        sync.arrive_and_wait();
      }
    });
    for (const auto& n : passed) CHECK(n == kLimit);
  }
}

TEST_CASE("threads whose clocks run apart never pass the limit of a window number") {
  constexpr uint32_t kLimit = 50;
  const Duration window = ms(10);
  Bench bench(window_rule(Algorithm::fixed_window, kLimit, window));
  SteppedClock clock;
  std::mutex mutex;
  std::map<int64_t, uint64_t> passed;
  in_threads(4, [&](size_t id) {
    Random random(seed() + id);
    std::map<int64_t, uint64_t> mine;
    for (int i = 0; i < 20'000 * kScale; ++i) {
      const Now now = at(clock.step(Duration(random.between(0, 100'000))));
      for (uint64_t n = random.below(4); n-- > 0;) {  // a batch on one reading
        const Answer a = bench.limiter.take(bench.ask("k"), now, nullptr);
        if (admitted(a)) ++mine[window_of(a, now, window)];
      }
    }
    const std::lock_guard lock(mutex);
    for (const auto& [w, n] : mine) passed[w] += n;
  });
  uint64_t full = 0;
  for (const auto& [w, n] : passed) {
    CHECK(n <= kLimit);
    full += n == kLimit;
  }
  CHECK(full > 0);
}

TEST_CASE("threads on one sliding window never pass its allowance") {
  // All that was admitted in window w, with the time of each: by the last of them the allowance held.
  constexpr int64_t kLimit = 40;
  const int64_t window = nanos(ms(10));
  Bench bench(window_rule(Algorithm::sliding_window, kLimit, Duration(window)));
  SteppedClock clock;
  std::mutex mutex;
  std::map<int64_t, int64_t> passed;
  std::map<int64_t, int64_t> latest;  // latest decision in a window: the loosest allowance that any had
  in_threads(3, [&](size_t id) {
    Random random(seed() + id);
    std::map<int64_t, int64_t> mine, mine_latest;
    for (int i = 0; i < 20'000 * kScale; ++i) {
      const Now now = at(clock.step(Duration(random.between(0, 100'000))));
      const Answer a = bench.limiter.take(bench.ask("k"), now, nullptr);
      if (!admitted(a)) continue;
      const int64_t w = nanos(now.wall + a.reset_after) / window - 2;
      ++mine[w];
      mine_latest[w] = std::max(mine_latest[w], std::clamp<int64_t>(nanos(now.wall) - w * window, 0, window));
    }
    const std::lock_guard lock(mutex);
    for (const auto& [w, n] : mine) passed[w] += n;
    for (const auto& [w, t] : mine_latest) latest[w] = std::max(latest[w], t);
  });
  for (const auto& [w, n] : passed) {
    const auto before = passed.find(w - 1);
    const Wide carried =
        before == passed.end() ? 0 : (Wide{before->second} * (window - latest[w]) + window - 1) / window;
    CHECK(static_cast<int64_t>(carried) + n <= kLimit);
  }
}

TEST_CASE("threads on one bucket admit exactly burst and refill") {
  constexpr uint32_t kBurst = 500;
  const Duration emission = ms(1);
  Bench bench(bucket_rule(kBurst, emission));
  std::barrier sync(4);
  std::atomic<uint64_t> passed{0}, given{0};
  const int steps = 100 * kScale;
  in_threads(4, [&](size_t id) {
    Random random(seed() + id);
    for (int i = 0; i < steps; ++i) {
      const Now now = at(ms(i * 50));
      for (;;) {
        const auto cost = static_cast<uint32_t>(random.between(1, 3));
        if (admitted(bench.limiter.take(bench.ask("k", cost), now, nullptr)))
          passed += cost;
        else if (cost == 1)
          break;
        if (i + 1 < steps && random.chance(0.05)) given += bench.limiter.give(bench.ask("k"), 2, now);
      }
      sync.arrive_and_wait();
    }
  });
  CHECK(passed - given == kBurst + static_cast<uint64_t>(steps - 1) * 50);
}

TEST_CASE("threads that take and give back on one key: taken less given is exactly the limit") {
  constexpr uint32_t kLimit = 100;
  for (const auto algorithm : {Algorithm::fixed_window, Algorithm::sliding_window}) {
    Bench bench(window_rule(algorithm, kLimit, secs(10)));
    std::barrier sync(3);
    std::atomic<int64_t> balance{0};
    in_threads(3, [&](size_t id) {
      Random random(seed() + id);
      for (int i = 0; i < 3000 * kScale; ++i) {
        if (random.chance(0.4))
          balance -= bench.limiter.give(bench.ask("k"), 3, at(secs(0)));
        else if (admitted(bench.limiter.take(bench.ask("k", 2), at(secs(0)), nullptr)))
          balance += 2;
      }
      sync.arrive_and_wait();
      while (admitted(bench.limiter.take(bench.ask("k"), at(secs(0)), nullptr))) ++balance;
    });
    CHECK(balance == kLimit);
  }
}

TEST_CASE("spenders against grants and returns: what was admitted is floor + granted - returned") {
  constexpr Overcount kTenth{100'000, false};
  const Duration window = secs(1);
  for (const size_t spenders : {1u, 3u}) {
    Bench bench(window_rule(Algorithm::fixed_window, 1'000'000, window, kTenth), true, {0, 1000});
    const uint32_t floor = bench.rule.limit.floor;
    REQUIRE(floor == 100);
    bench.limiter.open_floors(kAlways, kFull);
    REQUIRE(admitted(bench.take("k", 1, at(secs(0)))));
    const SlotRef ref = bench.noted().at(0).slot;
    const int windows = 20 * kScale;
    std::barrier sync(static_cast<std::ptrdiff_t>(spenders) + 1);
    std::atomic<uint64_t> passed{0};
    std::atomic<bool> granting{true};
    std::vector<std::unique_ptr<NoteRing>> rings;
    for (size_t i = 0; i < spenders; ++i) rings.push_back(std::make_unique<NoteRing>(64));
    uint64_t returned_in_all = 0;
    in_threads(spenders + 1, [&](size_t id) {
      Random random(seed() + id);
      for (int i = 1; i <= windows; ++i) {
        const Now now = at(window * i);
        const auto tag = static_cast<uint32_t>(nanos(now.wall) / nanos(window));
        sync.arrive_and_wait();
        if (id == 0) {
          uint32_t ceiling = floor;
          uint64_t returned = 0;
          for (int step = 0; step < 300; ++step) {
            if (random.chance(0.5))
              bench.slots.raise_ceiling(ref, tag, ceiling += static_cast<uint32_t>(random.below(20)));
            else
              returned += bench.slots.take_back(ref, tag, ceiling, static_cast<uint32_t>(random.below(20)));
          }
          granting = false;
          sync.arrive_and_wait();  // spenders have spent what there is
          CHECK(passed == ceiling - returned);
          CHECK(bench.slots.count(ref, tag) == ceiling);
          returned_in_all += returned;
          passed = 0;
          granting = true;
        } else {
          for (;;) {  // at least once more after the last grant
            const bool last = !granting;
            const auto cost = static_cast<uint32_t>(random.between(1, 3));
            const Answer a = bench.limiter.take(bench.ask("k", cost), now, rings[id - 1].get());
            if (admitted(a))
              passed += cost;
            else if (cost == 1 && last)
              break;
            for (Note note; rings[id - 1]->pop(note);) {
            }
          }
          sync.arrive_and_wait();
        }
        sync.arrive_and_wait();
      }
    });
    CHECK(returned_in_all > 0);
  }
}

TEST_CASE("spenders against leases: what was spent is what the leases counted, less what was taken back") {
  const Duration emission = ms(1);
  Bench bench(bucket_rule(1'000'000, emission, {0, false}), true, {0, 2});
  CHECK(bench.take("k", 1, at(secs(0))).verdict == Verdict::starved);
  const SlotRef ref = bench.noted().at(0).slot;
  std::atomic<uint64_t> passed{0};
  std::atomic<bool> over{false};
  int64_t counted = 0, returned = 0, worst = INT64_MIN;
  in_threads(3, [&](size_t id) {
    Random random(seed() + id);
    const Now now = at(secs(0));
    if (id > 0) {
      NoteRing ring(64);
      while (!over) {
        const auto cost = static_cast<uint32_t>(random.between(1, 3));
        if (admitted(bench.limiter.take(bench.ask("k", cost), now, &ring))) passed += cost;
        for (Note note; ring.pop(note);) {
        }
      }
      return;
    }
    int64_t ceiling = 0;
    for (int i = 0; i < 5000 * kScale; ++i) {
      const auto tag = static_cast<uint8_t>(i);
      const int64_t final_count = *bench.slots.open_lease(ref, tag, nanos(ms(50)), at(secs(10)).mono);
      counted += final_count;
      worst = std::max(worst, final_count - ceiling);
      ceiling = nanos(ms(50));
      for (int step = 0; step < 5; ++step) {
        ceiling += nanos(ms(10));
        REQUIRE(bench.slots.raise_lease(ref, tag, ceiling, at(secs(10)).mono));
        returned += bench.slots.take_back_lease(ref, tag, nanos(ms(random.between(0, 30))));
      }
    }
    counted += *bench.slots.open_lease(ref, 77, 0, at(secs(0)).mono);
    over = true;
  });
  CHECK(worst <= 0);
  CHECK(returned > 0);
  CHECK(passed > 0);
  CHECK(static_cast<int64_t>(passed) * nanos(emission) == counted - returned);
}

}  // namespace
}  // namespace tally
