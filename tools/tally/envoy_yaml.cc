#include "envoy_yaml.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <set>
#include <utility>

namespace tally::tool {
namespace {

constexpr std::array<std::string_view, 7> kUnits = {"second", "minute", "hour", "day", "week", "month", "year"};
constexpr size_t kDescriptorsMax = 100'000;  // aliases may stand for more than there is memory for

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return text;
}

class Reader {
 public:
  explicit Reader(EnvoyFile& file) : file_(file) {}

  void read_root(const YAML::Node& root) {
    if (!root.IsMap()) return error(root, "a configuration of ratelimit has a \"domain\" and \"descriptors\"");
    each_field(root, [&](const std::string& name, const YAML::Node& key, const YAML::Node& value) {
      if (name == "domain")
        file_.domain = text_of(value, name);
      else if (name == "descriptors")
        file_.descriptors = read_list(value, 1);
      else
        unknown(key, name);
    });
    if (file_.domain.empty()) error(root, "\"domain\" is missing");
  }

 private:
  static Problem at(const YAML::Node& node, std::string message) {
    return {node.Mark().line + 1, node.Mark().column + 1, "", std::move(message)};
  }
  void error(const YAML::Node& node, std::string message) { file_.errors.push_back(at(node, std::move(message))); }
  void note(const YAML::Node& node, std::string message) { file_.notes.push_back(at(node, std::move(message))); }
  void unknown(const YAML::Node& node, const std::string& name) { note(node, "\"" + name + "\" is not known and was left out"); }

  // Calls visit(name, key, value) for each field of a map.
  template <typename Visit>
  void each_field(const YAML::Node& map, Visit visit) {
    std::set<std::string> seen;
    for (const auto& member : map) {
      if (!member.first.IsScalar()) {
        error(member.first, "a field's name must be a word");
        continue;
      }
      const std::string& name = member.first.Scalar();
      if (!seen.insert(name).second) error(member.first, "\"" + name + "\" stands here twice");
      visit(name, member.first, member.second);
    }
  }
  std::string text_of(const YAML::Node& node, const std::string& name) {
    if (node.IsScalar()) return node.Scalar();
    if (!node.IsNull()) error(node, "\"" + name + "\" must be a text");
    return "";
  }
  bool truth_of(const YAML::Node& node, const std::string& name) {
    bool truth = false;
    if (!node.IsScalar() || !YAML::convert<bool>::decode(node, truth)) error(node, "\"" + name + "\" must be true or false");
    return truth;
  }
  uint32_t number_of(const YAML::Node& node, const std::string& name) {
    const std::string text = text_of(node, name);
    uint32_t number = 0;
    const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (failed != std::errc() || end != text.data() + text.size())
      error(node, "\"" + name + "\" must be a whole number, 0 to " + std::to_string(UINT32_MAX));
    return number;
  }

  std::vector<EnvoyDescriptor> read_list(const YAML::Node& list, size_t depth) {
    std::vector<EnvoyDescriptor> descriptors;
    std::set<std::pair<std::string, std::optional<std::string>>> known;
    if (list.IsNull()) return descriptors;
    if (!list.IsSequence()) return error(list, "\"descriptors\" must be a list"), descriptors;
    if (depth > kMatchEntriesMax) {
      note(list, "below " + std::to_string(kMatchEntriesMax) + " entries nothing can be carried over");
      return descriptors;
    }
    for (const YAML::Node& node : list) {
      if (++descriptors_n_ == kDescriptorsMax) error(node, "more than " + std::to_string(kDescriptorsMax) + " descriptors");
      if (descriptors_n_ >= kDescriptorsMax) break;
      EnvoyDescriptor one = read_descriptor(node, depth);
      if (!known.emplace(one.key, one.value).second) error(node, "another descriptor beside it has this key and value");
      descriptors.push_back(std::move(one));
    }
    return descriptors;
  }

  EnvoyDescriptor read_descriptor(const YAML::Node& node, size_t depth) {
    EnvoyDescriptor out;
    out.line = node.Mark().line + 1;
    out.column = node.Mark().column + 1;
    if (!node.IsMap()) return error(node, "a descriptor must have fields, such as \"key: remote_address\""), out;
    each_field(node, [&](const std::string& name, const YAML::Node& key, const YAML::Node& value) {
      if (name == "key") {
        out.key = text_of(value, name);
      } else if (name == "value") {
        if (std::string text = text_of(value, name); !text.empty()) out.value = std::move(text);
      } else if (name == "rate_limit") {
        out.limit = read_limit(value);
      } else if (name == "descriptors") {
        out.descriptors = read_list(value, depth + 1);
      } else if (name == "shadow_mode") {
        out.shadow = truth_of(value, name);
      } else if (name == "share_threshold") {
        if (truth_of(value, name)) note(key, "\"share_threshold\" is not carried over: each value that fits has a limit of its own");
      } else if (name == "quota_mode") {
        if (truth_of(value, name)) note(key, "\"quota_mode\" is not carried over: what is over the limit is denied");
      } else if (name == "detailed_metric" || name == "value_to_metric") {
        if (truth_of(value, name)) note(key, "\"" + name + "\" is not carried over: metrics have a rule's name, and never a key");
      } else {
        unknown(key, name);
      }
    });
    if (out.key.empty()) error(node, "a descriptor must have a \"key\"");
    return out;
  }

  std::optional<EnvoyLimit> read_limit(const YAML::Node& node) {
    if (node.IsNull()) return std::nullopt;
    EnvoyLimit out;
    if (!node.IsMap()) return error(node, "\"rate_limit\" must have \"unit\" and \"requests_per_unit\""), out;
    bool counted = false;
    each_field(node, [&](const std::string& name, const YAML::Node& key, const YAML::Node& value) {
      if (name == "unit") {
        out.unit = lower(text_of(value, name));
        if (std::ranges::find(kUnits, out.unit) == kUnits.end())
          error(value, "\"unit\" must be second, minute, hour, day, week, month or year, got \"" + out.unit + "\"");
      } else if (name == "requests_per_unit") {
        out.requests = number_of(value, name);
        counted = true;
      } else if (name == "unlimited") {
        out.unlimited = truth_of(value, name);
      } else if (name == "name") {
        out.name = text_of(value, name);
      } else if (name == "replaces") {
        note(key, "\"replaces\" is not carried over: the rules that other descriptors of a request match hold as well");
      } else {
        unknown(key, name);
      }
    });
    if (!out.unlimited && (out.unit.empty() || !counted)) error(node, "\"rate_limit\" must have \"unit\" and \"requests_per_unit\"");
    return out;
  }

  EnvoyFile& file_;
  size_t descriptors_n_ = 0;
};

}  // namespace

EnvoyFile read_envoy(const std::string& text) {
  EnvoyFile file;
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(text);
    if (documents.size() == 1)
      Reader(file).read_root(documents.front());
    else
      file.errors.push_back({1, 1, "", documents.empty() ? "the text is empty" : "more than one document: one at a time"});
  } catch (const YAML::Exception& wrong) {
    file.errors.push_back({wrong.mark.line + 1, wrong.mark.column + 1, "", wrong.msg});
  }
  const auto by_place = [](const Problem& a, const Problem& b) { return std::pair(a.line, a.column) < std::pair(b.line, b.column); };
  std::ranges::stable_sort(file.errors, by_place);
  std::ranges::stable_sort(file.notes, by_place);
  return file;
}

}  // namespace tally::tool
