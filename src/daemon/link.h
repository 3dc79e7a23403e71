// A Node and the sockets that it speaks through: UDP, and a TCP connection to each peer to which or from which UDP does not pass.
//
// Thread rule: the cluster thread's after construction.
#pragma once

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "cluster/node.h"
#include "daemon/clock.h"
#include "daemon/books_peer.h"
#include "daemon/discovery.h"
#include "daemon/peer_seal.h"
#include "daemon/peer_socket.h"
#include "daemon/peer_streams.h"
#include "daemon/transport.h"

namespace tally {

class Link {
 public:
  struct Sockets {
    std::unique_ptr<PeerSocket> datagrams;
    std::unique_ptr<PeerStreams> streams;
    std::unique_ptr<Discovery> discovery;  // of the socket's book
    std::unique_ptr<RedisStore> store{};   // nullptr: peers keep the books
    std::unique_ptr<BooksPeer> books{};    // in the store
  };
  Link(Sockets sockets, PeerSeal seal, std::unique_ptr<Node> node, uint64_t seed);
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  Node& node() { return *node_; }
  // Takes in a bounded part of what has arrived. True: there may be more. False: the socket is watched from now on.
  bool receive(Clock& clock);
  void send(Now now);  // the outbox
  // Looks which way each peer is to be spoken to. To be called at next_look() at the latest.
  void look(Now now);
  MonoTime next_look() const { return next_look_; }

  Result<bool> use(const Secret& secret) { return seal_.replace(secret); }
  void use(const Pace& pace, Now now);
  std::vector<PeerStatus> peers(Now now) const;  // a guest is called by its address
  void look_at(const std::vector<PeerStatus>& peers);  // of this link: who is silent is looked for
  NodeStats stats() const;
  uint64_t send_failures() const { return socket_->send_failures(); }
  uint64_t sent_nowhere() const { return socket_->sent_nowhere(); }
  const Discovery::Lookups& lookups() const { return discovery_->lookups(); }
  std::vector<PeerSeal::KeyUse> keys() const { return seal_.keys(); }
  PeerStreams::Counts streams() const { return streams_->counts(); }
  const BooksPeer* books() const { return books_.get(); }

 private:
  void watch();
  bool receive_datagrams(Clock& clock);
  void receive_from_books(Clock& clock);
  bool take_frame(Stream& stream, std::span<const uint8_t> bytes, Now now);
  void send(Now now, Stream* source);
  void look_at(uint16_t rank, Now now);
  Transport& transport(uint16_t rank);

  std::unique_ptr<PeerSocket> socket_;
  std::unique_ptr<PeerStreams> streams_;
  std::unique_ptr<Discovery> discovery_;
  std::unique_ptr<RedisStore> store_;
  std::unique_ptr<BooksPeer> books_;
  PeerSeal seal_;
  std::unique_ptr<Node> node_;
  const std::optional<uint16_t> books_rank_;  // what books_ is to the node
  bool watched_ = false;
  std::vector<bool> heard_;  // by rank, of the list: itself, when last looked at
  std::vector<Transport> transports_;  // by rank
  Duration patience_ = Transport::kUdpSilent;
  MonoTime next_look_{};
  Now now_{};          // of what is said to the books
  Random dice_;  // so that not all dial at once
  std::vector<uint16_t> there_;  // scratch
};

}  // namespace tally
