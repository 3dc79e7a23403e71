// What the tests of core share: the seed, rules in one line, a clock to step.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "core/limiter.h"
#include "core/rules.h"
#include "core/slots.h"

namespace tally::test {

// Printed, and taken from the environment variable TALLY_SEED to play a run again.
inline uint64_t seed() {
  static const uint64_t drawn = [] {
    const char* given = std::getenv("TALLY_SEED");
    const uint64_t s = given != nullptr ? std::strtoull(given, nullptr, 0) : 20240607;
    std::printf("TALLY_SEED=%llu\n", static_cast<unsigned long long>(s));
    return s;
  }();
  return drawn;
}

// Sanitizers slow everything by ten: the random tests then go fewer rounds.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
inline constexpr int kRounds = 20;
#else
inline constexpr int kRounds = 300;
#endif

constexpr Duration ms(int64_t n) { return std::chrono::milliseconds(n); }
constexpr Duration secs(int64_t n) { return std::chrono::seconds(n); }
constexpr WallTime wall(Duration d) { return WallTime(d); }
constexpr MonoTime mono(Duration d) { return MonoTime(d); }
// A day in 2025, so that window numbers are as large as they really are, and the monotonic clock of a fresh
// boot.
inline constexpr Duration kEpoch = std::chrono::hours(24 * 20'000);
constexpr Now at(Duration since) { return {mono(secs(100) + since), wall(kEpoch + since)}; }

inline Rule window_rule(Algorithm algorithm, uint32_t limit, Duration window, Overcount e = {}) {
  Rule rule;
  rule.name.assign(1, 'r');  // g++ 12 mistakes the assignment of a literal (bug 105329)
  rule.limit.algorithm = algorithm;
  rule.limit.limit = limit;
  rule.limit.window = window;
  rule.max_overcount = e;
  return rule;
}

inline Rule bucket_rule(uint32_t burst, Duration emission, Overcount e = {}) {
  Rule rule;
  rule.name.assign(1, 'r');  // g++ 12 mistakes the assignment of a literal (bug 105329)
  rule.limit.algorithm = Algorithm::token_bucket;
  rule.limit.limit = burst;
  rule.limit.emission = emission;
  rule.max_overcount = e;
  return rule;
}

// One rule, its table and its limiter.
struct Bench {
  RuleSet rules;
  SlotTable slots;
  Limiter limiter;
  NoteRing notes;
  const Rule& rule;

  explicit Bench(Rule r, bool fleet = false, Share share = {}, size_t keys = 1000, size_t ring = 1024)
      : rules({std::move(r)}, Rule{}, share, kPublicIdKey),
        slots(keys, seed(), fleet),
        limiter(slots, fleet),
        notes(ring),
        rule(rules.by_id(0)) {}

  Ask ask(std::string_view key, uint32_t cost = 1) const {
    return {&rule, &rule.limit, key, limiter.hash(rule, key), cost};
  }
  Answer take(std::string_view key, uint32_t cost, Now now) {
    return limiter.take(ask(key, cost), now, &notes);
  }
  Answer peek(std::string_view key, uint32_t cost, Now now) const {
    return limiter.peek(ask(key, cost), now);
  }
  std::vector<Note> noted() {
    std::vector<Note> all;
    for (Note n; notes.pop(n);) all.push_back(n);
    return all;
  }
};

inline bool admitted(const Answer& a) { return a.verdict == Verdict::admitted; }

}  // namespace tally::test
