// What a decision costs below the doors, beside what one would write instead and beside what memory alone
// costs here. tools/bench/core.sh runs it, in turns, and says which goals were reached.
//
// usage: core_bench [--benchmark_filter=...]
#include <benchmark/benchmark.h>

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "base/random.h"
#include "core/limiter.h"

namespace tally {

namespace {

constexpr size_t kKeys = 1'000'000, kBatch = 16, kDrawn = 1 << 20;
constexpr Now kNow{MonoTime(std::chrono::seconds(1000)), WallTime(std::chrono::hours(480'000))};
constexpr auto kFixed = Algorithm::fixed_window, kSliding = Algorithm::sliding_window,
               kBucket = Algorithm::token_bucket;

Rule rule_of(Algorithm algorithm, uint32_t limit) {
  Rule rule;
  rule.name.assign(1, 'r');
  rule.limit.algorithm = algorithm;
  rule.limit.limit = limit;
  if (algorithm == kBucket)
    rule.limit.emission = std::chrono::milliseconds(1);
  else
    rule.limit.window = std::chrono::hours(1);
  rule.max_overcount = {0, true};  // in a fleet: a floor of the limit
  return rule;
}

struct Fixture {
  RuleSet rules;
  SlotTable slots;
  Limiter limiter;
  const Rule& rule;

  Fixture(Algorithm algorithm, uint32_t limit, bool fleet, size_t table_keys)
      : rules({rule_of(algorithm, limit)}, Rule{}, {0, 3}, kPublicIdKey),
        slots(table_keys, 42, fleet),
        limiter(slots, fleet),
        rule(rules.by_id(0)) {
    limiter.open_floors(WallTime::min(), MonoTime::min());
  }
  Ask ask(std::string_view key) const { return {&rule, &rule.limit, key, limiter.hash(rule, key), 1}; }
};

void drop(NoteRing& notes) {
  for (Note note; notes.pop(note);) {
  }
}

// Keys as a read buffer has them: one behind the other, in random order.
struct Drawn {
  struct Key {
    std::array<char, 15> bytes;
    uint8_t size;
    std::string_view view() const { return {bytes.data(), size}; }
  };
  std::vector<Key> keys;
};
std::string key_name(size_t i) { return "user:" + std::to_string(i); }
const std::vector<Drawn::Key>& drawn() {
  static const std::vector<Drawn::Key> keys = [] {
    std::vector<Drawn::Key> made(kDrawn);
    Random random(1);
    for (Drawn::Key& key : made) {
      const std::string name = key_name(random.below(kKeys));
      name.copy(key.bytes.data(), key.bytes.size());
      key.size = static_cast<uint8_t>(name.size());
    }
    return made;
  }();
  return keys;
}

// A table in which all million keys are, one for all rounds of a benchmark.
Fixture& filled(Algorithm algorithm, bool fleet) {
  static std::array<std::unique_ptr<Fixture>, 6> tables;
  auto& table = tables[static_cast<size_t>(algorithm) * 2 + fleet];
  if (!table) {
    table = std::make_unique<Fixture>(algorithm, kLimitMax, fleet, kKeys);
    NoteRing notes(16);
    for (size_t i = 0; i < kKeys; ++i) {
      const std::string name = key_name(i);
      table->limiter.take(table->ask(name), kNow, &notes);
      drop(notes);
    }
  }
  return *table;
}

// Random keys that exist, hash and look-up included. `batched`: as a server does, 16 are hashed and
// prefetched, then decided.
void random_keys(benchmark::State& state, Algorithm algorithm, bool fleet, bool batched) {
  Fixture& f = filled(algorithm, fleet);
  NoteRing notes(1024);
  const auto decide = [&](const Ask& ask) { benchmark::DoNotOptimize(f.limiter.take(ask, kNow, &notes)); };
  const Drawn::Key* keys = drawn().data();
  size_t at = 0;
  for (auto _ : state) {
    if (batched) {
      Ask asks[kBatch];
      for (size_t i = 0; i < kBatch; ++i) asks[i] = f.ask(keys[at + i].view());
      for (const Ask& ask : asks) f.limiter.prefetch(ask.hash);
      for (Ask& ask : asks) ask.place = f.limiter.prefetch_slot(ask.hash);
      for (const Ask& ask : asks) decide(ask);
    } else {
      for (size_t i = 0; i < kBatch; ++i) decide(f.ask(keys[at + i].view()));
    }
    if (fleet) drop(notes);
    at = (at + kBatch) % kDrawn;
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * kBatch));
}

// What one would write first: a fixed window in a hash map under a mutex.
class Plain {
 public:
  bool take(std::string_view key, uint32_t limit, Duration window, WallTime now) {
    const int64_t number = nanos(now) / nanos(window);
    const std::lock_guard lock(mutex_);
    name_.assign(key);
    Count& count = counts_[name_];
    if (count.window != number) count = {number, 0};
    if (count.used >= limit) return false;
    ++count.used;
    return true;
  }

 private:
  struct Count {
    int64_t window = 0;
    uint32_t used = 0;
  };
  std::mutex mutex_;
  std::string name_;
  std::unordered_map<std::string, Count> counts_;
};

void plain_map(benchmark::State& state) {
  static Plain* const plain = [] {
    auto* made = new Plain;
    for (size_t i = 0; i < kKeys; ++i) made->take(key_name(i), kLimitMax, std::chrono::hours(1), kNow.wall);
    return made;
  }();
  const Drawn::Key* keys = drawn().data();
  size_t at = 0;
  for (auto _ : state) {
    for (size_t i = 0; i < kBatch; ++i)
      benchmark::DoNotOptimize(plain->take(keys[at + i].view(), kLimitMax, std::chrono::hours(1), kNow.wall));
    at = (at + kBatch) % kDrawn;
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * kBatch));
}

// An array of lines as large as the slots of a million keys, on huge pages where there are some, each with the place of another, at random.
struct alignas(64) Line {
  uint64_t next, other[7];
};
constexpr size_t kLines = kKeys + kKeys / 11;
const Line* lines() {
  constexpr size_t kHugePage = size_t{2} << 20;
  static const Line* const made = [] {
    constexpr size_t kBytes = (kLines * sizeof(Line) / kHugePage + 2) * kHugePage;
    void* at = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ::madvise(at, kBytes, MADV_HUGEPAGE);
    auto* all = static_cast<Line*>(at);
    std::vector<uint32_t> order(kLines);
    std::iota(order.begin(), order.end(), 0);
    Random random(3);
    for (size_t i = kLines - 1; i > 0; --i) std::swap(order[i], order[random.below(i + 1)]);
    for (size_t i = 0; i < kLines; ++i) all[order[i]].next = order[(i + 1) % kLines];
    return all;
  }();
  return made;
}

// What memory costs where the next line's place is in the line before, so that nothing overlaps.
void memory_line_dependent(benchmark::State& state) {
  const Line* const all = lines();
  uint64_t at = 0;
  for (auto _ : state) at = all[at].next;
  benchmark::DoNotOptimize(at);
  state.SetItemsProcessed(state.iterations());
}

// What it costs where all places are known, with `kOthers` instructions between two lines that wait for none: how many lines the processor
// has on their way at once depends on these alone.
template <int kOthers>
void memory_line_among(benchmark::State& state) {
  const Line* const all = lines();
  uint64_t at = 0, place = 1;
  for (auto _ : state) {
    place = place * 6364136223846793005 + 1442695040888963407;
    at += all[static_cast<uint64_t>((static_cast<unsigned __int128>(place) * kLines) >> 64)].next;
#pragma GCC unroll 200
    for (int i = 0; i < kOthers; ++i) {
      uint64_t other;
      asm volatile("lea 1(%1), %0" : "=r"(other) : "r"(place));
    }
  }
  benchmark::DoNotOptimize(at);
  state.SetItemsProcessed(state.iterations());
}

// A table with one key, one for all rounds and threads.
Fixture& hot(Algorithm algorithm, bool fleet, uint32_t limit) {
  static std::map<std::tuple<Algorithm, bool, uint32_t>, Fixture> tables;
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  const auto [at, made] = tables.try_emplace({algorithm, fleet, limit}, algorithm, limit, fleet, 1000);
  NoteRing notes(16);
  if (made) at->second.limiter.take(at->second.ask("user:0"), kNow, &notes);
  return at->second;
}

// One key that is in the cache. `found`: its slot is given; else hash and look-up are done each time. `limit`
// 1: denials.
void hot_key(benchmark::State& state, Algorithm algorithm, bool fleet, uint32_t limit, bool found) {
  Fixture& f = hot(algorithm, fleet, limit);
  NoteRing notes(16);
  NoteRing* const ring = fleet && limit == 1 ? nullptr : &notes;
  Now now = kNow;
  if (found) {
    Ask ask = f.ask("user:0");
    ask.place = f.limiter.prefetch_slot(ask.hash);
    for (auto _ : state) {
      if (limit != 1) now.mono += std::chrono::milliseconds(1);  // a bucket refills
      benchmark::DoNotOptimize(f.limiter.take(ask, now, ring));
    }
  } else {
    for (auto _ : state) {
      if (limit != 1) now.mono += std::chrono::milliseconds(1);
      benchmark::DoNotOptimize(f.limiter.take(f.ask("user:0"), now, ring));
    }
  }
  state.SetItemsProcessed(state.iterations());
}

// Two threads on one counter, three ways to count `cost 1 under a ceiling`. exchange: what a slot does.
// backoff: who lost waits first, longer each time. portion: a thread takes 64 at once and counts them in a
// line of its own; what it has left when it goes, nobody can use.
enum class Way { exchange, backoff, portion };
void counter(benchmark::State& state, Way way) {
  alignas(64) static std::atomic<uint64_t> count;
  constexpr uint64_t kCeiling = UINT64_MAX / 2, kPortion = 64;
  const auto take = [&](uint64_t cost) {
    int pauses = 1;
    for (uint64_t was = count.load(); was + cost <= kCeiling;) {
      if (count.compare_exchange_strong(was, was + cost)) return true;
      if (way == Way::backoff) {
        for (int i = 0; i < pauses; ++i) __builtin_ia32_pause();
        pauses = std::min(pauses * 2, 64);
      }
    }
    return false;
  };
  alignas(64) uint64_t left = 0;
  for (auto _ : state) {
    bool admitted = true;
    if (way != Way::portion)
      admitted = take(1);
    else if (left != 0)
      --left;
    else if ((admitted = take(kPortion)))
      left = kPortion - 1;
    benchmark::DoNotOptimize(admitted);
    benchmark::DoNotOptimize(left);
  }
  state.SetItemsProcessed(state.iterations());
}

// A key that was never there and is never seen again, the table full of such.
void new_keys(benchmark::State& state) {
  Fixture f(kFixed, 10, false, kKeys);
  Random random(2);
  Now now = kNow;
  for (auto _ : state) {
    const KeyHash hash{random.next(), random.next()};
    now.wall += std::chrono::milliseconds(10);  // an hour is 360,000 keys: a third of the table is alive
    benchmark::DoNotOptimize(f.limiter.take({&f.rule, &f.rule.limit, "k", hash, 1}, now, nullptr));
  }
  state.SetItemsProcessed(state.iterations());
  state.counters["evicted_alive"] = static_cast<double>(f.slots.evicted_live());
}

// The least that a decision on a slot in the cache does: one exchange, and an answer for the caller to read.
void exchange_and_answer(benchmark::State& state) {
  alignas(64) static std::atomic<uint64_t> count;
  Answer answer;
  for (auto _ : state) {
    uint64_t was = count.load();
    benchmark::DoNotOptimize(count.compare_exchange_strong(was, was + 1));
    answer = {};
    answer.remaining = static_cast<uint32_t>(was);
    benchmark::DoNotOptimize(answer);
  }
  state.SetItemsProcessed(state.iterations());
}

void hashing(benchmark::State& state) {
  Fixture f(kFixed, 10, false, 1000);
  const Drawn::Key* keys = drawn().data();
  size_t i = 0;
  for (auto _ : state) benchmark::DoNotOptimize(f.limiter.hash(f.rule, keys[i++ % 1024].view()));
  state.SetItemsProcessed(state.iterations());
}

BENCHMARK(memory_line_dependent);
BENCHMARK(memory_line_among<0>);
BENCHMARK(memory_line_among<50>);
BENCHMARK(memory_line_among<100>);
BENCHMARK(memory_line_among<200>);
BENCHMARK(exchange_and_answer);
BENCHMARK(hashing);
BENCHMARK(plain_map);
BENCHMARK_CAPTURE(random_keys, fixed, kFixed, false, false);
BENCHMARK_CAPTURE(random_keys, fixed_batched, kFixed, false, true);
BENCHMARK_CAPTURE(random_keys, sliding, kSliding, false, false);
BENCHMARK_CAPTURE(random_keys, sliding_batched, kSliding, false, true);
BENCHMARK_CAPTURE(random_keys, bucket, kBucket, false, false);
BENCHMARK_CAPTURE(random_keys, bucket_batched, kBucket, false, true);
BENCHMARK_CAPTURE(random_keys, fleet, kFixed, true, false);
BENCHMARK_CAPTURE(random_keys, fleet_batched, kFixed, true, true);
BENCHMARK_CAPTURE(hot_key, fixed, kFixed, false, kLimitMax, false);
BENCHMARK_CAPTURE(hot_key, fixed_found, kFixed, false, kLimitMax, true);
BENCHMARK_CAPTURE(hot_key, sliding_found, kSliding, false, kLimitMax, true);
BENCHMARK_CAPTURE(hot_key, bucket_found, kBucket, false, kLimitMax, true);
BENCHMARK_CAPTURE(hot_key, fleet_found, kFixed, true, kLimitMax, true);
BENCHMARK_CAPTURE(hot_key, fixed_denied, kFixed, false, 1, true);
BENCHMARK_CAPTURE(hot_key, sliding_denied, kSliding, false, 1, true);
BENCHMARK_CAPTURE(hot_key, bucket_denied, kBucket, false, 1, true);
BENCHMARK_CAPTURE(hot_key, fixed_denied_two_threads, kFixed, false, 1, true)->Threads(2);
BENCHMARK_CAPTURE(hot_key, fixed_two_threads, kFixed, false, kLimitMax, true)->Threads(2);
BENCHMARK_CAPTURE(counter, exchange_one_thread, Way::exchange);
BENCHMARK_CAPTURE(counter, exchange_two_threads, Way::exchange)->Threads(2);
BENCHMARK_CAPTURE(counter, backoff_two_threads, Way::backoff)->Threads(2);
BENCHMARK_CAPTURE(counter, portion_two_threads, Way::portion)->Threads(2);
BENCHMARK(new_keys)->Iterations(3'000'000);

}  // namespace
}  // namespace tally

BENCHMARK_MAIN();
