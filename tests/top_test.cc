// Which keys are asked for most: spans of time, workers together, and what of a service's work counts.
#include "daemon/top.h"

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "doctest/doctest.h"
#include "service_fixture.h"

using namespace tally;
using namespace tally::test;

namespace {

using Kind = TopKeys::Event::Kind;

// Two workers that did nothing yet; the daemon began at 1,000 s, where a span does.
struct Two {
  void count(size_t worker, std::string_view rule, std::string_view key, Kind kind, Duration since,
             uint64_t n = 1) {
    const Rule& by = *rules->find(rule);
    TopKeys& top = overview.workers[worker]->top;
    top.tick(begun + since);
    REQUIRE(top.due());
    top.count({by.id, key, limiter.hash(by, key), kind, n}, begun + since);
  }
  Call ask(Duration since, uint32_t n = 10, std::string_view rule = {}) {
    Call call;
    call.kind = Call::Kind::top;
    call.n = n;
    call.rule = rule.empty() ? nullptr : rules->find(rule);
    answer_top(call, overview, begun + since);
    return call;
  }
  // "key admitted limited rule", one a line.
  static std::string text(const Call& call) {
    std::string text;
    for (const resp::TopRow& row : call.top)
      text += row.key + " " + std::to_string(row.admitted) + " " + std::to_string(row.limited) + " " +
              row.rule + "\n";
    return text;
  }

  MonoTime begun{secs(1'000)};
  std::shared_ptr<const RuleSet> rules =
      std::make_shared<const RuleSet>(usual_rules(), Rule{}, Share{0, 1}, kPublicIdKey);
  SlotTable slots{1000, seed(), false};
  Limiter limiter{slots, false};
  Overview overview{"node", rules, limiter, 2, begun};
};

TEST_CASE("workers are added up, the busiest come first, and rules are told apart") {
  Two two;
  two.count(0, "wide", "a", Kind::admitted, secs(1));
  two.count(1, "wide", "a", Kind::limited, secs(1));
  two.count(1, "slow", "a", Kind::limited, secs(1), 7);
  two.count(0, "wide", "b", Kind::admitted, secs(2), 3);
  CHECK(Two::text(two.ask(secs(3))) == "a 0 7 slow\nb 3 0 wide\na 1 1 wide\n");
  CHECK(Two::text(two.ask(secs(3), 2)) == "a 0 7 slow\nb 3 0 wide\n");
  CHECK(Two::text(two.ask(secs(3), 10, "wide")) == "b 3 0 wide\na 1 1 wide\n");
  CHECK(two.ask(secs(3), 10, "never").top.empty());
}

TEST_CASE("what is told of is the running span of 10 s and the one before, of all workers alike") {
  Two two;
  two.count(0, "wide", "a", Kind::admitted, secs(1));
  two.count(1, "wide", "b", Kind::admitted, secs(12), 2);  // the other worker has not counted since
  CHECK(Two::text(two.ask(secs(9))) == "b 2 0 wide\na 1 0 wide\n");
  CHECK(Two::text(two.ask(ms(19'999))) == "b 2 0 wide\na 1 0 wide\n");
  CHECK(Two::text(two.ask(secs(20))) == "b 2 0 wide\n");
  two.count(0, "wide", "c", Kind::admitted, secs(25));
  CHECK(Two::text(two.ask(secs(25))) == "b 2 0 wide\nc 1 0 wide\n");
  CHECK(Two::text(two.ask(secs(30))) == "c 1 0 wide\n");
  CHECK(two.ask(secs(40)).top.empty());
  two.count(0, "wide", "d", Kind::admitted, secs(41));  // in the place where c was
  CHECK(Two::text(two.ask(secs(41))) == "d 1 0 wide\n");
}

TEST_CASE("the span that is covered begins with the daemon, or with the span before the running one") {
  Two two;
  CHECK(two.ask(secs(3)).top_span == secs(3));
  CHECK(two.ask(secs(15)).top_span == secs(15));
  CHECK(two.ask(ms(19'999)).top_span == ms(19'999));
  CHECK(two.ask(secs(20)).top_span == secs(10));
  CHECK(two.ask(secs(1'005)).top_span == secs(15));
}

TEST_CASE("what processes put back counts no more") {
  Two two;
  two.count(0, "wide", "k", Kind::admitted, secs(1), 100);
  two.count(0, "wide", "k", Kind::put_back, secs(2), 40);
  CHECK(Two::text(two.ask(secs(3))) == "k 60 0 wide\n");
  two.count(0, "wide", "k", Kind::put_back, secs(3), 60);
  CHECK(two.ask(secs(4)).top.empty());
}

TEST_CASE("a sample stands for as many as it was taken of") {
  Two two;
  TopKeys& top = two.overview.workers[0]->top;
  top.hold(10);
  const Rule& wide = *two.rules->find("wide");
  for (int i = 0; i < 100'000; ++i)
    if (top.due()) top.count({wide.id, "k", two.limiter.hash(wide, "k"), Kind::admitted}, two.begun);
  const Call call = two.ask(secs(1));
  REQUIRE(call.top.size() == 1);
  CHECK(call.top[0].admitted % 10 == 0);
  CHECK(call.top[0].admitted > 94'000);  // 100,000 with a standard deviation of 950
  CHECK(call.top[0].admitted < 106'000);
}

TEST_CASE("a reader sees whole counts while a worker counts") {
  Two two;
  const Rule& wide = *two.rules->find("wide");
  TopKeys& top = two.overview.workers[0]->top;
  std::atomic<bool> end{false};
  std::thread worker([&] {
    for (int i = 0; !end; ++i) {
      const std::string key(1 + static_cast<size_t>(i % 100), static_cast<char>('a' + i % 26));
      if (top.due())
        top.count({wide.id, key, two.limiter.hash(wide, key), Kind::admitted}, two.begun + ms(i % 60'000));
    }
  });
  for (int i = 0; i < 200; ++i)
    for (const resp::TopRow& row : two.ask(ms(i * 300), 1'000).top) {
      REQUIRE(row.key == std::string(row.key.size(), row.key[0]));
      REQUIRE(row.admitted > 0);
    }
  end = true;
  worker.join();
}

// --- what counts ---

std::string top_of(Desk& desk) {
  Call call;
  call.n = 100;
  answer_top(call, desk.overview, desk.clock.mono());
  return Two::text(call);
}

TEST_CASE("takes count as they were answered; peeks, gifts and takes of 0 do not count") {
  Desk desk({1024, 1'048'576, 100, ms(100)}, false);
  for (int i = 0; i < 12; ++i) desk.say(desk.a, take("slow", "k"));
  desk.say(desk.a, take("slow", "k", "0") + command({"TALLY.PEEK", "slow", "k"}) +
                       command({"TALLY.GIVE", "slow", "k"}) + command({"TALLY.RESET", "slow", "gone"}));
  CHECK(top_of(desk) == "k 10 2 slow\n");
  desk.say(desk.a, command({"CL.THROTTLE", "k", "0", "1", "60"}) +
                       command({"CL.THROTTLE", "k", "0", "1", "60"}) +
                       command({"CL.THROTTLE", "k", "0", "1", "60", "0"}));
  CHECK(top_of(desk) == "k 10 2 slow\nk 1 1 (inline)\n");
}

TEST_CASE("blocked keys count as limited, exempt ones as admitted, and a rule in shadow as it answers") {
  Rule shadow = named("shadow", Duration(0), 1);
  shadow.shadow = true;
  Desk desk({1024, 1'048'576, 100, ms(100)}, false, {special("s"), shadow});
  desk.say(desk.a, take("s", "10.0.0.1") + take("s", "free:1") + take("s", "free:1") + take("shadow", "k") +
                       take("shadow", "k") + take("shadow", "k"));
  CHECK(top_of(desk) == "k 3 0 shadow\nfree:1 2 0 s\n10.0.0.1 0 1 s\n");
}

TEST_CASE("of several takes each counts that was taken, and of none that were, the one that refused") {
  Desk desk({1024, 1'048'576, 100, ms(100)}, false);
  desk.say(desk.a, command({"TALLY.TAKEALL", "slow", "a", "10", "wide", "b", "1"}));
  CHECK(top_of(desk) == "a 1 0 slow\nb 1 0 wide\n");
  desk.say(desk.a, command({"TALLY.TAKEALL", "wide", "b", "1", "slow", "a", "1"}));
  CHECK(top_of(desk) == "a 1 1 slow\nb 1 0 wide\n");
  desk.say(desk.a, take("paired", "c"));
  CHECK(top_of(desk) == "a 1 1 slow\nc 1 0 paired\nc 1 0 slow\nb 1 0 wide\n");
  desk.say(desk.a, command({"TALLY.PEEK", "paired", "a"}));
  CHECK(top_of(desk) == "a 1 1 slow\nc 1 0 paired\nc 1 0 slow\nb 1 0 wide\n");
}

TEST_CASE("a request that waited counts when it is answered") {
  Desk desk;
  CHECK(desk.say(desk.a, take("slow", "k")) == "");
  CHECK(top_of(desk) == "");
  desk.grant("slow", "k", 1);
  CHECK(is_admitted(desk.read(desk.a)));
  CHECK(top_of(desk) == "k 1 0 slow\n");
  CHECK(is_no_grant(desk.say(desk.a, take("never", "k"))));
  CHECK(top_of(desk) == "k 0 1 never\nk 1 0 slow\n");
}

TEST_CASE("what a process leases counts until it is put back") {
  Desk desk({1024, 1'048'576, 100, ms(100)}, false);
  const auto lease = numbers_in(desk.say(desk.a, command({"TALLY.LEASE", "wide", "k", "2", "100"})));
  CHECK(top_of(desk) == "k 101 0 wide\n");  // a decision, and what is spent by others that nobody hears of
  desk.say(desk.a, command({"TALLY.PUTBACK", "wide", "k", "30", std::to_string(lease[8])}));
  CHECK(top_of(desk) == "k 71 0 wide\n");
}

TEST_CASE("TALLY.TOP is another thread's, and what stands behind it is read when it is answered") {
  for (const bool fleet : {false, true}) {
    Desk desk({1024, 1'048'576, 100, ms(100)}, fleet);
    CHECK(desk.say(desk.a, command({"TALLY.TOP", "7", "rule", "wide"}) + kPing) == "");
    REQUIRE(desk.handed_out != nullptr);
    CHECK(desk.handed_out->kind == Call::Kind::top);
    CHECK(desk.handed_out->n == 7);
    CHECK(desk.handed_out->rule == desk.rules->find("wide"));
    CHECK(desk.say(desk.b, kPing) == kPong);
    desk.handed_out->top.push_back({std::string("a\0b", 3), 5, 6, "wide"});
    desk.service.finish(std::move(desk.handed_out));
    CHECK(desk.read(desk.a) == std::string("*1\r\n*4\r\n$3\r\na\0b\r\n:5\r\n:6\r\n$4\r\nwide\r\n", 35));
    CHECK(desk.say(desk.a, "") == kPong);
  }
}

}  // namespace
