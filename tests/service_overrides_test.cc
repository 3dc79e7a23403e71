// What a worker's service makes of keys with overrides: other limits, exempt, blocked; alone, in a fleet, and among several takes.
#include "service_fixture.h"

using namespace tally;
using namespace tally::test;

namespace {

std::vector<Rule> special_rules() {
  Rule tried = special("tried"), along = special("along");
  tried.shadow = true;
  along.also_names = {"plain"};
  return {special("special"), tried, along, named("plain", std::chrono::hours(1), 15)};
}

Desk desk_of(bool fleet) { return Desk({1024, 1'048'576, 100, ms(100)}, fleet, special_rules()); }

using Numbers = std::vector<int64_t>;

}  // namespace

TEST_CASE("exempt and blocked keys are answered at once, alone and in a fleet, and counted as what they are") {
  for (const bool fleet : {false, true}) {
    CAPTURE(fleet);
    Desk desk = desk_of(fleet);
    const uint16_t rule = desk.rules->find("special")->id;
    const auto six = [&](const char* name, const char* key) { return numbers_in(desk.say(desk.a, command({name, "special", key}))); };
    for (const char* name : {"TALLY.TAKE", "TALLY.PEEK", "TALLY.GIVE"}) {
      CAPTURE(name);
      CHECK(six(name, "free:1") == Numbers{0, 10, 10, -1, 0, 6});
      CHECK(six(name, "10.1.2.3") == Numbers{1, 0, 0, -1, 0, 5});
    }
    for (int i = 0; i < 30; ++i) CHECK(six("TALLY.TAKE", "free:1").front() == 0);
    CHECK(desk.overview.decisions(rule, Outcome::exempt) == 31);
    CHECK(desk.overview.decisions(rule, Outcome::blocked) == 1);
    CHECK(desk.overview.decisions(rule, Outcome::admitted) == 0);
    CHECK(desk.notes() == 0);
    CHECK(desk.slots.occupied() == 0);
    CHECK(numbers_in(desk.say(desk.a, command({"TALLY.LEASE", "special", "free:1", "1", "5"}))) == Numbers{0, 10, 10, -1, 0, 6, 0, 0, 0});
    CHECK(numbers_in(desk.say(desk.a, command({"TALLY.LEASE", "special", "10.1.2.3", "1", "5"}))) == Numbers{1, 0, 0, -1, 0, 5, 0, 0, 0});
    CHECK(numbers_in(desk.say(desk.a, command({"TALLY.LEASE", "special", "free:1", "0", "5"})))[6] == 0);
    CHECK(desk.say(desk.a, command({"TALLY.PUTBACK", "special", "free:1", "5", "1"})) == ":0\r\n");
    CHECK(desk.overview.leased(rule) == 0);
  }
}

TEST_CASE("a blocked key of a rule in shadow is let through") {
  Desk desk = desk_of(false);
  CHECK(numbers_in(desk.say(desk.a, command({"TALLY.TAKE", "tried", "10.1.2.3"}))).back() == 4);
  CHECK(numbers_in(desk.say(desk.a, command({"TALLY.TAKE", "tried", "free:1"}))).back() == 6);
  const uint16_t rule = desk.rules->find("tried")->id;
  CHECK(desk.overview.decisions(rule, Outcome::shadow_limited) == 1);
  CHECK(desk.overview.decisions(rule, Outcome::exempt) == 1);
}

TEST_CASE("a key with a limit of its own is counted by that, and the others by the rule's") {
  Desk desk = desk_of(false);
  int vip = 0, other = 0;
  for (int i = 0; i < 30; ++i) {
    vip += is_admitted(desk.say(desk.a, take("special", "vip")));
    other += is_admitted(desk.say(desk.a, take("special", "other")));
  }
  CHECK(vip == 20);
  CHECK(other == 10);
}

TEST_CASE("what an override says is explained, with its entry and its bound") {
  Desk desk = desk_of(false);
  const auto explain = [&](const char* key) { return desk.say(desk.a, command({"TALLY.EXPLAIN", "special", key})); };
  const auto has = [](const std::string& reply, std::string_view text) { return reply.find(text) != std::string::npos; };
  CHECK_FALSE(has(explain("other"), "override"));
  CHECK(has(explain("vip"), "$8\r\noverride\r\n$3\r\nvip\r\n"));
  CHECK(has(explain("vip"), "$5\r\nbound\r\n:20\r\n"));
  CHECK(has(explain("free:1"), "$8\r\noverride\r\n$5\r\nfree*\r\n"));
  CHECK_FALSE(has(explain("free:1"), "bound"));
  CHECK(has(explain("10.1.2.3"), "$8\r\noverride\r\n$10\r\n10.0.0.0/8\r\n"));
  CHECK(has(explain("10.1.2.3"), "$5\r\nbound\r\n:0\r\n"));
  CHECK(has(explain("10.1.2.3"), "blocked by an override of the rule"));
}

TEST_CASE("of several takes an exempt one counts nothing, and a blocked one refuses all") {
  for (const bool fleet : {false, true}) {
    CAPTURE(fleet);
    Desk desk = desk_of(fleet);
    if (fleet) {
      CHECK(desk.say(desk.a, take("plain", "k")) == "");
      desk.grant("plain", "k", 15);
      CHECK(is_admitted(desk.read(desk.a)));
    } else {
      CHECK(is_admitted(desk.say(desk.a, take("plain", "k"))));
    }
    const auto all = [&](const char* key) { return numbers_in(desk.say(desk.a, command({"TALLY.TAKEALL", "plain", "k", "2", "special", key, "1"}))); };
    const Numbers through = all("free:1");
    REQUIRE(through.size() == 14);
    CHECK(Numbers(through.begin(), through.begin() + 2) == Numbers{0, -1});
    CHECK(through[4] == 12);  // of 15
    CHECK(Numbers(through.begin() + 8, through.end()) == Numbers{0, 10, 10, -1, 0, 6});
    const Numbers refused = all("10.1.2.3");
    REQUIRE(refused.size() == 14);
    CHECK(Numbers(refused.begin(), refused.begin() + 2) == Numbers{1, 1});
    CHECK(refused[4] == 12);  // nothing was taken
    CHECK(Numbers(refused.begin() + 8, refused.end()) == Numbers{1, 0, 0, -1, 0, 5});
    CHECK(desk.overview.decisions(desk.rules->find("special")->id, Outcome::exempt) == 1);
    CHECK(desk.overview.decisions(desk.rules->find("special")->id, Outcome::blocked) == 1);
    CHECK(desk.overview.decisions(desk.rules->find("plain")->id, Outcome::admitted) == 2);
    CHECK(desk.overview.waiting == 0);
  }
}

TEST_CASE("a take of several is by the limit that holds for each key") {
  Desk desk = desk_of(false);
  const std::string both = command({"TALLY.TAKEALL", "special", "vip", "11", "special", "other", "1"});
  CHECK(numbers_in(desk.say(desk.a, both)).front() == 0);  // more than the rule's 10
  CHECK(numbers_in(desk.say(desk.a, both)).front() == 1);
  CHECK(numbers_in(desk.say(desk.a, command({"TALLY.PEEK", "special", "vip"})))[2] == 9);
}

TEST_CASE("a rule that takes others along takes them along for exempt keys, too, and none for blocked ones") {
  Desk desk = desk_of(false);
  int admitted = 0;
  for (int i = 0; i < 20; ++i) admitted += is_admitted(desk.say(desk.a, take("along", "free:1")));
  CHECK(admitted == 15);  // of "plain"
  CHECK(numbers_in(desk.say(desk.a, take("along", "10.1.2.3"))).back() == 5);
  CHECK(numbers_in(desk.say(desk.a, command({"TALLY.PEEK", "plain", "10.1.2.3"})))[2] == 15);
  CHECK(numbers_in(desk.say(desk.a, command({"TALLY.PEEK", "along", "10.1.2.3"}))).back() == 5);
  desk.say(desk.a, command({"TALLY.GIVE", "along", "free:1", "3"}));
  CHECK(numbers_in(desk.say(desk.a, command({"TALLY.PEEK", "plain", "free:1"})))[2] == 3);
}
