// Typed answers -> RESP replies.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "commands_fixture.h"
#include "core/calendar.h"

using namespace tally;
using namespace tally::test;

TEST_CASE("the seconds of CL.THROTTLE are true ceilings") {
  CHECK(throttle_text(answer_of(Verdict::admitted, 16, 15, -1ns, 2s)) ==
        "*5\r\n:0\r\n:16\r\n:15\r\n:-1\r\n:2\r\n");
  CHECK(throttle_text(answer_of(Verdict::over_limit, 16, 0, 1ns, 31s + 1ns)) ==
        "*5\r\n:1\r\n:16\r\n:0\r\n:1\r\n:32\r\n");
  CHECK(throttle_text(answer_of(Verdict::over_limit, 16, 0, 1s, 32s)) ==
        "*5\r\n:1\r\n:16\r\n:0\r\n:1\r\n:32\r\n");
  CHECK(throttle_text(answer_of(Verdict::over_limit, 16, 0, 1s + 1ns, 32s)) ==
        "*5\r\n:1\r\n:16\r\n:0\r\n:2\r\n:32\r\n");
  CHECK(throttle_text(answer_of(Verdict::over_limit, 16, 3, -1ns, 0s)) ==
        "*5\r\n:1\r\n:16\r\n:3\r\n:-1\r\n:0\r\n");
  CHECK(throttle_text(answer_of(Verdict::starved, 16, 3, 0ns, 0s)) ==
        "*5\r\n:1\r\n:16\r\n:3\r\n:1\r\n:0\r\n");
  CHECK(throttle_text(answer_of(Verdict::admitted, 16, 15, 5s, 2s)) ==
        "*5\r\n:0\r\n:16\r\n:15\r\n:-1\r\n:2\r\n");
}

TEST_CASE("the six numbers are in milliseconds, with the reason") {
  CHECK(six_text(answer_of(Verdict::admitted, 20, 19, -1ns, 12s), Reason::admitted) ==
        "*6\r\n:0\r\n:20\r\n:19\r\n:-1\r\n:12000\r\n:0\r\n");
  CHECK(six_text(answer_of(Verdict::over_limit, 20, 0, 600ms + 1ns, 1ns), Reason::over_limit) ==
        "*6\r\n:1\r\n:20\r\n:0\r\n:601\r\n:1\r\n:1\r\n");
  CHECK(six_text(answer_of(Verdict::starved, 20, 0, 0ns, 0ns), Reason::no_grant) ==
        "*6\r\n:1\r\n:20\r\n:0\r\n:1\r\n:0\r\n:2\r\n");
  CHECK(six_text(answer_of(Verdict::isolated, 20, 0, 100ms, 0ns), Reason::isolated) ==
        "*6\r\n:1\r\n:20\r\n:0\r\n:100\r\n:0\r\n:3\r\n");
  CHECK(six_text(answer_of(Verdict::over_limit, kLimitMax, 0, 600ms, 1s), Reason::shadow) ==
        "*6\r\n:0\r\n:2147483648\r\n:0\r\n:-1\r\n:1000\r\n:4\r\n");
  CHECK(six_text(answer_of(Verdict::over_limit, 20, 0, -1ns, 1s), Reason::blocked) ==
        "*6\r\n:1\r\n:20\r\n:0\r\n:-1\r\n:1000\r\n:5\r\n");
  CHECK(six_text(answer_of(Verdict::over_limit, 20, 0, -1ns, 1s), Reason::exempt) ==
        "*6\r\n:0\r\n:20\r\n:0\r\n:-1\r\n:1000\r\n:6\r\n");
}

TEST_CASE("a lease has the six, then what was taken, for how many microseconds, and the account") {
  std::string out;
  Writer writer(out, 2);
  write_lease(writer, answer_of(Verdict::admitted, 100, 57, -1ns, 2s), Reason::admitted, {25, 1999ns, 1234567890123});
  CHECK(out == "*9\r\n:0\r\n:100\r\n:57\r\n:-1\r\n:2000\r\n:0\r\n:25\r\n:1\r\n:1234567890123\r\n");
  out.clear();
  write_lease(writer, answer_of(Verdict::starved, 100, 57, 100ms, 2s), Reason::no_grant, {0, -5ms, 0});
  CHECK(out == "*9\r\n:1\r\n:100\r\n:57\r\n:100\r\n:2000\r\n:2\r\n:0\r\n:0\r\n:0\r\n");
}

TEST_CASE("a reason follows from the verdict, and a rule in shadow lets through with its own") {
  const RuleSet rules = make_rules();
  const Rule& api = *rules.find("api");
  const Rule& feed = *rules.find("feed");
  const auto answer = [](Verdict verdict, uint32_t remaining = 0) {
    return answer_of(verdict, 9, remaining, 1s, 1s);
  };
  CHECK(reason_of(answer(Verdict::admitted), api) == Reason::admitted);
  CHECK(reason_of(answer(Verdict::over_limit), api) == Reason::over_limit);
  CHECK(reason_of(answer(Verdict::starved, 4), api) == Reason::no_grant);
  CHECK(reason_of(answer(Verdict::isolated), api) == Reason::isolated);
  CHECK(reason_of(answer(Verdict::admitted), feed) == Reason::admitted);
  for (const Verdict verdict : {Verdict::over_limit, Verdict::starved, Verdict::isolated}) {
    CHECK(reason_of(answer(verdict), feed) == Reason::shadow);
  }
  CHECK(reason_of_peek(answer(Verdict::starved, 4), api) == Reason::admitted);
  CHECK(reason_of_peek(answer(Verdict::starved, 0), api) == Reason::no_grant);
  CHECK(reason_of_peek(answer(Verdict::over_limit, 0), api) == Reason::over_limit);
}

TEST_CASE("a peek tells what is there now, and what a take of 1 would be told") {
  const Answer state = answer_of(Verdict::admitted, 16, 1, -1ns, 30s);
  CHECK(six_text(peeked(answer_of(Verdict::admitted, 16, 0, -1ns, 32s), state), Reason::admitted) ==
        "*6\r\n:0\r\n:16\r\n:1\r\n:-1\r\n:30000\r\n:0\r\n");
  const Answer none = answer_of(Verdict::admitted, 16, 0, -1ns, 32s);
  CHECK(six_text(peeked(answer_of(Verdict::over_limit, 16, 0, 2s, 32s), none), Reason::over_limit) ==
        "*6\r\n:1\r\n:16\r\n:0\r\n:2000\r\n:32000\r\n:1\r\n");
}

TEST_CASE("an answer is written in the form that was asked for") {
  Client client;
  const Answer starved = answer_of(Verdict::starved, 16, 3, 100ms, 0s);
  const auto written = [&](Words words) {
    client.ask(std::move(words));
    std::string out;
    Writer writer(out, client.request.version);
    write_answer(writer, client.request, starved);
    return out;
  };
  CHECK(written({"CL.THROTTLE", "u", "15", "30", "60"}) == "*5\r\n:1\r\n:16\r\n:3\r\n:1\r\n:0\r\n");
  CHECK(written({"TALLY.TAKE", "api", "u"}) == "*6\r\n:1\r\n:16\r\n:3\r\n:100\r\n:0\r\n:2\r\n");
  CHECK(written({"TALLY.PEEK", "api", "u"}) == "*6\r\n:0\r\n:16\r\n:3\r\n:-1\r\n:0\r\n:0\r\n");
}

TEST_CASE("maps are flat arrays in RESP2, and keep their types in RESP3") {
  const std::vector<Field> fields{{"owner", std::string("10.0.0.1:8381")},
                                  {"ballot", int64_t{3}},
                                  {"isolated", false},
                                  {"ratio", 0.5},
                                  {"group", std::vector<std::string>{"a", "b"}}};
  std::string out;
  Writer two(out, 2);
  write_map(two, fields);
  CHECK(out ==
        "*10\r\n$5\r\nowner\r\n$13\r\n10.0.0.1:8381\r\n$6\r\nballot\r\n:3\r\n$8\r\nisolated\r\n:0\r\n"
        "$5\r\nratio\r\n$3\r\n0.5\r\n$5\r\ngroup\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n");
  out.clear();
  Writer three(out, 3);
  write_map(three, fields);
  CHECK(out ==
        "%5\r\n$5\r\nowner\r\n$13\r\n10.0.0.1:8381\r\n$6\r\nballot\r\n:3\r\n$8\r\nisolated\r\n#f\r\n"
        "$5\r\nratio\r\n,0.5\r\n$5\r\ngroup\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n");
  out.clear();
  const std::vector<Row> rows{{"x", {{"a", int64_t{1}}}}, {"y", {}}};
  write_table(three, rows);
  CHECK(out == "%2\r\n$1\r\nx\r\n%1\r\n$1\r\na\r\n:1\r\n$1\r\ny\r\n%0\r\n");
}

TEST_CASE("TALLY.RULES tells what each rule says and what it promises here") {
  Client client;
  const auto rows = describe_rules(client.rules);
  REQUIRE(rows.size() == 4);
  const auto field = [&](size_t row, std::string_view name) {
    for (const Field& f : rows[row].fields) {
      if (f.name == name) return f.value;
    }
    return Value{std::string("(none)")};
  };
  CHECK(rows[0].name == "api");
  CHECK(field(0, "algorithm") == Value{std::string("sliding_window")});
  CHECK(field(0, "limit") == Value{int64_t{1000}});
  CHECK(field(0, "window_ms") == Value{int64_t{60'000}});
  CHECK(field(0, "max_overcount") == Value{0.05});
  CHECK(field(0, "bound") == Value{int64_t{1050}});
  CHECK(field(0, "bound_isolated") == Value{int64_t{2050}});
  CHECK(field(0, "floor") == Value{int64_t{17}});  // 50 over 3 nodes, rank 0
  CHECK(field(1, "bound") == Value{int64_t{5}});
  CHECK(field(1, "on_isolation") == Value{std::string("closed")});
  CHECK(field(2, "rate_count") == Value{int64_t{50}});
  CHECK(field(2, "rate_period_ms") == Value{int64_t{1000}});
  CHECK(field(2, "max_overcount") == Value{std::string("unbounded")});
  CHECK(field(2, "shadow") == Value{true});
  CHECK(rows[3].name == "(inline)");
  CHECK(field(3, "limit") == Value{std::string("(none)")});
  CHECK(field(3, "wait_ms") == Value{int64_t{20}});

  const std::string reply = client.ask({"TALLY.RULES"});
  CHECK(client.request.kind == Kind::answered);
  CHECK(reply.starts_with("*8\r\n$3\r\napi\r\n"));
  CHECK(reply_size(reply) == reply.size());
}

TEST_CASE("TALLY.RULES has a calendar window by its word, as it has no length") {
  Rule rule;
  rule.name = "quota";
  rule.limit = {.algorithm = Algorithm::fixed_window, .limit = 1000, .window = kMonth};
  const RuleSet rules({rule}, Rule{}, Share{}, kPublicIdKey);
  const std::vector<Row> rows = describe_rules(rules);
  const auto has = [&](std::string_view name) { return std::ranges::find(rows[0].fields, name, &Field::name); };
  REQUIRE(has("window") != rows[0].fields.end());
  CHECK(has("window")->value == Value{std::string("month")});
  CHECK(has("window_ms") == rows[0].fields.end());
}

TEST_CASE("a sentence says what the answer would be and why") {
  const RuleSet rules = make_rules();
  const Rule& api = *rules.find("api");
  CHECK(sentence(answer_of(Verdict::admitted, 100, 12, -1ns, 1s), api, false) == "admitted: 12 of 100 left");
  CHECK(sentence(answer_of(Verdict::over_limit, 100, 0, 600ms, 1s), api, false) ==
        "limited: the limit of 100 is used up; try again in 600 ms");
  CHECK(sentence(answer_of(Verdict::over_limit, 100, 0, 600ms, 1s), *rules.find("feed"), false) ==
        "limited: the limit of 100 is used up; try again in 600 ms (the rule is in shadow: let through)");
  CHECK(sentence(answer_of(Verdict::isolated, 100, 0, -1ns, 1s), api, false) ==
        "limited: nothing is left of what this node may admit by itself, and no owner can be asked");
  CHECK(sentence(answer_of(Verdict::starved, 100, 12, -1ns, 1s), api, false) ==
        "waits for a grant of the owner, 20 ms at most: 12 of 100 left, as far as is known");
  CHECK(sentence(answer_of(Verdict::blocked, 0, 0, -1ns, 0s), api, false) == "blocked by an override of the rule");
  CHECK(sentence(answer_of(Verdict::blocked, 0, 0, 600ms, 600ms), api, true) == "blocked by an order");
  CHECK(sentence(answer_of(Verdict::exempt, 100, 100, -1ns, 0s), api, false) == "exempt by an override of the rule: all is admitted, and nothing counted");
  CHECK(sentence(answer_of(Verdict::exempt, 100, 100, -1ns, 0s), api, true) == "allowed by an order: all is admitted, and nothing counted");
}
