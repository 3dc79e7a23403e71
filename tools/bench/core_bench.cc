// What a decision costs below the doors: hash, look-up, compare-and-swap. One thread unless it says
// otherwise.
//
// usage: core_bench [--benchmark_filter=...]
#include <benchmark/benchmark.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "core/limiter.h"

namespace tally {
namespace {

constexpr size_t kKeys = 1'000'000;
constexpr Now kNow{MonoTime(std::chrono::seconds(1000)), WallTime(std::chrono::hours(480'000))};

Rule rule_of(Algorithm algorithm, uint32_t limit) {
  Rule rule;
  rule.name.assign(1, 'r');
  rule.limit.algorithm = algorithm;
  rule.limit.limit = limit;
  if (algorithm == Algorithm::token_bucket)
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
  std::vector<std::string> keys;

  Fixture(Algorithm algorithm, uint32_t limit, bool fleet, size_t keys_n)
      : rules({rule_of(algorithm, limit)}, Rule{}, {0, 3}, kPublicIdKey),
        slots(kKeys, 42, fleet),
        limiter(slots, fleet),
        rule(rules.by_id(0)) {
    limiter.open_floors(WallTime::min(), MonoTime::min());
    for (size_t i = 0; i < keys_n; ++i) keys.push_back("user:" + std::to_string(i));
  }
  Ask ask(std::string_view key) const { return {&rule, &rule.limit, key, limiter.hash(rule, key), 1}; }
};

// Random keys out of a million that are all there. `prefetch`: as a server does, hash and prefetch 16, then
// decide 16; else one by one. The keys lie one behind the other, as in a read buffer.
void random_keys(benchmark::State& state, Algorithm algorithm, bool fleet, bool prefetch) {
  Fixture f(algorithm, kLimitMax, fleet, kKeys);
  NoteRing notes(1024);
  const auto decide = [&](const Ask& ask) {
    benchmark::DoNotOptimize(f.limiter.take(ask, kNow, &notes));
    for (Note note; notes.pop(note);) {
    }
  };
  for (const auto& key : f.keys) decide(f.ask(key));
  Random random(1);
  constexpr size_t kBatch = 16, kDrawn = 1 << 20;
  std::vector<std::array<char, 16>> drawn(kDrawn);
  for (auto& to : drawn) {
    const std::string& key = f.keys[random.below(kKeys)];
    to.fill('\0');
    key.copy(to.data(), to.size());
  }
  size_t at = 0;
  for (auto _ : state) {
    Ask asks[kBatch];
    for (size_t i = 0; i < kBatch; ++i) asks[i] = f.ask(drawn[at + i].data());
    if (prefetch) {
      for (const Ask& ask : asks) f.limiter.prefetch(ask.hash);
      for (const Ask& ask : asks) f.limiter.prefetch_slot(ask.hash);
    }
    for (const Ask& ask : asks) decide(ask);
    at = (at + kBatch) % kDrawn;
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * kBatch));
}

// One key that is in the cache: the arithmetic and the exchange. `limit` 1: denials.
void hot_key(benchmark::State& state, Algorithm algorithm, bool fleet, uint32_t limit) {
  static std::unique_ptr<Fixture> f;
  if (state.thread_index() == 0) {
    f = std::make_unique<Fixture>(algorithm, limit, fleet, 1);
    NoteRing notes(16);
    f->limiter.take(f->ask("user:0"), kNow, &notes);
  }
  NoteRing notes(16);
  Ask ask;
  int64_t n = 0;
  for (auto _ : state) {
    if (n++ == 0) ask = f->ask("user:0");
    Now now = kNow;
    now.mono += std::chrono::milliseconds(limit == 1 ? 0 : n);  // a bucket refills
    benchmark::DoNotOptimize(f->limiter.take(ask, now, fleet && limit == 1 ? nullptr : &notes));
  }
  state.SetItemsProcessed(state.iterations());
}

// A key that was never there and is never seen again, the table full of such.
void new_keys(benchmark::State& state) {
  Fixture f(Algorithm::fixed_window, 10, false, 0);
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

void hashing(benchmark::State& state) {
  Fixture f(Algorithm::fixed_window, 10, false, 1024);
  size_t i = 0;
  for (auto _ : state) benchmark::DoNotOptimize(f.ask(f.keys[i++ % 1024]).hash);
}

constexpr auto kFixed = Algorithm::fixed_window, kSliding = Algorithm::sliding_window,
               kBucket = Algorithm::token_bucket;

BENCHMARK(hashing);
BENCHMARK_CAPTURE(random_keys, fixed, kFixed, false, false);
BENCHMARK_CAPTURE(random_keys, fixed_batched, kFixed, false, true);
BENCHMARK_CAPTURE(random_keys, sliding_batched, kSliding, false, true);
BENCHMARK_CAPTURE(random_keys, bucket, kBucket, false, false);
BENCHMARK_CAPTURE(random_keys, bucket_batched, kBucket, false, true);
BENCHMARK_CAPTURE(random_keys, fleet_batched, kFixed, true, true);
BENCHMARK_CAPTURE(hot_key, fixed, kFixed, false, kLimitMax);
BENCHMARK_CAPTURE(hot_key, sliding, kSliding, false, kLimitMax);
BENCHMARK_CAPTURE(hot_key, bucket, kBucket, false, kLimitMax);
BENCHMARK_CAPTURE(hot_key, fleet, kFixed, true, kLimitMax);
BENCHMARK_CAPTURE(hot_key, fixed_denied, kFixed, false, 1);
BENCHMARK_CAPTURE(hot_key, sliding_denied, kSliding, false, 1);
BENCHMARK_CAPTURE(hot_key, bucket_denied, kBucket, false, 1);
BENCHMARK_CAPTURE(hot_key, fixed_two_threads, kFixed, false, kLimitMax)->Threads(2);
BENCHMARK_CAPTURE(hot_key, denied_two_threads, kFixed, false, 1)->Threads(2);
BENCHMARK(new_keys);

}  // namespace
}  // namespace tally

BENCHMARK_MAIN();
