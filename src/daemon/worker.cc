#include "daemon/worker.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <asio/executor_work_guard.hpp>
#include <asio/post.hpp>
#include <cerrno>
#include <cstdio>
#include <utility>

namespace tally {
namespace {

constexpr size_t kReadBytes = 65'536;
constexpr size_t kKeepBytes =
    16'384;  // a connection that has nothing to say keeps no larger buffers than this
constexpr int kEvents = 128;
constexpr int kRounds = 4;      // of looking for ready connections before timers and wakes get their turn
constexpr int kLastReads = 64;  // of a connection that has gone or is drained: 4 MiB at most

resp::Limits parser_limits(const ServiceLimits& limits) {
  resp::Limits parser;
  parser.argument_bytes_max = std::max(parser.argument_bytes_max, limits.key_bytes);
  return parser;
}

void trim(std::string& bytes) {
  bytes.clear();
  if (bytes.capacity() > kKeepBytes) bytes.shrink_to_fit();
}

}  // namespace

Worker::Worker(size_t index, Overview& overview, const Clock& clock, Port* port, const ServiceLimits& limits, AskReload ask_reload)
    : counters_(*overview.workers[index]),
      clock_(clock),
      port_(port),
      parser_limits_(parser_limits(limits)),
      ask_reload_(std::move(ask_reload)),
      service_(overview, counters_, clock, port, limits, [this](std::unique_ptr<Call> call) { reload(std::move(call)); }),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      next_session_id_(index + 1),
      buffer_(kReadBytes) {
  sessions_ready_.assign(::dup(epoll_.get()));
  if (port_ != nullptr) bell_.assign(::dup(port_->worker.fd()));
  thread_ = std::thread([this, index] {
    char name[16];
    std::snprintf(name, sizeof name, "worker-%zu", index);
    ::pthread_setname_np(::pthread_self(), name);
    run();
  });
}

Worker::~Worker() { join(); }

void Worker::adopt(Descriptor fd, bool unix_socket) {
  asio::post(io_, [this, unix_socket, raw = fd.release()] {
    Descriptor owned(raw);
    if (draining_) return;
    auto session = std::make_unique<Session>(std::move(owned), next_session_id_, unix_socket, parser_limits_);
    next_session_id_ += 1'000;  // workers count past each other: ids stay unique
    session->interest = EPOLLIN;
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = session.get();
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, session->fd.get(), &event) != 0) return;
    counters_.connections.add();
    sessions_.emplace(session.get(), std::move(session));
  });
}

void Worker::use(std::shared_ptr<const RuleSet> rules, Duration sync_interval) {
  asio::post(io_, [this, sync_interval, rules = std::move(rules)] { service_.use(rules, sync_interval); });
}

void Worker::end_life(std::shared_ptr<const RuleSet> rules, Duration sync_interval, std::function<void()> then) {
  asio::post(io_, [this, sync_interval, rules = std::move(rules), then = std::move(then)] {
    service_.use(rules, sync_interval);
    service_.end_life();
    then();
  });
}

void Worker::begin_life() {
  asio::post(io_, [this] {
    service_.begin_life();
    end_turn();
  });
}

void Worker::reload(std::unique_ptr<Call> call) {
  // In a function that can be copied; whichever of its copies goes last, the call goes with it.
  const auto held = std::make_shared<std::unique_ptr<Call>>(std::move(call));
  ask_reload_([this, held](const Result<bool>& done) {
    asio::post(io_, [this, held, error = done ? std::string() : done.error()] {
      (*held)->error = error;
      service_.finish(std::move(*held));
      end_turn();
    });
  });
}

void Worker::drain(Duration grace) {
  asio::post(io_, [this, grace] { start_drain(grace); });
}

void Worker::join() {
  if (thread_.joinable()) thread_.join();
}

void Worker::run() {
  watch_sessions();
  if (port_ != nullptr) watch_bell();
  end_turn();
  auto work = asio::make_work_guard(io_);
  io_.run();
  while (!sessions_.empty()) close(*sessions_.begin()->first);
}

void Worker::watch_sessions() {
  sessions_ready_.async_wait(asio::posix::stream_descriptor::wait_read,
                             [this](const asio::error_code& error) {
                               if (error) return;
                               if (port_ != nullptr) port_->worker.get_up();
                               on_sessions_ready();
                               watch_sessions();
                               end_turn();
                             });
}

void Worker::watch_bell() {
  bell_.async_wait(asio::posix::stream_descriptor::wait_read, [this](const asio::error_code& error) {
    if (error) return;
    port_->worker.silence();
    watch_bell();
    end_turn();
  });
}

// The end of every handler: nothing that another thread pushed may be left lying when the loop goes to sleep.
void Worker::end_turn() {
  settle_touched();
  if (port_ != nullptr) {
    do {
      port_->worker.get_up();
      take_from_port();
      settle_touched();
    } while (!port_->worker.lie_down());
  }
  service_.ring_if_urgent();
  arm_timer();
  if (draining_ && sessions_.empty()) io_.stop();
}

void Worker::take_from_port() {
  if (port_->wake_all.load(std::memory_order_relaxed) &&
      port_->wake_all.exchange(false, std::memory_order_acq_rel)) {
    counters_.wakes_overflowed.add();
    service_.wake_all();
  }
  Wake wake;
  while (port_->wakes.pop(wake)) service_.wake(wake.hash);
  Call* call = nullptr;
  while (port_->answers.pop(call)) service_.finish(std::unique_ptr<Call>(call));
}

void Worker::settle_touched() {
  for (;;) {
    service_.take_touched(touched_);
    if (touched_.empty()) return;
    for (Session* session : touched_) settle(*session);
    touched_.clear();
  }
}

void Worker::arm_timer() {
  const std::optional<MonoTime> due = service_.next_due();
  if (!due || (armed_for_ && *armed_for_ <= *due)) return;
  armed_for_ = due;
  deadlines_.expires_at(std::chrono::steady_clock::time_point(due->time_since_epoch()));
  deadlines_.async_wait([this](const asio::error_code& error) {
    if (error) return;  // moved to an earlier time
    armed_for_.reset();
    service_.expire();
    end_turn();
  });
}

// --- connections ---

void Worker::on_sessions_ready() {
  std::array<epoll_event, kEvents> events;
  for (int round = 0; round < kRounds; ++round) {
    const int n = ::epoll_wait(epoll_.get(), events.data(), kEvents, 0);
    if (n <= 0) return;
    for (int i = 0; i < n; ++i)
      on_event(*static_cast<Session*>(events[static_cast<size_t>(i)].data.ptr),
               events[static_cast<size_t>(i)].events);
    // Only after all events: this may close clients that events are about.
    if (port_ != nullptr) take_from_port();
    settle_touched();
  }
}

void Worker::on_event(Session& session, uint32_t events) {
  if ((events & EPOLLERR) != 0) return close(session);
  if ((events & EPOLLHUP) != 0) {
    // Gone in both directions: what it sent still counts, what waits does not.
    for (int i = 0; i < kLastReads && read(session); ++i) serve(session);
    return close(session);
  }
  if ((events & EPOLLIN) != 0 && read(session)) serve(session);
  if (session.read_ended && !session.unix_socket && session.replies.waiting()) {
    // On TCP a closed connection looks like one that was only ended for writing; what waits must not be
    // charged to nobody.
    send(session);
    return close(session);
  }
  settle(session);
}

// Appends what has arrived to session.in; false where nothing new did.
bool Worker::read(Session& session) {
  if (session.read_ended || !service_.may_read(session)) return false;
  const ssize_t n = ::recv(session.fd.get(), buffer_.data(), buffer_.size(), 0);
  if (n > 0) {
    // Mostly the whole buffer is answered at once and nothing has to be kept.
    const std::string_view fresh(buffer_.data(), static_cast<size_t>(n));
    if (session.in.empty())
      session.in.append(fresh.substr(service_.serve(session, fresh)));
    else
      session.in.append(fresh);
    return true;
  }
  if (n == 0) session.read_ended = true;
  if (n < 0 && errno != EAGAIN && errno != EINTR) session.read_ended = session.closing = true;
  return false;
}

void Worker::serve(Session& session) {
  if (!session.in.empty()) {
    const size_t done = service_.serve(session, session.in);
    if (done == session.in.size())
      trim(session.in);
    else
      session.in.erase(0, done);
  }
  service_.ring_if_urgent();
}

// Sends what is ready; false where the connection is broken.
bool Worker::send(Session& session) {
  while (session.unsent() != 0) {
    const ssize_t n =
        ::send(session.fd.get(), session.out.data() + session.sent, session.unsent(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return true;
    if (n <= 0) return false;
    session.sent += static_cast<size_t>(n);
  }
  session.sent = 0;
  trim(session.out);
  return true;
}

// After anything happened to a connection: send, go on with what was left unread, and say what it waits for
// now.
void Worker::settle(Session& session) {
  for (;;) {
    if (!send(session)) return close(session);
    if (session.in.empty() || !service_.may_read(session)) break;
    const size_t before = session.in.size();
    serve(session);
    if (session.in.size() == before) break;
  }
  const bool no_more = session.closing || session.read_ended;
  if (no_more && session.unsent() == 0 && !session.replies.waiting()) return close(session);
  watch(session);
}

void Worker::watch(Session& session) {
  const bool wants_input = !session.read_ended && service_.may_read(session);
  const uint32_t interest =
      (wants_input ? uint32_t{EPOLLIN} : 0u) | (session.unsent() != 0 ? uint32_t{EPOLLOUT} : 0u);
  if (interest == session.interest) return;
  session.interest = interest;
  epoll_event event{};
  event.events = interest;
  event.data.ptr = &session;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, session.fd.get(), &event);
}

void Worker::close(Session& session) {
  service_.drop(session);
  counters_.connections.subtract();
  sessions_.erase(&session);  // closing the descriptor takes it out of the epoll
}

void Worker::start_drain(Duration grace) {
  draining_ = true;
  std::vector<Session*> all;
  for (const auto& [session, owner] : sessions_) all.push_back(session);
  for (Session* session : all) {
    for (int i = 0; i < kLastReads && read(*session); ++i) serve(*session);
    session->read_ended = true;
    settle(*session);
  }
  grace_.expires_after(grace);
  grace_.async_wait([this](const asio::error_code& error) {
    if (!error) io_.stop();
  });
  end_turn();
}

}  // namespace tally
