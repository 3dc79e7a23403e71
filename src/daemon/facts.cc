#include "daemon/facts.h"

#include <algorithm>

#include "cluster/roster.h"
#include "core/overrides.h"
#include "daemon/top.h"

namespace tally {
namespace {

int64_t whole(uint64_t n) { return static_cast<int64_t>(std::min<uint64_t>(n, INT64_MAX)); }
int64_t milliseconds(Duration d) { return d < Duration(0) ? -1 : nanos(d) / 1'000'000; }

class Fields {
 public:
  void add(std::string name, resp::Value value) { fields_.push_back({std::move(name), std::move(value)}); }
  void add(std::string name, int64_t n) { add(std::move(name), resp::Value(n)); }
  void add(std::string name, uint64_t n) { add(std::move(name), resp::Value(whole(n))); }
  std::vector<resp::Field> take() { return std::move(fields_); }

 private:
  std::vector<resp::Field> fields_;
};

void add_node_stats(Fields& fields, const NodeStats& node) {
  fields.add("datagrams_in", node.datagrams_in);
  fields.add("datagrams_out", node.datagrams_out);
  for (size_t i = 0; i < kEntryKinds; ++i) {
    const std::string kind(entry_kind_name(i));
    fields.add("entries_in_" + kind, node.entries_in[i]);
    fields.add("entries_out_" + kind, node.entries_out[i]);
  }
  for (const auto& [reason, n] : node.dropped) fields.add("dropped_" + reason, n);
  fields.add("marks_accepted", node.marks_accepted);
  fields.add("marks_refused", node.marks_refused);
  fields.add("accounts", node.accounts);
  fields.add("keys_owned", node.ledgers);
  fields.add("registers", node.registers);
  fields.add("overflow_cells", node.overflow_cells);
  fields.add("marks_overflowed", node.marks_overflowed);
  fields.add("keys_without_majority", node.keys_without_majority);
  fields.add("roster_version", uint64_t{node.roster_version});
  fields.add("roster_settled", resp::Value(node.roster_settled));
  fields.add("denied_under_limit", node.denied_under_limit);
}

}  // namespace

std::vector<resp::Field> explain_fields(const Explanation& e, const Rule& rule, std::string_view key, uint32_t size,
                                        const Answer* answer, const std::string& ordered) {
  Fields fields;
  fields.add("rule", rule.name);
  if (!ordered.empty()) fields.add("order", ordered);
  const std::string override = rule.overrides != nullptr ? rule.overrides->key_of(key) : "";
  if (!override.empty()) fields.add("override", override);
  fields.add("owner", e.owner);
  fields.add("role", e.role);
  fields.add("group", e.group);
  fields.add("ballot", e.ballot_node.empty() ? std::to_string(e.ballot_counter)
                                             : std::to_string(e.ballot_counter) + " " + e.ballot_node);
  fields.add("used_here", e.used_here);
  fields.add("used_fleet", e.used_fleet);
  fields.add("ceiling", e.ceiling);
  fields.add("floor", e.floor);
  fields.add("mark", e.mark);
  fields.add("knowledge_age_ms", milliseconds(e.knowledge_age));
  if (answer != nullptr && answer->verdict != Verdict::exempt) {  // of nothing, where the key is blocked
    fields.add("bound", bound_of(rule, answer->limit, size));
    fields.add("bound_isolated", bound_isolated_of(rule, answer->limit, size));
  }
  fields.add("isolated", resp::Value(e.isolated));
  fields.add("reason",
             answer != nullptr
                 ? resp::sentence(*answer, rule, !ordered.empty())
                 : std::string("the limit comes with each call: CL.THROTTLE with quantity 0 tells"));
  return fields.take();
}

std::vector<std::vector<resp::Field>> order_maps(const std::vector<KeyOrder>& orders, WallTime now) {
  std::vector<std::vector<resp::Field>> maps;
  for (const KeyOrder& order : orders) {
    Fields fields;
    fields.add("rule", order.rule);
    fields.add("key", order.key);
    fields.add("order", std::string(resp::name_of(order.kind)));
    if (order.kind == OrderKind::limit) fields.add("limit", uint64_t{order.limit});
    fields.add("for_ms", resp::milliseconds_up(std::max(WallTime(Duration(order.until_ns)) - now, Duration(0))));
    maps.push_back(std::move(fields).take());
  }
  return maps;
}

Explanation explain_alone(const std::string& node, const Answer* answer) {
  Explanation e;
  e.owner = node;
  e.role = "alone";
  e.group = {node};
  e.knowledge_age = Duration(0);
  if (answer != nullptr) {
    e.used_here = e.used_fleet = answer->limit - std::min(answer->remaining, answer->limit);
    e.ceiling = answer->limit;
  }
  return e;
}

Explanation explain_central(const Limit& limit, const Answer* answer) {
  Explanation e;
  e.owner = kBooksEntry;
  e.role = "central";
  e.group = {e.owner};
  e.floor = limit.floor;
  if (answer == nullptr) return e;
  e.ceiling = answer->limit;
  e.isolated = answer->isolated;
  (e.isolated ? e.used_here : e.used_fleet) = answer->limit - std::min(answer->remaining, answer->limit);
  if (!e.isolated) e.knowledge_age = Duration(0);
  return e;
}

std::vector<resp::Row> peer_rows(const std::vector<PeerStatus>& peers) {
  std::vector<resp::Row> rows;
  for (const PeerStatus& peer : peers) {
    Fields fields;
    fields.add("role", std::string(peer_role_name(peer.role)));
    fields.add("self", resp::Value(peer.self));
    if (peer.role != PeerRole::guest) fields.add("address", peer.address);
    fields.add("transport", std::string(peer.self ? "" : peer.tcp ? "tcp" : "udp"));
    fields.add("up", resp::Value(peer.up));
    fields.add("last_heard_ms", milliseconds(peer.last_heard));
    fields.add("round_trip_us", resp::Value(int64_t{nanos(peer.round_trip) / 1'000}));
    fields.add("clock_skew_us", resp::Value(int64_t{nanos(peer.clock_skew) / 1'000}));
    fields.add("loss_percent", static_cast<int64_t>(peer.loss * 100 + 0.5));
    fields.add("incarnation", peer.incarnation);
    fields.add("roster_version", uint64_t{peer.roster_version});
    fields.add("gone", resp::Value(peer.gone));
    fields.add("rules_mismatch", resp::Value(peer.rules_mismatch));
    fields.add("roster_mismatch", resp::Value(peer.roster_mismatch));
    fields.add("bytes_in", peer.bytes_in);
    fields.add("bytes_out", peer.bytes_out);
    rows.push_back({peer.name, fields.take()});
  }
  return rows;
}

std::vector<resp::Field> stats_fields(const Overview& overview, const NodeStats* node, MonoTime now) {
  Fields fields;
  fields.add("version", std::string(kVersion));
  fields.add("node", overview.node);
  fields.add("uptime_ms", milliseconds(now - overview.started));
  fields.add("ready", resp::Value(overview.ready.load(std::memory_order_relaxed)));
  fields.add("connections", overview.total(&WorkerCounters::connections));
  fields.add("requests", overview.total(&WorkerCounters::requests));
  const auto rules = overview.rules();
  for (size_t i = 0; i < kOutcomes; ++i) {
    uint64_t n = 0;
    for (size_t rule = 0; rule < rules->ids(); ++rule) n += overview.decisions(static_cast<uint16_t>(rule), static_cast<Outcome>(i));
    fields.add(kOutcomeNames[i], n);
  }
  fields.add("top_span_ms", milliseconds(top_span(overview, now)));
  fields.add("waiting", overview.total(&WorkerCounters::waiting));
  for (size_t i = 0; i < kTroubles; ++i)
    fields.add(kTroubleNames[i], overview.troubles(static_cast<Trouble>(i)));
  fields.add("keys", uint64_t{overview.limiter.slots().occupied()});
  fields.add("keys_capacity", uint64_t{overview.limiter.slots().capacity()});
  fields.add("keys_evicted_live", overview.limiter.slots().evicted_live());
  fields.add("keys_evicted_idle", overview.limiter.slots().evicted_idle());
  fields.add("notes_dropped", overview.limiter.notes_dropped());
  if (node != nullptr) add_node_stats(fields, *node);
  return fields.take();
}

}  // namespace tally
