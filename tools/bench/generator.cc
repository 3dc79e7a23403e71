// tally_generator: a load generator, the same for every server that it measures.
//
//   tally_generator [OPTION...] SOCKET PID CONNECTIONS PIPELINE SECONDS KEYS SEED RATE incr
//   ... incr_expire SECONDS              INCR and EXPIRE: one decision
//   ... throttle BURST COUNT PERIOD      CL.THROTTLE
//   ... take RULE...                     TALLY.TAKE; each connection has one of the rules, and so many times KEYS are counted
//   ... evalsha SHA LINES ARGUMENT...    EVALSHA with one key; a reply of so many lines
//   ... memcached                        incr in memcached's text protocol
//   ... http LINES TARGET                GET of a target that ends with the key, by HTTP/1.1; a reply of so many lines, without a body
//
// Each connection sends PIPELINE commands on random keys in one write and waits for all replies. With a RATE of 0 it sends the next
// then; else so many decisions a second are offered by all connections together, each batch has its time, and how long it took counts
// from that: a server that was late pays for what it held up.
// First every key is touched once, uncounted; then it counts for SECONDS and prints one line of JSON: decisions, seconds, the
// microseconds of CPU that process PID spent meanwhile (user and system) and of these the threads named worker-N, those of this process;
// the median, p99, p99.9 and longest time of a batch, and when there were batches above 1 ms, as pairs of CLOCK_MONOTONIC seconds (those that
// overlap are one stall).
// An error reply is the end: exit 1.
//
//   --zipf     the n-th key is asked for with 1/n of the frequency of the first; else all alike
//   --touched  the keys were touched already
//   --sleep    at a given rate: sleeps until the next batch is due, so that others may use its core; without, it never sleeps. What was due
//              or on its way while it got no processor for half a millisecond is left out of all times, and counted: batches_unseen
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
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "zipf.h"

namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "tally_generator: %s\n", what.c_str());
  std::exit(1);
}

constexpr size_t kKeyDigits = 8;
constexpr uint32_t kKeysMax = 100'000'000;
constexpr auto kStall = std::chrono::milliseconds(1);
constexpr auto kAway = std::chrono::microseconds(500);

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

// What is sent, by each connection one of the first, and before that each of the others once for each key.
struct Commands {
  std::vector<Command> commands, touches;
};

Commands commands_of(const std::vector<std::string>& words) {
  Commands made;
  Command& command = made.commands.emplace_back();
  if (words[0] == "memcached" && words.size() == 1) {
    command.add("incr c:", " 1\r\n");
    Command& touch = made.touches.emplace_back();
    touch.add("set c:", " 0 0 1\r\n0\r\n");
    command.reply_lines = touch.reply_lines = 1;
    return made;
  }
  if (words[0] == "http" && words.size() == 3) {
    command.add("GET " + words[2], " HTTP/1.1\r\nHost: x\r\n\r\n");
    command.reply_lines = std::atoi(words[1].c_str());
  } else if (words[0] == "incr" && words.size() == 1) {
    add_resp(command, {"INCR", "KEY"}, "incr:", 1);
  } else if (words[0] == "incr_expire" && words.size() == 2) {
    add_resp(command, {"INCR", "KEY"}, "fixed:", 1);
    add_resp(command, {"EXPIRE", "KEY", words[1]}, "fixed:", 1);
  } else if (words[0] == "throttle" && words.size() == 4) {
    add_resp(command, {"CL.THROTTLE", "KEY", words[1], words[2], words[3], "1"}, "cell:", 6);
  } else if (words[0] == "take" && words.size() >= 2) {
    made.commands.resize(words.size() - 1);
    for (size_t i = 0; i < made.commands.size(); ++i) add_resp(made.commands[i], {"TALLY.TAKE", words[i + 1], "KEY"}, "cell:", 7);
  } else if (words[0] == "evalsha" && words.size() >= 3) {
    std::vector<std::string> all{"EVALSHA", words[1], "1", "KEY"};
    all.insert(all.end(), words.begin() + 3, words.end());
    add_resp(command, all, words[1].substr(0, 6) + ":", std::atoi(words[2].c_str()));  // keys of its own for each script
  } else {
    fail("unknown kind " + words[0]);
  }
  made.touches = made.commands;
  return made;
}

class Random {  // xorshift64*: a few instructions a key
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15ULL | 1) {}
  uint32_t below(uint32_t n) {
    return static_cast<uint32_t>((next() >> 32) * n >> 32);
  }
  double unit() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

 private:
  uint64_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545F4914F6CDD1DULL;
  }
  uint64_t state_;
};

// User and system time, in microseconds.
struct Cpu {
  uint64_t all = 0, workers = 0;
};

Cpu cpu_of(int pid) {
  Cpu cpu;
  for (const auto& thread : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task")) {
    uint64_t ns = 0;
    std::string name;
    if (!(std::ifstream(thread.path() / "schedstat") >> ns)) fail("no times of " + thread.path().string());
    std::getline(std::ifstream(thread.path() / "comm"), name);
    cpu.all += ns / 1000;
    if (name.starts_with("worker-")) cpu.workers += ns / 1000;
  }
  return cpu;
}

struct Options {
  bool zipf = false, touched = false, sleep = false;
};
const std::map<std::string, bool Options::*> kOptions{{"--zipf", &Options::zipf}, {"--touched", &Options::touched}, {"--sleep", &Options::sleep}};

struct Connection {
  int fd = -1;
  size_t command = 0;    // which of them it sends
  int lines_left = 0;    // of the batch's replies
  bool at_start = true;  // of a line
  Clock::time_point sent;  // or was to be, at a given rate
};

class Generator {
 public:
  Generator(const std::string& path, size_t connections, uint32_t pipeline, uint32_t keys, uint64_t seed, uint32_t rate, Commands commands,
            Options options)
      : commands_(std::move(commands)),
        options_(options),
        pipeline_(pipeline),
        apart_(rate == 0 ? Clock::duration(0) : Clock::duration(std::chrono::seconds(1)) * pipeline / rate),
        keys_(keys),
        zipf_(keys),
        random_(seed),
        epoll_(epoll_create1(0)) {
    connections_.resize(connections);
    for (size_t i = 0; i < connections; ++i) {
      connections_[i].command = i % commands_.commands.size();
      connect_to(path, connections_[i]);
    }
    for (const Command& command : commands_.commands) batches_.push_back({&command, repeated(command)});
  }

  void touch_all_keys() {
    for (const Command& command : commands_.touches) {
      Batch touch{&command, repeated(command)};
      touching_ = &touch;
      next_key_ = 0;
      run([this] { return next_key_ < keys_; });
      touching_ = nullptr;
    }
  }

  void measure(std::chrono::milliseconds length, int pid) {
    const Clock::time_point start = Clock::now(), end = start + length;
    const Cpu cpu = cpu_of(pid), own = cpu_of(getpid());
    decisions_ = unseen_ = 0;
    stalls_.clear();
    batches_us_.clear();
    if (apart_ == Clock::duration(0))
      run([end] { return Clock::now() < end; });
    else
      offer(start, end);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    if (batches_us_.empty()) fail("no batch was seen");
    std::ranges::sort(batches_us_);
    const auto at = [this](double p) {
      return static_cast<double>(
          batches_us_[static_cast<size_t>(p * static_cast<double>(batches_us_.size() - 1))]);
    };
    const Cpu spent = cpu_of(pid);
    std::printf("{\"decisions\":%" PRIu64 ",\"seconds\":%.4f,\"server_cpu_us\":%" PRIu64 ",\"workers_cpu_us\":%" PRIu64
                ",\"generator_cpu_us\":%" PRIu64
                ",\"batch_p50_us\":%.1f,\"batch_p99_us\":%.1f,\"batch_p999_us\":%.1f,\"batch_max_us\":%.1f,\"batches_unseen\":%" PRIu64 ",\"stalls\":[",
                decisions_, seconds, spent.all - cpu.all, spent.workers - cpu.workers, cpu_of(getpid()).all - own.all, at(0.5), at(0.99),
                at(0.999), at(1), unseen_);
    const auto s = [](Clock::time_point when) { return std::chrono::duration<double>(when.time_since_epoch()).count(); };
    for (size_t i = 0; i < stalls_.size(); ++i) std::printf("%s[%.6f,%.6f]", i == 0 ? "" : ",", s(stalls_[i].from), s(stalls_[i].until));
    std::printf("]}\n");
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

  // Each batch at its time, or as soon after it as a connection is free.
  void offer(Clock::time_point start, Clock::time_point end) {
    std::vector<Connection*> free;
    for (Connection& connection : connections_) free.push_back(&connection);
    Clock::time_point due = start;
    epoll_event ready[64];
    while (due < end || free.size() < connections_.size()) {
      if (options_.sleep && !free.empty() && Clock::now() > due + kAway) away_until_ = Clock::now();
      while (due < end && !free.empty() && Clock::now() >= due) {
        send_batch(*free.back());
        free.back()->sent = due;
        free.pop_back();
        due += apart_;
      }
      const int n = options_.sleep ? sleep_until(free.empty() ? end : due, ready) : epoll_wait(epoll_, ready, 64, 0);
      for (int i = 0; i < n; ++i) {
        Connection& connection = *static_cast<Connection*>(ready[i].data.ptr);
        if (receive(connection)) free.push_back(&connection);
      }
      if (Clock::now() > end + std::chrono::seconds(5)) fail("no reply for 5 s");
    }
  }

  int sleep_until(Clock::time_point due, epoll_event (&ready)[64]) const {
    const auto left = std::max(Clock::duration(0), due - Clock::now());
    const auto seconds = std::chrono::floor<std::chrono::seconds>(left);
    const timespec timeout{seconds.count(), (left - seconds).count()};
    return epoll_pwait2(epoll_, ready, 64, &timeout, nullptr);
  }

  std::string repeated(const Command& command) const {
    std::string bytes;
    for (uint32_t i = 0; i < pipeline_; ++i) bytes += command.bytes;
    return bytes;
  }

  uint32_t next_key() {
    if (touching_ != nullptr) return next_key_++ % keys_;
    return options_.zipf ? zipf_.draw([this] { return random_.unit(); }) - 1 : random_.below(keys_);
  }

  void send_batch(Connection& connection) {
    auto& [command, bytes] = touching_ != nullptr ? *touching_ : batches_[connection.command];
    for (uint32_t i = 0; i < pipeline_; ++i) {
      const uint32_t key = next_key();
      for (const size_t at : command->digits_at) {
        char* digits = bytes.data() + i * command->bytes.size() + at;
        uint32_t rest = key;
        for (size_t d = kKeyDigits; d-- > 0; rest /= 10) digits[d] = static_cast<char>('0' + rest % 10);
      }
    }
    connection.lines_left = command->reply_lines * static_cast<int>(pipeline_);
    connection.sent = Clock::now();
    for (size_t done = 0; done < bytes.size();) {
      const ssize_t n = send(connection.fd, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
      if (n < 0 && errno != EINTR) fail(std::string("send: ") + std::strerror(errno));
      if (n > 0) done += static_cast<size_t>(n);
    }
  }

  // A status line with another status than 2xx.
  static bool is_http_failure(const char* at, const char* end) {
    constexpr std::string_view kStatus = "HTTP/1.1 ";
    const std::string_view line(at, static_cast<size_t>(end - at));
    return line.size() > kStatus.size() && line.starts_with(kStatus) && line[kStatus.size()] != '2';
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
      if (connection.at_start && (*at == '-' || is_http_failure(at, end)))
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
    const Clock::time_point now = Clock::now();
    if (connection.sent < away_until_) {
      ++unseen_;
      return true;
    }
    batches_us_.push_back(std::chrono::duration<float, std::micro>(now - connection.sent).count());
    if (now - connection.sent > kStall) {
      if (stalls_.empty() || connection.sent > stalls_.back().until) stalls_.push_back({connection.sent, now});
      stalls_.back().until = now;
    }
    return true;
  }

  struct Stall {
    Clock::time_point from, until;
  };
  struct Batch {
    const Command* command;
    std::string bytes;  // as often as the pipeline is long; rewritten for each batch: the kernel has its copy
  };

  const Commands commands_;
  const Options options_;
  uint32_t pipeline_;
  Clock::duration apart_;  // of batches; 0: no rate is given
  uint32_t keys_;
  const tally::bench::Zipf zipf_;
  Random random_;
  int epoll_;
  std::vector<Connection> connections_;
  std::vector<Batch> batches_;  // by command
  Batch* touching_ = nullptr;   // every key once, in order, by this
  uint32_t next_key_ = 0;
  uint64_t decisions_ = 0;
  std::vector<Stall> stalls_;
  Clock::time_point away_until_{};  // this process got no processor
  uint64_t unseen_ = 0;
  std::vector<float> batches_us_;
};

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  Options options;
  while (!words.empty() && words[0].starts_with("--")) {
    const auto option = kOptions.find(words[0]);
    if (option == kOptions.end()) fail("unknown option " + words[0]);
    options.*option->second = true;
    words.erase(words.begin());
  }
  if (words.size() < 9) fail("SOCKET PID CONNECTIONS PIPELINE SECONDS KEYS SEED RATE KIND ...");
  const auto number = [&](size_t i) { return static_cast<uint32_t>(std::atoi(words[i].c_str())); };
  const uint32_t connections = number(2), pipeline = number(3), keys = number(5);
  if (connections == 0 || pipeline == 0 || pipeline > 1024 || keys == 0 || keys > kKeysMax) fail("a number is out of range");
  Generator generator(words[0], connections, pipeline, keys, number(6), number(7), commands_of({words.begin() + 8, words.end()}), options);
  if (!options.touched) generator.touch_all_keys();
  generator.measure(std::chrono::milliseconds(static_cast<int64_t>(std::atof(words[4].c_str()) * 1000)), std::atoi(words[1].c_str()));
  return 0;
}
