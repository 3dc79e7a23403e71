// Keeps the state file as a running node needs it, off the cluster thread: the horizon ahead of the clock, and what it says of a
// change of the list of nodes.
//
// Thread rule: covers() and keep() are the cluster thread's; the disk is written on the admin thread, which
// alone touches the state file after the start.
#pragma once

#include <asio/io_context.hpp>
#include <atomic>
#include <functional>

#include "base/time.h"
#include "daemon/log.h"
#include "daemon/state_file.h"

namespace tally {

class Horizon {
 public:
  Horizon(StateFile& file, Duration look_ahead, asio::io_context& admin, Log& log);
  Horizon(const Horizon&) = delete;
  Horizon& operator=(const Horizon&) = delete;

  // Whether clock + look-ahead is before what is on the disk. Where it is not, the node must not act: no
  // vote, no grant.
  bool covers(WallTime now) const {
    return nanos(now + look_ahead_) <
           synced_.load(std::memory_order_acquire);  // pairs with the admin thread's release
  }
  // Asks for a later one in good time: when half of the step is gone.
  void keep(WallTime now);
  // Calls `then` on the admin thread: whether it is on the disk.
  void keep(const Tenure& tenure, std::function<void(bool)> then);

 private:
  void extend(WallTime now);

  StateFile& file_;
  const Duration look_ahead_;
  asio::io_context& admin_;
  Log& log_;
  std::atomic<int64_t> synced_;
  std::atomic<bool> asked_{false};
  bool failing_ = false;  // the admin thread's
};

}  // namespace tally
