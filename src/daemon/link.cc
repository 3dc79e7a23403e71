#include "daemon/link.h"

#include <algorithm>

namespace tally {
namespace {

// So that what arrives starves neither the other queues nor the ticks.
constexpr int kDatagramsAtOnce = 256;
// A node speaks to a few others in each sync interval: the more there are, the longer each of them waits for a word.
constexpr Duration kSilentAfter = std::chrono::seconds(2);
constexpr int64_t kPeersHeardInTime = 8;

}  // namespace

void Link::watch() {
  if (std::exchange(watched_, true)) return;
  socket_->socket().async_wait(asio::socket_base::wait_read, [this](const asio::error_code& error) {
    if (!error) watched_ = false;  // again once it was emptied: asio would report it for ever until then
  });
}

bool Link::receive(Clock& clock) {
  for (int i = 0; i < kDatagramsAtOnce; ++i) {
    const auto received = socket_->receive();
    if (!received) {
      watch();
      return false;
    }
    const auto content = seal_.open(received->bytes);
    if (!content) continue;
    if (received->from) socket_->believe(*received->from);
    // The clock anew for each: round trips are measured by it.
    const auto guest = node_->receive(*content, received->from, clock.now());
    if (guest) socket_->source_is(*guest);
    send();  // an answer to the source of this very datagram, if any; all else waits for flush
  }
  return true;
}

void Link::send() {
  for (const Outgoing& out : node_->take_outbox()) {
    const auto bytes = seal_.seal(out.bytes);
    out.to_source ? socket_->send_to_source(bytes) : socket_->send(out.to, bytes);
  }
}

std::vector<PeerStatus> Link::peers(Now now) const {
  std::vector<PeerStatus> peers = node_->peers(now);
  for (PeerStatus& peer : peers) {
    const auto at = socket_->book().at(peer.rank);
    peer.address = peer.self ? socket_->bound() : at ? text_of(*at) : "";
    peer.addresses = socket_->book().addresses_of(peer.rank).size();
    if (peer.role == PeerRole::guest) peer.name = peer.address;
  }
  return peers;
}

void Link::look_at(const std::vector<PeerStatus>& peers) {
  const auto listed = std::ranges::count_if(peers, [](const PeerStatus& peer) { return peer.role != PeerRole::guest; });
  const Duration silent_after = kSilentAfter * (1 + listed / kPeersHeardInTime);
  for (const PeerStatus& peer : peers) {
    if (peer.self || peer.role == PeerRole::guest) continue;
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
