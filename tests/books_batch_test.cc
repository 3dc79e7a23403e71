// Calls of the script in Redis, its answers as grants, and where Redis is.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "base/random.h"
#include "books/batch.h"
#include "books/kept.h"
#include "config/books_url.h"

using namespace tally;
using namespace std::chrono_literals;
using nlohmann::json;

namespace {

constexpr BooksCaller kCaller{.node = 11, .incarnation = 22, .store = 33};

BooksReport window_report(uint8_t key, int64_t window) {
  BooksReport asked;
  asked.report.key.bytes[0] = key;
  asked.report.terms = {Algorithm::sliding_window, 100, {}, 60s, {}};
  asked.report.window = window;
  asked.report.line = 7;
  asked.report.stamp = 1'750'000'000'999;  // in nanoseconds
  asked.report.wanted = UINT64_MAX - 5;  // beyond what a double holds
  return asked;
}

std::string packed(const json& value) {
  const auto bytes = json::to_msgpack(value);
  return {bytes.begin(), bytes.end()};
}

}  // namespace

TEST_CASE("a call names each book once, those of windows before too, and gives times in microseconds") {
  const std::vector<BooksReport> reports{window_report(1, 1000), window_report(2, 1000), window_report(1, 1001)};
  BooksTerms terms;
  terms.server = "abc";
  terms.generation = 5;
  terms.generation_since = 66;
  terms.quiet = 2s;
  const BooksCall call = books_call(reports, kCaller, terms, BooksNames("edge"));
  const std::vector<std::string> names{"edge:{0}:generation",
                                       "edge:{0}:010000000000000000000000:1000",
                                       "edge:{0}:010000000000000000000000:999",
                                       "edge:{0}:020000000000000000000000:1000",
                                       "edge:{0}:020000000000000000000000:999",
                                       "edge:{0}:010000000000000000000000:1001"};
  CHECK(call.keys == names);
  const json all = json::from_msgpack(call.argument);
  CHECK(all[0] == "abc");
  CHECK(all[1] == 5);
  CHECK(all[5] == 66);
  CHECK(all[2] == 2'000'000);
  const json& third = all[4][2];
  CHECK(third[1] == 6);  // as Lua counts
  CHECK(third[2] == 2);
  CHECK(third[3].get<std::string>() == std::string("\0\0\0\0\0\0\0\x0b\0\0\0\0\0\0\0\x16\0\0\0\7", 20));
  CHECK(third[12] == (uint64_t{1} << 56) - 1);
  CHECK(third[16] == 1'750'000'000);
  CHECK(third[25] == int64_t{1001} * 60'000'000);
  CHECK(third[26] == int64_t{1002} * 60'000'000);
}

TEST_CASE("what is pushed is a grant of the line that it names, and nothing else is") {
  const BooksNames names("edge", 64);
  WireId key;
  key.bytes = {0xfe, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0x0b};
  const std::string line = hex_digits(kCaller.node) + hex_digits(kCaller.incarnation) + "00000007";
  const json row{4, 30, 31, 0, 65535, false, false, true, 0, hex_digits(9), 0, 0, 0};
  const auto grant = books_push(packed({names.window(key, -3), line, row}), kCaller, names);
  REQUIRE(grant.has_value());
  CHECK(grant->key == key);
  CHECK(grant->window == -3);
  CHECK(grant->line == 7);
  CHECK(grant->incarnation == kCaller.incarnation);
  CHECK(grant->granted == 30);
  CHECK(grant->pool == 0);
  CHECK(grant->reset == 9);
  CHECK(grant->stamp == 0);
  CHECK(names.pushed(kCaller.node) == "edge:{pushed}:000000000000000b");
  for (const json& other : {json({names.window(key, -3), hex_digits(12) + line.substr(16), row}), json({names.window(key, -3), line.substr(0, 16) + hex_digits(23) + "00000007", row}),
                            json({names.window(key, -3), line.substr(1), row}), json({names.window(key, -3), line.substr(0, 39) + "x", row}), json({names.window(key, -3), "", row}),
                            json({names.window(key, -3), line, json::array({1})}), json({names.bucket(key), line, row}), json({names.window(key, -3) + "x", line, row}),
                            json({BooksNames("other", 64).window(key, -3), line, row}), json({names.window(key, -3), line}), json(7)})
    CHECK_FALSE(books_push(packed(other), kCaller, names).has_value());
  CHECK_FALSE(books_push("", kCaller, names).has_value());
}

TEST_CASE("an answer gives each line its grant, and one more where it is to give back what it does not use") {
  const std::vector<BooksReport> reports{window_report(1, 1000), window_report(2, 1000), window_report(3, 1000)};
  const json row = json::array({4, 50, 60, 200, 65535, true, false, true, 1500, "000000000000002a", 0, 0, 0});
  const auto answer = books_answer(packed(json::array({4, 250'000, 1'750'000'000'000'000, json::array({row, false, row}), 77})), reports, kCaller);
  REQUIRE(answer);
  CHECK(answer.value().generation == 4);
  CHECK(answer.value().generation_since == 77);
  CHECK(answer.value().quiet_left == 250ms);
  CHECK(answer.value().now == WallTime(std::chrono::seconds(1'750'000'000)));
  REQUIRE(answer.value().grants.size() == 4);
  const Grant& grant = answer.value().grants[0];
  CHECK(grant.key == reports[0].report.key);
  CHECK(grant.ballot == Ballot{4, 33});
  CHECK(grant.line == 7);
  CHECK(grant.incarnation == 22);
  CHECK(grant.granted == 50);
  CHECK(grant.exhausted);
  CHECK(grant.backed);
  CHECK(grant.ask_again == 1500us);
  CHECK(grant.reset == 42);
  CHECK(grant.stamp == reports[0].report.stamp);
  CHECK(answer.value().grants[1].stamp == 0);
  CHECK(answer.value().grants[2].key == reports[2].report.key);
}

TEST_CASE("near the end of a fixed window a call names the book of the next, and its answer may grant of that, too") {
  std::vector<BooksReport> reports{window_report(1, 1000)};
  reports[0].report.terms.algorithm = Algorithm::fixed_window;
  BooksTerms terms;
  terms.sync_interval = 100ms;
  const WallTime end(std::chrono::seconds(1001 * 60));
  const auto asked = [&](WallTime now) {
    terms.now = now;
    return books_call(reports, kCaller, terms, BooksNames("edge"));
  };
  const BooksCall near = asked(end - 300ms);
  CHECK(near.keys.back() == "edge:{0}:010000000000000000000000:1001");
  const json row = json::from_msgpack(near.argument)[4][0];
  CHECK(row[27] == 3);
  CHECK(row[28] == int64_t{1002} * 60'000'000);
  CHECK(asked(end - 301ms).keys.size() == 2);
  reports[0].begin.takes_next = false;
  CHECK(asked(end - 300ms).keys.size() == 2);
  reports[0].begin.takes_next = true;
  reports[0].report.final = true;
  CHECK(asked(end - 300ms).keys.size() == 2);

  json both = json::array({4, 50, 60, 200, 65535, false, false, false, 0, "0000000000000000", 0, 0, 0});
  const json ahead = json::array({4, 7, 0, 255, 65535, false, false, false, 0, "0000000000000000", 0, 0, 0});
  both.push_back(ahead);
  const auto answer = books_answer(packed(json::array({4, 0, 1, json::array({both}), 77})), reports, kCaller);
  REQUIRE(answer);
  REQUIRE(answer.value().grants.size() == 2);
  CHECK(answer.value().grants[0].window == 1000);
  CHECK(answer.value().grants[0].granted == 50);
  CHECK(answer.value().grants[1].window == 1001);
  CHECK(answer.value().grants[1].granted == 7);
  both.back().push_back(ahead);  // of one window only
  CHECK_FALSE(books_answer(packed(json::array({4, 0, 1, json::array({both}), 77})), reports, kCaller));
}

TEST_CASE("an answer that the script did not give is an error, whatever it is") {
  const std::vector<BooksReport> reports{window_report(1, 1000)};
  const json row = json::array({4, 50, 60, 200, 65535, true, false, true, 1500, "000000000000002a", 0, 0, 0});
  const std::string good = packed(json::array({4, 0, 1, json::array({row}), 77}));
  REQUIRE(books_answer(good, reports, kCaller));
  CHECK_FALSE(books_answer("", reports, kCaller));
  CHECK_FALSE(books_answer(packed(json::array({4, 0, 1, json::array(), 77})), reports, kCaller));
  CHECK_FALSE(books_answer(packed(json::array({4, 0, 1, json::array({json::array({1, 2})})})), reports, kCaller));
  Random random(3);
  size_t errors = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string bytes = good;
    for (uint64_t n = 1 + random.below(4); n > 0; --n) bytes[random.below(bytes.size())] = static_cast<char>(random.below(256));
    if (random.below(4) == 0) bytes.resize(random.below(bytes.size()));
    errors += books_answer(bytes, reports, kCaller) ? 0 : 1;
  }
  CHECK(errors > 5'000);
}

TEST_CASE("a place of Redis is read, and written as it is read") {
  for (const char* text : {"redis://10.0.0.5:6379", "redis://us%3Aer:p%40ss@redis-1:7000,[2001:db8::1]:6379/3?prefix=edge:1", "unix:/run/redis.sock?prefix=a&db=2",
                           "redis-sentinel://10.0.0.5:26379,10.0.0.6:26379/main/1", "redis://:secret@10.0.0.5:6379",
                           "redis-cluster://us%3Aer:p%40ss@redis-1:7000,[2001:db8::1]:6379?prefix=edge:1"}) {
    CAPTURE(text);
    const auto url = parse_books_url(text);
    REQUIRE(url);
    CHECK(url.value().text() == text);
  }
  CHECK(parse_books_url("redis://10.0.0.5").value().places.front().port == 6379);
  CHECK(parse_books_url("redis-sentinel://10.0.0.5/main").value().places.front().port == 26379);
  CHECK(parse_books_url("redis-cluster://10.0.0.5/0").value().text() == "redis-cluster://10.0.0.5:6379");
  CHECK(parse_books_url("redis://u:secret@h:1").value().text_without_secret() == "redis://u:...@h:1");
}

TEST_CASE("what is no place of Redis is an error that says why, and shows no password") {
  const auto why = [](const char* text) {
    const auto url = parse_books_url(text);
    REQUIRE_MESSAGE(!url, text);
    return url.error();
  };
  CHECK(why("rediss://h").find("its scheme is not known") != std::string::npos);
  CHECK(why("redis-cluster://h/1").find("the database 0 and no other") != std::string::npos);
  CHECK(why("redis-cluster://h?db=2").find("the database 0 and no other") != std::string::npos);
  CHECK(why("redis-cluster://h/main").find("the number of a database") != std::string::npos);
  CHECK(why("redis://").find("a host is an address or a name") != std::string::npos);
  CHECK(why("redis://h:0").find("from 1 to 65535") != std::string::npos);
  CHECK(why("redis://h:70000").find("from 1 to 65535") != std::string::npos);
  CHECK(why("redis://h/x").find("the number of a database") != std::string::npos);
  CHECK(why("redis://[::1").find("']' is missing") != std::string::npos);
  CHECK(why("redis://h?prefix=").find("a prefix has") != std::string::npos);
  CHECK(why("redis://h?x=1").find("there is no option \"x\"") != std::string::npos);
  CHECK(why("redis://a:%4@h").find("two hexadecimal digits") != std::string::npos);
  CHECK(why("redis-sentinel://h").find("the name of the master is missing") != std::string::npos);
  CHECK(why("unix:run.sock").find("absolute") != std::string::npos);
  CHECK(why("redis://u:secret@h:0").find("secret") == std::string::npos);
}

TEST_CASE("names in Redis are told apart by kind, those that a call gives and no others") {
  const BooksNames names("edge:1", 64);
  const BooksReport report = window_report(7, 5);
  const WireId& key = report.report.key;
  const auto kind = [](const std::string& name) { return kind_of_name("edge:1", name); };
  CHECK(kind(names.window(key, 1000)) == BooksName::window);
  CHECK(kind(names.window(key, -1)) == BooksName::window);
  CHECK(kind(names.bucket(key)) == BooksName::bucket);
  CHECK(kind(names.count(key)) == BooksName::central);
  CHECK(kind(names.count(key) + ":7") == BooksName::other);
  CHECK(kind(names.generation(63)) == BooksName::generation);
  CHECK(kind(names.lives()) == BooksName::lives);
  for (const char* other : {"", "edge:1", "edge:1:{0}:livesx", "edge:1:{", "edge:1:{}:generation", "edge:1:{0}:", "edge:1:{0}:abc", "edge:1:{x}:generation", "edge:{0}:generation",
                            "edge:1:{0}:070000000000000000000000:", "edge:1:{0}:070000000000000000000000:x", "edge:1:{0}:07000000000000000000000g"})
    CHECK_MESSAGE(kind(other) == BooksName::other, other);
  CHECK(number_of_generation(packed({{"number", 7}, {"server", "x"}})) == 7);
  for (const json& other : {json{{"server", "x"}}, json{{"number", "7"}}, json{7}, json(nullptr)}) CHECK(!number_of_generation(packed(other)));
  CHECK(!number_of_generation("\xC1"));
}
