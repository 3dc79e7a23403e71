// tallyd: builds everything in the order in which it depends on each other, runs, and takes it down in the
// other order.
//
// Threads: main (signals, accepting), the workers (all decisions, all of RESP and HTTP), the cluster thread (in a fleet), the admin
// thread (the text of metrics, the state file's horizon), where peers have names the resolver's, where Envoy is served gRPC's. What they
// share is built here and outlives them.
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/signal_set.hpp>
#include <asio/steady_timer.hpp>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <functional>
#include <optional>
#include <thread>
#include <utility>

#include "daemon/acceptor.h"
#include "daemon/fleet.h"
#include "daemon/metrics.h"
#include "daemon/notify.h"
#include "daemon/options.h"
#include "daemon/order_board.h"
#include "daemon/paths.h"
#include "daemon/reload.h"
#include "daemon/scrapes.h"
#include "daemon/top.h"
#include "rls/door.h"

namespace tally {
namespace {

constexpr Duration kDrainGrace = std::chrono::seconds(5);
constexpr Duration kClockEvery =
    std::chrono::milliseconds(250);  // alone: how soon a step of the system clock is seen

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

size_t worker_count(const Config& config) {
  if (config.workers != 0) return config.workers;
  const size_t cores = std::thread::hardware_concurrency();
  return cores > 3 ? cores - 2 : 1;
}

// "": there is no place for it. A guest keeps no files.
std::string order_file(const Config& config) {
  if (config.cluster.guest()) return "";
  std::string directory = config.state_dir;
  if (directory.empty()) {
    const auto fallback = default_state_dir();
    if (!fallback) return "";
    directory = fallback.value();
  }
  return directory + "/" + state_file_name(config.node_name) + ".orders";
}

void say_ready(Overview& overview, Log& log) {
  overview.ready.store(true, std::memory_order_relaxed);
  log.info("ready", {{"node", overview.node}});
}

std::string try_command(const Address& resp) {
  const std::string where = resp.kind == Address::Kind::unix_socket
                                ? "-s " + resp.path
                                : "-h " + resp.host + " -p " + std::to_string(resp.port);
  return "redis-cli " + where + " CL.THROTTLE user:1 15 30 60 1";
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

// Questions that come over no worker's connection go to the workers in turn.
std::unique_ptr<RlsDoor> rls_door(const Overview& overview, const std::vector<std::unique_ptr<Worker>>& workers) {
  const auto next = std::make_shared<std::atomic<size_t>>(0);
  return std::make_unique<RlsDoor>(
      RlsDoor::Parts{[&overview] { return overview.rules(); }, [&overview] { return overview.ready.load(std::memory_order_relaxed); },
                     [&workers, next](std::unique_ptr<Question> question) {
                       workers[next->fetch_add(1, std::memory_order_relaxed) % workers.size()]->ask(std::move(question));
                     },
                     overview.connections_max});
}

void keep_clock(asio::steady_timer& timer, Clock& clock, OrderBoard& orders) {
  orders.look();
  timer.expires_after(kClockEvery);
  timer.async_wait([&](const asio::error_code& error) {
    if (error) return;
    clock.refresh();
    keep_clock(timer, clock, orders);
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

  if (const size_t cores = std::thread::hardware_concurrency(); config.spin > Duration(0) && overview.workers.size() >= cores)
    log.warning("workers that spin need a core each, and one for all else: \"spin\" takes time from whoever asks them",
                {{"workers", overview.workers.size()}, {"cores", cores}});

  // Listening first: a second daemon on the same socket must change nothing, not even the state file.
  auto resp_listeners = listen_on(config.resp);
  if (!resp_listeners) return Failure{resp_listeners.error()};
  auto http_listeners = listen_on(config.http);
  if (!http_listeners) return Failure{http_listeners.error()};
  auto rls_listeners = listen_on(config.rls);
  if (!rls_listeners) return Failure{rls_listeners.error()};

  AdminThread admin;
  OrderBoard orders({io, admin.io(), overview, clock, log, order_file(config)});
  std::unique_ptr<Reload> reload;
  const auto on_ready = [&] {
    say_ready(overview, log);
    if (!reload->ready()) notifier.send(kServing);
  };
  std::unique_ptr<Fleet> fleet;
  if (in_fleet) {
    fleet = std::make_unique<Fleet>(Fleet::Parts{overview, clock, notifier, admin.io(), log, orders, [&] { asio::post(io, on_ready); }});
    if (const auto begun = fleet->begin(config, std::exchange(secret, std::nullopt)); !begun) return Failure{begun.error()};
  }

  const ServiceLimits limits{config.limits.key_bytes, config.limits.pipeline_bytes, config.limits.waiting,
                             config.cluster.sync_interval};
  std::vector<std::unique_ptr<Worker>> workers;
  std::string gave_up;
  const auto give_up = [&](std::string why) {
    gave_up = std::move(why);
    io.stop();
  };
  reload = std::make_unique<Reload>(Reload::Parts{io, options, loaded, overview, fleet.get(), orders, workers, notifier, log, give_up});
  const std::unique_ptr<RlsDoor> rls = config.rls.empty() ? nullptr : rls_door(overview, workers);
  if (rls) overview.grpc = [&rls] { return rls->counts(); };
  const Metrics metrics(overview, fleet.get(), config.limits.registers);
  Scrapes scrapes(admin.io(), metrics);
  const Worker::Others others{[&reload](Reload::Done done) { reload->request(std::move(done)); },
                              [&scrapes](Scrapes::Done done) { scrapes.request(std::move(done)); },
                              [&orders](Call& call, std::function<void()> then) { orders.ask(call, std::move(then)); },
                              [&](Call& call, std::function<void()> then) {
                                asio::post(admin.io(), [&, then = std::move(then)] {
                                  answer_top(call, overview, clock.mono());
                                  then();
                                });
                              }};
  for (size_t i = 0; i < overview.workers.size(); ++i)
    workers.push_back(std::make_unique<Worker>(i, overview, clock, in_fleet ? fleet->port(i) : nullptr, limits,
                                               Worker::Times{config.spin, config.limits.http_idle}, others));
  orders.set_workers(workers);
  std::vector<std::unique_ptr<Acceptor>> doors, rls_doors;
  TurnedAway turned_away(overview, log);
  const auto open = [&](std::vector<std::unique_ptr<Acceptor>>& into, std::vector<Listener>& listeners, std::string_view what, const Acceptor::HandOver& hand_over) {
    for (Listener& listener : listeners) {
      into.push_back(std::make_unique<Acceptor>(io, std::move(listener), hand_over, log));
      log.info("serving " + std::string(what), {{"address", into.back()->address().text()}});
    }
  };
  open(doors, resp_listeners.value(), "RESP", ToWorkers(workers, Protocol::resp, overview, log));
  open(doors, http_listeners.value(), "HTTP", ToWorkers(workers, Protocol::http, overview, log));
  open(rls_doors, rls_listeners.value(), "gRPC", [&](Descriptor fd, bool) {
    if (!rls->adopt(std::move(fd))) turned_away.count(overview.connections_max);
  });

  asio::steady_timer clock_timer(io);
  log.info("try: " + try_command(doors.front()->address()));
  if (!in_fleet) {
    say_ready(overview, log);
    notifier.send(kServing);
    keep_clock(clock_timer, clock, orders);
  }
  const std::function<void()> on_hangup = [&reload] { reload->request([](const Result<bool>&) {}); };
  watch_signals(signals, io, log, on_hangup);
  io.run();

  overview.ready.store(false, std::memory_order_relaxed);
  notifier.send("STOPPING=1\nSTATUS=draining");
  for (auto& door : doors) door->stop();
  for (auto& door : rls_doors) door->stop();
  const MonoTime drained_by = clock.mono() + kDrainGrace;
  if (rls) rls->drain(kDrainGrace / 2);  // while there are workers that answer
  for (auto& worker : workers) worker->drain(std::max(drained_by - clock.mono(), Duration(0)));
  for (auto& worker : workers) worker->join();
  if (in_fleet) fleet->end();
  admin.stop();  // before what it serves from goes
  orders.finish();
  log.info("stopped", {{"requests", overview.total(&WorkerCounters::requests)}});
  if (!gave_up.empty()) return Failure{gave_up};
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
