// Finding the peers: puts into the address book where each entry is, by its numeric address at once and by
// its name as often as it is looked up, and says in the log what changes.
//
// Thread rule: the cluster thread's after construction. Names are looked up by a thread of their own
// (Resolver), which posts what it finds to `io`.
//
// The list of nodes is never made from names: they say where a member is, not who is one.
#pragma once

#include <asio/io_context.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/fail.h"
#include "cluster/roster.h"
#include "daemon/address_book.h"
#include "daemon/log.h"
#include "daemon/resolver.h"

namespace tally {

class Discovery {
 public:
  struct Parts {
    asio::io_context& io;  // of the cluster thread
    AddressBook& book;     // outlives this
    Log& log;
  };
  // Begins. An error where two numeric entries mean one address, or one is not on loopback and may not be
  // beyond it.
  static Result<std::unique_ptr<Discovery>> begin(Parts parts, const Roster& roster, std::optional<uint16_t> self);

  void heard(uint16_t rank, bool lately);  // told by the cluster thread when it changes

  struct Lookups {
    uint64_t found = 0, failed = 0;
  };
  const Lookups& lookups() const { return lookups_; }

 private:
  struct Peer {
    std::string entry;
    bool looked_up = false;
    bool was_found = false;
    bool failing = false;                       // as was last said
    std::vector<AddressBook::Skipped> skipped;  // as was last said
  };

  explicit Discovery(Parts parts) : parts_(parts) {}
  Result<bool> place(uint16_t rank, const PeerEntry& entry);
  void take(uint16_t rank, LookupResult result);
  void say_found(Peer& peer, std::vector<AddressBook::Endpoint> before,
                 std::vector<AddressBook::Endpoint> now);
  void say_skipped(Peer& peer, std::vector<AddressBook::Skipped> skipped);
  void say_failed(Peer& peer, const std::string& error);

  Parts parts_;
  std::vector<Peer> peers_;  // by rank
  Lookups lookups_;
  std::unique_ptr<Resolver> resolver_;  // nullptr: there are no names. Last: it ends first
};

}  // namespace tally
