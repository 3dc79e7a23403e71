// Several takes of one request, all or nothing: from a connection (TALLY.TAKEALL, a rule with `also`), or from another door's
// thread.
//
// Thread rule: whoever holds it. A worker decides it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "core/limiter.h"
#include "core/rules.h"
#include "doors/commands.h"

namespace tally {

struct Question {
  struct Part {
    const Rule* rule = nullptr;
    Limit limit;  // and treatment: rule->for_key(key), or what came with the request
    Treatment treatment = Treatment::limited;
    std::string key;
    uint32_t cost = 1;  // 0: a peek; it refuses where a take of 1 would be refused

    // What was decided: of a take, its answer; of a peek, and where nothing was taken, what TALLY.PEEK tells.
    Answer answer;
    resp::Reason reason = resp::Reason::admitted;

    // The worker's.
    KeyHash hash;
    Duration ordered_for{0};  // how much longer what was ordered of the key holds; 0: nothing was
    bool noted = false;  // the cluster thread knows that it is short of a grant
    bool taken = false;
  };

  // A rule that nothing is taken from, and whose word counts where it blocks the key or exempts it, by an override or an order: that
  // holds in the place of a part; an exemption only of one whose limit is that of no rule (the inline rule's).
  struct Gate {
    const Rule* rule = nullptr;
    std::string key;
    size_t part = 0;
  };

  std::shared_ptr<const RuleSet> rules;  // of the parts' rules, which a reload may have replaced
  std::vector<Part> parts;               // one or more
  std::vector<Gate> gates;
  std::optional<size_t> refused;         // the first part that refused; nullopt: all was taken
  // On the worker's thread, once; not at all where the worker was drained before.
  std::function<void(std::unique_ptr<Question>)> done;

  // A part by what the rule has for the key. Requires a rule that has a limit; its `also` is the caller's.
  Part& add(const Rule& rule, std::string_view key, uint32_t cost) {
    const Applied applied = rule.for_key(key);
    Part& part = parts.emplace_back();
    part.rule = &rule;
    part.limit = *applied.limit;
    part.treatment = applied.treatment;
    part.key = key;
    part.cost = cost;
    return part;
  }

  // The part that one answer for all is made of: the one that refused, or else of those that can the one with the least left.
  const Part& deciding() const {
    if (refused) return parts[*refused];
    return *std::ranges::min_element(parts, {}, [](const Part& part) {
      return std::pair(part.rule->shadow || part.reason == resp::Reason::exempt, part.answer.remaining);
    });
  }
};

}  // namespace tally
