#include "envoy_convert.h"

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>
#include <utility>

#include "config/json_tree.h"
#include "config/values.h"
#include "core/patterns.h"
#include "daemon/log.h"

namespace tally::tool {
namespace {

using Path = std::vector<Match::Entry>;
constexpr std::string_view kEnd = "\n  ]\n}\n";

bool is_prefix(const std::optional<std::string>& value) { return value && Patterns::is_prefix(*value); }

Match::Entry entry_of(const EnvoyDescriptor& descriptor) { return {descriptor.key, descriptor.value}; }

// ratelimit takes the first prefix in the file that fits, so one behind a shorter one is never reached.
void leave_out_unreached(std::vector<EnvoyDescriptor>& list, std::vector<Problem>& notes) {
  std::vector<EnvoyDescriptor> reached;
  for (EnvoyDescriptor& one : list) {
    const auto fits_before = [&](const EnvoyDescriptor& other) {
      return other.key == one.key && is_prefix(other.value) && one.value->starts_with(std::string_view(*other.value).substr(0, other.value->size() - 1));
    };
    const auto before = is_prefix(one.value) ? std::ranges::find_if(reached, fits_before) : reached.end();
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

using List = std::vector<EnvoyDescriptor>;

// The descriptors of a list by key and value. The list must stay.
class Index {
 public:
  explicit Index(const List& list) {
    for (const EnvoyDescriptor& one : list) by_entry_.emplace(std::pair(one.key, one.value), &one);
  }

  // Where ratelimit goes with all requests that fit `entry`, but for those in within(); nullptr: nowhere.
  const EnvoyDescriptor* around(const Match::Entry& entry) const {
    if (const EnvoyDescriptor* const same = find(entry.key, entry.value)) return same;
    if (entry.value)
      for (size_t length = entry.value->size() + (is_prefix(entry.value) ? 0 : 1); length-- > 0;)
        if (const EnvoyDescriptor* const found = find(entry.key, entry.value->substr(0, length) + "*")) return found;
    return find(entry.key, std::nullopt);
  }

  // Calls visit(descriptor) for those that only some of what fits `entry` fits.
  template <typename Visit>
  void within(const Match::Entry& entry, Visit visit) const {
    if (entry.value && !is_prefix(entry.value)) return;
    const std::string begin = entry.value ? entry.value->substr(0, entry.value->size() - 1) : "";
    for (auto at = by_entry_.lower_bound(std::pair(entry.key, std::optional(begin))); at != by_entry_.end(); ++at) {
      const auto& [key, value] = at->first;
      if (key != entry.key || !value->starts_with(begin)) return;
      if (value != entry.value) visit(*at->second);
    }
  }

 private:
  const EnvoyDescriptor* find(const std::string& key, const std::optional<std::string>& value) const {
    const auto found = by_entry_.find(std::pair(key, value));
    return found == by_entry_.end() ? nullptr : found->second;
  }

  std::map<std::pair<std::string, std::optional<std::string>>, const EnvoyDescriptor*> by_entry_;
};

struct Exemption {
  Path path;
  const EnvoyDescriptor* at;     // where ratelimit finds nothing
  const EnvoyDescriptor* limit;  // one that would hold without the exemption
};

// What exempts: where ratelimit leaves requests without a limit, one path for all of them that have the same keys there, if one would hold.
class Exemptions {
 public:
  // Of the limits in shadow, or of the others. Ends with the first beyond `most`.
  Exemptions(const List& tree, bool shadow, size_t most) : shadow_(shadow), most_(most) { beside(tree, tree); }
  const std::vector<Exemption>& all() const { return all_; }

 private:
  using Keys = std::vector<std::string>;
  using Limits = std::map<Keys, const EnvoyDescriptor*>;  // one for each sequence of keys that leads to some

  bool counts(const EnvoyDescriptor& one) const { return one.limit && one.shadow == shadow_; }

  void add_limits(const EnvoyDescriptor& one, Limits& limits) {
    if (counts(one)) limits.emplace(Keys{one.key}, &one);
    for (const auto& [keys, limit] : limits_of(one.descriptors)) {
      Keys longer{one.key};
      longer.insert(longer.end(), keys.begin(), keys.end());
      limits.emplace(std::move(longer), limit);
    }
  }
  const Limits& limits_of(const List& list) {
    const auto [found, is_new] = limits_.try_emplace(&list);
    if (!is_new) return found->second;
    Limits limits;
    for (const EnvoyDescriptor& one : list) add_limits(one, limits);
    return limits_[&list] = std::move(limits);
  }

  // Where ratelimit may be with requests that fit a limit below `limits`: below walked_, with `list` to choose from.
  void beside(const List& limits, const List& list) {
    if (list.empty()) return exempt(limits_of(limits));
    const Index index(list);
    for (const EnvoyDescriptor& one : limits) {
      if (!counts(one) && limits_of(one.descriptors).empty()) continue;
      const Match::Entry entry = entry_of(one);
      const EnvoyDescriptor* const around = index.around(entry);
      if (around == nullptr) {  // also for what is within, and finds nothing there
        Limits below;
        add_limits(one, below);
        exempt(below);
        continue;
      }
      index.within(entry, [&](const EnvoyDescriptor& other) { step(one, other); });
      step(one, *around);
    }
  }

  void step(const EnvoyDescriptor& limit, const EnvoyDescriptor& to) {
    if (all_.size() > most_) return;
    walked_.push_back(&to);
    if (counts(limit) && !counts(to)) exempt({{Keys{}, &limit}});
    beside(limit.descriptors, to.descriptors);
    walked_.pop_back();
  }

  void exempt(const Limits& limits) {
    for (const auto& [keys, limit] : limits) {
      if (all_.size() > most_ || !known_.emplace(walked_.back(), keys).second) continue;
      Exemption& added = all_.emplace_back(Path{}, walked_.back(), limit);
      for (const EnvoyDescriptor* one : walked_) added.path.push_back(entry_of(*one));
      for (const std::string& key : keys) added.path.push_back({key, std::nullopt});
    }
  }

  const bool shadow_;
  const size_t most_;
  std::vector<const EnvoyDescriptor*> walked_;
  std::vector<Exemption> all_;
  std::set<std::pair<const EnvoyDescriptor*, Keys>> known_;
  std::unordered_map<const List*, Limits> limits_;
};

class Writer {
 public:
  Writer(const EnvoyFile& file, Converted& out) : file_(file), out_(out) {}

  void rules() {
    write(file_.descriptors);
    for (const bool shadow : {false, true}) {
      const Exemptions exemptions(file_.descriptors, shadow, kRulesMax);
      for (const Exemption& one : exemptions.all()) write_exemption(one, shadow);
    }
  }

 private:
  void write(const std::vector<EnvoyDescriptor>& list) {
    for (const EnvoyDescriptor& one : list) {
      path_.push_back(entry_of(one));
      if (one.limit) {
        write_limit(one);
        check_size(one, "leave limits out, or write those of single values of one key as overrides of one rule");
      }
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
      out_.notes.push_back({one.line, one.column, "", "the limit became " + std::to_string(kLimitMax) + ", the most that there is"});
    if (limit.unit == "month" || limit.unit == "year")
      out_.notes.push_back({one.line, one.column, "",
                        "a " + limit.unit + " is one of the calendar; ratelimit counts in " + (limit.unit == "month" ? "30" : "365") + " days"});
    put(name, std::min(limit.requests, kLimitMax), window_of(limit.unit), path_, one.shadow, "");
  }

  void write_exemption(const Exemption& one, bool shadow) {
    put(name_of(one.path) + ":exempt", 1, "1s", one.path, shadow, "exempt", "ratelimit finds nothing that fits here, and does not turn back");
    check_size(*one.at, "ratelimit finds no limit here though the one on line " + std::to_string(one.limit->line) +
                            " fits, which takes a rule that exempts: leave this descriptor out where that limit may hold, or give it one of its own");
  }

  // One error, where it becomes more than tallyd reads, by `one`.
  void check_size(const EnvoyDescriptor& one, const std::string& advice) {
    std::string most;
    if (names_.size() > kRulesMax) most = std::to_string(kRulesMax) + " rules";
    if (out_.text.size() + kEnd.size() > kJsonBytesMax) most = std::to_string(kJsonBytesMax) + " bytes";
    if (!most.empty() && out_.errors.empty())
      out_.errors.push_back({one.line, one.column, "", "becomes more than a configuration may have, " + most + ": " + advice});
  }

  void put(const std::string& name, uint32_t limit, const std::string& window, const Path& path, bool shadow, const std::string& all,
           const std::string& comment = "") {
    if (!out_.errors.empty()) return;
    out_.text += names_.empty() ? "\n    { " : ",\n    { ";
    out_.text += "\"name\": " + json_quoted(unique(name)) + ", \"algorithm\": \"fixed_window\", \"limit\": " + std::to_string(limit) +
             ", \"window\": " + json_quoted(window);
    if (shadow) out_.text += ", \"shadow\": true";
    out_.text += ",\n      \"match\": {\"domain\": " + json_quoted(file_.domain) + ", \"descriptors\": [";
    for (const Match::Entry& entry : path) {
      out_.text += std::string(&entry == path.data() ? "" : ", ") + "{\"key\": " + json_quoted(entry.key);
      if (entry.value) out_.text += ", \"value\": " + json_quoted(*entry.value);
      out_.text += "}";
    }
    out_.text += "]}";
    if (!all.empty()) out_.text += ",\n      \"overrides\": {\"*\": " + json_quoted(all) + "}";
    if (!comment.empty()) out_.text += ",\n      \"comment\": " + json_quoted(comment);
    out_.text += " }";
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
    while (!wrong_rule_name(tried).empty() || !names_.insert(tried).second) {
      const std::string number = "-" + std::to_string(++numbered_[name] + 1);
      tried = name.substr(0, kRuleNameMax - number.size()) + number;
    }
    return tried;
  }

  const EnvoyFile& file_;
  Converted& out_;
  Path path_;
  std::set<std::string> names_;
  std::map<std::string, int> numbered_;  // how many were given a number, by the name that was there already
};

}  // namespace

Converted convert_envoy(EnvoyFile file, const std::string& origin) {
  Converted out;
  out.notes = file.notes;
  leave_out_unreached(file.descriptors, out.notes);
  std::string named = origin;
  std::ranges::replace_if(named, [](char c) { return static_cast<unsigned char>(c) < ' '; }, '?');
  out.text = "// Made of " + named + " by \"tally convert envoy\".\n{\n  \"rules\": [";
  Writer(file, out).rules();
  out.text += kEnd;
  std::ranges::stable_sort(out.notes, [](const Problem& a, const Problem& b) { return std::pair(a.line, a.column) < std::pair(b.line, b.column); });
  return out;
}

}  // namespace tally::tool
