// tally_generator: a load generator, the same for every server that it measures.
//
//   tally_generator SOCKET PID CONNECTIONS PIPELINE SECONDS KEYS SEED RATE incr
//   ... incr_expire SECONDS              INCR and EXPIRE: one decision
//   ... throttle BURST COUNT PERIOD      CL.THROTTLE
//   ... take RULE                        TALLY.TAKE
//   ... evalsha SHA LINES ARGUMENT...    EVALSHA with one key; a reply of so many lines
//   ... memcached                        incr in memcached's text protocol
//
// Each connection sends PIPELINE commands on random keys in one write and waits for all replies. With a RATE of 0 it sends the next
// then; else so many decisions a second are offered by all connections together, each batch has its time, and how long it took counts
// from that: a server that was late pays for what it held up.
// First every key is touched once, uncounted; then it counts for SECONDS and prints one line of JSON: decisions, seconds, the
// microseconds of CPU that process PID spent meanwhile (user and system), those of this process, and the median, p99 and p99.9 time of a
// batch. An error reply is the end: exit 1.
//
// A command is a template with the digits of the key patched in, and replies are counted by their lines: the generator must cost less
// than any server, or it would measure itself. One thread; redis-benchmark does more work a reply and knows no CL.THROTTLE.
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

constexpr size_t kKeyDigits = 8;
constexpr uint32_t kKeysMax = 100'000'000;

struct Command {
  std::string bytes;              // with keys of zeros
  std::vector<size_t> digits_at;  // where their digits are
  int reply_lines = 0;

  // One more key to come: `before` what stands before its digits.
  void add(const std::string& before, const std::string& after) {
    bytes += before;
    digits_at.push_back(bytes.size());
    bytes += std::string(kKeyDigits, '0') + after;
  }
};

void add_resp(Command& made, const std::vector<std::string>& words, const std::string& prefix, int reply_lines) {
  made.reply_lines += reply_lines;
  made.bytes += "*" + std::to_string(words.size()) + "\r\n";
  for (const std::string& word : words) {
    if (word == "KEY")
      made.add("$" + std::to_string(prefix.size() + kKeyDigits) + "\r\n" + prefix, "\r\n");
    else
      made.bytes += "$" + std::to_string(word.size()) + "\r\n" + word + "\r\n";
  }
}

// What is sent, and before that once for each key.
struct Commands {
  Command command, touch;
};

Commands commands_of(const std::vector<std::string>& words) {
  Commands made;
  Command& command = made.command;
  if (words[0] == "memcached" && words.size() == 1) {
    command.add("incr c:", " 1\r\n");
    made.touch.add("set c:", " 0 0 1\r\n0\r\n");
    command.reply_lines = made.touch.reply_lines = 1;
    return made;
  }
  if (words[0] == "incr" && words.size() == 1) {
    add_resp(command, {"INCR", "KEY"}, "incr:", 1);
  } else if (words[0] == "incr_expire" && words.size() == 2) {
    add_resp(command, {"INCR", "KEY"}, "fixed:", 1);
    add_resp(command, {"EXPIRE", "KEY", words[1]}, "fixed:", 1);
  } else if (words[0] == "throttle" && words.size() == 4) {
    add_resp(command, {"CL.THROTTLE", "KEY", words[1], words[2], words[3], "1"}, "cell:", 6);
  } else if (words[0] == "take" && words.size() == 2) {
    add_resp(command, {"TALLY.TAKE", words[1], "KEY"}, "cell:", 7);
  } else if (words[0] == "evalsha" && words.size() >= 3) {
    std::vector<std::string> all{"EVALSHA", words[1], "1", "KEY"};
    all.insert(all.end(), words.begin() + 3, words.end());
    add_resp(command, all, words[1].substr(0, 6) + ":", std::atoi(words[2].c_str()));  // keys of its own for each script
  } else {
    fail("unknown kind " + words[0]);
  }
  made.touch = command;
  return made;
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
  Clock::time_point sent;  // or was to be, at a given rate
};

class Generator {
 public:
  Generator(const std::string& path, size_t connections, uint32_t pipeline, uint32_t keys, uint64_t seed, uint32_t rate, Commands commands)
      : commands_(std::move(commands)),
        pipeline_(pipeline),
        apart_(rate == 0 ? Clock::duration(0) : Clock::duration(std::chrono::seconds(1)) * pipeline / rate),
        keys_(keys),
        random_(seed),
        epoll_(epoll_create1(0)) {
    connections_.resize(connections);
    for (Connection& connection : connections_) connect_to(path, connection);
  }

  void touch_all_keys() {
    use(commands_.touch);
    next_key_ = 0;
    sequential_ = true;
    run([this] { return next_key_ < keys_; });
    sequential_ = false;
    use(commands_.command);
  }

  void measure(std::chrono::milliseconds length, int pid) {
    const Clock::time_point start = Clock::now(), end = start + length;
    const uint64_t cpu = cpu_us(pid), own = cpu_us(getpid());
    decisions_ = 0;
    batches_us_.clear();
    if (apart_ == Clock::duration(0))
      run([end] { return Clock::now() < end; });
    else
      offer(start, end);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    std::ranges::sort(batches_us_);
    const auto at = [this](double p) {
      return static_cast<double>(
          batches_us_[static_cast<size_t>(p * static_cast<double>(batches_us_.size() - 1))]);
    };
    std::printf("{\"decisions\":%" PRIu64 ",\"seconds\":%.4f,\"server_cpu_us\":%" PRIu64
                ",\"generator_cpu_us\":%" PRIu64
                ",\"batch_p50_us\":%.1f,\"batch_p99_us\":%.1f,\"batch_p999_us\":%.1f}\n",
                decisions_, seconds, cpu_us(pid) - cpu, cpu_us(getpid()) - own, at(0.5), at(0.99), at(0.999));
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

  // Each batch at its time, or as soon after it as a connection is free. Never sleeps: it has a core of its own.
  void offer(Clock::time_point start, Clock::time_point end) {
    std::vector<Connection*> free;
    for (Connection& connection : connections_) free.push_back(&connection);
    Clock::time_point due = start;
    epoll_event ready[64];
    while (due < end || free.size() < connections_.size()) {
      while (due < end && !free.empty() && Clock::now() >= due) {
        send_batch(*free.back());
        free.back()->sent = due;
        free.pop_back();
        due += apart_;
      }
      const int n = epoll_wait(epoll_, ready, 64, 0);
      for (int i = 0; i < n; ++i) {
        Connection& connection = *static_cast<Connection*>(ready[i].data.ptr);
        if (receive(connection)) free.push_back(&connection);
      }
      if (Clock::now() > end + std::chrono::seconds(5)) fail("no reply for 5 s");
    }
  }

  void use(const Command& command) {
    now_ = &command;
    batch_.clear();
    for (uint32_t i = 0; i < pipeline_; ++i) batch_ += command.bytes;
  }

  void send_batch(Connection& connection) {
    for (uint32_t i = 0; i < pipeline_; ++i) {
      const uint32_t key = sequential_ ? next_key_++ % keys_ : random_.below(keys_);
      for (const size_t at : now_->digits_at) {
        char* digits = batch_.data() + i * now_->bytes.size() + at;
        uint32_t rest = key;
        for (size_t d = kKeyDigits; d-- > 0; rest /= 10) digits[d] = static_cast<char>('0' + rest % 10);
      }
    }
    connection.lines_left = now_->reply_lines * static_cast<int>(pipeline_);
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

  const Commands commands_;
  const Command* now_ = nullptr;
  uint32_t pipeline_;
  Clock::duration apart_;  // of batches; 0: no rate is given
  uint32_t keys_;
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
  if (words.size() < 9) fail("SOCKET PID CONNECTIONS PIPELINE SECONDS KEYS SEED RATE KIND ...");
  const auto number = [&](size_t i) { return static_cast<uint32_t>(std::atoi(words[i].c_str())); };
  const uint32_t connections = number(2), pipeline = number(3), keys = number(5);
  if (connections == 0 || pipeline == 0 || pipeline > 1024 || keys == 0 || keys > kKeysMax)
    fail("a number is out of range");
  Generator generator(words[0], connections, pipeline, keys, number(6), number(7), commands_of({words.begin() + 8, words.end()}));
  generator.touch_all_keys();
  generator.measure(std::chrono::milliseconds(static_cast<int64_t>(std::atof(words[4].c_str()) * 1000)),
                    std::atoi(words[1].c_str()));
  return 0;
}
