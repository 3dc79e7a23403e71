// The UDP socket between the nodes.
//
// Thread rule: the cluster thread's after construction. Datagrams are lost without a word when the kernel has
// no room, or when nobody knows where their receiver is: the protocol expects that.
#pragma once

#include <array>
#include <asio/io_context.hpp>
#include <asio/ip/udp.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/fail.h"
#include "cluster/wire.h"
#include "daemon/address_book.h"

namespace tally {

class PeerSocket {
 public:
  // `bind`: a numeric address and a port. "[::]:PORT" reaches IPv4 as well, any other IPv6 address does not.
  // `sealed`: what goes over it is. Otherwise anything but loopback is refused, for `bind` here and for peers
  // by the book.
  static Result<std::unique_ptr<PeerSocket>> open(asio::io_context& io, const std::string& bind, bool sealed);

  struct Received {
    std::span<const uint8_t> bytes;  // valid until the next call
    std::optional<uint16_t> from;    // rank; nullopt: the address is nobody's
  };
  std::optional<Received> receive();  // nullopt: nothing there
  // The last received datagram was from whom its address says, as far as the seal tells: what is said to that
  // node goes there.
  void believe(uint16_t from) { book_.heard(from, source_); }
  void send(uint16_t to, std::span<const uint8_t> bytes);
  void send_to_source(std::span<const uint8_t> bytes);  // to where the last received datagram came from
  // From now on that rank, a guest's, is there where the last received datagram came from.
  void source_is(uint16_t guest) { book_.come(guest, source_); }

  AddressBook& book() { return book_; }  // who is where: of the cluster thread, too
  asio::ip::udp::socket& socket() { return socket_; }
  AddressBook::Endpoint local() const;  // plain
  std::string bound() const;
  uint64_t send_failures() const { return send_failures_; }
  uint64_t sent_nowhere() const { return sent_nowhere_; }  // datagrams to nodes of which no address is known

 private:
  PeerSocket(asio::io_context& io, AddressBook::Reach reach, bool v6) : socket_(io), book_(reach), v6_(v6) {}
  void send_at(const AddressBook::Endpoint& to, std::span<const uint8_t> bytes);

  asio::ip::udp::socket socket_;
  AddressBook book_;
  const bool v6_;                 // the socket's family
  AddressBook::Endpoint source_;  // plain
  std::array<uint8_t, 2048>
      buffer_{};  // larger than any datagram of ours, so that a longer one is seen to be longer
  uint64_t send_failures_ = 0, sent_nowhere_ = 0;
};

}  // namespace tally
