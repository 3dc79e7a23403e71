// Trace files: what is read, and what is refused in which words.
#include "sim/trace_file.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "base/random.h"
#include "seed.h"

using namespace tally;
using namespace tally::sim;
using namespace std::chrono_literals;

namespace {

Result<Trace> parsed(std::string_view text, uint16_t nodes = 3) { return parse_trace(text, {nodes, 7}); }

Trace read(std::string_view text, uint16_t nodes = 3) {
  auto trace = parsed(text, nodes);
  REQUIRE_MESSAGE(trace, (trace ? "" : trace.error()));
  return trace.value();
}

std::string refused(std::string_view text, uint16_t nodes = 3) {
  const auto trace = parsed(text, nodes);
  REQUIRE(!trace);
  return trace.error();
}

const std::string kLog =
    "10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.0\" 200 2326\n"
    "10.0.0.2 - frank [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.0\" 200 2326 \"-\" \"curl\"\n"
    "2001:db8::1 - - [10/Oct/2000:13:55:35 -0700] \"-\" 400 0\n";

}  // namespace

TEST_CASE("a trace of time, key, cost and node is read as it stands, and begins at its first request") {
  const Trace trace = read("time,key,cost,node\n100.5,a,2,1\n100.75,b,1,0\n101,a,3,2\n");
  CHECK(trace.keys == std::vector<std::string>{"a", "b"});
  CHECK(trace.origin == 100'500ms);
  REQUIRE(trace.arrivals.size() == 3);
  const Arrival &first = trace.arrivals[0], &second = trace.arrivals[1], &third = trace.arrivals[2];
  CHECK((first.at == 0ns && first.node == 1 && first.key == 0 && first.cost == 2));
  CHECK((second.at == 250ms && second.node == 0 && second.key == 1 && second.cost == 1));
  CHECK((third.at == 500ms && third.node == 2 && third.key == 0 && third.cost == 3));
}

TEST_CASE("columns stand in any order, lines need not be in order, cost and node may be missing") {
  const Trace trace = read("key,time\r\nlate,2.000000001\r\n\r\nearly,1\r\n");
  REQUIRE(trace.arrivals.size() == 2);
  CHECK(trace.keys[trace.arrivals[0].key] == "early");
  CHECK(trace.arrivals[1].at == 1'000'000'001ns);
  CHECK(trace.arrivals[1].cost == 1);
}

TEST_CASE("keys may be quoted, with commas and quotation marks in them") {
  const Trace trace = read("\xef\xbb\xbftime,key\n1,\"a,b\"\n2,\"say \"\"yes\"\"\"\n");
  CHECK(trace.keys == std::vector<std::string>{"a,b", "say \"yes\""});
}

TEST_CASE("without a node column requests come to all nodes, drawn from the seed") {
  std::string text = "time,key\n";
  for (int i = 0; i < 3000; ++i) text += std::to_string(i) + ",k\n";
  const auto arrivals = read(text, 3).arrivals;
  for (uint16_t node = 0; node < 3; ++node)
    CHECK(std::abs(std::ranges::count(arrivals, node, &Arrival::node) - 1000) < 150);
  CHECK(std::ranges::equal(arrivals, read(text, 3).arrivals, {}, &Arrival::node, &Arrival::node));
}

TEST_CASE("a web server's log: the client's address is the key, and a second's requests are spread over it") {
  const Trace trace = read(kLog);
  REQUIRE(trace.arrivals.size() == 3);
  CHECK(trace.keys == std::vector<std::string>{"10.0.0.1", "10.0.0.2", "2001:db8::1"});
  CHECK(trace.origin == std::chrono::seconds(971'211'335));  // 2000-10-10 20:55:35 UTC
  CHECK(trace.arrivals[0].key == 2);
  CHECK(trace.arrivals[1].at == 1s);
  CHECK(trace.arrivals[2].at == 1500ms);
}

TEST_CASE("what is wrong with a trace is said with its line, its column and what was expected") {
  const std::string head = "time,key,cost,node\n";
  CHECK(refused("") ==
        "1:1: the trace is empty; expected a header line such as time,key,cost or a line of a "
        "web server's common log");
  CHECK(refused(head) == "2:1: expected a request, got the end of the trace");
  CHECK(refused("hello\n") ==
        "1:1: expected a header line such as time,key,cost or a line of a web server's "
        "common log, got 'hello'");
  CHECK(refused("time,user\n1,2\n") == "1:6: no column 'user', only time, key, cost and node");
  CHECK(refused("time,time\n") == "1:6: a second column 'time'");
  CHECK(refused("time,cost\n") == "1:10: no column 'key'; time and key are needed");
  CHECK(refused(head + "1,k,1,0\nsoon,k,1,0\n") ==
        "3:1: time: expected seconds such as 1700000000.25, got 'soon'");
  CHECK(refused(head + "-1,k,1,0\n") == "2:1: time: expected seconds such as 1700000000.25, got '-1'");
  CHECK(refused(head + "1.0000000001,k,1,0\n") ==
        "2:1: time: expected seconds such as 1700000000.25, got '1.0000000001'");
  CHECK(refused(head + "99999999999,k,1,0\n") ==
        "2:1: time: expected seconds such as 1700000000.25, got '99999999999'");
  CHECK(refused(head + "1,k,0,0\n") == "2:5: cost: expected a whole number, 1 to 2147483648, got '0'");
  CHECK(refused(head + "1,k,1.5,0\n") == "2:5: cost: expected a whole number, 1 to 2147483648, got '1.5'");
  CHECK(refused(head + "1,k,1,3\n") ==
        "2:7: node: expected a whole number, 0 to 2 (there are 3 nodes), got '3'");
  CHECK(refused(head + "1,,1,0\n") == "2:3: key: expected 1 to 1024 bytes, got 0");
  CHECK(refused(head + "1," + std::string(1025, 'k') + ",1,0\n") ==
        "2:3: key: expected 1 to 1024 bytes, got 1025");
  CHECK(refused(head + "1,k,1\n") == "2:6: expected 4 fields as in the header line, got 3");
  CHECK(refused(head + "1,k,1,0,9\n") == "2:8: expected 4 fields as in the header line, got 5");
  CHECK(refused(head + "1,\"k,1,0\n") == "2:3: the quotation mark is not closed on this line");
  CHECK(refused(head + "1,\"k\"x,1,0\n") ==
        "2:6: expected a comma or the end of the line after the quotation mark");
  CHECK(refused("time,key\n0,a\n9999999,a\n") ==
        "3:1: the trace takes 115 days; expected 31 at most from its first request to its last");
  CHECK(refused(head + std::string("\x1b[31m\n")) == "2:6: expected 4 fields as in the header line, got 1");
}

TEST_CASE("what is wrong with a log is said with its line, its column and what was expected") {
  CHECK(refused(kLog + "nothing\n") ==
        "4:1: expected an address and a time in brackets, as in a common log, got 'nothing'");
  for (const char* wrong :
       {"10/Okt/2000:13:55:36 -0700", "31/Feb/2000:13:55:36 -0700", "10/Oct/2000:25:55:36 -0700",
        "10/Oct/2000 13:55:36 -0700", "10/Oct/2000:13:55:36 -07:0", "10/Oct/9999:13:55:36 +0000",
        "10/Oct/1969:13:55:36 +0000", ""})
    CHECK(refused("::1 - - [" + std::string(wrong) + "] \"GET /\" 200 1\n") ==
          "1:10: expected a time such as 10/Oct/2000:13:55:36 -0700, got '" + std::string(wrong) + "'");
  CHECK(refused(kLog + "::1 - - [10/Oct/2000:13:55:36 -0700") ==
        "4:10: expected a time such as 10/Oct/2000:13:55:36 -0700, got '10/Oct/2000:13:55:36 -0700'");
}

TEST_CASE("any text is either read or refused") {
  Random random(test_seed(11));
  const std::string whole = "time,key,cost,node\n1.5,\"a\"\"b\",2,1\n2,b,1,0\n" + kLog;
  size_t good = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string text = random.chance(0.5) ? whole.substr(0, 40) : kLog;
    for (uint64_t n = random.below(4); n > 0; --n)
      text[random.below(text.size())] =
          random.chance(0.5) ? whole[random.below(whole.size())] : static_cast<char>(random.below(256));
    const auto trace = parsed(text.substr(0, random.below(text.size() + 1)));
    good += static_cast<bool>(trace);
    if (!trace) {
      CHECK(trace.error().find(": ") != std::string::npos);
      continue;
    }
    for (const Arrival& a : trace.value().arrivals) {
      REQUIRE(a.key < trace.value().keys.size());
      REQUIRE(a.node < 3);
      REQUIRE(a.cost >= 1);
    }
    REQUIRE(std::ranges::is_sorted(trace.value().arrivals, {}, &Arrival::at));
  }
  CHECK(good > 100);
}
