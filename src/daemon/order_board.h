// Brings orders (cluster/orders.h) to those who decide, and to the disk; of a node alone it also keeps them.
//
// Thread rule: publish() from one thread at a time: the cluster thread's, main's alone. known() from any. The
// calls under "alone" are main's. The file is written on the admin thread.
//
// Workers have an immutable table each time something changes. One that no worker has any more is freed here,
// so that none of them is ever the last to let go of it.
#pragma once

#include <asio/io_context.hpp>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cluster/orders.h"
#include "core/order_table.h"
#include "daemon/clock.h"
#include "daemon/log.h"
#include "daemon/overview.h"
#include "daemon/port.h"
#include "daemon/worker.h"

namespace tally {

class OrderBoard {
 public:
  struct Parts {
    asio::io_context& main;
    asio::io_context& admin;
    Overview& overview;
    const Clock& clock;
    Log& log;
    std::string file;  // "": orders live as long as the daemon, and what others tell it
  };
  // Reads the file; one that is of no use is said and passed over.
  explicit OrderBoard(Parts parts);
  OrderBoard(const OrderBoard&) = delete;
  OrderBoard& operator=(const OrderBoard&) = delete;

  // Those who get tables, from now on; before their threads may ask anything.
  void set_workers(const std::vector<std::unique_ptr<Worker>>& workers);
  // All that are known, as published last, or in the file.
  std::vector<KeyOrder> known() const;
  // What holds goes to the workers, and all that is known to the file. `rules`: those that decisions are made
  // by.
  void publish(const Orders& orders, const RuleSet& rules, WallTime now);
  // How long to wait between two calls of publish(): it makes tables of all.
  Duration pause() const;

  // --- alone ---
  // From a worker: answers the call on main, then calls `then` there.
  void ask(Call& call, std::function<void()> then);
  void look();                     // what is over; every now and then
  void use(const RuleSet& rules);  // other rules

  void finish();  // when the admin thread has ended: writes what it has not

 private:
  void answer(Call& call);
  void keep(std::vector<KeyOrder> known);
  void write();

  Parts parts_;
  mutable std::mutex mutex_;  // of known_, to_write_ and workers_
  std::vector<KeyOrder> known_;
  bool to_write_ = false;
  const std::vector<std::unique_ptr<Worker>>* workers_ = nullptr;
  std::shared_ptr<const OrderTable> newest_;
  std::vector<std::shared_ptr<const OrderTable>> tables_;  // that a worker may still have
  bool failing_ = false;                                   // the admin thread's

  Orders orders_;  // alone
  uint64_t published_ = 0;
};

}  // namespace tally
