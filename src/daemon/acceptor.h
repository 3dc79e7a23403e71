// Accepts connections for all workers and hands each to the worker that has the fewest.
//
// Thread rule: main's loop. One acceptor rather than one in each worker: nobody is woken in vain, the load is
// even from the first connection on, and limits.connections is counted in one place.
#pragma once

#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/steady_timer.hpp>
#include <memory>
#include <vector>

#include "daemon/log.h"
#include "daemon/overview.h"
#include "daemon/sockets.h"
#include "daemon/worker.h"

namespace tally {

class Acceptor {
 public:
  Acceptor(asio::io_context& io, Listener listener, Protocol protocol, std::vector<std::unique_ptr<Worker>>& workers,
           Overview& overview, Log& log);
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  const Address& address() const { return listener_.address(); }
  void stop();  // takes no more, removes the socket's file

 private:
  void wait();
  void accept_all();
  void hand_out(Descriptor fd);
  void pause();

  Listener listener_;
  const Protocol protocol_;
  asio::posix::stream_descriptor ready_;
  asio::steady_timer pause_;
  std::vector<std::unique_ptr<Worker>>& workers_;
  Overview& overview_;
  Log& log_;
  size_t next_ = 0;
  bool warned_full_ = false;
};

}  // namespace tally
