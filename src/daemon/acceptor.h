// Accepts connections and hands them over: those of RESP and HTTP each to the worker that has the fewest.
//
// Thread rule: main's loop. One acceptor rather than one in each worker: nobody is woken in vain, the load is
// even from the first connection on, and limits.connections is counted in one place.
#pragma once

#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <vector>

#include "daemon/log.h"
#include "daemon/overview.h"
#include "daemon/sockets.h"
#include "daemon/worker.h"

namespace tally {

class Acceptor {
 public:
  using HandOver = std::function<void(Descriptor fd, bool unix_socket)>;  // the socket is non-blocking

  Acceptor(asio::io_context& io, Listener listener, HandOver hand_over, Log& log);
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  const Address& address() const { return listener_.address(); }
  void stop();  // takes no more, removes the socket's file

 private:
  void wait();
  void accept_all();
  void hand_over(Descriptor fd);
  void pause();

  Listener listener_;
  asio::posix::stream_descriptor ready_;
  asio::steady_timer pause_;
  const HandOver hand_over_;
  Log& log_;
};

// Where connections are turned away as limits.connections is reached: counts them, and says it once.
class TurnedAway {
 public:
  TurnedAway(Overview& overview, Log& log) : overview_(overview), log_(log) {}
  void count(uint64_t open);

 private:
  Overview& overview_;
  Log& log_;
  bool warned_ = false;
};

// For connections that speak RESP or HTTP. Above the limit they are told so, and closed.
class ToWorkers {
 public:
  ToWorkers(std::vector<std::unique_ptr<Worker>>& workers, Protocol protocol, Overview& overview, Log& log)
      : workers_(workers), protocol_(protocol), overview_(overview), turned_away_(overview, log) {}
  void operator()(Descriptor fd, bool unix_socket);

 private:
  std::vector<std::unique_ptr<Worker>>& workers_;
  const Protocol protocol_;
  Overview& overview_;
  TurnedAway turned_away_;
  size_t next_ = 0;
};

}  // namespace tally
