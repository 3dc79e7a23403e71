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
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "base/hash.h"
#include "books/central_call.h"
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
    bool along = false;  // not asked for itself: the take before it takes it along (`also`)

    // What was decided: of a take, its answer; of a peek, and where nothing was taken, what TALLY.PEEK tells.
    Answer answer;
    resp::Reason reason = resp::Reason::admitted;

    // The worker's.
    KeyHash hash;
    Duration ordered_for{0};  // how much longer what was ordered of the key holds; 0: nothing was
    bool noted = false;  // the cluster thread knows that it is short of a grant
    bool taken = false;
    // Of a central rule: Redis decides. What it said; nullopt: it has not answered, or did not in time.
    bool central = false;
    std::optional<CentralState> state;
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
  bool dry = false;                      // one refuses already: Redis is to take nothing, and only says what there is
  // On the worker's thread, once; not at all where the worker was drained before.
  std::function<void(std::unique_ptr<Question>)> done;

  // A take: a part by what the rule has for the key, which is returned, and one for each rule that it takes along. Requires a rule that has a limit.
  Part& add(const Rule& rule, std::string_view key, uint32_t cost) {
    const size_t asked = parts.size();
    add_part(rule, key, cost);
    for (const Rule* other : rule.also) add_part(*other, key, cost).along = true;
    return parts[asked];
  }

  // Calls each(part) for each take, in order, with the part that its answer is made of: the one that refused, or would have, or else of those that
  // can the one with the least left.
  template <typename Each>
  void for_each_take(Each each) const {
    for (size_t begin = 0; begin < parts.size();) {
      size_t end = begin + 1;
      while (end < parts.size() && parts[end].along) ++end;
      each(deciding(begin, end));
      begin = end;
    }
  }
  size_t takes() const { return takes_in(parts.size()); }
  // The place of the take that refused among those that were asked.
  std::optional<size_t> refused_take() const { return refused ? std::optional(takes_in(*refused + 1) - 1) : std::nullopt; }
  // The part that one answer for all is made of, likewise.
  const Part& deciding() const { return deciding(0, parts.size()); }

 private:
  Part& add_part(const Rule& rule, std::string_view key, uint32_t cost) {
    const Applied applied = rule.for_key(key);
    Part& part = parts.emplace_back();
    part.rule = &rule;
    part.limit = *applied.limit;
    part.treatment = applied.treatment;
    part.key = key;
    part.cost = cost;
    return part;
  }
  size_t takes_in(size_t first_parts) const {
    return static_cast<size_t>(std::ranges::count(std::span(parts).first(first_parts), false, &Part::along));
  }
  const Part& deciding(size_t begin, size_t end) const {
    if (refused && *refused >= begin && *refused < end) return parts[*refused];
    return *std::ranges::min_element(std::span(parts).subspan(begin, end - begin), {}, [](const Part& part) {
      return std::tuple(!resp::is_limited(part.reason), part.rule->shadow || part.reason == resp::Reason::exempt, part.answer.remaining);
    });
  }
};

}  // namespace tally
