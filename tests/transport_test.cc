// Which way two ends choose, in virtual time: the network between them is blocked and freed by direction and protocol.
#include "daemon/transport.h"

#include <array>
#include <functional>
#include <optional>

#include "base/random.h"
#include "doctest/doctest.h"

using namespace tally;
using namespace std::chrono_literals;
using Line = Transport::Line;

namespace {

constexpr Duration kStep = 100ms;

// Two ends that always have something to say to each other. A connection carries both directions, whoever opened it.
class Pair {
 public:
  struct Way {
    bool udp = true;
    double loss = 0;  // of UDP
  };
  std::array<Way, 2> ways{};           // from end 0 to 1, and back
  bool tcp_passes = true;
  std::array<bool, 2> may_dial{true, true};
  std::array<bool, 2> alive{true, true};
  Duration said_every = 100ms;
  Duration patience = Transport::kUdpSilent;
  MonoTime now{100s};
  Random dice{7};

  std::array<Transport, 2> ends{};
  std::array<int, 2> switches{}, dials{};
  std::array<int, 2> arrived{}, sent{};  // of what the ends have to say
  bool connected = false;

  bool both(bool tcp) const { return ends[0].tcp() == tcp && ends[1].tcp() == tcp; }

  void run(Duration d) { (void)until([] { return false; }, d); }
  // Returns how long it took.
  std::optional<Duration> until(const std::function<bool()>& done, Duration most) {
    for (const MonoTime begin = now; now - begin < most; now += kStep) {
      if (done()) return now - begin;
      step();
    }
    return std::nullopt;
  }

 private:
  bool by_udp(int from) {
    const int to = 1 - from;
    if (!alive[to] || !ways[from].udp || dice.chance(ways[from].loss)) return false;
    ends[to].heard_udp(now);
    return true;
  }
  bool by_tcp(int from) {
    if (!connected) return false;
    ends[1 - from].heard_tcp(now);
    return true;
  }
  void step() {
    const bool says = now.time_since_epoch() % said_every == Duration(0);
    for (int from : {0, 1}) {
      if (!alive[from]) continue;
      if (says) {
        ends[from].said(now);
        ++sent[from];
        arrived[from] += ends[from].tcp() ? by_tcp(from) : by_udp(from);
      }
      const bool before = ends[from].tcp();
      const auto due = ends[from].look(now, connected ? Line::open : Line::none, patience, dice.unit());
      switches[from] += before != ends[from].tcp();
      if (due.dial) {
        ++dials[from];
        connected = tcp_passes && may_dial[from] && alive[1 - from];
      }
      if (due.close) connected = false;
      if (due.knock_udp) (void)by_udp(from);
      if (due.knock_tcp) (void)by_tcp(from);
      if (due.tell_heard && connected) ends[1 - from].told_heard(now);
    }
  }
};

}  // namespace

TEST_CASE("as long as UDP passes nobody dials") {
  Pair pair;
  pair.run(10min);
  CHECK(pair.dials == std::array{0, 0});
  CHECK(pair.both(false));
}

TEST_CASE("where UDP is lost in both directions both use TCP within seconds, and UDP once it passes again") {
  Pair pair;
  pair.run(1min);
  pair.ways = {{{false}, {false}}};
  const auto took = pair.until([&] { return pair.both(true); }, 1min);
  REQUIRE(took);
  CHECK(*took <= Transport::kUdpSilent + 500ms);
  pair.run(10min);
  CHECK(pair.both(true));
  CHECK(pair.switches[0] + pair.switches[1] <= 2);
  pair.ways = {};
  const auto back = pair.until([&] { return pair.both(false); }, 1min);
  REQUIRE(back);
  CHECK(*back <= Transport::kSteady + 3s);
  REQUIRE(pair.until([&] { return !pair.connected; }, 1min));
  pair.run(10min);
  CHECK_FALSE(pair.connected);
  CHECK(pair.both(false));
}

TEST_CASE("where one direction alone is lost, both use TCP and stay there, whichever it is") {
  for (const int blocked : {0, 1}) {
    Pair pair;
    pair.run(1min);
    pair.ways[static_cast<size_t>(blocked)].udp = false;
    REQUIRE(pair.until([&] { return pair.both(true); }, 10s));
    pair.switches = pair.arrived = pair.sent = {};
    pair.run(30min);
    CHECK(pair.both(true));
    CHECK(pair.switches == std::array{0, 0});
    CHECK(pair.arrived == pair.sent);
    pair.ways = {};
    REQUIRE(pair.until([&] { return pair.both(false) && !pair.connected; }, 1min));
    pair.run(10min);
    CHECK(pair.switches == std::array{1, 1});
  }
}

TEST_CASE("who cannot dial, a guest's aggregator, answers on the connection of who can") {
  for (const int blocked : {0, 1}) {
    Pair pair;
    pair.may_dial = {true, false};
    pair.ways[static_cast<size_t>(blocked)].udp = false;
    if (blocked == 0) {  // the aggregator has nothing to say to whom it does not hear: the guest would hear nothing
      pair.ways[1].udp = false;
      REQUIRE(pair.until([&] { return pair.both(true); }, 10s));
      pair.ways[1].udp = true;
    }
    REQUIRE(pair.until([&] { return pair.both(true); }, 10s));
    pair.switches = {};
    pair.run(10min);
    CHECK(pair.both(true));
    CHECK(pair.switches == std::array{0, 0});
  }
}

TEST_CASE("where nobody is there, dials are few and nothing changes") {
  Pair pair;
  pair.alive[1] = false;
  pair.run(10min);
  CHECK_FALSE(pair.ends[0].tcp());
  CHECK(pair.dials[0] >= 30);
  CHECK(pair.dials[0] <= 130);
  pair.alive[1] = true;
  pair.run(1min);
  CHECK(pair.both(false));
}

TEST_CASE("somebody else who accepts connections and says nothing is left, and UDP is used as soon as it is heard") {
  Transport one;
  MonoTime now{100s};
  Line line = Line::none;
  int open = 0, steps = 0;
  for (; now < MonoTime{400s}; now += kStep, ++steps) {
    one.said(now);
    const auto due = one.look(now, line, Transport::kUdpSilent, 0.5);
    if (due.dial) line = Line::open;
    if (due.close) line = Line::none;
    open += line == Line::open;
  }
  CHECK(open > steps / 10);
  CHECK(open < steps * 2 / 3);
  for (const MonoTime end = now + 6s; now < end; now += kStep) {
    one.heard_udp(now);
    if (one.look(now, line, Transport::kUdpSilent, 0.5).close) line = Line::none;
  }
  CHECK_FALSE(one.tcp());
  for (const MonoTime end = now + 1min; now < end; now += kStep) {
    one.heard_udp(now);
    CHECK_FALSE(one.look(now, line, Transport::kUdpSilent, 0.5).dial);
  }
}

TEST_CASE("a connection that breaks is opened again, and one that a dead peer left is noticed") {
  Pair pair;
  pair.ways = {{{false}, {false}}};
  REQUIRE(pair.until([&] { return pair.both(true); }, 10s));
  pair.connected = false;
  pair.run(kStep);
  CHECK(pair.both(false));
  REQUIRE(pair.until([&] { return pair.both(true); }, 10s));
  pair.alive[1] = false;
  REQUIRE(pair.until([&] { return !pair.ends[0].tcp(); }, 10s));
}

TEST_CASE("UDP that passes now and then is trusted less and less") {
  Pair pair;
  for (int i = 0; i < 200; ++i) {  // ten seconds of each
    pair.ways = {{{false}, {i % 2 == 0}}};
    pair.run(10s);
    pair.ways = {};
    pair.run(10s);
  }
  CHECK(pair.switches[0] <= 24);
  CHECK(pair.switches[1] <= 24);
}

TEST_CASE("a loss of one in ten keeps UDP, and a loss of nearly all does not flap") {
  Pair pair;
  pair.ways = {{{true, 0.1}, {true, 0.1}}};
  pair.run(30min);
  CHECK(pair.dials == std::array{0, 0});
  pair.ways = {{{true, 0.97}, {true, 0.97}}};
  pair.run(30min);
  CHECK(pair.switches[0] <= 12);
  CHECK(pair.switches[1] <= 12);
}

TEST_CASE("peers that speak seldom are not taken for blocked, and a lingering connection does not make them so") {
  Pair pair;
  pair.said_every = 20s;
  pair.patience = 30s;
  pair.run(10min);
  CHECK(pair.dials == std::array{0, 0});
  pair.ways = {{{false}, {false}}};
  REQUIRE(pair.until([&] { return pair.both(true); }, 2min));
  pair.ways = {};
  REQUIRE(pair.until([&] { return pair.both(false) && !pair.connected; }, 2min));
  pair.switches = {};
  pair.run(10min);
  CHECK(pair.switches == std::array{0, 0});
}
