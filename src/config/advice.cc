// What is legal but unwise on this cluster, and what each rule really promises there. The numbers are the
// core's own (floor_of, bound_of): nothing is worked out twice.
#include <algorithm>
#include <array>
#include <string>

#include "config/checks.h"
#include "config/config.h"
#include "config/json_tree.h"
#include "config/peer_entry.h"
#include "config/values.h"
#include "core/overrides.h"

namespace tally {
namespace {

using std::chrono::milliseconds;

// How the budget of a rule lies on the nodes: the first `larger` ranks have one more than the others.
struct Floors {
  uint32_t most = 0;
  uint32_t least = 0;
  uint32_t with_most = 0;  // nodes that have `most`
};

bool is_bucket(const Rule& rule) { return rule.limit.algorithm == Algorithm::token_bucket; }
bool is_strict(const Rule& rule) { return !rule.max_overcount.unbounded && rule.max_overcount.ppm == 0; }

uint32_t floor_at(const Rule& rule, Share share) {
  if (is_bucket(rule))  // what its floor bucket holds
    return inline_limit(rule, share, rule.limit.limit - tokens_held(rule), rule.rate_count, rule.rate_period).floor;
  return floor_of(rule.limit.limit, rule.max_overcount, share);
}

Floors floors_of(const Rule& rule, uint32_t nodes) {
  const auto at = [&](uint32_t rank) { return floor_at(rule, Share{rank, nodes}); };
  Floors floors{at(0), at(nodes - 1), nodes};
  uint32_t low = 0,
           high = nodes;  // floors fall with the rank: search the first node that has less than the first
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    if (at(middle) == floors.most)
      low = middle + 1;
    else
      high = middle;
  }
  floors.with_most = low;
  return floors;
}

// Each of its keys is exempt or blocked, so its limit means nothing.
bool limits_nothing(const Rule& rule) { return rule.overrides != nullptr && rule.overrides->limits_nothing(); }

bool can_lease(const Rule& rule, Duration sync_interval) {
  return is_bucket(rule) || rule.limit.window >= shortest_leasing_window(sync_interval);
}

// Above 1 % a tenth of a percent is exact enough: rounded up, so that what is said does end it.
std::string what_ends_waiting(const Rule& rule, uint32_t nodes) {
  constexpr uint64_t kTenth = 1'000;
  uint64_t ppm = waiting_ends_at_ppm(rule.limit.limit, nodes);
  if (ppm > kPartsPerMillion)
    return "only \"unbounded\" ends the waiting (the limit is below the number of nodes)";
  if (ppm > 10 * kTenth) ppm = (ppm + kTenth - 1) / kTenth * kTenth;
  Rule wider = rule;
  wider.max_overcount = {static_cast<uint32_t>(ppm), false};
  return "a max_overcount of \"" + format_overcount(wider.max_overcount) +
         "\" ends the waiting, with a bound of " + std::to_string(bound_of(wider, nodes));
}

// The most in one window while nodes are cut off. What `share` comes to is no hard bound (docs/cluster.md, isolation).
std::string isolated_text(const Rule& rule, uint32_t nodes) {
  return (rule.on_isolation == OnIsolation::share && nodes > 1 ? "~" : "") + std::to_string(bound_isolated_of(rule, nodes));
}

class Advisor {
 public:
  explicit Advisor(const Config& config) : config_(config), nodes_(config.cluster.nodes()) {}

  std::vector<Problem> run() {
    advise_listeners();
    advise_cluster();
    for (size_t i = 0; i < config_.rules.size(); ++i) {
      const Rule& rule = config_.rules[i];
      if (limits_nothing(rule)) continue;
      if (is_bucket(rule)) advise_rate(rule, rule_path(i));
      if (!config_.cluster.alone() && rule.mode == Mode::leased) advise_rule(rule, rule_path(i));
    }
    return std::move(list_);
  }

 private:
  void add(std::string path, std::string message) {
    list_.push_back({0, 0, std::move(path), std::move(message)});
  }

  // RESP and gRPC are refused beyond loopback. HTTP is not: metrics are fetched by other hosts.
  void advise_listeners() {
    for (size_t i = 0; i < config_.resp.size(); ++i)
      if (config_.resp[i].kind == Address::Kind::tcp)
        add(item_path("listen.resp", i),
            "every user and process of this host may also order and change here, for the whole fleet: TALLY.BLOCK, ALLOW, LIMIT, LIFT, "
            "RESET, RELOAD and FORGET; a Unix socket such as \"unix:/run/tallyd/tallyd.sock?mode=0660\" leaves that to its group, and HTTP "
            "over TCP lets through what takes and what reads");
    for (size_t i = 0; i < config_.http.size(); ++i) {
      const Address& address = config_.http[i];
      if (address.kind != Address::Kind::tcp || parse_endpoint(address.text()).value().loopback) continue;
      add(item_path("listen.http", i),
          "HTTP has no passwords and no encryption, and " + quoted(address.text()) +
              " is not a loopback address: whoever reaches it may take from any key; let only your proxies and Prometheus reach it");
    }
  }

  void advise_cluster() {
    const Config::Cluster& cluster = config_.cluster;
    if (cluster.alone()) {
      if (!cluster.bind.empty() || cluster.size > 1)
        add(cluster.bind.empty() ? "cluster.size" : "cluster.bind",
            "there are no other peers: this node counts alone; list the same peers at every node" +
                one_name_is_one_node());
      return;
    }
    advise_names();
    if (cluster.aggregators.size() == 1)
      add("cluster.aggregators",
          "one alone: while it is down, keys get nothing beyond their floors; with three, one may be down");
    if (cluster.owners() == 2)
      add(cluster.aggregators.empty() ? "cluster.peers" : "cluster.aggregators",
          std::string(cluster.aggregators.empty() ? "a fleet of two" : "two of them") +
              ": both must live, or keys get nothing beyond their floors; a third member, which "
              "needs no "
              "applications of its own, gives a failover");
    const Duration usual = std::max<Duration>(std::chrono::seconds(2), 10 * cluster.sync_interval);
    if (cluster.isolation() < usual)
      add("cluster.isolation_after",
          "shorter than a failover may take: nodes would count as cut off while a key changes "
          "its owner; " +
              format_duration(usual) + " or more is safe");
  }

  // A Kubernetes service with many pods behind it is easily taken for a list of them.
  std::string one_name_is_one_node() const {
    const auto& peers = config_.cluster.peers;
    const auto only = peers.size() == 1 ? parse_peer(peers.front()) : Result<PeerEntry>(PeerEntry{});
    return only && only.value().looked_up() ? " (a name stands for one node, however many addresses it has)" : "";
  }

  void advise_names() {
    const Config::Cluster& cluster = config_.cluster;
    if (!cluster.secret_file.empty() || advised_names_of("cluster", cluster) || !cluster.upstream) return;
    advised_names_of("cluster.upstream", *cluster.upstream);
  }

  bool advised_names_of(const std::string& section, const Config::Members& members) {
    for (size_t i = 0; i < members.entries().size(); ++i) {
      const auto entry = parse_peer(members.entries()[i]);
      if (!entry || !entry.value().looked_up()) continue;
      add(section + (members.peers.empty() ? ".aggregators[" : ".peers[") + std::to_string(i) + "]",
          "without a secret_file only addresses on loopback are used of what a name has");
      return true;
    }
    return false;
  }

  void advise_rate(const Rule& rule, const std::string& path) {
    // The emission is rounded up to a whole nanosecond: say so where that takes more than 1 % of the rate.
    const auto per_period = static_cast<uint64_t>(rule.rate_period / rule.limit.emission);
    if (per_period < uint64_t{rule.rate_count} * 99 / 100)
      add(path + ".rate", "tokens come every whole nanosecond: this is " + std::to_string(per_period) +
                              " in " + format_duration(rule.rate_period) + ", not " +
                              std::to_string(rule.rate_count));
  }

  void advise_rule(const Rule& rule, const std::string& path) {
    if (rule.max_overcount.unbounded && config_.cluster.upstream)
      add(path + ".max_overcount", "an unbounded rule is counted by each region alone: over all regions it admits the limit once in each");
    if (rule.max_overcount.unbounded)
      return;  // every node has the whole limit: nobody waits, nothing is leased
    const Duration sync_interval = config_.cluster.sync_interval;
    if (!can_lease(rule, sync_interval)) return advise_short_window(rule, path);
    if (is_strict(rule)) return advise_strict(rule, path);
    const Floors floors = floors_of(rule, nodes_);
    if (floors.least > 0) return;
    const uint32_t without = floors.most == 0 ? nodes_ : nodes_ - floors.with_most;
    const std::string first =
        rule.wait.count() == 0
            ? "a key's first request there is refused (\"wait\" is 0)"
            : "a key's first request there waits for a grant, up to " + format_duration(rule.wait);
    add(path + ".max_overcount",
        format_overcount(rule.max_overcount) + " of " + std::to_string(rule.limit.limit) + " over " +
            std::to_string(nodes_) + " nodes leaves " + std::to_string(without) +
            " of them a floor of 0: " + first + "; " + what_ends_waiting(rule, nodes_));
  }

  void advise_short_window(const Rule& rule, const std::string& path) {
    const Duration interval_max = rule.limit.window / 4 - kRoundTripAssumed;
    std::string message =
        "too short to lease in time at a sync interval of " + format_duration(config_.cluster.sync_interval) +
        ": each node admits its floor only; a window of " +
        format_duration(shortest_leasing_window(config_.cluster.sync_interval)) + " or more";
    if (interval_max >= milliseconds(1))
      message += ", or a sync interval of " +
                 format_duration(std::chrono::floor<milliseconds>(interval_max)) + " or less,";
    message += " would do";
    if (floors_of(rule, nodes_).least == 0)
      message += "; some nodes have a floor of 0 and admit nothing at all";
    add(path + ".window", message);
  }

  void advise_strict(const Rule& rule, const std::string& path) {
    if (rule.wait.count() == 0)
      add(path + ".wait",
          "a strict rule has no floors, so with a wait of 0 a key's first request at a node is refused "
          "while the grant is on its way; \"20ms\" lets it wait");
    if (rule.on_isolation != OnIsolation::closed)
      add(path + ".on_isolation", "a strict rule, but nodes that are cut off may admit up to " +
                                      isolated_text(rule, nodes_) + " in all by " + "\"" +
                                      std::string(isolation_name(rule.on_isolation)) +
                                      "\"; \"closed\" keeps it at " + std::to_string(bound_of(rule, nodes_)));
  }

  const Config& config_;
  uint32_t nodes_;
  std::vector<Problem> list_;
};

// A table with its columns aligned; the last one runs free.
class Table {
 public:
  using Row = std::vector<std::string>;
  void add(Row row) { rows_.push_back(std::move(row)); }
  std::string text() const {
    std::vector<size_t> width;
    for (const Row& row : rows_)
      for (size_t i = 0; i < row.size(); ++i) {
        if (width.size() <= i) width.push_back(0);
        width[i] = std::max(width[i], row[i].size());
      }
    std::string out;
    for (const Row& row : rows_) {
      for (size_t i = 0; i < row.size(); ++i) {
        out += row[i];
        if (i + 1 < row.size()) out.append(width[i] - row[i].size() + 2, ' ');
      }
      out += '\n';
    }
    return out;
  }

 private:
  std::vector<Row> rows_;
};

std::string keys_text(const Rule& rule) {
  if (limits_nothing(rule)) return "none: each key is exempt or blocked";
  std::string text = describe_limit(rule);
  if (rule.overrides != nullptr) text += "; overrides: " + std::to_string(rule.overrides->size());
  return text;
}

std::string floors_text(const Floors& floors, uint32_t nodes) {
  if (floors.most == floors.least) return std::to_string(floors.most) + " each";
  return std::to_string(floors.most) + " at " + std::to_string(floors.with_most) + ", " +
         std::to_string(floors.least) + " at " + std::to_string(nodes - floors.with_most);
}

std::string central_waiting_text(const Rule& rule) { return "every request, up to " + format_duration(rule.wait) + " for the answer of Redis"; }

std::string waiting_text(const Rule& rule, const Config::Cluster& cluster) {
  if (rule.mode == Mode::central) return central_waiting_text(rule);
  const uint32_t nodes = cluster.nodes();
  if (rule.max_overcount.unbounded) return "nothing; the owner says stop once the fleet has used the limit";
  if (!can_lease(rule, cluster.sync_interval)) return "nothing: too short to lease in, floors only";
  const std::string wait = rule.wait.count() == 0
                               ? " is refused until the grant is there (wait 0)"
                               : ", up to " + format_duration(rule.wait) + " for the grant";
  const Floors floors = floors_of(rule, nodes);
  if (floors.least > 0) return "what is beyond the floor" + wait;
  const uint32_t without = floors.most == 0 ? nodes : nodes - floors.with_most;
  const std::string where = without == nodes ? "any node" : std::to_string(without) + " of the nodes";
  return "a key's first request at " + where + wait + "; " + what_ends_waiting(rule, nodes);
}

std::string inline_waiting_text(const Rule& rule, uint32_t nodes) {
  if (rule.mode == Mode::central) return central_waiting_text(rule);
  if (rule.max_overcount.unbounded) return "nothing; the owner says stop once the fleet has used the limit";
  if (is_strict(rule)) return "a key's first request at any node";
  const uint64_t ppm = rule.max_overcount.ppm;
  const uint64_t least = (uint64_t{nodes} * kPartsPerMillion + ppm - 1) / ppm;
  return "first requests at some nodes where a call's limit is under " + std::to_string(least);
}

Table::Row promise_row(const Rule& rule, const Config::Cluster& cluster) {
  const uint32_t nodes = cluster.nodes();
  const bool central = rule.mode == Mode::central;
  const std::string e = central ? "central" : is_strict(rule) ? "strict" : format_overcount(rule.max_overcount);
  const std::string policy = " (" + std::string(isolation_name(rule.on_isolation)) + ")";
  if (limits_nothing(rule)) return {rule.name, keys_text(rule), "-", "-", "-", "-", "nothing"};
  if (rule.name == kInlineRule)  // no limit of its own: what holds for all
    return {rule.name, "as each call says", e, "-", "-", "-" + policy, inline_waiting_text(rule, nodes)};
  return {rule.name,
          keys_text(rule),
          e,
          central ? "-" : floors_text(floors_of(rule, nodes), nodes),
          std::to_string(bound_of(rule, nodes)),
          isolated_text(rule, nodes) + policy,
          waiting_text(rule, cluster)};
}

std::string describe_alone(const Config& config) {
  Table table;
  table.add({"rule", "limit"});
  for (const Rule& rule : config.rules) table.add({rule.name, keys_text(rule)});
  table.add({std::string(kInlineRule), "as each call says"});
  return "alone: every limit is counted here and holds as it is written\n\n" + table.text();
}

}  // namespace

std::string describe_limit(const Rule& rule) {
  if (is_bucket(rule)) {
    const uint32_t held = tokens_held(rule);
    return format_rate({rule.rate_count, rule.rate_period}) + ", burst " + std::to_string(rule.limit.limit) +
           (held != 0 ? " less " + std::to_string(held) + " for processes" : "");
  }
  return std::to_string(rule.limit.limit) + " per " + format_window(rule.limit.window) +
         (rule.limit.algorithm == Algorithm::fixed_window ? ", fixed" : ", sliding");
}

std::vector<Problem> advice(const Config& config) { return Advisor(config).run(); }

std::string describe_promises(const Config& config) {
  const Config::Cluster& cluster = config.cluster;
  if (cluster.alone()) return describe_alone(config);
  Table table;
  table.add({"rule", "limit", "e", "floor", "bound", "bound isolated", "what waits"});
  for (const Rule& rule : config.rules) table.add(promise_row(rule, cluster));
  table.add(promise_row(config.inline_rule, cluster));
  std::string out = "fleet of " + std::to_string(cluster.entries().size());
  if (cluster.nodes() != cluster.entries().size())
    out += ", floors split over " + std::to_string(cluster.nodes());
  if (cluster.peers.empty())
    out += ", all of them aggregators; nodes that are in no list are their guests, without floors";
  else if (!cluster.aggregators.empty())
    out += ", keys belong to " + std::to_string(cluster.aggregators.size()) + " of them";
  out += ", sync interval " + format_duration(cluster.sync_interval) + ", cut off after " +
         format_duration(cluster.isolation()) + "\n";
  if (cluster.upstream)
    out += "a region: what is issued here is drawn from " + std::to_string(cluster.upstream->entries().size()) +
           " above; over all regions a window's bound is the limit and the floors of each\n";
  out +=
      "e: max_overcount; floor: what a node admits without asking; bound: the most in one window over the "
      "fleet\n";
  if (std::any_of(config.rules.begin(), config.rules.end(), is_bucket))
    out += "a bucket's bound: the most at once; in a time T at most (1 + e) * rate * T come on top\n";
  if (std::any_of(config.rules.begin(), config.rules.end(), [](const Rule& rule) { return rule.on_isolation == OnIsolation::share; }))
    out += "~: about, as shares are told to one node after the other; what cannot be passed is what \"open\" would have here\n";
  return out + "\n" + table.text();
}

}  // namespace tally
