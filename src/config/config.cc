// The tree of the text -> Config. A field that is wrong keeps its default and is remembered, so that the
// checks of the whole, which run afterwards, do not complain a second time about what follows from it.
#include "config/config.h"

#include <algorithm>
#include <array>
#include <tuple>

#include "config/checks.h"
#include "config/fields.h"
#include "config/json_tree.h"
#include "config/rule_fields.h"
#include "config/values.h"

namespace tally {
namespace {

using Kind = JsonNode::Kind;

constexpr std::array kAlgorithms = {Algorithm::sliding_window, Algorithm::fixed_window,
                                    Algorithm::token_bucket};
constexpr std::array kIsolations = {OnIsolation::share, OnIsolation::open, OnIsolation::closed};
constexpr std::array kAmnesias = {OnAmnesia::forget, OnAmnesia::deny};
constexpr std::array kModes = {Mode::leased, Mode::central};

void read_overcount(Fields& in, Overcount& out) {
  constexpr std::string_view kName = "max_overcount";
  const JsonNode* value = in.find(kName);
  if (value == nullptr) return;
  Result<Overcount> parsed = Overcount{};
  if (value->kind == Kind::string)
    parsed = parse_overcount(value->text);
  else if (value->kind == Kind::integer)
    parsed = overcount_of((value->negative ? -1.0 : 1.0) * static_cast<double>(value->magnitude));
  else if (value->kind == Kind::real)
    parsed = overcount_of(value->real);
  else
    parsed = Failure{
        "must be a percentage such as \"5%\", a fraction from 0 (strict) to 1, or \"unbounded\", got " +
        describe(*value)};
  if (!parsed) return in.wrong(*value, kName, parsed.error());
  out = parsed.value();
  if (out.unbounded && value->text != "unbounded")
    in.findings().warning(
        value->offset, in.path_of(kName),
        quoted(value->text) +
            " is more than 100%, which bounds nothing better than \"unbounded\" does, and is taken as "
            "that: every node may admit the whole limit; write \"unbounded\", or \"100%\" at most");
}

// What a named rule and the inline rule have in common.
void read_policies(Fields& in, Rule& rule) {
  read_overcount(in, rule.max_overcount);
  if (const auto v = in.choice("on_isolation", kIsolations, isolation_name)) rule.on_isolation = *v;
  if (const auto v = in.choice("on_amnesia", kAmnesias, amnesia_name)) rule.on_amnesia = *v;
  in.duration("wait", rule.wait, kWaitRange);
}

// Reads a field that only some algorithms have. Returns false where this rule has it without being one of
// those.
bool belongs(Fields& in, std::string_view name, bool own, Algorithm algorithm, bool by_default) {
  const JsonNode* value = in.find(name);
  if (value == nullptr || own) return true;
  const bool bucket = algorithm == Algorithm::token_bucket;
  in.wrong(*value, name,
           "a " + std::string(algorithm_name(algorithm)) + (by_default ? " (the default algorithm)" : "") +
               " has no " + quoted(name) + ", it has " +
               (bucket ? "\"rate\" and \"burst\"" : "\"limit\" and \"window\"; only a token_bucket has it"));
  return false;
}

constexpr std::array<std::string_view, 5> kNumberFields = {"limit", "window", "rate", "burst", "process_hold"};

// False, as read_numbers is then.
bool give_up_numbers(Fields& in) {
  for (const std::string_view name : kNumberFields) {
    in.find(name);  // known, whatever it holds
    in.findings().unusable(in.path_of(name));
  }
  return false;
}

// `what` one of them is.
void read_strings(Fields& in, std::string_view name, const std::string& what, size_t most, std::vector<std::string>& out) {
  const JsonNode* list = in.array(name, what);
  if (list == nullptr) return;
  if (list->items.size() > most) return in.wrong(*list, name, too_many(name, most, list->items.size()));
  for (size_t i = 0; i < list->items.size(); ++i) {
    const JsonNode& node = list->items[i];
    const std::string path = item_path(in.path_of(name), i);
    in.findings().place(node, path);
    if (node.kind != Kind::string) in.findings().error(node.offset, path, "must be " + what + ", got " + describe(node));
    out.push_back(node.text);
  }
}

// False where it is unknown what fields the rule should have.
bool read_numbers(Fields& in, Rule& rule) {
  const auto algorithm = in.choice("algorithm", kAlgorithms, algorithm_name);
  const bool told = in.find("algorithm") != nullptr;
  if (told && !algorithm) return give_up_numbers(in);
  rule.limit.algorithm = algorithm.value_or(Algorithm::sliding_window);
  const bool bucket = rule.limit.algorithm == Algorithm::token_bucket;
  bool fits = true;
  for (const std::string_view name : kNumberFields)
    fits &= belongs(in, name, bucket == (name != "limit" && name != "window"), rule.limit.algorithm, !told);
  if (!fits) return give_up_numbers(in);
  const std::array<std::string_view, 2> needed = bucket ? std::array<std::string_view, 2>{"rate", "burst"}
                                                        : std::array<std::string_view, 2>{"limit", "window"};
  for (const std::string_view name : needed)
    if (in.find(name) == nullptr)
      in.missing(name, "is missing; a " + std::string(algorithm_name(rule.limit.algorithm)) + " needs " +
                           quoted(needed[0]) + " and " + quoted(needed[1]));
  if (bucket) {
    read_rate(in, rule);
    in.number("burst", rule.limit.limit, kBurstRange);
    in.duration("process_hold", rule.process_hold, kProcessHoldRange);
  } else {
    in.number("limit", rule.limit.limit, kLimitRange);
    in.window("window", rule.limit.window);
  }
  return true;
}

Rule read_rule(Findings& findings, const JsonNode& node, const std::string& path, Mode usual, const OtherFiles& files) {
  Rule rule;
  Fields in(findings, node, path);
  if (const JsonNode* name = in.text("name", "a string"); name != nullptr)
    rule.name = name->text;
  else if (in.find("name") == nullptr)
    in.missing("name", "is missing; every rule has a name");
  const bool has_form = read_numbers(in, rule);
  read_policies(in, rule);
  in.boolean("shadow", rule.shadow);
  read_strings(in, "also", "the name of a rule", kAlsoMax, rule.also_names);
  if (const JsonNode* comment = in.text("comment", "a string")) rule.comment = comment->text;
  rule.mode = in.choice("mode", kModes, mode_name).value_or(usual);
  read_match(in, rule.match);
  if (has_form) {
    read_overrides(in, rule, files);
  } else {
    in.find("overrides");  // known, whatever they hold
    in.find("overrides_file");
  }
  in.finish();
  return rule;
}

void read_rules(Fields& root, Config& config, const OtherFiles& files) {
  const JsonNode* list = root.array("rules", "rules");
  if (list == nullptr) return;
  Findings& findings = root.findings();
  if (list->items.size() > kRulesMax)
    return root.wrong(*list, "rules", too_many("rules", kRulesMax, list->items.size()));
  for (size_t i = 0; i < list->items.size(); ++i) {
    const JsonNode& node = list->items[i];
    findings.place(node, rule_path(i));
    if (node.kind == Kind::object) {
      config.rules.push_back(read_rule(findings, node, rule_path(i), config.cluster.mode, files));
    } else {
      findings.error(node.offset, rule_path(i), "must be an object, got " + describe(node));
      config.rules.emplace_back();  // keeps the numbers of the others
    }
  }
}

void read_addresses(Fields& in, std::string_view name, std::vector<Address>& out) {
  const JsonNode* list = in.array(name, "addresses");
  if (list == nullptr) return;
  for (size_t i = 0; i < list->items.size(); ++i) {
    const JsonNode& node = list->items[i];
    const std::string path = item_path(in.path_of(name), i);
    in.findings().place(node, path);
    if (node.kind != Kind::string) {
      in.findings().error(
          node.offset, path,
          "must be an address such as \"unix:/run/tallyd/tallyd.sock\", got " + describe(node));
    } else if (auto address = parse_address(node.text)) {
      out.push_back(std::move(address.value()));
      continue;
    } else {
      in.findings().error(node.offset, path, address.error());
    }
    out.emplace_back();  // keeps the numbers of the others
  }
}

void read_listen(Fields in, Config& config) {
  read_addresses(in, "resp", config.resp);
  read_addresses(in, "http", config.http);
  read_addresses(in, "rls", config.rls);
  if (const JsonNode* resp = in.find("resp");
      resp != nullptr && resp->kind == Kind::array && resp->items.empty())
    in.wrong(*resp, "resp", "must have an address; leave it out for the default socket");
  in.finish();
}

void read_entries(Fields& in, std::string_view name, std::vector<std::string>& out) {
  read_strings(in, name, "\"ADDRESS:PORT\"", kPeersMax, out);
}

void read_members(Fields& in, Config::Members& members) {
  read_entries(in, "peers", members.peers);
  read_entries(in, "aggregators", members.aggregators);
  in.number("roster_version", members.roster_version, kRosterVersionRange);
  in.number("size", members.size, kSizeRange);
  const JsonNode* books = in.text("books", "\"peers\" or where Redis is");
  if (books == nullptr || books->text == "peers") return;
  if (auto url = parse_books_url(books->text))
    members.books = std::move(url.value());
  else
    in.wrong(*books, "books", url.error());
}

// An object as a list of nodes is, or the aggregators alone.
void read_upstream(Fields& in, std::optional<Config::Upstream>& upstream) {
  const JsonNode* value = in.find("upstream");
  if (value == nullptr) return;
  Config::Upstream read;
  if (value->kind == Kind::array) {
    read_entries(in, "upstream", read.aggregators);
    if (read.aggregators.empty()) return;
  } else {
    Fields fields = in.section("upstream");
    read_members(fields, read);
    if (const JsonNode* bind = fields.text("bind", "\"ADDRESS:PORT\"")) read.bind = bind->text;
    fields.finish();
  }
  upstream = std::move(read);
}

void read_cluster(Fields in, Config::Cluster& cluster) {
  if (const JsonNode* bind = in.text("bind", "\"ADDRESS:PORT\"")) cluster.bind = bind->text;
  if (const JsonNode* self = in.text("self", "one of the peers")) cluster.self = self->text;
  read_members(in, cluster);
  if (in.find("previous") != nullptr) {
    Fields previous = in.section("previous");
    read_members(previous, cluster.previous.emplace());
    previous.finish();
  }
  read_entries(in, "gone", cluster.gone);
  if (const auto v = in.choice("mode", kModes, mode_name)) cluster.mode = *v;
  in.duration("sync_interval", cluster.sync_interval, kSyncIntervalRange);
  in.duration("isolation_after", cluster.isolation_after, kIsolationRange);
  in.duration("lease", cluster.lease, kLeaseRange);
  read_upstream(in, cluster.upstream);
  if (in.find("secret_file") != nullptr) {
    const JsonNode* file = in.text("secret_file", "an absolute path");
    if (file != nullptr && file->text.empty())
      in.wrong(*file, "secret_file", "must be an absolute path, got \"\"");
    // Where it is wrong, that was said; the addresses are not to be complained of too.
    cluster.secret_file = file != nullptr && !file->text.empty() ? file->text : "/";
  }
  in.finish();
}

void read_limits(Fields in, Config::Limits& limits) {
  in.number("connections", limits.connections, kConnectionsRange);
  in.number("key_bytes", limits.key_bytes, kKeyBytesRange);
  in.number("pipeline_bytes", limits.pipeline_bytes, kPipelineBytesRange);
  in.number("waiting", limits.waiting, kWaitingRange);
  in.number("registers", limits.registers, kRegistersRange);
  in.number("guests", limits.guests, kGuestsRange);
  in.duration("http_idle", limits.http_idle, kHttpIdleRange);
  in.finish();
}

void read_root(Fields in, Config& config, const OtherFiles& files) {
  Fields node = in.section("node");
  if (const JsonNode* name = node.text("name", "a string")) {
    config.node_name = name->text;
    if (name->text.empty()) node.wrong(*name, "name", wrong_node_name(""));
  }
  if (const JsonNode* dir = node.text("state_dir", "an absolute path")) {
    config.state_dir = dir->text;
    if (dir->text.empty()) node.wrong(*dir, "state_dir", "must be an absolute path, got \"\"");
  }
  node.finish();
  read_listen(in.section("listen"), config);
  read_cluster(in.section("cluster"), config.cluster);
  Fields table = in.section("table");
  table.number("keys", config.table_keys, kTableKeysRange);
  table.not_yet("file");
  table.finish();
  Fields inline_fields = in.section("inline");
  read_policies(inline_fields, config.inline_rule);
  config.inline_rule.mode = config.cluster.mode;
  inline_fields.finish();
  read_limits(in.section("limits"), config.limits);
  in.number("workers", config.workers, kWorkersRange);
  in.duration("spin", config.spin, kSpinRange);
  read_rules(in, config, files);
  in.finish();
}

void sort_by_place(std::vector<Problem>& problems) {
  std::stable_sort(problems.begin(), problems.end(), [](const Problem& a, const Problem& b) {
    return std::tie(a.file, a.line, a.column) < std::tie(b.file, b.line, b.column);
  });
}

}  // namespace

void read_rate(Fields& in, Rule& rule) {
  const JsonNode* value = in.text("rate", "a rate such as \"50/s\"");
  if (value == nullptr) return;
  const auto rate = parse_rate(value->text);
  if (!rate) return in.wrong(*value, "rate", rate.error());
  rule.rate_count = rate.value().count;
  rule.rate_period = rate.value().period;
  rule.limit.emission = emission_of(rate.value());
}

Rule default_inline_rule() {
  Rule rule;
  rule.name = std::string(kInlineRule);
  rule.limit.algorithm = Algorithm::token_bucket;
  return rule;
}

void Places::locate(Problem& problem) const {
  std::string path = problem.path;
  for (;; path.erase(parent_length(path))) {
    if (const auto at = at_.find(path); at != at_.end()) {
      std::tie(problem.line, problem.column) = at->second;
      return;
    }
    if (path.empty()) return;
  }
}

void Places::locate(std::vector<Problem>& problems) const {
  for (Problem& problem : problems) locate(problem);
  sort_by_place(problems);
}

Parsed parse_config(std::string_view text, const std::function<void(Config&)>& lay_over, const OtherFiles& files) {
  Parsed out;
  const JsonText json = read_json(text);
  Findings findings(json, out);
  if (json.syntax) {
    findings.error(json.syntax->offset, json.syntax->path, json.syntax->message);
    return out;
  }
  for (const JsonError& twice : json.duplicates) findings.error(twice.offset, twice.path, twice.message);
  if (json.root.kind != Kind::object) {
    findings.error(json.root.offset, "", "a configuration is an object: { ... }, got " + describe(json.root));
    return out;
  }
  findings.place(json.root, "");
  read_root(Fields(findings, json.root, ""), out.config, files);
  if (lay_over) lay_over(out.config);
  for (Problem& problem : validate(out.config)) {
    if (findings.explains(problem.path)) continue;
    out.places.locate(problem);
    if (problem.line == 0) problem.line = problem.column = 1;
    out.errors.push_back(std::move(problem));
  }
  sort_by_place(out.errors);
  if (findings.not_shown() > 0) {
    const Problem last = out.errors.back();
    out.errors.push_back(
        {last.line, last.column, "", "and " + std::to_string(findings.not_shown()) + " more errors", last.file});
  }
  if (out.errors.empty())
    for (Problem& problem : advice(out.config)) out.warnings.push_back(std::move(problem));
  for (Problem& problem : out.warnings)
    if (problem.line == 0) out.places.locate(problem);
  sort_by_place(out.warnings);
  return out;
}

}  // namespace tally
