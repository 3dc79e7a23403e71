// A fleet that is cut into halves, both ways or one way, under load on either side: what each side has, and that nobody who cannot own a key keeps others
// from it. On a virtual clock.
#include <doctest/doctest.h>

#include <map>
#include <string>

#include "sim/fleet.h"
#include "sim/trace.h"

using namespace tally;
using namespace tally::sim;
using namespace std::chrono_literals;

namespace {

constexpr uint32_t kLimit = 200;
constexpr uint16_t kNodes = 6;  // the first three are one half
constexpr int kKeys = 30;

// Two windows of 10 s, 1.5 times the limit asked for in each half; `cut` comes in the first. Returns what was admitted in the second, by key.
template <typename Cut>
std::map<std::string, uint64_t> admitted_apart(OnIsolation policy, uint32_t overcount_ppm, Cut cut, std::map<std::string, Group>* groups = nullptr) {
  Rule rule = window_rule("api", Algorithm::fixed_window, kLimit, 10s, overcount_ppm);
  rule.on_isolation = policy;
  rule.wait = 100ms;
  FleetConfig config;
  config.nodes = kNodes;
  config.rules = {rule};
  config.isolation_possible = policy != OnIsolation::closed;
  std::map<std::string, uint64_t> apart;
  const Fleet* clock = nullptr;
  config.admitted = [&](const Rule&, const std::string& key, uint64_t cost) {
    if (clock->now() >= 20s) apart[key] += cost;
  };
  Fleet fleet(config);
  clock = &fleet;
  for (int k = 0; k < kKeys; ++k) {
    const std::string key = "k" + std::to_string(k);
    apart[key] = 0;
    if (groups != nullptr) groups->emplace(key, fleet.group("api", key));
    for (uint16_t n = 0; n < kNodes; ++n) fleet.evenly(n, "api", key, 280, 2s + n * 7ms + k * 1ms, 30s);
  }
  fleet.at(13s, [&] { cut(fleet.network()); });
  fleet.run_until(30s);
  for (const Violation& v : fleet.violations()) FAIL_CHECK(v.rule << "/" << v.key << " at " << describe(v.at) << ": " << v.what);
  return apart;
}

}  // namespace

// Before, a member of the key's group that was cut off with the others told each of them its share of the demand on that side alone, anew with
// every change: 499 of 200.
TEST_CASE("half of a fleet that is cut off shares what its part of the demand was, whoever of the key's group is there") {
  const auto apart = admitted_apart(OnIsolation::share, 50'000, [](auto& network) { network.split({true, true, true, false, false, false}); });
  for (const auto& [key, admitted] : apart) {
    INFO(key);
    CHECK(admitted >= kLimit + 90);  // all of the limit here, half of one there
    CHECK(admitted <= kLimit + 120);
  }
}

// Before, members that hear nobody of the group claimed its keys again and again. They never heard the promises, but who gave them had deposed the
// owner by them, and nobody issued anything.
TEST_CASE("those who hear nothing of the other half, and are heard there, do not take its keys from it") {
  std::map<std::string, Group> groups;
  const auto apart = admitted_apart(
      OnIsolation::closed, 0,
      [](auto& network) {
        for (uint16_t a = 0; a < 3; ++a)
          for (uint16_t b = 3; b < kNodes; ++b) network.cut(a, b);
      },
      &groups);
  int looked_at = 0;
  for (const auto& [key, admitted] : apart) {
    const Group& group = groups.at(key);
    int here = 0;
    for (size_t i = 0; i < group.size; ++i) here += group.rank[i] < 3 ? 1 : 0;
    if (here < 2) continue;
    ++looked_at;
    INFO(key);
    CHECK(admitted >= kLimit * 9 / 10);
  }
  CHECK(looked_at >= 5);
}
