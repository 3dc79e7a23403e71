// The checks of a whole Config: they run on what a file said, and again after command line flags were laid
// over it, so they look at values only and know no text. Each problem names the field that is to be changed.
#include <algorithm>
#include <string>
#include <unordered_map>

#include "base/nearest.h"
#include "config/checks.h"
#include "config/config.h"
#include "config/json_tree.h"
#include "config/peer_entry.h"
#include "config/values.h"
#include "core/calendar.h"

namespace tally {
namespace {

constexpr std::string_view kNeedsBooks =
    "\"central\" decides in the Redis that has the fleet's books: set \"books\" of \"cluster\" to where that is, or leave the mode out";

class Complaints {
 public:
  void add(std::string path, std::string message) {
    list_.push_back({0, 0, std::move(path), std::move(message)});
  }

  void range(std::string path, uint64_t value, Range range) {
    if (!range.contains(value))
      add(std::move(path), "must be a whole number, " + range.text() + ", got " + std::to_string(value));
  }
  void range(std::string path, Duration value, DurationRange range) {
    if (!range.contains(value))
      add(std::move(path), "must be " + range.text() + ", got " + format_duration(value));
  }
  std::vector<Problem> take() { return std::move(list_); }

 private:
  std::vector<Problem> list_;
};

bool is_absolute_path(std::string_view path) {
  return path.starts_with('/') && is_utf8(path) && std::none_of(path.begin(), path.end(), [](char c) {
           return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
         });
}

void check_node(const Config& config, Complaints& complaints) {
  if (!config.node_name.empty())
    if (std::string wrong = wrong_node_name(config.node_name); !wrong.empty())
      complaints.add("node.name", wrong);
  if (!config.state_dir.empty() && !is_absolute_path(config.state_dir))
    complaints.add("node.state_dir", "must be an absolute path, got " + quoted(config.state_dir));
}

void check_listeners(const Config& config, Complaints& complaints) {
  std::unordered_map<std::string, std::string> taken;
  // `open`: the protocol that has neither passwords nor encryption, so that over TCP there are loopback addresses only; "": none.
  const auto check = [&](const std::vector<Address>& addresses, std::string_view name, std::string_view open) {
    for (size_t i = 0; i < addresses.size(); ++i) {
      const Address& address = addresses[i];
      const std::string path = item_path(std::string("listen.") + std::string(name), i);
      const auto again = parse_address(address.text());
      if (!again || again.value() != address) {
        complaints.add(path, again ? "cannot be written as an address" : again.error());
        continue;
      }
      const bool tcp = address.kind == Address::Kind::tcp;
      if (tcp && !open.empty() && !parse_endpoint(address.text()).value().loopback)
        complaints.add(path,
                       std::string(open) + " has no passwords and no encryption: over TCP only loopback addresses, got " +
                           quoted(address.text()));
      if (tcp && address.port == 0) continue;  // a free port each
      const auto [at, fresh] = taken.try_emplace(tcp ? address.text() : address.path, path);
      if (!fresh) complaints.add(path, "the same address as " + at->second);
    }
  };
  check(config.resp, "resp", "RESP");
  check(config.http, "http", "");
  check(config.rls, "rls", "gRPC");
  if (!config.rls.empty() && !built_with_rls())
    complaints.add("listen.rls",
                   "this tallyd was built without gRPC: build it where libgrpc++-dev, libprotobuf-dev and protobuf-compiler-grpc are "
                   "installed and TALLY_RLS is not OFF, or leave this out");
}

// `parsed`: an Endpoint or a PeerEntry. False where it cannot be read.
template <typename Parsed>
bool check_place(const std::string& path, const Result<Parsed>& parsed, bool has_port, Complaints& complaints, bool any_port = false) {
  if (!parsed) {
    complaints.add(path, parsed.error());
    return false;
  }
  if (has_port && !any_port && parsed.value().port == 0) complaints.add(path, "the other nodes must know the port: it cannot be 0");
  return true;
}

bool check_peer(const std::string& path, const std::string& text, Complaints& complaints) {
  const auto entry = parse_peer(text);
  return check_place(path, entry, entry && entry.value().kind != PeerEntry::Kind::service, complaints);
}

// Said once, however many addresses it is true of. What a name stands for is seen when it was looked up (AddressBook).
void check_secret(const Config::Cluster& cluster, Complaints& complaints) {
  if (!cluster.secret_file.empty()) {
    if (!is_absolute_path(cluster.secret_file))
      complaints.add("cluster.secret_file", "must be an absolute path, got " + quoted(cluster.secret_file));
    return;
  }
  const auto needs_one = [&](const std::string& path, const std::string& text) {
    const auto endpoint = parse_endpoint(text);
    if (!endpoint || endpoint.value().loopback) return false;
    complaints.add(path, quoted(text) +
                             " is not a loopback address, so the nodes need a secret: make one with \"tally "
                             "secret FILE\", bring it to "
                             "all hosts, and set \"cluster\": {\"secret_file\": FILE} on each");
    return true;
  };
  const auto any_needs_one = [&](const std::string& section, const Config::Members& members) {
    const std::string list = section + (members.peers.empty() ? ".aggregators" : ".peers");
    for (size_t i = 0; i < members.entries().size(); ++i)
      if (needs_one(item_path(list, i), members.entries()[i])) return true;
    return false;
  };
  if (!cluster.bind.empty() && needs_one("cluster.bind", cluster.bind)) return;
  if (any_needs_one("cluster", cluster) || (cluster.previous && any_needs_one("cluster.previous", *cluster.previous))) return;
  if (!cluster.upstream) return;
  if (!cluster.upstream->bind.empty() && needs_one("cluster.upstream.bind", cluster.upstream->bind)) return;
  any_needs_one("cluster.upstream", *cluster.upstream);
}

void check_membership(const Config::Cluster& cluster, Complaints& complaints) {
  if (cluster.entries().empty()) {
    if (cluster.self)
      complaints.add("cluster.self", "there are no peers that " + quoted(*cluster.self) + " could be one of");
    return;
  }
  if (cluster.bind.empty())
    return complaints.add("cluster.bind", "is missing: in a fleet a node needs an address of its own; one that is in no list may leave the port to the system, \"10.0.0.7:0\"");
  const std::string own = cluster.own_entry();
  if (cluster.guest() || cluster.lists(own) || (cluster.previous && cluster.previous->lists(own))) return;
  if (cluster.self)
    complaints.add("cluster.self", "must be one of the peers, got " + quoted(own));
  else
    complaints.add("cluster.peers", "none of them is this node: add " + quoted(own) +
                                        " (cluster.bind), or name this node's entry in cluster.self");
}

bool check_aggregators(const std::string& section, const Config::Members& members, Complaints& complaints) {
  bool readable = true;
  std::unordered_map<std::string_view, size_t> seen;
  for (size_t i = 0; i < members.aggregators.size(); ++i) {
    const std::string& entry = members.aggregators[i];
    const std::string path = item_path(section + ".aggregators", i);
    const auto [at, fresh] = seen.try_emplace(entry, i);
    if (!fresh)
      complaints.add(path, quoted(std::string_view(entry)) + " stands at aggregators[" + std::to_string(at->second) + "] already");
    else if (!members.lists(entry))
      complaints.add(path, "must be one of the peers, got " + quoted(std::string_view(entry)));
    if (members.peers.empty()) readable &= check_peer(path, entry, complaints);
  }
  return readable;
}

// False where an address cannot be read.
bool check_members(const std::string& section, const Config::Members& members, Complaints& complaints) {
  bool readable = true;
  std::unordered_map<std::string_view, size_t> seen;
  for (size_t i = 0; i < members.peers.size(); ++i) {
    const std::string path = item_path(section + ".peers", i);
    readable &= check_peer(path, members.peers[i], complaints);
    const auto [at, fresh] = seen.try_emplace(members.peers[i], i);
    if (!fresh)
      complaints.add(
          path, quoted(members.peers[i]) + " stands at peers[" + std::to_string(at->second) + "] already");
  }
  if (members.peers.size() > kPeersMax)
    complaints.add(section + ".peers", too_many("peers", kPeersMax, members.peers.size()));
  readable &= check_aggregators(section, members, complaints);
  if (members.books && members.peers.empty()) complaints.add(section + ".books", "there are no peers that share them: list the nodes in " + section + ".peers");
  if (members.books && !members.aggregators.empty()) complaints.add(section + ".books", "keys belong to the aggregators, or their books are in Redis: leave one of the two out");
  complaints.range(section + ".roster_version", members.roster_version, kRosterVersionRange);
  complaints.range(section + ".size", members.size, kSizeRange);
  if (members.size != 0 && members.size < members.entries().size())
    complaints.add(section + ".size", "must be at least the number of " + std::string(members.peers.empty() ? "aggregators" : "peers") + " (" +
                                          std::to_string(members.entries().size()) + "), got " +
                                          std::to_string(members.size));
  return readable;
}

// The list that this one replaces.
bool check_previous(const Config::Cluster& cluster, Complaints& complaints) {
  if (!cluster.previous) {
    if (!cluster.gone.empty()) complaints.add("cluster.gone", "there is no list before (\"previous\") that they could be gone from");
    return true;
  }
  const Config::Members& previous = *cluster.previous;
  const bool readable = check_members("cluster.previous", previous, complaints);
  if (previous.books && cluster.books && *previous.books != *cluster.books)
    complaints.add("cluster.previous.books", "must be where cluster.books is: a fleet that runs moves from one Redis to its peers, and then to another Redis");
  if (previous.entries().empty()) complaints.add("cluster.previous", "must have peers or aggregators; null where no list is replaced");
  if (cluster.entries().empty()) complaints.add("cluster.peers", "are missing: the list that replaces \"previous\"");
  if (previous.roster_version >= cluster.roster_version)
    complaints.add("cluster.previous.roster_version", "must be below that of the list that replaces it (" +
                                                          std::to_string(cluster.roster_version) + "), got " +
                                                          std::to_string(previous.roster_version));
  for (size_t i = 0; i < cluster.gone.size(); ++i) {
    const std::string path = item_path("cluster.gone", i);
    if (!previous.lists(cluster.gone[i]))
      complaints.add(path, "must be one of the peers of the list before, got " + quoted(std::string_view(cluster.gone[i])));
    else if (cluster.lists(cluster.gone[i]))
      complaints.add(path, "is one of the peers, so it is not gone for good: take it out of one of the two");
    else if (cluster.gone[i] == cluster.own_entry())
      complaints.add(path, "is this node, which lives");
  }
  return readable;
}

void check_upstream(const Config::Cluster& cluster, Complaints& complaints) {
  if (!cluster.upstream) return;
  check_members("cluster.upstream", *cluster.upstream, complaints);
  if (cluster.upstream->books || cluster.books) complaints.add("cluster.upstream", "no level above or below has its books in Redis: leave out \"books\" or \"upstream\"");
  if (cluster.upstream->entries().empty())
    complaints.add("cluster.upstream", "must have the aggregators of the level above; null where there is none");
  if (cluster.entries().empty())
    complaints.add("cluster.upstream",
                   "there is no region that draws from it: a node alone is a guest there, with \"aggregators\" in place of \"upstream\"");
  if (!cluster.upstream->bind.empty()) check_place("cluster.upstream.bind", parse_endpoint(cluster.upstream->bind), true, complaints, true);
  for (const std::string& entry : cluster.upstream->entries())
    if (cluster.lists(entry)) complaints.add("cluster.upstream", quoted(std::string_view(entry)) + " is in the list below as well: a node belongs to one level");
}

void check_cluster(const Config::Cluster& cluster, Complaints& complaints) {
  const bool readable = check_members("cluster", cluster, complaints);
  if (!cluster.bind.empty()) check_place("cluster.bind", parse_endpoint(cluster.bind), true, complaints, readable && cluster.guest());
  check_upstream(cluster, complaints);
  if (check_previous(cluster, complaints) && readable) check_membership(cluster, complaints);
  check_secret(cluster, complaints);
  complaints.range("cluster.sync_interval", cluster.sync_interval, kSyncIntervalRange);
  const auto check_slow = [&](const char* path, const std::optional<Duration>& value, DurationRange range) {
    if (!value) return;
    complaints.range(path, *value, range);
    if (range.contains(*value) && *value < 2 * cluster.sync_interval)
      complaints.add(path, "must be at least two sync intervals (" +
                               format_duration(2 * cluster.sync_interval) + "), got " +
                               format_duration(*value));
  };
  check_slow("cluster.isolation_after", cluster.isolation_after, kIsolationRange);
  check_slow("cluster.lease", cluster.lease, kLeaseRange);
  if (cluster.mode == Mode::central && !cluster.books) complaints.add("cluster.mode", std::string(kNeedsBooks));
}

void check_sizes(const Config& config, Complaints& complaints) {
  const Config::Limits& limits = config.limits;
  complaints.range("table.keys", config.table_keys, kTableKeysRange);
  complaints.range("limits.connections", limits.connections, kConnectionsRange);
  complaints.range("limits.key_bytes", limits.key_bytes, kKeyBytesRange);
  complaints.range("limits.pipeline_bytes", limits.pipeline_bytes, kPipelineBytesRange);
  complaints.range("limits.waiting", limits.waiting, kWaitingRange);
  complaints.range("limits.registers", limits.registers, kRegistersRange);
  complaints.range("limits.guests", limits.guests, kGuestsRange);
  complaints.range("limits.http_idle", limits.http_idle, kHttpIdleRange);
  complaints.range("workers", config.workers, kWorkersRange);
  complaints.range("spin", config.spin, kSpinRange);
  constexpr uint64_t kCommandBytes = 1'024;  // beside the key
  if (kKeyBytesRange.contains(limits.key_bytes) && limits.pipeline_bytes < limits.key_bytes + kCommandBytes)
    complaints.add("limits.pipeline_bytes", "must hold a command with a key of " +
                                                std::to_string(limits.key_bytes) + " bytes: at least " +
                                                std::to_string(limits.key_bytes + kCommandBytes) + ", got " +
                                                std::to_string(limits.pipeline_bytes));
}

void check_bucket(const Rule& rule, const std::string& path, Complaints& complaints) {
  const Rate rate{rule.rate_count, rule.rate_period};
  complaints.range(path + ".burst", rule.limit.limit, kBurstRange);
  if (!parse_rate(format_rate(rate))) {
    complaints.add(path + ".rate", "must be a rate such as \"50/s\", got " + quoted(format_rate(rate)));
    return;
  }
  if (rule.limit.emission != emission_of(rate))
    complaints.add(path + ".rate", "the time between two tokens is not the one of the rate");
  if (std::string wrong = wrong_burst(rate, rule.limit.limit); !wrong.empty()) complaints.add(path + ".burst", wrong);
}

// A half is left for those who do not hold any.
void check_hold(const Rule& rule, const std::string& path, Complaints& complaints) {
  complaints.range(path + ".process_hold", rule.process_hold, kProcessHoldRange);
  const uint32_t held = tokens_held(rule);
  if (held > rule.limit.limit / 2)
    complaints.add(path + ".process_hold", "is taken off the burst, as the tokens of that time: " + format_duration(rule.process_hold) + " are " +
                                               std::to_string(held) + ", of a burst of " + std::to_string(rule.limit.limit) +
                                               " at most half; make it shorter or the burst larger");
}

// What of the window before still counts is weighed by a length.
void check_calendar(const Rule& rule, const std::string& path, Complaints& complaints) {
  if (!is_calendar(rule.limit.window) || rule.limit.algorithm == Algorithm::fixed_window) return;
  const auto days = std::chrono::floor<std::chrono::days>(rule.limit.window);
  complaints.add(path + ".window", "a " + std::string(algorithm_name(rule.limit.algorithm)) + " has a length and no place in the calendar: set \"algorithm\" to \"fixed_window\" to count by the " +
                                       std::string(calendar_name(rule.limit.window)) + ", or give a length such as " + quoted(format_duration(days)));
}

void check_policies(const Rule& rule, const std::string& path, Complaints& complaints) {
  complaints.range(path + ".wait", rule.wait, kWaitRange);
  if (rule.max_overcount.ppm > kPartsPerMillion)
    complaints.add(path + ".max_overcount", "must be at most 100%, or \"unbounded\"");
}

// The script in Redis counts in microseconds, and a request has to be given time for its answer.
void check_mode(const Rule& rule, const std::string& path, const Config::Cluster& cluster, Complaints& complaints) {
  if (rule.mode == Mode::leased) return;
  if (!cluster.books && cluster.mode == Mode::leased)  // else it was said of that
    complaints.add(path + ".mode", std::string(kNeedsBooks));
  if (rule.wait == Duration(0))
    complaints.add(path + ".wait", "each request of a central rule waits for Redis to answer: it cannot be 0");
  if (rule.process_hold != Duration(0))
    complaints.add(path + ".process_hold", "no process admits by itself what Redis decides: leave it out");
  if (rule.limit.algorithm != Algorithm::token_bucket && !is_calendar(rule.limit.window) && nanos(rule.limit.window) % 1'000 != 0)
    complaints.add(path + ".window", "must be of whole microseconds where the mode is \"central\", got " + format_duration(rule.limit.window));
}

// `names`: of all rules.
void check_also(const Rule& rule, const std::unordered_map<std::string_view, size_t>& names, const std::string& path, Complaints& complaints) {
  const auto listed = rule.also_names.begin();
  for (size_t i = 0; i < rule.also_names.size(); ++i) {
    const std::string& name = rule.also_names[i];
    const auto here = listed + static_cast<std::ptrdiff_t>(i);
    if (name == rule.name) {
      complaints.add(item_path(path, i), "a rule is not taken along by itself; leave it out");
    } else if (std::find(listed, here, name) != here) {
      complaints.add(item_path(path, i), quoted(name) + " is there already; leave it out");
    } else if (!names.contains(name)) {
      Nearest nearest(name);
      for (const auto& [known, at] : names) nearest.offer(known);
      const std::string near(nearest.best());
      complaints.add(item_path(path, i), "no rule " + quoted(name) + (near.empty() ? std::string() : "; did you mean " + quoted(near) + "?"));
    }
  }
}

void check_rules(const Config& config, Complaints& complaints) {
  if (config.rules.size() > kRulesMax)
    complaints.add("rules", too_many("rules", kRulesMax, config.rules.size()));
  std::unordered_map<std::string_view, size_t> names;
  for (size_t i = 0; i < config.rules.size(); ++i) {
    const Rule& rule = config.rules[i];
    const std::string path = rule_path(i);
    if (std::string wrong = wrong_rule_name(rule.name); !wrong.empty()) complaints.add(path + ".name", wrong);
    const auto [at, fresh] = names.try_emplace(rule.name, i);
    if (!fresh && !rule.name.empty())
      complaints.add(path + ".name",
                     "the name " + quoted(rule.name) + " is taken by " + rule_path(at->second));
    if (rule.limit.algorithm == Algorithm::token_bucket) {
      check_bucket(rule, path, complaints);
      check_hold(rule, path, complaints);
    } else {
      complaints.range(path + ".limit", rule.limit.limit, kLimitRange);
      complaints.range(path + ".window", rule.limit.window, kWindowRange);
      check_calendar(rule, path, complaints);
    }
    check_policies(rule, path, complaints);
    check_mode(rule, path, config.cluster, complaints);
  }
  for (size_t i = 0; i < config.rules.size(); ++i) check_also(config.rules[i], names, rule_path(i) + ".also", complaints);
  check_policies(config.inline_rule, "inline", complaints);
  check_mode(config.inline_rule, "inline", config.cluster, complaints);
}

}  // namespace

std::string wrong_burst(Rate rate, uint32_t burst) {
  const int64_t burst_max = kBurstSpanMax / emission_of(rate);
  if (burst <= burst_max) return "";
  return "a bucket must fill within 417 days: at " + format_rate(rate) + " a burst of " + std::to_string(burst_max) + " at most, got " +
         std::to_string(burst);
}

std::string wrong_rule_name(std::string_view name) {
  if (name.empty()) return "a rule's name has 1 to " + std::to_string(kRuleNameMax) + " characters, got none";
  if (name.size() > kRuleNameMax)
    return "a rule's name has 1 to " + std::to_string(kRuleNameMax) + " characters, got " +
           std::to_string(name.size());
  if (name == kInlineRule) return quoted(name) + " is reserved for the limits that come with CL.THROTTLE";
  for (const char c : name)
    if (c <= 0x20 || c >= 0x7f)
      return "a rule's name is made of printable ASCII characters without spaces, got " + quoted(name);
  return "";
}

std::string wrong_node_name(std::string_view name) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  };
  if (!name.empty() && name.size() <= kNodeNameMax && name[0] != '.' &&
      std::all_of(name.begin(), name.end(), allowed))
    return "";
  return "a node's name (part of file names) has 1 to " + std::to_string(kNodeNameMax) +
         " letters, digits, '.', '_' or '-' and does not begin with '.', got " + quoted(name);
}

Duration Config::Cluster::isolation() const {
  return isolation_after.value_or(std::max<Duration>(std::chrono::seconds(2), 10 * sync_interval));
}
Duration Config::Cluster::lease_length() const {
  return lease.value_or(std::max<Duration>(std::chrono::seconds(1), 10 * sync_interval));
}
std::string Config::Cluster::own_entry() const { return self.value_or(bind); }
bool Config::Cluster::owner() const {
  const auto owns = [&](const Members& list) {
    return list.aggregators.empty() ? list.lists(own_entry()) : std::ranges::find(list.aggregators, own_entry()) != list.aggregators.end();
  };
  return owns(*this) || (previous && owns(*previous));
}

bool built_with_rls() { return TALLY_RLS_BUILT; }

std::vector<Problem> validate(const Config& config) {
  Complaints complaints;
  check_node(config, complaints);
  check_listeners(config, complaints);
  check_cluster(config.cluster, complaints);
  check_sizes(config, complaints);
  check_rules(config, complaints);
  return complaints.take();
}

}  // namespace tally
