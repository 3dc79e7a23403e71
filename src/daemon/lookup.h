// One lookup of one entry: all that DNS and the hosts file say of it now.
//
// Thread rule: one thread's. Never blocks but for reading small local files (resolv.conf, hosts,
// nsswitch.conf).
//
// By c-ares and not by getaddrinfo: that blocks for as long as a name server is silent (a thread for each
// name, which nobody can end), and knows no SRV. Each lookup has a channel of its own, so that it goes by the
// resolv.conf of this moment and ends by itself. What is lost by it: sources of glibc's own beside files and
// DNS (libnss modules).
#pragma once

#include <poll.h>

#include <asio/ip/udp.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "config/peer_entry.h"

namespace tally {

struct LookupResult {
  std::vector<asio::ip::udp::endpoint> addresses;  // by priority and weight of their records, then IPv4 first
  std::string error;                               // why there are none, or not all
  bool complete = true;                            // false: something was not answered; there may be more
};

class Lookup {
 public:
  explicit Lookup(const PeerEntry& entry);  // begins
  ~Lookup();                                // ends it, answered or not
  Lookup(const Lookup&) = delete;
  Lookup& operator=(const Lookup&) = delete;

  bool done() const;
  void watch(std::vector<pollfd>& fds) const;                                // what it waits for
  std::chrono::milliseconds patience(std::chrono::milliseconds most) const;  // process() is due by then
  void process();       // looks at its sockets and its clock
  LookupResult take();  // requires done()

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tally
