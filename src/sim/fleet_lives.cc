// The lives of the hosts of a simulated fleet: how they begin, what they keep, and how they end.
#include <algorithm>
#include <utility>

#include "base/fail.h"
#include "cluster/standing.h"
#include "sim/fleet.h"

namespace tally::sim {
namespace {

constexpr size_t kNotes = 4096;  // the most that one instant may bring to a host

}  // namespace

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
