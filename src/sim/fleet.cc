// The virtual clock and what goes over the network. The hosts' lives are in fleet_lives.cc, what applications do in
// fleet_apps.cc, which rules hosts have and what bounds they give in fleet_rules.cc.
#include "sim/fleet.h"

#include <algorithm>

#include "base/fail.h"
#include "sim/trace.h"

namespace tally::sim {
namespace {

constexpr Duration kTickMin =
    std::chrono::microseconds(50);  // a node that wants to be ticked at once is, so much later
constexpr int kSettleRounds = 100;

FleetConfig completed(FleetConfig config) {
  for (HostList& list : config.lists) {
    if (list.size == 0) list.size = static_cast<uint32_t>(list.hosts.size());
    config.size = std::max(config.size, list.size);
  }
  if (config.size == 0) config.size = config.nodes;
  if (config.lists.empty()) {
    HostList all;
    for (uint16_t rank = 0; rank < config.nodes; ++rank) all.hosts.push_back(rank);
    all.size = config.size;
    all.owners = config.owners;
    config.lists.push_back(std::move(all));
  }
  config.clocks.resize(config.nodes + config.clones.size() + config.guests);
  for (uint16_t rank = 0; rank < config.clocks.size(); ++rank)
    if (config.clocks[rank].origin == Duration(0)) config.clocks[rank].origin = default_origin(rank);
  return config;
}

uint32_t fastest(const std::vector<HostClock>& clocks) {
  int32_t most = 0;
  for (const HostClock& clock : clocks) most = std::max(most, clock.drift_ppm);
  return static_cast<uint32_t>(most);
}

// What was read, written again, is what was sent.
void check_round_trip(const Datagram& datagram, const Bytes& bytes) {
  DatagramWriter writer(datagram.header, kPublicIdKey);
  for (const Entry& entry : datagram.entries) CHECK_THAT(writer.add(entry));
  CHECK_THAT(writer.finish() == bytes);
}

// Of every list, with the owners of the first.
NodeList all_hosts(const FleetConfig& config) {
  NodeList list = host_list(config.nodes, std::max<uint32_t>(config.size, config.nodes), config.lists.front().owners);
  return config.books ? with_books(std::move(list)) : list;
}

}  // namespace

std::vector<std::string> host_entries(uint16_t nodes) {
  std::vector<std::string> entries;
  for (uint16_t rank = 0; rank < nodes; ++rank) {  // in sorted order, so that a place is a rank
    const std::string number = std::to_string(rank);
    entries.push_back("host-" + std::string(3 - std::min<size_t>(3, number.size()), '0') + number + ":8381");
  }
  return entries;
}

NodeList host_list(uint16_t nodes, uint32_t size, const std::vector<uint16_t>& owners) {
  NodeList list{host_entries(nodes), 1, size};
  for (const uint16_t host : owners) list.owners.push_back(list.entries[host]);
  return list;
}

NodeList with_books(NodeList list) {
  list.entries.emplace_back(kBooksEntry);
  list.owners = {std::string(kBooksEntry)};
  ++list.size;
  return list;
}

Fleet::Fleet(FleetConfig config)
    : config_(completed(std::move(config))),
      random_(config_.seed),
      network_(static_cast<uint16_t>(config_.clocks.size()), random_.next()),
      checkers_(fastest(config_.clocks)),
      peers_(host_entries(config_.nodes)),
      roster_(all_hosts(config_), std::nullopt, kPublicIdKey),
      hosts_(config_.clocks.size()) {
  CHECK_THAT(config_.nodes >= 1 && config_.nodes <= kRosterMax);
  network_.set_all(config_.link);
  find_forms();
  for (uint16_t rank = 0; rank < hosts(); ++rank) {
    const bool clone = rank >= config_.nodes && rank < first_guest();
    hosts_[rank].name = clone ? config_.clones[rank - config_.nodes] : rank;
    hosts_[rank].clock = config_.clocks[rank];
    hosts_[rank].furthest = config_.clocks[rank].offset;
    hosts_[rank].pace = {config_.sync_interval, config_.isolation_after};
  }
  for (uint16_t rank = 0; rank < hosts(); ++rank) {
    hosts_[rank].own_rules = !config_.own_rules_later;
    decide_by(rank, rule_set(rules_of(rank), share_of(hosts_[rank])));
  }
  for (const ProcessTerms& terms : config_.processes) processes_.push_back(std::make_unique<Process>(terms));
  for (const uint16_t rank : config_.lists.front().hosts) start(rank);
  for (uint16_t rank = first_guest(); rank < hosts(); ++rank) start(rank);
}

Fleet::~Fleet() = default;

std::vector<uint16_t> Fleet::names() const {
  std::vector<uint16_t> all;
  for (uint16_t rank = 0; rank < hosts(); ++rank)
    if (hosts_[rank].name == rank) all.push_back(rank);
  return all;
}

Duration Fleet::shown(Duration t, int32_t drift_ppm) {
  return t + Duration(static_cast<int64_t>(static_cast<__int128>(nanos(t)) * drift_ppm / kPartsPerMillion));
}

// --- time ---

Now Fleet::clock(uint16_t rank) const {
  const HostClock& clock = hosts_[rank].clock;
  const Duration t = shown(now_, clock.drift_ppm);
  return {mono_origin(rank) + t, config_.epoch + clock.offset + t};
}

void Fleet::at(Duration when, std::function<void()> call) {
  CHECK_THAT(when >= now_);
  Event event;
  event.at = when;
  event.call = std::move(call);
  push(std::move(event));
}

void Fleet::push(Event event) {
  event.order = order_++;
  queue_.push_back(std::move(event));
  std::push_heap(queue_.begin(), queue_.end(), later);
}

void Fleet::call_off() {
  std::erase_if(queue_, [](const Event& event) { return event.kind == Kind::call && event.host == kNobody; });
  std::ranges::make_heap(queue_, later);
}

void Fleet::run_until(Duration when) {
  while (!queue_.empty() && queue_.front().at <= when) {
    std::pop_heap(queue_.begin(), queue_.end(), later);
    Event event = std::move(queue_.back());
    queue_.pop_back();
    now_ = event.at;
    handle(event);
  }
  now_ = when;
}

bool Fleet::run_until_ready(Duration at_most) {
  const Duration end = now_ + at_most;
  const auto all_ready = [&] {
    return std::ranges::all_of(hosts_, [](const Host& h) { return h.node == nullptr || h.node->ready(); });
  };
  while (!all_ready()) {
    if (now_ >= end) return false;
    run_for(std::chrono::milliseconds(1));
  }
  return true;
}

void Fleet::handle(Event& event) {
  ++events_;
  if (event.host == kNobody) return event.call();
  Host& host = hosts_[event.host];
  if (host.paused_until > now_) {
    event.at = host.paused_until;
    if (event.kind == Kind::tick) host.tick_due = event.at;
    return push(std::move(event));
  }
  handle_for(host, event.host, event);
}

void Fleet::handle_for(Host& host, uint16_t rank, Event& event) {
  log(static_cast<uint64_t>(event.kind), rank, event.bytes.size());
  switch (event.kind) {
    case Kind::call:
      return event.call();
    case Kind::arrival:
      if (host.node == nullptr) return;
      if (const Taken taken = host.node->receive(event.bytes, rank_at(host, event.from), clock(rank)); taken.moved) learn(host, *taken.from, event.from);
      return settle(host, rank, event.from);
    case Kind::tick:
      if (host.node == nullptr || event.life != host.life || event.at != host.tick_due) return;
      host.tick_due = Duration(0);
      host.node->tick(clock(rank));
      return settle(host, rank, rank);
    case Kind::settle:
      if (host.node == nullptr || event.life != host.life) return;
      host.settle_due = false;
      return settle(host, rank, rank);
    case Kind::deadline:
      if (host.node == nullptr || event.life != host.life) return;
      expire(host, rank, event.hash, event.number);
      return settle(host, rank, rank);
  }
}

void Fleet::log(uint64_t a, uint64_t b, uint64_t c) {
  log_hash_ = mix(log_hash_ ^ mix(static_cast<uint64_t>(nanos(now_)) ^ mix(a ^ mix(b ^ mix(c)))));
}

// --- the cluster thread ---

void Fleet::settle_soon(uint16_t rank) {
  Host& host = hosts_[rank];
  if (host.settle_due) return;
  host.settle_due = true;
  Event event;
  event.at = now_ + config_.thread_delay;
  event.kind = Kind::settle;
  event.host = rank;
  event.life = host.life;
  push(std::move(event));
}

bool Fleet::draws(uint16_t rank) const { return std::ranges::find(config_.region_hosts, rank) != config_.region_hosts.end(); }

void Fleet::hear_books(Host& host, uint16_t rank) {
  if (const auto lost = host.books->take_lost()) host.node->tell_all(lost);
  for (const Bytes& bytes : host.books->take()) {
    watch_books(bytes, rank);
    host.node->receive(bytes, kBooksRank, clock(rank));
  }
}

void Fleet::settle(Host& host, uint16_t rank, uint16_t source) {
  keep_horizon(host, rank);
  if (host.books) hear_books(host, rank);
  while (const auto tenure = host.node->tenure_to_keep()) {
    host.tenure = *tenure;
    host.node->tenure_kept(*tenure, clock(rank));
  }
  for (int round = 0;; ++round) {
    Note note;
    while (host.notes->pop(note)) host.node->note(note, clock(rank));
    host.node->flush(clock(rank));
    look_at_resets(host, rank);
    send(rank, host.node->take_outbox(), source);
    if (draws(rank)) break;  // its wakes are for the region
    const std::vector<Wake> wakes = host.node->take_wakes();
    if (wakes.empty()) break;
    if (round >= kSettleRounds) {
      woken_in_vain(host, wakes.front().hash);
      break;
    }
    for (const Wake& wake : wakes)
      if (retry(host, rank, wake.hash)) round = 0;  // somebody got an answer: not in vain
  }
  schedule_tick(host, rank);
  if (config_.settled) config_.settled(rank);
}

// A node that wakes a key again and again in one instant without giving it anything: in a daemon, two threads
// that spin.
void Fleet::woken_in_vain(const Host& host, KeyHash hash) {
  const auto it = host.parked.find(hash);
  if (it == host.parked.end() || it->second.empty()) return;
  const Parked& first = it->second.front();
  checkers_.violate(first.state->checked.front(), now_, "wakes",
                    "woken for ever in one instant, and nothing to be had");
}

void Fleet::schedule_tick(Host& host, uint16_t rank) {
  if (host.node->next_tick() == MonoTime::max()) return;  // a node alone
  const Duration wanted = host.node->next_tick() - mono_origin(rank);
  Duration due(static_cast<int64_t>(static_cast<__int128>(nanos(wanted)) * kPartsPerMillion /
                                    (static_cast<int64_t>(kPartsPerMillion) + host.clock.drift_ppm)));
  due = std::max(due, now_ + kTickMin);
  while (shown(due, host.clock.drift_ppm) < wanted) due += Duration(1);
  if (host.tick_due > now_ && host.tick_due <= due) return;
  host.tick_due = due;
  Event event;
  event.at = due;
  event.kind = Kind::tick;
  event.host = rank;
  event.life = host.life;
  push(std::move(event));
}

void Fleet::send(uint16_t rank, const std::vector<Outgoing>& outbox, uint16_t source) {
  for (const Outgoing& out : outbox) {
    if (hosts_[rank].books && !out.to_source && out.to == kBooksRank) {
      watch(out.bytes, rank, kNobody);
      hosts_[rank].books->say(out.bytes);
      continue;
    }
    const uint16_t to = out.to_source ? source : hosts_[rank].by_rank[out.to];
    if (to == kNobody) continue;  // an answer to an address where nobody listens
    CHECK_THAT(to < hosts() && to != rank);
    ++traffic_.datagrams;
    traffic_.bytes += out.bytes.size();
    watch(out.bytes, rank, to);
    if (config_.keep_datagrams) kept_.push_back({now_, rank, to, out.bytes});
    const Network::Fate fate = network_.send(rank, to);
    for (int copy = 0; copy < fate.copies; ++copy) {
      Event event;
      event.at = now_ + fate.after[copy];
      event.kind = Kind::arrival;
      event.host = to;
      event.from = rank;
      event.bytes = out.bytes;
      push(std::move(event));
    }
  }
  if (hosts_[rank].books) hosts_[rank].books->flush();
}

void Fleet::inject(std::optional<uint16_t> from, uint16_t to, Bytes bytes) {
  CHECK_THAT(from != to && to < hosts());
  if (traced_ != nullptr && decode(bytes, kPublicIdKey, seen_) == DecodeError::none)
    trace_seen(to, "<- injected, from " + (from ? std::to_string(*from) : "nobody") + " ");
  Event event;
  event.at = now_;
  event.kind = Kind::arrival;
  event.host = to;
  event.from = from.value_or(kNobody);
  event.bytes = std::move(bytes);
  push(std::move(event));
}

void Fleet::watch(const Bytes& bytes, uint16_t from, uint16_t to) {
  if (!config_.check_wire && traced_ == nullptr) return;
  CHECK_THAT(decode(bytes, kPublicIdKey, seen_) == DecodeError::none);
  traffic_.entries += seen_.entries.size();
  if (config_.check_wire) check_round_trip(seen_, bytes);
  if (config_.check_wire) checkers_.sent(seen_, now_, from);
  if (traced_ != nullptr) trace_seen(from, "-> " + std::to_string(to) + " ");
}

// Their answers come by more than one way, so that what was said later may come first.
void Fleet::watch_books(const Bytes& bytes, uint16_t to) {
  if (traced_ != nullptr && decode(bytes, kPublicIdKey, seen_) == DecodeError::none) trace_seen(to, "<- books ");
}

// What was said of the traced key, and of which life is whose.
void Fleet::trace_seen(uint16_t rank, const std::string& way) {
  for (const Entry& entry : seen_.entries)
    if (key_of(entry) == traced_->id || std::holds_alternative<Clone>(entry))
      trace_line(rank, *traced_, way + describe(entry, roster_));
}

}  // namespace tally::sim
