// tally_load: sends requests to daemons (and to Redis, for comparison) at planned moments and counts the
// answers.
//
// Reads commands from standard input, one a line, words without spaces:
//   open NAME PATH                                    connect NAME to a Unix socket
//   shot OFFSET_US GROUP/TAG NAME COUNT DEPTH take RULE KEY [COST]
//   shot OFFSET_US GROUP/TAG NAME COUNT DEPTH throttle KEY BURST COUNT PERIOD
//   shot OFFSET_US GROUP/TAG NAME COUNT DEPTH incr KEY LIMIT SECONDS
//                                                     plan COUNT requests; DEPTH at most in flight of this
//                                                     shot, 0: all at once. incr is INCR and EXPIRE in one
//                                                     write, admitted while <= LIMIT
//   kill OFFSET_US PID                                plan a kill -9
//   run TIMEOUT_MS                                    do all that was planned, wait for the answers, forget
//   the plan
// open and run answer with one line of JSON; end of input ends the program. A plan that makes no sense is
// exit 64.
//
// One thread, one epoll descriptor and a timer, so that requests to many nodes leave within microseconds of
// each other; an orchestrating script would be late by milliseconds there, and the times in between are what
// is being measured.
#include <fcntl.h>
#include <signal.h>
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
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "reply.h"

namespace tally::tools {
namespace {

using Clock = std::chrono::steady_clock;
using Time = Clock::time_point;
using Microseconds = std::chrono::microseconds;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "tally_load: %s\n", what.c_str());
  std::exit(64);
}

int64_t wall_us() {
  return std::chrono::duration_cast<Microseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// What became of the requests of one tag.
struct Flow {
  uint64_t offered = 0, admitted = 0, limited = 0, errors = 0;
  uint64_t lost = 0;    // sent, no answer: the connection broke or the time was up
  uint64_t unsent = 0;  // the connection was gone before
  std::vector<uint64_t> reasons = std::vector<uint64_t>(8);
  std::string first_error;
  std::vector<float> latency_us;
};

struct Shot {
  enum class Kind : uint8_t { take, incr } kind = Kind::take;  // how to read the answers
  std::string flow, connection;
  uint64_t count = 0, depth = 0, sent = 0;
  std::string bytes;  // one request
  int64_t limit = 0;  // incr
};

struct Event {
  Microseconds offset{0};
  int pid = 0;      // kill, where not 0
  size_t shot = 0;  // else this shot
};

struct Pending {
  size_t shot;
  Time sent;
  int replies;  // still to come; the first one decides
};

struct Connection {
  std::string name;
  int fd = -1;  // -1: broken
  std::string in, out;
  size_t out_done = 0;
  bool wants_write = false;
  std::deque<Pending> pending;
};

std::string command(const std::vector<std::string>& words) {
  std::string out = "*" + std::to_string(words.size()) + "\r\n";
  for (const std::string& word : words) out += "$" + std::to_string(word.size()) + "\r\n" + word + "\r\n";
  return out;
}

std::string json_text(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return out + "\"";
}

class Driver {
 public:
  Driver() : epoll_(epoll_create1(EPOLL_CLOEXEC)), timer_(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC)) {
    if (epoll_ < 0 || timer_ < 0) fail("no epoll or timer descriptor");
    watch(timer_, EPOLLIN, nullptr, EPOLL_CTL_ADD);
  }

  void open(const std::string& name, const std::string& path) {
    const std::string problem = connect_to(name, path);
    if (problem.empty())
      std::printf("{\"ok\":true}\n");
    else
      std::printf("{\"error\":%s}\n", json_text(path + ": " + problem).c_str());
    std::fflush(stdout);
  }

  void plan(Microseconds offset, Shot shot) {
    if (!connections_.contains(shot.connection)) fail("no connection " + shot.connection);
    flows_[shot.flow].offered += shot.count;
    events_.push_back({offset, 0, shots_.size()});
    shots_.push_back(std::move(shot));
  }
  void plan_kill(Microseconds offset, int pid) { events_.push_back({offset, pid, 0}); }

  void run(std::chrono::milliseconds timeout) {
    std::ranges::stable_sort(events_, {}, &Event::offset);
    const Time start = Clock::now() + std::chrono::milliseconds(2);
    const Time deadline = start + timeout;
    const int64_t wall_start = wall_us();
    size_t next = 0;
    late_max_ = Clock::duration(0);
    for (Time now = Clock::now(); now < deadline; now = Clock::now()) {
      for (; next < events_.size() && start + events_[next].offset <= now; ++next)
        fire(events_[next], start, now);
      for (auto& [name, connection] : connections_) flush(*connection);
      if (next == events_.size() && in_flight_ == 0) break;
      wait_until(next < events_.size() ? std::min(deadline, start + events_[next].offset) : deadline);
    }
    for (; next < events_.size(); ++next)
      if (events_[next].pid == 0)
        flows_[shots_[events_[next].shot].flow].unsent += shots_[events_[next].shot].count;
    for (auto& [name, connection] : connections_)
      if (!connection->pending.empty()) break_off(*connection);
    report(wall_start);
    events_.clear();
    shots_.clear();
    flows_.clear();
  }

 private:
  void watch(int fd, uint32_t events, Connection* connection, int operation) {
    epoll_event event{};
    event.events = events;
    event.data.ptr = connection;
    if (epoll_ctl(epoll_, operation, fd, &event) != 0)
      fail("epoll_ctl: " + std::string(std::strerror(errno)));
  }

  std::string connect_to(const std::string& name, const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof(address.sun_path)) return "path too long";
    std::memcpy(address.sun_path, path.c_str(), path.size());
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return std::strerror(errno);
    if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
      const std::string problem = std::strerror(errno);
      close(fd);
      return problem;
    }
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    auto& slot = connections_[name];
    if (slot && slot->fd >= 0) close(slot->fd);
    slot = std::make_unique<Connection>();
    slot->name = name;
    slot->fd = fd;
    watch(fd, EPOLLIN, slot.get(), EPOLL_CTL_ADD);
    return "";
  }

  void fire(const Event& event, Time start, Time now) {
    if (event.pid != 0) {
      ::kill(event.pid, SIGKILL);
      return;
    }
    late_max_ = std::max(late_max_, now - (start + event.offset));
    Shot& shot = shots_[event.shot];
    const uint64_t at_once = shot.depth == 0 ? shot.count : std::min(shot.depth, shot.count);
    for (uint64_t i = 0; i < at_once; ++i) send(event.shot);
  }

  void send(size_t shot_index) {
    Shot& shot = shots_[shot_index];
    Connection& connection = *connections_[shot.connection];
    if (connection.fd < 0) {
      flows_[shot.flow].unsent += shot.count - shot.sent;
      shot.sent = shot.count;
      return;
    }
    if (shot.sent == shot.count) return;
    ++shot.sent;
    connection.out += shot.bytes;
    connection.pending.push_back({shot_index, Clock::now(), shot.kind == Shot::Kind::incr ? 2 : 1});
    ++in_flight_;
  }

  void flush(Connection& connection) {
    while (connection.fd >= 0 && connection.out_done < connection.out.size()) {
      const ssize_t n = ::send(connection.fd, connection.out.data() + connection.out_done,
                               connection.out.size() - connection.out_done, MSG_NOSIGNAL);
      if (n > 0) {
        connection.out_done += static_cast<size_t>(n);
      } else if (n < 0 && errno == EINTR) {
        continue;
      } else if (n < 0 && errno == EAGAIN) {
        if (!connection.wants_write) watch(connection.fd, EPOLLIN | EPOLLOUT, &connection, EPOLL_CTL_MOD);
        connection.wants_write = true;
        return;
      } else {
        break_off(connection);
        return;
      }
    }
    if (connection.fd < 0) return;
    connection.out.clear();
    connection.out_done = 0;
    if (connection.wants_write) watch(connection.fd, EPOLLIN, &connection, EPOLL_CTL_MOD);
    connection.wants_write = false;
  }

  void wait_until(Time until) {
    const auto left = std::max<int64_t>(1, (until - Clock::now()).count());
    itimerspec spec{};
    spec.it_value = {left / 1'000'000'000, left % 1'000'000'000};
    timerfd_settime(timer_, 0, &spec, nullptr);
    epoll_event ready[64];
    const int n = epoll_wait(epoll_, ready, 64, -1);
    for (int i = 0; i < n; ++i) {
      if (ready[i].data.ptr == nullptr) {
        uint64_t ticks = 0;
        if (read(timer_, &ticks, sizeof(ticks)) < 0) continue;  // rearmed in between: nothing to read
      } else if (auto& connection = *static_cast<Connection*>(ready[i].data.ptr); connection.fd >= 0) {
        receive(connection);
      }
    }
  }

  void receive(Connection& connection) {
    char bytes[65536];
    const ssize_t n = recv(connection.fd, bytes, sizeof(bytes), 0);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (n <= 0) return break_off(connection);
    connection.in.append(bytes, static_cast<size_t>(n));
    const Time now = Clock::now();
    std::string_view rest = connection.in;
    while (!rest.empty()) {
      const Reply reply = read_reply(rest);
      if (reply.malformed || (reply.consumed > 0 && connection.pending.empty())) return break_off(connection);
      if (reply.consumed == 0) break;
      answer(connection, reply, now);
      rest.remove_prefix(reply.consumed);
    }
    connection.in.erase(0, connection.in.size() - rest.size());
  }

  void answer(Connection& connection, const Reply& reply, Time now) {
    Pending& pending = connection.pending.front();
    const size_t shot_index = pending.shot;
    Shot& shot = shots_[shot_index];
    Flow& flow = flows_[shot.flow];
    const bool decides = shot.kind == Shot::Kind::take || pending.replies == 2;
    if (reply.error || reply.count == 0) {
      ++flow.errors;
      if (flow.first_error.empty()) flow.first_error = reply.text;
    } else if (decides) {
      const bool limited =
          shot.kind == Shot::Kind::incr ? reply.values[0] > shot.limit : reply.values[0] != 0;
      ++(limited ? flow.limited : flow.admitted);
      if (reply.count >= 6) ++flow.reasons[static_cast<size_t>(std::clamp<int64_t>(reply.values[5], 0, 7))];
    }
    if (--pending.replies > 0) return;
    flow.latency_us.push_back(std::chrono::duration<float, std::micro>(now - pending.sent).count());
    connection.pending.pop_front();
    --in_flight_;
    if (shot.depth != 0) send(shot_index);
  }

  void break_off(Connection& connection) {
    if (connection.fd < 0) return;
    close(connection.fd);
    connection.fd = -1;
    for (const Pending& pending : connection.pending) {
      Shot& shot = shots_[pending.shot];
      Flow& flow = flows_[shot.flow];
      ++flow.lost;
      --in_flight_;
      if (shot.depth != 0) {  // what it would have sent next
        flow.unsent += shot.count - shot.sent;
        shot.sent = shot.count;
      }
    }
    connection.pending.clear();
  }

  static void print_latency(std::vector<float>& us) {
    std::ranges::sort(us);
    const auto at = [&](double p) {
      return us.empty() ? 0.0F : us[static_cast<size_t>(p * static_cast<double>(us.size() - 1))];
    };
    std::printf("\"answers\":%zu,\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f", us.size(),
                static_cast<double>(at(0.5)), static_cast<double>(at(0.99)), static_cast<double>(at(1.0)));
  }

  void report(int64_t wall_start) {
    std::map<std::string, std::vector<float>> groups;
    std::printf("{\"start_us\":%" PRId64 ",\"end_us\":%" PRId64 ",\"late_us\":%.1f,\"flows\":{", wall_start,
                wall_us(), std::chrono::duration<double, std::micro>(late_max_).count());
    const char* separator = "";
    for (auto& [name, flow] : flows_) {
      std::printf("%s%s:{\"offered\":%" PRIu64 ",\"admitted\":%" PRIu64 ",\"limited\":%" PRIu64
                  ",\"errors\":%" PRIu64 ",\"lost\":%" PRIu64 ",\"unsent\":%" PRIu64
                  ",\"first_error\":%s,\"reasons\":[",
                  separator, json_text(name).c_str(), flow.offered, flow.admitted, flow.limited, flow.errors,
                  flow.lost, flow.unsent, json_text(flow.first_error).c_str());
      for (size_t i = 0; i < flow.reasons.size(); ++i)
        std::printf("%s%" PRIu64, i == 0 ? "" : ",", flow.reasons[i]);
      std::printf("],");
      auto& group = groups[name.substr(0, name.find('/'))];
      group.insert(group.end(), flow.latency_us.begin(), flow.latency_us.end());
      print_latency(flow.latency_us);
      std::printf("}");
      separator = ",";
    }
    std::printf("},\"groups\":{");
    separator = "";
    for (auto& [name, latency] : groups) {
      std::printf("%s%s:{", separator, json_text(name).c_str());
      print_latency(latency);
      std::printf("}");
      separator = ",";
    }
    std::printf("}}\n");
    std::fflush(stdout);
  }

  int epoll_, timer_;
  std::map<std::string, std::unique_ptr<Connection>> connections_;
  std::vector<Event> events_;
  std::vector<Shot> shots_;
  std::map<std::string, Flow> flows_;
  uint64_t in_flight_ = 0;
  Clock::duration late_max_{0};
};

// The rest of a shot's line: what to ask, and how to read the answer.
void read_request(std::istringstream& in, const std::string& line, Shot& shot) {
  std::string kind, word;
  in >> kind;
  std::vector<std::string> words;
  while (in >> word) words.push_back(word);
  if (kind == "take" && (words.size() == 2 || words.size() == 3)) {
    words.insert(words.begin(), "TALLY.TAKE");
    shot.bytes = command(words);
  } else if (kind == "throttle" && words.size() == 4) {
    words.insert(words.begin(), "CL.THROTTLE");
    shot.bytes = command(words);
  } else if (kind == "incr" && words.size() == 3) {
    shot.kind = Shot::Kind::incr;
    shot.limit = std::atoll(words[1].c_str());
    shot.bytes = command({"INCR", words[0]}) + command({"EXPIRE", words[0], words[2], "NX"});
  } else {
    fail("cannot read: " + line);
  }
}

void read_command(Driver& driver, const std::string& line) {
  std::istringstream in(line);
  std::string verb, first, second;
  int64_t number = 0;
  in >> verb;
  if (verb == "open" && in >> first >> second) {
    driver.open(first, second);
  } else if (verb == "kill" && in >> number >> second) {
    driver.plan_kill(Microseconds(number), std::atoi(second.c_str()));
  } else if (verb == "run" && in >> number) {
    driver.run(std::chrono::milliseconds(number));
  } else if (Shot shot;
             verb == "shot" && in >> number >> shot.flow >> shot.connection >> shot.count >> shot.depth) {
    read_request(in, line, shot);
    driver.plan(Microseconds(number), std::move(shot));
  } else if (!verb.empty()) {
    fail("cannot read: " + line);
  }
}

}  // namespace
}  // namespace tally::tools

int main() {
  tally::tools::Driver driver;
  std::ios::sync_with_stdio(false);
  for (std::string line; std::getline(std::cin, line);) tally::tools::read_command(driver, line);
  return 0;
}
