// HTTP requests to questions, and answers to HTTP replies: what a worker stands between.
#include <string>
#include <string_view>

#include "commands_fixture.h"
#include "doctest/doctest.h"
#include "doors/http_replies.h"
#include "doors/http_requests.h"

using namespace tally;
using namespace tally::test;
using HttpKind = http::Form::Kind;

namespace {

constexpr std::string_view kDate = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

struct Door {
  Client about;  // rules and environment
  http::Parser parser;
  Request request;
  std::string reply, key, bytes;
  bool may_operate = true, ready = true;

  // The reply, or "" where the request waits for somebody to decide.
  std::string ask(std::string text) {
    bytes = std::move(text);
    reply.clear();
    REQUIRE(parser.next(bytes) == http::Parse::request);
    http::read_request(parser.message, {about.env, may_operate, ready, "<page>", kDate}, request, reply, key);
    CHECK(reply.empty() == (request.kind != Kind::answered));
    return reply;
  }
  std::string get(std::string_view target, std::string_view fields = "", std::string_view method = "GET") {
    return ask(std::string(method)
                   .append(" ")
                   .append(target)
                   .append(" HTTP/1.1\r\nHost: x\r\n")
                   .append(fields)
                   .append("\r\n"));
  }
  std::string post(std::string_view path, std::string_view body) {
    return ask("POST " + std::string(path) + " HTTP/1.1\r\nHost: x\r\nContent-Length: " +
               std::to_string(body.size()) + "\r\n\r\n" + std::string(body));
  }
};

int status_of(std::string_view reply) {
  return reply.size() > 12 ? std::stoi(std::string(reply.substr(9, 3))) : 0;
}
std::string body_of(std::string_view reply) { return std::string(reply.substr(reply.find("\r\n\r\n") + 4)); }
bool says(std::string_view reply, std::string_view part) {
  return reply.find(part) != std::string_view::npos;
}

std::string written(const Rule& rule, const Answer& answer, Reason reason, http::Form form) {
  std::string out;
  http::Writer(out, form, kDate).answer(rule, rule.limit, answer, reason);
  return out;
}

}  // namespace

TEST_CASE("GET /v1/auth asks for what its query says") {
  Door door;
  CHECK(door.get("/v1/auth?rule=api&key=user:1") == "");
  CHECK(door.request.kind == Kind::take);
  CHECK(door.request.rule->name == "api");
  CHECK(door.request.key == "user:1");
  CHECK(door.request.cost == 1);
  CHECK(door.request.http.kind == HttpKind::auth);
  CHECK_FALSE(door.request.http.too_many);
  CHECK_FALSE(door.request.close);

  CHECK(door.get("/v1/auth?deny=429&cost=7&key=a%20%26b&rule=%61pi") == "");
  CHECK(door.request.rule->name == "api");
  CHECK(door.request.key == "a &b");
  CHECK(door.request.cost == 7);
  CHECK(door.request.http.too_many);

  CHECK(door.get("/v1/auth?rule=api&key=k&cost=0", "Connection: close\r\n") == "");
  CHECK(door.request.kind == Kind::peek);
  CHECK(door.request.close);
  CHECK(door.request.http.close);
  CHECK(door.get("/v1/auth?rule=api&key=k&cost=9223372036854775807") == "");
  CHECK(door.request.cost == UINT32_MAX);
}

TEST_CASE("rule and key may come in headers, and what stands in the query goes before") {
  Door door;
  CHECK(door.get("/v1/auth", "X-Tally-Rule: login\r\nX-Tally-Key: a%20b\r\n") == "");
  CHECK(door.request.rule->name == "login");
  CHECK(door.request.key == "a%20b");
  CHECK(door.get("/v1/auth?rule=api&key=k", "X-Tally-Rule: login\r\nX-Tally-Key: other\r\n") == "");
  CHECK(door.request.rule->name == "api");
  CHECK(door.request.key == "k");
}

TEST_CASE("POST /v1/take asks for what its body says") {
  Door door;
  CHECK(door.post("/v1/take", R"( {"rule": "api", "key": "us\u00e9r\n"} )") == "");
  CHECK(door.request.kind == Kind::take);
  CHECK(door.request.key == "us\xc3\xa9r\n");
  CHECK(door.request.cost == 1);
  CHECK(door.request.http.kind == HttpKind::json);
  CHECK(door.post("/v1/take", R"({"cost": 99999999999, "rule": "feed", "key": "k"})") == "");
  CHECK(door.request.cost == UINT32_MAX);
  CHECK(door.post("/v1/take", R"({"cost": 0, "rule": "feed", "key": "k"})") == "");
  CHECK(door.request.kind == Kind::peek);
}

TEST_CASE("a list of takes is all of them or none, with their keys as they are") {
  Door door;
  CHECK(
      door.post(
          "/v1/take",
          R"([{"rule": "api", "key": "k\u00e9"}, {"key": "k", "cost": 7, "rule": "login"}, {"rule": "api", "key": "l", "cost": 0}])") ==
      "");
  CHECK(door.request.kind == Kind::take_all);
  CHECK(door.request.http.kind == HttpKind::all);
  CHECK(door.request.key.empty());
  REQUIRE(door.request.parts.size() == 3);
  CHECK(door.request.parts[0].rule->name == "api");
  CHECK(door.request.parts[0].key == "k\xc3\xa9");
  CHECK(door.request.parts[0].cost == 1);
  CHECK(door.request.parts[1].rule->name == "login");
  CHECK(door.request.parts[1].key == "k");
  CHECK(door.request.parts[1].cost == 7);
  CHECK(door.request.parts[2].key == "l");
  CHECK(door.request.parts[2].cost == 0);
}

TEST_CASE("what is wrong with a question is said as a problem that says what to do") {
  Door door;
  const auto wrong = [&](const std::string& reply, int status, Fault fault, std::string_view detail) {
    CAPTURE(reply);
    CHECK(status_of(reply) == status);
    CHECK(door.request.fault == fault);
    CHECK(says(reply, "Content-Type: application/problem+json\r\n"));
    CHECK(says(body_of(reply), "\"title\":"));
    CHECK(says(body_of(reply), detail));
  };
  const auto argument = [&](const std::string& reply, std::string_view detail) {
    wrong(reply, 400, Fault::arguments, detail);
  };
  argument(door.get("/v1/auth?key=k"), "rule is missing");
  for (const char* headers :
       {"", "X-Tally-Rule: login\r\nX-Tally-Key: k\r\n"})  // which empty ones do not stand for
    for (const char* path : {"/v1/auth", "/v1/explain"}) {
      argument(door.get(std::string(path) + "?rule=&key=k", headers), "rule is missing or empty");
      argument(door.get(std::string(path) + "?rule&key=k", headers), "rule is missing or empty");
      argument(door.get(std::string(path) + "?rule=api&key=", headers),
               "a key must have 1 to 32 bytes, got 0");
      argument(door.get(std::string(path) + "?rule=api&key", headers),
               "a key must have 1 to 32 bytes, got 0");
    }
  argument(door.get("/v1/auth?rule=api&key=k&cost="), "cost must be a whole number, 0 or more, got ''");
  argument(door.get("/v1/auth?rule=api&key=k&deny="), "deny must be 403 or 429, got ''");
  argument(door.get("/v1/auth?rule=api&key=&key=k"), "two parameters 'key'");
  argument(door.get("/v1/auth?rule=api"), "a key must have 1 to 32 bytes, got 0");
  argument(door.get("/v1/auth?rule=api&key=" + std::string(33, 'k')),
           "a key must have 1 to 32 bytes, got 33");
  argument(door.get("/v1/auth?rule=api&key=%6"), "hexadecimal");
  argument(door.get("/v1/auth?rule=api&kee=k"), "unknown parameter 'kee'; did you mean 'key'?");
  argument(door.get("/v1/auth?rule=api&zzzzzzzz"), "there are rule, key, cost and deny");
  argument(door.get("/v1/explain?rule=api&key=k&cost=1"), "unknown parameter 'cost'");
  argument(door.get("/v1/auth?rule=api&key=k&key=k"), "two parameters 'key'");
  argument(door.get("/v1/auth?rule=api&key=k&cost=-1"), "cost must be a whole number, 0 or more, got '-1'");
  argument(door.get("/v1/auth?rule=api&key=k&deny=500"), "deny must be 403 or 429, got '500'");
  wrong(door.get("/v1/auth?rule=lgoin&key=k"), 404, Fault::unknown_rule,
        "no rule 'lgoin'; did you mean 'login'?");
  wrong(door.get("/v1/auth?rule=(inline)&key=k"), 404, Fault::unknown_rule, "no limit of its own");

  argument(door.post("/v1/take", "{\"rule\": x}"), "not JSON: see byte 10");
  argument(door.post("/v1/take", ""), "not JSON");
  argument(door.post("/v1/take", "\"api\""), "must be a JSON object");
  argument(door.post("/v1/take", R"({"key": "k"})"), "rule is missing");
  argument(door.post("/v1/take", R"({"rule": "api"})"), "key is missing");
  argument(door.post("/v1/take", R"({"rule": 1, "key": "k"})"), "rule must be a string");
  argument(door.post("/v1/take", R"({"rule": "api", "key": "k", "cots": 1})"),
           "unknown field 'cots'; did you mean 'cost'?");
  argument(door.post("/v1/take", R"({"rule": "api", "key": "k", "key": "l"})"), "two fields 'key'");
  argument(door.post("/v1/take", R"({"rule": "api", "key": "k", "cost": 1.5})"),
           "cost must be a whole number");
  argument(door.post("/v1/take", R"({"rule": "api", "key": "k", "cost": -1})"),
           "cost must be a whole number");
  argument(door.post("/v1/take", R"({"rule": "api", "key": "k", "cost": 1e999})"), "too large");
  argument(door.post("/v1/take", "{\"rule\": \"api\", \"key\": \"\xff\"}"), "not JSON");
  argument(door.post("/v1/take", std::string(60'000, '[')), "not JSON");
  wrong(door.post("/v1/take", R"({"rule": "apj", "key": "k"})"), 404, Fault::unknown_rule,
        "did you mean 'api'?");
  argument(door.post("/v1/take", "[]"), "a list must have 1 to 128 takes, got 0");
  argument(door.post("/v1/take", R"([{"rule": "api", "key": "k"}, 7])"), "[1]: must be a JSON object");
  argument(door.post("/v1/take", R"([{"rule": "api", "key": "k"}, {"rule": "api"}])"), "[1]: key is missing");
  argument(door.post("/v1/take", R"([{"rule": "api", "key": "k", "cost": -2}])"),
           "[0]: cost must be a whole number");
  argument(door.post("/v1/take", R"([{"rule": "api", "key": "k"}, {"rule": "api", "key": "k", "key": "l"}])"),
           "two fields 'key'");
  argument(door.post("/v1/reset", R"([{"rule": "api", "key": "k"}])"), "the body must be a JSON object");
  wrong(door.post("/v1/take", R"([{"rule": "api", "key": "k"}, {"rule": "apj", "key": "k"}])"), 404,
        Fault::unknown_rule, "[1]: no rule 'apj'");
  CHECK(door.request.parts.empty());
  wrong(door.ask("POST /v1/take HTTP/1.1\r\nHost: x\r\n\r\n"), 411, Fault::arguments, "Content-Length");

  wrong(door.get("/v1/atuh"), 404, Fault::unknown_command,
        "there is no '/v1/atuh'; did you mean '/v1/auth'?");
  wrong(door.get("/elsewhere/altogether"), 404, Fault::unknown_command, "there are /v1/auth, /v1/take");
  wrong(door.get("/v1/take"), 405, Fault::unknown_command, "POST only");
  CHECK(says(door.reply, "\r\nAllow: POST\r\n"));
  wrong(door.get("/metrics", "", "DELETE"), 405, Fault::unknown_command, "GET or HEAD only");
  CHECK(says(door.reply, "\r\nAllow: GET, HEAD\r\n"));
}

TEST_CASE("what changes the state is served where it may be, and nowhere else") {
  Door door;
  CHECK(door.post("/v1/reset", R"x({"rule": "(inline)", "key": "k"})x") == "");
  CHECK(door.request.kind == Kind::reset);
  CHECK(door.request.barrier);
  CHECK(door.ask("POST /v1/reload HTTP/1.1\r\nHost: x\r\n\r\n") == "");
  CHECK(door.request.kind == Kind::reload);
  CHECK(door.request.barrier);
  door.may_operate = false;
  CHECK(status_of(door.post("/v1/reset", R"({"rule": "api", "key": "k"})")) == 403);
  CHECK(status_of(door.post("/v1/reload", "")) == 403);
  CHECK(door.request.fault == Fault::authentication);
  CHECK(door.post("/v1/take", R"({"rule": "api", "key": "k"})") == "");
}

TEST_CASE("the other endpoints") {
  Door door;
  CHECK(body_of(door.get("/healthz")) == "ok\n");
  CHECK(status_of(door.get("/readyz")) == 200);
  door.ready = false;
  CHECK(status_of(door.get("/readyz")) == 503);
  CHECK(status_of(door.get("/healthz")) == 200);
  CHECK(body_of(door.get("/")) == "<page>");
  CHECK(says(door.get("/v1/rules"), "{\"api\":{\"algorithm\":\"sliding_window\",\"limit\":1000,"));
  CHECK(door.get("/v1/explain?rule=(inline)&key=k") == "");
  CHECK(door.request.kind == Kind::explain);
  CHECK(door.get("/v1/peers") == "");
  CHECK(door.request.kind == Kind::peers);
  CHECK(door.get("/v1/stats") == "");
  CHECK(door.request.kind == Kind::stats);
  CHECK(door.get("/v1/top?rule=%6Cogin&n=1000") == "");
  CHECK((door.request.kind == Kind::top && door.request.rule->name == "login" && door.request.cost == 1000));
  CHECK(door.get("/v1/top") == "");
  CHECK((door.request.kind == Kind::top && door.request.rule == nullptr && door.request.cost == 10));
  CHECK(door.request.barrier);
  CHECK(door.get("/metrics") == "");
  CHECK(door.request.kind == Kind::metrics);
  CHECK(door.request.barrier);
}

TEST_CASE("HEAD has the head of GET's reply and no body, and HTTP/1.0 is told that its connection is kept") {
  Door door;
  const std::string whole = door.get("/healthz"), head = door.get("/healthz", "", "HEAD");
  CHECK(head + "ok\n" == whole);
  CHECK_FALSE(says(whole, "Connection:"));
  CHECK(says(door.ask("GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
             "\r\nConnection: keep-alive\r\n"));
  CHECK_FALSE(door.request.close);
  CHECK(says(door.ask("GET /healthz HTTP/1.0\r\n\r\n"), "\r\nConnection: close\r\n"));
  CHECK(door.request.close);
}

TEST_CASE("an admitted auth says what is left, by both drafts") {
  Client client;
  const Rule& api = *client.rules.find("api");
  CHECK(written(api, answer_of(Verdict::admitted, 1000, 57, Duration(-1), 11'000'000'001ns), Reason::admitted,
                {.kind = HttpKind::auth}) ==
        "HTTP/1.1 204 No Content\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nCache-Control: no-store\r\n"
        "RateLimit-Policy: \"api\";q=1000;w=60\r\nRateLimit: \"api\";r=57;t=12\r\nX-RateLimit-Limit: 1000\r\n"
        "X-RateLimit-Remaining: 57\r\nX-RateLimit-Reset: 12\r\n\r\n");
}

TEST_CASE("a denied auth says when to come again, in whole seconds, unless it is never") {
  Client client;
  const Rule& feed = *client.rules.find("feed");
  const Answer soon = answer_of(Verdict::over_limit, 100, 0, 1ns, 2s);
  const std::string denied = written(feed, soon, Reason::over_limit, {.kind = HttpKind::auth, .close = true});
  CHECK(status_of(denied) == 403);
  CHECK(
      says(denied, "\r\nRateLimit-Policy: \"feed\";q=100;w=2\r\n"));  // a bucket: the time in which it fills
  CHECK(says(denied, "\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"));
  CHECK(says(denied, "\r\nConnection: close\r\n"));
  CHECK(status_of(written(feed, soon, Reason::over_limit, {.kind = HttpKind::auth, .too_many = true})) ==
        429);
  CHECK_FALSE(says(written(feed, answer_of(Verdict::over_limit, 100, 0, Duration(-1), 2s), Reason::over_limit,
                           {.kind = HttpKind::auth}),
                   "Retry-After"));
  CHECK(says(written(feed, answer_of(Verdict::starved, 100, 0, Duration(0), 2s), Reason::no_grant,
                     {.kind = HttpKind::auth}),
             "Retry-After: 1\r\n"));
  CHECK(status_of(written(feed, soon, Reason::shadow, {.kind = HttpKind::auth})) == 204);
}

TEST_CASE("a take says all that TALLY.TAKE does, as JSON") {
  Client client;
  Rule rule = *client.rules.find("api");
  rule.name = "a\"b\\c";
  const std::string denied = written(rule, answer_of(Verdict::over_limit, 20, 0, 600ms, 12s),
                                     Reason::over_limit, {.kind = HttpKind::json});
  const std::string body =
      "{\"allowed\":false,\"limit\":20,\"remaining\":0,\"retry_after_ms\":600,\"reset_after_ms\":12000,"
      "\"reason\":\"over_limit\",\"rule\":\"a\\\"b\\\\c\"}\n";
  CHECK(body_of(denied) == body);
  CHECK(says(denied, "\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
                         "\r\n"));
  CHECK(says(written(rule, answer_of(Verdict::admitted, 20, 3, Duration(-1), Duration(0)), Reason::admitted,
                     {.kind = HttpKind::json}),
             "{\"allowed\":true,\"limit\":20,\"remaining\":3,\"retry_after_ms\":-1,\"reset_after_ms\":0,"
             "\"reason\":\"admitted\","));
  CHECK(says(written(rule, answer_of(Verdict::over_limit, 20, 0, Duration(-1), 1s), Reason::over_limit,
                     {.kind = HttpKind::json}),
             "\"retry_after_ms\":-1,"));
}

TEST_CASE("the longest name of a rule, all of it escaped, fits into a reply") {
  Client client;
  Rule rule = *client.rules.find("api");
  rule.name.assign(64, '"');
  const Answer most =
      answer_of(Verdict::over_limit, UINT32_MAX, UINT32_MAX, Duration::max(), Duration::max());
  for (const HttpKind kind : {HttpKind::auth, HttpKind::json}) {
    const std::string reply = written(rule, most, Reason::over_limit, {.kind = kind, .says_kept = true});
    CHECK(says(reply, rule.name.substr(0, 0) + "\\\"\\\"\\\""));
    CHECK(reply.size() < 1200);
  }
}

TEST_CASE("facts are JSON objects, with what no JSON can hold replaced") {
  std::string out;
  const std::vector<Row> rows{
      {"n1",
       {{"up", true}, {"age", int64_t{-1}}, {"loss", 0.5}, {"group", std::vector<std::string>{"a", "b"}}}},
      {"n\xff", {{"text", std::string("\"\n")}}}};
  http::Writer(out, {.kind = HttpKind::json}, kDate).table(rows);
  CHECK(body_of(out) ==
        "{\"n1\":{\"up\":true,\"age\":-1,\"loss\":0.5,\"group\":[\"a\",\"b\"]},\"n\xef\xbf\xbd\":{\"text\":"
        "\"\\\"\\n\"}}\n");
}

TEST_CASE("the date is that of RFC 9110, of the second it is asked for") {
  http::DateField date;
  CHECK(date.at(WallTime(784'111'777s)) == kDate);
  CHECK(date.at(WallTime(784'111'777s + 999'999'999ns)) == kDate);
  CHECK(date.at(WallTime(951'782'400s)) == "Date: Tue, 29 Feb 2000 00:00:00 GMT\r\n");
  CHECK(date.at(WallTime(4'102'444'799s)) == "Date: Thu, 31 Dec 2099 23:59:59 GMT\r\n");
}
