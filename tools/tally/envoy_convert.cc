#include "envoy_convert.h"

#include <algorithm>
#include <set>
#include <unordered_set>

#include "core/patterns.h"
#include "daemon/log.h"

namespace tally::tool {
namespace {

using Path = std::vector<Match::Entry>;

bool is_prefix(const std::optional<std::string>& value) { return value && Patterns::is_prefix(*value); }

// Whether all values that fit `inner` fit `outer`. Of two that are not one in the other no value fits both.
bool holds(const std::optional<std::string>& outer, const std::optional<std::string>& inner) {
  if (!outer) return true;
  if (!inner) return false;
  if (!is_prefix(inner)) return Patterns::fits(*outer, *inner);
  return is_prefix(outer) && inner->starts_with(std::string_view(*outer).substr(0, outer->size() - 1));
}

Match::Entry entry_of(const EnvoyDescriptor& descriptor) { return {descriptor.key, descriptor.value}; }

// ratelimit takes the first prefix in the file that fits, so one behind a shorter one is never reached.
void leave_out_unreached(std::vector<EnvoyDescriptor>& list, std::vector<Problem>& notes) {
  std::vector<EnvoyDescriptor> reached;
  for (EnvoyDescriptor& one : list) {
    const auto before = std::ranges::find_if(reached, [&](const EnvoyDescriptor& other) {
      return is_prefix(one.value) && is_prefix(other.value) && other.key == one.key && holds(other.value, one.value);
    });
    if (before != reached.end()) {
      notes.push_back({one.line, one.column, "",
                       "was left out: ratelimit never comes to it, as all that \"" + *one.value + "\" fits has fitted \"" + *before->value + "\" on line " +
                           std::to_string(before->line) + " before"});
      continue;
    }
    leave_out_unreached(one.descriptors, notes);
    reached.push_back(std::move(one));
  }
  list = std::move(reached);
}

// The ways that exempt: for each limit all those by which ratelimit leaves requests without one that it would hold for.
class Exemptions {
 public:
  // Of the limits in shadow, or of the others.
  Exemptions(const std::vector<EnvoyDescriptor>& tree, bool shadow) : tree_(tree), shadow_(shadow) { each_limit(tree); }
  const std::vector<Path>& paths() const { return paths_; }

 private:
  bool counts(const EnvoyDescriptor& one) const { return one.limit && one.shadow == shadow_; }

  void each_limit(const std::vector<EnvoyDescriptor>& list) {
    for (const EnvoyDescriptor& one : list) {
      limit_.push_back(entry_of(one));
      if (counts(one)) walk(tree_);
      each_limit(one.descriptors);
      limit_.pop_back();
    }
  }

  // Where ratelimit may be with a request that fits limit_: below walked_, with `list` to choose from.
  void walk(const std::vector<EnvoyDescriptor>& list) {
    const Match::Entry& wanted = limit_[walked_.size()];
    const EnvoyDescriptor* around = nullptr;  // where all else goes
    for (const EnvoyDescriptor& one : list) {
      if (one.key != wanted.key) continue;
      if (holds(one.value, wanted.value)) {
        if (around == nullptr || holds(around->value, one.value)) around = &one;
      } else if (holds(wanted.value, one.value)) {
        step(one);
      }
    }
    if (around != nullptr) return step(*around);
    Path path = walked_;
    path.insert(path.end(), limit_.begin() + static_cast<std::ptrdiff_t>(walked_.size()), limit_.end());
    exempt(path);
  }

  void step(const EnvoyDescriptor& one) {
    walked_.push_back(entry_of(one));
    if (walked_.size() < limit_.size())
      walk(one.descriptors);
    else if (!counts(one))
      exempt(walked_);
    walked_.pop_back();
  }

  void exempt(const Path& path) {
    std::string name;
    for (const Match::Entry& entry : path) name += json_quoted(entry.key) + "=" + (entry.value ? json_quoted(*entry.value) : "") + ",";
    if (known_.insert(name).second) paths_.push_back(path);
  }

  const std::vector<EnvoyDescriptor>& tree_;
  const bool shadow_;
  Path limit_, walked_;
  std::vector<Path> paths_;
  std::unordered_set<std::string> known_;
};

class Writer {
 public:
  Writer(const EnvoyFile& file, std::vector<Problem>& notes) : file_(file), notes_(notes) {}

  std::string rules() {
    write(file_.descriptors);
    for (const bool shadow : {false, true}) {
      const Exemptions exemptions(file_.descriptors, shadow);
      for (const Path& path : exemptions.paths()) write_exemption(path, shadow);
    }
    return text_;
  }

 private:
  void write(const std::vector<EnvoyDescriptor>& list) {
    for (const EnvoyDescriptor& one : list) {
      path_.push_back(entry_of(one));
      if (one.limit) write_limit(one);
      write(one.descriptors);
      path_.pop_back();
    }
  }

  void write_limit(const EnvoyDescriptor& one) {
    const EnvoyLimit& limit = *one.limit;
    const std::string name = limit.name.empty() ? name_of(path_) : limit.name;
    if (limit.unlimited) return put(name, 1, "1s", path_, one.shadow, "exempt");
    if (limit.requests == 0) return put(name, 1, window_of(limit.unit), path_, one.shadow, "blocked");
    if (limit.requests > kLimitMax)
      notes_.push_back({one.line, one.column, "", "the limit became " + std::to_string(kLimitMax) + ", the most that there is"});
    if (limit.unit == "month" || limit.unit == "year")
      notes_.push_back({one.line, one.column, "",
                        "a " + limit.unit + " is one of the calendar; ratelimit counts in " + (limit.unit == "month" ? "30" : "365") + " days"});
    put(name, std::min(limit.requests, kLimitMax), window_of(limit.unit), path_, one.shadow, "");
  }

  void write_exemption(const Path& path, bool shadow) {
    put(name_of(path) + ":exempt", 1, "1s", path, shadow, "exempt", "ratelimit finds nothing that fits here, and does not turn back");
  }

  void put(const std::string& name, uint32_t limit, const std::string& window, const Path& path, bool shadow, const std::string& all,
           const std::string& comment = "") {
    text_ += text_.empty() ? "\n    { " : ",\n    { ";
    text_ += "\"name\": " + json_quoted(unique(name)) + ", \"algorithm\": \"fixed_window\", \"limit\": " + std::to_string(limit) +
             ", \"window\": " + json_quoted(window);
    if (shadow) text_ += ", \"shadow\": true";
    text_ += ",\n      \"match\": {\"domain\": " + json_quoted(file_.domain) + ", \"descriptors\": [";
    for (const Match::Entry& entry : path) {
      text_ += std::string(&entry == path.data() ? "" : ", ") + "{\"key\": " + json_quoted(entry.key);
      if (entry.value) text_ += ", \"value\": " + json_quoted(*entry.value);
      text_ += "}";
    }
    text_ += "]}";
    if (!all.empty()) text_ += ",\n      \"overrides\": {\"*\": " + json_quoted(all) + "}";
    if (!comment.empty()) text_ += ",\n      \"comment\": " + json_quoted(comment);
    text_ += " }";
  }

  static std::string window_of(const std::string& unit) {
    if (unit == "week") return "7d";
    return unit == "month" || unit == "year" ? unit : "1" + unit.substr(0, 1);
  }

  // "edge/remote_address/path=/login"
  std::string name_of(const Path& path) const {
    std::string name = file_.domain;
    for (const Match::Entry& entry : path) name += "/" + entry.key + (entry.value ? "=" + *entry.value : "");
    return name;
  }

  // As a rule's name may be, and as no other is.
  std::string unique(std::string name) {
    for (char& c : name)
      if (c <= ' ' || c >= 127) c = '_';
    name.resize(std::min(name.size(), kRuleNameMax));
    std::string tried = name;
    for (int n = 2; !wrong_rule_name(tried).empty() || !names_.insert(tried).second; ++n) {
      const std::string number = "-" + std::to_string(n);
      tried = name.substr(0, kRuleNameMax - number.size()) + number;
    }
    return tried;
  }

  const EnvoyFile& file_;
  std::vector<Problem>& notes_;
  Path path_;
  std::set<std::string> names_;
  std::string text_;
};

}  // namespace

Converted convert_envoy(EnvoyFile file, const std::string& origin) {
  Converted out;
  out.notes = file.notes;
  leave_out_unreached(file.descriptors, out.notes);
  const std::string rules = Writer(file, out.notes).rules();
  std::string named = origin;
  std::ranges::replace_if(named, [](char c) { return static_cast<unsigned char>(c) < ' '; }, '?');
  out.text = "// Made of " + named + " by \"tally convert envoy\".\n{\n  \"rules\": [" + rules + (rules.empty() ? "]\n}\n" : "\n  ]\n}\n");
  std::ranges::stable_sort(out.notes, [](const Problem& a, const Problem& b) { return std::pair(a.line, a.column) < std::pair(b.line, b.column); });
  return out;
}

}  // namespace tally::tool
