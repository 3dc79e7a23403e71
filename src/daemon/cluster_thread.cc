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
constexpr int kRoundsAtOnce = 8;  // between this node and the one above
constexpr Duration kLookAtPeers = std::chrono::seconds(1);
constexpr Duration kStepWorthAWord = std::chrono::milliseconds(20);
constexpr Duration kLastWords = std::chrono::milliseconds(500);  // to books in Redis, at most
constexpr Duration kKeepAgain = std::chrono::seconds(1);
constexpr Duration kStandStill =
    std::chrono::milliseconds(5);  // how often to look whether the horizon has moved

double milliseconds(Duration d) { return static_cast<double>(nanos(d)) * 1e-6; }

}  // namespace

ClusterThread::ClusterThread(Parts parts)
    : parts_(std::move(parts)),
      link_(*parts_.link),
      node_(link_.node()),
      bell_(parts_.io, ::dup(parts_.bell.fd())),
      timer_(parts_.io) {
  thread_ = std::thread([this] {
    ::pthread_setname_np(::pthread_self(), "cluster");
    run();
  });
}

ClusterThread::~ClusterThread() { join(); }

void ClusterThread::join() {
  if (thread_.joinable()) thread_.join();
}

void ClusterThread::ask(std::function<void(View)> then) {
  asio::post(parts_.io, [this, then = std::move(then)] { then(view()); });
}

ClusterThread::View ClusterThread::view() {
  View view;
  view.peers = peers(parts_.clock.now());
  view.stats = stats();
  for (Link* link : links()) {
    view.send_failures += link->send_failures();
    view.sent_nowhere += link->sent_nowhere();
    view.lookups.found += link->lookups().found;
    view.lookups.failed += link->lookups().failed;
    view.streams.push_back(link->streams());
  }
  view.keys = link_.keys();
  if (link_.books() != nullptr) view.books = link_.books()->counts();
  if (parts_.central) view.central = parts_.central->counts();
  return view;
}

void ClusterThread::use(Change change, std::function<void(Result<bool>)> then) {
  asio::post(parts_.io, [this, change = std::move(change), then = std::move(then)] {
    const Result<bool> taken = change.secret ? link_.use(*change.secret) : Result<bool>(true);
    if (taken) {
      const Now now = parts_.clock.now();
      node_.use(change.rules, now);
      link_.use(change.pace, now);
      orders_published_.reset();  // all once more, by these rules
      if (parts_.region) {
        if (change.secret) CHECK_THAT(parts_.region->link().use(*change.secret));  // the same as for the link
        parts_.region->use(*change.rules, now);
        parts_.region->use(change.pace, now);
      }
    }
    then(taken);
  });
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
  if (may_act(now.wall)) {
    node_.leave(now);
    if (parts_.region) parts_.region->link().node().leave(now);
    flush(now);
    memory_ = node_.memory(now);
    tell_books_to_the_end(now.mono + kLastWords);
  }
  parts_.io.poll();  // who asked meanwhile
  if (parts_.central) parts_.central->end();
  for (auto& port : parts_.ports) deliver(*port);
}

// What a node gives back as it leaves may be more than goes out at once.
void ClusterThread::tell_books_to_the_end(MonoTime until) {
  const BooksPeer* const books = link_.books();
  while (books != nullptr && books->busy() && parts_.clock.mono() < until) parts_.io.run_one_for(kLastWords / 10);
}

// Where the state file is behind, a later life would take back what this one does now.
bool ClusterThread::may_act(WallTime now) { return parts_.horizon == nullptr || parts_.horizon->covers(now); }

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
  if (parts_.horizon != nullptr) parts_.horizon->keep(now.wall);
  busy_ = false;
  if (parts_.central) parts_.central->expire(now.mono);
  for (auto& port : parts_.ports) busy_ = !deliver(*port) || busy_;
  if (!may_act(now.wall)) return;
  busy_ = take_notes(now) || busy_;
  if (parts_.region) busy_ = parts_.region->link().receive(parts_.clock) || busy_;
  busy_ = link_.receive(parts_.clock) || busy_;
  for (auto& port : parts_.ports) take_calls(*port, now);

  const Now then = parts_.clock.now();
  if (const MonoTime due = next_tick(); then.mono >= due) {
    parts_.tick_lag.observe(then.mono - due);
    tick(then);
    keep_tenure(then);
  }
  flush(then);
  for (Link* link : links()) link->look(then);
  deliver_wakes();
  look_at_orders(then);
  look_at_peers(then);
  if (!ready_ && node_.ready() && (!parts_.region || parts_.region->link().node().ready())) {
    ready_ = true;
    parts_.on_ready();
  }
}

MonoTime ClusterThread::next_tick() const {
  return parts_.region ? std::min(node_.next_tick(), parts_.region->link().node().next_tick()) : node_.next_tick();
}

MonoTime ClusterThread::next_due() const {
  MonoTime due = next_tick();
  for (const Link* link : links()) due = std::min(due, link->next_look());
  if (parts_.central) due = std::min(due, parts_.central->next_due());
  if (orders_to_publish()) due = std::min(due, publish_not_before_);
  return due;
}

void ClusterThread::tick(Now now) {
  if (parts_.region && now.mono >= parts_.region->link().node().next_tick()) parts_.region->link().node().tick(now);
  if (now.mono >= node_.next_tick()) node_.tick(now);
}

// What came down from above is issued here, and what is missing here is asked for there, until neither brings anything new.
void ClusterThread::flush(Now now) {
  if (parts_.region) parts_.region->link().node().flush(now);
  node_.flush(now);
  if (parts_.region) {
    int rounds = 0;
    for (; rounds < kRoundsAtOnce && parts_.region->upstream().take_news(); ++rounds) {
      parts_.region->link().node().flush(now);
      node_.flush(now);
    }
    busy_ = busy_ || rounds == kRoundsAtOnce;
    parts_.region->link().send(now);
  }
  link_.send(now);
}

std::vector<Link*> ClusterThread::links() const {
  if (parts_.region) return {&link_, &parts_.region->link()};
  return {&link_};
}

std::vector<PeerStatus> ClusterThread::peers(Now now) const {
  std::vector<PeerStatus> all = link_.peers(now);
  if (!parts_.region) return all;
  for (PeerStatus& peer : parts_.region->link().peers(now)) {
    if (peer.self) continue;
    peer.role = PeerRole::above;
    all.push_back(std::move(peer));
  }
  return all;
}

// Of this node; what goes to the level above and comes from there is counted in.
NodeStats ClusterThread::stats() const {
  NodeStats stats = link_.stats();
  if (!parts_.region) return stats;
  const NodeStats above = parts_.region->link().stats();
  stats.datagrams_in += above.datagrams_in;
  stats.datagrams_out += above.datagrams_out;
  for (size_t kind = 0; kind < kEntryKinds; ++kind) {
    stats.entries_in[kind] += above.entries_in[kind];
    stats.entries_out[kind] += above.entries_out[kind];
  }
  for (const auto& [reason, n] : above.dropped) stats.dropped[reason] += n;
  return stats;
}

// What a change of the list of nodes asks to be on the disk before it holds (Node::tenure_to_keep).
void ClusterThread::keep_tenure(Now now) {
  if (keeping_ || now.mono < keep_not_before_) return;
  const auto tenure = node_.tenure_to_keep();
  if (!tenure) return;
  if (parts_.horizon == nullptr) return node_.tenure_kept(*tenure, now);
  keeping_ = true;
  parts_.horizon->keep(*tenure, [this, tenure](bool kept) {
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
  int taken = 0;
  for (Call* next = nullptr; taken < kCallsAtOnce && port.answered.empty() && port.calls.pop(next); ++taken) {
    std::unique_ptr<Call> call(next);
    if (parts_.central && Central::decides(*call)) {
      parts_.central->ask(std::move(call), port);
      continue;
    }
    answer(*call, now);
    port.answered.push_back(std::move(call));
    deliver(port);
  }
  busy_ = busy_ || taken == kCallsAtOnce;
}

// False: the ring has no room for all that is answered.
bool ClusterThread::deliver(Port& port) {
  if (port.answered.empty()) return true;
  while (!port.answered.empty() && port.answers.push(port.answered.front().get())) {
    port.answered.front().release();
    port.answered.pop_front();
  }
  port.worker.ring();
  return port.answered.empty();
}

void ClusterThread::answer(Call& call, Now now) {
  const auto& key = call.keys.empty() ? Call::Key{} : call.keys.front();
  switch (call.kind) {
    case Call::Kind::give:
      call.count = node_.give(*call.rule, call.limit, key.hash, key.id, call.n, now, call.only_in);
      return;
    case Call::Kind::reset:
      for (const Call::Key& one : call.keys)
        call.count += node_.reset(*call.rule, call.limit, one.hash, one.id, now);
      return;
    case Call::Kind::explain:
      call.explanation = node_.explain(*call.rule, call.limit, key.hash, key.id, now);
      return;
    case Call::Kind::peers:
      call.peers = peers(now);
      return;
    case Call::Kind::stats:
      call.stats = stats();
      return;
    case Call::Kind::forget:
      call.error = node_.forget(call.key, now);
      if (call.error.empty()) parts_.log.warning("a node is taken to be gone for good", {{"peer", call.key}});
      return;
    case Call::Kind::order:
    case Call::Kind::lift:
      return answer_order(call, now);
    case Call::Kind::orders:
      call.orders = node_.orders().in_force(now.wall);
      return;
    case Call::Kind::take:     // Redis's
    case Call::Kind::reload:   // main's
    case Call::Kind::metrics:  // the admin thread's
    case Call::Kind::top:
      return;
  }
}

void ClusterThread::answer_order(Call& call, Now now) {
  const Orders::Name name{call.rule->name, call.key};
  if (call.kind == Call::Kind::lift) {
    call.count = node_.lift(name, now) ? 1 : 0;
    return;
  }
  const auto set = node_.order(name, call.ordered, call.n, call.lasts, now);
  if (!set) call.error = set.error();
}

// Workers and the file have what the node knows, soon.
void ClusterThread::look_at_orders(Now now) {
  if (!orders_to_publish() || now.mono < publish_not_before_) return;
  const auto since = std::exchange(orders_published_, node_.orders().changes());
  parts_.orders.publish(node_.orders(), *node_.rules(), now.wall, since);
  publish_not_before_ = now.mono + OrderBoard::kPause;
}

bool ClusterThread::orders_to_publish() const {
  const uint64_t changes = node_.orders().changes();
  return orders_published_ ? changes != *orders_published_ : changes != 0;
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
  const MonoTime due = may_act(now.wall) ? next_due() : now.mono + kStandStill;
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
    if (parts_.region) parts_.region->link().node().look_at_clock(parts_.clock.now());
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
  for (Link* link : links()) link->look_at(link->peers(now));
  for (const PeerStatus& peer : peers(now)) {
    if (peer.self || peer.role == PeerRole::guest) continue;
    Known& known = known_[peer.name];
    if (peer.up && !known.up)
      parts_.log.info("peer is up", {{"peer", peer.name}, {"round_trip_ms", milliseconds(peer.round_trip)}});
    if (!peer.up && known.up)
      parts_.log.warning("peer is silent", {{"peer", peer.name}, {"for_ms", milliseconds(peer.last_heard)}});
    if (peer.tcp && !known.tcp) parts_.log.warning("UDP to or from the peer does not pass: by TCP now", {{"peer", peer.name}});
    if (!peer.tcp && known.tcp) parts_.log.info("the peer is spoken to by UDP again", {{"peer", peer.name}});
    if (peer.rules_mismatch && !known.rules_mismatch)
      parts_.log.warning("peer has other rules: rules of one name must be the same on all nodes",
                         {{"peer", peer.name}});
    if (peer.roster_mismatch && !known.roster_mismatch)
      parts_.log.warning("peer has another list of peers, size or roster version: it is not listened to",
                         {{"peer", peer.name}});
    known = {peer.up, peer.rules_mismatch, peer.roster_mismatch, peer.tcp};
  }
  if (!said_clone_ && node_.stats().dropped.contains("this_node_is_a_clone")) {
    said_clone_ = true;
    parts_.log.error(
        "another node with this entry lives: this one has no floor and no vote; stop one of the two");
  }
}

}  // namespace tally
