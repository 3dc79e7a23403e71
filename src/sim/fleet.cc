// The virtual clock, the hosts' lives and what goes over the network. What applications do is in
// fleet_apps.cc, which rules hosts have and what bounds they give in fleet_rules.cc.
#include "sim/fleet.h"

#include <algorithm>

#include "base/fail.h"
#include "cluster/standing.h"
#include "sim/trace.h"

namespace tally::sim {
namespace {

constexpr size_t kNotes = 4096;  // the most that one instant may bring to a host

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

// It sorts before all hosts.
constexpr uint16_t kBooksRank = 0;

NodeList with_books(NodeList list) {
  list.entries.emplace_back(kBooksEntry);
  list.owners = {std::string(kBooksEntry)};
  ++list.size;
  return list;
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

// --- lives ---

Life Fleet::next_life(uint16_t rank) {
  Host& host = hosts_[rank];
  const WallTime wall = clock(rank).wall;
  Life life;
  if (is_guest(host)) host.tenure = {};  // it keeps no state file
  life.first = host.incarnation == 0 || is_guest(host);
  life.tenure = host.tenure;
  life.memory = std::exchange(host.memory, nullptr);
  life.reckoned_start = life.first ? wall : std::max(wall, host.horizon);
  // As the state file reckons: growing even where the file was lost.
  const auto clock_ms = static_cast<uint64_t>(std::max<int64_t>(1, nanos(wall) / 1'000'000));
  host.incarnation = clock_ms > host.incarnation ? clock_ms : host.incarnation + 1;
  life.incarnation = host.incarnation;
  host.horizon = std::max(host.horizon, wall + look_ahead(config_.sync_interval) + config_.horizon_step);
  return life;
}

void Fleet::keep_horizon(Host& host, uint16_t rank) {
  const WallTime least = clock(rank).wall + look_ahead(config_.sync_interval);
  if (host.horizon < least) host.horizon = least + config_.horizon_step;
}

void Fleet::start(uint16_t rank) {
  CHECK_THAT(hosts_[rank].node == nullptr);
  begin_life(rank, next_life(rank));
}

NodeList Fleet::node_list(size_t list) const {
  NodeList nodes{{}, static_cast<uint32_t>(list + 1), config_.lists[list].size};
  for (const uint16_t host : config_.lists[list].hosts) nodes.entries.push_back(peers_[host]);
  for (const uint16_t host : config_.lists[list].owners) nodes.owners.push_back(peers_[host]);
  return config_.books ? with_books(std::move(nodes)) : nodes;
}

Share Fleet::share_of(const Host& host) const {
  const auto place = [&](size_t list) {
    std::vector<uint16_t> hosts = config_.lists[list].hosts;
    std::ranges::sort(hosts);
    const auto found = std::ranges::find(hosts, host.name);
    const uint32_t size = config_.lists[list].size;
    return Share::Place{found == hosts.end() ? size : static_cast<uint32_t>(found - hosts.begin()), size};
  };
  const Share::Place own = place(host.list);
  return {own.rank, own.size, host.with_previous ? place(host.list - 1) : Share::Place{}};
}

std::optional<uint16_t> Fleet::rank_at(const Host& host, uint16_t other) const {
  if (other == kNobody) return std::nullopt;
  const auto found = std::ranges::find(host.by_rank, other);
  if (found == host.by_rank.end()) return std::nullopt;
  return static_cast<uint16_t>(found - host.by_rank.begin());
}

// From now on that rank is reached at that host, and whatever comes from it is of that rank.
void Fleet::learn(Host& host, uint16_t rank, uint16_t other) {
  std::ranges::replace(host.by_rank, other, kNobody);
  if (host.by_rank.size() <= rank) host.by_rank.resize(rank + size_t{1}, kNobody);
  host.by_rank[rank] = other;
}

bool Fleet::give_list(uint16_t rank, size_t list, bool with_previous) {
  Host& host = hosts_[rank];
  CHECK_THAT(list < config_.lists.size() && (!with_previous || list > 0));
  if (succeeds(host.tenure, static_cast<uint32_t>(list + 1), with_previous ? static_cast<uint32_t>(list) : 0,
               std::max(clock(rank).wall, host.horizon)) != Succeeds::yes)
    return false;
  host.list = list;
  host.with_previous = with_previous;
  return true;
}

void Fleet::begin_life(uint16_t rank, const Life& life) {
  Host& host = hosts_[rank];
  NodeConfig node;
  const NodeList list = node_list(host.list);
  node.peers = list.entries;
  node.roster_version = list.version;
  node.size = list.size;
  node.owners = list.owners;
  host.by_rank = config_.lists[host.list].hosts;
  if (host.with_previous) {
    node.previous = node_list(host.list - 1);
    const auto& before = config_.lists[host.list - 1].hosts;
    host.by_rank.insert(host.by_rank.end(), before.begin(), before.end());
    for (const uint16_t gone : config_.lists[host.list].gone) node.gone.push_back(peers_[gone]);
  }
  std::ranges::sort(host.by_rank);
  host.by_rank.erase(std::ranges::unique(host.by_rank).begin(), host.by_rank.end());
  if (config_.books) host.by_rank.insert(host.by_rank.begin() + kBooksRank, kNobody);
  decide_by(rank, rule_set(rules_of(rank), share_of(host)));
  const bool fleet = host.by_rank.size() > 1 || !node.owners.empty() || is_guest(host);
  if (++host.life > 1) checkers_.another_life();
  host.born = now_;
  host.slots = std::make_unique<SlotTable>(config_.keys, random_.next(), fleet);
  host.limiter = std::make_unique<Limiter>(*host.slots, fleet);
  host.notes = std::make_unique<NoteRing>(kNotes);

  if (is_guest(host)) {
    node.guest = random_.next();
    host.by_rank.push_back(kNobody);  // its own
  } else {
    node.self = peers_[host.name];
  }
  node.pace = host.pace;
  node.lease = config_.lease;
  if (config_.upstream) node.upstream = config_.upstream(rank);
  node.region = draws(rank);
  node.registers_max = config_.registers;
  node.overflow_cells_max = config_.overflow_cells;
  node.sealed = config_.sealed;
  host.node = std::make_unique<Node>(node, life, *host.limiter, host.rules, random_.next(), clock(rank));
  if (config_.books) host.books = config_.books(*this, rank, life.incarnation);
  host.settle_due = false;
  host.tick_due = Duration(0);
  settle_soon(rank);
}

void Fleet::end_life(uint16_t rank, bool keep_state) {
  Host& host = hosts_[rank];
  auto parked = std::exchange(host.parked, {});
  for (auto& [hash, queue] : parked)
    for (Parked& p : queue) finish(rank, *p.state, p.cost, Outcome::lost, now_ - p.since, {});
  if (host.node != nullptr) marks_overflowed_ += host.node->stats().marks_overflowed;
  host.books.reset();
  host.node.reset();
  host.notes.reset();
  host.limiter.reset();
  host.slots.reset();
  host.paused_until = now_;
  if (!keep_state) {
    host.incarnation = 0;
    host.horizon = {};
    host.tenure = {};
  }
}

uint64_t Fleet::marks_overflowed() const {
  uint64_t sum = marks_overflowed_;
  for (const Host& host : hosts_)
    if (host.node != nullptr) sum += host.node->stats().marks_overflowed;
  return sum;
}

void Fleet::crash(uint16_t rank, bool keep_state) {
  if (!is_up(rank)) return;
  log(100, rank, keep_state);
  end_life(rank, keep_state);
}

void Fleet::leave(uint16_t rank, bool keep_memory) {
  Host& host = hosts_[rank];
  if (host.node == nullptr) return;
  log(101, rank, 0);
  host.node->leave(clock(rank));
  host.node->flush(clock(rank));
  send(rank, host.node->take_outbox(), rank);
  if (keep_memory && !is_guest(host)) host.memory = std::make_shared<const Memory>(host.node->memory(clock(rank)));
  end_life(rank, true);
}

void Fleet::pause(uint16_t rank, Duration d) {
  log(102, rank, static_cast<uint64_t>(nanos(d)));
  hosts_[rank].paused_until = std::max(hosts_[rank].paused_until, now_ + d);
}

// As the daemon does it: nobody decides by the new clock before the node was told.
void Fleet::step_wall_clock(uint16_t rank, Duration by) {
  Host& host = hosts_[rank];
  if (host.node != nullptr) host.node->look_at_clock(clock(rank));
  host.clock.offset += by;
  if (by < Duration(0)) checkers_.set_back(rank);
  host.furthest = std::max(host.furthest, host.clock.offset);
  if (host.node != nullptr) host.node->look_at_clock(clock(rank));
}

}  // namespace tally::sim
