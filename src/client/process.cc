#include "client/process.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <random>

namespace tally::client {
namespace {

constexpr size_t kIdleMax = 64;
constexpr Duration kBackoffMin = std::chrono::milliseconds(10), kBackoffMax = std::chrono::milliseconds(500);
// For what no caller waits for.
constexpr Duration kPatience = std::chrono::seconds(1);

uint64_t random_seed() {
  std::random_device device;
  return uint64_t{device()} << 32 | device();
}

Now both_clocks() { return {mono_now(), WallTime(std::chrono::system_clock::now().time_since_epoch())}; }

Reply reply_of(const std::vector<int64_t>& n) {
  Reply reply;
  reply.limited = n[0] != 0;
  reply.limit = static_cast<uint32_t>(n[1]);
  reply.remaining = static_cast<uint32_t>(n[2]);
  reply.retry_after = n[3] < 0 ? Duration(-1) : std::chrono::milliseconds(n[3]);
  reply.reset_after = std::chrono::milliseconds(n[4]);
  reply.reason = static_cast<int>(n[5]);
  reply.amount = static_cast<uint32_t>(n[6]);
  reply.lasts = std::chrono::microseconds(n[7]);
  reply.account = n[8];
  return reply;
}
constexpr size_t kReplyNumbers = 9;

// Signals are the application's threads' to take: those that are made while this lives have none.
class NoSignals {
 public:
  NoSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~NoSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  NoSignals(const NoSignals&) = delete;
  NoSignals& operator=(const NoSignals&) = delete;

 private:
  sigset_t before_{};
};

std::chrono::microseconds micros_up(Duration d) {
  return std::chrono::ceil<std::chrono::microseconds>(std::max(d, Duration(0)));
}

}  // namespace

Process::Process(const ClientOptions& options)
    : options_(options), seed_(random_seed()), leases_(std::bit_ceil(options.keys)) {
  if (options_.when_away == WhenAway::fallback) fallback_.emplace(options_.fallback, options_.keys, seed_);
  const NoSignals none;
  thread_ = std::thread([this] { run(); });
}

Process::~Process() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

namespace {

void tell_what_is_known(const Leases::Entry& entry, int64_t now, Decision& decision) {
  decision.limit = static_cast<uint32_t>(entry.said.load(std::memory_order_relaxed) >> 32);
  decision.reset_after = micros_up(Duration(entry.reset_at.load(std::memory_order_relaxed) - now));
}

}  // namespace

bool Process::allowed_here(const Leases::Entry& entry, int64_t now, Decision& decision) {
  decision.allowed = true;
  decision.reason = Reason::admitted;
  tell_what_is_known(entry, now, decision);
  const auto said = static_cast<uint32_t>(entry.said.load(std::memory_order_relaxed));
  decision.remaining = static_cast<uint32_t>(std::min<uint64_t>(uint64_t{said} + entry.left(), decision.limit));
  return true;
}

bool Process::denied_here(const Leases::Entry& entry, KeyHash hash, Decision& decision) {
  const int64_t now = nanos(mono_now());
  const int64_t until = entry.denied_until.load(std::memory_order_relaxed), retry_at = entry.retry_at.load(std::memory_order_relaxed);
  tell_what_is_known(entry, now, decision);
  // Was it another key's, that has taken the place meanwhile?
  std::atomic_thread_fence(std::memory_order_acquire);
  if (now >= until || !Leases::is_of(entry, hash)) return false;
  decision.reason = Reason::over_limit;
  decision.retry_after = micros_up(Duration(retry_at - now));
  return true;
}

Decision Process::ask(std::string_view rule, std::string_view key, uint32_t cost) {
  const MonoTime deadline = mono_now() + options_.deadline;
  const KeyHash hash = hash_key(key, seed_, rule_seed_of(rule));
  Leases::Asking asking;
  bool was_quiet = false;
  {
    const std::lock_guard lock(mutex_);
    ++stats_.asked;
    was_quiet = leases_.quiet();
    asking = leases_.ask(rule, key, hash, cost);
  }
  if (was_quiet) wake_.notify_one();
  std::string command;
  Connection::append(command, {"TALLY.LEASE", rule, key, std::to_string(cost), std::to_string(asking.most)});
  MonoTime sent;
  const auto answered = ask_daemon(command, deadline, sent);
  const bool understood = answered && answered.value().numbers.size() == kReplyNumbers;
  Reply reply;
  {
    const std::lock_guard lock(mutex_);
    if (understood) {
      reply = reply_of(answered.value().numbers);
      leases_.answered(asking, hash, reply, sent, options_.tick);
    } else {
      leases_.unanswered(asking, hash);
    }
  }
  if (!understood) {
    std::string why = answered ? answered.value().error : answered.error();
    return away(rule, key, cost, why.empty() ? "an answer that is not one to TALLY.LEASE: is tallyd as new as this library?" : why);
  }
  Decision decision;
  decision.allowed = !reply.limited;
  decision.reason = static_cast<Reason>(reply.reason);
  decision.limit = reply.limit;
  decision.remaining =
      static_cast<uint32_t>(std::min<uint64_t>(uint64_t{reply.remaining} + reply.amount, reply.limit));
  if (reply.limited && reply.retry_after >= Duration(0)) decision.retry_after = micros_up(reply.retry_after);
  decision.reset_after = micros_up(reply.reset_after);
  return decision;
}

// A connection that was idle while the daemon was restarted is of no use; then it is tried once more, with a
// new one.
Result<Answered> Process::ask_daemon(std::string_view command, MonoTime deadline, MonoTime& sent) {
  for (bool again = true;; again = false) {
    auto found = connection(deadline);
    if (!found) return Failure{found.error()};
    std::unique_ptr<Connection> connection = std::move(found.value());
    sent = mono_now();
    const auto done = connection->send(command, deadline);
    auto answered = done ? connection->read(deadline) : Result<Answered>(Failure{done.error()});
    const std::lock_guard lock(mutex_);
    if (answered) {
      if (idle_.size() < kIdleMax) idle_.push_back(std::move(connection));
      return answered;
    }
    if (!connection->lost() || !again) return answered;
    idle_.clear();
  }
}

Result<std::unique_ptr<Connection>> Process::connection(MonoTime deadline) {
  {
    const std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      auto connection = std::move(idle_.back());
      idle_.pop_back();
      return connection;
    }
    if (mono_now() < connect_at_) return Failure{unreachable_};
  }
  auto opened = Connection::open(options_.socket, deadline);
  const std::lock_guard lock(mutex_);
  if (opened) {
    backoff_ = Duration(0);
    return opened;
  }
  backoff_ = std::clamp(backoff_ * 2, kBackoffMin, kBackoffMax);
  connect_at_ = mono_now() + backoff_;
  unreachable_ = opened.error();
  return opened;
}

Decision Process::away(std::string_view rule, std::string_view key, uint32_t cost, const std::string& why) {
  {
    const std::lock_guard lock(mutex_);
    ++stats_.away;
    error_ = why;
  }
  Decision decision;
  if (fallback_) decision = fallback_->take(rule, key, cost, both_clocks());
  if (options_.when_away == WhenAway::open) decision.allowed = true;
  decision.reason = Reason::away;
  return decision;
}

Client::Stats Process::stats() const {
  const std::lock_guard lock(mutex_);
  Client::Stats stats = stats_;
  stats.received = leases_.received();
  stats.spent = leases_.spent();
  return stats;
}

std::string Process::error() const {
  const std::lock_guard lock(mutex_);
  return error_;
}

// --- the thread ---

void Process::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (leases_.quiet())
      wake_.wait(lock, [this] { return stopping_ || !leases_.quiet(); });
    else
      wake_.wait_for(lock, options_.tick, [this] { return stopping_; });
    const bool last = stopping_;
    const auto orders = last ? leases_.leave() : leases_.tick(mono_now());
    lock.unlock();
    carry_out(orders);
    if (last) return;
    lock.lock();
  }
}

void Process::carry_out(std::span<const Leases::Order> orders) {
  // The daemon reads no more once so many replies are unread that they fill its buffer.
  constexpr size_t kAtOnce = 1'000;
  for (; !orders.empty(); orders = orders.subspan(std::min(kAtOnce, orders.size()))) carry_out_some(orders.first(std::min(kAtOnce, orders.size())));
}

// All at once, and the answers in their order.
void Process::carry_out_some(std::span<const Leases::Order> orders) {
  std::string commands;
  for (const Leases::Order& order : orders) {
    if (order.put_back != 0)
      Connection::append(commands, {"TALLY.PUTBACK", order.rule, order.key, std::to_string(order.put_back),
                                    std::to_string(order.account)});
    else
      Connection::append(commands,
                         {"TALLY.LEASE", order.rule, order.key, "0", std::to_string(order.asking.most)});
  }
  const MonoTime sent = mono_now(), deadline = sent + kPatience;
  auto found = connection(deadline);
  std::unique_ptr<Connection> connection = found ? std::move(found.value()) : nullptr;
  const auto done = connection ? connection->send(commands, deadline) : Result<bool>(Failure{found.error()});
  bool whole = static_cast<bool>(done);
  for (const Leases::Order& order : orders) {
    const auto answered = whole ? connection->read(deadline) : Result<Answered>(Failure{"not asked"});
    whole = static_cast<bool>(answered);
    settle(order, answered, sent);
  }
  const std::lock_guard lock(mutex_);
  if (whole && idle_.size() < kIdleMax) idle_.push_back(std::move(connection));
}

// What could not be put back is lost: told twice, it might be put back twice.
void Process::settle(const Leases::Order& order, const Result<Answered>& answered, MonoTime sent) {
  const std::lock_guard lock(mutex_);
  const std::vector<int64_t>* numbers = answered ? &answered.value().numbers : nullptr;
  if (order.put_back != 0) {
    if (numbers != nullptr && numbers->size() == 1)
      stats_.put_back += static_cast<uint64_t>(numbers->front());
  } else if (numbers != nullptr && numbers->size() == kReplyNumbers) {
    leases_.answered(order.asking, order.hash, reply_of(*numbers), sent, options_.tick);
  } else {
    leases_.unanswered(order.asking, order.hash);
  }
}

}  // namespace tally::client
