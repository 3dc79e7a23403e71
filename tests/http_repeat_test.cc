// A request that repeats the last one but for its key: what is made of it is what parser and read_request
// make of it.
#include "doors/http_repeat.h"

#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "commands_fixture.h"
#include "doctest/doctest.h"
#include "doors/http_requests.h"
#include "seed.h"

using namespace tally;
using namespace tally::test;

namespace {

std::string by_query(std::string_view key, std::string_view rule = "api", std::string_view more = "") {
  return "GET /v1/auth?rule=" + std::string(rule) + "&key=" + std::string(key) + std::string(more) +
         " HTTP/1.1\r\nHost: x\r\n\r\n";
}
std::string by_field(std::string_view key, std::string_view target = "/v1/auth?rule=api",
                     std::string_view more = "") {
  return "GET " + std::string(target) + " HTTP/1.1\r\nHost: x\r\nX-Tally-Key: " + std::string(key) + "\r\n" +
         std::string(more) + "\r\n";
}

// One connection, read as a worker does it.
struct Reader {
  Client about;
  http::Parser parser;
  http::Repeat repeat;
  Request request;
  std::string reply, key, first, second;
  bool repeated = false;

  // How many bytes the request at the beginning of `input` has; 0: there is none.
  size_t read(std::string_view input, bool with_repeat) {
    repeated = false;
    if (with_repeat) {
      if (const size_t bytes = repeat.read(input, about.env, request)) {
        repeated = true;
        parser.forget();
        return bytes;
      }
    }
    reply.clear();
    if (parser.next(input) != http::Parse::request) return 0;
    http::read_request(parser.message, {about.env, true, true, "", ""}, request, reply, key);
    if (with_repeat) repeat.remember(input.substr(0, parser.consumed), parser.message, request, about.env);
    return parser.consumed;
  }
  // Whether the second is known by the first. Its request stays, with what its views point into.
  bool repeats(std::string first_, std::string second_) {
    first = std::move(first_);
    second = std::move(second_);
    repeat.forget();
    REQUIRE(read(first, true) == first.size());
    REQUIRE(read(second, true) == second.size());
    return repeated;
  }
};

void check_same(const Request& a, const Request& b) {
  CHECK(a.kind == b.kind);
  CHECK(a.rule == b.rule);
  CHECK(a.limit == b.limit);
  CHECK(a.treatment == b.treatment);
  CHECK(a.key == b.key);
  CHECK(a.cost == b.cost);
  CHECK(a.close == b.close);
  CHECK(a.barrier == b.barrier);
  CHECK(a.fault == b.fault);
  CHECK(a.http.kind == b.http.kind);
  CHECK(a.http.too_many == b.http.too_many);
  CHECK(a.http.says_kept == b.http.says_kept);
  CHECK(a.http.head_only == b.http.head_only);
}

}  // namespace

TEST_CASE("the same request with another key is known by its bytes") {
  Reader reader;
  CHECK(reader.repeats(by_query("user:1"), by_query("somebody")));
  CHECK(reader.request.key == "somebody");
  CHECK(reader.request.rule->name == "api");
  CHECK(reader.repeats(by_query("a", "login", "&cost=3&deny=429"),
                       by_query("b?=/", "login", "&cost=3&deny=429")));
  CHECK(reader.request.cost == 3);
  CHECK(reader.request.http.too_many);
  CHECK(reader.repeats(by_field("a", "/v1/auth?rule=api&cost=0"),
                       by_field("b c%20+&", "/v1/auth?rule=api&cost=0")));
  CHECK(reader.request.key == "b c%20+&");
  CHECK(reader.request.kind == Kind::peek);
}

TEST_CASE("what is another request, or has a key that is to be looked at, is read anew") {
  Reader reader;
  CHECK_FALSE(reader.repeats(by_query("a"), by_query("a", "login")));
  CHECK_FALSE(reader.repeats(by_query("a"), by_query("a", "api", "&cost=2")));
  CHECK_FALSE(reader.repeats(by_query("a"), by_query("%61")));
  CHECK_FALSE(reader.repeats(by_query("a"), by_query("a+b")));
  CHECK_FALSE(reader.repeats(by_query("%61"), by_query("a")));
  CHECK_FALSE(reader.repeats(by_query("a"), by_query("")));
  CHECK_FALSE(reader.repeats(by_query("a"), by_query(std::string(33, 'k'))));  // longer than a key may be
  CHECK_FALSE(reader.repeats(by_field("a"), by_field(" a")));
  CHECK_FALSE(reader.repeats(by_field("a"), by_field("a ")));
  CHECK_FALSE(reader.repeats(by_field("a"), by_field("a", "/v1/auth?rule=api", "Connection: close\r\n")));
  CHECK_FALSE(reader.repeats(by_field("a", "/v1/explain?rule=api"), by_field("b", "/v1/explain?rule=api")));
  CHECK_FALSE(reader.repeats(by_field("a", "/v1/auth?rule=api", "X: " + std::string(400, 'x') + "\r\n"),
                             by_field("b", "/v1/auth?rule=api", "X: " + std::string(400, 'x') + "\r\n")));
}

TEST_CASE("a part of a request is none, and other rules end what was known") {
  Reader reader;
  REQUIRE(reader.read(by_query("a"), true) > 0);
  const std::string next = by_query("bcd");
  for (size_t size = 0; size < next.size(); ++size)
    CHECK(reader.repeat.read(next.substr(0, size), reader.about.env, reader.request) == 0);
  CHECK(reader.repeat.read(next + "GET ", reader.about.env, reader.request) == next.size());
  ++reader.about.env.rules_number;
  CHECK(reader.repeat.read(next, reader.about.env, reader.request) == 0);
}

TEST_CASE("a head may not become longer by its key than it may be") {
  Reader reader;
  reader.about.env.key_bytes_max = 65'536;
  REQUIRE(reader.read(by_field("a"), true) > 0);
  const size_t most = http::kHeadBytesMax - by_field("").size();
  CHECK(reader.repeat.read(by_field(std::string(most, 'k')), reader.about.env, reader.request) ==
        http::kHeadBytesMax);
  CHECK(reader.repeat.read(by_field(std::string(most + 1, 'k')), reader.about.env, reader.request) == 0);
}

TEST_CASE("random requests are the same by their bytes as by the parser") {
  Random random(test_seed(20261130));
  Reader fast, slow;
  const std::vector<std::string> bits{"a", "user:1", "&",        "=",    "?",    "%41",
                                      "%", "+",      " ",        "\t",   "\r\n", "\r",
                                      "#", "/",      "\xc3\xa9", "\x01", "key=", "X-Tally-Key: b"};
  const std::vector<std::string> ends{"", "&cost=2", "&deny=429", "&cost=0&deny=403", "&x", " "};
  uint64_t repeated = 0;
  bool in_query = true;
  std::string rule = "api", more;
  for (uint64_t i = scaled(100'000); i > 0; --i) {
    std::string key;
    for (uint64_t n = random.below(4); n > 0; --n)
      key += bits[random.below(random.chance(0.5) ? 2 : bits.size())];
    if (random.chance(0.2)) {
      in_query = random.chance(0.5);
      rule = random.chance(0.8) ? "api" : "login";
      more = random.chance(0.5) ? "" : ends[random.below(ends.size())];
    }
    std::string bytes = in_query ? by_query(key, rule, more) : by_field(key, "/v1/auth?rule=" + rule + more);
    if (random.chance(0.02)) bytes[random.below(bytes.size())] = static_cast<char>(random.below(256));
    CAPTURE(bytes);
    fast.parser.forget();
    slow.parser.forget();
    const size_t size = fast.read(bytes, true);
    CHECK(slow.read(bytes, false) == size);
    repeated += fast.repeated;
    // The two have rules of their own, which are alike.
    if (size != 0) {
      slow.request.rule =
          slow.request.rule == nullptr ? nullptr : fast.about.rules.find(slow.request.rule->name);
      check_same(fast.request, slow.request);
    }
  }
  CHECK(repeated > scaled(100'000) / 10);
}
