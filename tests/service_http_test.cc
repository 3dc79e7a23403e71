// HTTP in a worker's service: bytes in, bytes out, by the same decisions as RESP.
#include <string>
#include <string_view>

#include "doctest/doctest.h"
#include "service_fixture.h"

using namespace tally;
using namespace tally::test;

namespace {

std::string get(std::string_view target) {
  return std::string("GET ").append(target).append(" HTTP/1.1\r\nHost: x\r\n\r\n");
}
std::string auth(std::string_view rule, std::string_view key) {
  return get(std::string("/v1/auth?rule=").append(rule).append("&key=").append(key));
}
std::string post(std::string_view path, std::string_view body) {
  return "POST " + std::string(path) +
         " HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
         std::string(body);
}

// The statuses of all replies in these bytes, in order: "200 204 ".
std::string statuses(std::string_view replies) {
  std::string all;
  for (size_t at = replies.find("HTTP/1.1 "); at != std::string_view::npos;
       at = replies.find("HTTP/1.1 ", at + 1))
    all.append(replies.substr(at + 9, 3)).append(" ");
  return all;
}
bool says(std::string_view reply, std::string_view part) {
  return reply.find(part) != std::string_view::npos;
}

struct HttpDesk : Desk {
  explicit HttpDesk(bool fleet = true, std::vector<Rule> all = usual_rules())
      : Desk({1024, 1'048'576, 100, ms(100)}, fleet, std::move(all)) {
    for (Session* session : {&a, &b}) session->http = std::make_unique<HttpSession>(*session);
  }
  uint64_t requests(Protocol protocol) const { return overview.total(&WorkerCounters::requests, protocol); }
};

}  // namespace

TEST_CASE("decisions over HTTP and over RESP are decisions on the same count") {
  HttpDesk desk(false);
  Session resp(Descriptor(), 3, true, {});
  CHECK(statuses(desk.say(
            desk.a, auth("slow", "k") + post("/v1/take", R"({"rule": "slow", "key": "k", "cost": 8})"))) ==
        "204 200 ");
  CHECK(desk.say(resp, "TALLY.TAKE slow k\r\n").substr(0, 23) == "*6\r\n:0\r\n:10\r\n:0\r\n:-1\r\n:");
  CHECK(statuses(desk.say(desk.b, auth("slow", "k") + auth("slow", "other"))) == "403 204 ");
  CHECK(desk.admitted(0) == 4);
  CHECK(desk.requests(Protocol::http) == 4);
  CHECK(desk.requests(Protocol::resp) == 1);
  desk.service.drop(resp);
}

TEST_CASE("a request that waits holds back the replies behind it, and is answered in its own form") {
  HttpDesk desk;
  CHECK(desk.say(desk.a, auth("slow", "k") + post("/v1/take", R"({"rule": "slow", "key": "k"})") +
                             get("/healthz")) == "");
  CHECK(desk.overview.waiting == 2);
  CHECK(statuses(desk.say(desk.b, get("/healthz"))) == "200 ");
  desk.grant("slow", "k", 1);
  CHECK(statuses(desk.read(desk.a)) == "204 ");
  desk.grant("slow", "k", 2);
  const std::string rest = desk.read(desk.a);
  CHECK(statuses(rest) == "200 200 ");
  CHECK(says(rest, "{\"allowed\":true,\"limit\":10,"));
  CHECK(says(rest, "\r\n\r\nok\n"));
}

TEST_CASE("a request that waits is denied at its deadline, and its connection ends where it was to end") {
  HttpDesk desk;
  const std::string last =
      "GET /v1/auth?rule=quick&key=k&deny=429 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
  CHECK(desk.say(desk.a, last + get("/healthz")) == "");
  CHECK(desk.a.closing);
  CHECK_FALSE(desk.service.may_read(desk.a));
  desk.service.expire();
  const std::string reply = desk.read(desk.a);
  CHECK(statuses(reply) == "429 ");  // and nothing of what came behind it
  CHECK(says(reply, "\r\nConnection: close\r\n"));
  CHECK(says(reply, "\r\nRetry-After: 1\r\n"));
}

TEST_CASE("a key that had to be decoded is that key") {
  HttpDesk desk(false);
  CHECK(statuses(desk.say(desk.a, auth("slow", "%61%2Fb") + auth("slow", "c") + auth("slow", "%64"))) ==
        "204 204 204 ");
  Session resp(Descriptor(), 3, true, {});
  const auto used = [&](const std::string& key) {
    return says(desk.say(resp, "TALLY.PEEK slow " + key + "\r\n"), "\r\n:10\r\n:9\r\n");
  };
  CHECK(used("a/b"));
  CHECK(used("c"));
  CHECK(used("d"));
  CHECK_FALSE(used("%64"));
  desk.service.drop(resp);
}

TEST_CASE("several takes are all of them or none, and a rule takes along what it names") {
  HttpDesk desk(false);
  const std::string both = R"([{"rule": "slow", "key": "k", "cost": 6}, {"rule": "wide", "key": "l"}])";
  const std::string taken = desk.say(desk.a, post("/v1/take", both));
  CHECK(statuses(taken) == "200 ");
  CHECK(says(taken,
             "{\"allowed\":true,\"refused\":-1,\"takes\":[{\"allowed\":true,\"limit\":10,\"remaining\":4,"));
  CHECK(says(taken, ",\"rule\":\"slow\"},{\"allowed\":true,\"limit\":100000,\"remaining\":99999,"));
  CHECK(says(desk.say(desk.a, post("/v1/take", both)),
             "{\"allowed\":false,\"refused\":0,\"takes\":[{\"allowed\":false,\"limit\":10,\"remaining\":4,"));
  CHECK(says(desk.say(desk.b, auth("paired", "k")),
             "\r\nRateLimit: \"slow\";r=3;"));  // the one with the least left
  CHECK(statuses(desk.say(desk.b, get("/v1/auth?rule=paired&key=k&cost=4"))) == "403 ");
  // Each take that was asked is told once, by its tightest rule.
  const std::string along = desk.say(
      desk.b,
      post("/v1/take", R"([{"rule": "paired", "key": "k"}, {"rule": "wide", "key": "l", "cost": 100001}])"));
  CHECK(says(along,
             "{\"allowed\":false,\"refused\":1,\"takes\":[{\"allowed\":true,\"limit\":10,\"remaining\":3,"));
  CHECK(says(along, ",\"rule\":\"slow\"},{\"allowed\":false,\"limit\":100000,"));
  CHECK(along.ends_with(",\"rule\":\"wide\"}]}\n"));
}

TEST_CASE(
    "keys that have a treatment of their own have it over HTTP, in a list, too, and where the request is the "
    "last one again") {
  HttpDesk desk(false, {special("special")});
  const auto asked = [&](const std::string& key) { return desk.say(desk.a, auth("special", key)); };
  CHECK(says(asked("k"), "\r\nX-RateLimit-Limit: 10\r\n"));
  CHECK(says(asked("vip"), "\r\nX-RateLimit-Limit: 20\r\n"));
  CHECK(statuses(asked("10.1.2.3")) == "403 ");
  for (int i = 0; i < 20; ++i) CHECK(statuses(asked("free:1")) == "204 ");
  CHECK(says(desk.say(desk.a, post("/v1/take", R"({"rule": "special", "key": "10.1.2.3"})")),
             "\"reason\":\"blocked\""));
  CHECK(says(desk.say(desk.a, post("/v1/take", R"([{"rule": "special", "key": "free:1"}])")),
             "\"reason\":\"exempt\""));
}

TEST_CASE("several takes that wait are answered in their form") {
  HttpDesk desk;
  CHECK(desk.say(desk.a, post("/v1/take", R"([{"rule": "never", "key": "l", "cost": 0}])")) != "");
  CHECK(desk.say(desk.a, post("/v1/take", R"([{"rule": "slow", "key": "k"}])") + auth("paired", "k")) == "");
  CHECK(desk.overview.waiting == 2);
  desk.grant("slow", "k", 2);
  desk.grant("paired", "k", 2);
  const std::string replies = desk.read(desk.a);
  CHECK(statuses(replies) == "200 204 ");
  CHECK(says(replies, "{\"allowed\":true,\"refused\":-1,"));
}

TEST_CASE("what only the cluster thread knows is asked of it, and comes back as JSON") {
  HttpDesk desk;
  CHECK(desk.say(desk.a, get("/v1/peers") + get("/healthz")) == "");
  Call* call = nullptr;
  REQUIRE(desk.port.calls.pop(call));
  CHECK(call->kind == Call::Kind::peers);
  call->peers.resize(1);
  call->peers[0].name = "n1";
  desk.service.finish(std::unique_ptr<Call>(call));
  const std::string replies = desk.read(desk.a);
  CHECK(statuses(replies) == "200 200 ");
  CHECK(says(replies, "{\"n1\":{\"role\":"));
  CHECK(desk.say(desk.a, get("/v1/explain?rule=slow&key=k")) == "");
  REQUIRE(desk.port.calls.pop(call));
  desk.service.finish(std::unique_ptr<Call>(call));
  CHECK(says(desk.read(desk.a), "{\"rule\":\"slow\","));
}

TEST_CASE("metrics are another thread's, and while it does not answer everybody else is") {
  HttpDesk desk(false);
  CHECK(desk.say(desk.a, auth("slow", "k") + get("/metrics") + auth("slow", "k")).substr(0, 12) ==
        "HTTP/1.1 204");
  CHECK(desk.say(desk.a, "") == "");
  REQUIRE(desk.handed_out != nullptr);
  CHECK(desk.handed_out->kind == Call::Kind::metrics);
  for (int i = 0; i < 5; ++i) CHECK(statuses(desk.say(desk.b, auth("wide", "k"))) == "204 ");
  desk.handed_out->text = "some 1\n";
  desk.service.finish(std::move(desk.handed_out));
  const std::string scrape = desk.read(desk.a);
  CHECK(statuses(scrape) == "200 ");
  CHECK(says(scrape, "Content-Type: text/plain; version=0.0.4"));
  CHECK(says(scrape, "\r\nContent-Length: 7\r\n\r\nsome 1\n"));
  CHECK(statuses(desk.say(desk.a, "")) == "204 ");  // what stood behind it was not read before
}

TEST_CASE("a connection that asked for metrics may go before they come") {
  HttpDesk desk(false);
  desk.say(desk.a, get("/metrics"));
  desk.service.drop(desk.a);
  desk.service.finish(std::move(desk.handed_out));
  CHECK(desk.read(desk.a) == "");
}

TEST_CASE("a reload says what became of it") {
  HttpDesk desk;
  CHECK(desk.say(desk.a, post("/v1/reload", "")) == "");
  REQUIRE(desk.handed_out != nullptr);
  desk.handed_out->error = "nothing was changed: x";
  desk.service.finish(std::move(desk.handed_out));
  const std::string refused = desk.read(desk.a);
  CHECK(statuses(refused) == "409 ");
  CHECK(says(refused, "nothing was changed: x"));
  CHECK(desk.say(desk.a, post("/v1/reload", "")) == "");
  desk.service.finish(std::move(desk.handed_out));
  CHECK(statuses(desk.read(desk.a)) == "204 ");
}

TEST_CASE("a reset waits for what stands before it") {
  HttpDesk desk;
  const std::string reset = post("/v1/reset", R"({"rule": "slow", "key": "k"})");
  CHECK(desk.say(desk.a, auth("slow", "k") + reset) == "");
  CHECK(desk.a.in == reset);
  Call* call = nullptr;
  CHECK_FALSE(desk.port.calls.pop(call));
  desk.grant("slow", "k", 1);
  CHECK(statuses(desk.read(desk.a)) == "204 ");
  CHECK(desk.say(desk.a, "") == "");
  REQUIRE(desk.port.calls.pop(call));
  CHECK(call->kind == Call::Kind::reset);
  desk.service.finish(std::unique_ptr<Call>(call));
  CHECK(statuses(desk.read(desk.a)) == "204 ");
}

TEST_CASE("what is no request is refused behind the replies that are due, and ends the connection") {
  HttpDesk desk(false);
  const std::string replies = desk.say(desk.a, get("/healthz") + "nonsense\r\n" + get("/healthz"));
  CHECK(statuses(replies) == "200 400 ");
  CHECK(says(replies, "Connection: close\r\n"));
  CHECK(desk.a.closing);
  CHECK(desk.a.http->refused);
  CHECK(desk.a.in == "");
  CHECK(desk.overview.faults(static_cast<size_t>(resp::Fault::protocol)) == 1);
}

TEST_CASE("a body that waits to be asked for is asked for, behind the replies that are due") {
  HttpDesk desk;
  const std::string body = R"({"rule": "never", "key": "k"})";
  const std::string head = "POST /v1/take HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: " +
                           std::to_string(body.size()) + "\r\n\r\n";
  CHECK(desk.say(desk.a, auth("slow", "k") + head) == "");
  desk.grant("slow", "k", 1);
  CHECK(statuses(desk.read(desk.a)) == "204 100 ");
  CHECK(desk.say(desk.a, "") == "");
  CHECK(statuses(desk.say(desk.a, body)) == "200 ");
}

TEST_CASE("faults and unknown rules are counted as over RESP") {
  HttpDesk desk(false);
  CHECK(statuses(desk.say(desk.a, auth("nope", "k") + get("/nowhere") + get("/v1/auth?rule=slow"))) ==
        "404 404 400 ");
  CHECK(desk.overview.total(&WorkerCounters::unknown_rule) == 1);
  for (const auto fault : {resp::Fault::unknown_rule, resp::Fault::unknown_command, resp::Fault::arguments})
    CHECK(desk.overview.faults(static_cast<size_t>(fault)) == 1);
}

TEST_CASE("when too many questions are on their way HTTP is told so with 503") {
  HttpDesk desk;
  while (desk.port.calls.push(nullptr)) {
  }
  const std::string reply = desk.say(desk.a, get("/v1/peers"));
  CHECK(statuses(reply) == "503 ");
  CHECK(says(reply, "Retry-After: 1\r\n"));
  for (Call* call = nullptr; desk.port.calls.pop(call);) {
  }
}
