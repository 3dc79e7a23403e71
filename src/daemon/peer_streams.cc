#include "daemon/peer_streams.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <asio/ip/v6_only.hpp>
#include <utility>

namespace tally {
namespace {

using asio::ip::tcp;

constexpr int kAcceptedAtOnce = 64;
constexpr int kAtOnce = 256;  // frames and reads, of all connections
constexpr Duration kConnectWithin = std::chrono::seconds(3);
constexpr Duration kKnownWithin = std::chrono::seconds(5);
constexpr int kKernelBytes = static_cast<int>(Stream::kQueueMax);  // else it takes megabytes for who does not read
constexpr unsigned kAckWithinMs = 5'000;  // what was sent; then the kernel takes the connection for broken

void set_up(tcp::socket& socket) {
  asio::error_code ignored;
  socket.non_blocking(true, ignored);
  socket.set_option(tcp::no_delay(true), ignored);
  socket.set_option(tcp::socket::send_buffer_size(kKernelBytes), ignored);
  ::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_USER_TIMEOUT, &kAckWithinMs, sizeof kAckWithinMs);
}

}  // namespace

Result<bool> PeerStreams::listen() {
  const tcp::endpoint at(own_.address(), own_.port());
  asio::error_code error;
  acceptor_.open(at.protocol(), error);
  if (!error && own_.address().is_v6()) acceptor_.set_option(asio::ip::v6_only(!own_.address().is_unspecified()), error);
  if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor_.bind(at, error);
  if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
  if (!error) acceptor_.non_blocking(true, error);
  if (error) return Failure{text_of(own_) + ": " + error.message()};
  watch_acceptor();
  return true;
}

void PeerStreams::watch_acceptor() {
  if (acceptable_ || std::exchange(watching_acceptor_, true)) return;
  acceptor_.async_wait(tcp::acceptor::wait_read, [this](const asio::error_code& error) {
    watching_acceptor_ = false;
    acceptable_ = !error;
  });
}

// True: there may be more. Where there are no descriptors or no memory, the next look tries again: the queue stays readable meanwhile.
bool PeerStreams::accept_some() {
  for (int i = 0; i < kAcceptedAtOnce; ++i) {
    asio::error_code error;
    tcp::endpoint from;
    tcp::socket socket(io_);
    acceptor_.accept(socket, from, error);
    if (error == asio::error::connection_aborted || error == asio::error::interrupted) continue;
    if (error) {
      acceptable_ = false;
      if (error == asio::error::would_block) watch_acceptor();
      return false;
    }
    adopt(std::move(socket), from);
  }
  return true;
}

void PeerStreams::adopt(tcp::socket socket, const tcp::endpoint& from) {
  if (unknown_.size() >= kUnknownMax) end(*find(*unknown_.begin()), counts_.crowded);
  set_up(socket);
  const auto host = plain({from.address(), from.port()}).address();
  auto stream = std::make_unique<Stream>(++last_id_, std::move(socket), host, std::nullopt, now_);
  unknown_.insert(stream->id);
  watch(*streams_.emplace(stream->id, std::move(stream)).first->second);
}

void PeerStreams::dial(uint16_t rank, const AddressBook::Endpoint& to) {
  if (line(rank) != Transport::Line::none) return;
  const tcp::endpoint at(to.address(), to.port());
  tcp::socket socket(io_);
  asio::error_code error;
  socket.open(at.protocol(), error);
  const bool from_own = !own_.address().is_unspecified() && own_.address().is_v6() == at.address().is_v6();
  if (!error && from_own) socket.bind({own_.address(), 0}, error);
  if (error) return void(++counts_.failed);
  set_up(socket);
  auto made = std::make_unique<Stream>(++last_id_, std::move(socket), to.address(), rank, now_);
  Stream& stream = *streams_.emplace(made->id, std::move(made)).first->second;
  dialing_.insert(stream.id);
  if (rank >= lines_.size()) lines_.resize(rank + size_t{1});
  lines_[rank].dialed = &stream;
  stream.socket().async_connect(at, [this, id = stream.id](const asio::error_code& failed) { on_connected(id, !failed); });
}

void PeerStreams::on_connected(uint64_t id, bool fine) {
  Stream* stream = find(id);
  if (stream == nullptr) return;
  if (!fine) return end(*stream, counts_.failed);
  dialing_.erase(id);
  stream->connected = true;
  watch(*stream);
}

void PeerStreams::watch(Stream& stream) {
  stream.socket().async_wait(tcp::socket::wait_read, [this, id = stream.id](const asio::error_code& error) {
    if (!error && find(id) != nullptr) readable_.push_back(id);
  });
}

void PeerStreams::watch_room(Stream& stream) {
  if (std::exchange(stream.watching_room, true)) return;
  stream.socket().async_wait(tcp::socket::wait_write, [this, id = stream.id](const asio::error_code& error) {
    Stream* waiting = find(id);
    if (error || waiting == nullptr) return;
    waiting->watching_room = false;
    if (!waiting->flush()) watch_room(*waiting);
  });
}

Stream* PeerStreams::find(uint64_t id) const {
  const auto found = streams_.find(id);
  return found == streams_.end() ? nullptr : found->second.get();
}

// A connection is as old as it is here: what came while this thread had no turn has just begun.
bool PeerStreams::receive(const Take& take, MonoTime now) {
  now_ = now;
  const bool more = acceptable_ && accept_some();
  for (int left = kAtOnce; left > 0 && !readable_.empty();) {
    const uint64_t id = readable_.front();
    readable_.pop_front();
    if (Stream* stream = find(id); stream != nullptr && read(*stream, take, left)) readable_.push_back(id);
  }
  return more || !readable_.empty();
}

// False: nothing more is to be read of it now.
bool PeerStreams::read(Stream& stream, const Take& take, int& left) {
  while (left-- > 0) {
    if (const auto frame = stream.next()) {
      if (!take(stream, *frame)) return end(stream, counts_.malformed), false;
      continue;
    }
    if (stream.too_long()) return end(stream, counts_.malformed), false;
    const Stream::Read read = stream.read();
    if (read == Stream::Read::over) return end(stream, counts_.over), false;
    if (read == Stream::Read::nothing) return watch(stream), false;
  }
  return true;
}

void PeerStreams::is_of(Stream& stream, uint16_t rank) {
  if (stream.dialed || stream.peer == rank) return;
  unknown_.erase(stream.id);
  if (stream.peer) lines_[*stream.peer].accepted = nullptr;
  if (rank >= lines_.size()) lines_.resize(rank + size_t{1});
  if (lines_[rank].accepted != nullptr) end(*lines_[rank].accepted, counts_.replaced);
  lines_[rank].accepted = &stream;
  stream.peer = rank;
}

Stream* PeerStreams::best(uint16_t rank) const {
  if (rank >= lines_.size()) return nullptr;
  const Lines& lines = lines_[rank];
  return lines.dialed != nullptr && (lines.dialed->connected || lines.accepted == nullptr) ? lines.dialed : lines.accepted;
}

Transport::Line PeerStreams::line(uint16_t rank) const {
  const Stream* stream = best(rank);
  return stream == nullptr ? Transport::Line::none : stream->connected ? Transport::Line::open : Transport::Line::dialing;
}

bool PeerStreams::say(uint16_t to, std::span<const uint8_t> bytes) {
  Stream* stream = best(to);
  if (stream == nullptr || !stream->connected) return false;
  put(*stream, bytes);
  return true;
}

void PeerStreams::answer(Stream& stream, std::span<const uint8_t> bytes) { put(stream, bytes); }

void PeerStreams::put(Stream& stream, std::span<const uint8_t> bytes) {
  const Stream::Said said = stream.say(bytes);
  if (said == Stream::Said::queued) watch_room(stream);
  if (said == Stream::Said::dropped) ++counts_.queue_full;
}

void PeerStreams::close(uint16_t rank) {
  if (rank >= lines_.size()) return;
  if (lines_[rank].dialed != nullptr) end(*lines_[rank].dialed, counts_.unused);
  if (lines_[rank].accepted != nullptr) end(*lines_[rank].accepted, counts_.unused);
}

void PeerStreams::look(MonoTime now) {
  now_ = now;
  while (!unknown_.empty() && now - find(*unknown_.begin())->since >= kKnownWithin) end(*find(*unknown_.begin()), counts_.unknown);
  while (!dialing_.empty() && now - find(*dialing_.begin())->since >= kConnectWithin) end(*find(*dialing_.begin()), counts_.failed);
  if (acceptor_.is_open()) watch_acceptor();
}

void PeerStreams::end(Stream& stream, uint64_t& reason) {
  ++reason;
  if (stream.peer) {
    Lines& lines = lines_[*stream.peer];
    if (lines.dialed == &stream) lines.dialed = nullptr;
    if (lines.accepted == &stream) lines.accepted = nullptr;
  }
  unknown_.erase(stream.id);
  dialing_.erase(stream.id);
  streams_.erase(stream.id);
}

PeerStreams::Counts PeerStreams::counts() const {
  Counts counts = counts_;
  for (const auto& [id, stream] : streams_) ++(stream->dialed ? counts.dialed : counts.accepted);
  return counts;
}

}  // namespace tally
