// The UDP socket between the nodes, and who is where.
//
// Thread rule: the cluster thread's after construction. Datagrams are lost without a word when the kernel has
// no room: the protocol expects that.
#pragma once

#include <array>
#include <asio/io_context.hpp>
#include <asio/ip/udp.hpp>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/fail.h"
#include "cluster/roster.h"
#include "cluster/wire.h"

namespace tally {

// "HOST:PORT" -> an address, by the resolver where HOST is a name.
Result<asio::ip::udp::endpoint> resolve_peer(asio::io_context& io, const std::string& text);

class PeerSocket {
 public:
  // `sealed`: what goes over it is. Otherwise anything but loopback is refused, for `bind` and for every
  // entry.
  static Result<std::unique_ptr<PeerSocket>> open(asio::io_context& io, const std::string& bind,
                                                  const Roster& roster, bool sealed);

  struct Received {
    std::span<const uint8_t> bytes;  // valid until the next call
    std::optional<uint16_t> from;    // rank; nullopt: the address is nobody's
  };
  std::optional<Received> receive();  // nullopt: nothing there
  void send(uint16_t to, std::span<const uint8_t> bytes);
  void send_to_source(std::span<const uint8_t> bytes);  // to where the last received datagram came from
  // From now on that rank, a guest's, is there where the last received datagram came from.
  void source_is(uint16_t guest);
  std::string address(uint16_t rank) const;  // "": of a rank that none was heard of

  asio::ip::udp::socket& socket() { return socket_; }
  std::string bound() const;
  uint64_t send_failures() const { return send_failures_; }

 private:
  explicit PeerSocket(asio::io_context& io) : socket_(io) {}

  asio::ip::udp::socket socket_;
  std::vector<asio::ip::udp::endpoint> by_rank_;
  std::map<asio::ip::udp::endpoint, uint16_t> ranks_;
  asio::ip::udp::endpoint source_;
  std::array<uint8_t, 2048>
      buffer_{};  // larger than any datagram of ours, so that a longer one is seen to be longer
  uint64_t send_failures_ = 0;
};

}  // namespace tally
