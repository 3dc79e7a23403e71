#include "daemon/peer_socket.h"

#include <asio/buffer.hpp>
#include <asio/ip/v6_only.hpp>
#include <utility>

#include "config/peer_entry.h"

namespace tally {
namespace {

using asio::ip::udp;
constexpr int kSocketBytes = 4 * 1024 * 1024;  // the kernel takes the smaller of this and its own maximum
static_assert(kDatagramMax < 2048);

}  // namespace

Result<std::unique_ptr<PeerSocket>> PeerSocket::open(asio::io_context& io, const std::string& bind,
                                                     bool sealed) {
  const auto at = parse_peer(bind);
  if (!at) return Failure{"cluster.bind " + at.error()};
  asio::error_code error;
  const udp::endpoint own(asio::ip::make_address(at.value().host, error), at.value().port);
  if (error) return Failure{"cluster.bind " + bind + " must be a numeric address"};
  const bool v6 = own.address().is_v6(), any = own.address().is_unspecified();
  if (!sealed && !own.address().is_loopback())
    return Failure{bind + " is not a loopback address, and there is no cluster.secret_file"};
  std::unique_ptr<PeerSocket> peers(new PeerSocket(io, {!v6 || any, v6, sealed}, v6));

  peers->socket_.open(own.protocol(), error);
  if (!error && v6) peers->socket_.set_option(asio::ip::v6_only(!any), error);
  if (!error) peers->socket_.bind(own, error);
  if (error)
    return Failure{"cannot bind " + bind + " for the other nodes: " + error.message() +
                   (error == asio::error::address_in_use
                        ? "; another tallyd has it: stop it or choose another --bind"
                        : "")};
  asio::error_code ignored;
  peers->socket_.set_option(asio::socket_base::receive_buffer_size(kSocketBytes), ignored);
  peers->socket_.set_option(asio::socket_base::send_buffer_size(kSocketBytes), ignored);
  peers->socket_.non_blocking(true, error);
  if (error) return Failure{"cannot use " + bind + ": " + error.message()};
  return peers;
}

std::optional<PeerSocket::Received> PeerSocket::receive() {
  for (int attempt = 0; attempt < 16; ++attempt) {
    asio::error_code error;
    udp::endpoint source;
    const size_t n = socket_.receive_from(asio::buffer(buffer_), source, 0, error);
    if (error == asio::error::would_block) return std::nullopt;
    if (error)
      continue;  // "connection refused" of an earlier send to a peer that is down: the next one may be a
                 // datagram
    source_ = plain(source);
    return Received{std::span(buffer_.data(), n), book_.rank_of(source_)};
  }
  return std::nullopt;
}

void PeerSocket::send(uint16_t to, std::span<const uint8_t> bytes) {
  const auto at = book_.next(to);
  at ? send_at(*at, bytes) : void(++sent_nowhere_);
}

void PeerSocket::send_to_source(std::span<const uint8_t> bytes) { send_at(source_, bytes); }

void PeerSocket::send_at(const AddressBook::Endpoint& to, std::span<const uint8_t> bytes) {
  asio::error_code error;
  socket_.send_to(asio::buffer(bytes.data(), bytes.size()), v6_ ? mapped(to) : to, 0, error);
  if (error) ++send_failures_;
}

AddressBook::Endpoint PeerSocket::local() const {
  asio::error_code error;
  return plain(socket_.local_endpoint(error));
}

std::string PeerSocket::bound() const {
  asio::error_code error;
  const udp::endpoint at = socket_.local_endpoint(error);
  return error ? "" : text_of(at);
}

}  // namespace tally
