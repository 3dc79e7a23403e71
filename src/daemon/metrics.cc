#include "daemon/metrics.h"

#include <prometheus/text_serializer.h>

#include <future>
#include <utility>

#include "daemon/process_metrics.h"
#include "doors/commands.h"

namespace tally {
namespace {

using Families = std::vector<prometheus::MetricFamily>;
constexpr auto kPatience = std::chrono::seconds(1);  // for the cluster thread's answer
constexpr const char* kPolicyNames[] = {"share", "open", "closed"};

double seconds(Duration d) { return static_cast<double>(nanos(d)) * 1e-9; }

double promised(uint64_t bound, uint32_t limit) {
  return static_cast<double>(bound) / static_cast<double>(limit) - 1.0;
}

void add_histogram(Family& family, std::vector<prometheus::ClientMetric::Label> labels,
                   const std::vector<const TimeHistogram*>& parts) {
  prometheus::ClientMetric metric;
  metric.label = std::move(labels);
  uint64_t cumulative = 0;
  for (size_t i = 0; i <= TimeHistogram::kBounds; ++i) {
    for (const TimeHistogram* part : parts) cumulative += part->bucket(i);
    if (i < TimeHistogram::kBounds)
      metric.histogram.bucket.push_back({cumulative, TimeHistogram::upper_seconds(i)});
  }
  for (const TimeHistogram* part : parts) metric.histogram.sample_sum += part->sum_seconds();
  metric.histogram.sample_count = cumulative;
  family.add(std::move(metric));
}

void add_decisions(Families& all, const Overview& overview) {
  Family decisions(all, "tallyd_decisions_total", "Decisions by rule and outcome.", MetricKind::counter);
  Family isolated(all, "tallyd_isolated_decisions_total",
                  "Decisions, of any outcome, on keys whose owner could not be asked, by policy.",
                  MetricKind::counter);
  Family leased(all, "tallyd_process_tokens_total", "What processes took to admit by themselves, and what they put back of it.",
                MetricKind::counter);
  const auto rules = overview.rules();
  for (size_t id = 0; id < rules->ids(); ++id) {  // those that a reload has left out, too: counters do not vanish
    const Rule& rule = rules->by_id(static_cast<uint16_t>(id));
    for (size_t i = 0; i < kOutcomes; ++i) {
      const uint64_t n = overview.decisions(rule.id, static_cast<Outcome>(i));
      decisions.add({{"rule", rule.name}, {"outcome", kOutcomeNames[i]}}, n);
    }
    isolated.add({{"rule", rule.name}, {"policy", kPolicyNames[static_cast<size_t>(rule.on_isolation)]}},
                 overview.decided_isolated(rule.id));
    leased.add({{"rule", rule.name}, {"way", "leased"}}, overview.leased(rule.id));
    leased.add({{"rule", rule.name}, {"way", "put_back"}}, overview.put_back(rule.id));
  }
  decisions.add({{"rule", ""}, {"outcome", "unknown_rule"}}, overview.total(&WorkerCounters::unknown_rule));

  Family duration(all, "tallyd_decision_duration_seconds",
                  "From reading the clock for a batch to its last decision.", MetricKind::histogram);
  std::vector<const TimeHistogram*> parts;
  for (const auto& worker : overview.workers) parts.push_back(&worker->batch);
  add_histogram(duration, {}, parts);
}

void add_doors(Families& all, const Overview& overview) {
  const GrpcCounts grpc = overview.grpc ? overview.grpc() : GrpcCounts{};
  Family requests(all, "tallyd_requests_total", "Commands and requests answered, by protocol.", MetricKind::counter);
  Family connections(all, "tallyd_connections", "Open connections of applications, by protocol.", MetricKind::gauge);
  for (size_t i = 0; i < kProtocols; ++i) {
    const auto protocol = static_cast<Protocol>(i);
    requests.add({{"protocol", kProtocolNames[i]}}, overview.total(&WorkerCounters::requests, protocol));
    connections.add({{"protocol", kProtocolNames[i]}}, overview.total(&WorkerCounters::connections, protocol));
  }
  if (overview.grpc) {
    requests.add({{"protocol", "grpc"}}, grpc.answered);
    connections.add({{"protocol", "grpc"}}, grpc.connections);
  }
  Family errors(all, "tallyd_errors_total", "Requests that were refused or not kept, by kind.",
                MetricKind::counter);
  for (size_t i = 1; i < kFaults; ++i) {
    const auto fault = static_cast<resp::Fault>(i);
    errors.add({{"kind", std::string(resp::name_of(fault))}}, overview.faults(i) + (fault == resp::Fault::arguments ? grpc.invalid : 0));
  }
  for (size_t i = 0; i < kTroubles; ++i)
    errors.add({{"kind", kTroubleNames[i]}}, overview.troubles(static_cast<Trouble>(i)));

  Family(all, "tallyd_waiting_requests", "Requests that wait for a grant.", MetricKind::gauge)
      .add({}, overview.total(&WorkerCounters::waiting));
  Family waited(all, "tallyd_wait_duration_seconds",
                "How long requests waited for a grant, by what became of them.", MetricKind::histogram);
  const std::pair<const char*, TimeHistogram WorkerCounters::*> outcomes[] = {
      {"granted", &WorkerCounters::waited_granted},
      {"denied", &WorkerCounters::waited_denied},
      {"dropped", &WorkerCounters::waited_dropped}};
  for (const auto& [name, histogram] : outcomes) {
    std::vector<const TimeHistogram*> parts;
    for (const auto& worker : overview.workers) parts.push_back(&((*worker).*histogram));
    add_histogram(waited, {{"outcome", name}}, parts);
  }
}

void add_staleness(Families& all, const Overview& overview) {
  Family staleness(
      all, "tallyd_sync_staleness_seconds",
      "Since the key's owner was heard, of one decision in many on keys that it was asked about.",
      MetricKind::histogram);
  std::vector<const TimeHistogram*> parts;
  for (const auto& worker : overview.workers) parts.push_back(&worker->staleness);
  add_histogram(staleness, {}, parts);
}

void add_table(Families& all, const Overview& overview) {
  const SlotTable& slots = overview.limiter.slots();
  Family(all, "tallyd_keys", "Keys in the table.", MetricKind::gauge).add({}, uint64_t{slots.occupied()});
  Family(all, "tallyd_keys_capacity", "Keys that the table has room for.", MetricKind::gauge)
      .add({}, uint64_t{slots.capacity()});
  Family(all, "tallyd_keys_evicted_total",
         "Keys that made room for others, by whether their window still ran.", MetricKind::counter)
      .add({{"live", "true"}}, slots.evicted_live())
      .add({{"live", "false"}}, slots.evicted_idle());
  Family(all, "tallyd_notes_dropped_total", "Notes to the cluster thread that found their ring full.",
         MetricKind::counter)
      .add({}, overview.limiter.notes_dropped());
}

void add_promises(Families& all, const Overview& overview) {
  const auto rules = overview.rules();
  const uint32_t size = rules->share().size;
  Family bound(all, "tallyd_overcount_promised_ratio", "What the fleet may admit above the limit, by rule.",
               MetricKind::gauge);
  Family isolated(all, "tallyd_overcount_promised_isolated_ratio",
                  "What the fleet may admit above the limit while nodes are cut off, by rule.",
                  MetricKind::gauge);
  for (const Rule& rule : rules->all()) {
    if (&rule == &rules->inline_rule()) continue;  // its limit comes with each call
    bound.add({{"rule", rule.name}}, promised(bound_of(rule, size), rule.limit.limit));
    isolated.add({{"rule", rule.name}}, promised(bound_isolated_of(rule, size), rule.limit.limit));
  }
}

void add_peers(Families& all, const std::vector<PeerStatus>& peers) {
  Family up(all, "tallyd_peer_up", "Whether the peer was heard of late.", MetricKind::gauge);
  Family heard(all, "tallyd_peer_last_heard_seconds", "Time since the peer was heard.", MetricKind::gauge);
  Family trip(all, "tallyd_peer_round_trip_seconds", "Smoothed round trip to the peer.", MetricKind::gauge);
  Family skew(all, "tallyd_peer_clock_skew_seconds", "The peer's system clock less ours.", MetricKind::gauge);
  Family mismatch(all, "tallyd_peer_rules_mismatch", "Whether the peer has other rules than this node.",
                  MetricKind::gauge);
  Family bytes(all, "tallyd_sync_bytes_total", "Bytes of datagrams from and to the peer.",
               MetricKind::counter);
  Family transport(all, "tallyd_peer_transport", "1 for the way by which the peer is spoken to, udp or tcp.", MetricKind::gauge);
  uint64_t guests = 0, by_tcp = 0;  // they come and go: none is a label
  for (const PeerStatus& peer : peers) {
    if (peer.self) continue;
    if (peer.role == PeerRole::guest) {
      ++guests;
      by_tcp += peer.tcp;
      continue;
    }
    const Labels name{{"peer", peer.name}};
    up.add(name, uint64_t{peer.up});
    transport.add({{"peer", peer.name}, {"transport", "udp"}}, uint64_t{!peer.tcp});
    transport.add({{"peer", peer.name}, {"transport", "tcp"}}, uint64_t{peer.tcp});
    if (peer.last_heard >= Duration(0)) heard.add(name, seconds(peer.last_heard));
    if (peer.last_heard >= Duration(0)) trip.add(name, seconds(peer.round_trip));
    if (peer.last_heard >= Duration(0)) skew.add(name, seconds(peer.clock_skew));
    mismatch.add(name, uint64_t{peer.rules_mismatch});
    bytes.add({{"peer", peer.name}, {"direction", "in"}}, peer.bytes_in);
    bytes.add({{"peer", peer.name}, {"direction", "out"}}, peer.bytes_out);
  }
  Family(all, "tallyd_guests", "Nodes that are in no list and were heard of late: lessees of this one.", MetricKind::gauge).add({}, guests);
  Family(all, "tallyd_guests_by_tcp", "Those of them that are spoken to by TCP.", MetricKind::gauge).add({}, by_tcp);
}

void add_addresses(Families& all, const ClusterThread::View& node) {
  Family addresses(all, "tallyd_peer_addresses", "Addresses at which the peer is known; 0: nobody knows where it is.", MetricKind::gauge);
  for (size_t i = 0; i < node.peers.size(); ++i)
    if (!node.peers[i].self && node.peers[i].role != PeerRole::guest) addresses.add({{"peer", node.peers[i].name}}, node.peers[i].addresses);
  Family(all, "tallyd_peer_lookups_total", "Lookups of names of peers, by outcome.", MetricKind::counter)
      .add({{"outcome", "found"}}, node.lookups.found)
      .add({{"outcome", "failed"}}, node.lookups.failed);
}

PeerStreams::Counts sum(const std::vector<PeerStreams::Counts>& links) {
  PeerStreams::Counts all;
  for (const PeerStreams::Counts& one : links) {
    for (uint64_t PeerStreams::Counts::*n : {&PeerStreams::Counts::accepted, &PeerStreams::Counts::dialed, &PeerStreams::Counts::queue_full,
                                             &PeerStreams::Counts::malformed, &PeerStreams::Counts::over, &PeerStreams::Counts::unknown,
                                             &PeerStreams::Counts::crowded, &PeerStreams::Counts::replaced, &PeerStreams::Counts::failed,
                                             &PeerStreams::Counts::unused})
      all.*n += one.*n;
  }
  return all;
}

void add_streams(Families& all, const PeerStreams::Counts& n) {
  Family(all, "tallyd_tcp_connections", "Open connections between nodes, by who opened them.", MetricKind::gauge)
      .add({{"opened", "here"}}, n.dialed)
      .add({{"opened", "there"}}, n.accepted);
  Family(all, "tallyd_tcp_closed_total", "Connections between nodes that ended, by reason.", MetricKind::counter)
      .add({{"reason", "malformed"}}, n.malformed)
      .add({{"reason", "over"}}, n.over)
      .add({{"reason", "unknown"}}, n.unknown)
      .add({{"reason", "crowded"}}, n.crowded)
      .add({{"reason", "replaced"}}, n.replaced)
      .add({{"reason", "failed"}}, n.failed)
      .add({{"reason", "unused"}}, n.unused);
}

void add_node(Families& all, const NodeStats& node, const Overview& overview, uint64_t registers_max) {
  Family(all, "tallyd_sync_datagrams_total", "Datagrams between nodes.", MetricKind::counter)
      .add({{"direction", "in"}}, node.datagrams_in)
      .add({{"direction", "out"}}, node.datagrams_out);
  Family entries(all, "tallyd_sync_entries_total", "Entries in datagrams between nodes, by kind.",
                 MetricKind::counter);
  for (size_t i = 0; i < kEntryKinds; ++i) {
    const std::string kind(entry_kind_name(i));
    entries.add({{"kind", kind}, {"direction", "in"}}, node.entries_in[i]);
    entries.add({{"kind", kind}, {"direction", "out"}}, node.entries_out[i]);
  }
  Family(all, "tallyd_marks_total", "Marks that this node was asked to accept, by what it said.",
         MetricKind::counter)
      .add({{"outcome", "accepted"}}, node.marks_accepted)
      .add({{"outcome", "refused"}}, node.marks_refused);
  Family(all, "tallyd_claims_total", "Claims of keys whose owner was lost, or had lost its books.", MetricKind::counter)
      .add({{"outcome", "started"}}, node.claims_started)
      .add({{"outcome", "won"}}, node.claims_won)
      .add({{"outcome", "anew"}}, node.begun_anew)
      .add({{"outcome", "lost"}}, node.claims_lost);
  Family(all, "tallyd_registers", "Marks that this node keeps.", MetricKind::gauge).add({}, node.registers);
  Family(all, "tallyd_registers_capacity", "Marks that this node has room for.", MetricKind::gauge)
      .add({}, registers_max);
  Family(all, "tallyd_registers_overflow_cells", "Cells in use for marks that found no room among the registers.",
         MetricKind::gauge)
      .add({}, node.overflow_cells);
  Family(all, "tallyd_registers_overflow_cells_capacity", "Cells that there are for them.", MetricKind::gauge)
      .add({}, node.overflow_cells_max);
  Family(all, "tallyd_marks_overflowed_total", "Marks and claims that found no room and were kept in such cells.",
         MetricKind::counter)
      .add({}, node.marks_overflowed);
  Family(all, "tallyd_keys_owned", "Keys whose books this node keeps.", MetricKind::gauge)
      .add({}, node.ledgers);
  Family(all, "tallyd_keys_leased", "Keys that this node has an account for at their owners.",
         MetricKind::gauge)
      .add({}, node.accounts);
  Family(all, "tallyd_roster_version", "Number of the list of nodes that this one goes by.", MetricKind::gauge)
      .add({}, uint64_t{node.roster_version});
  Family(all, "tallyd_roster_settled", "1: no change of the list of nodes is under way, as far as this node knows.",
         MetricKind::gauge)
      .add({}, uint64_t{node.roster_settled});
  Family(all, "tallyd_keys_without_majority", "Keys owned here whose group gives no majority.",
         MetricKind::gauge)
      .add({}, node.keys_without_majority);
  Family(all, "tallyd_denied_under_limit_total",
         "Asked for in vain although the fleet had not used the limit (owner's count).", MetricKind::counter)
      .add({}, node.denied_under_limit);
  Family seen(all, "tallyd_overcount_seen_ratio",
              "Used above the limit by the worst key of the last full window, by rule.", MetricKind::gauge);
  const auto rules = overview.rules();
  for (const auto& [id, ratio] : node.overcount_seen)
    if (id < rules->ids()) seen.add({{"rule", rules->by_id(id).name}}, ratio);
}

void add_books(Families& all, const BooksPeer::Counts& n, const TimeHistogram& calls) {
  Family(all, "tallyd_books_up", "Whether the books in Redis can be asked.", MetricKind::gauge).add({}, uint64_t{n.store.up});
  Family(all, "tallyd_books_calls_total", "Calls of the script in Redis.", MetricKind::counter).add({}, n.calls);
  Family(all, "tallyd_books_reports_total", "Reports in them.", MetricKind::counter).add({}, n.reports);
  Family(all, "tallyd_books_grants_total", "Grants that came back.", MetricKind::counter).add({}, n.grants);
  Family(all, "tallyd_books_pushes_total", "Grants that came unasked, as others wait for what is held here.", MetricKind::counter).add({}, n.pushes);
  Family(all, "tallyd_books_bytes_total", "Arguments of calls, and their answers.", MetricKind::counter)
      .add({{"direction", "in"}}, n.bytes_in)
      .add({{"direction", "out"}}, n.bytes_out);
  Family errors(all, "tallyd_books_errors_total", "What went wrong with Redis, by kind.", MetricKind::counter);
  for (const auto& [kind, count] : n.errors) errors.add({{"kind", kind}}, count);
  Family(all, "tallyd_books_reconnects_total", "Connections to Redis that ended, or were not made.", MetricKind::counter).add({}, n.store.reconnects);
  Family(all, "tallyd_books_redirects_total", "Calls that a Redis Cluster sent to another master (ask: while a slot moves) or put off.", MetricKind::counter)
      .add({{"kind", "moved"}}, n.store.moved)
      .add({{"kind", "ask"}}, n.store.asked)
      .add({{"kind", "tryagain"}}, n.store.try_again)
      .add({{"kind", "clusterdown"}}, n.store.down);
  Family(all, "tallyd_books_losses_total", "Times that books may have been lost: all nodes told what they hold.", MetricKind::counter).add({}, n.losses);
  Family(all, "tallyd_books_generation", "Of the books in Redis; grows with each such time.", MetricKind::gauge).add({}, n.generation);
  Family times(all, "tallyd_books_call_duration_seconds", "From a call of the script in Redis to its answer.", MetricKind::histogram);
  add_histogram(times, {}, {&calls});
}

void add_central(Families& all, const Central::Counts& n, const TimeHistogram& calls) {
  Family(all, "tallyd_central_calls_total", "Decisions of central rules that Redis was asked for, and what was given back or reset there, by outcome.", MetricKind::counter)
      .add({{"outcome", "answered"}}, n.answered)
      .add({{"outcome", "unreachable"}}, n.unreachable)
      .add({{"outcome", "late"}}, n.late)
      .add({{"outcome", "refused"}}, n.refused)
      .add({{"outcome", "malformed"}}, n.malformed);
  Family times(all, "tallyd_central_call_duration_seconds", "From asking Redis for such a decision to its answer.", MetricKind::histogram);
  add_histogram(times, {}, {&calls});
}

}  // namespace

std::optional<ClusterThread::View> Metrics::view() const {
  if (fleet_ == nullptr) return std::nullopt;
  const auto promise = std::make_shared<std::promise<ClusterThread::View>>();
  auto answer = promise->get_future();
  if (!fleet_->ask([promise](ClusterThread::View view) { promise->set_value(std::move(view)); })) return std::nullopt;
  // Where it does not answer in time, the rest is still worth having.
  if (answer.wait_for(kPatience) != std::future_status::ready) return std::nullopt;
  return answer.get();
}

Families Metrics::Collect() const {
  Families all;
  Family(all, "tallyd_build_info", "The version that runs.", MetricKind::gauge)
      .add({{"version", kVersion}}, uint64_t{1});
  Family(all, "tallyd_config_last_reload_successful",
         "Whether the configuration was last read again without an error.", MetricKind::gauge)
      .add({}, uint64_t{overview_.last_reload_successful.load(std::memory_order_relaxed)});
  add_decisions(all, overview_);
  add_doors(all, overview_);
  add_table(all, overview_);
  add_promises(all, overview_);
  if (fleet_ != nullptr) add_staleness(all, overview_);
  if (const auto node = view()) {
    add_peers(all, node->peers);
    add_addresses(all, *node);
    add_node(all, node->stats, overview_, registers_max_);
    if (node->books) {
      add_books(all, *node->books, fleet_->books_calls());
      add_central(all, node->central, fleet_->central_calls());
    }
    Family dropped(all, "tallyd_sync_dropped_total", "Datagrams and entries that were dropped, by reason.",
                   MetricKind::counter);
    for (const auto& [reason, n] : node->stats.dropped) dropped.add({{"reason", reason}}, n);
    dropped.add({{"reason", "send_failed"}}, node->send_failures);
    dropped.add({{"reason", "no_address"}}, node->sent_nowhere);
    const PeerStreams::Counts streams = sum(node->streams);
    dropped.add({{"reason", "tcp_queue_full"}}, streams.queue_full);
    dropped.add({{"reason", "tcp_malformed"}}, streams.malformed);
    add_streams(all, streams);
    Family opened(all, "tallyd_sync_opened_total", "Datagrams that were opened, by the key that they were sealed with.",
                  MetricKind::counter);
    for (const auto& key : node->keys) opened.add({{"key", key.fingerprint}, {"use", key.use}}, key.opened);
    Family lag(all, "tallyd_sync_tick_lag_seconds", "How late the cluster thread's ticks were.",
               MetricKind::histogram);
    add_histogram(lag, {}, {&fleet_->tick_lag()});
  }
  add_process(all);
  std::erase_if(all, [](const prometheus::MetricFamily& family) { return family.metric.empty(); });
  return all;
}

std::string Metrics::text() const { return prometheus::TextSerializer().Serialize(Collect()); }

}  // namespace tally
