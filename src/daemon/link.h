// A Node and the socket that it speaks through.
//
// Thread rule: the cluster thread's after construction.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "cluster/node.h"
#include "daemon/clock.h"
#include "daemon/discovery.h"
#include "daemon/peer_seal.h"
#include "daemon/peer_socket.h"

namespace tally {

class Link {
 public:
  // `discovery`: of the socket's book.
  Link(std::unique_ptr<PeerSocket> socket, std::unique_ptr<Discovery> discovery, PeerSeal seal, std::unique_ptr<Node> node)
      : socket_(std::move(socket)), discovery_(std::move(discovery)), seal_(std::move(seal)), node_(std::move(node)) {}
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  Node& node() { return *node_; }
  // Takes in a bounded part of what has arrived. True: there may be more. False: the socket is watched from now on.
  bool receive(Clock& clock);
  void send();  // the outbox

  Result<bool> use(const Secret& secret) { return seal_.replace(secret); }
  std::vector<PeerStatus> peers(Now now) const;  // a guest is called by its address
  void look_at(const std::vector<PeerStatus>& peers);  // of this link: who is silent is looked for
  NodeStats stats() const;
  uint64_t send_failures() const { return socket_->send_failures(); }
  uint64_t sent_nowhere() const { return socket_->sent_nowhere(); }
  const Discovery::Lookups& lookups() const { return discovery_->lookups(); }
  std::vector<PeerSeal::KeyUse> keys() const { return seal_.keys(); }

 private:
  void watch();

  std::unique_ptr<PeerSocket> socket_;
  std::unique_ptr<Discovery> discovery_;
  PeerSeal seal_;
  std::unique_ptr<Node> node_;
  bool watched_ = false;
  std::vector<bool> heard_;  // by rank, of the list: itself, when last looked at
};

}  // namespace tally
