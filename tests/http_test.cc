// The HTTP parser: what it reads, what it refuses and with what status, and that pieces make no difference.
#include <string>
#include <vector>

#include "base/random.h"
#include "doctest/doctest.h"
#include "doors/http.h"
#include "seed.h"

using namespace tally;
using namespace tally::http;

namespace {

const std::string kHost = "Host: x\r\n";

std::string get(std::string_view target, std::string_view fields = "") {
  return std::string("GET ")
      .append(target)
      .append(" HTTP/1.1\r\n")
      .append(kHost)
      .append(fields)
      .append("\r\n");
}
std::string post(std::string_view body) {
  return "POST /v1/take HTTP/1.1\r\n" + kHost + "Content-Length: " + std::to_string(body.size()) +
         "\r\n\r\n" + std::string(body);
}

// What is left of a request when its bytes are gone.
struct Seen {
  std::string method, path, query, rule, key, body;
  bool has_length = false, minor_0 = false, keep_alive = false;
  int refused = 0;  // its status; the last one then
  friend bool operator==(const Seen&, const Seen&) = default;
};

// As a connection is read: what is not done stays, at another place, and more is added.
std::vector<Seen> read(std::string_view bytes, const std::vector<size_t>& pieces) {
  Parser parser;
  std::vector<Seen> all;
  std::string in;
  size_t at = 0;
  for (size_t piece = 0; at < bytes.size(); ++piece) {
    const size_t size = piece < pieces.size() ? pieces[piece] : bytes.size() - at;
    in = std::string(in).append(bytes.substr(at, size));  // never where it was before
    at += std::min(size, bytes.size() - at);
    for (size_t done = 0;;) {
      const Parse parsed = parser.next(std::string_view(in).substr(done));
      if (parsed == Parse::error) {
        all.emplace_back().refused = parser.refusal.status;
        CHECK_FALSE(parser.refusal.detail.empty());
        return all;
      }
      if (parsed == Parse::incomplete) {
        in.erase(0, done);
        break;
      }
      REQUIRE(parser.consumed > 0);
      REQUIRE(parser.consumed <= in.size() - done);
      done += parser.consumed;
      const Message& m = parser.message;
      all.push_back({std::string(m.method_name), std::string(m.path), std::string(m.query),
                     std::string(m.rule), std::string(m.key), std::string(m.body), m.has_length, m.minor_0,
                     m.keep_alive, 0});
    }
  }
  return all;
}
std::vector<Seen> read(std::string_view bytes) { return read(bytes, {}); }

// The status of a refusal, 0 for one or more whole requests, -1 where more is waited for.
int status_of(std::string_view bytes) {
  const auto all = read(bytes);
  return all.empty() ? -1 : all.back().refused;
}

std::string body_of(std::string_view bytes) {
  const auto all = read(bytes);
  REQUIRE(all.size() == 1);
  CHECK(all[0].refused == 0);
  return all[0].body;
}

std::string chunked(std::string_view chunks, std::string_view fields = "") {
  return "POST / HTTP/1.1\r\n" + kHost + "Transfer-Encoding: chunked\r\n" + std::string(fields) + "\r\n" +
         std::string(chunks);
}

}  // namespace

TEST_CASE("a request has a path, a query and the two fields that matter") {
  const auto all = read(
      get("/v1/auth?rule=api&key=a%20b", "x-TALLY-key:  user:1 \r\nX-Tally-Rule:login\r\nAccept: */*\r\n"));
  REQUIRE(all.size() == 1);
  CHECK(all[0].method == "GET");
  CHECK(all[0].path == "/v1/auth");
  CHECK(all[0].query == "rule=api&key=a%20b");
  CHECK(all[0].key == "user:1");
  CHECK(all[0].rule == "login");
  CHECK(all[0].keep_alive);
  CHECK_FALSE(all[0].has_length);
}

TEST_CASE("requests in a pipeline follow each other without a gap") {
  const auto all = read(get("/a") + post("{}") + "\r\n" + get("/b?") + chunked("2\r\nab\r\n0\r\n\r\n") +
                        get("http://host:80/c?d"));
  REQUIRE(all.size() == 5);
  CHECK(all[0].path == "/a");
  CHECK(all[1].body == "{}");
  CHECK(all[2].path == "/b");
  CHECK(all[2].query == "");
  CHECK(all[3].body == "ab");
  CHECK(all[4].path == "/c");
  CHECK(all[4].query == "d");
}

TEST_CASE("what the other side says about the connection is heard, by the rules of its version") {
  const auto kept = [](std::string_view version, std::string_view field) {
    const auto all =
        read("GET / HTTP/" + std::string(version) + "\r\nHost: x\r\n" + std::string(field) + "\r\n");
    REQUIRE(all.size() == 1);
    return all[0].keep_alive;
  };
  CHECK(kept("1.1", ""));
  CHECK_FALSE(kept("1.1", "Connection: close\r\n"));
  CHECK_FALSE(kept("1.1", "CONNECTION: Upgrade , CLOSE\r\n"));
  CHECK_FALSE(kept("1.1", "Connection: close\r\nConnection: keep-alive\r\n"));
  CHECK(kept("1.1", "Connection: closer\r\n"));
  CHECK_FALSE(kept("1.0", ""));
  CHECK(kept("1.0", "Connection: Keep-Alive\r\n"));
}

TEST_CASE("bodies are read by their length or by chunks") {
  CHECK(body_of(post("")) == "");
  CHECK(body_of(post(std::string(kBodyBytesMax, 'x'))).size() == kBodyBytesMax);
  CHECK(body_of(chunked("0\r\n\r\n")) == "");
  CHECK(body_of(chunked(
            "5\r\nhello\r\nA;x=\"y\"\r\n, the worl\r\n1\r\nd\r\n000\r\nTrailer: x\r\nAnother: y\r\n\r\n")) ==
        "hello, the world");
  CHECK(body_of(chunked("10000\r\n" + std::string(kBodyBytesMax, 'x') + "\r\n0\r\n\r\n")).size() ==
        kBodyBytesMax);
  CHECK(status_of(post("abc").substr(0, post("abc").size() - 1)) == -1);
}

TEST_CASE("what is wrong is refused with the status that says so") {
  const std::string h = kHost;
  const std::vector<std::pair<std::string, int>> table{
      {"nonsense\r\n\r\n", 400},
      {"\r\n\r\n" + get("/"), 400},
      {"GET /\r\n\r\n", 400},
      {"GET  / HTTP/1.1\r\n" + h + "\r\n", 400},
      {"GET / HTTP/1.1 \r\n" + h + "\r\n", 400},
      {"GET / HTTP/1.1\n" + h + "\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: x\n\r\n", 400},
      {"GET / HTTP/1.1\r\n" + h + "\n", 400},
      {"GET / HTTP/11\r\n" + h + "\r\n", 400},
      {"GET / HTTP/1.1x\r\n" + h + "\r\n", 400},
      {"GET / http/1.1\r\n" + h + "\r\n", 400},
      {"GET / SPDY/1\r\n" + h + "\r\n", 400},
      {"G@T / HTTP/1.1\r\n" + h + "\r\n", 400},
      {"GET x HTTP/1.1\r\n" + h + "\r\n", 400},
      {"GET * HTTP/1.1\r\n" + h + "\r\n", 400},
      {"GET /\x01 HTTP/1.1\r\n" + h + "\r\n", 400},
      {"GET /\xc3\xa9 HTTP/1.1\r\n" + h + "\r\n", 400},
      {"GET / HTTP/2.0\r\n" + h + "\r\n", 505},
      {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
      {"GET / HTTP/0.9\r\n" + h + "\r\n", 505},
      {"get / HTTP/1.1\r\n" + h + "\r\n", 501},
      {"BREW / HTTP/1.1\r\n" + h + "\r\n", 501},
      {"GET / HTTP/1.1\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\n" + h + h + "\r\n", 400},
      {get("/", "Name : x\r\n"), 400},
      {get("/", "Name: x\r\n folded\r\n"), 400},
      {get("/", ": x\r\n"), 400},
      {get("/", "Name\r\n"), 400},
      {get("/", "Na(me: x\r\n"), 400},
      {get("/", "Name: a\rb\r\n"), 400},
      {get("/", std::string("Name: a\0b\r\n", 11)), 400},
      {get("/", "X-Tally-Key: a\r\nX-Tally-Key: b\r\n"), 400},
      {get("/", "X-Tally-Rule: a\r\nX-Tally-Rule: b\r\n"), 400},
      {get("/", "Content-Length: 1\r\nContent-Length: 2\r\n"), 400},
      {get("/", "Content-Length: 1\r\nContent-Length: 1\r\n"), 400},
      {get("/", "Content-Length: 1, 1\r\n"), 400},
      {get("/", "Content-Length: +1\r\n"), 400},
      {get("/", "Content-Length: -1\r\n"), 400},
      {get("/", "Content-Length: 0x1\r\n"), 400},
      {get("/", "Content-Length:\r\n"), 400},
      {get("/", "Content-Length: 65537\r\n"), 413},
      {get("/", "Content-Length: 18446744073709551617\r\n"), 413},
      {get("/", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 400},
      {get("/", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), 400},
      {get("/", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400},
      {get("/", "Transfer-Encoding: gzip, chunked\r\n"), 501},
      {get("/", "Transfer-Encoding: identity\r\n"), 501},
      {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {get("/", "Expect: 200-ok\r\n"), 417},
      {chunked("x\r\n"), 400},
      {chunked("\r\n"), 400},
      {chunked("-1\r\n"), 400},
      {chunked("1 \r\na\r\n"), 400},
      {chunked("1\r\nab\r\n"), 400},
      {chunked("1\na\r\n"), 400},
      {chunked("10001\r\n"), 413},
      {chunked("ffffffffffffffffff\r\n"), 413},
      {chunked("1;" + std::string(300, 'x') + "\r\n"), 400},
      {chunked("8000\r\n" + std::string(0x8000, 'x') + "\r\n8001\r\n" + std::string(0x8001, 'x') +
               "\r\n0\r\n\r\n"),
       413},
      {chunked("0\r\n" + std::string(9000, 'x')), 431},
      {"GET /" + std::string(9000, 'x'), 414},
      {"GET / HTTP/1.1\r\nX: " + std::string(9000, 'x'), 431},
  };
  for (const auto& [bytes, status] : table) {
    CAPTURE(bytes.substr(0, 200));
    CHECK(status_of(bytes) == status);
  }
}

TEST_CASE("a head may have 8192 bytes and not one more") {
  const auto with_head_of = [](size_t size) {
    const std::string least = get("/", "X: \r\n");
    return get("/", "X: " + std::string(size - least.size(), 'x') + "\r\n");
  };
  CHECK(status_of(with_head_of(8192)) == 0);
  CHECK(status_of(with_head_of(8193)) == 431);
}

TEST_CASE("small chunks may not take more than twice the bytes that a body may have") {
  std::string chunks;
  for (size_t i = 0; i < 30'000; ++i) chunks += "1\r\nx\r\n";
  CHECK(status_of(chunked(chunks + "0\r\n\r\n")) == 413);
}

TEST_CASE("who waits for 100 Continue is told so once, and not when the body is there or would be refused") {
  const std::string head =
      "POST / HTTP/1.1\r\n" + kHost + "Expect: 100-Continue\r\nContent-Length: 2\r\n\r\n";
  Parser parser;
  CHECK(parser.next(head.substr(0, 20)) == Parse::incomplete);
  CHECK_FALSE(parser.take_continue());
  CHECK(parser.next(head) == Parse::incomplete);
  CHECK(parser.take_continue());
  CHECK_FALSE(parser.take_continue());
  CHECK(parser.next(head + "a") == Parse::incomplete);
  CHECK_FALSE(parser.take_continue());
  const std::string whole = head + "ab";
  CHECK(parser.next(whole) == Parse::request);
  CHECK(parser.message.body == "ab");
  CHECK_FALSE(parser.take_continue());
  CHECK(parser.next(head + "a") == Parse::incomplete);  // it began by itself
  CHECK_FALSE(parser.take_continue());

  Parser large;
  CHECK(large.next("POST / HTTP/1.1\r\n" + kHost + "Expect: 100-continue\r\nContent-Length: 65537\r\n\r\n") ==
        Parse::error);
  CHECK_FALSE(large.take_continue());
  Parser old;
  CHECK(old.next("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n") ==
        Parse::incomplete);
  CHECK_FALSE(old.take_continue());
}

TEST_CASE("wherever the bytes are split, and when they come one by one, the outcome is the same") {
  const std::vector<std::string> samples{
      get("/v1/auth?rule=api&key=user%3A1", "X-Tally-Key: k\r\n") + post("{\"rule\":\"api\"}") +
          get("/metrics"),
      chunked("5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nTrailer: x\r\n\r\n") + "\r\n" + get("/"),
      post("abc") + "GET / HTTP/1.1\nHost: x\r\n\r\n",
      get("/") + "nonsense\r\n" + get("/"),
      chunked("5\r\nhelloX\r\n0\r\n\r\n"),
      chunked("5\r\nhello\r\nz\r\n"),
      get("/", "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"),
      "GET / HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\n\r\n",
  };
  for (const std::string& bytes : samples) {
    CAPTURE(bytes);
    const auto whole = read(bytes);
    CHECK_FALSE(whole.empty());
    for (size_t at = 1; at < bytes.size(); ++at) CHECK(read(bytes, {at}) == whole);
    CHECK(read(bytes, std::vector<size_t>(bytes.size(), 1)) == whole);
  }
  for (const std::string& bytes :
       {"GET /" + std::string(9000, 'x'), "GET / HTTP/1.1\r\nX: " + std::string(9000, 'x') + "\r\nbad\n",
        chunked("0\r\n" + std::string(9000, 'x'))})
    CHECK(read(bytes, std::vector<size_t>(bytes.size(), 1)) == read(bytes));
}

TEST_CASE("random bytes are read or refused, and pieces of them make no difference") {
  Random random(test_seed(20261129));
  uint64_t read_whole = 0, refused = 0;
  const std::vector<std::string> words{"GET ",
                                       "POST ",
                                       "/",
                                       " HTTP/1.1",
                                       " HTTP/1.0",
                                       "\r\n",
                                       "\r\n\r\n",
                                       "Host: x\r\n",
                                       "\n",
                                       "\r",
                                       ":",
                                       " ",
                                       "Content-Length: ",
                                       "3",
                                       "Transfer-Encoding: chunked\r\n",
                                       "Connection: close\r\n",
                                       "Expect: 100-continue\r\n",
                                       "0\r\n\r\n",
                                       "2\r\nab\r\n",
                                       "x",
                                       "\xff",
                                       "%41",
                                       "?",
                                       "ffff"};
  for (uint64_t i = scaled(100'000); i > 0; --i) {
    std::string bytes = random.chance(0.5) ? "POST / HTTP/1.1\r\nHost: x\r\n" : "";
    for (uint64_t n = random.below(12); n > 0; --n) {
      if (random.chance(0.1))
        bytes += static_cast<char>(random.below(256));
      else
        bytes += words[random.below(words.size())];
    }
    std::vector<size_t> pieces;
    for (size_t at = 0; at < bytes.size(); at += pieces.back()) pieces.push_back(1 + random.below(7));
    CAPTURE(bytes);
    const auto whole = read(bytes);
    CHECK(read(bytes, pieces) == whole);
    for (const Seen& seen : whole) ++(seen.refused == 0 ? read_whole : refused);
  }
  CHECK(read_whole > 10);
  CHECK(refused > 10);
}

TEST_CASE("a query's value is decoded, or refused where it cannot be") {
  const auto decoded = [](std::string_view text) {
    std::string out;
    return decode(text, out) ? out : "(refused)";
  };
  CHECK(decoded("user%3a1+x") == "user:1 x");
  CHECK(decoded("%00%ff%25") == std::string("\0\xff%", 3));
  CHECK(decoded("") == "");
  for (const char* bad : {"%", "a%4", "%4x", "%x4", "%%41"}) CHECK(decoded(bad) == "(refused)");
}
