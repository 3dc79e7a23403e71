#include "daemon/peer_socket.h"

#include <asio/buffer.hpp>
#include <asio/ip/v6_only.hpp>
#include <utility>

namespace tally {
namespace {

using asio::ip::udp;
constexpr int kSocketBytes = 4 * 1024 * 1024;  // the kernel takes the smaller of this and its own maximum
static_assert(kDatagramMax < 2048);

std::string text_of(const udp::endpoint& at) {
  const std::string host = at.address().to_string();
  return (at.address().is_v6() ? "[" + host + "]" : host) + ":" + std::to_string(at.port());
}

}  // namespace

Result<udp::endpoint> resolve_peer(asio::io_context& io, const std::string& text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) return Failure{text + ": must be HOST:PORT"};
  std::string host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  asio::error_code error;
  const auto found =
      udp::resolver(io).resolve(host, text.substr(colon + 1), udp::resolver::numeric_service, error);
  if (error || found.empty()) return Failure{text + ": cannot be resolved: " + error.message()};
  return found.begin()->endpoint();
}

Result<std::unique_ptr<PeerSocket>> PeerSocket::open(asio::io_context& io, const std::string& bind,
                                                     const Roster& roster, bool sealed) {
  std::unique_ptr<PeerSocket> peers(new PeerSocket(io));
  const auto own = resolve_peer(io, bind);
  if (!own) return Failure{"cluster.bind " + own.error()};
  for (uint16_t rank = 0; rank <= roster.count(); ++rank) {
    const bool is_bind = rank == roster.count();
    const std::string& text = is_bind ? bind : roster.entry(rank);
    const auto endpoint = is_bind ? own : resolve_peer(io, text);
    if (!endpoint) return Failure{"cluster.peers " + endpoint.error()};
    if (!sealed && !endpoint.value().address().is_loopback())
      return Failure{text + " is not a loopback address, and there is no cluster.secret_file"};
    if (is_bind) break;
    peers->by_rank_.push_back(endpoint.value());
    if (!peers->ranks_.emplace(endpoint.value(), rank).second)
      return Failure{"cluster.peers: two entries mean the same address as " + text};
  }

  asio::error_code error;
  peers->socket_.open(own.value().protocol(), error);
  if (!error) peers->socket_.bind(own.value(), error);
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
    const size_t n = socket_.receive_from(asio::buffer(buffer_), source_, 0, error);
    if (error == asio::error::would_block) return std::nullopt;
    if (error)
      continue;  // "connection refused" of an earlier send to a peer that is down: the next one may be a
                 // datagram
    const auto rank = ranks_.find(source_);
    return Received{std::span(buffer_.data(), n),
                    rank == ranks_.end() ? std::nullopt : std::optional<uint16_t>(rank->second)};
  }
  return std::nullopt;
}

void PeerSocket::send(uint16_t to, std::span<const uint8_t> bytes) {
  asio::error_code error;
  socket_.send_to(asio::buffer(bytes.data(), bytes.size()), by_rank_[to], 0, error);
  if (error) ++send_failures_;
}

void PeerSocket::send_to_source(std::span<const uint8_t> bytes) {
  asio::error_code error;
  socket_.send_to(asio::buffer(bytes.data(), bytes.size()), source_, 0, error);
  if (error) ++send_failures_;
}

void PeerSocket::source_is(uint16_t guest) {
  if (by_rank_.size() <= guest) by_rank_.resize(guest + size_t{1});
  if (by_rank_[guest] == source_) return;
  if (const auto before = ranks_.find(by_rank_[guest]); before != ranks_.end() && before->second == guest) ranks_.erase(before);
  by_rank_[guest] = source_;
  ranks_.insert_or_assign(source_, guest);
}

std::string PeerSocket::address(uint16_t rank) const { return rank < by_rank_.size() && by_rank_[rank].port() != 0 ? text_of(by_rank_[rank]) : ""; }

std::string PeerSocket::bound() const {
  asio::error_code error;
  const udp::endpoint at = socket_.local_endpoint(error);
  return error ? "" : text_of(at);
}

}  // namespace tally
