// Datagrams that no host sent: refused by what they carry, or, where they are true copies, of no effect on
// the bound.
#include <doctest/doctest.h>

#include "sim/attack.h"
#include "sim/fleet.h"
#include "sim/trace.h"

using namespace tally;
using namespace tally::sim;
using namespace std::chrono_literals;

namespace {

FleetConfig config_of(std::vector<Rule> rules) {
  FleetConfig config;
  config.nodes = 5;
  config.keep_datagrams = true;
  for (Rule& rule : rules) rule.on_isolation = OnIsolation::closed;
  config.rules = std::move(rules);
  config.horizon_step = 0s;
  return config;
}

void check_bounds(const Fleet& fleet) {
  for (const Violation& v : fleet.violations())
    FAIL_CHECK(v.rule << "/" << v.key << " at " << describe(v.at) << ": " << v.what);
}

uint64_t dropped(Fleet& fleet, const std::string& reason) {
  uint64_t sum = 0;
  for (uint16_t rank = 0; rank < fleet.nodes(); ++rank) {
    const auto stats = fleet.node(rank).stats();
    if (const auto it = stats.dropped.find(reason); it != stats.dropped.end()) sum += it->second;
  }
  return sum;
}

void press(Fleet& fleet, const std::string& rule, Duration until) {
  for (uint16_t n = 0; n < 5; ++n) fleet.poisson(n, rule, "k", 60, 1s, until);
}

}  // namespace

TEST_CASE("noise, damage and strangers are refused and counted, and cost the applications nothing") {
  struct Case {
    std::vector<Attack> attacks;
    std::vector<std::string> refused_as;
  };
  const Case cases[] = {{{}, {}},
                        {{Attack::noise, Attack::damage}, {"forged", "malformed", "bad_magic", "foreign"}},
                        {{Attack::stranger}, {"roster", "wrong_source"}}};
  uint64_t undisturbed = 0;
  for (const Case& c : cases) {
    Fleet fleet(config_of({window_rule("api", Algorithm::fixed_window, 1000, 60s, 0)}));
    press(fleet, "api", 5s);
    for (const Attack attack : c.attacks) arrange(fleet, {attack, 1s, 5s, 5ms, 5, 1});
    fleet.run_until(6s);
    check_bounds(fleet);
    const uint64_t admitted = fleet.tally("api", "k").admitted();
    if (c.attacks.empty()) undisturbed = admitted;
    CHECK(admitted * 100 >= undisturbed * 99);
    uint64_t refused = 0;
    for (const std::string& reason : c.refused_as) refused += dropped(fleet, reason);
    CHECK(refused >= (c.attacks.empty() ? 0u : 2000u));
  }
}

TEST_CASE("old datagrams, said again to hosts that were started anew and by them, break no bound") {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    FleetConfig config = config_of({window_rule("api", Algorithm::fixed_window, 200, 20s, 0),
                                    window_rule("slide", Algorithm::sliding_window, 100, 1s, 100'000),
                                    bucket_rule("feed", 50, 50, 1s, 0)});
    config.seed = seed;
    config.sealed = seed % 2 == 0;
    Fleet fleet(config);
    for (const char* rule : {"api", "slide", "feed"}) press(fleet, rule, 10s);
    arrange(fleet, {Attack::replay, 2s, 10s, 20ms, 5, seed});
    arrange(fleet, {Attack::earlier_lives, 2s, 10s, 20ms, 10, seed});
    for (uint16_t n = 0; n < 5; ++n) {
      fleet.at(3s + 1300ms * n, [&fleet, n] { fleet.crash(n); });
      fleet.at(3100ms + 1300ms * n, [&fleet, n] { fleet.start(n); });
    }
    fleet.run_until(10s);
    CAPTURE(seed);
    check_bounds(fleet);
    CHECK(dropped(fleet, "older_life") > 0);
    CHECK((dropped(fleet, "replayed") > 0) == config.sealed);
    CHECK(fleet.tally("feed", "k").admitted() > 200);
  }
}

TEST_CASE("what comes from an address of nobody is answered to nobody") {
  Fleet fleet(config_of({window_rule("api", Algorithm::fixed_window, 100, 60s, 0)}));
  fleet.run_until(1s);
  REQUIRE(!fleet.datagrams().empty());
  const Fleet::Sent sent = fleet.datagrams().back();
  fleet.inject(std::nullopt, sent.to, sent.bytes);
  fleet.run_for(10ms);
  CHECK(dropped(fleet, "wrong_source") == 1);
}
