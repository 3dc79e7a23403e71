#include "daemon/link.h"

#include <algorithm>

namespace tally {
namespace {

// So that what arrives starves neither the other queues nor the ticks.
constexpr int kDatagramsAtOnce = 256;
// A node speaks to a few others in each sync interval: the more there are, the longer each of them waits for a word.
constexpr Duration kSilentAfter = std::chrono::seconds(2);
constexpr int64_t kPeersHeardInTime = 8;
constexpr Duration kLookEvery = std::chrono::milliseconds(200);

}  // namespace

Link::Link(Sockets sockets, PeerSeal seal, std::unique_ptr<Node> node, uint64_t seed)
    : socket_(std::move(sockets.datagrams)),
      streams_(std::move(sockets.streams)),
      discovery_(std::move(sockets.discovery)),
      store_(std::move(sockets.store)),
      books_(std::move(sockets.books)),
      seal_(std::move(seal)),
      node_(std::move(node)),
      books_rank_(node_->roster().rank_of(std::string(kBooksEntry))),
      dice_(seed) {
  if (books_)
    books_->ask_past([this](const Report& report) {
      const Node::Past past = node_->past_of(report, now_);
      return BooksBegin{past.takes_part, past.knows_before, past.takes_next, past.charged, past.order, past.order_until};
    });
  if (books_ && books_rank_) node_->books_heard_by(*books_rank_, [this](const WireId& key) { return books_->heard(key); });
}

void Link::watch() {
  if (std::exchange(watched_, true)) return;
  socket_->socket().async_wait(asio::socket_base::wait_read, [this](const asio::error_code& error) {
    if (!error) watched_ = false;  // again once it was emptied: asio would report it for ever until then
  });
}

// The clock anew for each: round trips are measured by it.
bool Link::receive(Clock& clock) {
  if (books_) receive_from_books(clock);
  const bool more = receive_datagrams(clock);
  return streams_->receive([&](Stream& stream, std::span<const uint8_t> bytes) { return take_frame(stream, bytes, clock.now()); }, clock.mono()) || more;
}

// These come from a place of their own, and are not sealed.
void Link::receive_from_books(Clock& clock) {
  if (const auto lost = books_->take_lost()) node_->tell_all(lost);
  for (const Bytes& bytes : books_->take()) node_->receive(bytes, books_rank_, clock.now());
}

bool Link::receive_datagrams(Clock& clock) {
  for (int i = 0; i < kDatagramsAtOnce; ++i) {
    const auto received = socket_->receive();
    if (!received) {
      watch();
      return false;
    }
    const auto content = seal_.open(received->bytes);
    if (!content) continue;
    if (received->from) socket_->believe(*received->from);
    const Now now = clock.now();
    const Taken taken = node_->receive(*content, received->from, now);
    if (taken.moved) socket_->source_is(*taken.from);
    if (taken.from) transport(*taken.from).heard_udp(now.mono);
    send(now, nullptr);  // an answer to the source of this very datagram, if any; all else waits for flush
  }
  return true;
}

// Only a frame of a node that is there makes the stream that node's. Strangers get no further than the seal, and no second try.
bool Link::take_frame(Stream& stream, std::span<const uint8_t> bytes, Now now) {
  if (bytes.empty()) {
    if (stream.peer) transport(*stream.peer).told_heard(now.mono);
    return stream.peer.has_value();
  }
  const auto content = seal_.open(bytes);
  if (!content) return false;
  socket_->book().ranks_at(stream.host, there_);
  if (stream.peer && node_->is_guest(*stream.peer)) there_.push_back(*stream.peer);  // known by what it said here
  const Taken taken = node_->receive(*content, std::span<const uint16_t>(there_), now);
  if (taken.from) {
    streams_->is_of(stream, *taken.from);
    transport(*taken.from).heard_tcp(now.mono);
  }
  send(now, &stream);
  return !taken.malformed;
}

void Link::send(Now now) { send(now, nullptr); }

// `source`: what came last came by that stream; nullptr: as a datagram.
void Link::send(Now now, Stream* source) {
  for (const Outgoing& out : node_->take_outbox()) {
    if (books_ && out.to == books_rank_ && !out.to_source) {
      now_ = now;
      books_->say(out.bytes);
      continue;
    }
    const auto bytes = seal_.seal(out.bytes);
    if (out.to_source) {
      source != nullptr ? streams_->answer(*source, bytes) : socket_->send_to_source(bytes);
      continue;
    }
    Transport& way = transport(out.to);
    way.said(now.mono);
    if (!way.tcp() || !streams_->say(out.to, bytes)) socket_->send(out.to, bytes);
  }
  if (books_) books_->flush();
}

void Link::use(const Pace& pace, Now now) {
  node_->use(pace, now);
  if (books_) books_->use(pace);
}

Transport& Link::transport(uint16_t rank) {
  if (rank >= transports_.size()) transports_.resize(rank + size_t{1});
  return transports_[rank];
}

void Link::look(Now now) {
  if (now.mono < next_look_) return;
  next_look_ = now.mono + kLookEvery;
  streams_->look(now.mono);
  for (size_t rank = 0; rank < transports_.size(); ++rank) look_at(static_cast<uint16_t>(rank), now);
}

void Link::look_at(uint16_t rank, Now now) {
  if (rank == books_rank_) return;
  const auto at = socket_->book().at(rank);
  const Transport::Due due = transports_[rank].look(now.mono, streams_->line(rank), patience_, dice_.unit());
  if (due.dial && at && !node_->is_guest(rank)) streams_->dial(rank, *at);
  if (due.close) streams_->close(rank);
  if (due.tell_heard) streams_->say(rank, {});
  if (due.knock_tcp) streams_->say(rank, seal_.seal(node_->knock(rank, now)));
  if (due.knock_udp && at) socket_->send(rank, seal_.seal(node_->knock(rank, now)));
}

std::vector<PeerStatus> Link::peers(Now now) const {
  std::vector<PeerStatus> peers = node_->peers(now);
  for (PeerStatus& peer : peers) {
    const auto at = socket_->book().at(peer.rank);
    peer.address = peer.self ? socket_->bound() : at ? text_of(*at) : "";
    if (books_ && peer.rank == books_rank_) peer.address = books_->address();
    peer.tcp = peer.rank < transports_.size() && transports_[peer.rank].tcp();
    peer.addresses = socket_->book().addresses_of(peer.rank).size();
    if (peer.role == PeerRole::guest) peer.name = peer.address;
  }
  return peers;
}

void Link::look_at(const std::vector<PeerStatus>& peers) {
  const auto rarer = 1 + static_cast<int64_t>(std::ranges::count_if(peers, [](const PeerStatus& peer) { return peer.role != PeerRole::guest; })) / kPeersHeardInTime;
  const Duration silent_after = kSilentAfter * rarer;
  patience_ = Transport::kUdpSilent * rarer;
  for (const PeerStatus& peer : peers) {
    if (peer.self || peer.role == PeerRole::guest || peer.rank == books_rank_) continue;
    if (heard_.size() <= peer.rank) heard_.resize(peer.rank + size_t{1});
    const bool heard = peer.last_heard >= Duration(0) && peer.last_heard < silent_after;
    if (heard != heard_[peer.rank]) discovery_->heard(peer.rank, heard);
    heard_[peer.rank] = heard;
  }
}

NodeStats Link::stats() const {
  NodeStats stats = node_->stats();
  seal_.add_dropped(stats);
  return stats;
}

}  // namespace tally
