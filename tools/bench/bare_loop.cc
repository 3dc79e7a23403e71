// tally_bare_loop SOCKET KEYS: the least that a server of CL.THROTTLE has to do, as a yardstick for tallyd. Ends with SIGTERM.
//
// One thread: epoll, read, RESP arrays of bulk strings, the hash that tallyd has, GCRA on an open table for as many keys, one write for
// each read. Nothing else: no limits on what a client sends, no eviction, no counters, no other command.
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"

namespace {

constexpr size_t kBufferBytes = 65'536;
constexpr size_t kArguments = 6;  // CL.THROTTLE key max_burst count period cost
constexpr uint64_t kSeed = 0x9E3779B97F4A7C15;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "tally_bare_loop: %s\n", what.c_str());
  std::exit(1);
}

int64_t now_ns() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

class Table {
 public:
  explicit Table(size_t keys) : slots_(std::bit_ceil(keys * 2)) {}
  // The theoretical arrival time of that key, 0 at first.
  int64_t& at(tally::KeyHash hash) {
    const size_t mask = slots_.size() - 1;
    size_t i = hash.lo & mask;
    while (slots_[i].hash != 0 && slots_[i].hash != hash.hi) i = (i + 1) & mask;
    slots_[i].hash = hash.hi;
    return slots_[i].tat;
  }

 private:
  struct Slot {
    uint64_t hash = 0;
    int64_t tat = 0;
  };
  std::vector<Slot> slots_;
};

struct Connection {
  int fd = -1;
  size_t filled = 0;
  std::array<char, kBufferBytes> in;
};

// A number that ends with \r\n; moves `at` behind it. -1: not all of it is there.
int64_t number_line(const char*& at, const char* end) {
  int64_t n = 0;
  for (const char* p = at; p < end; ++p) {
    if (*p == '\r') {
      if (p + 1 == end) return -1;
      at = p + 2;
      return n;
    }
    n = n * 10 + (*p - '0');
  }
  return -1;
}

// Whether a whole command was there; then `at` is behind it.
bool parse(const char*& at, const char* end, std::array<std::string_view, kArguments>& arguments) {
  const char* p = at;
  if (p == end || *p++ != '*') return false;
  const int64_t count = number_line(p, end);
  if (count < 0) return false;
  if (count != kArguments) fail("not a CL.THROTTLE");
  for (std::string_view& argument : arguments) {
    if (p == end || *p++ != '$') return false;
    const int64_t length = number_line(p, end);
    if (length < 0 || end - p < length + 2) return false;
    argument = {p, static_cast<size_t>(length)};
    p += length + 2;
  }
  at = p;
  return true;
}

int64_t number_of(std::string_view text) {
  int64_t n = 0;
  std::from_chars(text.data(), text.data() + text.size(), n);
  return n;
}

void decide(Table& table, const std::array<std::string_view, kArguments>& arguments, int64_t now, std::string& out) {
  const int64_t limit = number_of(arguments[2]) + 1, count = number_of(arguments[3]), period = number_of(arguments[4]), cost = number_of(arguments[5]);
  const int64_t emission = period * 1'000'000'000 / count, span = emission * limit;
  int64_t& tat = table.at(tally::hash_key(arguments[1], kSeed, 0));
  const int64_t next = std::max(tat, now) + cost * emission;
  const bool limited = next - now > span;
  if (!limited) tat = next;
  const int64_t left = std::max<int64_t>(0, span - (std::max(tat, now) - now)) / emission;
  const auto seconds = [](int64_t ns) { return (ns + 999'999'999) / 1'000'000'000; };
  const std::array<int64_t, 5> numbers{limited, limit, left, limited ? seconds(next - now - span) : -1, seconds(std::max(tat, now) - now)};
  char text[160] = "*5\r\n";
  char* p = text + 4;
  for (const int64_t n : numbers) {
    *p++ = ':';
    p = std::to_chars(p, text + sizeof text, n).ptr;
    *p++ = '\r';
    *p++ = '\n';
  }
  out.append(text, static_cast<size_t>(p - text));
}

// False: the connection has ended.
bool serve(Connection& connection, Table& table, std::string& out) {
  const ssize_t n = recv(connection.fd, connection.in.data() + connection.filled, kBufferBytes - connection.filled, 0);
  if (n <= 0) return false;
  connection.filled += static_cast<size_t>(n);
  const char* at = connection.in.data();
  const char* const end = at + connection.filled;
  const int64_t now = now_ns();
  std::array<std::string_view, kArguments> arguments;
  out.clear();
  while (parse(at, end, arguments)) decide(table, arguments, now, out);
  connection.filled = static_cast<size_t>(end - at);
  std::memmove(connection.in.data(), at, connection.filled);
  return out.empty() || send(connection.fd, out.data(), out.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(out.size());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) fail("SOCKET KEYS");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string_view path = argv[1];
  if (path.size() >= sizeof address.sun_path) fail("path too long");
  std::memcpy(address.sun_path, path.data(), path.size());
  const int listener = socket(AF_UNIX, SOCK_STREAM, 0), epoll = epoll_create1(0);
  if (bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 || listen(listener, 128) != 0)
    fail(std::string(path) + ": " + std::strerror(errno));
  const auto watch = [epoll](int fd, Connection* connection) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = connection;
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
  };
  watch(listener, nullptr);
  Table table(static_cast<size_t>(number_of(argv[2])));
  std::string out;
  epoll_event ready[128];
  for (;;) {
    const int count = epoll_wait(epoll, ready, 128, -1);
    for (int i = 0; i < count; ++i) {
      auto* connection = static_cast<Connection*>(ready[i].data.ptr);
      if (connection == nullptr) {
        connection = new Connection;
        connection->fd = accept(listener, nullptr, nullptr);
        watch(connection->fd, connection);
      } else if (!serve(*connection, table, out)) {
        close(connection->fd);
        delete connection;
      }
    }
  }
}
