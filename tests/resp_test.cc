// The RESP parser and writer: what each byte string is, however it is cut, and what no byte string can do.
#include "doors/resp.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "base/random.h"
#include "seed.h"

using namespace tally;
using namespace tally::resp;

namespace {

// What the parser says of one step, in text, so that two runs compare as a whole.
struct Event {
  Parse kind;
  std::vector<std::string> args;
  std::string error;
  friend bool operator==(const Event&, const Event&) = default;
};

std::ostream& operator<<(std::ostream& out, const std::vector<Event>& events) {
  for (const Event& e : events) {
    out << static_cast<int>(e.kind) << ' ' << e.error;
    for (const auto& arg : e.args) out << " [" << arg << ']';
    out << '\n';
  }
  return out;
}

// Drives a parser as a connection does: bytes arrive in pieces, what is consumed is dropped, each time the
// rest moves to memory of exactly its size, so that a read beyond it is an error under ASan.
class Driver {
 public:
  explicit Driver(Limits limits = {}) : parser_(limits) {}

  // False once there was a protocol error.
  bool feed(std::string_view bytes) {
    if (failed_) return false;
    pending_.append(bytes);
    for (;;) {
      const auto exact = std::make_unique<char[]>(pending_.size() + 1);
      std::copy(pending_.begin(), pending_.end(), exact.get() + 1);  // odd alignment, too
      const std::string_view input(exact.get() + 1, pending_.size());
      const Parse kind = parser_.next(input);
      REQUIRE(parser_.consumed <= input.size());
      if (kind == Parse::incomplete) {
        REQUIRE(parser_.consumed == 0);
        return true;
      }
      if (kind == Parse::error) {
        events.push_back({kind, {}, parser_.error});
        failed_ = true;
        return false;
      }
      REQUIRE(parser_.consumed > 0);
      if (kind == Parse::command) {
        REQUIRE(!parser_.args.empty());
        events.push_back({kind, {parser_.args.begin(), parser_.args.end()}, {}});
      } else {
        events.push_back({kind, {}, {}});
      }
      pending_.erase(0, parser_.consumed);
    }
  }

  size_t unread() const { return pending_.size(); }
  std::vector<Event> events;

 private:
  Parser parser_;
  std::string pending_;
  bool failed_ = false;
};

std::vector<Event> at_once(std::string_view bytes, Limits limits = {}) {
  Driver driver(limits);
  driver.feed(bytes);
  return driver.events;
}

std::vector<Event> byte_by_byte(std::string_view bytes, Limits limits = {}) {
  Driver driver(limits);
  for (const char c : bytes) {
    if (!driver.feed({&c, 1})) break;
  }
  return driver.events;
}

std::vector<Event> in_random_pieces(std::string_view bytes, Random& random, Limits limits = {}) {
  Driver driver(limits);
  while (!bytes.empty()) {
    const size_t n = std::min<size_t>(bytes.size(), 1 + random.below(random.chance(0.5) ? 4 : 64));
    if (!driver.feed(bytes.substr(0, n))) break;
    bytes.remove_prefix(n);
  }
  return driver.events;
}

Event command(std::vector<std::string> args) { return {Parse::command, std::move(args), {}}; }
Event nothing() { return {Parse::nothing, {}, {}}; }
Event protocol_error(std::string text) { return {Parse::error, {}, "Protocol error: " + std::move(text)}; }

std::string encoded(const std::vector<std::string>& args) {
  std::string out;
  Writer writer(out);
  writer.array(args.size());
  for (const auto& arg : args) writer.bulk(arg);
  return out;
}

std::string random_bytes(Random& random, size_t most) {
  std::string bytes(random.below(most + 1), '\0');
  for (char& c : bytes) c = static_cast<char>(random.below(256));
  return bytes;
}

// Bytes that look like RESP: the parser's branches are reached far more often than by bytes drawn evenly.
std::string random_fragments(Random& random, size_t most) {
  static const char* const pieces[] = {"*1\r\n",     "*3\r\n",  "*-1\r\n", "*0\r\n", "$4\r\nPING\r\n",
                                       "$0\r\n\r\n", "$-1\r\n", "$3\r\n",  "*",      "$",
                                       "\r\n",       "\r",      "\n",      "0",      "1",
                                       "9",          "-",       "\"",      "'",      "\\x4",
                                       "\\",         "PING ",   "a",       " ",      "*2\r\n$1\r\na\r\n"};
  std::string bytes;
  for (size_t n = random.below(most + 1); n != 0; --n) bytes += pieces[random.below(std::size(pieces))];
  return bytes;
}

std::string random_pipeline(Random& random) {
  std::string bytes;
  for (size_t n = 1 + random.below(6); n != 0; --n) {
    if (random.chance(0.15)) {
      bytes += random.chance(0.5) ? "PING\r\n" : "ECHO \"a b\\x00\" 'it\\'s'\n";
    } else if (random.chance(0.1)) {
      bytes += random.chance(0.5) ? "*0\r\n" : "\r\n";
    } else {
      std::vector<std::string> args(1 + random.below(7));
      for (auto& arg : args) arg = random_bytes(random, random.chance(0.05) ? 2000 : 20);
      bytes += encoded(args);
    }
  }
  return bytes;
}

std::string mutated(std::string bytes, Random& random) {
  for (size_t n = 1 + random.below(4); n != 0 && !bytes.empty(); --n) {
    const size_t at = random.below(bytes.size());
    switch (random.below(5)) {
      case 0:
        bytes[at] = static_cast<char>(random.below(256));
        break;
      case 1:
        bytes.erase(at, 1 + random.below(8));
        break;
      case 2:
        bytes.insert(at, random_fragments(random, 2));
        break;
      case 3:
        bytes.resize(at);
        break;
      default:
        bytes.insert(at, bytes.substr(random.below(bytes.size()), random.below(30)));
        break;
    }
  }
  return bytes;
}

std::string written(void (*write)(Writer&), int version = 2) {
  std::string out;
  Writer writer(out, version);
  write(writer);
  return out;
}

}  // namespace

TEST_CASE("an array of bulk strings is a command, and bytes are bytes") {
  CHECK(at_once("*1\r\n$4\r\nPING\r\n") == std::vector{command({"PING"})});
  const std::string key("a\r\n$\0*", 6);
  CHECK(at_once(encoded({"GET", key, ""})) == std::vector{command({"GET", key, ""})});
}

TEST_CASE(
    "a pipeline is its commands in order, null and empty arrays and empty lines in between are skipped") {
  CHECK(at_once("*1\r\n$1\r\na\r\n*0\r\n*-1\r\n*-7\r\n\r\n  \t \r\n\n*1\r\n$1\r\nb\r\nc d\r\n") ==
        std::vector{command({"a"}), nothing(), nothing(), nothing(), nothing(), nothing(), nothing(),
                    command({"b"}), command({"c", "d"})});
}

TEST_CASE("an unfinished command consumes nothing, wherever it is cut") {
  const std::string whole = encoded({"CL.THROTTLE", "user:1", "15", "30", "60", "1"});
  for (size_t cut = 0; cut < whole.size(); ++cut) {
    Driver driver;
    CHECK(driver.feed(whole.substr(0, cut)));
    CHECK(driver.events.empty());
    CHECK(driver.unread() == cut);
    CHECK(driver.feed(whole.substr(cut)));
    CHECK(driver.events == std::vector{command({"CL.THROTTLE", "user:1", "15", "30", "60", "1"})});
    CHECK(driver.unread() == 0);
  }
}

TEST_CASE("an inline command is split like a line of redis-cli") {
  CHECK(at_once("PING\r\n") == std::vector{command({"PING"})});
  CHECK(at_once("  set\tkey   1 \n") == std::vector{command({"set", "key", "1"})});
  CHECK(at_once("a \"b c\" 'd e' \"\" '' f\r\n") == std::vector{command({"a", "b c", "d e", "", "", "f"})});
  CHECK(at_once("a \"\\x41\\n\\r\\t\\b\\a\\\\\\\"\\q\\x4\" '\\n\\'\"'\r\n") ==
        std::vector{command({"a", "A\n\r\t\b\a\\\"qx4", "\\n'\""})});
  CHECK(at_once("a\"b c\" d\r\n") == std::vector{command({"ab c", "d"})});
}

TEST_CASE("words before and after a quoted one keep their bytes") {
  Parser parser;
  const std::string line = "take api \"a longer key with spaces\" 'and another one' 17\r\n";
  REQUIRE(parser.next(line) == Parse::command);
  const std::vector<std::string> args(parser.args.begin(), parser.args.end());
  CHECK(args == std::vector<std::string>{"take", "api", "a longer key with spaces", "and another one", "17"});
}

TEST_CASE("unbalanced quotes are a protocol error") {
  for (const char* line :
       {"a \"b\r\n", "a 'b\r\n", "a \"b\"c\r\n", "a 'b'c\r\n", "a \"b\\\"\r\n", "\"\r\n", "a \"\\\r\n"}) {
    CAPTURE(line);
    CHECK(at_once(line) == std::vector{protocol_error("unbalanced quotes in request")});
  }
}

TEST_CASE("a wrong number of arguments is an invalid multibulk length") {
  for (const char* bytes :
       {"*x\r\n", "*\r\n", "*1x\r\n", "*01\r\n", "*-0\r\n", "*+1\r\n", "* 1\r\n", "*1\n", "*1\rx",
        "*1025\r\n", "*99999999999", "*9223372036854775808\r\n", "*--1\r\n", "*1.0\r\n"}) {
    CAPTURE(bytes);
    CHECK(at_once(bytes) == std::vector{protocol_error("invalid multibulk length")});
  }
}

TEST_CASE("a wrong length, or one that the bytes belie, is an invalid bulk length") {
  for (const char* bytes : {"$x\r\n", "$\r\n", "$-1\r\n", "$00\r\n", "$65537\r\n", "$1\n", "$1\rx",
                            "$99999999999", "$4\r\nPINGxx", "$4\r\nPING\rx", "$3\r\nPING\r\n"}) {
    CAPTURE(bytes);
    CHECK(at_once("*1\r\n" + std::string(bytes)) == std::vector{protocol_error("invalid bulk length")});
  }
}

TEST_CASE("anything but a bulk string in an array is named in the error") {
  CHECK(at_once("*1\r\nx") == std::vector{protocol_error("expected '$', got 'x'")});
  CHECK(at_once("*1\r\n:1\r\n") == std::vector{protocol_error("expected '$', got ':'")});
  CHECK(at_once("*2\r\n$1\r\na\r\n*1\r\n") == std::vector{protocol_error("expected '$', got '*'")});
  CHECK(at_once("*1\r\n\r\n") == std::vector{protocol_error("expected '$', got '\\x0d'")});
  CHECK(at_once("*1\r\n\xff") == std::vector{protocol_error("expected '$', got '\\xff'")});
}

TEST_CASE("what came before a protocol error is answered, what comes after is not read") {
  CHECK(at_once(encoded({"PING"}) + "*1\r\n!\r\n" + encoded({"PING"})) ==
        std::vector{command({"PING"}), protocol_error("expected '$', got '!'")});
}

TEST_CASE("each limit holds exactly") {
  const Limits limits{
      .arguments_max = 3, .argument_bytes_max = 5, .inline_bytes_max = 16, .command_bytes_max = 40};
  CHECK(at_once(encoded({"a", "b", "c"}), limits) == std::vector{command({"a", "b", "c"})});
  CHECK(at_once(encoded({"a", "b", "c", "d"}), limits) ==
        std::vector{protocol_error("invalid multibulk length")});
  CHECK(at_once(encoded({"12345"}), limits) == std::vector{command({"12345"})});
  CHECK(at_once(encoded({"123456"}), limits) == std::vector{protocol_error("invalid bulk length")});
  CHECK(encoded({"12345", "12345", "12345"}).size() == 37);
  CHECK(at_once(encoded({"12345", "12345", "12345"}), limits).front().kind == Parse::command);
  Limits smaller = limits;
  smaller.command_bytes_max = 36;
  CHECK(at_once(encoded({"12345", "12345", "12345"}), smaller) ==
        std::vector{protocol_error("invalid bulk length")});

  CHECK(at_once("1234567890123456\n", limits) == std::vector{command({"1234567890123456"})});
  CHECK(at_once("12345678901234567\n", limits) == std::vector{protocol_error("too big inline request")});
  CHECK(at_once("12345678901234567", limits) == std::vector{protocol_error("too big inline request")});
  CHECK(at_once("1234567890123456", limits).empty());
  CHECK(at_once("a b c\n", limits) == std::vector{command({"a", "b", "c"})});
  CHECK(at_once("a b c d\n", limits) == std::vector{protocol_error("too big inline request")});
}

TEST_CASE("what was understood of an unfinished command is not read again") {
  // Shown by spoiling it: a parser that started over would see the spoilt bytes. (The words are looked at by
  // nobody but the caller.)
  const std::string whole = encoded({"abc", "defgh", "ij", "klm"});
  std::string spoilt = whole;
  Parser parser;
  CHECK(parser.next(std::string_view(whole).substr(0, whole.size() - 3)) == Parse::incomplete);
  for (size_t i = 1; i < whole.size() - 9; ++i) spoilt[i] = '!';
  REQUIRE(parser.next(spoilt) == Parse::command);
  REQUIRE(parser.args.size() == 4);
  CHECK(parser.args[1] == "!!!!!");
  CHECK(parser.args[3] == "klm");
  CHECK(parser.consumed == whole.size());

  spoilt = "abc def\n";
  CHECK(parser.next("abc def") == Parse::incomplete);
  spoilt[3] = '\n';
  REQUIRE(parser.next(spoilt) == Parse::command);
  CHECK(parser.consumed == spoilt.size());
}

TEST_CASE(
    "a parser that is handed other bytes than before starts over when they are fewer, and never reads beyond "
    "them") {
  Parser parser;
  const std::string first = encoded({"abc", "defghi", "j"});
  CHECK(parser.next(std::string_view(first).substr(0, first.size() - 3)) == Parse::incomplete);
  CHECK(parser.next("*1\r\n$1\r\nx\r\n") == Parse::command);
  CHECK(parser.next(std::string_view(first).substr(0, first.size() - 3)) == Parse::incomplete);
  parser.forget();
  REQUIRE(parser.next(first) == Parse::command);
  CHECK(parser.args.size() == 3);

  const uint64_t seed = test_seed(0x5eed01);
  CAPTURE(seed);
  Random random(seed);
  Parser shared;
  for (int i = 0; i < 20'000; ++i) {  // forget() is never called: wrong, but harmless
    const std::string bytes =
        random.chance(0.5) ? random_fragments(random, 8) : mutated(random_pipeline(random), random);
    const auto exact = std::make_unique<char[]>(bytes.size());
    std::copy(bytes.begin(), bytes.end(), exact.get());
    shared.next({exact.get(), bytes.size()});
    REQUIRE(shared.consumed <= bytes.size());
  }
}

TEST_CASE("bytes at once, one by one and in random pieces give the same") {
  const uint64_t seed = test_seed(0x5eed02);
  CAPTURE(seed);
  Random random(seed);
  const Limits small{
      .arguments_max = 5, .argument_bytes_max = 100, .inline_bytes_max = 40, .command_bytes_max = 300};
  for (int i = 0; i < 3'000; ++i) {
    std::string bytes = random_pipeline(random);
    if (random.chance(0.5)) bytes = mutated(std::move(bytes), random);
    if (random.chance(0.2)) bytes = random_fragments(random, 12);
    const Limits limits = random.chance(0.5) ? small : Limits{};
    CAPTURE(i);
    const auto whole = at_once(bytes, limits);
    REQUIRE(whole == byte_by_byte(bytes, limits));
    REQUIRE(whole == in_random_pieces(bytes, random, limits));
  }
}

TEST_CASE("a valid pipeline comes out as it went in, however it is cut") {
  const uint64_t seed = test_seed(0x5eed03);
  CAPTURE(seed);
  Random random(seed);
  for (int i = 0; i < 2'000; ++i) {
    std::vector<Event> expected;
    std::string bytes;
    for (size_t n = 1 + random.below(8); n != 0; --n) {
      std::vector<std::string> args(1 + random.below(10));
      for (auto& arg : args) arg = random_bytes(random, 60);
      bytes += encoded(args);
      expected.push_back(command(std::move(args)));
    }
    REQUIRE(in_random_pieces(bytes, random) == expected);
  }
}

TEST_CASE("100,000 random byte strings and mutated pipelines neither crash the parser nor stop it") {
  const uint64_t seed = test_seed(0x5eed04);
  CAPTURE(seed);
  Random random(seed);
  size_t errors = 0, commands = 0;
  for (int i = 0; i < 100'000; ++i) {
    std::string bytes;
    switch (i % 3) {
      case 0:
        bytes = random_bytes(random, 200);
        break;
      case 1:
        bytes = random_fragments(random, 12);
        break;
      default:
        bytes = mutated(random_pipeline(random), random);
        break;
    }
    for (const Event& event : at_once(bytes)) {
      errors += event.kind == Parse::error;
      commands += event.kind == Parse::command;
    }
  }
  CHECK(errors > 100);  // or the strings test nothing
  CHECK(commands > 100);
}

TEST_CASE("integers are read as Redis reads them") {
  int64_t n = 0;
  for (const auto& [text, value] :
       std::vector<std::pair<std::string, int64_t>>{{"0", 0},
                                                    {"7", 7},
                                                    {"-1", -1},
                                                    {"1000000", 1'000'000},
                                                    {"9223372036854775807", INT64_MAX},
                                                    {"-9223372036854775808", INT64_MIN}}) {
    CAPTURE(text);
    CHECK(parse_integer(text, n));
    CHECK(n == value);
  }
  for (const std::string text :
       {"", "-", "+1", " 1", "1 ", "01", "-0", "-01", "1.0", "1e3", "0x1", "abc", "--1",
        "9223372036854775808", "-9223372036854775809", "99999999999999999999999"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_integer(text, n));
  }
  CHECK_FALSE(parse_integer(std::string_view("1\0", 2), n));
}

TEST_CASE("every kind of reply is written for RESP2 and RESP3") {
  CHECK(written([](Writer& w) { w.simple("OK"); }) == "+OK\r\n");
  CHECK(written([](Writer& w) { w.error("ERR no"); }) == "-ERR no\r\n");
  CHECK(written([](Writer& w) { w.integer(-42); }) == ":-42\r\n");
  CHECK(written([](Writer& w) { w.integer(INT64_MIN); }) == ":-9223372036854775808\r\n");
  CHECK(written([](Writer& w) { w.integer(10); }) == ":10\r\n");
  CHECK(written([](Writer& w) { w.bulk(std::string_view("a\0b", 3)); }) == std::string("$3\r\na\0b\r\n", 9));
  CHECK(written([](Writer& w) { w.bulk(""); }) == "$0\r\n\r\n");
  CHECK(written([](Writer& w) { w.array(12); }) == "*12\r\n");
  CHECK(written([](Writer& w) { w.null(); }) == "$-1\r\n");
  CHECK(written([](Writer& w) { w.null(); }, 3) == "_\r\n");
  CHECK(written([](Writer& w) { w.map(3); }) == "*6\r\n");
  CHECK(written([](Writer& w) { w.map(3); }, 3) == "%3\r\n");
  CHECK(written([](Writer& w) { w.boolean(true); }) == ":1\r\n");
  CHECK(written([](Writer& w) { w.boolean(false); }, 3) == "#f\r\n");
  CHECK(written([](Writer& w) { w.number(0.05); }) == "$4\r\n0.05\r\n");
  CHECK(written([](Writer& w) { w.number(0.05); }, 3) == ",0.05\r\n");
  CHECK(written([](Writer& w) { w.number(-std::numeric_limits<double>::infinity()); }, 3) == ",-inf\r\n");
  CHECK(written([](Writer& w) { w.number(std::nan("")); }, 3) == ",nan\r\n");
}

TEST_CASE("a reply of one line stays one line whatever is in it") {
  CHECK(written([](Writer& w) { w.error("ERR a\r\nb"); }) == "-ERR a  b\r\n");
  CHECK(written([](Writer& w) { w.simple("a\nb"); }) == "+a b\r\n");
}

TEST_CASE("integers in one array are the same as one by one") {
  const int64_t values[] = {0, 9, 10, -1, INT64_MAX, INT64_MIN, 123'456, 1};
  std::string together, singly;
  Writer a(together), b(singly);
  a.integers(values);
  b.array(std::size(values));
  for (const int64_t value : values) b.integer(value);
  CHECK(together == singly);
}
