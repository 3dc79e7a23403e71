#include "daemon/cluster_thread.h"

#include <pthread.h>

#include <algorithm>
#include <asio/post.hpp>
#include <utility>

namespace tally {
namespace {

// Each loop takes a bounded part of every queue, so that none starves the others or the ticks.
constexpr int kNotesAtOnce = 4'096;
constexpr int kCallsAtOnce = 256;
constexpr int kDatagramsAtOnce = 256;
constexpr Duration kLookAtPeers = std::chrono::seconds(1);
// A node speaks to a few others in each sync interval: the more there are, the longer each of them waits for a word.
constexpr Duration kSilentAfter = std::chrono::seconds(2);
constexpr int64_t kPeersHeardInTime = 8;
constexpr Duration kStepWorthAWord = std::chrono::milliseconds(20);
constexpr Duration kKeepAgain = std::chrono::seconds(1);
constexpr Duration kStandStill =
    std::chrono::milliseconds(5);  // how often to look whether the horizon has moved

double milliseconds(Duration d) { return static_cast<double>(nanos(d)) * 1e-6; }

}  // namespace

ClusterThread::ClusterThread(Parts parts)
    : parts_(std::move(parts)),
      node_(*parts_.node),
      bell_(parts_.io, ::dup(parts_.bell.fd())),
      timer_(parts_.io),
      stuck_(parts_.ports.size()) {
  thread_ = std::thread([this] {
    ::pthread_setname_np(::pthread_self(), "cluster");
    run();
  });
}

ClusterThread::~ClusterThread() {
  join();
  for (const Call* call : stuck_) delete call;
}

void ClusterThread::join() {
  if (thread_.joinable()) thread_.join();
}

void ClusterThread::ask(std::function<void(View)> then) {
  asio::post(parts_.io, [this, then = std::move(then)] { then(view()); });
}

ClusterThread::View ClusterThread::view() {
  View view;
  view.peers = node_.peers(parts_.clock.now());
  view.stats = stats();
  view.send_failures = parts_.socket->send_failures();
  view.sent_nowhere = parts_.socket->sent_nowhere();
  for (size_t rank = 0; rank < view.peers.size(); ++rank)
    view.addresses.push_back(parts_.socket->book().addresses_of(static_cast<uint16_t>(rank)).size());
  view.lookups = parts_.discovery->lookups();
  view.keys = parts_.seal.keys();
  return view;
}

void ClusterThread::use(Change change, std::function<void(Result<bool>)> then) {
  asio::post(parts_.io, [this, change = std::move(change), then = std::move(then)] {
    const Result<bool> taken = change.secret ? parts_.seal.replace(*change.secret) : Result<bool>(true);
    if (taken) {
      const Now now = parts_.clock.now();
      node_.use(change.rules, now);
      node_.use(change.pace, now);
    }
    then(taken);
  });
}

NodeStats ClusterThread::stats() const {
  NodeStats stats = node_.stats();
  parts_.seal.add_dropped(stats);
  return stats;
}

void ClusterThread::stop() {
  asio::post(parts_.io, [this] { stopping_ = true; });
}

void ClusterThread::run() {
  watch_bell();
  while (!stopping_) {
    work();
    if (!busy_ && parts_.bell.lie_down()) {
      arm_timer();
      parts_.io.run_one();
    }
    parts_.io.poll();
  }
  const Now now = parts_.clock.now();
  if (!parts_.horizon.covers(now.wall)) return;
  node_.leave(now);
  node_.flush(now);
  send_all();
}

void ClusterThread::watch_socket() {
  if (std::exchange(socket_watched_, true)) return;
  parts_.socket->socket().async_wait(asio::socket_base::wait_read, [this](const asio::error_code& error) {
    if (!error)
      socket_watched_ = false;  // again once it was emptied: asio would report it for ever until then
  });
}

void ClusterThread::watch_bell() {
  bell_.async_wait(asio::posix::stream_descriptor::wait_read, [this](const asio::error_code& error) {
    if (error) return;
    parts_.bell.silence();
    watch_bell();
  });
}

void ClusterThread::work() {
  parts_.bell.get_up();
  look_at_clock();
  const Now now = parts_.clock.now();
  parts_.horizon.keep(now.wall);
  busy_ = false;
  if (!parts_.horizon.covers(now.wall)) return;
  busy_ = take_notes(now);
  receive_all();
  for (auto& port : parts_.ports) take_calls(*port, now);

  const Now then = parts_.clock.now();
  if (const MonoTime due = node_.next_tick(); then.mono >= due) {
    tick_lag_.observe(then.mono - due);
    node_.tick(then);
    keep_tenure(then);
  }
  node_.flush(then);
  send_all();
  deliver_wakes();
  look_at_peers(then);
  if (!ready_ && node_.ready()) {
    ready_ = true;
    parts_.on_ready();
  }
}

// What a change of the list of nodes asks to be on the disk before it holds (Node::tenure_to_keep).
void ClusterThread::keep_tenure(Now now) {
  if (keeping_ || now.mono < keep_not_before_) return;
  const auto tenure = node_.tenure_to_keep();
  if (!tenure) return;
  keeping_ = true;
  parts_.horizon.keep(*tenure, [this, tenure](bool kept) {
    asio::post(parts_.io, [this, tenure, kept] {
      keeping_ = false;
      keep_not_before_ = parts_.clock.now().mono + (kept ? Duration(0) : kKeepAgain);
      if (!kept) return;
      const bool was_settled = node_.stats().roster_settled;
      node_.tenure_kept(*tenure, parts_.clock.now());
      const NodeStats stats = node_.stats();
      if (stats.roster_settled && !was_settled) parts_.log.info("the change of the list of nodes is over", {{"roster", stats.roster_version}});
    });
  });
}

// Returns whether a ring may hold more.
bool ClusterThread::take_notes(Now now) {
  bool more = false;
  for (auto& port : parts_.ports) {
    Note note;
    int taken = 0;
    while (taken < kNotesAtOnce && port->notes.pop(note)) {
      node_.note(note, now);
      ++taken;
    }
    more = more || taken == kNotesAtOnce;
  }
  return more;
}

void ClusterThread::take_calls(Port& port, Now now) {
  const size_t index = static_cast<size_t>(
      std::ranges::find(parts_.ports, &port, &std::unique_ptr<Port>::get) - parts_.ports.begin());
  Call*& stuck = stuck_[index];
  bool any = false;
  for (int i = 0; i < kCallsAtOnce; ++i) {
    Call* call = std::exchange(stuck, nullptr);
    if (call == nullptr) {
      if (!port.calls.pop(call)) break;
      answer(*call, now);
    }
    if (!port.answers.push(call)) {
      stuck = call;
      busy_ = true;
      break;
    }
    any = true;
    busy_ = busy_ || i + 1 == kCallsAtOnce;
  }
  if (any) port.worker.ring();
}

void ClusterThread::answer(Call& call, Now now) {
  const auto& key = call.keys.empty() ? Call::Key{} : call.keys.front();
  switch (call.kind) {
    case Call::Kind::give:
      call.count = node_.give(*call.rule, call.limit, key.hash, key.id, call.n, now);
      return;
    case Call::Kind::reset:
      for (const Call::Key& one : call.keys)
        call.count += node_.reset(*call.rule, call.limit, one.hash, one.id, now);
      return;
    case Call::Kind::explain:
      call.explanation = node_.explain(*call.rule, call.limit, key.hash, key.id, now);
      return;
    case Call::Kind::peers:
      call.peers = node_.peers(now);
      return;
    case Call::Kind::stats:
      call.stats = stats();
      return;
    case Call::Kind::reload:  // main's
      return;
  }
}

void ClusterThread::receive_all() {
  for (int i = 0; i < kDatagramsAtOnce; ++i) {
    const auto received = parts_.socket->receive();
    if (!received) return watch_socket();
    const auto content = parts_.seal.open(received->bytes);
    if (!content) continue;
    if (received->from) parts_.socket->believe(*received->from);
    // The clock anew for each: round trips are measured by it.
    node_.receive(*content, received->from, parts_.clock.now());
    send_all();  // an answer to the source of this very datagram, if any; all else waits for flush
  }
  busy_ = true;
}

void ClusterThread::send_all() {
  for (const Outgoing& out : node_.take_outbox()) {
    const auto bytes = parts_.seal.seal(out.bytes);
    out.to_source ? parts_.socket->send_to_source(bytes) : parts_.socket->send(out.to, bytes);
  }
}

void ClusterThread::deliver_wakes() {
  const std::vector<Wake> wakes = node_.take_wakes();
  if (wakes.empty()) return;
  for (auto& port : parts_.ports) {
    for (const Wake& wake : wakes) {
      if (port->wakes.push(wake)) continue;
      port->wake_all.store(true, std::memory_order_release);
      break;
    }
    port->worker.ring();
  }
}

void ClusterThread::arm_timer() {
  const Now now = parts_.clock.now();
  const MonoTime due = parts_.horizon.covers(now.wall) ? node_.next_tick() : now.mono + kStandStill;
  if (due == armed_for_) return;
  armed_for_ = due;
  timer_.expires_at(std::chrono::steady_clock::time_point(due.time_since_epoch()));
  timer_.async_wait([this](const asio::error_code& error) {
    if (!error) armed_for_ = MonoTime{};
  });
}

void ClusterThread::look_at_clock() {
  const Duration step = parts_.clock.look();
  if (step < Duration(0)) {
    node_.look_at_clock(parts_.clock.now());
    if (node_.look_at_clock(parts_.clock.looked()))
      parts_.log.warning(
          "the system clock was set back by more than a window: until it is there again, this node has no "
          "floors, and as an owner it serves no window that it has left");
  }
  parts_.clock.publish();
  if (step < kStepWorthAWord && step > -kStepWorthAWord) return;
  parts_.log.warning("the system clock was stepped", {{"by_ms", milliseconds(step)}});
}

// Once a second: what an operator should hear of without asking. Said when it changes, not as long as it
// lasts.
void ClusterThread::look_at_peers(Now now) {
  if (now.mono - peers_looked_at_ < kLookAtPeers) return;
  peers_looked_at_ = now.mono;
  const std::vector<PeerStatus> peers = node_.peers(now);
  known_.resize(peers.size());
  for (size_t i = 0; i < peers.size(); ++i) {
    const PeerStatus& peer = peers[i];
    if (peer.self) continue;
    if (peer.up && !known_[i].up)
      parts_.log.info("peer is up", {{"peer", peer.name}, {"round_trip_ms", milliseconds(peer.round_trip)}});
    if (!peer.up && known_[i].up)
      parts_.log.warning("peer is silent", {{"peer", peer.name}, {"for_ms", milliseconds(peer.last_heard)}});
    if (peer.rules_mismatch && !known_[i].rules_mismatch)
      parts_.log.warning("peer has other rules: rules of one name must be the same on all nodes",
                         {{"peer", peer.name}});
    if (peer.roster_mismatch && !known_[i].roster_mismatch)
      parts_.log.warning("peer has another list of peers, size or roster version: it is not listened to",
                         {{"peer", peer.name}});
    const Duration silent_after = kSilentAfter * (1 + static_cast<int64_t>(peers.size()) / kPeersHeardInTime);
    const bool heard = peer.last_heard >= Duration(0) && peer.last_heard < silent_after;
    if (heard != known_[i].heard) parts_.discovery->heard(static_cast<uint16_t>(i), heard);
    known_[i] = {peer.up, peer.rules_mismatch, peer.roster_mismatch, heard};
  }
  if (!said_clone_ && node_.stats().dropped.contains("this_node_is_a_clone")) {
    said_clone_ = true;
    parts_.log.error(
        "another node with this entry lives: this one has no floor and no vote; stop one of the two");
  }
}

}  // namespace tally
