// Whatever the bytes: no crash, and a configuration or an error with a place. What is printed reads back the
// same.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "config/config.h"
#include "config_samples.h"
#include "seed.h"

using namespace tally;

namespace {

constexpr std::array<std::string_view, 32> kPieces = {"{",
                                                      "}",
                                                      "[",
                                                      "]",
                                                      ",",
                                                      ":",
                                                      "\"",
                                                      "\\",
                                                      "//",
                                                      "/*",
                                                      "*/",
                                                      "\n",
                                                      "\r\n",
                                                      "null",
                                                      "true",
                                                      "-1",
                                                      "0",
                                                      "1e9",
                                                      "18446744073709551616",
                                                      "\"1m\"",
                                                      "\"5%\"",
                                                      "\"unbounded\"",
                                                      "\"token_bucket\"",
                                                      "\"rate\": \"1/s\",",
                                                      "\"burst\": 1,",
                                                      "\"limit\"",
                                                      "\"x\": [[[[",
                                                      "\xEF\xBB\xBF",
                                                      "\xff",
                                                      "\\u0000",
                                                      "\"127.0.0.1:1\"",
                                                      "\"name\": \"a\","};

void mutate(Random& random, std::string& text) {
  const size_t at = random.below(text.size() + 1);
  switch (random.below(6)) {
    case 0:
      if (at < text.size()) text[at] = static_cast<char>(random.below(256));
      break;
    case 1:
      text.erase(at, random.below(20));
      break;
    case 2:
      text.insert(at, kPieces[random.below(kPieces.size())]);
      break;
    case 3:
      text.insert(random.below(text.size() + 1), text.substr(at, random.below(60)));
      break;
    case 4:
      if (at < text.size()) text.replace(at, 1, kPieces[random.below(kPieces.size())]);
      break;
    default:
      if (random.chance(0.1)) text.resize(at);
  }
}

void check_places(const std::string& text, const std::vector<Problem>& problems) {
  const auto lines = static_cast<int>(std::count(text.begin(), text.end(), '\n')) + 1;
  for (size_t i = 0; i < problems.size(); ++i) {
    const Problem& problem = problems[i];
    REQUIRE(problem.line >= 1);
    REQUIRE(problem.line <= lines);
    REQUIRE(problem.column >= 1);
    REQUIRE_FALSE(problem.message.empty());
    if (i > 0)
      REQUIRE(std::pair(problems[i - 1].line, problems[i - 1].column) <=
              std::pair(problem.line, problem.column));
  }
}

// The same configuration with white space and comments strewn between its tokens, and at the start of one
// object a field that nobody knows; `at` is where that field begins.
std::string strewn(Random& random, const std::string& printed, size_t& at) {
  constexpr std::array<std::string_view, 8> kFill = {
      " ", "\t", "\n", "\r\n", "// x \" {\n", "/* , \" }\n : */", "/***/", "// \xC3\xA9 /*\n"};
  std::vector<size_t> objects;
  bool in_string = false;
  for (size_t i = 0; i < printed.size(); ++i) {
    if (printed[i] == '"' && printed[i - 1] != '\\') in_string = !in_string;
    if (!in_string && printed[i] == '{') objects.push_back(i);
  }
  const size_t chosen = objects[random.below(objects.size())];
  std::string out;
  for (size_t i = 0; i < printed.size(); ++i) {
    out += printed[i];
    if (printed[i] == '"' && printed[i - 1] != '\\') in_string = !in_string;
    if (in_string || std::string_view("{}[],:\"").find(printed[i]) == std::string_view::npos) continue;
    for (uint64_t n = random.below(3); n > 0; --n) out += kFill[random.below(kFill.size())];
    if (i != chosen) continue;
    at = out.size();
    out += "\"zzzqqq\": 1, ";
  }
  return out;
}

}  // namespace

TEST_CASE("a place is exact, whatever white space and comments stand around it") {
  Random random(test_seed(4));
  for (int i = 0; i < samples::rounds(5'000); ++i) {
    Config config = samples::random_config(random);
    for (Rule& rule : config.rules) {  // no backslashes: strewn() tells strings by their quotes
      rule.name.erase(std::remove(rule.name.begin(), rule.name.end(), '\\'), rule.name.end());
      rule.comment.clear();
      rule.also_names.clear();
      rule.match = {};
      rule.overrides = nullptr;  // where every field is known
    }
    size_t at = 0;
    const std::string text = strewn(random, print_config(config), at);
    const std::string before = text.substr(0, at);
    const auto line = static_cast<int>(std::count(before.begin(), before.end(), '\n')) + 1;
    const auto column = static_cast<int>(at - (before.rfind('\n') + 1)) + 1;
    CAPTURE(text);
    const Parsed parsed = parse_config(text);
    REQUIRE(parsed.errors.size() == 1);
    REQUIRE(parsed.errors[0].message == "unknown field");
    REQUIRE(parsed.errors[0].line == line);
    REQUIRE(parsed.errors[0].column == column);
  }
}

TEST_CASE("a random configuration is printed, read back equal and printed the same") {
  const uint64_t seed = test_seed(1);
  Random random(seed);
  for (int i = 0; i < samples::rounds(5'000); ++i) {
    const Config config = samples::random_config(random);
    const std::string printed = print_config(config);
    CAPTURE(printed);
    const auto problems = validate(config);
    REQUIRE_MESSAGE(problems.empty(), format_problem("", problems.front()));
    const Parsed again = parse_config(printed);
    REQUIRE_MESSAGE(again.errors.empty(), format_problem("", again.errors.front()));
    REQUIRE(samples::same(again.config, config));
    REQUIRE(print_config(again.config) == printed);
    check_places(printed, again.warnings);
    REQUIRE_FALSE(describe_promises(config).empty());
  }
}

TEST_CASE("a mutated configuration is read, or refused with at least one place") {
  const uint64_t seed = test_seed(2);
  Random random(seed);
  int read = 0, refused = 0;
  std::string valid;
  for (int i = 0; i < samples::rounds(100'000); ++i) {
    if (i % 50 == 0) valid = print_config(samples::random_config(random));
    std::string text = valid;
    for (uint64_t n = random.below(4) + 1; n > 0; --n) mutate(random, text);
    CAPTURE(i);
    CAPTURE(text);
    const Parsed parsed = parse_config(text);
    check_places(text, parsed.errors);
    check_places(text, parsed.warnings);
    if (!parsed.errors.empty()) {
      ++refused;
      continue;
    }
    ++read;
    const Parsed again = parse_config(print_config(parsed.config));
    REQUIRE(again.errors.empty());
    REQUIRE(samples::same(again.config, parsed.config));
    REQUIRE_FALSE(describe_promises(parsed.config).empty());
  }
  MESSAGE(read << " read, " << refused << " refused");
  CHECK(read > samples::rounds(3'000));  // the mutations are neither all harmless nor all deadly
  CHECK(refused > samples::rounds(30'000));
}

TEST_CASE("random bytes are refused with a place") {
  const uint64_t seed = test_seed(3);
  Random random(seed);
  for (int i = 0; i < samples::rounds(20'000); ++i) {
    std::string text;
    const bool pieces = random.chance(0.5);
    for (uint64_t n = random.below(40) + 1; n > 0; --n) {
      if (pieces)
        text += kPieces[random.below(kPieces.size())];
      else
        text += static_cast<char>(random.below(256));
    }
    CAPTURE(text);
    const Parsed parsed = parse_config(text);
    check_places(text, parsed.errors);
    if (parsed.errors.empty()) REQUIRE(parse_config(print_config(parsed.config)).errors.empty());
    for (const std::string_view slice : {std::string_view(text), std::string_view(text).substr(0, 12)}) {
      (void)parse_duration(slice);
      (void)parse_address(slice);
    }
  }
}
