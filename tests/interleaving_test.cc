// The slot table and the limiter, as they are, in every order of their operations on words: two or three
// threads, a table of two slots. What is checked is what the books say: floor, grants, returns, limits.
//
// usage: interleaving_test [must-fail] [SCENARIO]...
// With must-fail (a mutant, see model/model.cmake) the test passes if some order breaks some check.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>

#include "base/fail.h"
#include "core/limiter.h"
#include "model/explorer.h"

namespace tally {

struct TableProbe {
  static int living(const SlotTable& slots, KeyHash hash) {
    int n = 0;
    for (size_t i = 0; i < slots.capacity(); ++i) {
      const uint64_t key = slots.slots_[i].key.load();
      const bool live = (key & 3) == 2;
      n += live && slots.slots_[i].hash.load() == hash.hi;
    }
    return n;
  }
};

namespace {

using model::Explorer;
using Outcome = Explorer::Outcome;
using Bodies = std::vector<std::function<void()>>;
using std::chrono::seconds;

constexpr Duration kWindow = seconds(10);
constexpr int64_t kFirst = 172'800'000;  // a window's number
constexpr Now in_window(int64_t n) {
  return {MonoTime(seconds(1000) + kWindow * n), WallTime(kWindow * (kFirst + n) + seconds(1))};
}
constexpr uint32_t tag(int64_t n) { return static_cast<uint32_t>(kFirst + n); }

Rule rule_of(Algorithm algorithm, uint32_t limit, Overcount e) {
  Rule rule;
  rule.name.assign(1, 'r');
  rule.limit.algorithm = algorithm;
  rule.limit.limit = limit;
  if (algorithm == Algorithm::token_bucket)
    rule.limit.emission = seconds(1);
  else
    rule.limit.window = kWindow;
  rule.max_overcount = e;
  return rule;
}

constexpr Overcount kNone{0, false}, kTenth{100'000, false};

// A table of two slots, and what the scenarios do to it.
struct World {
  RuleSet rules;
  SlotTable slots;
  Limiter limiter;
  NoteRing notes;
  const Rule& rule;
  Explorer explorer;
  Explorer::Results& r = explorer.results;

  World(Algorithm algorithm, uint32_t limit, bool fleet = false, Overcount e = kNone, size_t keys = 1)
      : rules({rule_of(algorithm, limit, e)}, Rule{}, {0, fleet ? 10u : 1u}, kPublicIdKey),
        slots(keys, 7, fleet),
        limiter(slots, fleet),
        notes(16),
        rule(rules.by_id(0)) {
    limiter.open_floors(WallTime::min(), MonoTime::min());
  }
  Ask ask(std::string_view key, uint32_t cost = 1) const {
    return {&rule, &rule.limit, key, limiter.hash(rule, key), cost};
  }
  // How much of `cost` was admitted. Without notes: a ring is not made of words.
  int64_t take(std::string_view key, int64_t window = 0, uint32_t cost = 1) {
    const Answer answer = limiter.take(ask(key, cost), in_window(window), nullptr);
    return answer.verdict == Verdict::admitted ? cost : 0;
  }
  int64_t take_all(std::string_view key, int64_t window = 0) {
    int64_t n = 0;
    while (take(key, window) != 0) ++n;
    return n;
  }
  int64_t take_back(SlotRef of, int64_t window, uint32_t ceiling) {
    return slots.take_back(of, tag(window), ceiling, 0, WallTime(kWindow * (kFirst + window + 1)));
  }
  SlotRef ref(std::string_view key) {  // takes or asks once, for a note
    (void)limiter.take(ask(key), in_window(0), &notes);
    Note note;
    CHECK_THAT(notes.pop(note));
    return note.slot;
  }
  int living(std::string_view key) const { return TableProbe::living(slots, ask(key).hash); }
  uint64_t evictions() const { return slots.evicted_live() + slots.evicted_idle(); }

  // For scenarios that are about eviction: some order must evict. Two keys that want one slot could evict
  // each other for ever, so an order is cut after two.
  Outcome explore_evicting(Bodies bodies, const std::function<std::string()>& check) {
    const uint64_t before = evictions();
    bool reached = false;
    auto outcome = explorer.explore(
        std::move(bodies),
        [&] {
          reached = reached || evictions() > before;
          return living("x") > 1 || living("z") > 1 ? "one key in two slots" : check();
        },
        [&] { return evictions() > before + 2; });
    if (outcome.wrong.empty() && !reached) outcome.wrong = "no order evicted: this tests nothing";
    return outcome;
  }
};

// Three threads that insert and evict, and some pairs, have too many orders to try them all: those with more
// changes of thread than this, at places where the thread could have gone on, are left out.
constexpr size_t kPreemptionsMax = 3;

// "" where it is right; else what is wrong, with the numbers.
std::string expect(bool right, const char* what, std::initializer_list<int64_t> numbers = {}) {
  if (right) return "";
  std::string text = what;
  for (const int64_t n : numbers) text += ' ' + std::to_string(n);
  return text;
}

// --- spending, granting, returning ---

// Spenders against a cluster thread that grants one, takes all back, grants one more.
Outcome returns(int spenders) {
  World w(Algorithm::fixed_window, 100, true, kTenth);  // a floor of 1
  const SlotRef ref = w.ref("k");
  Bodies bodies{[&] {
    w.slots.raise_ceiling(ref, tag(1), 2);
    w.r[0] = w.take_back(ref, 1, 2);
    w.slots.raise_ceiling(ref, tag(1), 3);
  }};
  for (size_t i = 1; i <= static_cast<size_t>(spenders); ++i)
    bodies.push_back([&w, i] {
      w.r[i] = w.take("k", 1);
      w.r[i] += w.take("k", 1);
    });
  return w.explorer.explore(std::move(bodies), [&] {
    const int64_t rest = w.take_all("k", 1);
    return expect(w.r[0] + w.r[1] + w.r[2] + rest == 3, "spent + returned is not what was granted",
                  {w.r[1], w.r[2], rest, w.r[0]});
  });
}

// The return alone: what is spent meanwhile and what is returned is what there was.
Outcome return_and_spend() {
  World w(Algorithm::fixed_window, 100, true, kTenth);
  const SlotRef ref = w.ref("k");
  w.slots.raise_ceiling(ref, tag(1), 2);
  const Bodies bodies{[&] { w.r[0] = w.take_back(ref, 1, 2); },
                      [&] {
                        w.r[1] = w.take("k", 1);
                        w.r[1] += w.take("k", 1);
                      }};
  return w.explorer.explore(bodies, [&] {
    const int64_t rest = w.take_all("k", 1);
    return expect(w.r[0] + w.r[1] + rest == 2, "spent + returned is not what was granted",
                  {w.r[1], rest, w.r[0]});
  });
}

Outcome rollover(Algorithm algorithm) {
  World w(algorithm, 1);
  (void)w.take("k", -2);
  const Bodies bodies{[&] { w.r[0] = w.take("k", 0); },
                      [&] {
                        w.r[1] = w.take("k", 0);
                        w.r[2] = w.take("k", 1);
                      }};
  return w.explorer.explore(bodies, [&] {
    // One for each window; but a sliding window still carries most of the one before.
    const int64_t all = w.r[0] + w.r[1] + w.r[2], most = algorithm == Algorithm::fixed_window ? 2 : 1;
    return expect(all >= 1 && all <= most && w.r[0] + w.r[1] <= 1 + (w.r[2] == 0), "a window above its limit",
                  {w.r[0], w.r[1], w.r[2]});
  });
}

// The last spender of window 0 against the first of window 1, which carries all of window 0: one of them sees
// the other.
Outcome sliding_boundary() {
  World w(Algorithm::sliding_window, 2);
  (void)w.take("k", 0);
  const Now boundary{in_window(1).mono, WallTime(kWindow * (kFirst + 1))};
  const Bodies bodies{
      [&] { w.r[0] = w.take("k", 0); },
      [&] { w.r[1] = w.limiter.take(w.ask("k"), boundary, nullptr).verdict == Verdict::admitted; }};
  return w.explorer.explore(bodies, [&] {
    return expect(1 + w.r[0] + w.r[1] <= 2, "a sliding window above its limit", {w.r[0], w.r[1]});
  });
}

constexpr int64_t kToken = 1'000'000'000;

Outcome leases(int spenders) {
  World w(Algorithm::token_bucket, 100, true);
  const SlotRef ref = w.ref("k");
  const MonoTime end = in_window(0).mono + seconds(5);
  w.slots.open_lease(ref, 1, 2 * kToken, end);
  Bodies bodies{[&] {
                  w.r[0] = w.slots.take_back_lease(ref, 1, kToken);
                  w.r[1] = *w.slots.open_lease(ref, 2, kToken, end);
                  w.slots.raise_lease(ref, 2, 2 * kToken, end);
                },
                [&] {
                  w.r[2] = w.take("k");
                  w.r[2] += w.take("k");
                }};
  if (spenders == 2) bodies.push_back([&] { w.r[3] = w.take("k"); });
  return w.explorer.explore(std::move(bodies), [&] {
    const int64_t rest = w.take_all("k"), spent = (w.r[2] + w.r[3] + rest) * kToken;
    const int64_t counted = w.r[1] + w.slots.lease(ref)->count;
    return expect(
        w.r[1] <= 2 * kToken && w.slots.lease(ref)->count == 2 * kToken && spent == counted - w.r[0],
        "what was spent is not what the leases counted", {spent, w.r[0], w.r[1]});
  });
}

// --- keys that come and go ---

Outcome insertion(int threads) {
  World w(Algorithm::fixed_window, 1, false, kNone, 3);  // four slots, two of which the key may have
  if (threads > 2) w.explorer.preemptions_max = kPreemptionsMax;
  Bodies bodies;
  for (size_t i = 0; i < static_cast<size_t>(threads); ++i)
    bodies.push_back([&w, i] { w.r[i] = w.take("k"); });
  return w.explorer.explore(std::move(bodies), [&] {
    // Where a third finds both slots reserved, or evicts the key to insert it again, less may be admitted.
    const int64_t all = w.r[0] + w.r[1] + w.r[2], later = w.take("k");
    const bool right = threads == 2 ? all == 1 && later == 0 : all + later <= 1;
    return expect(right && w.living("k") == 1, "one key in two slots", {all, later, w.living("k")});
  });
}

// From here on the table is full. y keeps its slot because it has been used the most; whoever comes evicts
// whoever is in the other, which is x, used once.
void fill_alone(World& w, uint32_t limit) {
  CHECK_THAT(w.take("x") == 1);
  CHECK_THAT(w.take("y", 0, limit) == limit);
}

// x, with one left, is taken twice while z evicts it.
Outcome taken_while_evicted(Algorithm algorithm) {
  World w(algorithm, 2);
  fill_alone(w, 2);
  const Bodies bodies{[&] {
                        w.r[0] = w.take("x");
                        w.r[0] += w.take("x");
                      },
                      [&] { (void)w.take("z"); }};
  return w.explore_evicting(bodies, [&] {
    const int64_t later = w.take_all("x");
    return expect(1 + w.r[0] + later <= 2, "a key above its limit", {w.r[0], later});
  });
}

// x, with one left, is taken while another thread evicts it and brings it back.
Outcome taken_while_replaced(Algorithm algorithm) {
  World w(algorithm, 2);
  fill_alone(w, 2);
  const Bodies bodies{[&] { w.r[0] = w.take("x"); },
                      [&] {
                        (void)w.take("z");
                        w.r[1] = w.take("x");
                      }};
  return w.explore_evicting(bodies, [&] {
    const int64_t later = w.take_all("x");
    return expect(1 + w.r[0] + w.r[1] + later <= 2, "a key above its limit", {w.r[0], w.r[1], later});
  });
}

// The same by three threads.
Outcome taken_thrice() {
  World w(Algorithm::fixed_window, 2);
  w.explorer.preemptions_max = kPreemptionsMax;
  fill_alone(w, 2);
  const Bodies bodies{[&] { w.r[0] = w.take("x"); }, [&] { (void)w.take("z"); },
                      [&] { w.r[1] = w.take("x"); }};
  return w.explore_evicting(bodies, [&] {
    const int64_t later = w.take_all("x");
    return expect(1 + w.r[0] + w.r[1] + later <= 2, "a key above its limit", {w.r[0], w.r[1], later});
  });
}

// x is gone; two bring it back at once.
Outcome brought_back_twice() {
  World w(Algorithm::fixed_window, 2);
  fill_alone(w, 2);
  CHECK_THAT(w.take("z") == 1 && w.living("x") == 0);
  const Bodies bodies{[&] { w.r[0] = w.take("x"); }, [&] { w.r[1] = w.take("x"); }};
  return w.explore_evicting(bodies, [&] {
    const int64_t later = w.take_all("x");
    return expect(1 + w.r[0] + w.r[1] + later <= 2, "a key above its limit", {w.r[0], w.r[1], later});
  });
}

// A grant for x is on its way into the slot when z evicts x: z must not spend it.
Outcome granted_while_evicted() {
  World w(Algorithm::fixed_window, 100, true);  // strict: a floor of 0
  const SlotRef x = w.ref("x"), y = w.ref("y");
  w.slots.raise_ceiling(y, tag(0), 5);
  CHECK_THAT(w.take("y", 0, 5) == 5);
  const Bodies bodies{[&] { w.slots.raise_ceiling(x, tag(0), 1); },
                      [&] {
                        w.r[0] = w.take("z");
                        w.r[0] += w.take("z");
                      }};
  return w.explore_evicting(bodies, [&] {
    const int64_t later = w.take_all("z");
    return expect(w.r[0] + later == 0, "a grant was spent by another key", {w.r[0], later});
  });
}

Outcome leased_while_evicted() {
  World w(Algorithm::token_bucket, 100, true);
  const SlotRef x = w.ref("x"), y = w.ref("y");
  const MonoTime end = in_window(0).mono + seconds(5);
  w.slots.open_lease(y, 1, kToken, end);
  w.slots.clear_noted(x);  // nobody asked for it lately: it is evicted before y
  const Bodies bodies{[&] { w.slots.open_lease(x, 1, kToken, end); },
                      [&] {
                        w.r[0] = w.take("z");
                        w.r[0] += w.take("z");
                      }};
  return w.explore_evicting(bodies, [&] {
    const int64_t later = w.take_all("z");
    return expect(w.r[0] + later == 0, "a lease was spent by another key", {w.r[0], later});
  });
}

// Floor 1 for x and one granted: taken back, evicted, spent by a later life; never more than two in all.
Outcome returned_while_evicted(bool three) {
  World w(Algorithm::fixed_window, 100, true, kTenth);
  const SlotRef x = w.ref("x"), y = w.ref("y");
  w.slots.raise_ceiling(y, tag(1), 9);
  CHECK_THAT(w.take("y", 1, 9) == 9);
  Bodies bodies{[&] {
    w.slots.raise_ceiling(x, tag(1), 2);
    w.r[0] = w.take_back(x, 1, 2);
  }};
  if (three) {
    w.explorer.preemptions_max = kPreemptionsMax;
    bodies.push_back([&] { w.r[1] = w.take("x", 1); });
    bodies.push_back([&] { (void)w.take("z", 1); });
  } else {
    bodies.push_back([&] {
      (void)w.take("z", 1);
      w.r[1] = w.take("x", 1);
    });
  }
  return w.explore_evicting(std::move(bodies), [&] {
    const int64_t later = w.take_all("x", 1);
    return expect(w.r[0] + w.r[1] + later <= 2, "spent + returned above what was granted",
                  {w.r[1], later, w.r[0]});
  });
}

// The same where x was spent from, evicted and brought back before the return.
Outcome returned_after_eviction() {
  World w(Algorithm::fixed_window, 100, true, kTenth);
  const SlotRef y = w.ref("y");
  w.slots.raise_ceiling(y, tag(1), 9);
  CHECK_THAT(w.take("y", 1, 9) == 9);
  CHECK_THAT(w.take("x", 1) == 1);  // the floor
  (void)w.take("z", 1);
  CHECK_THAT(w.living("x") == 0);
  const SlotRef x = w.ref("x");  // in window 0
  const Bodies bodies{[&] {
                        w.slots.raise_ceiling(x, tag(1), 2);
                        w.r[0] = w.take_back(x, 1, 2);
                      },
                      [&] { w.r[1] = w.take("x", 1); }};
  return w.explorer.explore(bodies, [&] {
    const int64_t later = w.take_all("x", 1);
    return expect(1 + w.r[0] + w.r[1] + later <= 2, "spent + returned above what was granted",
                  {w.r[1], later, w.r[0]});
  });
}

// A give to x is on its way when z evicts x: z must not get it.
Outcome given_while_evicted(Algorithm algorithm) {
  World w(algorithm, 2);
  fill_alone(w, 2);
  const Bodies bodies{[&] { (void)w.limiter.give(w.ask("x"), 1, in_window(0)); },
                      [&] {
                        w.r[0] = w.take("z");
                        w.r[0] += w.take("z");
                      }};
  return w.explore_evicting(bodies, [&] {
    const int64_t later = w.take_all("z");
    return expect(w.r[0] + later <= 2, "a give went to another key", {w.r[0], later});
  });
}

// x, counted in window 0 only, is about to begin window 1 in its slot, when z, which has one left in that
// window from an earlier life, comes back into the slot.
Outcome begun_while_evicted() {
  World w(Algorithm::fixed_window, 3);
  w.explorer.preemptions_max = kPreemptionsMax;
  CHECK_THAT(w.take("y", 1, 3) == 3 && w.take("z", 1, 2) == 2 && w.take("x", 0) == 1 && w.living("z") == 0);
  const Bodies bodies{[&] { (void)w.take("x", 1); },
                      [&] {
                        (void)w.take("z", 0);
                        w.r[0] = w.take("z", 1);
                      }};
  return w.explore_evicting(bodies, [&] {
    const int64_t later = w.take_all("z", 1);
    return expect(2 + w.r[0] + later <= 3, "a window began without its past", {w.r[0], later});
  });
}

// z, by a slow clock, evicts x and not y; by a faster clock y is idle, so that x, while it is still being
// drained, finds another slot than its own.
Outcome taken_while_drained() {
  World w(Algorithm::fixed_window, 2);
  CHECK_THAT(w.take("y", 0, 2) == 2 && w.take("x", 1) == 1);
  const Bodies bodies{[&] { (void)w.take("z", 0); },
                      [&] {
                        w.r[0] = w.take("x", 1);
                        w.r[0] += w.take("x", 1);
                      }};
  return w.explore_evicting(bodies, [&] {
    const int64_t later = w.take_all("x", 1);
    return expect(1 + w.r[0] + later <= 2, "a key came back before its count", {w.r[0], later});
  });
}

// x was counted in window 1 by a fast clock and evicted; a slow clock brings it back in window 0; then it is
// window 1.
Outcome comes_back_in_an_older_window() {
  World w(Algorithm::fixed_window, 2);
  CHECK_THAT(w.take("y", 0, 2) == 2 && w.take("x", 1) == 1 && w.take("z", 0) == 1 && w.living("x") == 0);
  const Bodies bodies{[&] {
                        (void)w.take("x", 0);
                        w.r[0] = w.take("x", 1);
                      },
                      [&] { w.r[1] = w.take("x", 1); }};
  return w.explore_evicting(bodies, [&] {
    const int64_t later = w.take_all("x", 1);
    return expect(1 + w.r[0] + w.r[1] + later <= 2, "a window above its limit", {w.r[0], w.r[1], later});
  });
}

struct Scenario {
  const char* name;
  std::function<Outcome()> play;
};

const Scenario kScenarios[] = {
    {"return-and-spend", return_and_spend},
    {"returns-2", [] { return returns(1); }},
    {"returns-3", [] { return returns(2); }},
    {"rollover-fixed", [] { return rollover(Algorithm::fixed_window); }},
    {"rollover-sliding", [] { return rollover(Algorithm::sliding_window); }},
    {"sliding-boundary", sliding_boundary},
    {"leases-2", [] { return leases(1); }},
    {"leases-3", [] { return leases(2); }},
    {"insertion-2", [] { return insertion(2); }},
    {"insertion-3", [] { return insertion(3); }},
    {"taken-while-evicted", [] { return taken_while_evicted(Algorithm::fixed_window); }},
    {"taken-while-evicted-sliding", [] { return taken_while_evicted(Algorithm::sliding_window); }},
    {"taken-while-evicted-bucket", [] { return taken_while_evicted(Algorithm::token_bucket); }},
    {"taken-while-replaced", [] { return taken_while_replaced(Algorithm::fixed_window); }},
    {"taken-while-replaced-bucket", [] { return taken_while_replaced(Algorithm::token_bucket); }},
    {"brought-back-twice", brought_back_twice},
    {"granted-while-evicted", granted_while_evicted},
    {"leased-while-evicted", leased_while_evicted},
    {"returned-while-evicted-2", [] { return returned_while_evicted(false); }},
    {"returned-after-eviction", returned_after_eviction},
    {"given-while-evicted", [] { return given_while_evicted(Algorithm::fixed_window); }},
    {"given-while-evicted-bucket", [] { return given_while_evicted(Algorithm::token_bucket); }},
    {"begun-while-evicted", begun_while_evicted},
    {"taken-while-drained", taken_while_drained},
    {"comes-back-in-an-older-window", comes_back_in_an_older_window},
    {"taken-thrice", taken_thrice},
    {"returned-while-evicted-3", [] { return returned_while_evicted(true); }},
};

}  // namespace
}  // namespace tally

int main(int argc, char** argv) {
  bool must_fail = false, broken = false;
  std::vector<std::string> wanted;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "must-fail") == 0)
      must_fail = true;
    else
      wanted.emplace_back(argv[i]);
  }
  for (const auto& scenario : tally::kScenarios) {
    if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), scenario.name) == wanted.end()) continue;
    const auto outcome = scenario.play();
    std::printf("%-30s %9llu states %8llu schedules  %s %s\n", scenario.name,
                static_cast<unsigned long long>(outcome.states),
                static_cast<unsigned long long>(outcome.schedules),
                outcome.wrong.empty() ? "all right" : outcome.wrong.c_str(), outcome.order.c_str());
    std::fflush(stdout);
    broken = broken || !outcome.wrong.empty();
    if (must_fail && broken) break;
  }
  if (!must_fail) return broken ? 1 : 0;
  std::printf("%s\n", broken ? "the mutant was caught" : "THE MUTANT LIVES");
  return broken ? 0 : 1;
}
