// Several takes of one request: all of them or none, whoever waits and whatever comes in between.
#include <deque>
#include <optional>

#include "service_fixture.h"

using namespace tally;
using namespace tally::test;

namespace {

using Takes = std::vector<std::vector<std::string>>;  // rule, key, cost

std::string take_all(const Takes& takes) {
  std::string bytes = "*" + std::to_string(1 + 3 * takes.size()) + "\r\n$13\r\nTALLY.TAKEALL\r\n";
  for (const auto& take : takes)
    for (const std::string& word : take) bytes += "$" + std::to_string(word.size()) + "\r\n" + word + "\r\n";
  return bytes;
}

// What a reply to TALLY.TAKEALL says.
struct Reply {
  explicit Reply(const std::string& bytes) : numbers(numbers_in(bytes)) {
    REQUIRE(numbers.size() >= 8);
    REQUIRE(numbers.size() % 6 == 2);
  }
  bool limited() const { return numbers[0] == 1; }
  int64_t index() const { return numbers[1]; }
  std::vector<int64_t> six(size_t part) const {
    const auto begin = numbers.begin() + static_cast<std::ptrdiff_t>(2 + 6 * part);
    return {begin, begin + 6};
  }
  int64_t remaining(size_t part) const { return six(part)[2]; }
  int64_t reason(size_t part) const { return six(part)[5]; }

  std::vector<int64_t> numbers;
};

Desk alone() { return Desk({1024, 1'048'576, 100, ms(100)}, false); }

// What lies in the ring of calls: what was given back, by key.
std::map<std::string, uint32_t> given_back(Desk& desk, const std::vector<std::pair<std::string, std::string>>& keys) {
  std::map<std::string, uint32_t> given;
  Call* raw = nullptr;
  while (desk.port.calls.pop(raw)) {
    const std::unique_ptr<Call> call(raw);
    CHECK(call->kind == Call::Kind::give);
    CHECK(call->session == nullptr);
    for (const auto& [rule, key] : keys)
      if (call->keys.front().hash == desk.limiter.hash(*desk.rules->find(rule), key)) given[key] += call->n;
  }
  return given;
}

}  // namespace

TEST_CASE("all are taken, each by its cost, or none is") {
  Desk desk = alone();
  const Reply taken(desk.say(desk.a, take_all({{"slow", "k", "4"}, {"wide", "k", "7"}, {"never", "other", "1"}})));
  CHECK_FALSE(taken.limited());
  CHECK(taken.index() == -1);
  CHECK(taken.remaining(0) == 6);
  CHECK(taken.remaining(1) == 99'993);
  CHECK(taken.remaining(2) == 9);

  const Reply refused(desk.say(desk.a, take_all({{"wide", "k", "10"}, {"slow", "k", "7"}, {"never", "other", "1"}})));
  CHECK(refused.limited());
  CHECK(refused.index() == 1);
  CHECK(refused.reason(1) == 1);
  CHECK(refused.six(1)[3] > 0);  // when to ask again
  CHECK(refused.reason(0) == 0);  // it would have been admitted
  CHECK(refused.remaining(0) == 99'993);
  CHECK(refused.remaining(2) == 9);
  CHECK(numbers_in(desk.say(desk.a, command({"TALLY.PEEK", "wide", "k"})))[2] == 99'993);
  // One decision for each that was taken, one for the refusal.
  CHECK(desk.admitted(desk.rules->find("wide")->id) == 1);
  CHECK(desk.overview.decisions(desk.rules->find("slow")->id, Outcome::limited) == 1);
  CHECK(desk.overview.decisions(desk.rules->find("never")->id, Outcome::admitted) == 1);
}

TEST_CASE("the same key twice is charged twice, or not at all") {
  Desk desk = alone();
  CHECK_FALSE(Reply(desk.say(desk.a, take_all({{"slow", "k", "5"}, {"slow", "k", "5"}}))).limited());
  CHECK(numbers_in(desk.say(desk.a, command({"TALLY.PEEK", "slow", "k"})))[2] == 0);
  // Each alone would fit, which is only seen when they are taken.
  const Reply refused(desk.say(desk.a, take_all({{"wide", "w", "60000"}, {"wide", "w", "60000"}})));
  CHECK(refused.limited());
  CHECK(refused.index() == 1);
  CHECK(refused.remaining(0) == 100'000);
  CHECK(numbers_in(desk.say(desk.a, command({"TALLY.PEEK", "wide", "w"})))[2] == 100'000);
}

TEST_CASE("a cost of 0 looks: it takes nothing and refuses where a take of 1 would be refused") {
  Desk desk = alone();
  const Reply looked(desk.say(desk.a, take_all({{"slow", "k", "0"}, {"wide", "k", "3"}})));
  CHECK_FALSE(looked.limited());
  CHECK(looked.remaining(0) == 10);
  CHECK(looked.remaining(1) == 99'997);
  desk.say(desk.a, take("slow", "k", "10"));
  const Reply refused(desk.say(desk.a, take_all({{"wide", "k", "3"}, {"slow", "k", "0"}})));
  CHECK(refused.index() == 1);
  CHECK(refused.remaining(0) == 99'997);
}

TEST_CASE("a cost that can never be admitted is refused for ever, and bad questions are told so") {
  Desk desk = alone();
  const Reply never(desk.say(desk.a, take_all({{"wide", "k", "1"}, {"slow", "k", "11"}})));
  CHECK(never.index() == 1);
  CHECK(never.six(1)[3] == -1);
  CHECK(desk.say(desk.a, command({"TALLY.TAKEALL", "slow", "k"})) == "-ERR wrong number of arguments for 'tally.takeall' command\r\n");
  CHECK(desk.say(desk.a, command({"TALLY.TAKEALL", "slow", "k", "1", "wide"})) == "-ERR wrong number of arguments for 'tally.takeall' command\r\n");
  CHECK(desk.say(desk.a, take_all({{"slow", "k", "1"}, {"wode", "k", "1"}})).starts_with("-NORULE no rule 'wode'; did you mean 'wide'?"));
  CHECK(desk.say(desk.a, take_all({{"slow", "k", "x"}})).starts_with("-ERR value is not an integer"));
  CHECK(desk.say(desk.a, take_all(Takes(129, {"slow", "k", "1"}))) == "-ERR 128 takes at most are taken at once, got 129\r\n");
  CHECK(numbers_in(desk.say(desk.a, command({"TALLY.PEEK", "slow", "k"})))[2] == 10);
}

TEST_CASE("in a fleet it waits until all are granted, and then takes all at once") {
  Desk desk;
  CHECK(desk.say(desk.a, take_all({{"slow", "x", "2"}, {"wide", "y", "3"}}) + kPing) == "");
  CHECK(desk.notes() == 2);  // both shortages are told at once
  CHECK(desk.overview.waiting == 1);
  desk.grant("slow", "x", 2);
  CHECK(desk.read(desk.a) == "");
  CHECK(desk.admitted(0) == 0);
  CHECK(desk.overview.waiting == 1);
  CHECK(desk.notes() == 0);
  desk.grant("wide", "y", 2);  // not enough
  CHECK(desk.read(desk.a) == "");
  desk.grant("wide", "y", 3);
  const std::string replies = desk.read(desk.a);
  CHECK(replies.ends_with(kPong));
  const Reply taken(replies.substr(0, replies.size() - kPong.size()));
  CHECK_FALSE(taken.limited());
  CHECK(desk.admitted(0) == 1);
  CHECK(desk.admitted(desk.rules->find("wide")->id) == 1);
  CHECK(desk.overview.waiting == 0);
}

TEST_CASE("one that waits holds nothing: others may take what it was granted, and it goes on waiting") {
  Desk desk;
  CHECK(desk.say(desk.a, take_all({{"slow", "x", "2"}, {"wide", "y", "3"}})) == "");
  desk.grant("slow", "x", 2);  // it waits for y now
  CHECK(is_admitted(desk.say(desk.b, take("slow", "x", "2"))));
  desk.grant("wide", "y", 3);
  CHECK(desk.read(desk.a) == "");  // for x again
  CHECK(desk.overview.waiting == 1);
  desk.grant("slow", "x", 4);
  CHECK_FALSE(Reply(desk.read(desk.a)).limited());
}

TEST_CASE("its time over it is refused by what it waited for, and nothing is charged") {
  Desk desk;
  CHECK(desk.say(desk.b, take("slow", "x", "1")) == "");
  desk.grant("slow", "x", 10);
  desk.read(desk.b);
  CHECK(desk.say(desk.a, take_all({{"slow", "x", "2"}, {"quick", "y", "3"}}) + kPing) == "");
  desk.service.expire();
  const std::string replies = desk.read(desk.a);
  const Reply refused(replies.substr(0, replies.size() - kPong.size()));
  CHECK(refused.limited());
  CHECK(refused.index() == 1);
  CHECK(refused.reason(1) == 2);
  CHECK(refused.six(1)[3] == 100);  // one sync interval
  CHECK(refused.reason(0) == 0);
  CHECK(desk.admitted(0) == 1);
  CHECK(given_back(desk, {{"slow", "x"}}).empty());
  CHECK(desk.overview.decisions(1, Outcome::no_grant) == 1);
  CHECK(desk.overview.waiting == 0);
}

TEST_CASE("where the rule that is short waits for nothing it is refused at once") {
  Desk desk;
  const Reply refused(desk.say(desk.a, take_all({{"slow", "x", "1"}, {"never", "y", "1"}})));
  CHECK(refused.limited());
  // The first that is short has a wait; the second has none: nothing would be gained by waiting for the first.
  CHECK(refused.reason(static_cast<size_t>(refused.index())) == 2);
}

TEST_CASE("a question does not pass those who wait under one of its keys") {
  Desk desk;
  CHECK(desk.say(desk.b, take("wide", "y", "5")) == "");
  desk.grant("wide", "y", 3);  // too little for that one
  CHECK(desk.read(desk.b) == "");
  CHECK(desk.say(desk.a, take_all({{"wide", "y", "1"}})) == "");
  CHECK(desk.overview.waiting == 2);
  desk.grant("wide", "y", 5);
  CHECK(is_admitted(desk.read(desk.b)));
  CHECK(desk.read(desk.a) == "");
  desk.grant("wide", "y", 6);
  CHECK_FALSE(Reply(desk.read(desk.a)).limited());
}

TEST_CASE("what was taken is given back through the cluster thread where another part fails") {
  Desk desk;
  CHECK(desk.say(desk.b, take("slow", "x", "1") + take("wide", "y", "1")) == "");
  desk.grant("slow", "x", 5);
  desk.grant("wide", "y", 5);
  desk.read(desk.b);
  // Seen one by one both fit; taken after each other they do not.
  CHECK(desk.say(desk.a, take_all({{"slow", "x", "3"}, {"wide", "y", "3"}, {"wide", "y", "3"}})) == "");
  CHECK(given_back(desk, {{"slow", "x"}, {"wide", "y"}}) == std::map<std::string, uint32_t>{{"x", 3}, {"y", 3}});
  CHECK(desk.overview.waiting == 1);
}

TEST_CASE("a connection that goes takes its question along") {
  Desk desk;
  CHECK(desk.say(desk.a, take_all({{"slow", "x", "2"}, {"wide", "y", "3"}})) == "");
  desk.grant("slow", "x", 2);
  desk.service.drop(desk.a);
  CHECK(desk.overview.waiting == 0);
  desk.grant("wide", "y", 3);
  CHECK(desk.admitted(0) == 0);
  CHECK_FALSE(desk.service.next_due().has_value());
}

TEST_CASE("a question of another door is answered by its function, at once or after it waited") {
  Desk desk;
  std::vector<std::unique_ptr<Question>> answers;
  const auto question = [&](const Takes& takes) {
    auto made = std::make_unique<Question>();
    made->rules = desk.rules;
    for (const auto& take : takes) {
      const Rule* rule = desk.rules->find(take[0]);
      made->parts.push_back({.rule = rule, .limit = rule->limit, .key = take[1], .cost = static_cast<uint32_t>(std::stoul(take[2])),
                             .answer = {}, .reason = {}, .hash = {}, .noted = false, .taken = false, .central = false, .state = {}});
    }
    made->done = [&](std::unique_ptr<Question> answered) { answers.push_back(std::move(answered)); };
    return made;
  };
  desk.service.ask(question({{"never", "k", "1"}}));
  REQUIRE(answers.size() == 1);
  CHECK(answers[0]->refused == 0);
  CHECK(answers[0]->parts[0].reason == resp::Reason::no_grant);
  CHECK(answers[0]->parts[0].answer.retry_after == ms(100));

  desk.service.ask(question({{"slow", "k", "1"}, {"wide", "k", "1"}}));
  CHECK(answers.size() == 1);
  desk.grant("slow", "k", 1);
  desk.grant("wide", "k", 1);
  REQUIRE(answers.size() == 2);
  CHECK_FALSE(answers[1]->refused.has_value());
  CHECK(answers[1]->deciding().rule->name == "slow");

  desk.service.ask(question({{"wide", "k", "1"}}));
  CHECK(desk.service.has_waiting());
  desk.service.end_waiting();
  CHECK_FALSE(desk.service.has_waiting());
  REQUIRE(answers.size() == 3);
  CHECK(answers[2]->parts[0].reason == resp::Reason::no_grant);
}

// Whoever is answered: a refusal has cost nothing, an admission its costs, and of no key more was taken than was granted.
TEST_CASE("random questions over few keys: what was taken is what was admitted and what was given back") {
  Random random(seed());
  const std::vector<std::string> names{"a", "b", "c"};
  for (int round = 0; round < 100; ++round) {
    Desk desk({1024, 1 << 20, 100'000, ms(100)});
    const Rule& rule = *desk.rules->find("wide");
    std::map<std::string, uint32_t> ceilings, admitted, given;
    std::vector<std::unique_ptr<Session>> sessions;
    std::vector<std::deque<Takes>> asked(4);
    for (uint64_t i = 0; i < 4; ++i) sessions.push_back(std::make_unique<Session>(Descriptor(), 10 + i, true, resp::Limits{}));
    const auto collect = [&] {
      for (size_t i = 0; i < 4; ++i) {
        std::string out = Desk::read(*sessions[i]);
        while (!out.empty()) {
          // Of one question: up to the next that begins with an array that is no six.
          const Takes takes = asked[i].front();
          asked[i].pop_front();
          const std::vector<int64_t> all = numbers_in(out);
          REQUIRE(all.size() >= 2 + 6 * takes.size());
          size_t at = 0;
          for (size_t n = 0; n < 2 + 6 * takes.size(); ++n) at = out.find(':', at) + 1;
          out.erase(0, out.find("\r\n", at) + 2);
          CHECK((all[0] == 1) == (all[1] >= 0));
          if (all[0] == 0)
            for (const auto& take : takes) admitted[take[1]] += static_cast<uint32_t>(std::stoul(take[2]));
        }
      }
      for (const auto& [key, n] : given_back(desk, {{"wide", "a"}, {"wide", "b"}, {"wide", "c"}})) given[key] += n;
    };
    for (int step = 0; step < 200; ++step) {
      const size_t who = random.below(4);
      if (random.chance(0.5)) {
        Takes takes;
        for (uint64_t n = random.between(1, 3); n > 0; --n)
          takes.push_back({"wide", names[random.below(3)], std::to_string(random.below(4))});
        asked[who].push_back(takes);
        desk.say(*sessions[who], take_all(takes)).swap(sessions[who]->out);
      } else {
        const std::string& key = names[random.below(3)];
        if (!desk.slots.ref_of(desk.limiter.hash(rule, key))) continue;
        ceilings[key] += static_cast<uint32_t>(random.below(6));
        if (ceilings[key] != 0) desk.grant("wide", key, ceilings[key]);
      }
      collect();
    }
    const auto used = [&](const std::string& key) {
      const auto slot = desk.slots.ref_of(desk.limiter.hash(rule, key));
      const auto window = static_cast<uint32_t>(window_at(desk.clock.now().wall, rule.limit.window));
      return slot ? desk.slots.count(*slot, window).value_or(0) : 0;
    };
    for (const std::string& key : names) {
      CHECK(used(key) >= admitted[key] + given[key]);  // what is admitted may be held behind a reply that is not known yet
      CHECK(used(key) <= ceilings[key]);
    }
    for (const std::string& key : names)
      if (desk.slots.ref_of(desk.limiter.hash(rule, key))) desk.grant("wide", key, 100'000);
    for (const std::string& key : names)
      if (desk.slots.ref_of(desk.limiter.hash(rule, key))) desk.service.wake(desk.limiter.hash(rule, key));
    collect();
    size_t left = 0;
    for (const auto& queue : asked) left += queue.size();
    CHECK(desk.overview.waiting == 0);
    CHECK(left == 0);
    for (const std::string& key : names) CHECK(used(key) == admitted[key] + given[key]);
    for (const auto& session : sessions) desk.service.drop(*session);
  }
}

TEST_CASE("a rule takes others along, whichever command asks by it") {
  Desk desk = alone();
  const auto remaining = [&](std::string_view rule) { return numbers_in(desk.say(desk.a, command({"TALLY.PEEK", rule, "k"})))[2]; };
  const auto taken = numbers_in(desk.say(desk.a, take("paired", "k", "4")));
  CHECK(taken[0] == 0);
  CHECK(taken[1] == 10);  // of the one with the least left
  CHECK(taken[2] == 6);
  CHECK(remaining("slow") == 6);
  CHECK(remaining("paired") == 6);  // what can be taken by it
  desk.say(desk.a, take("slow", "k", "5"));
  const auto refused = numbers_in(desk.say(desk.a, take("paired", "k", "2")));
  CHECK(refused[0] == 1);
  CHECK(refused[1] == 10);  // of the rule that refused
  CHECK(refused[5] == 1);
  CHECK(Reply(desk.say(desk.a, take_all({{"wide", "k", "1"}, {"paired", "k", "2"}}))).index() == 1);
  desk.say(desk.a, command({"TALLY.GIVE", "paired", "k", "2"}));
  CHECK(remaining("slow") == 3);
  const auto lease = numbers_in(desk.say(desk.a, command({"TALLY.LEASE", "paired", "k", "1", "100"})));
  CHECK(lease[0] == 0);
  CHECK(lease[6] == 0);  // no portion: a process would spend it from this rule alone
  CHECK(remaining("slow") == 2);
  CHECK(desk.say(desk.a, command({"TALLY.RESET", "paired", "k"})) == "+OK\r\n");
  CHECK(remaining("slow") == 10);
  CHECK(remaining("paired") == 10);
}

TEST_CASE("each take that was asked has one six, that of its tightest rule, and the place of a refusal is that of the take") {
  Desk desk = alone();
  const Reply taken(desk.say(desk.a, take_all({{"paired", "k", "4"}, {"wide", "k", "1"}, {"paired", "other", "1"}})));
  REQUIRE(taken.numbers.size() == 2 + 3 * 6);
  CHECK(taken.index() == -1);
  CHECK(taken.six(0)[1] == 10);  // of the rule that is taken along, which has less
  CHECK(taken.remaining(0) == 6);
  CHECK(taken.remaining(1) == 99'999);
  CHECK(taken.remaining(2) == 9);

  const Reply last(desk.say(desk.a, take_all({{"paired", "k", "1"}, {"paired", "other", "1"}, {"wide", "k", "100001"}})));
  REQUIRE(last.numbers.size() == 2 + 3 * 6);
  CHECK(last.index() == 2);
  CHECK(last.reason(2) == 1);
  CHECK(last.reason(0) == 0);
  CHECK(last.remaining(0) == 6);

  // Two that would be refused: the first is told as the one that did, and the other as it is.
  const Reply both(desk.say(desk.a, take_all({{"wide", "k", "1"}, {"paired", "k", "7"}, {"paired", "other", "11"}})));
  REQUIRE(both.numbers.size() == 2 + 3 * 6);
  CHECK(both.index() == 1);
  CHECK(both.reason(1) == 1);
  CHECK(both.six(1)[1] == 10);
  CHECK(both.reason(2) == 1);
  CHECK(numbers_in(desk.say(desk.a, command({"TALLY.PEEK", "paired", "other"})))[2] == 9);
}

TEST_CASE("in a fleet a rule that takes others along waits for all, gives back to all and resets all") {
  Desk desk;
  CHECK(desk.say(desk.a, take("paired", "k")) == "");
  desk.grant("paired", "k", 1);
  CHECK(desk.read(desk.a) == "");
  desk.grant("slow", "k", 1);
  CHECK(is_admitted(desk.read(desk.a)));
  CHECK(desk.say(desk.a, command({"TALLY.GIVE", "paired", "k"})) == "");
  for (const char* rule : {"slow", "paired"}) {
    Call* raw = nullptr;
    REQUIRE(desk.port.calls.pop(raw));
    std::unique_ptr<Call> call(raw);
    CHECK(call->kind == Call::Kind::give);
    CHECK(call->rule == desk.rules->find(rule));
    desk.service.finish(std::move(call));
  }
  CHECK(desk.read(desk.a).starts_with("*6\r\n"));
}
