// Rules, the cluster and the small languages inside strings.
#include <doctest/doctest.h>

#include <array>
#include <string>

#include "config/config.h"
#include "config/peer_entry.h"
#include "config/values.h"
#include "config_samples.h"
#include "core/calendar.h"
#include "seed.h"

using namespace tally;
using namespace std::chrono_literals;

namespace {

std::string error_of(std::string_view text) {
  std::string out;
  for (const Problem& problem : parse_config(text).errors) {
    if (!out.empty()) out += '\n';
    out += format_problem("f", problem);
  }
  return out;
}
std::string rule_error(std::string_view fields) {
  return error_of("{\"rules\": [ {" + std::string(fields) + "} ]}");
}
std::string cluster_error(std::string_view fields) {
  return error_of("{\"cluster\": {" + std::string(fields) + "}}");
}

Rule rule_of(std::string_view fields) {
  Parsed parsed = parse_config("{\"rules\": [ {\"name\": \"a\", " + std::string(fields) + "} ]}");
  CHECK(parsed.errors.empty());
  return parsed.config.rules.empty() ? Rule{} : parsed.config.rules[0];
}

bool refused(std::string_view duration) { return !parse_duration(duration); }

constexpr std::string_view kPeers = R"("peers": ["127.0.0.1:1", "127.0.0.1:2", "[::1]:3"])";

}  // namespace

TEST_CASE("a duration is a number with a unit, exactly") {
  CHECK(parse_duration("7ns").value() == 7ns);
  CHECK(parse_duration("7us").value() == 7us);
  CHECK(parse_duration("100ms").value() == 100ms);
  CHECK(parse_duration("90s").value() == 90s);
  CHECK(parse_duration("1m").value() == 1min);
  CHECK(parse_duration("24h").value() == 24h);
  CHECK(parse_duration("366d").value() == 24h * 366);
  CHECK(parse_duration("1.5s").value() == 1500ms);
  CHECK(parse_duration("0.1ms").value() == 100us);
  CHECK(parse_duration("1.50000000000000000m").value() == 90s);
  CHECK(parse_duration("0").value() == 0ns);
  CHECK(parse_duration("0s").value() == 0ns);
  CHECK(parse_duration("106751d").value() == 24h * 106751);
  CHECK(parse_duration("9223372036854775807ns").value() == Duration::max());
}

TEST_CASE("what is no duration is refused") {
  for (const char* text : {"",
                           " ",
                           "s",
                           "5",
                           "-5s",
                           "5 s",
                           " 5s",
                           "5s ",
                           "5S",
                           "5sec",
                           "5min",
                           "1.s",
                           ".5s",
                           "1,5s",
                           "1e3s",
                           "0x5s",
                           "1h30m",
                           "5\xC2\xB5s",
                           "0.5ns",
                           "1.0000000001s",
                           "106752d",
                           "9223372036854775808ns",
                           "99999999999999999999999999999999999999999999d"}) {
    CAPTURE(text);
    CHECK(refused(text));
  }
  CHECK(parse_duration("5").error().find("the unit is missing") != std::string::npos);
  CHECK(parse_duration("-5s").error().find("negative") != std::string::npos);
}

TEST_CASE("a duration is written in the largest unit that is exact") {
  CHECK(format_duration(0ns) == "0s");
  CHECK(format_duration(100ms) == "100ms");
  CHECK(format_duration(90s) == "90s");
  CHECK(format_duration(60s) == "1m");
  CHECK(format_duration(24h) == "1d");
  CHECK(format_duration(25h) == "25h");
  CHECK(format_duration(1ms + 1ns) == "1000001ns");
}

TEST_CASE("any duration is read back as it was written") {
  const uint64_t seed = test_seed(7);
  Random random(seed);
  for (int i = 0; i < 20'000; ++i) {
    const Duration d = samples::random_duration(random, 0ns, Duration::max());
    CAPTURE(d.count());
    REQUIRE(parse_duration(format_duration(d)));
    CHECK(parse_duration(format_duration(d)).value() == d);
  }
}

TEST_CASE("a window is a duration, a word for one, or a week, month or year of the calendar") {
  const auto window = [](std::string_view text) {
    return rule_of("\"algorithm\": \"fixed_window\", \"limit\": 1, \"window\": \"" + std::string(text) + "\"").limit.window;
  };
  CHECK(window("90s") == 90s);
  CHECK(window("second") == 1s);
  CHECK(window("minute") == 1min);
  CHECK(window("hour") == 1h);
  CHECK(window("day") == 24h);
  CHECK(window("week") == kWeek);
  CHECK(window("month") == kMonth);
  CHECK(window("year") == kYear);
  for (const std::string_view word : {"week", "month", "year", "90s", "1d"}) CHECK(format_window(window(word)) == word);
  CHECK(format_window(window("day")) == "1d");
  CHECK(rule_of("\"limit\": 1, \"window\": \"day\"").limit.window == 24h);  // has a length, so it may slide
  for (const char* other : {"\"wait\": \"minute\"", "\"wait\": \"month\""})
    CHECK(rule_error("\"name\": \"a\", \"limit\": 1, \"window\": \"1m\", " + std::string(other)).find("rules[0].wait: must be a duration") != std::string::npos);
}

TEST_CASE("a window that is none says what it may be") {
  const auto error = [](std::string_view fields) { return rule_error("\"name\": \"a\", \"limit\": 1, " + std::string(fields)); };
  const std::string fixed = "\"algorithm\": \"fixed_window\", \"window\": ";
  CHECK(error(fixed + "\"months\"") ==
        "f:1:78: rules[0].window: must be a duration such as \"100ms\" or \"1m\", or one of second, minute, hour, day, week, month, "
        "year, got \"months\"; did you mean \"month\"?");
  CHECK(error(fixed + "\"1month\"").find("no unit \"month\"") != std::string::npos);
  CHECK(error(fixed + "\"2629746000000001ns\"").find("this length stands for \"month\"") != std::string::npos);
  CHECK(error("\"window\": \"month\"") ==
        "f:1:49: rules[0].window: a sliding_window has a length and no place in the calendar: set \"algorithm\" to \"fixed_window\" to "
        "count by the month, or give a length such as \"30d\"");
  CHECK(error("\"window\": \"year\"").find("such as \"365d\"") != std::string::npos);
  CHECK(error("\"window\": \"week\"").find("such as \"7d\"") != std::string::npos);
}

TEST_CASE("a calendar window is printed and shown by its word") {
  const Parsed parsed = parse_config(R"({"rules": [{"name": "quota", "algorithm": "fixed_window", "limit": 1000, "window": "month"}]})");
  REQUIRE(parsed.errors.empty());
  const std::string printed = print_config(parsed.config);
  CHECK(printed.find("\"window\": \"month\"") != std::string::npos);
  const Parsed again = parse_config(printed);
  REQUIRE(again.errors.empty());
  CHECK(samples::same(parsed.config, again.config));
  CHECK(describe_promises(parsed.config).find("1000 per month, fixed") != std::string::npos);
}

TEST_CASE("a rate is a count in a unit or in a duration") {
  const auto is = [](std::string_view text, uint32_t count, Duration period) {
    const auto rate = parse_rate(text);
    return rate && rate.value().count == count && rate.value().period == period;
  };
  CHECK(is("50/s", 50, 1s));
  CHECK(is("1000/m", 1'000, 1min));
  CHECK(is("10/100ms", 10, 100ms));
  CHECK(is("1/366d", 1, 24h * 366));
  CHECK(is("2147483648/d", 2'147'483'648, 24h));
  for (const char* text : {"", "50", "/s", "50/", "0/s", "-1/s", "1.5/s", "50/0s", "50/-1s", "50/x", "50/s/s",
                           "50 /s", "50/ s", "2147483649/d", "1/367d", "5/4ns", "99999999999999999999/s"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_rate(text));
  }
  CHECK(format_rate({50, 1s}) == "50/s");
  CHECK(format_rate({10, 100ms}) == "10/100ms");
  CHECK(format_rate({1, 10s}) == "1/10s");
  CHECK(format_rate({1, 60s}) == "1/m");
}

TEST_CASE("an overcount is a percentage, a fraction or unbounded") {
  const auto of = [](std::string_view value) {
    return rule_of(R"("limit": 1, "window": "1m", "max_overcount": )" + std::string(value)).max_overcount;
  };
  CHECK(of("\"5%\"") == Overcount{50'000, false});
  CHECK(of("\"0.0001%\"") == Overcount{1, false});
  CHECK(of("\"12.5%\"") == Overcount{125'000, false});
  CHECK(of("\"100%\"") == Overcount{1'000'000, false});
  CHECK(of("\"0%\"") == Overcount{0, false});
  CHECK(of("0") == Overcount{0, false});
  CHECK(of("0.05") == Overcount{50'000, false});
  CHECK(of("1e-6") == Overcount{1, false});
  CHECK(of("1") == Overcount{1'000'000, false});
  CHECK(of("1.0") == Overcount{1'000'000, false});
  CHECK(of("null") == Overcount{50'000, false});
  CHECK(of("\"unbounded\"").unbounded);
  CHECK(of("\"101%\"").unbounded);
  CHECK(of("\"99999999999999999999999%\"").unbounded);
}

TEST_CASE("a number above 1 is no fraction: a percentage without its sign must not become unbounded") {
  const std::string rule = R"("name": "a", "limit": 1, "window": "1m", "max_overcount": )";
  const std::string must =
      "must be a percentage such as \"5%\", a fraction from 0 (strict) to 1, or \"unbounded\", got ";
  const std::string at = "f:1:72: rules[0].max_overcount: ";
  CHECK(rule_error(rule + "5") == at + must + "5: did you mean \"5%\"?");
  CHECK(rule_error(rule + "1.5") == at + must + "1.5: did you mean \"1.5%\"?");
  CHECK(rule_error(rule + "-1") == at + must + "-1");
  CHECK(rule_error(rule + "0.00000001") == at + must + "1e-08: finer than a millionth (0.0001%)");
  CHECK(rule_error(rule + "\"0.00001%\"") == at + must + "\"0.00001%\": finer than a millionth (0.0001%)");
  CHECK(rule_error(rule + "\"5\"") == at + must + "\"5\"");
  CHECK(rule_error(rule + "\"-5%\"") == at + must + "\"-5%\"");
  CHECK(rule_error(rule + "\"5 %\"") == at + must + "\"5 %\"");
  CHECK(rule_error(rule + "\"unbound\"") == at + must + "\"unbound\": did you mean \"unbounded\"?");
  CHECK(rule_error(rule + "true") == at + must + "true");
}

TEST_CASE("an overcount above 100 percent is taken as unbounded, with a warning at its place") {
  const Parsed parsed = parse_config(
      "{\"rules\": [\n{\"name\": \"a\", \"limit\": 1, \"window\": \"1m\", \"max_overcount\": \"150%\"}]}");
  REQUIRE(parsed.errors.empty());
  REQUIRE(parsed.warnings.size() == 1);
  CHECK(format_problem("f", parsed.warnings[0])
            .starts_with("f:2:60: rules[0].max_overcount: \"150%\" is more than 100%"));
}

TEST_CASE("a listening address is a Unix socket or a numeric address with a port") {
  const auto text = [](std::string_view from) {
    const auto address = parse_address(from);
    return address ? address.value().text() : "refused";
  };
  CHECK(text("/run/x.sock") == "unix:/run/x.sock?mode=0660");
  CHECK(text("unix:/run/x.sock?mode=0600") == "unix:/run/x.sock?mode=0600");
  CHECK(text("unix:/run/x.sock?mode=777") == "unix:/run/x.sock?mode=0777");
  CHECK(text("127.0.0.1:0") == "127.0.0.1:0");
  CHECK(text("0.0.0.0:65535") == "0.0.0.0:65535");
  CHECK(text("[::1]:8380") == "[::1]:8380");
  CHECK(text("unix:/" + std::string(106, 'x')) == "unix:/" + std::string(106, 'x') + "?mode=0660");
  for (const std::string& bad : {std::string(),
                                 std::string("x"),
                                 std::string("unix:"),
                                 std::string("unix:x.sock"),
                                 std::string("./x.sock"),
                                 std::string("/run/"),
                                 std::string("unix:/x?mode=0888"),
                                 std::string("unix:/x?mode=1777"),
                                 std::string("unix:/x?mode="),
                                 std::string("unix:/x?group=a"),
                                 std::string("unix:/x?mode=0660?"),
                                 std::string("unix:/x?"),
                                 "unix:/" + std::string(107, 'x'),
                                 std::string("unix:/a\nb"),
                                 std::string("unix:/a\0b", 9),
                                 std::string("unix:/\xff"),
                                 std::string("unix:/\xed\xa0\x80"),
                                 std::string("localhost:80"),
                                 std::string("127.0.0.1"),
                                 std::string("127.0.0.1:"),
                                 std::string("127.0.0.1:65536"),
                                 std::string("127.0.0.1:-1"),
                                 std::string("127.0.0.1:+1"),
                                 std::string("127.0.0.1:080"),
                                 std::string("127.0.0.1: 80"),
                                 std::string("127.1:80"),
                                 std::string("127.0.0.01:80"),
                                 std::string("256.0.0.1:80"),
                                 std::string(":80"),
                                 std::string("::1:80"),
                                 std::string("[::1]"),
                                 std::string("[::1]:"),
                                 std::string("[::0001]:80"),
                                 std::string("[::1%lo]:80"),
                                 std::string("[]:80"),
                                 std::string("*:80"),
                                 std::string("127.0.0.1\0:80", 13),
                                 std::string("http://127.0.0.1:80"),
                                 std::string(100'000, ':')}) {
    CAPTURE(bad);
    CHECK(text(bad) == "refused");
  }
  CHECK(parse_address("[::0001]:80").error().find("write the address as [::1]") != std::string::npos);
}

TEST_CASE("listeners are distinct, and RESP over TCP stays on loopback") {
  CHECK(
      error_of(
          R"({"listen": {"resp": ["/a", "127.0.0.1:1", "127.9.9.9:0", "127.9.9.9:0"], "http": ["0.0.0.0:2", "/b"]}})") ==
      "");
  CHECK(error_of(R"({"listen": {"resp": ["/a", "unix:/a?mode=0600"], "http": ["/a"]}})") ==
        "f:1:28: listen.resp[1]: the same address as listen.resp[0]\n"
        "f:1:59: listen.http[0]: the same address as listen.resp[0]");
  CHECK(error_of(R"({"listen": {"resp": ["0.0.0.0:1"]}})") ==
        "f:1:22: listen.resp[0]: RESP has no passwords and no encryption: over TCP only loopback addresses, "
        "got "
        "\"0.0.0.0:1\"");
  CHECK(error_of(R"({"listen": {"resp": []}})") ==
        "f:1:21: listen.resp: must have an address; leave it out for the default socket");
}

TEST_CASE("a node is one of its peers, by its bind or by name") {
  const std::string peers(kPeers);
  CHECK(cluster_error(peers + R"(, "bind": "127.0.0.1:2")") == "");
  CHECK(cluster_error(peers + R"(, "bind": "127.0.0.1:9", "self": "[::1]:3")") == "");
  CHECK(cluster_error(peers) ==
        "f:1:13: cluster.bind: is missing: in a fleet a node needs an address of its own; one that is in no list may leave the port to the "
        "system, \"10.0.0.7:0\"");
  CHECK(cluster_error(peers + R"(, "bind": "127.0.0.1:9")") ==
        "f:1:23: cluster.peers: none of them is this node: add \"127.0.0.1:9\" (cluster.bind), or name this "
        "node's entry in "
        "cluster.self");
  CHECK(cluster_error(peers + R"(, "bind": "127.0.0.1:1", "self": "x")") ==
        "f:1:97: cluster.self: must be one of the peers, got \"x\"");
  CHECK(cluster_error(R"("self": "127.0.0.1:1")") ==
        "f:1:22: cluster.self: there are no peers that \"127.0.0.1:1\" could be one of");
  CHECK(cluster_error(R"("bind": "127.0.0.1:1")") == "");
}

TEST_CASE("peers are distinct addresses with ports, and not on loopback only with a secret") {
  const std::string kNeedsSecret =
      " is not a loopback address, so the nodes need a secret: make one with \"tally secret FILE\", bring it to all hosts, and set "
      "\"cluster\": {\"secret_file\": FILE} on each";
  CHECK(cluster_error(R"("bind": "127.0.0.1:1", "peers": ["127.0.0.1:1", "127.0.0.1:1"])") ==
        "f:1:62: cluster.peers[1]: \"127.0.0.1:1\" stands at peers[0] already");
  CHECK(cluster_error(R"("bind": "127.0.0.1:1", "peers": ["127.0.0.1:1", "10.0.0.7:1"])") ==
        "f:1:62: cluster.peers[1]: \"10.0.0.7:1\"" + kNeedsSecret);
  CHECK(cluster_error(R"("bind": "0.0.0.0:1", "peers": ["127.0.0.1:1"], "self": "127.0.0.1:1")") ==
        "f:1:22: cluster.bind: \"0.0.0.0:1\"" + kNeedsSecret);
  CHECK(cluster_error(R"("bind": "10.0.0.7:1", "peers": ["10.0.0.7:1", "[2001:db8::1]:1"])") ==  // said once
        "f:1:22: cluster.bind: \"10.0.0.7:1\"" + kNeedsSecret);
  CHECK(cluster_error(R"("bind": "10.0.0.7:1", "peers": ["10.0.0.7:1", "[2001:db8::1]:1"], "secret_file": "/x")") == "");
  CHECK(cluster_error(R"("secret_file": "x")") == "f:1:29: cluster.secret_file: must be an absolute path, got \"x\"");
  CHECK(cluster_error(R"("secret_file": "")") == "f:1:29: cluster.secret_file: must be an absolute path, got \"\"");
  CHECK(cluster_error(R"("bind": "10.0.0.7:1", "secret_file": 5)") ==
        "f:1:51: cluster.secret_file: must be an absolute path, got 5");
  CHECK(cluster_error(R"("secret_file": 5)") == "f:1:29: cluster.secret_file: must be an absolute path, got 5");
  CHECK(cluster_error(R"("bind": "edge-2:1", "peers": ["127.0.0.1:1", "edge-2:1"], "self": "edge-2:1")") ==
        "f:1:22: cluster.bind: must be a numeric address and a port such as \"127.0.0.1:8381\" or "
        "\"[::1]:8381\", got "
        "\"edge-2:1\": here stand numeric addresses only, no names");
  CHECK(cluster_error(R"("bind": "127.0.0.1:0")") ==
        "f:1:22: cluster.bind: the other nodes must know the port: it cannot be 0");
  CHECK(cluster_error(R"("bind": "127.0.0.1:1", "peers": ["127.0.0.1:1", 2])") ==
        "f:1:62: cluster.peers[1]: must be \"ADDRESS:PORT\", got 2");
}

TEST_CASE("a peer has an address or a name, in one way of writing") {
  const auto kind = [](std::string_view text) {
    const auto entry = parse_peer(text);
    if (!entry) return std::string("refused");
    constexpr std::array<const char*, 3> kKinds = {"numeric ", "name ", "service "};
    return kKinds[static_cast<size_t>(entry.value().kind)] + entry.value().host + " " + std::to_string(entry.value().port);
  };
  CHECK(kind("127.0.0.1:1") == "numeric 127.0.0.1 1");
  CHECK(kind("[2001:db8::1]:8381") == "numeric 2001:db8::1 8381");
  CHECK(kind("localhost:8381") == "name localhost 8381");
  CHECK(kind("tally-0.tally.prod.svc:8381") == "name tally-0.tally.prod.svc 8381");
  CHECK(kind("edge_1.example.org.:8381") == "name edge_1.example.org. 8381");
  CHECK(kind("7edge.a1:65535") == "name 7edge.a1 65535");
  CHECK(kind("_tally._udp.edge-1.example.org") == "service _tally._udp.edge-1.example.org 0");
  const std::string label(63, 'a');
  CHECK(kind(label + "." + label + "." + label + "." + label.substr(2) + ".:1") != "refused");  // 253 of them
  for (const std::string& bad :
       {std::string(""), std::string(":1"), std::string("edge-1"), std::string("edge-1:"), std::string("edge-1:65536"), std::string("edge-1:01"),
        std::string("edge-1:x"), std::string("Edge-1:1"), std::string("edge..1a:1"), std::string(".a:1"), std::string(".:1"), std::string("-a:1"),
        std::string("a-:1"), std::string("a b:1"), std::string("\xC3\xA9:1"), std::string("a\0b:1", 5), std::string("*:1"), std::string("http://a:1"),
        std::string("127.0.0.256:1"), std::string("127.1:1"), std::string("1:1"), std::string("10.0.0.1.:1"), std::string("a.5:1"), std::string("::1:1"),
        std::string("[::1]"), std::string("[::0001]:1"), std::string("[edge]:1"), label + "a:1", label + "." + label + "." + label + "." + label + ":1",
        std::string("_tally._udp.edge-1:8381"), std::string("_tally._tcp.edge-1"), std::string("_tally._udp"), std::string("_._udp.edge-1"),
        std::string("_tally"), std::string("_tally._udp."), std::string(100'000, '.')}) {
    CAPTURE(bad);
    CHECK(kind(bad) == "refused");
  }
  const auto error = [](std::string_view text) { return parse_peer(text).error(); };
  CHECK(error("Edge-1:1").ends_with("got \"Edge-1:1\": write the name in lower case: nodes are called by the text of their entry"));
  CHECK(error("edge-1").ends_with("the port is missing"));
  CHECK(error("_tally._udp.edge-1:1").ends_with("a name of SRV records has no port here: each of the records has one"));
  CHECK(error("_tally._tcp.edge-1").ends_with("a name of SRV records is \"_SERVICE._udp.NAME\""));
  CHECK(error("[::0001]:1").ends_with("write the address as [::1]"));
}

TEST_CASE("peers with names need no address in the file, and one name is one node") {
  constexpr std::string_view kNames = R"("peers": ["edge-1:8381", "_tally._udp.edge-2"], "bind": "127.0.0.1:1", "self": "edge-1:8381")";
  CHECK(cluster_error(kNames) == "");
  CHECK(cluster_error(R"("peers": ["edge-1:0", "edge-2:1"], "bind": "127.0.0.1:1", "self": "edge-2:1")") ==
        "f:1:24: cluster.peers[0]: the other nodes must know the port: it cannot be 0");
  CHECK(cluster_error(R"("peers": ["edge-1:1", "edge-1:1"], "bind": "127.0.0.1:1", "self": "edge-1:1")") ==
        "f:1:36: cluster.peers[1]: \"edge-1:1\" stands at peers[0] already");
  const auto advised = [](std::string_view fields) {
    std::string all;
    for (const Problem& problem : parse_config("{\"cluster\": {" + std::string(fields) + "}}").warnings) all += format_problem("f", problem) + "\n";
    return all;
  };
  CHECK(advised(kNames).find("f:1:24: cluster.peers[0]: without a secret_file only addresses on loopback are used of what a name has") !=
        std::string::npos);
  CHECK(advised(std::string(kNames) + R"(, "secret_file": "/x")").find("secret_file") == std::string::npos);
  CHECK(advised(R"("peers": ["tally:1"], "bind": "127.0.0.1:1", "self": "tally:1")").find("list the same peers at every node (a name stands for one "
                                                                                       "node, however many addresses it has)") != std::string::npos);
}

TEST_CASE("what follows from a reported error is not reported too") {
  CHECK(cluster_error(R"("self": "127.0.0.1:1", "peers": 5)") ==
        "f:1:46: cluster.peers: must be an array of \"ADDRESS:PORT\", got 5");
  CHECK(cluster_error(std::string(kPeers) + R"(, "bind": 5)") ==
        "f:1:74: cluster.bind: must be \"ADDRESS:PORT\", got 5");
  CHECK(cluster_error(std::string(kPeers) + R"(, "bind": "127.0.0.1:9", "self": 5)") ==
        "f:1:97: cluster.self: must be one of the peers, got 5");
}

TEST_CASE("a fleet's size is at least its peers") {
  const std::string fleet = std::string(kPeers) + R"(, "bind": "127.0.0.1:1", "size": )";
  CHECK(cluster_error(fleet + "3") == "");
  CHECK(cluster_error(fleet + "0") == "");
  CHECK(cluster_error(fleet + "2") ==
        "f:1:97: cluster.size: must be at least the number of peers (3), got 2");
}

TEST_CASE("fields of another algorithm are refused, and nothing more is asked of such a rule") {
  CHECK(rule_error(R"("name": "a", "algorithm": "fixed_window", "limit": 1, "window": "1m", "burst": 5)") ==
        "f:1:93: rules[0].burst: a fixed_window has no \"burst\", it has \"limit\" and \"window\"; only a "
        "token_bucket has it");
  CHECK(rule_error(R"("name": "a", "rate": "1/s")") ==
        "f:1:35: rules[0].rate: a sliding_window (the default algorithm) has no \"rate\", it has \"limit\" "
        "and \"window\"; "
        "only a token_bucket has it");
  CHECK(rule_error(R"("name": "a", "algorithm": "token_bucket", "limit": 1, "rate": "1/s", "burst": 5)") ==
        "f:1:65: rules[0].limit: a token_bucket has no \"limit\", it has \"rate\" and \"burst\"");
}

TEST_CASE("a rule needs its name and its numbers") {
  CHECK(rule_error("") ==
        "f:1:13: rules[0].name: is missing; every rule has a name\n"
        "f:1:13: rules[0].limit: is missing; a sliding_window needs \"limit\" and \"window\"\n"
        "f:1:13: rules[0].window: is missing; a sliding_window needs \"limit\" and \"window\"");
  CHECK(rule_error(R"("name": "a", "algorithm": "token_bucket", "rate": "1/s")") ==
        "f:1:13: rules[0].burst: is missing; a token_bucket needs \"rate\" and \"burst\"");
  CHECK(rule_error(R"("name": "a", "algorithm": "gcra", "rate": "1/s")") ==
        "f:1:40: rules[0].algorithm: must be \"sliding_window\", \"fixed_window\" or \"token_bucket\", got "
        "the string \"gcra\"");
  CHECK(rule_error(R"("name": "a", "limit": 1, "window": "1m", "on_isolation": "close")") ==
        "f:1:71: rules[0].on_isolation: must be \"share\", \"open\" or \"closed\", got the string \"close\"; "
        "did you mean "
        "\"closed\"?");
}

TEST_CASE("limits and windows keep their ranges") {
  const auto error = [](std::string_view limit, std::string_view window) {
    return rule_error("\"name\": \"a\", \"limit\": " + std::string(limit) + ", \"window\": \"" +
                      std::string(window) + "\"");
  };
  CHECK(error("1", "10ms") == "");
  CHECK(error("2147483648", "366d") == "");
  CHECK(error("2147483649", "1m") ==
        "f:1:36: rules[0].limit: must be a whole number, 1 to 2147483648, got 2147483649");
  CHECK(error("1", "9999us") == "f:1:49: rules[0].window: must be 10ms to 366d, got 9999us");
  CHECK(error("1", "367d") == "f:1:49: rules[0].window: must be 10ms to 366d, got 367d");
  CHECK(rule_error(R"("name": "a", "limit": 1, "window": "1m", "wait": "11s")") ==
        "f:1:63: rules[0].wait: must be 0s to 10s, got 11s");
  CHECK(rule_error(R"("name": "a", "limit": 1, "window": "1m", "wait": 0)") == "");
}

TEST_CASE("a bucket fills within 2^55 ns") {
  const auto error = [](int64_t burst) {
    return rule_error(R"("name": "a", "algorithm": "token_bucket", "rate": "1/d", "burst": )" +
                      std::to_string(burst));
  };
  const int64_t most = kBurstSpanMax / Duration(24h);
  CHECK(error(most) == "");
  CHECK(error(most + 1) == "f:1:80: rules[0].burst: a bucket must fill within 417 days: at 1/d a burst of " +
                               std::to_string(most) + " at most, got " + std::to_string(most + 1));
}

TEST_CASE("rule names are printable, unique, not too long and not reserved") {
  const auto error = [](std::string_view name) {
    return rule_error("\"limit\": 1, \"window\": \"1m\", \"name\": \"" + std::string(name) + "\"");
  };
  CHECK(error("a:b/c.d-(x)") == "");
  CHECK(error(std::string(64, 'x')) == "");
  CHECK(error(std::string(65, 'x')).find("has 1 to 64 characters, got 65") != std::string::npos);
  CHECK(error("").find("has 1 to 64 characters, got none") != std::string::npos);
  CHECK(error("(inline)").find("is reserved") != std::string::npos);
  for (const char* name : {"a b", "a\\tb", "\\u007f", "\xC3\xA9", "a\\u0000"}) {
    CAPTURE(name);
    CHECK(error(name).find("printable ASCII characters without spaces") != std::string::npos);
  }
}

TEST_CASE("a rule takes other rules along, each once, by names that are there") {
  const auto also = [](std::string_view list) {
    return error_of("{\"rules\": [\n{\"name\": \"sms\", \"limit\": 1, \"window\": \"1s\", \"also\": " + std::string(list) +
                    "},\n{\"name\": \"sms-daily\", \"limit\": 1, \"window\": \"1d\", \"also\": [\"sms\"]} ]}");
  };
  CHECK(also("[\"sms-daily\"]") == "");
  CHECK(also("[\"sms-dayly\"]") == "f:2:54: rules[0].also[0]: no rule \"sms-dayly\"; did you mean \"sms-daily\"?");
  CHECK(also("[\"sms-daily\", \"sms\"]") == "f:2:67: rules[0].also[1]: a rule is not taken along by itself; leave it out");
  CHECK(also("[\"sms-daily\", \"sms-daily\"]") == "f:2:67: rules[0].also[1]: \"sms-daily\" is there already; leave it out");
  CHECK(also("\"sms-daily\"") == "f:2:53: rules[0].also: must be an array of the name of a rule, got the string \"sms-daily\"");
  CHECK(also("[1]") == "f:2:54: rules[0].also[0]: must be the name of a rule, got 1");
  CHECK(also("[\"a\", \"b\", \"c\", \"d\", \"e\", \"f\", \"g\", \"h\", \"i\"]").find("8") != std::string::npos);
}

TEST_CASE("a configuration built by hand is checked as one from a file") {
  Config config;
  config.rules.resize(1);
  config.rules[0].name = "a";
  config.rules[0].limit.limit = 0;
  config.rules[0].limit.window = 1ms;
  config.cluster.sync_interval = 0ns;
  config.workers = 1'000;
  config.spin = 1s;
  config.http.emplace_back().path = "/x?y";
  std::string paths;
  for (const Problem& problem : validate(config)) paths += problem.path + " ";
  CHECK(paths == "listen.http[0] cluster.sync_interval workers spin rules[0].limit rules[0].window ");

  config = Config{};
  config.rules.resize(1);
  config.rules[0].name = "b";
  config.rules[0].limit.algorithm = Algorithm::token_bucket;
  REQUIRE(validate(config).size() == 1);
  CHECK(validate(config)[0].path == "rules[0].rate");
  config.rules[0].rate_count = 5;
  config.rules[0].rate_period = 1s;
  CHECK(validate(config).size() == 1);  // emission does not fit
  config.rules[0].limit.emission = 200ms;
  CHECK(validate(config).empty());
}
