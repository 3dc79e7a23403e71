// What the tests of the gRPC door share: rules from a configuration, requests in one line, and somebody who answers questions.
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

// A worker's part on a node alone: takes in order; what refuses gives back what was taken before it.
class Asker {
 public:
  void answer(Question& question, Now now) {
    for (size_t i = 0; i < question.parts.size(); ++i) {
      Question::Part& part = question.parts[i];
      part.answer = limiter_.take(ask_of(part, part.cost), now, nullptr);
      part.reason = resp::reason_of(part.answer, *part.rule);
      if (!resp::is_limited(part.reason)) continue;
      question.refused = i;
      for (size_t taken = 0; taken < i; ++taken) {
        const Question::Part& before = question.parts[taken];
        if (before.answer.verdict == Verdict::admitted) limiter_.give(ask_of(before, before.cost), before.cost, now);
      }
      for (size_t other = 0; other < question.parts.size(); ++other)
        if (other != i) question.parts[other].answer = limiter_.peek(ask_of(question.parts[other], 0), now);
      return;
    }
  }

 private:
  Ask ask_of(const Question::Part& part, uint32_t cost) const {
    return Ask{part.rule, &part.limit, part.key, limiter_.hash(*part.rule, part.key), cost};
  }

  SlotTable slots_{4096, 1, false};
  Limiter limiter_{slots_, false};
};

}  // namespace tally::test
