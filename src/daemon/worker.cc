#include "daemon/worker.h"

#include <pthread.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

namespace tally {
namespace {

constexpr size_t kReadBytes = 65'536;
constexpr size_t kKeepBytes =
    16'384;                     // a connection that has nothing to say keeps no larger buffers than this
constexpr uint32_t kInput = EPOLLIN | EPOLLRDHUP;
constexpr uint32_t kAnew = ~uint32_t{0};  // in Session::interest: whatever is there already is to be told again
constexpr ssize_t kOneCommand = 256;  // in so many bytes there is hardly a batch, which hides its misses of the cache by itself
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

Worker::Worker(size_t index, Overview& overview, const Clock& clock, Port* port, const ServiceLimits& limits,
               const Times& times, Others others)
    : counters_(*overview.workers[index]),
      clock_(clock),
      port_(port),
      parser_limits_(parser_limits(limits)),
      others_(std::move(others)),
      service_(overview, counters_, clock, port, limits,
               [this](std::unique_ptr<Call> call) { hand_out(std::move(call)); }),
      spin_(times.spin),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      timer_(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)),
      deadlines_(times.http_idle),
      next_session_id_(index + 1),
      buffer_(kReadBytes),
      ahead_buffer_(kReadBytes) {
  watch(inbox_.fd(), EPOLLIN, &inbox_);
  watch(timer_.get(), EPOLLIN, &timer_);
  if (port_ != nullptr) watch(port_->worker.fd(), EPOLLIN, port_);
  thread_ = std::thread([this, index] {
    char name[16];
    std::snprintf(name, sizeof name, "worker-%zu", index);
    ::pthread_setname_np(::pthread_self(), name);
    run();
  });
}

Worker::~Worker() { join(); }

void Worker::adopt(Descriptor fd, bool unix_socket, Protocol protocol) {
  inbox_.post([this, unix_socket, protocol, raw = fd.release()] {
    Descriptor owned(raw);
    if (drained_by_) return;
    auto session = std::make_unique<Session>(std::move(owned), next_session_id_, unix_socket, parser_limits_);
    next_session_id_ += 1'000;  // workers count past each other: ids stay unique
    session->interest = kInput;
    if (!watch(session->fd.get(), kInput | EPOLLET, session.get())) return;
    counters_.connections_of(protocol).add();
    Session& added = *session;
    sessions_.emplace(&added, std::move(session));
    if (protocol != Protocol::http) return;
    added.http = std::make_unique<HttpSession>(added);
    deadlines_.add(added.http->deadline);
    set_deadline(added);
  });
}

void Worker::use(std::shared_ptr<const RuleSet> rules, Duration sync_interval) {
  inbox_.post([this, sync_interval, rules = std::move(rules)] { service_.use(rules, sync_interval); });
}

void Worker::use(std::shared_ptr<const OrderTable> orders) {
  inbox_.post([this, orders = std::move(orders)] { service_.use(orders); });
}

void Worker::end_life(std::shared_ptr<const RuleSet> rules, Duration sync_interval,
                      std::function<void()> then) {
  inbox_.post([this, sync_interval, rules = std::move(rules), then = std::move(then)] {
    service_.use(rules, sync_interval);
    service_.end_life();
    then();
  });
}

void Worker::begin_life() {
  inbox_.post([this] { service_.begin_life(); });
}

void Worker::ask(std::unique_ptr<Question> question) {
  // In a function that can be copied, as in hand_out().
  const auto held = std::make_shared<std::unique_ptr<Question>>(std::move(question));
  inbox_.post([this, held] { service_.ask(std::move(*held)); });
}

void Worker::hand_out(std::unique_ptr<Call> call) {
  const Call::Kind kind = call->kind;
  // In a function that can be copied; whichever of its copies goes last, the call goes with it.
  const auto held = std::make_shared<std::unique_ptr<Call>>(std::move(call));
  const auto back = [this, held](std::string Call::*what, std::string said) {
    inbox_.post([this, held, what, said = std::move(said)]() mutable {
      (**held).*what = std::move(said);
      service_.finish(std::move(*held));
    });
  };
  const auto answered = [this, held] { inbox_.post([this, held] { service_.finish(std::move(*held)); }); };
  if (kind == Call::Kind::reload)
    others_.reload([back](const Result<bool>& done) { back(&Call::error, done ? std::string() : done.error()); });
  else if (kind == Call::Kind::metrics)
    others_.metrics([back](std::string text) { back(&Call::text, std::move(text)); });
  else if (kind == Call::Kind::top)
    others_.top(**held, answered);
  else
    others_.orders(**held, answered);
}

void Worker::drain(Duration grace) {
  inbox_.post([this, grace] { start_drain(grace); });
}

void Worker::join() {
  if (thread_.joinable()) thread_.join();
}

void Worker::run() {
  Events events;
  for (end_turn(); !stopped_; end_turn()) turn(wait(events));
  while (!sessions_.empty()) close(*sessions_.begin()->first);
  service_.end_waiting();
}

bool Worker::watch(int fd, uint32_t events, void* what) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = what;
  return ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
}

// Empty where a signal came.
std::span<const epoll_event> Worker::wait(Events& events) const {
  const auto look = [&](int timeout_ms) {
    return ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout_ms);
  };
  int n = 0;
  if (spin_ > Duration(0))
    for (const MonoTime until = clock_.mono() + spin_; n == 0 && clock_.mono() < until;) n = look(0);
  if (n == 0) n = look(-1);
  return {events.data(), static_cast<size_t>(std::max(n, 0))};
}

void Worker::turn(std::span<const epoll_event> ready) {
  if (port_ != nullptr) port_->worker.get_up();
  turn_at_.reset();
  bool posted = false, rang = false;
  for (size_t i = 0; i < ready.size(); ++i) {
    const epoll_event& event = ready[i];
    next_ = i + 1 < ready.size() ? &ready[i + 1] : nullptr;
    if (event.data.ptr == &inbox_)
      posted = true;
    else if (event.data.ptr == &timer_)
      rang = true;
    else if (event.data.ptr == port_)
      port_->worker.silence();
    else
      on_event(*static_cast<Session*>(event.data.ptr), event.events);
  }
  // Only after all events: these may close connections that events are about.
  if (posted) inbox_.run();
  if (rang) on_timer();
}

// After every turn: nothing that another thread pushed may be left lying when the loop goes to sleep.
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
  if (drained_by_ && sessions_.empty() && !service_.has_waiting()) stopped_ = true;
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
  std::optional<MonoTime> due = service_.next_due();
  for (const auto& other : {deadlines_.next_due(), drained_by_})
    if (other && (!due || *other < *due)) due = other;
  if (!due || (armed_for_ && *armed_for_ <= *due)) return;
  armed_for_ = due;
  const int64_t ns = nanos(due->time_since_epoch());
  const itimerspec at{{}, {ns / 1'000'000'000, ns % 1'000'000'000}};
  ::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &at, nullptr);
}

void Worker::on_timer() {
  uint64_t n;
  [[maybe_unused]] const ssize_t got = ::read(timer_.get(), &n, sizeof n);
  armed_for_.reset();
  service_.expire();
  while (const Deadline* late = deadlines_.due(clock_.mono())) give_up(late->session);
  if (drained_by_ && clock_.mono() >= *drained_by_) stopped_ = true;
}

// --- connections ---

void Worker::on_event(Session& session, uint32_t events) {
  if ((events & EPOLLERR) != 0) return close(session);
  if ((events & EPOLLHUP) != 0) {
    // Gone in both directions: what it sent still counts, what waits does not.
    for (int i = 0; i < kLastReads && read(session); ++i) serve(session);
    return close(session);
  }
  if (session.http != nullptr && session.http->going) return throw_away(session);
  if ((events & EPOLLIN) != 0 && read(session)) serve(session);
  if ((events & EPOLLRDHUP) != 0) session.interest = kAnew;  // its end lies behind what was read, and is no event of its own
  if (session.read_ended && !session.unix_socket && session.replies.waiting_for_grant()) {
    // On TCP a closed connection looks like one that was only ended for writing; what waits must not be
    // charged to nobody.
    send(session);
    return close(session);
  }
  settle(session);
}

// What has arrived, in buffer_.
Worker::Received Worker::receive(const Session& session) {
  if (ahead_of_ == &session) {
    ahead_of_ = nullptr;
    std::swap(buffer_, ahead_buffer_);
    return ahead_;
  }
  const ssize_t n = ::recv(session.fd.get(), buffer_.data(), buffer_.size(), 0);
  return {n, errno};
}

// Appends what has arrived to session.in; false where nothing new did.
bool Worker::read(Session& session) {
  if (ahead_of_ != &session && (session.read_ended || !service_.may_read(session))) return false;
  const auto [n, error] = receive(session);
  if (n == static_cast<ssize_t>(buffer_.size()) || (n < 0 && error == EINTR)) session.interest = kAnew;  // there may be more
  if (n > 0) {
    if (next_ != nullptr && n <= kOneCommand) read_ahead();
    // Mostly the whole buffer is answered at once and nothing has to be kept.
    const std::string_view fresh(buffer_.data(), static_cast<size_t>(n));
    if (session.in.empty())
      session.in.append(fresh.substr(service_.serve(session, fresh)));
    else
      session.in.append(fresh);
    service_.prefetch_expected();
    return true;
  }
  if (n == 0) session.read_ended = true;
  if (n < 0 && error != EAGAIN && error != EINTR) session.read_ended = session.closing = true;
  return false;
}

void Worker::read_ahead() {
  const epoll_event& next = *std::exchange(next_, nullptr);
  if (next.events != EPOLLIN || next.data.ptr == &inbox_ || next.data.ptr == &timer_ || next.data.ptr == port_) return;
  Session& session = *static_cast<Session*>(next.data.ptr);
  if (session.http != nullptr || session.read_ended || !session.in.empty() || !service_.may_read(session)) return;
  const ssize_t n = ::recv(session.fd.get(), ahead_buffer_.data(), ahead_buffer_.size(), 0);
  ahead_ = {n, errno};
  ahead_of_ = &session;
  if (n > 0) service_.expect(session, {ahead_buffer_.data(), static_cast<size_t>(n)});
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
    if (session.http != nullptr) session.http->taken += static_cast<size_t>(n);
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
  if (no_more && session.unsent() == 0 && !session.replies.waiting()) return leave(session);
  rewatch(session);
  if (session.http != nullptr) set_deadline(session);
}

// All was said. A connection that is closed with bytes unread is reset, and what was said last may never be seen: so one that
// was refused is given a little time to end by itself.
void Worker::leave(Session& session) {
  if (session.http == nullptr || !session.http->refused || session.read_ended) return close(session);
  session.http->going = true;
  ::shutdown(session.fd.get(), SHUT_WR);
  throw_away(session);
}

void Worker::throw_away(Session& session) {
  for (int i = 0; i < kLastReads; ++i) {
    const ssize_t n = ::recv(session.fd.get(), buffer_.data(), buffer_.size(), 0);
    if (n > 0 || (n < 0 && errno == EINTR)) continue;
    if (n == 0 || errno != EAGAIN) break;
    rewatch(session);
    return set_deadline(session);
  }
  close(session);
}

// Says by when the other side has to have done what it is to do next.
void Worker::set_deadline(Session& session) {
  const HttpSession& http = *session.http;
  Until until = Until::idle;
  uint64_t step = http.requests;
  if (http.going) {
    until = Until::gone;
    step = 0;
  } else if (session.unsent() != 0) {
    until = Until::taken;
    step = http.taken;
  } else if (session.replies.waiting()) {
    until = Until::nothing;
  } else if (!session.in.empty()) {
    until = Until::asked;
  }
  if (!turn_at_) turn_at_ = clock_.mono();
  deadlines_.set(session.http->deadline, until, step, *turn_at_);
}

// Its time is over.
void Worker::give_up(Session& session) {
  const Until until = session.http->deadline.until;
  if (until == Until::asked || until == Until::taken) counters_.failed(Trouble::slow_client);
  if (until != Until::asked) return close(session);
  service_.refuse_slow(session);
  settle(session);
}

void Worker::rewatch(Session& session) {
  const bool going = session.http != nullptr && session.http->going;
  const bool wants_input = going || (!session.read_ended && service_.may_read(session));
  const uint32_t interest =
      (wants_input ? kInput : 0u) | (session.unsent() != 0 ? uint32_t{EPOLLOUT} : 0u);
  if (interest == session.interest) return;
  session.interest = interest;
  epoll_event event{};
  event.events = interest | EPOLLET;
  event.data.ptr = &session;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, session.fd.get(), &event);
}

void Worker::close(Session& session) {
  service_.drop(session);
  if (session.http != nullptr) deadlines_.remove(session.http->deadline);
  counters_.connections_of(session.http != nullptr ? Protocol::http : Protocol::resp).subtract();
  sessions_.erase(&session);  // closing the descriptor takes it out of the epoll
}

void Worker::start_drain(Duration grace) {
  drained_by_ = clock_.mono() + grace;
  std::vector<Session*> all;
  for (const auto& [session, owner] : sessions_) all.push_back(session);
  for (Session* session : all) {
    for (int i = 0; i < kLastReads && read(*session); ++i) serve(*session);
    session->read_ended = true;
    settle(*session);
  }
}

}  // namespace tally
