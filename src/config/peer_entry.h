// An entry of cluster.peers: a node, by its address or by a name that is looked up.
//
// Thread rule: pure.
//
// The text of an entry is what a node is called by, on all nodes, whatever it resolves to: so there is one
// way of writing each, and a name stands for one node. It may have several addresses, but they are that
// node's.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/fail.h"

namespace tally {

struct PeerEntry {
  enum class Kind : uint8_t {
    numeric,  // "10.0.0.1:8381", "[2001:db8::1]:8381"
    name,     // "edge-1.example.org:8381": A and AAAA records
    service,  // "_tally._udp.edge-1.example.org": SRV records, which have the ports
  } kind = Kind::numeric;
  std::string host;
  uint16_t port = 0;      // 0 of a service
  bool loopback = false;  // numeric only: nobody knows that of a name

  bool looked_up() const { return kind != Kind::numeric; }
};

// The error says what is wrong.
Result<PeerEntry> parse_peer(std::string_view text);

}  // namespace tally
