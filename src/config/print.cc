// Config -> the JSON that parse_config reads back to the same Config. Plain JSON without comments, so that
// other programs can read it too; a value that is worked out when the daemon runs (the host's name, cores) is
// printed as null or 0.
#include <algorithm>
#include <string>

#include "config/checks.h"
#include "config/config.h"
#include "config/values.h"
#include "core/overrides.h"

namespace tally {
namespace {

// Requires UTF-8, as parse_config and validate() see to.
std::string json_string(std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      out += "\\u00";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string or_null(std::string_view text) { return text.empty() ? "null" : json_string(text); }
std::string duration(Duration d) { return json_string(format_duration(d)); }
std::string duration(const std::optional<Duration>& d) { return d ? duration(*d) : "null"; }

template <typename Items, typename Text>
std::string list(const Items& items, Text text) {
  std::string out = "[";
  for (const auto& item : items) out += (out.size() > 1 ? ", " : "") + json_string(text(item));
  return out + "]";
}

// "name": value, ... with one field a line, or all on one.
class Object {
 public:
  explicit Object(std::string_view separator) : separator_(separator) {}
  Object& add(std::string_view name, std::string_view value) {
    if (!body_.empty()) body_ += "," + separator_;
    body_ += json_string(name) + ": " + std::string(value);
    return *this;
  }
  template <typename T>
  requires std::is_integral_v<T> Object& add(std::string_view name, T value) {
    return add(name, std::string_view(std::to_string(value)));
  }
  std::string body() const { return body_; }

 private:
  std::string separator_, body_;
};

std::string section(const Object& fields) { return "{\n    " + fields.body() + "\n  }"; }
constexpr std::string_view kLines = "\n    ";

void add_policies(Object& out, const Rule& rule) {
  const bool strict = !rule.max_overcount.unbounded && rule.max_overcount.ppm == 0;
  out.add("max_overcount", strict ? "0" : json_string(format_overcount(rule.max_overcount)));
  out.add("on_isolation", json_string(isolation_name(rule.on_isolation)));
  out.add("on_amnesia", json_string(amnesia_name(rule.on_amnesia)));
  out.add("wait", duration(rule.wait));
}

std::string print_match(const Match& match) {
  std::string entries;
  for (const Match::Entry& entry : match.descriptors) {
    Object out(" ");
    out.add("key", json_string(entry.key));
    if (entry.value) out.add("value", json_string(*entry.value));
    entries += (entries.empty() ? "{ " : ", { ") + out.body() + " }";
  }
  return "{ " + Object(" ").add("domain", json_string(match.domain)).add("descriptors", "[" + entries + "]").body() + " }";
}

std::string print_override(const Override& override) {
  if (override.treatment == Treatment::exempt) return json_string("exempt");
  if (override.treatment == Treatment::blocked) return json_string("blocked");
  if (override.limit.algorithm != Algorithm::token_bucket) return std::to_string(override.limit.limit);
  Object out(" ");
  out.add("rate", json_string(format_rate({override.rate_count, override.rate_period}))).add("burst", override.limit.limit);
  return "{ " + out.body() + " }";
}

std::string print_overrides(const Overrides& overrides) {
  Object out(" ");
  for (const Overrides::Entry& entry : overrides.written()) out.add(entry.key, print_override(entry.override));
  return "{ " + out.body() + " }";
}

std::string entries(const std::vector<std::string>& items) {
  return list(items, [](const std::string& item) { return item; });
}

std::string print_rule(const Rule& rule) {
  Object out(" ");
  out.add("name", json_string(rule.name)).add("algorithm", json_string(algorithm_name(rule.limit.algorithm)));
  if (rule.limit.algorithm == Algorithm::token_bucket) {
    out.add("rate", json_string(format_rate({rule.rate_count, rule.rate_period})));
    out.add("burst", rule.limit.limit).add("process_hold", duration(rule.process_hold));
  } else {
    out.add("limit", rule.limit.limit).add("window", json_string(format_window(rule.limit.window)));
  }
  add_policies(out, rule);
  out.add("mode", json_string(mode_name(rule.mode)));
  out.add("shadow", rule.shadow ? "true" : "false");
  out.add("also", entries(rule.also_names));
  if (!rule.comment.empty()) out.add("comment", json_string(rule.comment));
  out.add("match", rule.match.descriptors.empty() ? "null" : print_match(rule.match));
  const Overrides* overrides = rule.overrides.get();
  out.add("overrides", overrides == nullptr || overrides->written().empty() ? "null" : print_overrides(*overrides));
  out.add("overrides_file", or_null(overrides == nullptr ? "" : overrides->file()));
  return "{ " + out.body() + " }";
}

std::string print_rules(const std::vector<Rule>& rules) {
  if (rules.empty()) return "[]";
  std::string out = "[";
  for (const Rule& rule : rules) out += (out.size() > 1 ? ",\n    " : "\n    ") + print_rule(rule);
  return out + "\n  ]";
}

void add_members(Object& out, const Config::Members& members) {
  out.add("peers", entries(members.peers));
  out.add("aggregators", entries(members.aggregators));
  out.add("roster_version", members.roster_version);
  out.add("size", members.size);
  out.add("books", json_string(members.books ? members.books->text() : "peers"));
}

std::string print_cluster(const Config::Cluster& cluster) {
  Object out(kLines);
  out.add("bind", or_null(cluster.bind));
  out.add("self", cluster.self ? json_string(*cluster.self) : "null");
  add_members(out, cluster);
  if (cluster.previous) {
    Object previous(" ");
    add_members(previous, *cluster.previous);
    out.add("previous", "{ " + previous.body() + " }");
  } else {
    out.add("previous", "null");
  }
  out.add("gone", entries(cluster.gone));
  if (cluster.upstream) {
    Object upstream(" ");
    add_members(upstream, *cluster.upstream);
    upstream.add("bind", or_null(cluster.upstream->bind));
    out.add("upstream", "{ " + upstream.body() + " }");
  } else {
    out.add("upstream", "null");
  }
  out.add("mode", json_string(mode_name(cluster.mode)));
  out.add("sync_interval", duration(cluster.sync_interval));
  out.add("isolation_after", duration(cluster.isolation_after));
  out.add("lease", duration(cluster.lease));
  out.add("secret_file", or_null(cluster.secret_file));
  return section(out);
}

}  // namespace

std::string print_config(const Config& config) {
  const auto addresses = [](const std::vector<Address>& items) {
    return list(items, [](const Address& address) { return address.text(); });
  };
  const Config::Limits& limits = config.limits;
  Object inline_fields(kLines);
  add_policies(inline_fields, config.inline_rule);
  Object out("\n  ");
  out.add(
      "node",
      section(
          Object(kLines).add("name", or_null(config.node_name)).add("state_dir", or_null(config.state_dir))));
  out.add("listen", section(Object(kLines)
                                .add("resp", config.resp.empty() ? "null" : addresses(config.resp))
                                .add("http", addresses(config.http))
                                .add("rls", addresses(config.rls))));
  out.add("cluster", print_cluster(config.cluster));
  out.add("table", section(Object(kLines).add("keys", config.table_keys)));
  out.add("inline", section(inline_fields));
  out.add("limits", section(Object(kLines)
                                .add("connections", limits.connections)
                                .add("key_bytes", limits.key_bytes)
                                .add("pipeline_bytes", limits.pipeline_bytes)
                                .add("waiting", limits.waiting)
                                .add("registers", limits.registers)
                                .add("guests", limits.guests)
                                .add("http_idle", duration(limits.http_idle))));
  out.add("workers", config.workers);
  out.add("spin", duration(config.spin));
  out.add("rules", print_rules(config.rules));
  return "{\n  " + out.body() + "\n}\n";
}

std::string format_problem(std::string_view file, const Problem& problem) {
  std::string out = problem.file.empty() ? std::string(file) : problem.file;
  if (problem.line > 0)
    for (const int number : {problem.line, problem.column}) {
      out += ':';
      out += std::to_string(number);
    }
  if (!out.empty()) out += ": ";
  if (!problem.path.empty()) out += problem.path + ": ";
  return out + problem.message;
}

}  // namespace tally
