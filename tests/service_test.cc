// What a worker's service does with commands of one question: decisions, waiting, replies in their order.
#include "service_fixture.h"

using namespace tally;
using namespace tally::test;

TEST_CASE("a request that waits holds back the replies behind it, not the decisions") {
  Desk desk;
  CHECK(desk.say(desk.b, take("slow", "other")) == "");
  desk.grant("slow", "other", 5);
  CHECK(is_admitted(desk.read(desk.b)));

  CHECK(desk.say(desk.a, kPing + take("slow", "k") + take("slow", "other") + kPing) == kPong);
  CHECK(desk.admitted(0) == 2);  // the one behind was decided
  CHECK(desk.overview.waiting == 1);
  CHECK(desk.say(desk.b, kPing) == kPong);  // and nobody else notices

  desk.grant("slow", "k", 1);
  const std::string replies = desk.read(desk.a);
  CHECK(is_admitted(replies));
  CHECK(replies.substr(replies.size() - kPong.size()) == kPong);
  CHECK(desk.admitted(0) == 3);
  CHECK(desk.overview.waiting == 0);
}

TEST_CASE("replies come in the order of the requests, in whatever order these are answered") {
  Desk desk;
  CHECK(desk.say(desk.a, take("slow", "k1") + command({"ECHO", "one"}) + take("slow", "k2") +
                             command({"ECHO", "two"})) == "");
  desk.grant("slow", "k2", 1);
  CHECK(desk.read(desk.a) == "");
  desk.grant("slow", "k1", 1);
  const std::string replies = desk.read(desk.a);
  const size_t one = replies.find("one"), two = replies.find("two");
  CHECK(is_admitted(replies));
  REQUIRE(one != std::string::npos);
  REQUIRE(two != std::string::npos);
  CHECK(one < two);
  CHECK(is_admitted(std::string_view(replies).substr(replies.find("*6", one))));
}

TEST_CASE("under one key those who came first are served first, across connections") {
  Desk desk;
  desk.say(desk.a, take("slow", "k", "3"));
  desk.say(desk.b, take("slow", "k", "1"));
  CHECK(desk.overview.waiting == 2);
  desk.grant("slow", "k", 2);  // enough for the second alone
  CHECK(desk.read(desk.a) == "");
  CHECK(desk.read(desk.b) == "");
  // A third that would fit does not pass either.
  CHECK(desk.say(desk.b, take("slow", "k", "1")) == "");
  desk.grant("slow", "k", 4);
  CHECK(is_admitted(desk.read(desk.a)));
  CHECK(is_admitted(desk.read(desk.b)));
  CHECK(desk.overview.waiting == 1);
  CHECK(desk.notes() == 3);  // the third as well, once it found nothing itself
}

TEST_CASE("each request that waits is noted to the cluster thread exactly once") {
  Desk desk;
  for (int i = 0; i < 5; ++i) desk.say(desk.a, take("slow", "k"));
  CHECK(desk.notes() == 5);
  desk.grant("slow", "k", 2);
  CHECK(desk.overview.waiting == 3);
  CHECK(desk.notes() == 0);
}

TEST_CASE("those who came when there was something, and found it was for others, are noted as well") {
  Desk desk;
  desk.say(desk.a, take("slow", "k"));
  const Rule& rule = *desk.rules->find("slow");
  const KeyHash hash = desk.limiter.hash(rule, "k");
  // A grant of 3 comes; before the worker hears of it, a pipeline does.
  const auto window = static_cast<uint32_t>(window_at(desk.clock.now().wall, rule.limit.window));
  REQUIRE(desk.slots.raise_ceiling(*desk.slots.ref_of(hash), window, 3));
  std::string pipeline;
  for (int i = 0; i < 6; ++i) pipeline += take("slow", "k");
  desk.say(desk.b, pipeline);
  CHECK(desk.overview.waiting == 4);
  CHECK(desk.notes() == 1 + 4);
  desk.service.wake(hash);
  CHECK(desk.overview.waiting == 4);
  CHECK(desk.notes() == 0);
}

TEST_CASE("who waits while the node's life ends is noted to the next one, and has no floor of the last") {
  Desk desk;
  CHECK(desk.say(desk.a, take("floored", "k") + take("slow", "k") + take("slow", "k")) == "");
  CHECK(desk.notes() == 3);
  desk.service.use(desk.rules, ms(100));
  desk.service.end_life();
  desk.slots.forget_all();
  desk.limiter.open_floors(WallTime::min(), MonoTime{});  // of the next life: not of what came before
  CHECK(desk.notes() == 0);
  desk.service.begin_life();
  CHECK(desk.notes() == 3);
  CHECK(desk.read(desk.a) == "");
  CHECK(is_admitted(desk.say(desk.b, take("floored", "k"))) == false);  // it stands behind the one that waits
  desk.grant("floored", "k", 12);
  desk.grant("slow", "k", 2);
  CHECK(std::ranges::count(desk.read(desk.a), '*') == 3);
  CHECK(desk.admitted(desk.rules->find("floored")->id) == 2);
  CHECK(desk.admitted(0) == 2);
}

TEST_CASE("a request that waits is denied at its deadline, with the sync interval to retry after") {
  Desk desk;
  CHECK(desk.say(desk.a, take("quick", "k") + kPing) == "");
  REQUIRE(desk.service.next_due().has_value());
  desk.service.expire();  // its wait is a nanosecond, which has passed
  const std::string replies = desk.read(desk.a);
  const std::string denial = replies.substr(0, replies.size() - kPong.size());
  CHECK(is_no_grant(denial));
  CHECK(denial.find("\r\n:100\r\n") != std::string::npos);
  CHECK_FALSE(desk.service.next_due().has_value());
  CHECK(desk.overview.decisions(1, Outcome::no_grant) == 1);
  desk.grant("quick", "k", 5);
  CHECK(desk.admitted(1) == 0);
}

TEST_CASE("deadlines of long waits do not hold up those of short ones") {
  Desk desk;
  desk.say(desk.a, take("slow", "k"));
  desk.say(desk.b, take("quick", "k"));
  desk.service.expire();
  CHECK(is_no_grant(desk.read(desk.b)));
  CHECK(desk.read(desk.a) == "");
  CHECK(desk.overview.waiting == 1);
}

TEST_CASE("where a rule waits for nothing a starved request is denied at once") {
  Desk desk;
  CHECK(is_no_grant(desk.say(desk.a, take("never", "k"))));
  CHECK(desk.overview.waiting == 0);
}

TEST_CASE("above limits.waiting a starved request is denied at once, and counted") {
  Desk desk({1024, 1'048'576, 2, ms(100)});
  CHECK(desk.say(desk.a, take("slow", "k1") + take("slow", "k2")) == "");
  CHECK(is_no_grant(desk.say(desk.b, take("slow", "k3"))));
  CHECK(desk.overview.troubles(Trouble::waiting_full) == 1);
  CHECK(desk.overview.waiting == 2);
}

TEST_CASE("a connection that goes drops what waits, uncharged") {
  Desk desk;
  desk.say(desk.a, take("slow", "k", "4") + take("slow", "k", "4"));
  desk.say(desk.b, take("slow", "k", "3"));
  desk.service.drop(desk.a);
  CHECK(desk.overview.waiting == 1);
  desk.grant("slow", "k", 4);
  CHECK(is_admitted(desk.read(desk.b)));
  CHECK(desk.read(desk.a) == "");
  CHECK(desk.admitted(0) == 1);
  CHECK(is_admitted(desk.say(desk.b, take("slow", "k", "1"))));  // 4 - 3: only what was answered was charged
}

TEST_CASE("what is not sent, or held back, stops the reading at pipeline_bytes") {
  Desk desk({1024, 1000, 100, ms(100)});
  const std::string big(600, 'x');
  desk.a.in = command({"ECHO", big}) + command({"ECHO", big}) + command({"ECHO", big});
  std::string many;
  for (int i = 0; i < 200; ++i) many += command({"ECHO", big});
  desk.a.in = many;
  const size_t done = desk.service.serve(desk.a, desk.a.in);
  CHECK(done < many.size());
  CHECK(desk.a.out.size() < 1000 + 64 * 700);  // a batch more at most
  CHECK_FALSE(desk.service.may_read(desk.a));
  desk.read(desk.a);
  CHECK(desk.service.may_read(desk.a));

  desk.say(desk.b, take("slow", "k"));
  desk.say(desk.b, command({"ECHO", big}) + command({"ECHO", big}));
  CHECK_FALSE(desk.service.may_read(desk.b));
}

TEST_CASE("a reset waits for what stands before it, and what stands behind it is not read before") {
  Desk desk;
  const std::string behind = command({"TALLY.RESET", "slow", "k"}) + kPing;
  CHECK(desk.say(desk.a, take("slow", "k") + behind) == "");
  CHECK(desk.a.in == behind);
  Call* call = nullptr;
  CHECK_FALSE(desk.port.calls.pop(call));
  desk.grant("slow", "k", 1);
  CHECK(is_admitted(desk.read(desk.a)));
  CHECK(desk.say(desk.a, "") == "");
  REQUIRE(desk.port.calls.pop(call));
  CHECK(call->kind == Call::Kind::reset);
  CHECK(desk.a.in == kPing);
  desk.service.finish(std::unique_ptr<Call>(call));
  CHECK(desk.say(desk.a, "") == "+OK\r\n" + kPong);
}

TEST_CASE("HELLO and QUIT answer in their place and with their version") {
  Desk desk;
  CHECK(desk.say(desk.a, take("slow", "k") + command({"HELLO", "3"}) + command({"TALLY.PEERS"})) == "");
  CHECK(desk.a.in == command({"TALLY.PEERS"}));  // HELLO is a barrier
  desk.grant("slow", "k", 1);
  const std::string replies = desk.read(desk.a);
  CHECK(is_admitted(replies));
  CHECK(replies.find("%7\r\n") != std::string::npos);  // RESP3 from HELLO's own reply on

  CHECK(desk.say(desk.b, take("slow", "k2") + "QUIT\r\n" + kPing) == "");
  CHECK(desk.b.closing);
  desk.grant("slow", "k2", 1);
  const std::string last = desk.read(desk.b);
  CHECK(is_admitted(last));
  CHECK(last.substr(last.size() - 5) == "+OK\r\n");  // and no PONG
}

TEST_CASE("every decision on a key whose owner cannot be asked is counted as isolated, admitted or not") {
  Desk desk;
  const Rule& rule = *desk.rules->find("never");
  const auto isolated = [&] { return desk.overview.decided_isolated(rule.id); };
  desk.say(desk.a, take("never", "k") + take("never", "other"));
  desk.grant("never", "k", 3);
  desk.say(desk.a, take("never", "k"));
  CHECK(isolated() == 0);
  Knowledge knowledge;
  knowledge.isolated = true;
  REQUIRE(desk.slots.set_knowledge(*desk.slots.ref_of(desk.limiter.hash(rule, "k")), knowledge));
  for (int i = 0; i < 5; ++i) desk.say(desk.a, take("never", "k") + take("never", "other"));
  CHECK(isolated() == 5);
  CHECK(desk.overview.decisions(rule.id, Outcome::admitted) == 3);
  CHECK(desk.overview.decisions(rule.id, Outcome::isolated) == 3);
  CHECK(desk.overview.decisions(rule.id, Outcome::no_grant) == 7);
}

TEST_CASE("of one decision in many the age of what is known is kept, where anything is known") {
  Desk desk;
  const Rule& rule = *desk.rules->find("wide");
  const TimeHistogram& ages = desk.overview.workers[0]->staleness;
  const auto samples = [&] {
    uint64_t n = 0;
    for (size_t i = 0; i <= TimeHistogram::kBounds; ++i) n += ages.bucket(i);
    return n;
  };
  desk.say(desk.a, take("wide", "k"));
  desk.grant("wide", "k", 100'000);
  std::string many;
  for (uint32_t i = 0; i < Service::kSampleEvery; ++i) many += take("wide", "k");
  desk.say(desk.a, many);
  CHECK(samples() == 0);  // never heard
  Knowledge knowledge;
  knowledge.heard = heard_tick(desk.clock.mono() - ms(250));
  REQUIRE(desk.slots.set_knowledge(*desk.slots.ref_of(desk.limiter.hash(rule, "k")), knowledge));
  for (int i = 0; i < 3; ++i) desk.say(desk.a, many);
  CHECK(samples() == 3);
  CHECK(ages.sum_seconds() >= 3 * 0.250);
}

TEST_CASE("a question to the cluster thread holds its place and survives its connection") {
  Desk desk;
  CHECK(desk.say(desk.a, command({"TALLY.GIVE", "slow", "k", "2"}) + kPing) == "");
  CHECK(desk.say(desk.b, command({"TALLY.PEERS"})) == "");
  Call* give = nullptr;
  Call* peers = nullptr;
  REQUIRE(desk.port.calls.pop(give));
  REQUIRE(desk.port.calls.pop(peers));
  CHECK(give->n == 2);
  CHECK(give->key == "k");
  desk.service.drop(desk.b);
  desk.service.finish(std::unique_ptr<Call>(peers));
  CHECK(desk.read(desk.b) == "");
  desk.service.finish(std::unique_ptr<Call>(give));
  const std::string replies = desk.read(desk.a);
  CHECK(replies.substr(0, 4) == "*6\r\n");
  CHECK(replies.substr(replies.size() - kPong.size()) == kPong);
}

TEST_CASE("a lease takes its cost and a quarter of what is left; what is put back is there again, once, by its account") {
  Desk desk({1024, 1'048'576, 100, ms(100)}, false);
  const auto lease = numbers_in(desk.say(desk.a, command({"TALLY.LEASE", "wide", "k", "2", "1000000"})));
  REQUIRE(lease.size() == 9);
  CHECK(lease[0] == 0);
  CHECK(lease[2] == 99'998);  // as the take found it
  CHECK(lease[6] == 25'000);
  CHECK(lease[7] > 0);
  CHECK(desk.overview.leased(desk.rules->find("wide")->id) == 25'000);
  CHECK(desk.admitted(desk.rules->find("wide")->id) == 1);
  CHECK(numbers_in(desk.say(desk.a, command({"TALLY.LEASE", "wide", "k", "0", "10"})))[2] == 74'988);
  const std::string account = std::to_string(lease[8]);
  CHECK(desk.say(desk.a, command({"TALLY.PUTBACK", "wide", "k", "5", std::to_string(lease[8] + 1)})) == ":0\r\n");
  CHECK(desk.say(desk.a, command({"TALLY.PUTBACK", "wide", "k", "24000", account})) == ":24000\r\n");
  CHECK(numbers_in(desk.say(desk.a, command({"TALLY.PEEK", "wide", "k"})))[2] == 98'988);
  CHECK(desk.overview.put_back(desk.rules->find("wide")->id) == 24'000);
}

TEST_CASE("in a fleet a lease that waits takes its portion with its grant, and what is put back goes through the cluster thread") {
  Desk desk;
  CHECK(desk.say(desk.a, command({"TALLY.LEASE", "wide", "k", "1", "100"})) == "");
  CHECK(desk.say(desk.b, command({"TALLY.LEASE", "wide", "k", "0", "100"})).find(":0\r\n:0\r\n") != std::string::npos);  // those who wait come first
  desk.grant("wide", "k", 41);
  const auto lease = numbers_in(desk.read(desk.a));
  REQUIRE(lease.size() == 9);
  CHECK(lease[0] == 0);
  CHECK(lease[6] == 10);
  CHECK(desk.say(desk.a, command({"TALLY.PUTBACK", "wide", "k", "4", std::to_string(lease[8])})) == "");
  Call* call = nullptr;
  REQUIRE(desk.port.calls.pop(call));
  CHECK(call->kind == Call::Kind::give);
  CHECK(call->n == 4);
  CHECK(call->only_in == window_at(desk.clock.now().wall, std::chrono::hours(24)));
  call->count = 4;
  desk.service.finish(std::unique_ptr<Call>(call));
  CHECK(desk.read(desk.a) == ":4\r\n");
}

TEST_CASE("the cluster thread is rung for what cannot wait, and for nothing else") {
  Desk desk;
  const auto rung = [&](const std::string& bytes) {
    desk.bell.get_up();
    desk.say(desk.a, bytes);
    desk.service.ring_if_urgent();
    return !desk.bell.lie_down();
  };
  CHECK(rung(take("slow", "k")));
  CHECK(rung(command({"TALLY.GIVE", "slow", "k"})));
  desk.grant("slow", "k", 5);
  desk.service.ring_if_urgent();
  CHECK_FALSE(rung(kPing + command({"TALLY.PEEK", "slow", "k"})));
  CHECK_FALSE(rung(take("slow", "k")));
  REQUIRE(desk.slots.set_ask_at(*desk.slots.ref_of(desk.limiter.hash(*desk.rules->find("slow"), "k")), 2));
  CHECK(rung(take("slow", "k")));        // it runs low
  CHECK_FALSE(rung(take("slow", "k")));  // which was said
}

TEST_CASE("a pipeline cut anywhere is answered like the whole") {
  const std::string whole = take("slow", "k") + kPing + take("slow", "k", "9") + command({"ECHO", "x"}) +
                            "TALLY.TAKE slow \"k\\x41\"\r\nTALLY.TAKE slow \"k\\x42\"\r\n" +
                            command({"TALLY.PEEK", "slow", "k"}) + command({"NONSENSE"}) +
                            command({"TALLY.GIVE", "slow", "k", "1"}) + command({"DEL", "k"});
  // Times differ from run to run by a few milliseconds; the numbers that count are those before them.
  const auto answers = [](const std::string& bytes, size_t cut) {
    Desk desk({1024, 1'048'576, 100, ms(100)}, false);
    const std::string first = desk.say(desk.a, bytes.substr(0, cut));
    const std::string all = first + desk.say(desk.a, bytes.substr(cut));
    CHECK(desk.a.in == "");
    CHECK(desk.overview.total(&WorkerCounters::requests) == 10);
    CHECK(desk.admitted(0) == 4);
    return std::count(all.begin(), all.end(), '*');
  };
  const auto expected = answers(whole, whole.size());
  CHECK(expected == 6);
  for (size_t cut = 0; cut < whole.size(); ++cut) CHECK(answers(whole, cut) == expected);
}

TEST_CASE("a protocol error is answered behind what waits, and ends the connection") {
  Desk desk;
  CHECK(desk.say(desk.a, take("slow", "k") + "*x\r\n" + kPing) == "");
  CHECK(desk.a.closing);
  CHECK(desk.a.in == "");
  desk.grant("slow", "k", 1);
  const std::string replies = desk.read(desk.a);
  CHECK(is_admitted(replies));
  const std::string error = "-ERR Protocol error: invalid multibulk length\r\n";
  CHECK(replies.substr(replies.size() - error.size()) == error);
}

TEST_CASE("who waited behind one that went, or whose time is over, is tried at once") {
  Desk desk;
  desk.say(desk.a, take("slow", "k", "5"));
  desk.say(desk.b, take("slow", "k", "2"));
  desk.grant("slow", "k", 3);
  CHECK(desk.read(desk.b) == "");
  desk.service.drop(desk.a);
  CHECK(is_admitted(desk.read(desk.b)));

  desk.say(desk.a, take("quick", "q", "5"));
  desk.grant("quick", "q", 3);
  desk.say(desk.b, take("quick", "q", "2"));
  CHECK(desk.read(desk.b) == "");
  desk.service.expire();
  CHECK(is_no_grant(desk.read(desk.a)));
  CHECK(is_admitted(desk.read(desk.b)));
}

namespace {

// What the service should do, written down plainly: under each key a queue and a count.
struct Model {
  struct Key {
    uint32_t ceiling = 0, used = 0;
    std::vector<std::pair<size_t, uint32_t>> queue;  // session, cost
    void serve(std::vector<std::string>& expected) {
      while (!queue.empty() && used + queue.front().second <= ceiling) {
        used += queue.front().second;
        expected[queue.front().first] += 'a';
        queue.erase(queue.begin());
      }
    }
  };
};

// 'a' for each decision, 'p' for each PONG; admissions only, in this test.
std::string letters(const std::string& replies) {
  std::string text;
  for (size_t i = 0; i < replies.size(); ++i) {
    if (replies[i] == '+') text += 'p';
    if (replies[i] == '*') text += replies[i + 5] == '0' ? 'a' : 'd';
  }
  return text;
}

}  // namespace

TEST_CASE("random requests, grants and connections that go end as a plain model of queues says") {
  Random random(seed());
  for (int round = 0; round < 60; ++round) {
    Desk desk({1024, 1 << 20, 100'000, ms(100)});
    std::vector<std::unique_ptr<Session>> sessions;
    std::vector<std::string> seen(6),
        expected(6);  // answers to decisions, by session, in any order between keys
    std::vector<size_t> asked(6), pings(6);
    for (uint64_t i = 0; i < 6; ++i)
      sessions.push_back(std::make_unique<Session>(Descriptor(), 10 + i, true, resp::Limits{}));
    std::map<std::string, Model::Key> keys;
    uint64_t admitted = 0;
    const auto collect = [&] {
      for (size_t i = 0; i < 6; ++i) seen[i] += letters(Desk::read(*sessions[i]));
    };
    for (int step = 0; step < 400; ++step) {
      const size_t who = random.below(6);
      const std::string key(1, static_cast<char>('a' + random.below(4)));
      Model::Key& model = keys[key];
      const uint64_t what = random.below(10);
      if (what < 6) {
        const auto cost = static_cast<uint32_t>(random.between(1, 4));
        sessions[who]->in = take("wide", key, std::to_string(cost));
        model.queue.emplace_back(who, cost);
        model.serve(expected);
        ++asked[who];
        desk.say(*sessions[who], "").swap(sessions[who]->out);
      } else if (what < 7) {
        desk.say(*sessions[who], kPing).swap(sessions[who]->out);
        ++pings[who];
      } else if (what < 9) {
        if (!desk.limiter.slots().ref_of(desk.limiter.hash(*desk.rules->find("wide"), key))) continue;
        model.ceiling += static_cast<uint32_t>(random.below(9));
        model.serve(expected);
        if (model.ceiling != 0) desk.grant("wide", key, model.ceiling);
      } else {
        desk.service.drop(*sessions[who]);
        for (auto& [name, other] : keys)
          std::erase_if(other.queue, [&](const auto& one) { return one.first == who; });
        for (auto& [name, other] : keys) other.serve(expected);
        sessions[who]->out.clear();
        seen[who] = expected[who] = "";
        asked[who] = pings[who] = 0;
      }
      collect();
      size_t waiting = 0, used = 0;
      for (const auto& [name, one] : keys) {
        waiting += one.queue.size();
        used += one.used;
      }
      REQUIRE(desk.overview.waiting == waiting);
      REQUIRE(desk.overview.total(&WorkerCounters::waiting) == waiting);
      admitted = desk.admitted(3);
      if (waiting == 0)
        for (size_t i = 0; i < 6; ++i) REQUIRE(seen[i].size() == asked[i] + pings[i]);
    }
    for (auto& [name, model] : keys) {
      model.ceiling = 100'000;
      model.serve(expected);
      if (desk.limiter.slots().ref_of(desk.limiter.hash(*desk.rules->find("wide"), name)))
        desk.grant("wide", name, 100'000);
    }
    collect();
    for (size_t i = 0; i < 6; ++i) {
      CHECK(std::count(seen[i].begin(), seen[i].end(), 'a') == static_cast<long>(asked[i]));
      CHECK(std::count(seen[i].begin(), seen[i].end(), 'p') == static_cast<long>(pings[i]));
      CHECK(expected[i].size() == asked[i]);
    }
    CHECK(desk.overview.waiting == 0);
    CHECK(admitted <= desk.admitted(3));
    for (const auto& session : sessions) desk.service.drop(*session);
  }
}
