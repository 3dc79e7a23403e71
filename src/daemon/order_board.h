// Brings orders (cluster/orders.h) to those who decide, and to the disk; of a node alone it also keeps them.
//
// Thread rule: publish() from one thread at a time: the cluster thread's, main's alone. known() from any. The
// calls under "alone" are main's. The file is written on the admin thread.
//
// Workers have an immutable table each time something changes, which shares most with the one before. One
// that no worker has any more is freed here, so that none of them is ever the last to let go of it.
#pragma once

#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
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
  // What holds goes to the workers, and all that is known to the file: what changed since Orders::changes()
  // was `since`, or all where there is no `since` or that is too long ago. `rules`: those that decisions are
  // made by.
  void publish(const Orders& orders, const RuleSet& rules, WallTime now, std::optional<uint64_t> since);
  static constexpr Duration kPause = std::chrono::milliseconds(20);  // between two calls of publish()

  // --- alone ---
  // From a worker: answers the call on main, then calls `then` there.
  void ask(Call& call, std::function<void()> then);
  void look();                     // what is over; every now and then
  void use(const RuleSet& rules);  // other rules

  void finish();  // when the admin thread has ended: writes what it has not

 private:
  void answer(Call& call);
  void keep(const Orders::Name& name, const KeyOrder* order);  // nullptr: not known any more
  void keep_all(const Orders& orders);
  void write_soon();
  void write();

  Parts parts_;
  mutable std::mutex mutex_;  // of known_, to_write_ and workers_
  std::map<Orders::Name, KeyOrder> known_;
  bool to_write_ = false;
  const std::vector<std::unique_ptr<Worker>>* workers_ = nullptr;
  std::shared_ptr<const OrderTable> newest_;
  std::vector<std::shared_ptr<const OrderTable>> tables_;  // that a worker may still have
  bool failing_ = false;                                   // the admin thread's, as what follows
  asio::steady_timer write_again_;
  MonoTime write_not_before_{};

  Orders orders_;  // alone
  uint64_t published_ = 0;
};

}  // namespace tally
