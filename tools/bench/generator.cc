// tally_generator: a closed-loop load generator, the same for every server that it measures.
//
//   tally_generator SOCKET PID CONNECTIONS PIPELINE SECONDS KEYS SEED incr
//   tally_generator SOCKET PID CONNECTIONS PIPELINE SECONDS KEYS SEED throttle BURST COUNT PERIOD
//   tally_generator SOCKET PID CONNECTIONS PIPELINE SECONDS KEYS SEED evalsha SHA BURST COUNT PERIOD
//
// Each connection sends PIPELINE commands on random keys in one write, waits for all replies, sends the next.
// First every key is touched once, uncounted; then it counts for SECONDS and prints one line of JSON:
// decisions, seconds, the microseconds of CPU that process PID spent meanwhile (user and system), and the
// median and p99 time of a batch. An error reply is the end: exit 1.
//
// A command is a template with six digits of the key patched in, and replies are counted by their lines: the
// generator must cost less than any server, or it would measure itself. One thread; redis-benchmark does more
// work a reply and knows no CL.THROTTLE.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "tally_generator: %s\n", what.c_str());
  std::exit(1);
}

constexpr size_t kKeyDigits = 6;  // keys up to a million

struct Command {
  std::string bytes;     // with a key of zeros
  size_t digits_at = 0;  // where its digits are
  int reply_lines = 1;
};

Command make_command(const std::vector<std::string>& words, const std::string& prefix, int reply_lines) {
  Command made;
  made.reply_lines = reply_lines;
  made.bytes = "*" + std::to_string(words.size()) + "\r\n";
  for (const std::string& word : words) {
    const std::string text = word == "KEY" ? prefix + std::string(kKeyDigits, '0') : word;
    made.bytes += "$" + std::to_string(text.size()) + "\r\n";
    if (word == "KEY") made.digits_at = made.bytes.size() + prefix.size();
    made.bytes += text + "\r\n";
  }
  return made;
}

Command command_of(const std::vector<std::string>& words) {
  if (words[0] == "incr") return make_command({"INCR", "KEY"}, "incr:", 1);
  if (words[0] == "throttle" && words.size() == 4)
    return make_command({"CL.THROTTLE", "KEY", words[1], words[2], words[3], "1"}, "cell:", 6);
  if (words[0] == "evalsha" && words.size() == 5)
    return make_command({"EVALSHA", words[1], "1", "KEY", words[2], words[3], words[4], "1"}, "gcra:", 6);
  fail("unknown kind " + words[0]);
}

class Random {  // xorshift64*: a few instructions a key
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15ULL | 1) {}
  uint32_t below(uint32_t n) {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return static_cast<uint32_t>(((state_ * 0x2545F4914F6CDD1DULL) >> 32) * n >> 32);
  }

 private:
  uint64_t state_;
};

// User and system time of a process, in microseconds. The kernel counts in ticks of 10 ms.
uint64_t cpu_us(int pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  std::getline(file, line);
  const size_t end = line.rfind(')');
  if (end == std::string::npos) fail("no process " + std::to_string(pid));
  std::istringstream rest(line.substr(end + 2));
  std::string word;
  uint64_t user = 0, system = 0;
  for (int field = 3; field < 14; ++field) rest >> word;
  rest >> user >> system;
  return (user + system) * 1'000'000 / static_cast<uint64_t>(sysconf(_SC_CLK_TCK));
}

struct Connection {
  int fd = -1;
  int lines_left = 0;    // of the batch's replies
  bool at_start = true;  // of a line
  Clock::time_point sent;
};

class Generator {
 public:
  Generator(const std::string& path, size_t connections, uint32_t pipeline, uint32_t keys, uint64_t seed,
            Command command)
      : command_(std::move(command)),
        pipeline_(pipeline),
        keys_(keys),
        random_(seed),
        epoll_(epoll_create1(0)) {
    connections_.resize(connections);
    for (Connection& connection : connections_) connect_to(path, connection);
    for (uint32_t i = 0; i < pipeline_; ++i) batch_ += command_.bytes;
  }

  void touch_all_keys() {
    next_key_ = 0;
    sequential_ = true;
    run([this] { return next_key_ < keys_; });
    sequential_ = false;
  }

  void measure(std::chrono::milliseconds length, int pid) {
    const Clock::time_point start = Clock::now(), end = start + length;
    const uint64_t cpu = cpu_us(pid);
    decisions_ = 0;
    batches_us_.clear();
    run([end] { return Clock::now() < end; });
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    std::ranges::sort(batches_us_);
    const auto at = [this](double p) {
      return static_cast<double>(
          batches_us_[static_cast<size_t>(p * static_cast<double>(batches_us_.size() - 1))]);
    };
    std::printf("{\"decisions\":%" PRIu64 ",\"seconds\":%.4f,\"server_cpu_us\":%" PRIu64
                ",\"batch_p50_us\":%.1f,\"batch_p99_us\":%.1f}\n",
                decisions_, seconds, cpu_us(pid) - cpu, at(0.5), at(0.99));
  }

 private:
  void connect_to(const std::string& path, Connection& connection) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof(address.sun_path)) fail("path too long");
    std::memcpy(address.sun_path, path.c_str(), path.size());
    connection.fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(connection.fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
      fail(path + ": " + std::strerror(errno));
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = &connection;
    epoll_ctl(epoll_, EPOLL_CTL_ADD, connection.fd, &event);
  }

  // Batches on all connections while `more()`, then waits for the last replies.
  template <typename More>
  void run(More more) {
    size_t busy = 0;
    for (Connection& connection : connections_) {
      if (!more()) break;
      send_batch(connection);
      ++busy;
    }
    epoll_event ready[64];
    while (busy > 0) {
      const int n = epoll_wait(epoll_, ready, 64, 5000);
      if (n == 0) fail("no reply for 5 s");
      for (int i = 0; i < n; ++i) {
        Connection& connection = *static_cast<Connection*>(ready[i].data.ptr);
        if (!receive(connection)) continue;
        if (more())
          send_batch(connection);
        else
          --busy;
      }
    }
  }

  void send_batch(Connection& connection) {
    for (uint32_t i = 0; i < pipeline_; ++i) {
      uint32_t key = sequential_ ? next_key_++ % keys_ : random_.below(keys_);
      char* digits = batch_.data() + i * command_.bytes.size() + command_.digits_at;
      for (size_t d = kKeyDigits; d-- > 0; key /= 10) digits[d] = static_cast<char>('0' + key % 10);
    }
    connection.lines_left = command_.reply_lines * static_cast<int>(pipeline_);
    connection.sent = Clock::now();
    for (size_t done = 0; done < batch_.size();) {
      const ssize_t n = send(connection.fd, batch_.data() + done, batch_.size() - done, MSG_NOSIGNAL);
      if (n < 0 && errno != EINTR) fail(std::string("send: ") + std::strerror(errno));
      if (n > 0) done += static_cast<size_t>(n);
    }
  }

  // True when the batch is answered.
  bool receive(Connection& connection) {
    char bytes[65536];
    const ssize_t n = recv(connection.fd, bytes, sizeof(bytes), 0);
    if (n < 0 && errno == EINTR) return false;
    if (n <= 0) fail("the server closed the connection");
    const char* at = bytes;
    const char* end = bytes + n;
    while (at < end) {
      if (connection.at_start && *at == '-')
        fail("the server answered: " + std::string(at, std::find(at, end, '\r')));
      const auto* newline = static_cast<const char*>(std::memchr(at, '\n', static_cast<size_t>(end - at)));
      connection.at_start = newline != nullptr;
      if (newline == nullptr) break;
      --connection.lines_left;
      at = newline + 1;
    }
    if (connection.lines_left < 0) fail("more replies than commands");
    if (connection.lines_left > 0) return false;
    decisions_ += pipeline_;
    batches_us_.push_back(std::chrono::duration<float, std::micro>(Clock::now() - connection.sent).count());
    return true;
  }

  Command command_;
  uint32_t pipeline_, keys_;
  Random random_;
  int epoll_;
  std::vector<Connection> connections_;
  std::string batch_;  // rewritten for each batch; the kernel has its copy
  bool sequential_ = false;
  uint32_t next_key_ = 0;
  uint64_t decisions_ = 0;
  std::vector<float> batches_us_;
};

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() < 8) fail("SOCKET PID CONNECTIONS PIPELINE SECONDS KEYS SEED KIND ...");
  const auto number = [&](size_t i) { return static_cast<uint32_t>(std::atoi(words[i].c_str())); };
  const uint32_t connections = number(2), pipeline = number(3), keys = number(5);
  if (connections == 0 || pipeline == 0 || pipeline > 1024 || keys == 0 || keys > 1'000'000)
    fail("a number is out of range");
  Generator generator(words[0], connections, pipeline, keys, number(6),
                      command_of({words.begin() + 7, words.end()}));
  generator.touch_all_keys();
  generator.measure(std::chrono::milliseconds(static_cast<int64_t>(std::atof(words[4].c_str()) * 1000)),
                    std::atoi(words[1].c_str()));
  return 0;
}
