// What the tests of the gRPC door share: rules from a configuration, requests in one line, and somebody who
// answers questions.
#pragma once

#include <doctest/doctest.h>
#include <envoy/service/ratelimit/v3/rls.pb.h>

#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "config/config.h"
#include "core_fixture.h"
#include "daemon/question.h"
#include "rls/translate.h"

namespace tally::test {

using Entries = std::vector<std::pair<std::string, std::string>>;
using EnvoyDescriptor = envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;

// `rules`: what stands between the brackets.
inline std::shared_ptr<const RuleSet> rules_of(const std::string& rules, Share share = {}) {
  const Parsed parsed = parse_config("{\"rules\": [" + rules + "]}");
  for (const Problem& problem : parsed.errors) FAIL(format_problem("rules", problem));
  return std::make_shared<const RuleSet>(parsed.config.rules, parsed.config.inline_rule, share, kPublicIdKey);
}

inline EnvoyDescriptor& add(rls::Request& request, const Entries& entries) {
  EnvoyDescriptor& descriptor = *request.add_descriptors();
  for (const auto& [key, value] : entries) {
    auto& entry = *descriptor.add_entries();
    entry.set_key(key);
    entry.set_value(value);
  }
  return descriptor;
}

inline rls::Request request_of(std::initializer_list<Entries> descriptors, const char* domain = "edge") {
  rls::Request request;
  request.set_domain(domain);
  for (const Entries& entries : descriptors) add(request, entries);
  return request;
}

// A worker's part on a node alone, without gates: takes in order; what refuses gives back what was taken
// before it.
class Asker {
 public:
  void answer(Question& question, Now now) {
    auto& parts = question.parts;
    for (size_t i = 0; i < parts.size() && !question.refused; ++i) {
      if (parts[i].cost == 0 || parts[i].treatment != Treatment::limited) {
        peek(parts[i], now);
      } else {
        parts[i].answer = limiter_.take(ask_of(parts[i], parts[i].cost), now, nullptr);
        parts[i].reason = resp::reason_of(parts[i].answer, *parts[i].rule);
      }
      if (resp::is_limited(parts[i].reason)) question.refused = i;
    }
    if (!question.refused) return;
    for (size_t i = 0; i < parts.size(); ++i) {
      if (i < *question.refused && parts[i].cost != 0 && parts[i].treatment == Treatment::limited &&
          parts[i].answer.verdict == Verdict::admitted)
        limiter_.give(ask_of(parts[i], parts[i].cost), parts[i].cost, now);
      if (i != *question.refused) peek(parts[i], now);
    }
  }

 private:
  void peek(Question::Part& part, Now now) const {
    if (part.treatment != Treatment::limited) {
      part.answer = answer_by({&part.limit, part.treatment});
      part.reason = resp::reason_of(part.answer, *part.rule);
      return;
    }
    part.answer = resp::peeked(limiter_.peek(ask_of(part, 1), now), limiter_.peek(ask_of(part, 0), now));
    part.reason = resp::reason_of_peek(part.answer, *part.rule);
  }
  Ask ask_of(const Question::Part& part, uint32_t cost) const {
    return Ask{part.rule, &part.limit, part.key, limiter_.hash(*part.rule, part.key), cost};
  }

  SlotTable slots_{4096, 1, false};
  Limiter limiter_{slots_, false};
};

}  // namespace tally::test
