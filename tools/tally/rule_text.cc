#include "rule_text.h"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <sstream>
#include <string_view>

namespace tally::tool {
namespace {

constexpr const char* kName = "planned";  // where the words do not name it

std::string json_string(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    char escape[8];
    if (static_cast<unsigned char>(c) < 0x20) {
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
      out += escape;
    } else {
      out += c == '"' || c == '\\' ? std::string("\\") + c : std::string(1, c);
    }
  }
  return out + "\"";
}

bool is_digits(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](unsigned char c) { return std::isdigit(c) != 0; });
}

// As the configuration would have it: numbers and truth values bare, all else a string.
std::string json_value(const std::string& text) {
  const size_t point = text.find('.');
  const bool fraction =
      point != std::string::npos && is_digits(text.substr(0, point)) && is_digits(text.substr(point + 1));
  const bool bare =
      (is_digits(text) && (text == "0" || text[0] != '0')) || fraction || text == "true" || text == "false";
  return bare ? text : json_string(text);
}

// All that is wrong, each named by its field alone.
std::string all_of(const std::vector<Problem>& problems, std::string_view path) {
  std::string text;
  for (const Problem& problem : problems) {
    std::string_view field = problem.path;
    if (field.starts_with(path)) field.remove_prefix(path.size());
    if (field.starts_with('.')) field.remove_prefix(1);
    text += (text.empty() ? "" : "; ") + (field.empty() ? "" : std::string(field) + ": ") + problem.message;
  }
  return text;
}

}  // namespace

Result<Rule> parse_rule_text(const std::string& text) {
  std::istringstream words(text);
  std::string fields;
  bool named = false;
  for (std::string word; words >> word;) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos || equals == 0)
      return Failure{"rule: expected words such as limit=100 window=1m, got '" + word + "'"};
    const std::string name = word.substr(0, equals), value = word.substr(equals + 1);
    named |= name == "name";
    fields += (fields.empty() ? "" : ", ") + json_string(name) + ": " +
              (name == "name" ? json_string(value) : json_value(value));
  }
  if (fields.empty()) return Failure{"rule: expected words such as limit=100 window=1m, got nothing"};
  if (!named) fields = std::string("\"name\": \"") + kName + "\", " + fields;
  const Parsed parsed = parse_config("{\"rules\": [{" + fields + "}]}");
  if (!parsed.errors.empty()) return Failure{"rule: " + all_of(parsed.errors, "rules[0]")};
  return parsed.config.rules[0];
}

Result<Config::Cluster> parse_sync_interval(const std::string& text) {
  const Parsed parsed = parse_config("{\"cluster\": {\"sync_interval\": " + json_string(text) + "}}");
  if (!parsed.errors.empty()) return Failure{"--sync: " + all_of(parsed.errors, "cluster.sync_interval")};
  return parsed.config.cluster;
}

}  // namespace tally::tool
