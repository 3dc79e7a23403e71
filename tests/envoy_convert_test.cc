// The configuration of envoyproxy/ratelimit becomes rules that limit the same requests as before.
#include "envoy_convert.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/random.h"
#include "core/matcher.h"
#include "core/overrides.h"
#include "envoy_yaml.h"
#include "seed.h"

using namespace tally;
using namespace tally::tool;

namespace {

std::string lines_of(const std::vector<Problem>& problems) {
  std::string out;
  for (const Problem& problem : problems) out += (out.empty() ? "" : "\n") + format_problem("f", problem);
  return out;
}

Converted converted(const std::string& yaml) {
  EnvoyFile file = read_envoy(yaml);
  REQUIRE(lines_of(file.errors) == "");
  return convert_envoy(std::move(file), "f.yaml");
}

Config config_of(const std::string& text) {
  Parsed parsed = parse_config(text);
  REQUIRE_MESSAGE(parsed.errors.empty(), text << format_problem("", parsed.errors.front()));
  return std::move(parsed.config);
}

std::string errors_of(const std::string& yaml) { return lines_of(read_envoy(yaml).errors); }

// The rule of a name.
const Rule& rule_of(const Config& config, std::string_view name) {
  const auto found = std::ranges::find(config.rules, name, &Rule::name);
  REQUIRE_MESSAGE(found != config.rules.end(), name);
  return *found;
}

const std::string kMobile = R"(
domain: mobile
descriptors:
  - key: message_type
    value: marketing
    descriptors:
      - key: to_number
        rate_limit: {unit: day, requests_per_unit: 5}
  - key: to_number
    rate_limit:
      unit: DAY
      requests_per_unit: 100
      name: numbers
  - key: tier
    value: internal
    rate_limit:
      unlimited: true
  - key: tier
    value: banned
    rate_limit: {unit: hour, requests_per_unit: 0}
  - key: tier
    value: "beta*"
    shadow_mode: true
    rate_limit: {unit: week, requests_per_unit: 4000000000}
)";

}  // namespace

TEST_CASE("limits become rules of fixed windows, named after where they stand") {
  const Converted out = converted(kMobile);
  CHECK(lines_of(out.notes) == "f:21:5: the limit became 2147483648, the most that there is");
  const Config config = config_of(out.text);
  CHECK(config.rules.size() == 5);
  const Rule& marketing = rule_of(config, "mobile/message_type=marketing/to_number");
  CHECK(marketing.limit.algorithm == Algorithm::fixed_window);
  CHECK(marketing.limit.limit == 5);
  CHECK(marketing.limit.window == std::chrono::hours(24));
  CHECK(text_of(marketing.match) == "mobile: message_type=marketing, to_number");
  CHECK(rule_of(config, "numbers").limit.limit == 100);
  CHECK(rule_of(config, "mobile/tier=internal").for_key("*").treatment == Treatment::exempt);
  CHECK(rule_of(config, "mobile/tier=banned").for_key("*").treatment == Treatment::blocked);
  CHECK(rule_of(config, "mobile/tier=banned").limit.window == std::chrono::hours(1));
  const Rule& beta = rule_of(config, "mobile/tier=beta*");
  CHECK(beta.shadow);
  CHECK(beta.limit.limit == kLimitMax);
  CHECK(beta.limit.window == std::chrono::hours(24 * 7));
  CHECK(out.text.starts_with("// Made of f.yaml by \"tally convert envoy\".\n{\n  \"rules\": [\n    { \"name\": \"mobile/message_type=marketing/to_number\", "));
}

TEST_CASE("where ratelimit does not turn back, a rule exempts what a less specific one would limit") {
  const Config config = config_of(converted(R"(
domain: d
descriptors:
  - key: ip
    descriptors:
      - key: path
        rate_limit: {unit: minute, requests_per_unit: 10}
  - key: ip
    value: 10.0.0.1
    descriptors:
      - key: path
        value: /login
        rate_limit: {unit: minute, requests_per_unit: 2}
)").text);
  CHECK(config.rules.size() == 3);
  const Rule& exempt = rule_of(config, "d/ip=10.0.0.1/path:exempt");
  CHECK(text_of(exempt.match) == "d: ip=10.0.0.1, path");
  CHECK(exempt.for_key("/other").treatment == Treatment::exempt);
}

TEST_CASE("one rule exempts all that has the same keys beyond where ratelimit finds nothing") {
  std::string yaml = "domain: d\ndescriptors:\n- key: a\n  descriptors:\n";
  for (int i = 0; i < 300; ++i) yaml += "  - {key: b, value: v" + std::to_string(i) + ", rate_limit: {unit: hour, requests_per_unit: 1}}\n";
  yaml += "  - {key: c, descriptors: [{key: b, rate_limit: {unit: hour, requests_per_unit: 1}}]}\n";
  for (int i = 0; i < 300; ++i) yaml += "- {key: a, value: x" + std::to_string(i) + "}\n";
  const Config config = config_of(converted(yaml).text);
  CHECK(config.rules.size() == 301 + 2 * 300);
  CHECK(text_of(rule_of(config, "d/a=x7/b:exempt").match) == "d: a=x7, b");
  CHECK(text_of(rule_of(config, "d/a=x7/c/b:exempt").match) == "d: a=x7, c, b");
}

TEST_CASE("what becomes more than tallyd reads is refused with its place and what to do") {
  EnvoyFile many{"d", {}, {}, {}};
  for (int i = 1; i <= 65'535; ++i) {
    EnvoyDescriptor& one = many.descriptors.emplace_back();
    one.line = i, one.column = 3, one.key = "a", one.value = std::to_string(i);
    one.limit = EnvoyLimit{"hour", 1, false, ""};
  }
  CHECK(lines_of(convert_envoy(many, "f").errors) ==
        "f:65535:3: becomes more than a configuration may have, 65534 rules: leave limits out, or write those of single values of one key as "
        "overrides of one rule");
  many.descriptors.pop_back();
  const Converted most = convert_envoy(many, "f");
  CHECK(lines_of(most.errors) == "");
  CHECK(config_of(most.text).rules.size() == 65'534);

  EnvoyFile long_values{"d", {}, {}, {}};
  for (int i = 1; i <= 20; ++i) {
    EnvoyDescriptor& one = long_values.descriptors.emplace_back();
    one.line = i, one.column = 3, one.key = "a";
    if (i > 1)
      one.value = std::string(1'000'000, 'x') + std::to_string(100 + i);
    else
      one.limit = EnvoyLimit{"hour", 1, false, ""};
  }
  CHECK(lines_of(convert_envoy(long_values, "f").errors) ==
        "f:18:3: becomes more than a configuration may have, 16777216 bytes: ratelimit finds no limit here though the one on line 1 fits, which takes "
        "a rule that exempts: leave this descriptor out where that limit may hold, or give it one of its own");
}

TEST_CASE("names are those that rules may have, each once") {
  const std::string long_key(100, 'k');
  const Config config = config_of(converted("domain: d\ndescriptors:\n"
                                            "- {key: a, value: 'x y', rate_limit: {unit: second, requests_per_unit: 1}}\n"
                                            "- {key: a, value: x_y, rate_limit: {unit: second, requests_per_unit: 2}}\n"
                                            "- {key: b, rate_limit: {unit: second, requests_per_unit: 3, name: d/a=x_y}}\n"
                                            "- {key: c, rate_limit: {unit: second, requests_per_unit: 4, name: (inline)}}\n"
                                            "- {key: " + long_key + ", rate_limit: {unit: second, requests_per_unit: 5}}\n"
                                            "- {key: " + long_key + "e, rate_limit: {unit: second, requests_per_unit: 6}}\n")
                                      .text);
  CHECK(rule_of(config, "d/a=x_y").limit.limit == 1);
  CHECK(rule_of(config, "d/a=x_y-2").limit.limit == 2);
  CHECK(rule_of(config, "d/a=x_y-3").limit.limit == 3);
  CHECK(rule_of(config, "(inline)-2").limit.limit == 4);
  CHECK(rule_of(config, "d/" + std::string(62, 'k')).limit.limit == 5);
  CHECK(rule_of(config, "d/" + std::string(60, 'k') + "-2").limit.limit == 6);
}

TEST_CASE("months and years are those of the calendar, and it is said what was counted before") {
  const Converted out = converted("domain: d\ndescriptors:\n- {key: a, rate_limit: {unit: MONTH, requests_per_unit: 1}}\n- {key: b, rate_limit: {unit: year, requests_per_unit: 1}}\n");
  const Config config = config_of(out.text);
  CHECK(format_window(rule_of(config, "d/a").limit.window) == "month");
  CHECK(format_window(rule_of(config, "d/b").limit.window) == "year");
  CHECK(lines_of(out.notes) ==
        "f:3:3: a month is one of the calendar; ratelimit counts in 30 days\n"
        "f:4:3: a year is one of the calendar; ratelimit counts in 365 days");
}

TEST_CASE("what has no like here is said with its place, and the rest is carried over") {
  const Converted out = converted(R"(domain: d
color: blue
descriptors:
  - key: a
    value: "x*"
    detailed_metric: true
    share_threshold: true
    rate_limit:
      unit: second
      requests_per_unit: 7
      replaces:
        - name: other
  - key: a
    value: "xy*"
    value_to_metric: false
    rate_limit: {unit: second, requests_per_unit: 8, more: 1}
)");
  CHECK(lines_of(out.notes) ==
        "f:2:1: \"color\" is not known and was left out\n"
        "f:6:5: \"detailed_metric\" is not carried over: metrics have a rule's name, and never a key\n"
        "f:7:5: \"share_threshold\" is not carried over: each value that fits has a limit of its own\n"
        "f:11:7: \"replaces\" is not carried over: the rules that other descriptors of a request match hold as well\n"
        "f:13:5: was left out: ratelimit never comes to it, as all that \"xy*\" fits has fitted \"x*\" on line 4 before\n"
        "f:16:54: \"more\" is not known and was left out");
  CHECK(config_of(out.text).rules.size() == 1);
}

TEST_CASE("a wrong file is refused with all that is wrong and where") {
  CHECK(errors_of("") == "f:1:1: the text is empty");
  CHECK(errors_of("- a") == "f:1:1: a configuration of ratelimit has a \"domain\" and \"descriptors\"");
  CHECK(errors_of("descriptors: []").find("\"domain\" is missing") != std::string::npos);
  CHECK(errors_of("domain: d\n---\ndomain: e\n").find("more than one document") != std::string::npos);
  CHECK(errors_of("domain: d\ndescriptors:\n  - key: [a\n").starts_with("f:"));
  CHECK(errors_of("domain: d\n\tx: 1").starts_with("f:2:1: "));
  CHECK(errors_of("domain: d\ndescriptors:\n- key: b\n- {key: b, value: c}\n- key: b\n") == "f:5:3: another descriptor beside it has this key and value");
  CHECK(errors_of(R"(domain: d
descriptors:
  - key: a
    rate_limit: {unit: fortnight, requests_per_unit: -1}
  - value: x
  - key: b
    rate_limit: {unit: second}
  - key: b
    key: e
  - text
  - key: c
    shadow_mode: perhaps
    rate_limit: 5
)") == "f:4:24: \"unit\" must be second, minute, hour, day, week, month or year, got \"fortnight\"\n"
       "f:4:54: \"requests_per_unit\" must be a whole number, 0 to 4294967295\n"
       "f:5:5: a descriptor must have a \"key\"\n"
       "f:7:17: \"rate_limit\" must have \"unit\" and \"requests_per_unit\"\n"
       "f:9:5: \"key\" stands here twice\n"
       "f:10:5: a descriptor must have fields, such as \"key: remote_address\"\n"
       "f:12:18: \"shadow_mode\" must be true or false\n"
       "f:13:17: \"rate_limit\" must have \"unit\" and \"requests_per_unit\"");
}

TEST_CASE("aliases that stand for more than there is memory for are refused") {
  std::string yaml = "domain: d\nx0: &x0 [{key: k}, {key: l}]\n";
  for (int i = 1; i < 16; ++i)
    yaml += "x" + std::to_string(i) + ": &x" + std::to_string(i) + " [{key: k, descriptors: *x" + std::to_string(i - 1) + "}, {key: l, descriptors: *x" + std::to_string(i - 1) + "}, {key: m, descriptors: *x" +
            std::to_string(i - 1) + "}]\n";
  CHECK(errors_of(yaml + "descriptors: *x15\n").find("more than 100000 descriptors") != std::string::npos);
}

TEST_CASE("any bytes are read or refused") {
  Random random(test_seed(43));
  int refused = 0;
  for (int i = 0; i < 2'000; ++i) {
    std::string text = kMobile;
    for (uint64_t n = random.below(6) + 1; n > 0; --n) {
      const size_t at = random.below(text.size());
      if (random.chance(0.5))
        text[at] = static_cast<char>(random.below(256));
      else
        text.erase(at, random.below(5));
    }
    EnvoyFile file = read_envoy(text);
    refused += !file.errors.empty();
    if (file.errors.empty()) convert_envoy(std::move(file), "f");
  }
  CHECK(refused > 100);
  CHECK(refused < 2'000);
}

namespace {

// ratelimit's walk: at each entry the exact value, or the first prefix of the file that fits, or any value; never back.
const EnvoyDescriptor* walked(const std::vector<EnvoyDescriptor>& tree, const std::vector<DescriptorEntry>& entries) {
  const std::vector<EnvoyDescriptor>* list = &tree;
  const EnvoyDescriptor* at = nullptr;
  for (const DescriptorEntry& entry : entries) {
    at = nullptr;
    const auto first = [&](auto fits) {
      for (const EnvoyDescriptor& one : *list)
        if (at == nullptr && one.key == entry.key && fits(one.value)) at = &one;
    };
    first([&](const auto& value) { return value && value->back() != '*' && *value == entry.value; });
    first([&](const auto& value) { return value && value->back() == '*' && entry.value.substr(0, value->size() - 1) == value->substr(0, value->size() - 1); });
    first([&](const auto& value) { return !value; });
    if (at == nullptr) return nullptr;
    list = &at->descriptors;
  }
  return at->limit ? at : nullptr;
}

std::string random_value(Random& random) {
  std::string value = "v";
  for (uint64_t n = random.below(3); n > 0; --n) value += static_cast<char>('a' + random.below(2));
  return value;
}

// Limits are numbered, so that it shows which was found.
void random_tree(Random& random, std::string& yaml, int depth, int& limits) {
  const std::string indent(static_cast<size_t>(depth) * 4, ' ');
  std::vector<std::string> taken;
  for (uint64_t n = random.below(depth == 0 ? 6 : 4) + 1; n > 0; --n) {
    const std::string key = random.chance(0.85) ? "k" : "l";
    std::string value = random.chance(0.3) ? "" : random_value(random);
    if (!value.empty() && random.chance(0.4)) value += '*';
    if (std::ranges::find(taken, key + value) != taken.end()) continue;
    taken.push_back(key + value);
    yaml += indent + "- key: " + key + "\n";
    if (!value.empty()) yaml += indent + "  value: '" + value + "'\n";
    if (random.chance(0.15)) yaml += indent + "  shadow_mode: true\n";
    if (random.chance(0.6)) {
      if (random.chance(0.1))
        yaml += indent + "  rate_limit: {unlimited: true}\n";
      else
        yaml += indent + "  rate_limit: {unit: hour, requests_per_unit: " + std::to_string(++limits) + "}\n";
    }
    if (depth < 3 && random.chance(0.6)) {
      yaml += indent + "  descriptors:\n";
      random_tree(random, yaml, depth + 1, limits);
    }
  }
}

// Of the rules found: those that limit, by their limits.
std::vector<uint32_t> limits_in(const std::vector<Matcher::Matched>& matched, bool shadow) {
  std::vector<uint32_t> limits;
  for (const auto& [rule, key] : matched)
    if (rule->shadow == shadow && rule->for_key(key).treatment == Treatment::limited) limits.push_back(rule->limit.limit);
  return limits;
}

}  // namespace

TEST_CASE("a request has the limit by the rules that it had by ratelimit's walk, or none where it had none") {
  Random random(test_seed(47));
  int limited = 0, exempt = 0, in_shadow = 0;
  for (int round = 0; round < 1'000; ++round) {
    std::string yaml = "domain: d\ndescriptors:\n";
    int limits = 0;
    random_tree(random, yaml, 0, limits);
    CAPTURE(yaml);
    const EnvoyFile file = read_envoy(yaml);
    REQUIRE(lines_of(file.errors) == "");
    const std::string text = convert_envoy(file, "f").text;
    CAPTURE(text);
    const Config config = config_of(text);
    const RuleSet rules(config.rules, Rule{}, Share{}, kPublicIdKey);
    for (int i = 0; i < 100; ++i) {
      std::vector<std::string> values;
      for (uint64_t n = random.below(4) + 1; n > 0; --n) values.push_back(random_value(random));
      std::vector<DescriptorEntry> entries;
      for (const std::string& value : values) entries.push_back({random.chance(0.85) ? "k" : "l", value});
      const EnvoyDescriptor* found = walked(file.descriptors, entries);
      const bool counted = found != nullptr && !found->limit->unlimited;
      std::vector<Matcher::Matched> matched;
      rules.matcher().match("d", entries, matched);
      for (const bool shadow : {false, true}) {
        const bool here = counted && found->shadow == shadow;
        REQUIRE(limits_in(matched, shadow) == (here ? std::vector<uint32_t>{found->limit->requests} : std::vector<uint32_t>{}));
      }
      limited += counted && !found->shadow;
      in_shadow += counted && found->shadow;
      exempt += found == nullptr && !matched.empty();
    }
  }
  MESSAGE(limited << " limited, " << in_shadow << " in shadow, " << exempt << " exempt where ratelimit found nothing");
  CHECK(limited > 10'000);
  CHECK(in_shadow > 1'000);
  CHECK(exempt > 1'000);
}
