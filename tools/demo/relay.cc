// tally_relay: a slow network between processes of one machine.
//
//   tally_relay udp DELAY_US ENTRY=BIND [ENTRY=BIND ...]   between daemons: each ENTRY ("host:port") is a
//   node as its peers
//                                                          name it, BIND is where it really listens
//   tally_relay stream DELAY_US LISTEN TARGET              in front of a server, both Unix sockets
//
// Everything is delayed by DELAY_US each way and stays in order. Prints "ready" when it serves; on each line
// of standard input prints "DATAGRAMS BYTES DROPPED", so far; ends with its standard input. One
// thread.
//
// A daemon knows its peers by the source address of their datagrams. So the relay has one socket per node,
// bound to the node's ENTRY: what node j sends to entry i comes in on socket i from BIND j, and leaves from
// socket j to BIND i: to the receiver it comes from entry j, as if nothing were in between.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using Time = Clock::time_point;

constexpr size_t kQueuedMax =
    1'000'000;  // datagrams or pieces under way; more are dropped (datagrams) or left in the socket

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "tally_relay: %s\n", what.c_str());
  std::exit(64);
}

// Descriptors that are ready, and the moment when the oldest delayed thing is due.
class Poller {
 public:
  Poller() : epoll_(epoll_create1(EPOLL_CLOEXEC)), timer_(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC)) {
    add(timer_);
    add(STDIN_FILENO);
  }
  void add(int fd) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0)
      fail("epoll_ctl: " + std::string(std::strerror(errno)));
  }
  // The descriptors that can be read; none where only time has passed. Sets `ended` when standard input is at
  // its end and `asked` when a line came.
  std::vector<int> wait(const Time* due, bool& ended, bool& asked) {
    itimerspec spec{};
    if (due != nullptr) {
      const auto left = std::max<int64_t>(1, (*due - Clock::now()).count());
      spec.it_value = {left / 1'000'000'000, left % 1'000'000'000};
    }
    timerfd_settime(timer_, 0, &spec, nullptr);
    epoll_event ready[64];
    const int n = epoll_wait(epoll_, ready, 64, -1);
    std::vector<int> fds;
    for (int i = 0; i < n; ++i) {
      char line[256];
      if (ready[i].data.fd == STDIN_FILENO) {
        const ssize_t got = read(STDIN_FILENO, line, sizeof(line));
        (got <= 0 ? ended : asked) = true;
      } else if (ready[i].data.fd != timer_) {
        fds.push_back(ready[i].data.fd);
      }
    }
    return fds;
  }

 private:
  int epoll_, timer_;
};

struct Traffic {
  uint64_t datagrams = 0, bytes = 0, dropped = 0;
  void print() const {
    std::printf("%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", datagrams, bytes, dropped);
    std::fflush(stdout);
  }
};

sockaddr_in inet_address(const std::string& text) {
  const size_t colon = text.rfind(':');
  sockaddr_in address{};
  address.sin_family = AF_INET;
  if (colon == std::string::npos || inet_pton(AF_INET, text.substr(0, colon).c_str(), &address.sin_addr) != 1)
    fail("not an address: " + text);
  address.sin_port = htons(static_cast<uint16_t>(std::atoi(text.c_str() + colon + 1)));
  return address;
}

class UdpRelay {
 public:
  UdpRelay(Clock::duration delay, const std::vector<std::string>& nodes) : delay_(delay) {
    for (const std::string& node : nodes) {
      const size_t equals = node.find('=');
      if (equals == std::string::npos) fail("not ENTRY=BIND: " + node);
      add(inet_address(node.substr(0, equals)), inet_address(node.substr(equals + 1)), node);
    }
  }

  void run() {
    std::printf("ready\n");
    std::fflush(stdout);
    for (bool ended = false; !ended;) {
      bool asked = false;
      const std::vector<int> readable =
          poller_.wait(queue_.empty() ? nullptr : &queue_.front().due, ended, asked);
      for (const int fd : readable) receive(by_fd_.at(fd));
      for (const Time now = Clock::now(); !queue_.empty() && queue_.front().due <= now; queue_.pop_front())
        forward(queue_.front());
      if (asked) traffic_.print();
    }
  }

 private:
  struct Node {
    int fd;
    sockaddr_in bind;
  };
  struct Delayed {
    Time due;
    size_t from, to;
    std::string bytes;
  };

  void add(const sockaddr_in& entry, const sockaddr_in& bind_address, const std::string& text) {
    const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const int bytes = 4 << 20;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    if (fd < 0 || bind(fd, reinterpret_cast<const sockaddr*>(&entry), sizeof(entry)) != 0)
      fail(text + ": " + std::strerror(errno));
    by_fd_[fd] = nodes_.size();
    by_bind_[{bind_address.sin_addr.s_addr, bind_address.sin_port}] = nodes_.size();
    nodes_.push_back({fd, bind_address});
    poller_.add(fd);
  }

  void receive(size_t to) {
    char bytes[65536];
    for (;;) {
      sockaddr_in from{};
      socklen_t length = sizeof(from);
      const ssize_t n =
          recvfrom(nodes_[to].fd, bytes, sizeof(bytes), 0, reinterpret_cast<sockaddr*>(&from), &length);
      if (n < 0) return;
      const auto sender = by_bind_.find({from.sin_addr.s_addr, from.sin_port});
      if (sender == by_bind_.end() || queue_.size() >= kQueuedMax) {
        ++traffic_.dropped;
        continue;
      }
      ++traffic_.datagrams;
      traffic_.bytes += static_cast<uint64_t>(n);
      queue_.push_back(
          {Clock::now() + delay_, sender->second, to, std::string(bytes, static_cast<size_t>(n))});
    }
  }

  void forward(const Delayed& delayed) {
    const sockaddr_in& to = nodes_[delayed.to].bind;
    // A node that is gone answers with an error on the next call: nothing to do about it here.
    (void)sendto(nodes_[delayed.from].fd, delayed.bytes.data(), delayed.bytes.size(), 0,
                 reinterpret_cast<const sockaddr*>(&to), sizeof(to));
  }

  Clock::duration delay_;
  Poller poller_;
  std::vector<Node> nodes_;
  std::map<int, size_t> by_fd_;
  std::map<std::pair<uint32_t, uint16_t>, size_t> by_bind_;
  std::deque<Delayed> queue_;  // one delay for all: in order of due
  Traffic traffic_;
};

class StreamRelay {
 public:
  StreamRelay(Clock::duration delay, const std::string& listen_path, std::string target)
      : delay_(delay),
        target_(std::move(target)),
        listener_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    const sockaddr_un address = unix_address(listen_path);
    if (bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
        listen(listener_, 64) != 0)
      fail(listen_path + ": " + std::strerror(errno));
    poller_.add(listener_);
  }

  void run() {
    std::printf("ready\n");
    std::fflush(stdout);
    for (bool ended = false; !ended;) {
      bool asked = false;
      const std::vector<int> readable =
          poller_.wait(queue_.empty() ? nullptr : &queue_.front().due, ended, asked);
      for (const int fd : readable) {
        if (fd == listener_)
          accept_one();
        else
          receive(fd);
      }
      for (const Time now = Clock::now(); !queue_.empty() && queue_.front().due <= now; queue_.pop_front())
        forward(queue_.front());
      if (asked) traffic_.print();
    }
  }

 private:
  struct Delayed {
    Time due;
    int to;
    std::string bytes;  // empty: the other side closed
  };

  static sockaddr_un unix_address(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof(address.sun_path)) fail("path too long: " + path);
    std::memcpy(address.sun_path, path.c_str(), path.size());
    return address;
  }

  void accept_one() {
    const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (client < 0) return;
    const int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_un address = unix_address(target_);
    if (server < 0 || connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
      close(client);
      if (server >= 0) close(server);
      return;
    }
    other_[client] = server;
    other_[server] = client;
    poller_.add(client);
    poller_.add(server);
  }

  void receive(int fd) {
    const auto other = other_.find(fd);
    if (other == other_.end()) return;
    char bytes[65536];
    const ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) return drop(fd);
    ++traffic_.datagrams;
    traffic_.bytes += static_cast<uint64_t>(n);
    queue_.push_back({Clock::now() + delay_, other->second, std::string(bytes, static_cast<size_t>(n))});
  }

  // Blocks where the receiver does not read: it delays everybody, as a full pipe would.
  void forward(const Delayed& delayed) {
    size_t done = 0;
    while (done < delayed.bytes.size() && other_.contains(delayed.to)) {
      const ssize_t n =
          send(delayed.to, delayed.bytes.data() + done, delayed.bytes.size() - done, MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return drop(delayed.to);
      done += static_cast<size_t>(n);
    }
  }

  void drop(int fd) {
    const auto other = other_.find(fd);
    if (other == other_.end()) return;
    const int pair[2] = {fd, other->second};
    for (const int each : pair) {
      other_.erase(each);
      close(each);
      std::erase_if(queue_, [each](const Delayed& delayed) { return delayed.to == each; });
    }
  }

  Clock::duration delay_;
  std::string target_;
  int listener_;
  Poller poller_;
  std::map<int, int> other_;  // both ends of each pair
  std::deque<Delayed> queue_;
  Traffic traffic_;
};

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() < 3)
    fail("usage: tally_relay udp DELAY_US ENTRY=BIND... | tally_relay stream DELAY_US LISTEN TARGET");
  const auto delay = std::chrono::microseconds(std::atoll(words[1].c_str()));
  if (words[0] == "udp") {
    UdpRelay(delay, {words.begin() + 2, words.end()}).run();
  } else if (words[0] == "stream" && words.size() == 4) {
    StreamRelay(delay, words[2], words[3]).run();
  } else {
    fail("unknown: " + words[0]);
  }
  return 0;
}
