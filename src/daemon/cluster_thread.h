// The cluster thread: a Node with a socket, a clock and the workers' rings.
//
// Thread rule: ask(), use() and stop() from any thread; everything else is the thread's own. It never blocks: the
// state file is written elsewhere, and while that is behind the node stands still (Horizon).
#pragma once

#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/steady_timer.hpp>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "cluster/node.h"
#include "daemon/central.h"
#include "daemon/clock.h"
#include "daemon/counters.h"
#include "daemon/horizon.h"
#include "daemon/link.h"
#include "daemon/log.h"
#include "daemon/order_board.h"
#include "daemon/port.h"
#include "daemon/region.h"

namespace tally {

class ClusterThread {
 public:
  struct Parts {
    asio::io_context& io;  // the socket's; run by this thread alone
    std::unique_ptr<Region> region;  // of an aggregator with a level above; outlives the node that draws from it
    std::unique_ptr<Link> link;
    std::unique_ptr<Central> central;  // in the link's store; nullptr: there is none
    Bell& bell;  // of the ports
    std::vector<std::unique_ptr<Port>>& ports;
    Clock& clock;
    Horizon* horizon;  // nullptr: a guest's, which keeps no state
    TimeHistogram& tick_lag;
    Log& log;
    OrderBoard& orders;
    std::function<void()> on_ready;  // once, on this thread, when the start is over
  };
  explicit ClusterThread(Parts parts);  // the thread starts here
  ~ClusterThread();                     // requires stop() before
  ClusterThread(const ClusterThread&) = delete;
  ClusterThread& operator=(const ClusterThread&) = delete;

  struct View {
    std::vector<PeerStatus> peers;
    NodeStats stats;
    uint64_t send_failures = 0, sent_nowhere = 0;
    Discovery::Lookups lookups;
    std::vector<PeerStreams::Counts> streams;  // of each link
    std::vector<PeerSeal::KeyUse> keys;
    std::optional<BooksPeer::Counts> books;  // in Redis
    Central::Counts central;
  };
  // Calls `then` with a copy, on this thread.
  void ask(std::function<void(View)> then);
  struct Change {
    std::shared_ptr<const RuleSet> rules;  // as Node::use requires
    Pace pace;
    std::optional<Secret> secret;  // nullopt: there is none
  };
  // All or nothing: calls `then` with what PeerSeal::replace said, on this thread.
  void use(Change change, std::function<void(Result<bool>)> then);
  // Returns what is not used, says the last word, ends. Floors stay as they are, and workers may go on by them.
  void stop();
  void join();
  // For the next life; after join(). nullopt: this one could not end in order.
  std::optional<Memory> memory() const { return memory_; }
  const Roster& roster() const { return node_.roster(); }

 private:
  void run();
  void watch_bell();
  void work();
  bool take_notes(Now now);
  void take_calls(Port& port, Now now);
  static bool deliver(Port& port);
  void answer(Call& call, Now now);
  void tell_books_to_the_end(MonoTime until);
  bool may_act(WallTime now);
  MonoTime next_tick() const;
  MonoTime next_due() const;
  void tick(Now now);
  void flush(Now now);
  std::vector<PeerStatus> peers(Now now) const;
  std::vector<Link*> links() const;
  NodeStats stats() const;
  View view();
  void deliver_wakes();
  void arm_timer();
  void keep_tenure(Now now);
  void look_at_peers(Now now);
  void look_at_clock();
  void look_at_orders(Now now);
  bool orders_to_publish() const;
  void answer_order(Call& call, Now now);

  Parts parts_;
  Link& link_;
  Node& node_;
  asio::posix::stream_descriptor bell_;
  asio::steady_timer timer_;
  MonoTime armed_for_{};
  struct Known {
    bool up = false, rules_mismatch = false, roster_mismatch = false, tcp = false;
  };
  std::map<std::string, Known> known_;  // of the peers in lists, when last looked at
  bool said_clone_ = false;
  MonoTime peers_looked_at_{};
  bool ready_ = false;
  bool keeping_ = false;  // a tenure is on its way to the disk
  MonoTime keep_not_before_{};
  std::optional<uint64_t> orders_published_;  // Orders::changes() then; nullopt: never by these rules
  MonoTime publish_not_before_{};
  bool busy_ = false;  // there is more to do at once
  bool stopping_ = false;
  std::optional<Memory> memory_;
  std::thread thread_;
};

}  // namespace tally
