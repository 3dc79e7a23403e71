// tallyd: builds everything in the order in which it depends on each other, runs, and takes it down in the
// other order.
//
// Threads: main (signals, accepting), the workers (all decisions), the cluster thread (in a fleet), the admin
// thread (metrics, probes, the state file's horizon), where peers have names the resolver's. What they share is built here and outlives them.
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/signal_set.hpp>
#include <asio/steady_timer.hpp>
#include <csignal>
#include <cstdio>
#include <functional>
#include <optional>
#include <random>
#include <thread>
#include <utility>

#include "cluster/standing.h"
#include "config/peer_entry.h"
#include "daemon/acceptor.h"
#include "daemon/cluster_thread.h"
#include "daemon/http.h"
#include "daemon/memory_file.h"
#include "daemon/metrics.h"
#include "daemon/notify.h"
#include "daemon/options.h"
#include "daemon/page.h"
#include "daemon/paths.h"
#include "daemon/reload.h"
#include "daemon/state_file.h"

namespace tally {
namespace {

constexpr Duration kDrainGrace = std::chrono::seconds(5);
constexpr Duration kClockEvery =
    std::chrono::milliseconds(250);  // alone: how soon a step of the system clock is seen

uint64_t random_seed() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

// The admin thread. Ends when destroyed.
class AdminThread {
 public:
  AdminThread()
      : thread_([this] {
          ::prctl(PR_SET_NAME, "admin");
          io_.run();
        }) {}
  ~AdminThread() { stop(); }
  void stop() {
    io_.stop();
    if (thread_.joinable()) thread_.join();
  }
  asio::io_context& io() { return io_; }

 private:
  asio::io_context io_{1};
  asio::executor_work_guard<asio::io_context::executor_type> work_{io_.get_executor()};
  std::thread thread_;
};

std::string node_name(const Config& config) {
  if (!config.node_name.empty()) return config.node_name;
  if (!config.cluster.alone() && !config.cluster.guest()) return config.cluster.own_entry();
  char host[256] = "";
  return ::gethostname(host, sizeof host - 1) == 0 && host[0] != '\0' ? host : "tallyd";
}

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

NodeList node_list(const Config::Members& members) {
  return {members.entries(), members.roster_version, members.nodes(), members.aggregators};
}

size_t worker_count(const Config& config) {
  if (config.workers != 0) return config.workers;
  const size_t cores = std::thread::hardware_concurrency();
  return cores > 3 ? cores - 2 : 1;
}

NodeConfig node_config(const Config& config, const std::optional<Secret>& secret) {
  NodeConfig node;
  node.peers = config.cluster.entries();
  node.owners = config.cluster.aggregators;
  node.self = config.cluster.own_entry();
  if (config.cluster.guest()) node.guest = random_seed();
  node.guests_max = config.limits.guests;
  node.roster_version = config.cluster.roster_version;
  node.size = config.cluster.nodes();
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

// The state file of a fleet's node, and the life that it says this is.
struct Lived {
  std::unique_ptr<StateFile> file;
  std::unique_ptr<MemoryFile> memory;
  Life life;
};
Result<Lived> begin_life(const Config& config, const IdKey& key, const Roster& roster, WallTime now, Log& log) {
  if (config.cluster.guest()) return Lived{nullptr, nullptr, stateless_life(now, random_seed())};
  std::string directory = config.state_dir;
  if (directory.empty()) {
    const auto fallback = default_state_dir();
    if (!fallback) return Failure{fallback.error()};
    directory = fallback.value();
  }
  auto file = StateFile::open(directory, state_file_name(config.node_name));
  if (!file) return Failure{file.error()};
  const uint64_t last_life = file.value()->record() ? file.value()->record()->incarnation : 0;
  const uint32_t previous = config.cluster.previous ? config.cluster.previous->roster_version : 0;
  auto life = file.value()->begin_life(config.cluster.own_entry(), config.cluster.roster_version, previous, now,
                                       look_ahead(config.cluster.sync_interval));
  if (!life) return Failure{life.error()};
  auto left = std::make_unique<MemoryFile>(file.value()->path(), keyed_hash(config.cluster.own_entry(), key), key);
  auto memory = left->take(last_life, roster);
  if (memory)
    life.value().memory = memory.value();
  else
    log.warning("what the last life has left cannot be used: this node reads its registers anew from the others", {{"error", memory.error()}});
  return Lived{std::move(file.value()), std::move(left), life.value()};
}

// What only a fleet has. Members in the order in which they are built; the thread last.
struct Fleet {
  asio::io_context io{1};
  Bell bell;
  std::vector<std::unique_ptr<Port>> ports;
  Lived lived;  // a guest's has no file
  std::unique_ptr<Horizon> horizon;
  std::unique_ptr<ClusterThread> thread;
};

struct Daemon {
  const Config& config;
  std::optional<Secret> secret;  // until the cluster thread has it: no copy stays behind
  Log& log;
  Clock& clock;
  Notifier& notifier;
  Overview& overview;
  AdminThread& admin;
};

void announce_ready(Daemon& d) {
  d.overview.ready.store(true, std::memory_order_relaxed);
  d.notifier.send("READY=1\nSTATUS=serving");
  d.log.info("ready", {{"node", d.overview.node}});
}

// For the log: fingerprints, no keys.
std::string accepted_keys(const Secret& secret) {
  std::string text;
  for (const auto* key : {&secret.next, &secret.old})
    if (*key) text = (*key)->fingerprint_text();
  return text.empty() ? "-" : text;
}

Result<std::unique_ptr<Region>> start_region(Fleet& fleet, Daemon& d, const NodeConfig& below) {
  const Config::Cluster& cluster = d.config.cluster;
  if (!cluster.upstream || !cluster.owner()) return std::unique_ptr<Region>();
  NodeConfig node = config_above(d.config, below);
  const Roster roster(node_list(*cluster.upstream), std::nullopt, node.id_key);
  auto socket = PeerSocket::open(fleet.io, bind_above(cluster), node.sealed);
  if (!socket) return Failure{"cluster.upstream: " + socket.error()};
  auto discovery = Discovery::begin({fleet.io, socket.value()->book(), d.log}, roster, std::nullopt);
  if (!discovery) return Failure{"cluster.upstream: " + discovery.error()};
  d.log.info("an aggregator of a region", {{"above", node.peers.size()}, {"bind", socket.value()->bound()}});
  auto streams = std::make_unique<PeerStreams>(fleet.io, socket.value()->local());
  return std::make_unique<Region>(std::move(node), *d.overview.rules(),
                                  Link::Sockets{std::move(socket.value()), std::move(streams), std::move(discovery.value())},
                                  PeerSeal(d.secret), d.config.table_keys, random_seed(), d.clock.now());
}

Result<bool> start_fleet(Fleet& fleet, Daemon& d) {
  NodeConfig node = node_config(d.config, d.secret);
  const Roster roster(node_list(d.config.cluster), node.previous, node.id_key);
  auto socket = PeerSocket::open(fleet.io, d.config.cluster.bind, node.sealed);
  if (!socket) return Failure{socket.error()};
  auto discovery = Discovery::begin({fleet.io, socket.value()->book(), d.log}, roster, roster.rank_of(node.self));
  if (!discovery) return Failure{discovery.error()};
  auto streams = std::make_unique<PeerStreams>(fleet.io, socket.value()->local());
  if (!node.guest)
    if (const auto listening = streams->listen(); !listening)
      d.log.warning("cannot listen for TCP: where UDP does not pass, this node has to connect to the others", {{"error", listening.error()}});
  auto region = start_region(fleet, d, node);
  if (!region) return Failure{region.error()};
  if (region.value()) node.upstream = &region.value()->upstream();
  for (size_t i = 0; i < d.overview.workers.size(); ++i)
    fleet.ports.push_back(std::make_unique<Port>(fleet.bell));
  // When all else is there: a start that fails must not use up what the last life has left.
  auto lived = begin_life(d.config, node.id_key, roster, d.clock.now().wall, d.log);
  if (!lived) return Failure{lived.error()};
  fleet.lived = std::move(lived.value());
  if (fleet.lived.file)
    fleet.horizon =
        std::make_unique<Horizon>(*fleet.lived.file, look_ahead(node.pace.sync_interval), d.admin.io(), d.log);

  const Life& life = fleet.lived.life;
  if (node.guest)
    d.log.info("a guest of the aggregators: this node is in no list, and has no floors",
               {{"bind", socket.value()->bound()}, {"aggregators", node.owners.size()}});
  else
    d.log.info("a node of a fleet", {{"entry", node.self},
                                     {"bind", socket.value()->bound()},
                                     {"peers", node.peers.size()},
                                     {"incarnation", life.incarnation},
                                     {"first_life", life.first ? "yes" : "no"},
                                     {"registers_kept", life.memory ? std::to_string(life.memory->registers.size()) : "none"},
                                     {"state", fleet.lived.file->path()}});
  if (d.secret)
    d.log.info("datagrams are sealed",
               {{"key", d.secret->seal.fingerprint_text()}, {"also_accepted", accepted_keys(*d.secret)}});
  d.notifier.send("STATUS=asking the other nodes");
  auto running = std::make_unique<Node>(node, life, d.overview.limiter, d.overview.rules(), random_seed(), d.clock.now());
  while (const auto tenure = fleet.lived.file ? running->tenure_to_keep() : std::nullopt) {
    if (const auto kept = fleet.lived.file->keep(*tenure); !kept) return Failure{kept.error()};
    running->tenure_kept(*tenure, d.clock.now());
  }
  if (!node.guest && !node.previous && !running->stats().roster_settled)
    d.log.warning(
        "this node does not know since when its list rules: it has no floor and no vote until another one tells it; a new fleet "
        "begins with roster_version 1",
        {{"roster_version", node.roster_version}});
  fleet.thread = std::make_unique<ClusterThread>(ClusterThread::Parts{
      fleet.io, std::move(region.value()), std::make_unique<Link>(Link::Sockets{std::move(socket.value()), std::move(streams), std::move(discovery.value())},
                             PeerSeal(std::exchange(d.secret, std::nullopt)), std::move(running), random_seed()),
      fleet.bell, fleet.ports, d.clock, fleet.horizon.get(), d.log, [&d] { announce_ready(d); }});
  return true;
}

void leave_memory(const Fleet& fleet, Log& log) {
  const auto memory = fleet.thread->memory();
  if (!memory || !fleet.lived.memory) return;
  if (const auto left = fleet.lived.memory->leave(*memory, fleet.thread->roster()); !left)
    log.warning("the registers cannot be kept: the next life reads them anew from the others", {{"error", left.error()}});
}

HttpResponse respond(const std::string& path, const Overview& overview, const Metrics& metrics) {
  const bool ready = overview.ready.load(std::memory_order_relaxed);
  if (path == "/metrics") return {200, "text/plain; version=0.0.4; charset=utf-8", metrics.text()};
  if (path == "/healthz") return {200, "text/plain; charset=utf-8", "ok\n"};
  if (path == "/readyz")
    return {ready ? 200 : 503, "text/plain; charset=utf-8", ready ? "ready\n" : "not ready\n"};
  if (path == "/") return {200, "text/html; charset=utf-8", std::string(kPage)};
  return {404, "text/plain; charset=utf-8", "there are /, /metrics, /healthz and /readyz\n"};
}

std::string try_command(const std::vector<std::unique_ptr<Acceptor>>& doors) {
  for (const auto& door : doors) {
    const Address& at = door->address();
    const std::string where = at.kind == Address::Kind::unix_socket
                                  ? "-s " + at.path
                                  : "-h " + at.host + " -p " + std::to_string(at.port);
    return "redis-cli " + where + " CL.THROTTLE user:1 15 30 60 1";
  }
  return "";
}

// SIGTERM and SIGINT end the loop.
void watch_signals(asio::signal_set& signals, asio::io_context& io, Log& log, const std::function<void()>& on_hangup) {
  signals.async_wait([&](const asio::error_code& error, int signal) {
    if (error) return;
    if (signal == SIGHUP) {
      log.info("SIGHUP: reading the configuration again");
      on_hangup();
      return watch_signals(signals, io, log, on_hangup);
    }
    log.info("draining", {{"signal", signal == SIGTERM ? "SIGTERM" : "SIGINT"}});
    io.stop();
  });
}

void keep_clock(asio::steady_timer& timer, Clock& clock) {
  timer.expires_after(kClockEvery);
  timer.async_wait([&](const asio::error_code& error) {
    if (error) return;
    clock.refresh();
    keep_clock(timer, clock);
  });
}

Result<std::vector<Listener>> listen_on(const std::vector<Address>& addresses) {
  std::vector<Listener> listeners;
  for (const Address& address : addresses) {
    auto listener = Listener::open(address);
    if (!listener) return Failure{listener.error()};
    listeners.push_back(std::move(listener.value()));
  }
  return listeners;
}

// `config`: with what the defaults stand for; `loaded`: as it was read.
Result<bool> run(const Options& options, const Config& loaded, const Config& config, std::optional<Secret> secret, Log& log) {
  asio::io_context io(1);
  asio::signal_set signals(io, SIGTERM, SIGINT,
                           SIGHUP);  // first: a signal during the start ends it in order as well
  const size_t descriptors = raise_descriptor_limit();
  Clock clock;
  Notifier notifier;
  const bool in_fleet = !config.cluster.alone();
  const auto rules =
      std::make_shared<const RuleSet>(config.rules, config.inline_rule, share_of(config),
                                      secret ? secret->id : kPublicIdKey);
  SlotTable slots(config.table_keys, random_seed(), in_fleet);
  Limiter limiter(slots, in_fleet);
  Overview overview(node_name(config), rules, limiter, worker_count(config), clock.mono());
  overview.connections_max =
      std::min<uint64_t>(config.limits.connections, descriptors > 64 ? descriptors - 64 : 1);
  if (overview.connections_max < config.limits.connections)
    log.warning("fewer connections than limits.connections: the system allows no more open files",
                {{"connections", overview.connections_max}});

  // Listening first: a second daemon on the same socket must change nothing, not even the state file.
  auto resp_listeners = listen_on(config.resp);
  if (!resp_listeners) return Failure{resp_listeners.error()};
  auto http_listeners = listen_on(config.http);
  if (!http_listeners) return Failure{http_listeners.error()};

  AdminThread admin;
  Fleet fleet;
  Daemon daemon{config, std::exchange(secret, std::nullopt), log, clock, notifier, overview, admin};
  if (in_fleet)
    if (const auto started = start_fleet(fleet, daemon); !started) return Failure{started.error()};

  const ServiceLimits limits{config.limits.key_bytes, config.limits.pipeline_bytes, config.limits.waiting,
                             config.cluster.sync_interval};
  std::vector<std::unique_ptr<Worker>> workers;
  Reload reload({io, options, loaded, overview, fleet.thread.get(), workers, notifier, log});
  for (size_t i = 0; i < overview.workers.size(); ++i)
    workers.push_back(
        std::make_unique<Worker>(i, overview, clock, in_fleet ? fleet.ports[i].get() : nullptr, limits,
                                 [&reload](Reload::Done done) { reload.request(std::move(done)); }));
  const Metrics metrics(overview, fleet.thread.get(), config.limits.registers);
  std::vector<std::unique_ptr<HttpServer>> pages;
  for (Listener& listener : http_listeners.value())
    pages.push_back(std::make_unique<HttpServer>(
        admin.io(), std::move(listener),
        [&](const std::string& path) { return respond(path, overview, metrics); }));
  std::vector<std::unique_ptr<Acceptor>> doors;
  for (Listener& listener : resp_listeners.value())
    doors.push_back(std::make_unique<Acceptor>(io, std::move(listener), workers, overview, log));

  asio::steady_timer clock_timer(io);
  for (const auto& door : doors) log.info("serving RESP", {{"address", door->address().text()}});
  for (const auto& page : pages) log.info("serving HTTP", {{"address", page->address().text()}});
  if (!doors.empty()) log.info("try: " + try_command(doors));
  if (!in_fleet) {
    announce_ready(daemon);
    keep_clock(clock_timer, clock);
  }
  const std::function<void()> on_hangup = [&reload] { reload.request([](const Result<bool>&) {}); };
  watch_signals(signals, io, log, on_hangup);
  io.run();

  overview.ready.store(false, std::memory_order_relaxed);
  notifier.send("STOPPING=1\nSTATUS=draining");
  for (auto& door : doors) door->stop();
  for (auto& worker : workers) worker->drain(kDrainGrace);
  for (auto& worker : workers) worker->join();
  if (in_fleet) {
    fleet.thread->stop();
    fleet.thread->join();
    leave_memory(fleet, log);
  }
  admin.stop();  // before what it serves from goes
  log.info("stopped", {{"requests", overview.total(&WorkerCounters::requests)}});
  return true;
}

int main_with(const Options& options) {
  if (options.version) return std::printf("tallyd %s\n", kVersion), 0;
  if (options.help) return std::printf("%s", options.help_text.c_str()), 0;
  Loaded loaded = load_config(options);
  for (const std::string& line : loaded.errors) std::fprintf(stderr, "tallyd: %s\n", line.c_str());
  if (!loaded.errors.empty()) return kExitConfiguration;
  Config config = loaded.config;
  if (options.check || options.print_config) {
    for (const std::string& line : loaded.warnings)
      std::fprintf(stderr, "tallyd: warning: %s\n", line.c_str());
    if (options.print_config) std::printf("%s", print_config(config).c_str());
    if (options.check) std::printf("%s\nthe configuration is fine\n", describe_promises(config).c_str());
    return 0;
  }
  Log log(options.log_level, options.log_format);
  log.info("tallyd starts", {{"version", kVersion}});
  for (const std::string& line : loaded.warnings) log.warning(line);
  if (config.resp.empty() || !options.name.empty()) {
    const auto path = default_socket_path(options.name);
    if (options.listen_resp.empty()) {
      if (!path) return log.error(path.error()), kExitConfiguration;
      config.resp = {Address{}};
      config.resp.front().path = path.value();
    }
  }
  const auto ran = run(options, loaded.config, config, std::exchange(loaded.secret, std::nullopt), log);
  if (!ran) return log.error(ran.error()), kExitFailure;
  return 0;
}

}  // namespace
}  // namespace tally

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  const auto options = tally::parse_options(argc, argv);
  if (options) return tally::main_with(options.value());
  std::fprintf(stderr, "tallyd: %s\nTry 'tallyd --help'.\n", options.error().c_str());
  return tally::kExitUsage;
}
