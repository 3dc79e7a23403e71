// What only a fleet has: the node's lives, one at a time, each with a cluster thread and sockets of its own; and what outlives them, the
// ports to the workers and the state file.
//
// Thread rule: main's, but for ask(). begin() and end() wait for the disk.
//
// Another list of nodes is gone by from a life's beginning, so a list that is read again begins a new life, as a restart does, while
// the workers go on: end(), let them pass a point where they decide by the new rules, begin(). In between nothing is granted.
#pragma once

#include <asio/io_context.hpp>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "config/config.h"
#include "daemon/clock.h"
#include "daemon/cluster_thread.h"
#include "daemon/horizon.h"
#include "daemon/log.h"
#include "daemon/memory_file.h"
#include "daemon/notify.h"
#include "daemon/overview.h"
#include "daemon/port.h"
#include "daemon/state_file.h"

namespace tally {

Share share_of(const Config& config);
Pace pace_of(const Config& config);
uint64_t random_seed();

class Fleet {
 public:
  struct Parts {
    Overview& overview;
    Clock& clock;
    const Notifier& notifier;
    asio::io_context& admin;
    Log& log;
    OrderBoard& orders;
    std::function<void()> on_ready;  // on the cluster thread, once in each life
  };
  explicit Fleet(Parts parts);
  ~Fleet();
  Fleet(const Fleet&) = delete;
  Fleet& operator=(const Fleet&) = delete;

  Port* port(size_t worker) { return ports_[worker].get(); }
  // The next life, by the rules of the overview. An error: there is none; of a first one's start, what the last life left stays.
  Result<bool> begin(const Config& config, std::optional<Secret> secret);
  // Returns what is not used, says the last word, keeps what the next life may use. Without effect where there is no life. Workers may
  // go on: what they admit from then on was granted before.
  void end();
  // Why the next life can not go by that list, or with that secret; "" where it can.
  std::string refuses(const Config& next, const std::optional<Secret>& secret);
  void use(ClusterThread::Change change, std::function<void(Result<bool>)> then);  // as ClusterThread's; requires a life
  bool ask(std::function<void(ClusterThread::View)> then);  // the same, from any thread; false where there is no life to be asked
  const TimeHistogram& tick_lag() const { return tick_lag_; }
  const TimeHistogram& books_calls() const { return books_calls_; }
  const TimeHistogram& central_calls() const { return central_calls_; }

 private:
  struct Running {
    asio::io_context io{1};
    std::unique_ptr<Horizon> horizon;  // nullptr: a guest's
    std::unique_ptr<ClusterThread> thread;
  };

  Result<std::unique_ptr<Region>> begin_region(asio::io_context& io, const Config& config, const NodeConfig& below,
                                               const std::optional<Secret>& secret);
  std::unique_ptr<Central> begin_books(Link::Sockets& sockets, asio::io_context& io, const Config& config, const Roster& roster, const NodeConfig& node, const Life& life);
  Result<Life> begin_life(const Config& config, const Roster& roster);
  void say_begun(const Config& config, const NodeConfig& node, const Life& life, const std::string& bound,
                 const std::optional<Secret>& secret);
  template <typename Do>
  auto on_admin(Do what);

  Parts parts_;
  TimeHistogram tick_lag_, books_calls_, central_calls_;
  Bell bell_;
  std::vector<std::unique_ptr<Port>> ports_;
  IdKey id_key_ = kPublicIdKey;
  std::unique_ptr<StateFile> file_;  // nullptr: a guest's. The admin thread's, as in Horizon
  std::unique_ptr<MemoryFile> memory_;
  std::mutex mutex_;  // of running_
  std::unique_ptr<Running> running_;
};

}  // namespace tally
