// From what a request is described by to the rules that it is to be taken from.
//
// Thread rule: immutable, of a RuleSet, which must outlive it; any thread.
//
// Domain and keys lead to one tree of values (a hash look-up each), whose levels are walked from the most specific value to the least: the
// value itself, a longer before a shorter prefix, any. What does not fit to the end is left again for the next best, so a rule that fits is
// found. (envoyproxy/ratelimit does not turn back: what fits a value and then nothing below it has no limit there.)
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/patterns.h"
#include "core/rules.h"

namespace tally {

struct DescriptorEntry {
  std::string_view key, value;
};

class Matcher {
 public:
  struct Matched {
    const Rule* rule = nullptr;
    std::string key;
  };

  explicit Matcher(const std::vector<Rule>& rules);

  // Appends the rules that a descriptor is to be taken from, and under which key: the most specific of the live ones, all that have the
  // same match, and likewise of those in shadow.
  void match(std::string_view domain, std::span<const DescriptorEntry> entries, std::vector<Matched>& into) const;

 private:
  static constexpr uint32_t kNone = UINT32_MAX;

  struct Shape {  // a domain, or a domain and some keys
    std::unordered_map<std::string, uint32_t, TextHash, std::equal_to<>> next;
    uint32_t live = kNone, shadow = kNone;  // where the values begin
  };
  struct Value {
    Patterns next;
    uint32_t any = kNone;
    std::vector<const Rule*> rules;
  };

  void add(const Rule& rule);
  uint32_t next_of(uint32_t value, const Match::Entry& entry);
  bool best(uint32_t at, std::span<const DescriptorEntry> entries, size_t depth, std::vector<Matched>& into) const;

  std::vector<Shape> shapes_;
  std::vector<Value> values_;
};

// Whether a descriptor is one that the match describes.
bool fits(const Match& match, std::string_view domain, std::span<const DescriptorEntry> entries);
// Of a descriptor that fits: its values where the match leaves a choice. Of several, joined by '|', with '|' and '\' in them after a '\';
// where there is no choice: "*".
std::string key_of(const Match& match, std::span<const DescriptorEntry> entries);
// For people: "edge: remote_address, path=/api/*".
std::string text_of(const Match& match);

}  // namespace tally
