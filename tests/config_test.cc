#include "config/config.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "config_samples.h"

using namespace tally;
using namespace std::chrono_literals;

namespace {

std::vector<std::string> errors_of(std::string_view text) {
  std::vector<std::string> out;
  for (const Problem& problem : parse_config(text).errors) out.push_back(format_problem("f", problem));
  return out;
}

// The only error of a text; "" where there is none, all of them where there are more.
std::string error_of(std::string_view text) {
  std::string out;
  for (const std::string& error : errors_of(text)) {
    if (!out.empty()) out += '\n';
    out += error;
  }
  return out;
}

// One rule among the rest of a configuration, on one line, from column 13.
std::string rule_error(std::string_view fields) {
  return error_of("{\"rules\": [ {" + std::string(fields) + "} ]}");
}

std::string cluster_error(std::string_view fields) {
  return error_of("{\"cluster\": {" + std::string(fields) + "}}");
}

constexpr std::string_view kExample = R"({ // every field has a default
  "node":    { "name": "edge-1", "state_dir": "/var/lib/tallyd" },
  "listen":  { "resp": ["unix:/run/tallyd/tallyd.sock?mode=0600"], "http": ["127.0.0.1:8380"], "rls": [] },
  "cluster": { "bind": "127.0.0.1:8381", "self": null,
               "peers": ["127.0.0.1:8381", "127.0.0.1:8382", "127.0.0.1:8383"], "roster_version": 7,
               "size": 4, "aggregators": [], "upstream": [], "sync_interval": "50ms", "isolation_after": "3s",
               "lease": "900ms", "secret_file": "/etc/tallyd.secret", "books": "peers" },
  "table":   { "keys": 2097152, "file": null },
  "inline":  { "max_overcount": "10%", "on_isolation": "open" },   /* what
     CL.THROTTLE's own limits get */
  "limits":  { "connections": 20000, "key_bytes": 512, "pipeline_bytes": 2097152, "waiting": 1, "registers": 4096 },
  "workers": 3,
  "spin": "50us",
  "rules": [
    { "name": "api",   "limit": 1000, "window": "1m", "max_overcount": "5%" },
    { "name": "login", "limit": 5, "window": "15m", "max_overcount": 0, "on_isolation": "closed", "on_amnesia": "deny",
      "algorithm": "fixed_window", "wait": "0ms", "comment": "no \"guessing\"" },
    { "name": "feed",  "algorithm": "token_bucket", "rate": "30/s", "burst": 100, "shadow": true,
      "max_overcount": 0.25, "mode": "leased", "match": null, "overrides": {} } ] })";

}  // namespace

TEST_CASE("every field of a full configuration arrives") {
  const Parsed parsed = parse_config(kExample);
  REQUIRE(error_of(kExample) == "");
  const Config& c = parsed.config;
  CHECK(c.node_name == "edge-1");
  CHECK(c.state_dir == "/var/lib/tallyd");
  REQUIRE(c.resp.size() == 1);
  CHECK(c.resp[0].path == "/run/tallyd/tallyd.sock");
  CHECK(c.resp[0].mode == 0600);
  REQUIRE(c.http.size() == 1);
  CHECK(c.http[0].text() == "127.0.0.1:8380");
  CHECK(c.cluster.bind == "127.0.0.1:8381");
  CHECK_FALSE(c.cluster.self);
  CHECK(c.cluster.own_entry() == "127.0.0.1:8381");
  CHECK(c.cluster.peers.size() == 3);
  CHECK(c.cluster.roster_version == 7);
  CHECK(c.cluster.size == 4);
  CHECK(c.cluster.sync_interval == 50ms);
  CHECK(c.cluster.isolation_after == Duration(3s));
  CHECK(c.cluster.lease == Duration(900ms));
  CHECK(c.table_keys == 2'097'152);
  CHECK(c.inline_rule.max_overcount == Overcount{100'000, false});
  CHECK(c.inline_rule.on_isolation == OnIsolation::open);
  CHECK(c.limits.connections == 20'000);
  CHECK(c.limits.key_bytes == 512);
  CHECK(c.limits.pipeline_bytes == 2'097'152);
  CHECK(c.limits.waiting == 1);
  CHECK(c.limits.registers == 4'096);
  CHECK(c.workers == 3);
  CHECK(c.spin == std::chrono::microseconds(50));
}

TEST_CASE("every field of a rule arrives") {
  const Config c = parse_config(kExample).config;
  REQUIRE(c.rules.size() == 3);
  const Rule &api = c.rules[0], &login = c.rules[1], &feed = c.rules[2];
  CHECK(api.name == "api");
  CHECK(api.limit.algorithm == Algorithm::sliding_window);
  CHECK(api.limit.limit == 1'000);
  CHECK(api.limit.window == 1min);
  CHECK(api.max_overcount == Overcount{50'000, false});
  CHECK(api.wait == 20ms);
  CHECK(login.limit.algorithm == Algorithm::fixed_window);
  CHECK(login.max_overcount == Overcount{0, false});
  CHECK(login.on_isolation == OnIsolation::closed);
  CHECK(login.on_amnesia == OnAmnesia::deny);
  CHECK(login.wait == 0ms);
  CHECK(login.comment == "no \"guessing\"");
  CHECK(feed.limit.algorithm == Algorithm::token_bucket);
  CHECK(feed.limit.limit == 100);
  CHECK(feed.limit.window == 0ms);
  CHECK(feed.limit.emission == 33'333'334ns);  // a thirtieth of a second, rounded up
  CHECK(feed.rate_count == 30);
  CHECK(feed.rate_period == 1s);
  CHECK(feed.max_overcount == Overcount{250'000, false});
  CHECK(feed.shadow);
}

TEST_CASE("an empty object, and null for every field, give the defaults") {
  CHECK(error_of("{}") == "");
  CHECK(samples::same(parse_config("{}").config, Config{}));
  constexpr std::string_view nulls =
      R"({"node": null, "listen": {"resp": null, "http": null}, "cluster": {"bind": null,
    "peers": null, "size": null, "sync_interval": null, "lease": null}, "table": {"keys": null}, "inline": {"wait": null},
    "limits": {"waiting": null}, "workers": null, "spin": null, "rules": null})";
  CHECK(error_of(nulls) == "");
  CHECK(samples::same(parse_config(nulls).config, Config{}));
  CHECK(validate(Config{}).empty());
  CHECK(Config{}.inline_rule.name == kInlineRule);
  CHECK(parse_config("{}").warnings.empty());
}

TEST_CASE("an unknown field is named with its place, its path and the field that was meant") {
  CHECK(
      error_of("{ \"rules\": [\n  { \"name\": \"a\", \"limit\": 1, \"window\": \"1m\", \"brust\": 3 } ] }") ==
      "f:2:46: rules[0].brust: unknown field; did you mean \"burst\"?");
  CHECK(error_of("{\"cluster\": {\"sync_intervall\": 1}}") ==
        "f:1:14: cluster.sync_intervall: unknown field; did you mean \"sync_interval\"?");
  CHECK(error_of("{\"tenants\": 1}") == "f:1:2: tenants: unknown field");
  CHECK(error_of("{\"a\\nb\": 1}") == "f:1:2: a\\x0ab: unknown field");
}

TEST_CASE("all errors come at once, in order of place") {
  constexpr std::string_view text = R"({
  "workers": "two",
  "rules": [
    { "name": "a", "limit": 0, "window": "1y" },
    { "name": "a", "limit": 1, "window": "1s", "windw": 3 },
    7 ],
  "node": { "name": "a b" } })";
  const std::vector<std::string> expected = {
      "f:2:14: workers: must be a whole number, 0 to 256, got the string \"two\"",
      "f:4:29: rules[0].limit: must be a whole number, 1 to 2147483648, got 0",
      "f:4:42: rules[0].window: must be a duration such as \"100ms\" or \"1m\", got \"1y\": no unit \"y\", "
      "only ns, us, ms, "
      "s, m, h or d (m is minutes)",
      "f:5:15: rules[1].name: the name \"a\" is taken by rules[0]",
      "f:5:48: rules[1].windw: unknown field; did you mean \"window\"?",
      "f:6:5: rules[2]: must be an object, got 7",
      "f:7:21: node.name: a node's name (part of file names) has 1 to 64 letters, digits, '.', '_' or '-' "
      "and does not "
      "begin with '.', got \"a b\""};
  CHECK(errors_of(text) == expected);
}

TEST_CASE("a duplicate key is refused with the place of the first") {
  CHECK(error_of("{\"workers\": 1,\n \"workers\": 2}") ==
        "f:2:2: workers: duplicate key: it stands at 1:2 already");
  CHECK(rule_error(R"("name": "a", "limit": 1, "window": "1s", "limit": 2)") ==
        "f:1:55: rules[0].limit: duplicate key: it stands at 1:27 already");
  CHECK(error_of("{\"a\": {\"b\": 1, \"\\u0062\": 2}}") ==  // the same key, written in another way
        "f:1:2: a: unknown field\nf:1:16: a.b: duplicate key: it stands at 1:8 already");
}

TEST_CASE("columns count bytes from 1: a tab is one, a byte order mark none, CR belongs to the line") {
  CHECK(error_of("\xEF\xBB\xBF{\"x\":1}") == "f:1:2: x: unknown field");
  CHECK(error_of("{\r\n\t\"x\":1}") == "f:2:2: x: unknown field");
  CHECK(error_of("{/* \xC3\xA9 */\"x\":1}") == "f:1:10: x: unknown field");
  CHECK(error_of("{ // a, \"b\": {\n/* : */ \"x\" /* , */ : // no\n 1}") == "f:2:9: x: unknown field");
  CHECK(error_of("{\"workers\": /* 1 */ -7}") == "f:1:21: workers: must be a whole number, 0 to 256, got -7");
  CHECK(error_of("{\"node\":{\"name\":\"\\\"\\\\\"},\"x\":1}").ends_with("f:1:25: x: unknown field"));
}

TEST_CASE("a syntax error has the place of what is wrong and says what was expected") {
  const auto error = [](std::string_view text) { return error_of(text); };
  CHECK(error("") == "f:1:1: syntax error: the text is empty; a configuration begins with '{'");
  CHECK(error(" \n // x\n") == "f:3:1: syntax error: the text is empty; a configuration begins with '{'");
  CHECK(error("{\"a\":1,\n}") == "f:1:7: syntax error: a comma before '}'; remove it");
  CHECK(error("{\"a\":[1,]}") == "f:1:8: a: syntax error: a comma before ']'; remove it");
  CHECK(error("{a:1}") == "f:1:2: syntax error: keys stand in double quotes: \"a\"");
  CHECK(error("{'a':1}") == "f:1:2: syntax error: strings stand in double quotes");
  CHECK(error("{\"a\" 1}") == "f:1:6: syntax error: unexpected \"1\"; expected ':' after the key");
  CHECK(error("{\"a\":1\n \"b\":2}") == "f:2:2: syntax error: unexpected string \"b\"; expected ',' or '}'");
  CHECK(error("{\"a\":yes}") ==
        "f:1:6: syntax error: unknown word \"yes\"; expected a value: a string stands in double quotes");
  CHECK(error("{\"a\":01}") ==
        "f:1:7: syntax error: unexpected \"1\"; expected ',' or '}' (numbers have no leading zeros)");
  CHECK(error("{\"a\":.5}") == "f:1:6: syntax error: \".5\" is not a number");
  CHECK(error("{\"a\":1e999}") == "f:1:6: syntax error: the number \"1e999\" is too large");
  CHECK(error("{\"a\":\n [1, 2") ==
        "f:2:7: a: syntax error: the text ends here, but the '[' at 2:2 is not closed");
  CHECK(error("{\"a\":1}\nx") == "f:2:1: syntax error: unexpected \"x\"; expected the end of the text");
  CHECK(error("{\"a\":\"x\ny\"}") == "f:1:6: syntax error: this string has no closing quote on its line");
  CHECK(error("{\"a\":\"\\q\"}") ==
        "f:1:8: syntax error: invalid string: forbidden character after backslash");
  CHECK(error("{ /* a\n*") == "f:1:3: syntax error: this comment never ends");
  CHECK(error("[1]") == "f:1:1: a configuration is an object: { ... }, got an array");
  CHECK(error("{\"a\":\"\xff\"}").starts_with("f:1:7: syntax error: invalid string: ill-formed UTF-8 byte"));
  CHECK(error(std::string_view("{}\0{", 4)) == "f:1:3: syntax error: a NUL byte; is this a text file?");
}

TEST_CASE("nesting is bounded, however deep the text") {
  CHECK(error_of("{\"a\":" + std::string(30, '[') + std::string(30, ']') + "}") == "f:1:2: a: unknown field");
  CHECK(error_of("{\"a\":" + std::string(1'000'000, '[')).find("nested deeper than 32 levels") !=
        std::string::npos);
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  CHECK(parse_config(objects).errors.size() == 1);
}

TEST_CASE("a text beyond the maximum is refused before it is read") {
  CHECK(error_of(std::string(16 * 1024 * 1024 + 1, ' ')) == "f:1:1: larger than 16777216 bytes");
}

TEST_CASE("of very many errors a thousand are shown and the others counted") {
  std::string fields = "{\"x\": 0";
  for (int i = 1; i < 1'500; ++i) {
    fields += ",\n\"x";
    fields += std::to_string(i);
    fields += "\": 0";
  }
  const std::vector<std::string> errors = errors_of(fields + "}");
  REQUIRE(errors.size() == 1'001);
  CHECK(errors[999] == "f:1000:1: x999: unknown field");
  CHECK(errors[1'000] == "f:1000:1: and 500 more errors");
}

TEST_CASE("more rules or peers than there may be are one error") {
  std::string rules = "{\"rules\": [0", peers = "{\"cluster\": {\"peers\": [\"\"";
  for (int i = 1; i < 65'535; ++i) rules += ",{}";
  for (int i = 1; i < 1'001; ++i) peers += ",\"\"";
  CHECK(error_of(rules + "]}") == "f:1:11: rules: at most 65534 rules, got 65535");
  CHECK(error_of(peers + "]}}") == "f:1:23: cluster.peers: at most 1000 peers, got 1001");
}

TEST_CASE("a wrong type is named together with what was there") {
  CHECK(error_of(R"({"workers": 1.5})") == "f:1:13: workers: must be a whole number, 0 to 256, got 1.5");
  CHECK(error_of(R"({"workers": 99999999999999999999})") ==
        "f:1:13: workers: must be a whole number, 0 to 256, got 99999999999999999999");
  CHECK(error_of(R"({"node": []})") == "f:1:10: node: must be an object, got an array");
  CHECK(error_of(R"({"node": {"name": 7}})") == "f:1:19: node.name: must be a string, got 7");
  CHECK(error_of(R"({"rules": {}})") == "f:1:11: rules: must be an array of rules, got an object");
  CHECK(error_of(R"({"listen": {"http": "127.0.0.1:1"}})") ==
        "f:1:21: listen.http: must be an array of addresses, got the string \"127.0.0.1:1\"");
  CHECK(error_of(R"({"listen": {"resp": [null]}})") ==
        "f:1:22: listen.resp[0]: must be an address such as \"unix:/run/tallyd/tallyd.sock\", got null");
  CHECK(cluster_error(R"("sync_interval": 100)") ==
        "f:1:31: cluster.sync_interval: a duration is a string with a unit, such as \"100ms\", got 100");
  CHECK(cluster_error(R"("sync_interval": true)") ==
        "f:1:31: cluster.sync_interval: must be a duration such as \"100ms\" or \"1m\", got true");
}

TEST_CASE("aggregators are some of the peers, each named once") {
  const std::string three = R"({"cluster": {"bind": "127.0.0.1:1", "peers": ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"], )";
  CHECK(parse_config(three + R"("aggregators": ["127.0.0.1:3", "127.0.0.1:2"]}})").config.cluster.aggregators.size() == 2);
  CHECK(error_of(three + R"("aggregators": ["127.0.0.1:4"]}})") == "f:1:109: cluster.aggregators[0]: must be one of the peers, got \"127.0.0.1:4\"");
  CHECK(error_of(three + R"("aggregators": ["127.0.0.1:2", "127.0.0.1:2"]}})") ==
        "f:1:124: cluster.aggregators[1]: \"127.0.0.1:2\" stands at aggregators[0] already");
  CHECK(error_of(three + R"("aggregators": [2]}})").starts_with("f:1:109: cluster.aggregators[0]: must be \"ADDRESS:PORT\", got 2"));
}

TEST_CASE("aggregators alone are a list: who is none of them is their guest") {
  const std::string list = R"({"cluster": {"aggregators": ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"], )";
  const Config::Cluster one = parse_config(list + R"("bind": "127.0.0.1:2"}})").config.cluster;
  CHECK_FALSE(one.alone());
  CHECK_FALSE(one.guest());
  CHECK(one.owner());
  CHECK(one.nodes() == 3);
  const Config::Cluster guest = parse_config(list + R"("bind": "127.0.0.1:0", "size": 9}})").config.cluster;
  CHECK_FALSE(guest.alone());
  CHECK(guest.guest());
  CHECK_FALSE(guest.owner());
  CHECK(guest.nodes() == 9);
  CHECK(error_of(list + R"("bind": "127.0.0.1:0"}})") == "");
  CHECK(error_of(list + R"("self": "127.0.0.1:1"}})").find("cluster.bind: is missing") != std::string::npos);
  CHECK(error_of(R"({"cluster": {"aggregators": ["127.0.0.1:0"], "bind": "127.0.0.1:1"}})") ==
        "f:1:30: cluster.aggregators[0]: the other nodes must know the port: it cannot be 0");
  CHECK(error_of(R"({"cluster": {"aggregators": ["10.0.0.1:1"], "bind": "127.0.0.1:1"}})").find("is not a loopback address") != std::string::npos);
  CHECK(error_of(list + R"("bind": "127.0.0.1:2", "size": 2}})").find("cluster.size: must be at least the number of aggregators (3), got 2") !=
        std::string::npos);
  // With peers a name that is none of them is a mistake.
  CHECK(error_of(R"({"cluster": {"aggregators": ["127.0.0.1:1"], "peers": ["127.0.0.1:1", "127.0.0.1:2"], "bind": "127.0.0.1:9"}})")
            .find("none of them is this node") != std::string::npos);
}

TEST_CASE("a region's aggregators have a list above") {
  const std::string region = R"({"cluster": {"bind": "127.0.0.1:1", "aggregators": ["127.0.0.1:1"], "upstream": )";
  const auto upstream = [&](const std::string& text) { return parse_config(region + text + "}}").config.cluster.upstream; };
  REQUIRE(upstream(R"(["127.0.0.1:7", "127.0.0.1:8"])").has_value());
  CHECK(upstream(R"(["127.0.0.1:7", "127.0.0.1:8"])")->entries().size() == 2);
  const auto full = upstream(R"({"aggregators": ["127.0.0.1:7"], "roster_version": 3, "size": 5, "bind": "127.0.0.1:0"})");
  REQUIRE(full.has_value());
  CHECK(full->roster_version == 3);
  CHECK(full->nodes() == 5);
  CHECK(full->bind == "127.0.0.1:0");
  CHECK_FALSE(upstream("[]").has_value());
  CHECK_FALSE(upstream("null").has_value());
  CHECK(error_of(region + R"({"bind": "127.0.0.1:0"}}})").find("cluster.upstream: must have the aggregators of the level above") != std::string::npos);
  CHECK(error_of(region + R"(["127.0.0.1:1"]}})").find("is in the list below as well: a node belongs to one level") != std::string::npos);
  CHECK(error_of(region + R"(["10.0.0.1:1"]}})").find("is not a loopback address") != std::string::npos);
  CHECK(error_of(R"({"cluster": {"upstream": ["127.0.0.1:1"]}})").find("there is no region that draws from it") != std::string::npos);
}

TEST_CASE("a list that replaces another has that one beside it") {
  const std::string list = R"({"cluster": {"bind": "127.0.0.1:1", "roster_version": 2, "peers": ["127.0.0.1:1", "127.0.0.1:2"],)" "\n";
  const auto with = [&](std::string_view fields) { return error_of(list + std::string(fields) + "}}"); };
  const Config config = parse_config(list + R"("previous": {"peers": ["127.0.0.1:2", "127.0.0.1:3"], "size": 4}, "gone": ["127.0.0.1:3"]}})").config;
  REQUIRE(config.cluster.previous.has_value());
  CHECK(config.cluster.previous->peers.size() == 2);
  CHECK(config.cluster.previous->nodes() == 4);
  CHECK(config.cluster.previous->roster_version == 1);
  CHECK(config.cluster.gone.size() == 1);
  CHECK(with(R"("previous": null)") == "");
  CHECK(with(R"("previous": {})") == "f:2:13: cluster.previous: must have peers or aggregators; null where no list is replaced");
  CHECK(with(R"("previous": {"peers": ["127.0.0.1:2"], "roster_version": 2})") ==
        "f:2:58: cluster.previous.roster_version: must be below that of the list that replaces it (2), got 2");
  CHECK(with(R"("previous": {"peers": ["127.0.0.1:2"], "peer": 2})") == "f:2:40: cluster.previous.peer: unknown field; did you mean \"peers\"?");
  CHECK(with(R"("previous": {"peers": ["127.0.0.1:2"], "aggregators": ["127.0.0.1:1"]})") ==
        "f:2:56: cluster.previous.aggregators[0]: must be one of the peers, got \"127.0.0.1:1\"");
  const std::string in_redis = R"("previous": {"peers": ["127.0.0.1:2"], "books": "redis://a"})";
  CHECK(with(in_redis) == "");
  CHECK(with(R"("books": "redis://a", )" + in_redis) == "");
  CHECK(with(R"("books": "redis://b", )" + in_redis).ends_with(
      "cluster.previous.books: must be where cluster.books is: a fleet that runs moves from one Redis to its peers, and then to another Redis"));
  CHECK(with(R"("gone": ["127.0.0.1:2"])") == "f:2:9: cluster.gone: there is no list before (\"previous\") that they could be gone from");
  CHECK(with(R"("previous": {"peers": ["127.0.0.1:1"]}, "gone": ["127.0.0.1:2", "127.0.0.1:1"])") ==
        "f:2:50: cluster.gone[0]: must be one of the peers of the list before, got \"127.0.0.1:2\"\n"
        "f:2:65: cluster.gone[1]: is one of the peers, so it is not gone for good: take it out of one of the two");
  CHECK(error_of(R"({"cluster": {"bind": "127.0.0.1:3", "roster_version": 2, "peers": ["127.0.0.1:1"],
                     "previous": {"peers": ["127.0.0.1:3", "127.0.0.1:1"]}, "gone": ["127.0.0.1:3"]}})") ==
        "f:2:86: cluster.gone[0]: is this node, which lives");
  CHECK(error_of(R"({"cluster": {"bind": "127.0.0.1:1", "roster_version": 2, "previous": {"peers": ["127.0.0.1:1", "127.0.0.1:2"]}}})")
            .find("cluster.peers: are missing") != std::string::npos);
  CHECK(error_of(R"({"cluster": {"bind": "127.0.0.1:3", "roster_version": 2, "peers": ["127.0.0.1:1", "127.0.0.1:2"],
                     "previous": {"peers": ["127.0.0.1:3", "127.0.0.1:1"]}}})") == "");  // who goes
}

TEST_CASE("a value out of range is answered with the range and what was got") {
  CHECK(cluster_error(R"("sync_interval": "2m")") ==
        "f:1:31: cluster.sync_interval: must be 1ms to 1m, got 2m");
  CHECK(cluster_error(R"("roster_version": 0)") ==
        "f:1:32: cluster.roster_version: must be a whole number, 1 to 4294967295, got 0");
  CHECK(error_of(R"({"table": {"keys": 1023}})") ==
        "f:1:20: table.keys: must be a whole number, 1024 to 2147483648, got 1023");
  CHECK(error_of(R"({"limits": {"connections": 0, "key_bytes": 65537, "waiting": 16777217}})") ==
        "f:1:28: limits.connections: must be a whole number, 1 to 1000000, got 0\n"
        "f:1:44: limits.key_bytes: must be a whole number, 1 to 65536, got 65537\n"
        "f:1:62: limits.waiting: must be a whole number, 0 to 16777216, got 16777217");
  CHECK(error_of(R"({"limits": {"key_bytes": 65536, "pipeline_bytes": 4096}})") ==
        "f:1:51: limits.pipeline_bytes: must hold a command with a key of 65536 bytes: at least 66560, got "
        "4096");
  CHECK(cluster_error(R"("sync_interval": "1s", "lease": "1999ms")") ==
        "f:1:46: cluster.lease: must be at least two sync intervals (2s), got 1999ms");
}

TEST_CASE("where Envoy asks is a list of addresses, over TCP on loopback, none of them another listener's") {
  if (built_with_rls()) {
    const Parsed parsed = parse_config(R"({"listen": {"rls": ["unix:/run/rls.sock?mode=0600", "127.0.0.1:8383"]}})");
    REQUIRE(parsed.errors.empty());
    REQUIRE(parsed.config.rls.size() == 2);
    CHECK(parsed.config.rls[0].text() == "unix:/run/rls.sock?mode=0600");
    CHECK(parsed.config.rls[1].text() == "127.0.0.1:8383");
    CHECK(error_of(R"({"listen": {"rls": ["10.0.0.1:1"]}})") ==
          "f:1:21: listen.rls[0]: gRPC has no passwords and no encryption: over TCP only loopback addresses, got \"10.0.0.1:1\"");
    CHECK(error_of(R"({"listen": {"resp": ["/run/a"], "rls": ["/run/a"]}})") == "f:1:41: listen.rls[0]: the same address as listen.resp[0]");
  } else {
    CHECK(error_of(R"({"listen": {"rls": ["127.0.0.1:1"]}})").starts_with("f:1:20: listen.rls: this tallyd was built without gRPC: "));
  }
  CHECK(error_of(R"({"listen": {"rls": "127.0.0.1:1"}})") == "f:1:20: listen.rls: must be an array of addresses, got the string \"127.0.0.1:1\"");
  CHECK(error_of(R"({"listen": {"rls": []}})") == "");
}

TEST_CASE("what this version does not serve is accepted at its default only") {
  CHECK(error_of(
            R"({"table": {"file": null}, "cluster": {"upstream": [],
                     "secret_file": null, "books": "peers"}})") == "");
  const std::string no = ": this version does not have it yet; leave it out";
  CHECK(error_of(R"({"table": {"file": "/x"}})") == "f:1:20: table.file" + no);
}

TEST_CASE("a central rule needs books in Redis, time to wait, and windows that Redis can count in") {
  const std::string rule = R"({"name": "a", "limit": 1, "window": "1m", "mode": "central"})";
  const std::string books = R"("bind": "127.0.0.1:1", "peers": ["127.0.0.1:1"], "books": "redis://10.0.0.5")";
  const auto whole = [](const std::string& cluster, const std::string& rules) { return "{\"cluster\": {" + cluster + "}, \"rules\": [" + rules + "]}"; };
  const std::string no_books = "\"central\" decides in the Redis that has the fleet's books: set \"books\" of \"cluster\" to where that is, or leave the mode out";
  CHECK(error_of(whole("", rule)) == "f:1:77: rules[0].mode: " + no_books);
  CHECK(error_of(whole("\"mode\": \"central\"", rule)) == "f:1:22: cluster.mode: " + no_books);
  CHECK(error_of(whole(books, R"({"name": "a", "limit": 1, "window": "1m", "mode": "central", "wait": 0})")) ==
        "f:1:172: rules[0].wait: each request of a central rule waits for Redis to answer: it cannot be 0");
  CHECK(error_of(whole(books, R"({"name": "a", "limit": 1, "window": "10000001ns", "mode": "central"})")) ==
        "f:1:139: rules[0].window: must be of whole microseconds where the mode is \"central\", got 10000001ns");
  CHECK(error_of(whole(books, R"({"name": "a", "algorithm": "token_bucket", "rate": "1/s", "burst": 9, "process_hold": "1s", "mode": "central"})"))
            .ends_with("rules[0].process_hold: no process admits by itself what Redis decides: leave it out"));
  CHECK(error_of(whole("\"mode\": \"centrl\"", rule)).find("did you mean \"central\"?") != std::string::npos);

  const Parsed usual = parse_config(whole(books, rule + R"(, {"name": "b", "limit": 1, "window": "week", "algorithm": "fixed_window"})"));
  REQUIRE(usual.errors.empty());
  CHECK(usual.config.rules[0].mode == Mode::central);
  CHECK(usual.config.rules[1].mode == Mode::leased);
  CHECK(usual.config.inline_rule.mode == Mode::leased);
  const Parsed all = parse_config(whole(books + R"(, "mode": "central")", R"({"name": "b", "limit": 1, "window": "1m"}, {"name": "c", "limit": 1, "window": "1m", "mode": "leased"})"));
  REQUIRE(all.errors.empty());
  CHECK(all.config.rules[0].mode == Mode::central);
  CHECK(all.config.rules[1].mode == Mode::leased);
  CHECK(all.config.inline_rule.mode == Mode::central);
}

TEST_CASE("problems that are found after the file was read get their place in it") {
  Parsed parsed = parse_config("{\n\"cluster\": {\n \"bind\": \"127.0.0.1:1\"} }");
  REQUIRE(parsed.errors.empty());
  parsed.config.cluster.bind = "127.0.0.1";  // a flag
  parsed.config.cluster.peers = {"127.0.0.1:7"};
  std::vector<Problem> problems = validate(parsed.config);
  REQUIRE(problems.size() == 1 + 1);
  parsed.places.locate(problems);
  CHECK(format_problem("f", problems[0])
            .starts_with("f:2:12: cluster.peers: "));  // not in the text: its section
  CHECK(format_problem("f", problems[1]).starts_with("f:3:10: cluster.bind: "));
}

TEST_CASE("a problem without a place or a file is printed without") {
  CHECK(format_problem("", {0, 0, "cluster.bind", "no"}) == "cluster.bind: no");
  CHECK(format_problem("f", {0, 0, "cluster.bind", "no"}) == "f: cluster.bind: no");
  CHECK(format_problem("f", {3, 4, "", "no"}) == "f:3:4: no");
}
