#include "client/connection.h"

#include <hiredis/hiredis.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

namespace tally::client {
namespace {

struct FreeReply {
  void operator()(redisReply* reply) const { freeReplyObject(reply); }
};

Failure unreachable(const std::string& path, const std::string& why) {
  return Failure{"cannot reach tallyd at " + path + ": " + why +
                 "; is it running, and is its socket open to this user?"};
}

}  // namespace

MonoTime mono_now() {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return MonoTime(std::chrono::seconds(now.tv_sec) + Duration(now.tv_nsec));
}

void Connection::FreeReader::operator()(redisReader* reader) const { redisReaderFree(reader); }

Connection::Connection(std::string path, int fd)
    : path_(std::move(path)), fd_(fd), reader_(redisReaderCreate()) {}

Connection::~Connection() { ::close(fd_); }

Result<std::unique_ptr<Connection>> Connection::open(const std::string& path, MonoTime deadline) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path)
    return unreachable(path, "a socket's path has 1 to 107 bytes");
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return unreachable(path, std::strerror(errno));
  std::unique_ptr<Connection> connection(new Connection(path, fd));
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return connection;
  if (errno != EINPROGRESS) return unreachable(path, std::strerror(errno));  // EAGAIN: its queue is full
  if (const auto ready = connection->wait(POLLOUT, deadline); !ready) return Failure{ready.error()};
  return connection;
}

Failure Connection::failed(int error) {
  lost_ = error != ETIMEDOUT;
  return error == ETIMEDOUT ? Failure{"tallyd at " + path_ + " did not answer within the deadline"}
                            : unreachable(path_, std::strerror(error));
}

Result<bool> Connection::wait(short events, MonoTime deadline) {
  for (;;) {
    const Duration left = std::max(deadline - mono_now(), Duration(0));
    const timespec timeout{static_cast<time_t>(left / std::chrono::seconds(1)),
                           static_cast<long>((left % std::chrono::seconds(1)).count())};
    pollfd entry{fd_, events, 0};
    const int n = ::ppoll(&entry, 1, &timeout, nullptr);
    if (n > 0) return true;
    if (n == 0) return failed(ETIMEDOUT);
    if (errno != EINTR) return failed(errno);
  }
}

void Connection::append(std::string& to, const std::vector<std::string_view>& command) {
  std::vector<const char*> words;
  std::vector<size_t> sizes;
  for (const std::string_view word : command) {
    words.push_back(word.data());
    sizes.push_back(word.size());
  }
  char* bytes = nullptr;
  const long long size =
      redisFormatCommandArgv(&bytes, static_cast<int>(words.size()), words.data(), sizes.data());
  if (size < 0) throw std::bad_alloc();
  to.append(bytes, static_cast<size_t>(size));
  redisFreeCommand(bytes);
}

Result<bool> Connection::send(std::string_view commands, MonoTime deadline) {
  while (!commands.empty()) {
    const ssize_t n = ::send(fd_, commands.data(), commands.size(), MSG_NOSIGNAL);
    if (n > 0) {
      commands.remove_prefix(static_cast<size_t>(n));
    } else if (errno == EAGAIN) {
      if (auto ready = wait(POLLOUT, deadline); !ready) return ready;
    } else if (errno != EINTR) {
      return failed(errno);
    }
  }
  return true;
}

Result<Answered> Connection::read(MonoTime deadline) {
  for (;;) {
    void* found = nullptr;
    if (redisReaderGetReply(reader_.get(), &found) != REDIS_OK) return failed(EPROTO);
    if (found != nullptr) {
      const std::unique_ptr<redisReply, FreeReply> reply(static_cast<redisReply*>(found));
      Answered answered;
      if (reply->type == REDIS_REPLY_ERROR) answered.error.assign(reply->str, reply->len);
      if (reply->type == REDIS_REPLY_INTEGER) answered.numbers.push_back(reply->integer);
      if (reply->type == REDIS_REPLY_ARRAY)
        for (size_t i = 0; i < reply->elements; ++i)
          if (reply->element[i]->type == REDIS_REPLY_INTEGER)
            answered.numbers.push_back(reply->element[i]->integer);
      return answered;
    }
    char buffer[4096];
    const ssize_t n = ::recv(fd_, buffer, sizeof buffer, 0);
    if (n > 0) {
      redisReaderFeed(reader_.get(), buffer, static_cast<size_t>(n));
    } else if (n == 0) {
      return failed(ECONNRESET);
    } else if (errno == EAGAIN) {
      if (const auto ready = wait(POLLIN, deadline); !ready) return Failure{ready.error()};
    } else if (errno != EINTR) {
      return failed(errno);
    }
  }
}

}  // namespace tally::client
