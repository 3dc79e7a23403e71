// Reading a tree of JSON by field names: what is missing, unknown, of another type or out of range is
// reported with its place and what would be right. Private to src/config.
//
// Thread rule: one owner. Everything points into the JsonText, which must outlive it.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "base/nearest.h"
#include "config/config.h"
#include "config/json_tree.h"
#include "config/values.h"

namespace tally {

// The part of a path that names what contains it: "rules[0]" of "rules[0].limit".
inline size_t parent_length(const std::string& path) {
  const size_t cut = path.find_last_of(".[");
  return cut == std::string::npos ? 0 : cut;
}

inline std::string describe(const JsonNode& node) {
  switch (node.kind) {
    case JsonNode::Kind::null:
      return "null";
    case JsonNode::Kind::boolean:
      return node.truth ? "true" : "false";
    case JsonNode::Kind::integer:
    case JsonNode::Kind::real:
      return node.text.substr(0, 40);
    case JsonNode::Kind::string:
      return "the string " + quoted(node.text);
    case JsonNode::Kind::array:
      return "an array";
    case JsonNode::Kind::object:
      break;
  }
  return "an object";
}

// Every key and value of the text, and what went wrong with which.
class Findings {
 public:
  Findings(const JsonText& text, Parsed& out, std::string file = "") : text_(text), out_(out), file_(std::move(file)) {}
  // Of another file, whose places are in its problems alone.
  Findings within(const JsonText& text, std::string file) const { return {text, out_, std::move(file)}; }

  void error(size_t offset, const std::string& path, std::string message) {
    failed_.insert(path);
    if (out_.errors.size() >= kProblemsMax) {
      ++not_shown_;
      return;
    }
    const JsonPlace place = text_.lines.place(offset);
    out_.errors.push_back({place.line, place.column, path, std::move(message), file_});
  }
  size_t not_shown() const { return not_shown_; }
  void add_not_shown(size_t n) { not_shown_ += n; }
  // What is known to be unusable because of an error that stands elsewhere.
  void unusable(std::string path) { failed_.insert(std::move(path)); }
  void warning(size_t offset, const std::string& path, std::string message) {
    if (out_.warnings.size() >= kProblemsMax) return;
    const JsonPlace place = text_.lines.place(offset);
    out_.warnings.push_back({place.line, place.column, path, std::move(message), file_});
  }
  void place(const JsonNode& node, const std::string& path) {
    if (!file_.empty()) return;
    const JsonPlace place = text_.lines.place(node.offset);
    out_.places.add(path, place.line, place.column);
  }

  // Whether a later complaint about `path` may follow from something that has been reported.
  bool explains(const std::string& path) const {
    if (path == "cluster.self" || path == "cluster.size")
      return failed_.contains("cluster.peers") || failed_.contains(path);
    if (path == "cluster.peers" && (failed_.contains("cluster.self") || failed_.contains("cluster.bind")))
      return true;
    for (std::string p = path; !p.empty(); p.erase(parent_length(p)))
      if (failed_.contains(p)) return true;
    return false;
  }

 private:
  const JsonText& text_;
  Parsed& out_;
  const std::string file_;
  std::unordered_set<std::string> failed_;
  size_t not_shown_ = 0;
};

// One object: hands out its fields by name; finish() reports those that nobody asked for. null is as good as
// absent.
class Fields {
  using Kind = JsonNode::Kind;

 public:
  Fields(Findings& findings, const JsonNode& node, std::string path)
      : findings_(findings), node_(node), path_(std::move(path)), used_(node.members.size()) {}

  const JsonNode* find(std::string_view name) {
    known_.push_back(name);
    for (size_t i = 0; i < node_.members.size(); ++i) {
      const JsonMember& member = node_.members[i];
      if (member.key != name) continue;
      used_[i] = true;
      findings_.place(member.value, path_of(name));
      return member.value.kind == Kind::null ? nullptr : &member.value;
    }
    return nullptr;
  }

  void finish() {
    for (size_t i = 0; i < node_.members.size(); ++i) {
      if (used_[i]) continue;
      const JsonMember& member = node_.members[i];
      const std::string_view near = nearest_of(member.key, known_);
      std::string message = "unknown field";
      if (!near.empty()) message += "; did you mean \"" + std::string(near) + "\"?";
      findings_.error(member.key_offset, path_of(member.key), std::move(message));
    }
  }

  std::string path_of(std::string_view name) const { return member_path(path_, name); }
  const std::string& path() const { return path_; }
  const JsonNode& node() const { return node_; }
  Findings& findings() { return findings_; }

  void wrong(const JsonNode& value, std::string_view name, std::string message) {
    findings_.error(value.offset, path_of(name), std::move(message));
  }
  // Reports a missing field at the place of its object.
  void missing(std::string_view name, std::string message) {
    findings_.error(node_.offset, path_of(name), std::move(message));
  }

  template <typename T>
  void number(std::string_view name, T& out, Range range) {
    const JsonNode* value = find(name);
    if (value == nullptr) return;
    if (value->kind != Kind::integer || value->negative || !range.contains(value->magnitude))
      return wrong(*value, name, "must be a whole number, " + range.text() + ", got " + describe(*value));
    out = static_cast<T>(value->magnitude);
  }

  void boolean(std::string_view name, bool& out) {
    const JsonNode* value = find(name);
    if (value == nullptr) return;
    if (value->kind != Kind::boolean)
      return wrong(*value, name, "must be true or false, got " + describe(*value));
    out = value->truth;
  }

  // nullptr where it is absent, or no string (reported).
  const JsonNode* text(std::string_view name, std::string_view what) {
    const JsonNode* value = find(name);
    if (value == nullptr || value->kind == Kind::string) return value;
    wrong(*value, name, "must be " + std::string(what) + ", got " + describe(*value));
    return nullptr;
  }

  void duration(std::string_view name, Duration& out, DurationRange range) { duration_by(parse_duration, name, out, range); }
  void window(std::string_view name, Duration& out) { duration_by(parse_window, name, out, kWindowRange); }
  void duration_by(Result<Duration> (*parse)(std::string_view), std::string_view name, Duration& out, DurationRange range) {
    const JsonNode* value = find(name);
    if (value == nullptr) return;
    Result<Duration> parsed = Duration(0);
    if (value->kind == Kind::integer && value->magnitude != 0) {
      return wrong(*value, name,
                   "a duration is a string with a unit, such as \"" + value->text.substr(0, 20) +
                       "ms\", got " + describe(*value));
    } else if (value->kind == Kind::string) {
      parsed = parse(value->text);
    } else if (value->kind != Kind::integer) {
      parsed = Failure{"must be a duration such as \"100ms\" or \"1m\", got " + describe(*value)};
    }
    if (!parsed) return wrong(*value, name, parsed.error());
    if (!range.contains(parsed.value()))
      return wrong(*value, name, "must be " + range.text() + ", got " + format_duration(parsed.value()));
    out = parsed.value();
  }

  void duration(std::string_view name, std::optional<Duration>& out, DurationRange range) {
    Duration value{-1};
    duration(name, value, range);
    if (value.count() >= 0) out = value;
  }

  // One of a few words; nullopt where it is absent, or none of them (reported).
  template <typename T, size_t N>
  std::optional<T> choice(std::string_view name, const std::array<T, N>& values,
                          std::string_view (*word)(T)) {
    const JsonNode* value = find(name);
    if (value == nullptr) return std::nullopt;
    std::string list;
    Nearest nearest(value->text);
    for (size_t i = 0; i < N; ++i) {
      if (value->kind == Kind::string && value->text == word(values[i])) return values[i];
      if (value->kind == Kind::string) nearest.offer(word(values[i]));
      list += (i == 0 ? "" : i + 1 == N ? " or " : ", ") + quoted(word(values[i]));
    }
    std::string message = "must be " + list + ", got " + describe(*value);
    if (!nearest.best().empty()) message += "; did you mean " + quoted(nearest.best()) + "?";
    wrong(*value, name, std::move(message));
    return std::nullopt;
  }

  // What interface.md names and this version does not serve: nothing but its default is accepted.
  void not_yet(std::string_view name, std::string_view only = "") {
    const JsonNode* value = find(name);
    if (value == nullptr) return;
    if (value->kind == Kind::array && value->items.empty()) return;
    if (value->kind == Kind::object && value->members.empty()) return;
    if (value->kind == Kind::string && !only.empty() && value->text == only) return;
    wrong(*value, name,
          "this version does not have it yet; leave it out" +
              (only.empty() ? std::string() : " or set it to " + quoted(only)));
  }

  // The items of an array; nothing where it is absent or something else (reported).
  const JsonNode* array(std::string_view name, std::string_view what) {
    const JsonNode* value = find(name);
    if (value == nullptr || value->kind == Kind::array) return value;
    wrong(*value, name, "must be an array of " + std::string(what) + ", got " + describe(*value));
    return nullptr;
  }

  // A section: an object in this one; an empty object where it is absent or something else (reported).
  Fields section(std::string_view name) {
    static const JsonNode empty;
    const JsonNode* value = find(name);
    if (value != nullptr && value->kind != Kind::object)
      wrong(*value, name, "must be an object, got " + describe(*value));
    const bool usable = value != nullptr && value->kind == Kind::object;
    return Fields(findings_, usable ? *value : empty, path_of(name));
  }

 private:
  Findings& findings_;
  const JsonNode& node_;
  std::string path_;
  std::vector<bool> used_;
  std::vector<std::string_view> known_;
};

}  // namespace tally
