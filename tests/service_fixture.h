// A worker's service without its worker: bytes in, bytes out, and the cluster thread played by the test.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/overrides.h"
#include "core/windows.h"
#include "core_fixture.h"
#include "daemon/service.h"
#include "doctest/doctest.h"

namespace tally::test {

inline std::string command(std::initializer_list<std::string_view> words) {
  std::string bytes = "*" + std::to_string(words.size()) + "\r\n";
  for (const std::string_view word : words) {
    bytes += '$';
    bytes += std::to_string(word.size());
    bytes += "\r\n";
    bytes += word;
    bytes += "\r\n";
  }
  return bytes;
}
inline std::string take(std::string_view rule, std::string_view key, std::string_view cost = "1") {
  return command({"TALLY.TAKE", rule, key, cost});
}
inline const std::string kPing = "PING\r\n", kPong = "+PONG\r\n";

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

// Takes along what `slow` allows.
inline Rule paired() {
  Rule rule = named("paired", std::chrono::hours(1), 20);
  rule.also_names = {"slow"};
  return rule;
}

// "vip" has 20, what begins with "free" is exempt, and 10.0.0.0/8 is blocked.
inline Rule special(std::string_view name) {
  Rule rule = named(name, std::chrono::hours(1));
  const auto overrides = std::make_shared<Overrides>();
  overrides->add("vip", {Treatment::limited, named("vip", Duration(0), 20).limit, 0, {}});
  overrides->add("free*", {Treatment::exempt, {}, 0, {}});
  overrides->add("10.0.0.0/8", {Treatment::blocked, {}, 0, {}});
  rule.overrides = overrides;
  return rule;
}

inline std::vector<Rule> usual_rules() {
  return {named("slow", std::chrono::hours(1)), named("quick", Duration(1)), named("never", Duration(0)), named("wide", std::chrono::hours(1), 100'000), floored(), paired()};
}

// A fleet's worker: strict rules, so nothing is admitted before grant() raises a ceiling.
struct Desk {
  explicit Desk(ServiceLimits limits = {1024, 1'048'576, 100, ms(100)}, bool fleet = true, std::vector<Rule> all = usual_rules())
      : rules(std::make_shared<const RuleSet>(std::move(all), Rule{}, Share{0, 3}, kPublicIdKey)),
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

inline bool is_admitted(std::string_view reply) { return reply.substr(0, 8) == "*6\r\n:0\r\n"; }
inline bool is_no_grant(std::string_view reply) {
  return reply.substr(0, 8) == "*6\r\n:1\r\n" && reply.size() > 4 &&
         reply.substr(reply.size() - 4) == ":2\r\n";
}

// The numbers of one reply that is an array of integers.
inline std::vector<int64_t> numbers_in(const std::string& reply) {
  std::vector<int64_t> numbers;
  for (size_t at = reply.find(':'); at != std::string::npos; at = reply.find(':', at + 1)) numbers.push_back(std::stoll(reply.substr(at + 1)));
  return numbers;
}

}  // namespace tally::test
