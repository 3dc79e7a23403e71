// A worker's service without its worker: rules, a table, and the cluster thread played by the test.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/windows.h"
#include "core_fixture.h"
#include "daemon/service.h"
#include "doctest/doctest.h"

namespace tally::test {

inline Rule named(std::string_view name, Duration wait, uint32_t limit = 10) {
  Rule rule = window_rule(Algorithm::fixed_window, limit, std::chrono::hours(24), Overcount{0});
  rule.name = name;
  rule.wait = wait;
  return rule;
}

inline Rule floored() {
  Rule rule = named("floored", std::chrono::hours(1), 100);
  rule.max_overcount = Overcount{100'000, false};
  return rule;
}

// A fleet's worker: strict rules, so nothing is admitted before grant() raises a ceiling.
struct Desk {
  explicit Desk(ServiceLimits limits = {1024, 1'048'576, 100, ms(100)}, bool fleet = true)
      : rules(std::make_shared<const RuleSet>(
            std::vector<Rule>{named("slow", std::chrono::hours(1)), named("quick", Duration(1)),
                              named("never", Duration(0)), named("wide", std::chrono::hours(1), 100'000), floored()},
            Rule{}, Share{0, 3}, kPublicIdKey)),
        slots(1000, seed(), fleet),
        limiter(slots, fleet),
        overview("node", rules, limiter, 1, MonoTime{}),
        port(bell),
        service(overview, *overview.workers[0], clock, fleet ? &port : nullptr, limits,
                [this](std::unique_ptr<Call> call) { handed_out = std::move(call); }) {}
  ~Desk() {
    for (auto* session : {&a, &b}) service.drop(*session);
  }

  // What comes out when these bytes go in.
  std::string say(Session& session, const std::string& bytes) {
    session.in += bytes;
    session.in.erase(0, service.serve(session, session.in));
    return read(session);
  }
  static std::string read(Session& session) { return std::exchange(session.out, {}); }

  // What a grant does: the ceiling of a key rises to `ceiling`.
  void grant(std::string_view rule_name, std::string_view key, uint32_t ceiling) {
    const Rule& rule = *rules->find(rule_name);
    const KeyHash hash = limiter.hash(rule, key);
    const auto window = static_cast<uint32_t>(window_at(clock.now().wall, rule.limit.window));
    REQUIRE(slots.raise_ceiling(*slots.ref_of(hash), window, ceiling));
    service.wake(hash);
  }
  uint64_t notes() {
    uint64_t n = 0;
    for (Note note; port.notes.pop(note);) n += note.kind == Note::Kind::starved;
    return n;
  }
  uint64_t admitted(uint16_t rule) const { return overview.decisions(rule, Outcome::admitted); }

  Clock clock;
  std::shared_ptr<const RuleSet> rules;
  SlotTable slots;
  Limiter limiter;
  Overview overview;
  Bell bell;
  Port port;
  std::unique_ptr<Call> handed_out;  // to main, or to the admin thread
  Service service;
  Session a{Descriptor(), 1, true, {}}, b{Descriptor(), 2, true, {}};
};

}  // namespace tally::test
