#include "daemon/fleet.h"

#include <algorithm>
#include <asio/post.hpp>
#include <future>
#include <random>
#include <utility>

#include "cluster/standing.h"
#include "config/peer_entry.h"
#include "daemon/paths.h"
#include "daemon/redis_cluster.h"
#include "daemon/redis_slots.h"
#include "daemon/redis_store.h"

namespace tally {

uint64_t random_seed() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

Pace pace_of(const Config& config) { return {config.cluster.sync_interval, config.cluster.isolation()}; }

Share share_of(const Config& config) {
  const Config::Cluster& cluster = config.cluster;
  if (cluster.alone()) return Share{0, std::max(cluster.nodes(), 1u)};
  const auto place = [&](const Config::Members& members) {
    std::vector<std::string> sorted = members.entries();
    std::ranges::sort(sorted);
    const auto own = std::ranges::find(sorted, cluster.own_entry());
    return Share::Place{own == sorted.end() ? members.nodes() : static_cast<uint32_t>(own - sorted.begin()), members.nodes()};
  };
  const Share::Place now = place(cluster);
  return {now.rank, now.size, cluster.previous ? place(*cluster.previous) : Share::Place{}};
}

namespace {

// Books in Redis are one more entry, the only one that keys belong to.
NodeList node_list(const Config::Members& members) {
  NodeList list{members.entries(), members.roster_version, members.nodes(), members.aggregators};
  if (!members.books) return list;
  list.entries.emplace_back(kBooksEntry);
  list.owners = {std::string(kBooksEntry)};
  ++list.size;
  return list;
}

NodeConfig node_config(const Config& config, const std::optional<Secret>& secret) {
  NodeConfig node;
  NodeList list = node_list(config.cluster);
  node.peers = std::move(list.entries);
  node.owners = std::move(list.owners);
  node.self = config.cluster.own_entry();
  if (config.cluster.guest()) node.guest = random_seed();
  node.guests_max = config.limits.guests;
  node.roster_version = config.cluster.roster_version;
  node.size = list.size;
  if (config.cluster.previous) node.previous = node_list(*config.cluster.previous);
  node.gone = config.cluster.gone;
  const auto own = parse_peer(node.self);
  node.movable = own && own.value().looked_up();
  node.pace = pace_of(config);
  node.lease = config.cluster.lease_length();
  node.sealed = secret.has_value();
  if (secret) node.id_key = secret->id;
  node.registers_max = config.limits.registers;
  node.overflow_cells_max = std::min<size_t>(node.overflow_cells_max, config.limits.registers / 4);
  return node;
}

// Of this node one level up, where it is an aggregator of a region.
NodeConfig config_above(const Config& config, const NodeConfig& below) {
  const Config::Upstream& upstream = *config.cluster.upstream;
  NodeConfig node;
  node.peers = upstream.entries();
  node.owners = upstream.aggregators;
  node.roster_version = upstream.roster_version;
  node.size = upstream.nodes();
  node.guest = random_seed();
  node.region = true;
  node.pace = below.pace;
  node.lease = below.lease;
  node.sealed = below.sealed;
  node.id_key = below.id_key;
  return node;
}

std::string bind_above(const Config::Cluster& cluster) {
  return !cluster.upstream->bind.empty() ? cluster.upstream->bind : cluster.bind.substr(0, cluster.bind.rfind(':')) + ":0";
}

// For the log: fingerprints, no keys.
std::string accepted_keys(const Secret& secret) {
  std::string text;
  for (const auto* key : {&secret.next, &secret.old})
    if (*key) text = (*key)->fingerprint_text();
  return text.empty() ? "-" : text;
}

}  // namespace

Fleet::Fleet(Parts parts) : parts_(std::move(parts)) {
  for (size_t i = 0; i < parts_.overview.workers.size(); ++i) ports_.push_back(std::make_unique<Port>(bell_));
}

Fleet::~Fleet() { end(); }

// After the first start the state file is touched by no other thread.
template <typename Do>
auto Fleet::on_admin(Do what) {
  std::packaged_task<decltype(what())()> task(std::move(what));
  auto done = task.get_future();
  asio::post(parts_.admin, [&task] { task(); });
  return done.get();
}

Result<std::unique_ptr<Region>> Fleet::begin_region(asio::io_context& io, const Config& config, const NodeConfig& below,
                                                    const std::optional<Secret>& secret) {
  const Config::Cluster& cluster = config.cluster;
  if (!cluster.upstream || !cluster.owner()) return std::unique_ptr<Region>();
  NodeConfig node = config_above(config, below);
  const Roster roster(node_list(*cluster.upstream), std::nullopt, node.id_key);
  auto socket = PeerSocket::open(io, bind_above(cluster), node.sealed);
  if (!socket) return Failure{"cluster.upstream: " + socket.error()};
  auto discovery = Discovery::begin({io, socket.value()->book(), parts_.log}, roster, std::nullopt);
  if (!discovery) return Failure{"cluster.upstream: " + discovery.error()};
  parts_.log.info("an aggregator of a region", {{"above", node.peers.size()}, {"bind", socket.value()->bound()}});
  auto streams = std::make_unique<PeerStreams>(io, socket.value()->local());
  return std::make_unique<Region>(std::move(node), *parts_.overview.rules(),
                                  Link::Sockets{std::move(socket.value()), std::move(streams), std::move(discovery.value())},
                                  PeerSeal(secret), config.table_keys, random_seed(), parts_.clock.now());
}

std::unique_ptr<Central> Fleet::begin_books(Link::Sockets& sockets, asio::io_context& io, const Config& config, const Roster& roster, const NodeConfig& node, const Life& life) {
  const Config::Cluster& cluster = config.cluster;
  const auto& books = cluster.books ? cluster.books : cluster.previous ? cluster.previous->books : cluster.books;
  const auto rank = roster.rank_of(node.self);
  if (!books || !rank) return nullptr;
  parts_.log.info("books are in Redis", {{"books", books->text_without_secret()}});
  const BooksNames names(books->prefix, books->kind == BooksUrl::Kind::cluster ? kBooksTags : 1);
  if (books->kind == BooksUrl::Kind::cluster) {
    std::vector<uint16_t> slots;
    for (uint32_t tag = 0; tag < names.tags(); ++tag) slots.push_back(slot_of(names.generation(tag)));
    sockets.store = std::make_unique<RedisCluster>(io, parts_.log, *books, std::move(slots), node.pace.isolation_after, random_seed());
  } else {
    sockets.store = std::make_unique<RedisStore>(io, parts_.log, *books, node.pace.isolation_after, random_seed());
  }
  sockets.books = std::make_unique<BooksPeer>(BooksPeer::Parts{*sockets.store, [&clock = parts_.clock] { return clock.now(); }, books_calls_, parts_.log}, names,
                                              BooksPeer::Node{node.self, roster.id(*rank), life.incarnation, node.id_key, roster.version(), roster.hash()}, node.pace, node.lease);
  return std::make_unique<Central>(Central::Parts{*sockets.store, parts_.clock, central_calls_}, names);
}

Result<Life> Fleet::begin_life(const Config& config, const Roster& roster) {
  const WallTime now = parts_.clock.now().wall;
  const Config::Cluster& cluster = config.cluster;
  if (cluster.guest()) return stateless_life(now, random_seed());
  if (!file_) {
    std::string directory = config.state_dir;
    if (directory.empty()) {
      const auto fallback = default_state_dir();
      if (!fallback) return Failure{fallback.error()};
      directory = fallback.value();
    }
    auto file = StateFile::open(directory, state_file_name(config.node_name));
    if (!file) return Failure{file.error()};
    file_ = std::move(file.value());
    memory_ = std::make_unique<MemoryFile>(file_->path(), keyed_hash(cluster.own_entry(), id_key_), id_key_);
  }
  const uint64_t last_life = file_->record() ? file_->record()->incarnation : 0;
  auto life = file_->begin_life(cluster.own_entry(), cluster.roster_version, cluster.previous ? cluster.previous->roster_version : 0, now,
                                look_ahead(cluster.sync_interval));
  if (!life) return life;
  auto memory = memory_->take(last_life, roster);
  if (memory)
    life.value().memory = memory.value();
  else
    parts_.log.warning("what the last life has left cannot be used: this node reads its registers anew from the others", {{"error", memory.error()}});
  return life;
}

void Fleet::say_begun(const Config& config, const NodeConfig& node, const Life& life, const std::string& bound,
                      const std::optional<Secret>& secret) {
  if (node.guest)
    parts_.log.info("a guest of the aggregators: this node is in no list, and has no floors", {{"bind", bound}, {"aggregators", node.owners.size()}});
  else
    parts_.log.info("a node of a fleet", {{"entry", node.self},
                                          {"bind", bound},
                                          {"peers", node.peers.size()},
                                          {"roster_version", config.cluster.roster_version},
                                          {"incarnation", life.incarnation},
                                          {"first_life", life.first ? "yes" : "no"},
                                          {"registers_kept", life.memory ? std::to_string(life.memory->registers.size()) : "none"},
                                          {"state", file_->path()}});
  if (secret)
    parts_.log.info("datagrams are sealed", {{"key", secret->seal.fingerprint_text()}, {"also_accepted", accepted_keys(*secret)}});
}

Result<bool> Fleet::begin(const Config& config, std::optional<Secret> secret) {
  NodeConfig node = node_config(config, secret);
  id_key_ = node.id_key;
  auto next = std::make_unique<Running>();
  const Roster roster(node_list(config.cluster), node.previous, node.id_key);
  auto socket = PeerSocket::open(next->io, config.cluster.bind, node.sealed);
  if (!socket) return Failure{socket.error()};
  auto discovery = Discovery::begin({next->io, socket.value()->book(), parts_.log}, roster, roster.rank_of(node.self));
  if (!discovery) return Failure{discovery.error()};
  auto streams = std::make_unique<PeerStreams>(next->io, socket.value()->local());
  if (!node.guest)
    if (const auto listening = streams->listen(); !listening)
      parts_.log.warning("cannot listen for TCP: where UDP does not pass, this node has to connect to the others", {{"error", listening.error()}});
  auto region = begin_region(next->io, config, node, secret);
  if (!region) return Failure{region.error()};
  if (region.value()) node.upstream = &region.value()->upstream();
  // When all else is there: a start that fails must not use up what the last life has left.
  const auto life = on_admin([&] { return begin_life(config, roster); });
  if (!life) return Failure{life.error()};
  if (file_) next->horizon = std::make_unique<Horizon>(*file_, look_ahead(node.pace.sync_interval), parts_.admin, parts_.log);
  say_begun(config, node, life.value(), socket.value()->bound(), secret);
  parts_.notifier.send("STATUS=asking the other nodes");
  auto running = std::make_unique<Node>(node, life.value(), parts_.overview.limiter, parts_.overview.rules(), random_seed(), parts_.clock.now());
  for (const KeyOrder& order : parts_.orders.known()) running->remember(order, parts_.clock.now());
  while (const auto tenure = file_ ? running->tenure_to_keep() : std::nullopt) {
    if (const auto kept = on_admin([&] { return file_->keep(*tenure); }); !kept) return Failure{kept.error()};
    running->tenure_kept(*tenure, parts_.clock.now());
  }
  if (!node.guest && !node.previous && !running->stats().roster_settled)
    parts_.log.warning(
        "this node does not know since when its list rules: it has no floor and no vote until another one tells it; a new fleet "
        "begins with roster_version 1",
        {{"roster_version", node.roster_version}});
  Link::Sockets sockets{std::move(socket.value()), std::move(streams), std::move(discovery.value())};
  auto central = begin_books(sockets, next->io, config, roster, node, life.value());
  auto link = std::make_unique<Link>(std::move(sockets), PeerSeal(std::move(secret)), std::move(running), random_seed());
  next->thread = std::make_unique<ClusterThread>(ClusterThread::Parts{next->io, std::move(region.value()), std::move(link), std::move(central), bell_, ports_, parts_.clock,
                                                                      next->horizon.get(), tick_lag_, parts_.log, parts_.orders, parts_.on_ready});
  const std::lock_guard lock(mutex_);
  running_ = std::move(next);
  return true;
}

void Fleet::end() {
  std::unique_ptr<Running> last;
  {
    const std::lock_guard lock(mutex_);
    last = std::move(running_);
  }
  if (!last) return;
  last->thread->stop();
  last->thread->join();
  parts_.overview.limiter.open_floors(WallTime::max(), MonoTime::max());  // not before: the node opens them where its start is over just now
  const auto left = last->thread->memory();
  if (!file_) return;
  const auto kept = on_admin([&] {  // behind all that the horizon has put there
    return left ? memory_->leave(*left, last->thread->roster()) : Result<bool>(true);
  });
  if (!kept) parts_.log.warning("the registers cannot be kept: the next life reads them anew from the others", {{"error", kept.error()}});
}

std::string Fleet::refuses(const Config& next, const std::optional<Secret>& secret) {
  if (secret && secret->id != id_key_) return next.cluster.secret_file + ": " + kOtherFleetsSecret;
  const Config::Cluster& cluster = next.cluster;
  const WallTime now = parts_.clock.now().wall;
  return on_admin([&] {
    return file_ ? file_->refuses(cluster.roster_version, cluster.previous ? cluster.previous->roster_version : 0, now) : std::string();
  });
}

void Fleet::use(ClusterThread::Change change, std::function<void(Result<bool>)> then) {
  running_->thread->use(std::move(change), std::move(then));
}

bool Fleet::ask(std::function<void(ClusterThread::View)> then) {
  const std::lock_guard lock(mutex_);
  if (running_) running_->thread->ask(std::move(then));
  return running_ != nullptr;
}

}  // namespace tally
