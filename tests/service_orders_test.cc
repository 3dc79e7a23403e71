// What a worker's service makes of orders of single keys, and to whom it hands them.
#include "core/order_table.h"
#include "service_fixture.h"

using namespace tally;
using namespace tally::test;

TEST_CASE("what is ordered of a key goes before its rule until it is over, and others notice nothing") {
  for (const bool fleet : {false, true}) {
    Desk desk({1024, 1'048'576, 100, ms(100)}, fleet);
    const Rule& wide = *desk.rules->find("wide");
    const auto table = std::make_shared<OrderTable>();
    const auto order = [&](std::string_view key, Treatment treatment, Duration lasts, uint32_t limit) {
      table->put({desk.limiter.hash(wide, key), treatment, with_number(wide, desk.rules->share(), limit),
                  desk.clock.now().wall + lasts});
    };
    order("blocked", Treatment::blocked, std::chrono::hours(1), wide.limit.limit);
    order("allowed", Treatment::exempt, std::chrono::hours(1), wide.limit.limit);
    order("limited", Treatment::limited, std::chrono::hours(1), 7);
    order("over", Treatment::blocked, -secs(1), wide.limit.limit);
    desk.service.use(table);
    const auto reason = [&](std::string_view key) {
      return desk.say(desk.a, command({"TALLY.PEEK", "wide", key}));
    };
    const auto ends = [](const std::string& reply, std::string_view with) { return reply.ends_with(with); };
    CHECK(ends(desk.say(desk.a, take("wide", "blocked")), ":5\r\n"));
    CHECK(ends(desk.say(desk.a, take("wide", "allowed", "100001")), ":6\r\n"));
    CHECK(ends(reason("blocked"), ":5\r\n"));
    CHECK(reason("limited").starts_with("*6\r\n:0\r\n:7\r\n"));
    CHECK(reason("over").starts_with("*6\r\n:0\r\n:100000\r\n"));
    CHECK(reason("others").starts_with("*6\r\n:0\r\n:100000\r\n"));
    CHECK(desk.overview.decisions(wide.id, Outcome::blocked) == 1);
    CHECK(desk.overview.decisions(wide.id, Outcome::exempt) == 1);
    CHECK(desk.notes() == 0);
    // In one buffer with others, by the short way that repeated commands go.
    const std::string replies = desk.say(desk.a, command({"TALLY.PEEK", "wide", "others"}) +
                                                     command({"TALLY.PEEK", "wide", "blocked"}) +
                                                     command({"TALLY.PEEK", "wide", "others"}));
    CHECK(replies.find(":5\r\n*6\r\n:0\r\n:100000\r\n") != std::string::npos);
    CHECK(reason("limited").starts_with("*6\r\n:0\r\n:7\r\n"));
    CHECK(reason("others").starts_with("*6\r\n:0\r\n:100000\r\n"));
    // Among several takes, too: one that is blocked refuses all, one that is exempt refuses nothing.
    const std::string all =
        desk.say(desk.a, command({"TALLY.TAKEALL", "wide", "allowed", "1", "wide", "blocked", "1"}));
    CHECK(all.starts_with("*4\r\n:1\r\n:1\r\n"));
    CHECK(all.ends_with(":5\r\n"));
    desk.service.use(std::shared_ptr<const OrderTable>());
    CHECK(reason("blocked").starts_with("*6\r\n:0\r\n:100000\r\n"));
  }
}

TEST_CASE(
    "a rule that nothing is taken from has its word where it blocks a key or exempts it, by an override or "
    "an order") {
  Desk desk({1024, 1'048'576, 100, ms(100)}, false, {special("special"), named("plain", ms(0))});
  const Rule &special_rule = *desk.rules->find("special"), &plain = *desk.rules->find("plain");
  const auto table = std::make_shared<OrderTable>();
  const auto order = [&](std::string_view key, Treatment treatment) {
    table->put({desk.limiter.hash(special_rule, key), treatment, special_rule.limit,
                desk.clock.now().wall + secs(60)});
  };
  order("ordered-off", Treatment::blocked);
  order("ordered-free", Treatment::exempt);
  order("free-but-off", Treatment::blocked);
  desk.service.use(table);
  // What becomes of a part of `rule` beside that.
  const auto asked = [&](const Rule& rule, std::string_view key, Treatment by_request = Treatment::limited) {
    auto question = std::make_unique<Question>();
    question->rules = desk.rules;
    Question::Part& part = question->parts.emplace_back();
    part.rule = &rule;
    part.limit = plain.limit;
    part.limit.limit = 1;
    part.treatment = by_request;
    part.key = "entries";
    question->gates.push_back({&special_rule, std::string(key), 0});
    resp::Reason reason{};
    question->done = [&](std::unique_ptr<Question> answered) { reason = answered->parts[0].reason; };
    desk.service.ask(std::move(question));
    return reason;
  };
  const Rule& inline_rule = desk.rules->inline_rule();
  using resp::Reason;
  for (const Rule* rule : {&inline_rule, &plain}) {
    CHECK(asked(*rule, "10.1.2.3") == Reason::blocked);
    CHECK(asked(*rule, "ordered-off") == Reason::blocked);
    CHECK(asked(*rule, "free-but-off") == Reason::blocked);
    CHECK(asked(*rule, "bob") == Reason::admitted);
    CHECK(asked(*rule, "bob") == Reason::over_limit);
  }
  for (const char* key : {"free:1", "ordered-free"}) {
    CHECK(asked(inline_rule, key) == Reason::exempt);
    CHECK(asked(inline_rule, key, Treatment::blocked) == Reason::exempt);  // the request has a limit of 0
    CHECK(asked(plain, key) == Reason::over_limit);
  }
}

TEST_CASE("a node alone hands orders to main, and a fleet's to its cluster thread") {
  Desk alone({1024, 1'048'576, 100, ms(100)}, false), fleet;
  CHECK(alone.say(alone.a, command({"TALLY.LIMIT", "wide", "bob", "7", "1500"})) == "");
  REQUIRE(alone.handed_out != nullptr);
  CHECK(alone.handed_out->kind == Call::Kind::order);
  CHECK(alone.handed_out->ordered == OrderKind::limit);
  CHECK(alone.handed_out->n == 7);
  CHECK(alone.handed_out->lasts == ms(1500));
  CHECK(alone.handed_out->key == "bob");
  alone.handed_out->error = "no";
  alone.service.finish(std::move(alone.handed_out));
  CHECK(Desk::read(alone.a) == "-ERR no\r\n");

  CHECK(fleet.say(fleet.a, command({"TALLY.LIFT", "wide", "bob"}) + command({"TALLY.BLOCKS"})) == "");
  Call* call = nullptr;
  REQUIRE(fleet.port.calls.pop(call));
  CHECK(call->kind == Call::Kind::lift);
  call->count = 1;
  fleet.service.finish(std::unique_ptr<Call>(call));
  REQUIRE(fleet.port.calls.pop(call));
  KeyOrder order;
  order.rule = "wide";
  order.key = "bob";
  order.kind = OrderKind::block;
  order.until_ns = nanos(fleet.clock.now().wall) - 1;  // over by now
  call->orders = {order};
  fleet.service.finish(std::unique_ptr<Call>(call));
  CHECK(Desk::read(fleet.a) ==
        ":1\r\n*1\r\n*8\r\n$4\r\nrule\r\n$4\r\nwide\r\n$3\r\nkey\r\n$3\r\nbob\r\n$5\r\norder\r\n$"
        "5\r\nblock\r\n$6\r\nfor_ms\r\n:0\r\n");
}
