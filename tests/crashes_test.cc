// Random crashes of all nodes, with their state files, which read their registers anew or begin anew. TALLY_CLUSTERS (2,000) sets how
// many fleets are run, a part of it, TALLY_SEED which; FUZZ_TRACE=rule/key prints one.
#include <doctest/doctest.h>

#include <cstdlib>

#include "seed.h"
#include "sim/fleet.h"
#include "sim/trace.h"

using namespace tally;
using namespace std::chrono_literals;

namespace {

constexpr Duration kDay = std::chrono::hours(24);

struct Fuzzed {
  uint64_t admitted = 0, offered = 0, violations = 0, votes = 0, overflowed = 0;
  std::string what;
};

// Nodes crash in turns and at random, with their state files; the exact bound holds all the same under `deny`.
Fuzzed fuzz(uint64_t seed) {
  Random random(seed);
  const auto one_of = [&](auto list) { return list.begin()[random.below(list.size())]; };
  const auto up_to = [&](Duration most) { return Duration(random.between(0, nanos(most))); };
  using D = std::initializer_list<Duration>;
  sim::FleetConfig config;
  config.nodes = random.chance(0.6) ? 3 : 5;
  config.seed = seed;
  config.sync_interval = one_of(D{20ms, 20ms, 100ms});
  config.horizon_step = one_of(D{0s, 0s, 1s, 10s});
  config.lease = one_of(D{200ms, 1s});
  config.link.delay_min = one_of(D{100us, 1ms, 5ms, 20ms});
  config.link.delay_max = config.link.delay_min + up_to(one_of(D{0ms, 3ms, 50ms, 300ms}));
  config.link.loss = one_of(std::initializer_list<double>{0.0, 0.05, 0.2});
  config.link.duplicate = one_of(std::initializer_list<double>{0.0, 0.05});
  config.link.straggle = one_of(std::initializer_list<double>{0.0, 0.05});
  config.link.straggle_by = 3s;
  const bool lose = std::getenv("FUZZ_LOSE") != nullptr;  // one in turn loses its state file, where others are heard and remember it
  if (lose) {
    config.link.delay_min = config.link.delay_max = one_of(D{100us, 1ms, 5ms});
    config.link.loss = std::min(config.link.loss, 0.05);
    config.link.straggle = 0;
  }
  config.keys = one_of(std::initializer_list<size_t>{16, 1000});
  config.clocks.resize(config.nodes);
  for (auto& clock : config.clocks) {
    if (random.chance(0.5)) clock.offset = up_to(one_of(D{5ms, 300ms, 2500ms}));
    if (random.chance(0.3)) clock.drift_ppm = static_cast<int32_t>(random.between(-4'500, 4'500));
  }
  std::vector<std::pair<std::string, std::string>> keys;
  const auto rules = 1 + random.below(3);
  for (uint64_t i = 0; i < rules; ++i) {
    const auto limit = static_cast<uint32_t>(one_of(std::initializer_list<uint64_t>{1, 10, 60, 200}));
    const std::string name = "rule-" + std::to_string(i);
    const uint32_t ppm = one_of(std::initializer_list<uint32_t>{0, 0, 100'000});
    Rule rule = random.chance(0.35)
                    ? sim::bucket_rule(name, limit, limit, one_of(D{300ms, 2s, 10s, 30s}), ppm)
                    : sim::window_rule(name, random.chance(0.5) ? Algorithm::fixed_window : Algorithm::sliding_window, limit,
                                       one_of(D{300ms, 1s, 2s, 5s, 20s, 60s}), ppm);
    rule.on_isolation = OnIsolation::closed;
    rule.on_amnesia = OnAmnesia::deny;
    rule.wait = one_of(D{0ms, 20ms, 200ms});
    config.rules.push_back(rule);
    for (uint64_t k = 0, n = 1 + random.below(3); k < n; ++k) keys.emplace_back(name, "k" + std::to_string(k));
  }
  if (Random room(mix(seed)); room.chance(0.3)) {  // from dice of their own: registers too small for the keys
    config.registers = 1 + room.below(8);
    config.overflow_cells = std::initializer_list<size_t>{4, 16, 64, 4096}.begin()[room.below(4)];
  }
  sim::Fleet fleet(config);
  if (const char* traced = std::getenv("FUZZ_TRACE"); traced != nullptr) {
    const std::string text = traced;
    fleet.trace(text.substr(0, text.find('/')), text.substr(text.find('/') + 1), [](const std::string& line) { std::puts(line.c_str()); });
    std::printf("nodes %d sync %s horizon step %s\n", config.nodes, sim::describe(config.sync_interval).c_str(), sim::describe(config.horizon_step).c_str());
    for (const Rule& r : config.rules) std::printf("%s alg %d limit %u window %s ppm %u\n", r.name.c_str(), static_cast<int>(r.limit.algorithm), r.limit.limit, sim::describe(r.limit.window).c_str(), r.max_overcount.ppm);
    for (const auto& c : config.clocks) std::printf("clock %s drift %d\n", sim::describe(c.offset).c_str(), c.drift_ppm);
  }
  const Duration length = one_of(D{8s, 15s});
  for (const auto& [rule, key] : keys)
    for (uint16_t rank = 0; rank < config.nodes; ++rank)
      fleet.poisson(rank, rule, key, one_of(std::initializer_list<double>{3.0, 20.0, 60.0}), up_to(2s), length);
  const Duration apart = one_of(D{300ms, 1s, 3s}), down = one_of(D{10ms, 100ms, 800ms});
  const uint64_t style = random.below(3);
  if (lose) {
    uint16_t rank = 0;
    for (Duration t = 1s + up_to(1s); t < length; t += 1200ms + up_to(1s), rank = static_cast<uint16_t>((rank + 1) % config.nodes)) {
      const bool keep = random.chance(0.5);
      fleet.at(t, [&fleet, rank, keep] { fleet.crash(rank, keep); });
      fleet.at(t + up_to(300ms), [&fleet, rank] { if (!fleet.is_up(rank)) fleet.start(rank); });
    }
  } else if (style == 0) {  // in turns
    uint16_t rank = 0;
    for (Duration t = 1s + up_to(1s); t < length; t += apart + up_to(apart), rank = static_cast<uint16_t>((rank + 1) % config.nodes)) {
      fleet.at(t, [&fleet, rank] { if (std::getenv("FUZZ_TRACE")) std::printf("%s crash %d\n", sim::describe(fleet.now()).c_str(), rank); fleet.crash(rank); });
      fleet.at(t + up_to(down), [&fleet, rank] { if (!fleet.is_up(rank)) fleet.start(rank); });
    }
  } else {
    for (uint16_t rank = 0; rank < config.nodes; ++rank) {
      if (style == 2 && random.chance(0.3)) continue;
      for (Duration t = 1s + up_to(apart); t < length; t += Duration(1ms) + up_to(apart * 3)) {
        const Duration back = random.chance(0.1) ? up_to(4s) : Duration(0);
        fleet.at(t, [&fleet, rank] { if (std::getenv("FUZZ_TRACE")) std::printf("%s crash %d\n", sim::describe(fleet.now()).c_str(), rank); fleet.crash(rank); });
        t += up_to(down);
        fleet.at(t, [&fleet, rank, back] {
          if (fleet.is_up(rank)) return;
          if (std::getenv("FUZZ_TRACE")) std::printf("%s start %d set back %s\n", sim::describe(fleet.now()).c_str(), rank, sim::describe(back).c_str());
          fleet.step_wall_clock(rank, -back);
          fleet.start(rank);
        });
      }
    }
  }
  for (uint64_t n = lose ? 0 : random.below(8); n > 0; --n) {  // links fail for a while
    const auto a = static_cast<uint16_t>(random.below(config.nodes)), b = static_cast<uint16_t>(random.below(config.nodes));
    const Duration from = up_to(length);
    const bool all = random.chance(0.3), both = random.chance(0.6);
    fleet.at(from, [&fleet, a, b, all, both] {
      if (all) return fleet.network().cut_off(a);
      if (a == b) return;
      fleet.network().cut(a, b);
      if (both) fleet.network().cut(b, a);
    });
    fleet.at(std::min(length, from + up_to(2s)), [&fleet] { fleet.network().mend_all(); });
  }
  for (uint64_t n = random.below(20); n > 0; --n) {
    const auto& [rule, key] = keys[random.below(keys.size())];
    const Group group = fleet.group(rule, key);
    const uint16_t rank = group.rank[random.below(group.size)];
    const auto ahead = static_cast<int64_t>(random.below(2));
    fleet.at(up_to(length), [&fleet, rank, ahead, rule = rule, key = key] { if (fleet.is_up(rank)) fleet.claim(rank, rule, key, ahead); });
  }
  const bool stepped = !lose && random.chance(0.3);
  if (stepped)
    for (uint64_t n = random.below(4); n > 0; --n) {
      const auto rank = static_cast<uint16_t>(random.below(config.nodes));
      const Duration by = up_to(6s) - Duration(3s);
      fleet.at(up_to(length), [&fleet, rank, by] { if (std::getenv("FUZZ_TRACE")) std::printf("%s step %d by %s\n", sim::describe(fleet.now()).c_str(), rank, sim::describe(by).c_str()); fleet.step_wall_clock(rank, by); });
    }
  fleet.run_until(length);
  Fuzzed result;
  for (const auto& [rule, key] : keys) {
    result.admitted += fleet.tally(rule, key).admitted();
    result.offered += fleet.tally(rule, key).offered();
  }
  result.overflowed = fleet.marks_overflowed();
  for (const sim::Violation& v : fleet.violations()) {
    if (stepped && v.what.find(" fell from ") != std::string::npos) continue;  // a step back takes the floors away
    ++result.violations;
    if (result.what.empty()) result.what = v.rule + "/" + v.key + " at " + sim::describe(v.at) + ": " + v.what;
  }
  return result;
}

}  // namespace

TEST_CASE("crashes of all nodes in turns and at random, under deny: the exact bound") {
  const uint64_t seed = test_seed(771'000);
  const uint64_t runs = scaled(100, 2);
  uint64_t bad = 0, admitted = 0, offered = 0, overflowed = 0;
  for (uint64_t i = 0; i < runs && bad < 20; ++i) {
    const Fuzzed result = fuzz(seed + i);
    admitted += result.admitted;
    offered += result.offered;
    overflowed += result.overflowed;
    bad += result.violations != 0;
    if (result.violations != 0) FAIL_CHECK("seed " << seed + i << ": " << result.what);
  }
  MESSAGE(runs << " runs: admitted " << admitted << " of " << offered << ", " << overflowed << " marks in sketches of full registers");
}

namespace {

// All crash, again and again, under `forget`: what is admitted is at most L for each time that all of the group have died, and at last, when all start again and nothing fails any more, there is all of it.
std::string forgetful(uint64_t seed, bool& locked) {
  Random random(seed);
  const auto one_of = [&](auto list) { return list.begin()[random.below(list.size())]; };
  const auto up_to = [&](Duration most) { return Duration(random.between(0, nanos(most))); };
  using D = std::initializer_list<Duration>;
  sim::FleetConfig config;
  config.nodes = random.chance(0.7) ? 3 : 5;
  config.seed = seed;
  config.sync_interval = one_of(D{20ms, 100ms});
  config.horizon_step = one_of(D{0s, 1s});
  config.link.delay_min = one_of(D{100us, 1ms, 5ms});
  config.link.delay_max = config.link.delay_min + up_to(one_of(D{0ms, 3ms, 50ms}));
  config.link.loss = one_of(std::initializer_list<double>{0.0, 0.05, 0.3});
  config.link.duplicate = one_of(std::initializer_list<double>{0.0, 0.05});
  config.link.straggle = one_of(std::initializer_list<double>{0.0, 0.05});
  config.link.straggle_by = 2s;
  config.check_wire = false;
  config.epoch = WallTime(std::chrono::seconds(1'800'000'000 / 86'400 * 86'400 + 3600));
  const uint32_t limit = one_of(std::initializer_list<uint32_t>{10, 30, 100});
  const bool bucket = random.chance(0.3);
  Rule rule = bucket ? sim::bucket_rule("api", limit, 1, 1h, 0)
                     : sim::window_rule("api", random.chance(0.5) ? Algorithm::fixed_window : Algorithm::sliding_window, limit, kDay, 0);
  rule.on_isolation = OnIsolation::closed;
  rule.on_amnesia = OnAmnesia::forget;
  rule.wait = one_of(D{0ms, 200ms});
  config.rules = {rule};
  sim::Fleet fleet(config);
  const bool traced = std::getenv("FUZZ_TRACE") != nullptr;
  if (traced) fleet.trace("api", "k", [](const std::string& line) { std::puts(line.c_str()); });
  const auto note = [&](const char* what, uint16_t rank) { if (traced) std::printf("%s %s %d\n", sim::describe(fleet.now()).c_str(), what, rank); };
  const Group group = fleet.group("api", "k");
  if (traced) std::printf("nodes %d group %d %d %d bucket %d\n", config.nodes, group.rank[0], group.rank[1], group.rank[2], bucket);
  std::vector<uint64_t> crashes(config.nodes), at_last(config.nodes), seen(config.nodes);
  uint64_t begun = 0, deaths = 0;  // of the whole group
  std::string wrong;
  const auto look = [&] {
    for (uint16_t rank = 0; rank < config.nodes; ++rank) {
      if (!fleet.is_up(rank)) continue;
      const uint64_t n = fleet.node(rank).stats().begun_anew;
      if (n == seen[rank]) continue;
      note("begun anew at", rank);
      begun += n - seen[rank];
      seen[rank] = n;
    }
  };
  const auto crash = [&](uint16_t rank) {
    if (!fleet.is_up(rank)) return;
    look();
    fleet.crash(rank);
    note("crash", rank);
    ++crashes[rank];
    seen[rank] = 0;
    for (size_t i = 0; i < group.size; ++i)
      if (crashes[group.rank[i]] == at_last[group.rank[i]]) return;
    at_last = crashes;
    ++deaths;
  };
  const Duration length = 12s;
  for (Duration t = 0s; t < length; t += 2ms) fleet.at(t, look);
  for (uint16_t rank = 0; rank < config.nodes; ++rank) fleet.poisson(rank, "api", "k", one_of(std::initializer_list<double>{5.0, 20.0, 60.0}), 1s, length);
  const Duration apart = one_of(D{300ms, 1s, 3s}), down = one_of(D{5ms, 100ms, 500ms});
  for (uint16_t rank = 0; rank < config.nodes; ++rank)
    for (Duration t = 1s + up_to(apart); t < length; t += Duration(1ms) + up_to(apart * 2)) {
      fleet.at(t, [&crash, rank] { crash(rank); });
      t += up_to(down);
      fleet.at(t, [&fleet, &note, rank] { if (!fleet.is_up(rank)) { note("start", rank); fleet.start(rank); } });
    }
  for (int n = 0; n < 2; ++n) {  // and all at once
    const Duration t = 1s + up_to(10s);
    for (uint16_t rank = 0; rank < config.nodes; ++rank) {
      fleet.at(t, [&crash, rank] { crash(rank); });
      fleet.at(t + up_to(down), [&fleet, &note, rank] { if (!fleet.is_up(rank)) { note("start", rank); fleet.start(rank); } });
    }
  }
  for (uint64_t n = random.below(6); n > 0; --n) {
    const auto a = static_cast<uint16_t>(random.below(config.nodes)), b = static_cast<uint16_t>(random.below(config.nodes));
    const Duration from = up_to(length);
    const bool all = random.chance(0.4);
    fleet.at(from, [&fleet, a, b, all] { all || a == b ? fleet.network().cut_off(a) : fleet.network().cut(a, b); });
    fleet.at(std::min(length, from + up_to(2s)), [&fleet] { fleet.network().mend_all(); });
  }
  for (uint64_t n = random.below(20); n > 0; --n) {
    const uint16_t rank = group.rank[random.below(group.size)];
    fleet.at(up_to(length), [&fleet, rank] { if (fleet.is_up(rank)) fleet.claim(rank, "api", "k"); });
  }
  fleet.run_until(length);
  look();
  const uint64_t admitted = fleet.tally("api", "k").admitted();
  if (wrong.empty() && admitted > limit * (1 + deaths))
    wrong = "admitted " + std::to_string(admitted) + " in " + std::to_string(1 + deaths) + " lives of the group";
  // In peace: all begin again, and the rule says that there is all of it.
  fleet.network().mend_all();
  for (uint16_t rank = 0; rank < config.nodes; ++rank) crash(rank);
  fleet.run_for(3s);
  for (uint16_t rank = 0; rank < config.nodes; ++rank)
    if (!fleet.is_up(rank)) fleet.start(rank);
  fleet.run_for(4s);
  for (Duration t = fleet.now() + 1ms; t < length + 17s; t += 10ms)
    for (uint16_t rank = 0; rank < config.nodes; ++rank) fleet.at(t, [&fleet, rank] { fleet.take(rank, "api", "k"); });
  fleet.run_until(length + 18s);
  const uint64_t last = fleet.tally("api", "k").admitted() - admitted;
  locked = last < limit * 9 / 10;
  if (traced)
    for (uint16_t rank = 0; rank < config.nodes; ++rank) {
      std::printf("node %d ready %d claims %lu\n", rank, fleet.node(rank).ready(), fleet.node(rank).stats().claims_started);
      for (const auto& [reason, n] : fleet.node(rank).stats().dropped) std::printf("   %s %lu\n", reason.c_str(), n);
    }
  look();
  if (wrong.empty() && last > limit + (bucket ? 1 : 0)) wrong = "admitted " + std::to_string(last) + " in the last life of the group";
  return wrong;
}

}  // namespace

TEST_CASE("crashes of all nodes, under forget: the limit once for each life of the group") {
  const uint64_t seed = test_seed(881'000);
  const uint64_t runs = scaled(100, 2);
  uint64_t bad = 0, locks = 0;
  for (uint64_t i = 0; i < runs && bad < 20; ++i) {
    bool locked = false;
    const std::string wrong = forgetful(seed + i, locked);
    if (!wrong.empty()) {
      ++bad;
      FAIL_CHECK("seed " << seed + i << ": " << wrong);
    }
    if (locked) MESSAGE("seed " << seed + i << ": less than nine tenths at last");
    locks += locked ? 1 : 0;
  }
  MESSAGE(runs << " runs: " << bad << " wrong, " << locks << " with less than nine tenths at last");
  CHECK(locks * 50 <= std::max<uint64_t>(runs, 100));  // up to three datagrams of ten are lost to the end, and marks with them
}
