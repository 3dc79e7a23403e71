// A worker: one thread, one event loop, its connections.
//
// Thread rule: ask() from any thread; adopt(), use(), drain() and join() from main; everything else is the worker's own thread.
//
// A bare epoll loop, the only one of the daemon's that is not asio's: one by one a decision is little but
// system calls, and asio adds a wait and an epoll_ctl to every sleep (docs/performance.md). It can also spin,
// which asio's cannot. Connections are edge-triggered: else the kernel would ask each that it told of once more
// before the next wait. What is left unread on purpose is told again when the interest is set anew.
#pragma once

#include <sys/epoll.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "daemon/clock.h"
#include "daemon/inbox.h"
#include "daemon/overview.h"
#include "daemon/port.h"
#include "daemon/service.h"
#include "daemon/session.h"

namespace tally {

class Worker {
 public:
  // What other threads do for it: each calls back from any thread, with what became of it.
  struct Others {
    std::function<void(std::function<void(const Result<bool>&)>)> reload;
    std::function<void(std::function<void(std::string)>)> metrics;  // in the exposition format
    // These answer the call, which nobody else sees meanwhile.
    std::function<void(Call&, std::function<void()>)> orders;  // of a node alone
    std::function<void(Call&, std::function<void()>)> top;
  };
  struct Times {
    Duration spin{0};       // for how long it looks for more to do before it sleeps
    Duration http_idle{0};  // for how long a connection over HTTP may have nothing to ask
  };

  // `port`: nullptr alone. The thread starts here.
  Worker(size_t index, Overview& overview, const Clock& clock, Port* port, const ServiceLimits& limits,
         const Times& times, Others others);
  ~Worker();  // requires drain() before
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void adopt(Descriptor fd, bool unix_socket, Protocol protocol);  // an accepted connection, non-blocking
  uint64_t connections() const {
    uint64_t n = 0;
    for (const Count& count : counters_.connections) n += count.value();
    return n;
  }
  void use(std::shared_ptr<const RuleSet> rules, Duration sync_interval);  // soon: see Service::use
  void use(std::shared_ptr<const OrderTable> orders);  // likewise
  // As use(), where the node's life has ended. Calls `then`, on the worker's thread, when nothing is decided
  // by what was before.
  void end_life(std::shared_ptr<const RuleSet> rules, Duration sync_interval, std::function<void()> then);
  void ask(std::unique_ptr<Question> question);  // any thread: see Service::ask
  void begin_life();  // soon: the next one hears of who waits
  // Answers what has arrived and what waits, then closes all; the thread ends, after `grace` at the latest.
  void drain(Duration grace);
  void join();

 private:
  using Events = std::array<epoll_event, 128>;
  struct Received {
    ssize_t bytes = 0;  // as recv says
    int error = 0;
  };

  void run();
  bool watch(int fd, uint32_t events, void* what);
  std::span<const epoll_event> wait(Events& events) const;
  void turn(std::span<const epoll_event> ready);
  void on_timer();
  void on_event(Session& session, uint32_t events);
  bool read(Session& session);
  Received receive(const Session& session);
  void read_ahead();
  void serve(Session& session);
  bool send(Session& session);
  void settle(Session& session);
  void leave(Session& session);
  void throw_away(Session& session);
  void close(Session& session);
  void rewatch(Session& session);
  void set_deadline(Session& session);
  void give_up(Session& session);
  void take_from_port();
  void hand_out(std::unique_ptr<Call> call);
  void settle_touched();
  void arm_timer();
  void end_turn();
  void start_drain(Duration grace);

  WorkerCounters& counters_;
  const Clock& clock_;
  Port* const port_;
  const resp::Limits parser_limits_;
  const Others others_;
  Service service_;

  const Duration spin_;
  Descriptor epoll_;  // an event's data is the session, the inbox, the timer or the port
  Inbox inbox_;
  Descriptor timer_;
  std::optional<MonoTime> armed_for_;
  std::optional<MonoTime> turn_at_;  // when this turn was, once somebody asked
  Deadlines deadlines_;
  std::optional<MonoTime> drained_by_;  // draining: the end of the grace
  bool stopped_ = false;

  std::unordered_map<Session*, std::unique_ptr<Session>> sessions_;
  uint64_t next_session_id_;
  std::vector<char> buffer_;
  // Of the connection whose turn is next, so that its key comes from memory while the one before is answered.
  const epoll_event* next_ = nullptr;
  Session* ahead_of_ = nullptr;  // that was read already: `ahead_`, in `ahead_buffer_`
  Received ahead_;
  std::vector<char> ahead_buffer_;
  std::vector<Session*> touched_;
  std::thread thread_;
};

}  // namespace tally
