// Reading the configuration again while the daemon runs: all or nothing, and nothing that was counted is lost.
//
// Thread rule: request() from any thread; everything else is main's. What changes goes to the cluster thread first, which may
// still refuse (another fleet's secret), then to the workers and to what shows it. Other lists of nodes begin a new life of the node
// (Fleet), and are read again when that is ready.
#pragma once

#include <asio/io_context.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "config/config.h"
#include "daemon/fleet.h"
#include "daemon/log.h"
#include "daemon/notify.h"
#include "daemon/options.h"
#include "daemon/overview.h"
#include "daemon/worker.h"

namespace tally {

class Reload {
 public:
  struct Parts {
    asio::io_context& main;
    const Options& options;
    Config running;  // as it was loaded
    Overview& overview;
    Fleet* fleet;  // nullptr: alone
    OrderBoard& orders;
    const std::vector<std::unique_ptr<Worker>>& workers;
    const Notifier& notifier;
    Log& log;
    std::function<void(std::string)> give_up;  // the daemon cannot go on: why
  };
  // Called on main, with the first error where nothing was changed; the log has all of them.
  using Done = std::function<void(const Result<bool>&)>;

  explicit Reload(Parts parts) : parts_(std::move(parts)) {}
  Reload(const Reload&) = delete;
  Reload& operator=(const Reload&) = delete;

  // Reads what is there when it begins. Those who ask while one is under way share the next.
  void request(Done done);
  bool ready();  // the node's life is. Whether a reload waited for that

 private:
  void begin();
  void use(const std::shared_ptr<Loaded>& next, std::shared_ptr<const RuleSet> rules);
  void begin_anew(const std::shared_ptr<Loaded>& next, const std::shared_ptr<const RuleSet>& rules);
  void begin_life(const std::shared_ptr<Loaded>& next);
  void finish(const std::vector<std::string>& errors);

  Parts parts_;
  std::vector<Done> waiting_, served_;
  bool under_way_ = false;
  // The rules before the last reload, or what it would have replaced. Kept, so that no worker is the last to let go of them: freeing
  // a thousand rules takes the allocator's lock, which this thread holds while it reads a file.
  std::shared_ptr<const RuleSet> before_;
  size_t workers_to_come_ = 0;   // of those who are to leave the last life
  bool until_ready_ = false;     // a reload waits for the next one
  std::string seals_with_;  // the fingerprint of the key that was read last, for the log
};

}  // namespace tally
