// Reading the configuration again while the daemon runs: all or nothing, and nothing that was counted is lost.
//
// Thread rule: request() from any thread; everything else is main's. What changes goes to the cluster thread first, which may
// still refuse (another fleet's secret), then to the workers and to what shows it.
#pragma once

#include <asio/io_context.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "config/config.h"
#include "daemon/cluster_thread.h"
#include "daemon/log.h"
#include "daemon/notify.h"
#include "daemon/options.h"
#include "daemon/overview.h"
#include "daemon/worker.h"

namespace tally {

Pace pace_of(const Config& config);

class Reload {
 public:
  struct Parts {
    asio::io_context& main;
    const Options& options;
    Config running;  // as it was loaded
    Overview& overview;
    ClusterThread* cluster;  // nullptr: alone
    const std::vector<std::unique_ptr<Worker>>& workers;
    const Notifier& notifier;
    Log& log;
  };
  // Called on main, with the first error where nothing was changed; the log has all of them.
  using Done = std::function<void(const Result<bool>&)>;

  explicit Reload(Parts parts) : parts_(std::move(parts)) {}
  Reload(const Reload&) = delete;
  Reload& operator=(const Reload&) = delete;

  // Reads what is there when it begins. Those who ask while one is under way share the next.
  void request(Done done);

 private:
  void begin();
  void use(const std::shared_ptr<Loaded>& next, std::shared_ptr<const RuleSet> rules);
  void finish(const std::vector<std::string>& errors);

  Parts parts_;
  std::vector<Done> waiting_, served_;
  bool under_way_ = false;
  std::string seals_with_;  // the fingerprint of the key that was read last, for the log
};

}  // namespace tally
