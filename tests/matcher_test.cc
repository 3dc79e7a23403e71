// Descriptors to rules: the most specific, by turning back where that is needed; against looking at every rule.
#include "core/matcher.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/random.h"
#include "seed.h"

using namespace tally;

namespace {

using Words = std::vector<std::pair<std::string, std::string>>;  // key, value; of a match "" is any value

std::vector<DescriptorEntry> views(const Words& words) {
  std::vector<DescriptorEntry> entries;
  for (const auto& [key, value] : words) entries.push_back({key, value});
  return entries;
}

Rule rule_of(std::string name, std::string domain, const Words& words, bool shadow = false) {
  Rule rule;
  rule.name = std::move(name);
  rule.limit.window = std::chrono::minutes(1);
  rule.shadow = shadow;
  rule.match.domain = std::move(domain);
  for (const auto& [key, value] : words) rule.match.descriptors.push_back({key, value.empty() ? std::nullopt : std::optional(value)});
  return rule;
}

struct Rules {
  explicit Rules(std::vector<Rule> rules) : set(std::move(rules), Rule{}, Share{}, kPublicIdKey) {}
  // "name key, name key", in the order of the names.
  std::string match(std::string_view domain, const Words& words) const {
    std::vector<Matcher::Matched> found;
    set.matcher().match(domain, views(words), found);
    std::vector<std::string> all;
    for (const auto& [rule, key] : found) {
      CHECK(key == key_of(rule->match, views(words)));
      all.push_back(rule->name + " " + key);
    }
    std::ranges::sort(all);
    std::string text;
    for (const std::string& one : all) text += (text.empty() ? "" : ", ") + one;
    return text;
  }
  RuleSet set;
};

}  // namespace

TEST_CASE("a rule matches the same keys in the same order, of its domain, and values leave a choice or not") {
  const Rules rules({rule_of("login", "edge", {{"remote_address", ""}, {"path", "/login"}}), rule_of("ip", "edge", {{"remote_address", ""}}),
                     rule_of("api", "edge", {{"path", "/api/*"}}), rule_of("all", "edge", {{"generic", "all"}})});
  CHECK(rules.match("edge", {{"remote_address", "10.0.0.1"}, {"path", "/login"}}) == "login 10.0.0.1");
  CHECK(rules.match("edge", {{"remote_address", "10.0.0.1"}}) == "ip 10.0.0.1");
  CHECK(rules.match("edge", {{"path", "/api/v1"}}) == "api /api/v1");
  CHECK(rules.match("edge", {{"path", "/api/"}}) == "api /api/");
  CHECK(rules.match("edge", {{"generic", "all"}}) == "all *");
  CHECK(rules.match("edge", {{"path", "/api"}}) == "");
  CHECK(rules.match("edge", {{"path", "/login"}, {"remote_address", "10.0.0.1"}}) == "");
  CHECK(rules.match("edge", {{"remote_address", "10.0.0.1"}, {"path", "/logout"}}) == "");
  CHECK(rules.match("edge", {{"remote_address", "10.0.0.1"}, {"path", "/login"}, {"more", ""}}) == "");
  CHECK(rules.match("other", {{"remote_address", "10.0.0.1"}}) == "");
  CHECK(rules.match("edge", {}) == "");
}

TEST_CASE("the exact value goes before the longer prefix, that before the shorter, and any comes last") {
  const Rules rules({rule_of("any", "d", {{"k", ""}}), rule_of("all", "d", {{"k", "*"}}), rule_of("short", "d", {{"k", "a*"}}),
                     rule_of("long", "d", {{"k", "abc*"}}), rule_of("exact", "d", {{"k", "abcd"}})});
  CHECK(rules.match("d", {{"k", "abcd"}}) == "exact *");
  CHECK(rules.match("d", {{"k", "abcde"}}) == "long abcde");
  CHECK(rules.match("d", {{"k", "abc"}}) == "long abc");
  CHECK(rules.match("d", {{"k", "ab"}}) == "short ab");
  CHECK(rules.match("d", {{"k", "b"}}) == "all b");
  CHECK(rules.match("d", {{"k", ""}}) == "all ");
}

TEST_CASE("where the more specific way does not go on, the less specific one is taken") {
  const Rules rules({rule_of("deep", "d", {{"a", "x"}, {"b", "y"}}), rule_of("prefix", "d", {{"a", "x*"}, {"b", "z"}}), rule_of("any", "d", {{"a", ""}, {"b", ""}})});
  CHECK(rules.match("d", {{"a", "x"}, {"b", "y"}}) == "deep *");
  CHECK(rules.match("d", {{"a", "x"}, {"b", "z"}}) == "prefix x");
  CHECK(rules.match("d", {{"a", "x"}, {"b", "w"}}) == "any x|w");
  CHECK(rules.match("d", {{"a", "q"}, {"b", "y"}}) == "any q|y");
}

TEST_CASE("rules of one match all apply, and one in shadow hides none that is live") {
  const Rules rules({rule_of("minute", "d", {{"a", ""}}), rule_of("hour", "d", {{"a", ""}}), rule_of("tried", "d", {{"a", "x"}}, true),
                     rule_of("tried too", "d", {{"a", ""}}, true)});
  CHECK(rules.match("d", {{"a", "x"}}) == "hour x, minute x, tried *");
  CHECK(rules.match("d", {{"a", "y"}}) == "hour y, minute y, tried too y");
}

TEST_CASE("different values never make one key") {
  const Rules rules({rule_of("r", "d", {{"a", ""}, {"b", "x"}, {"c", "p*"}})});
  CHECK(rules.match("d", {{"a", "1"}, {"b", "x"}, {"c", "p2"}}) == "r 1|p2");
  CHECK(rules.match("d", {{"a", "1|p"}, {"b", "x"}, {"c", "p"}}) == "r 1\\|p|p");
  CHECK(rules.match("d", {{"a", "1"}, {"b", "x"}, {"c", "p|p"}}) == "r 1|p\\|p");
  CHECK(rules.match("d", {{"a", "1\\"}, {"b", "x"}, {"c", "p"}}) == "r 1\\\\|p");
}

TEST_CASE("a match reads like its entries") {
  CHECK(text_of(rule_of("r", "edge", {{"remote_address", ""}, {"path", "/api/*"}}).match) == "edge: remote_address, path=/api/*");
}

namespace {

// How specific a value of a match is: exact over longer over shorter prefix over any.
size_t rank_of(const Match::Entry& entry) {
  if (!entry.value) return 0;
  return Patterns::is_prefix(*entry.value) ? entry.value->size() : SIZE_MAX;
}

// Among all rules that fit, those of the best ranks.
std::string by_looking_at_all(const std::vector<Rule>& rules, std::string_view domain, const Words& words) {
  std::vector<std::string> all;
  for (const bool shadow : {false, true}) {
    std::vector<size_t> best;
    std::vector<std::string> names;
    for (const Rule& rule : rules) {
      const auto& wanted = rule.match.descriptors;
      if (rule.shadow != shadow || rule.match.domain != domain || wanted.size() != words.size()) continue;
      bool fit = true;
      std::vector<size_t> ranks;
      for (size_t i = 0; i < words.size(); ++i) {
        const std::string& value = words[i].second;
        fit = fit && wanted[i].key == words[i].first;
        if (wanted[i].value && wanted[i].value->back() == '*')
          fit = fit && value.compare(0, wanted[i].value->size() - 1, *wanted[i].value, 0, wanted[i].value->size() - 1) == 0;
        else if (wanted[i].value)
          fit = fit && value == *wanted[i].value;
        ranks.push_back(rank_of(wanted[i]));
      }
      CHECK(fits(rule.match, domain, views(words)) == fit);
      if (!fit || (!names.empty() && ranks < best)) continue;
      if (names.empty() || ranks > best) names.clear();
      best = ranks;
      names.push_back(rule.name + " " + key_of(rule.match, views(words)));
    }
    all.insert(all.end(), names.begin(), names.end());
  }
  std::ranges::sort(all);
  std::string text;
  for (const std::string& one : all) text += (text.empty() ? "" : ", ") + one;
  return text;
}

// Whether a rule's first value fits and is more specific than that of the rule that is found.
bool turns_back(const std::vector<Rule>& rules, const RuleSet& set, std::string_view domain, const Words& words) {
  std::vector<Matcher::Matched> found;
  set.matcher().match(domain, views(words), found);
  return !found.empty() && std::ranges::any_of(rules, [&](const Rule& rule) {
    Match first = rule.match, best = found.front().rule->match;
    if (first.descriptors.size() != words.size() || rule.shadow != found.front().rule->shadow) return false;
    first.descriptors.resize(1);
    return fits(first, domain, views({words.front()})) && rank_of(first.descriptors.front()) > rank_of(best.descriptors.front());
  });
}

std::string random_value(Random& random) {
  std::string value;
  for (uint64_t n = random.below(4); n > 0; --n) value += static_cast<char>('a' + random.below(2));
  return value;
}

}  // namespace

TEST_CASE("what is found is what looking at every rule finds") {
  Random random(test_seed(31));
  size_t found = 0, turned_back = 0;
  for (int round = 0; round < 300; ++round) {
    std::vector<Rule> rules;
    for (uint64_t n = random.below(40) + 1; n > 0; --n) {
      Words words;
      for (uint64_t entries = random.below(3) + 1; entries > 0; --entries) {
        std::string value = random_value(random);
        if (random.chance(0.3)) value += '*';
        words.emplace_back(random.chance(0.9) ? "k" : "other", value);
      }
      rules.push_back(rule_of("r" + std::to_string(n), random.chance(0.9) ? "d" : "e", words, random.chance(0.2)));
    }
    const Rules set(rules);
    for (int asked = 0; asked < 100; ++asked) {
      Words words;
      for (uint64_t entries = random.below(3) + 1; entries > 0; --entries) words.emplace_back(random.chance(0.9) ? "k" : "other", random_value(random));
      const std::string domain = random.chance(0.9) ? "d" : "e";
      const std::string expected = by_looking_at_all(rules, domain, words);
      CAPTURE(expected);
      REQUIRE(set.match(domain, words) == expected);
      found += !expected.empty();
      turned_back += turns_back(rules, set.set, domain, words);
    }
  }
  MESSAGE(found << " found, " << turned_back << " by turning back");
  CHECK(found > 5'000);
  CHECK(turned_back > 100);
}

TEST_CASE("ten thousand rules are found one by one") {
  std::vector<Rule> rules;
  for (int i = 0; i < 10'000; ++i) rules.push_back(rule_of("r" + std::to_string(i), "d", {{"tenant", "t" + std::to_string(i)}, {"path", i % 2 == 0 ? "" : "/p" + std::to_string(i) + "/*"}}));
  const Rules set(std::move(rules));
  for (int i = 0; i < 10'000; i += 7) {
    const std::string path = "/p" + std::to_string(i) + "/x";
    REQUIRE(set.match("d", {{"tenant", "t" + std::to_string(i)}, {"path", path}}) == "r" + std::to_string(i) + " " + path);
  }
  CHECK(set.match("d", {{"tenant", "t1"}, {"path", "/p3/x"}}) == "");
}
