#include "daemon/acceptor.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "doors/http_replies.h"

namespace tally {
namespace {

constexpr int kAtOnce = 64;  // accepted before other handlers get their turn
constexpr Duration kPause = std::chrono::milliseconds(100);

std::string full(Protocol protocol) {
  if (protocol == Protocol::resp) return "-ERR max number of clients reached\r\n";
  std::string reply;
  http::Writer(reply, {.kind = http::Form::Kind::json, .close = true}, "").problem(503, "max number of clients reached: limits.connections");
  return reply;
}

}  // namespace

Acceptor::Acceptor(asio::io_context& io, Listener listener, HandOver hand_over, Log& log)
    : listener_(std::move(listener)), ready_(io, ::dup(listener_.fd())), pause_(io), hand_over_(std::move(hand_over)), log_(log) {
  wait();
}

void Acceptor::stop() {
  asio::error_code ignored;
  ready_.close(ignored);
  pause_.cancel();
  listener_.close();
}

void Acceptor::wait() {
  ready_.async_wait(asio::posix::stream_descriptor::wait_read, [this](const asio::error_code& error) {
    if (!error) accept_all();
  });
}

void Acceptor::accept_all() {
  for (int i = 0; i < kAtOnce; ++i) {
    Descriptor fd(::accept4(listener_.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (fd) {
      hand_over(std::move(fd));
      continue;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) break;
    if (errno == EINTR || errno == ECONNABORTED) continue;
    // Out of descriptors or memory: the queue stays readable, so trying at once would only burn the
    // processor.
    log_.warning("cannot accept a connection", {{"error", std::strerror(errno)}});
    return pause();
  }
  wait();
}

void Acceptor::pause() {
  pause_.expires_after(kPause);
  pause_.async_wait([this](const asio::error_code& error) {
    if (!error) accept_all();
  });
}

void Acceptor::hand_over(Descriptor fd) {
  const bool unix_socket = address().kind == Address::Kind::unix_socket;
  const int yes = 1;
  if (!unix_socket) ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  hand_over_(std::move(fd), unix_socket);
}

void TurnedAway::count(uint64_t open) {
  overview_.connections_full.fetch_add(1, std::memory_order_relaxed);
  if (!std::exchange(warned_, true)) log_.warning("connections are turned away: limits.connections is reached", {{"connections", open}});
}

void ToWorkers::operator()(Descriptor fd, bool unix_socket) {
  const uint64_t open = overview_.total(&WorkerCounters::connections);
  if (open >= overview_.connections_max) {
    turned_away_.count(open);
    const std::string reply = full(protocol_);
    [[maybe_unused]] const ssize_t n = ::send(fd.get(), reply.data(), reply.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    return;
  }
  // Beginning at the next in turn, so that many that arrive at once (the counts lag behind) are spread as
  // well.
  size_t best = next_ % workers_.size();
  for (size_t i = 1; i < workers_.size(); ++i) {
    const size_t other = (next_ + i) % workers_.size();
    if (workers_[other]->connections() < workers_[best]->connections()) best = other;
  }
  next_ = best + 1;
  workers_[best]->adopt(std::move(fd), unix_socket, protocol_);
}

}  // namespace tally
