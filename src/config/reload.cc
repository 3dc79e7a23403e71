// What of a Config can change while the daemon runs: its rules, its pace and its lists of nodes. Everything else is part of what was
// built at the start; by default a field is of that kind, so that a new one is refused until somebody made it change.
#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <unordered_map>

#include "config/checks.h"
#include "config/config.h"
#include "config/json_tree.h"

namespace tally {
namespace {

// "/cluster/peers/2" -> "cluster.peers": a list is named as a whole.
std::string path_of(std::string_view pointer) {
  std::string path;
  for (size_t begin = 1; begin < pointer.size();) {
    const size_t end = std::min(pointer.find('/', begin), pointer.size());
    const std::string_view part = pointer.substr(begin, end - begin);
    if (part == "-" || std::ranges::all_of(part, [](unsigned char c) { return std::isdigit(c) != 0; })) break;
    path += (path.empty() ? "" : ".") + std::string(part);
    begin = end + 1;
  }
  return path;
}

Config without_what_may_change(Config config) {
  config.rules.clear();
  config.inline_rule = default_inline_rule();
  const Config::Cluster unset;
  config.cluster.sync_interval = unset.sync_interval;
  config.cluster.isolation_after = unset.isolation_after;
  config.cluster.lease = unset.lease;  // see check_lease
  static_cast<Config::Members&>(config.cluster) = unset;
  config.cluster.previous = unset.previous;
  config.cluster.gone = unset.gone;
  if (config.cluster.upstream) static_cast<Config::Members&>(*config.cluster.upstream) = Config::Upstream{};
  return config;
}

// Which node this is stays as it is, and whether it is one.
void check_self(const Config::Cluster& running, const Config::Cluster& next, std::vector<Problem>& problems) {
  const auto refuse = [&](const std::string& what) { problems.push_back({0, 0, "cluster", what + ", and a reload cannot change that: restart"}); };
  if (running.alone() != next.alone())
    refuse(next.alone() ? "this node would be alone" : "this node was alone");
  else if (running.guest() != next.guest())
    refuse(next.guest() ? "this node would be a guest" : "this node was a guest");
  else if (!running.alone() && !running.guest() && running.own_entry() != next.own_entry())
    refuse("this node is " + running.own_entry() + ", and would be " + next.own_entry());
}

// What it comes to must stay: members that forgot a bucket wait for as long as a lease of any node may run.
void check_lease(const Config::Cluster& running, const Config::Cluster& next, std::vector<Problem>& problems) {
  if (running.alone() || next.lease_length() == running.lease_length()) return;  // nothing is leased alone
  const std::string was = format_duration(running.lease_length());
  problems.push_back({0, 0, next.lease ? "cluster.lease" : "cluster.sync_interval",
                      "leases would be " + format_duration(next.lease_length()) + " instead of " + was +
                          ", and a reload cannot change that: set \"lease\" to \"" + was + "\", or restart"});
}

void check_forms(const std::vector<Rule>& rules, const RuleSet& known, std::vector<Problem>& problems) {
  const auto refuse = [&](size_t i, const char* field, const std::string& was) {
    problems.push_back({0, 0, rule_path(i) + field,
                        "is " + was + " for " + quoted(std::string_view(rules[i].name)) +
                            " since this daemon started, and a reload cannot change that: give the rule another name, or restart"});
  };
  std::unordered_map<std::string_view, const Rule*> before;
  for (size_t id = 0; id < known.ids(); ++id) {
    const Rule& rule = known.by_id(static_cast<uint16_t>(id));
    before.emplace(rule.name, &rule);
  }
  for (size_t i = 0; i < rules.size(); ++i) {
    const auto at = before.find(rules[i].name);
    if (at == before.end()) continue;
    if (rules[i].mode != at->second->mode) refuse(i, ".mode", std::string(mode_name(at->second->mode)));
    if (same_form(rules[i].limit, at->second->limit)) continue;
    const Limit& was = at->second->limit;
    const bool algorithm = rules[i].limit.algorithm != was.algorithm;
    const std::string form = algorithm ? std::string(algorithm_name(was.algorithm)) : format_window(was.window);
    refuse(i, algorithm ? ".algorithm" : ".window", form);
  }
}

}  // namespace

bool other_lists(const Config& running, const Config& next) {
  const auto members = [](const auto& from) -> const Config::Members& { return from; };
  const Config::Cluster &was = running.cluster, &is = next.cluster;
  return members(was) != members(is) || was.previous != is.previous || was.gone != is.gone ||
         (was.upstream && is.upstream && members(*was.upstream) != members(*is.upstream));
}

std::vector<Problem> refused_by_reload(const Config& running, const Config& next, const RuleSet& known) {
  const auto tree = [](const Config& config) { return nlohmann::json::parse(print_config(without_what_may_change(config))); };
  std::set<std::string> paths;
  for (const auto& change : nlohmann::json::diff(tree(running), tree(next))) paths.insert(path_of(change["path"].get<std::string>()));
  std::vector<Problem> problems;
  for (const std::string& path : paths) problems.push_back({0, 0, path, "was changed, and a reload cannot change it: restart"});
  check_self(running.cluster, next.cluster, problems);
  check_lease(running.cluster, next.cluster, problems);
  check_forms(next.rules, known, problems);
  if (problems.empty() && RuleSet::ids_with(next.rules, &known) > RuleSet::kIdsMax)
    problems.push_back({0, 0, "rules", "more than " + std::to_string(RuleSet::kIdsMax - 1) + " names since this daemon started: restart"});
  return problems;
}

}  // namespace tally
