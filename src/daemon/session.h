// One connection of an application.
//
// Thread rule: the worker's that owns it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "daemon/deadlines.h"
#include "daemon/descriptor.h"
#include "daemon/reply_order.h"
#include "doors/commands.h"
#include "doors/http.h"
#include "doors/http_repeat.h"
#include "doors/repeat.h"
#include "doors/resp.h"

namespace tally {

// What a connection has beside where it speaks HTTP.
struct HttpSession {
  explicit HttpSession(Session& session) : deadline(session) {}

  http::Parser parser;
  http::Repeat repeat;
  std::string key;        // of the request that was read last, where it does not stand in the input
  uint64_t requests = 0;  // read so far
  uint64_t taken = 0;     // bytes that the other side took
  bool refused = false;   // what came was no request: what follows is not understood
  bool going = false;     // all was said; what still comes is thrown away
  Deadline deadline;
};

struct Session {
  Session(Descriptor fd_, uint64_t id, bool unix_socket_, const resp::Limits& limits)
      : fd(std::move(fd_)), unix_socket(unix_socket_), parser(limits) {
    about.id = id;
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  Descriptor fd;
  const bool unix_socket;
  resp::Parser parser;
  resp::Connection about;
  resp::Repeat repeat;
  std::unique_ptr<HttpSession> http;  // nullptr: it speaks RESP

  std::string in;   // read and not yet answered: part of a command, or all that stands behind a barrier or a
                    // full output
  std::string out;  // ready to be sent
  size_t sent = 0;  // of out
  ReplyOrder replies{out};

  bool barrier = false;     // read nothing more before all that is held was filled
  bool closing = false;     // a protocol error, QUIT, Connection: close: answer what is held, send, close
  bool read_ended = false;  // the other side sends no more
  bool touched = false;     // is in the service's list of clients to be flushed
  uint32_t interest = 0;    // what epoll watches for

  size_t unsent() const { return out.size() - sent; }
};

}  // namespace tally
