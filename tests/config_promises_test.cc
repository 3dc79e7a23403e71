// What the configuration says about itself: warnings, promises, and the examples and the reference that ship
// with it.
#include <doctest/doctest.h>

#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include "config/checks.h"
#include "config/config.h"
#include "config_samples.h"
#include "seed.h"

using namespace tally;
using namespace std::chrono_literals;

namespace {

std::string fleet(size_t nodes, std::string_view rule, std::string_view more = "") {
  std::string text = "{\"cluster\": {\"bind\": \"127.0.0.1:1\"" + std::string(more) + ", \"peers\": [";
  for (size_t i = 1; i <= nodes; ++i) {
    text += i == 1 ? "\"127.0.0.1:" : ", \"127.0.0.1:";
    text += std::to_string(i);
    text += '"';
  }
  return text + "]},\n\"rules\": [ {\"name\": \"a\", " + std::string(rule) + "} ]}";
}

std::string warnings_of(const std::string& text) {
  const Parsed parsed = parse_config(text);
  REQUIRE(parsed.errors.empty());
  std::string out;
  for (const Problem& problem : parsed.warnings) {
    if (!out.empty()) out += '\n';
    out += format_problem("f", problem);
  }
  return out;
}

std::string read_file(const std::string& name) {
  std::ifstream file(std::string(TALLY_SOURCE_DIR "/") + name);
  REQUIRE_MESSAGE(file.good(), name);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

uint32_t least_floor(uint32_t limit, uint64_t ppm, uint32_t nodes) {
  return floor_of(limit, Overcount{static_cast<uint32_t>(ppm), false}, Share{nodes - 1, nodes});
}

}  // namespace

TEST_CASE("the e that ends the waiting is the smallest that leaves no node without a floor") {
  const uint64_t seed = test_seed(11);
  Random random(seed);
  int reachable = 0;
  for (int i = 0; i < 20'000; ++i) {
    const auto limit =
        static_cast<uint32_t>(random.chance(0.5) ? random.between(1, 2'000) : random.between(1, kLimitMax));
    const auto nodes = static_cast<uint32_t>(random.between(2, 300));
    const uint64_t ppm = waiting_ends_at_ppm(limit, nodes);
    CAPTURE(limit);
    CAPTURE(nodes);
    CAPTURE(ppm);
    if (ppm > kPartsPerMillion) {
      REQUIRE(least_floor(limit, kPartsPerMillion, nodes) == 0);
      continue;
    }
    ++reachable;
    REQUIRE(least_floor(limit, ppm, nodes) >= 1);
    REQUIRE(least_floor(limit, ppm - 1, nodes) == 0);
  }
  CHECK(reachable > 5'000);
}

TEST_CASE("a floor of 0 is warned about at the rule, with the e that ends the waiting") {
  CHECK(warnings_of(fleet(10, R"("limit": 100, "window": "1m")")) ==
        "f:2:12: rules[0].max_overcount: 5% of 100 over 10 nodes leaves 5 of them a floor of 0: a key's "
        "first request "
        "there waits for a grant, up to 20ms; a max_overcount of \"10%\" ends the waiting, with a bound of "
        "110");
  CHECK(warnings_of(fleet(10, R"("limit": 100, "window": "1m", "max_overcount": "10%")")) == "");
  CHECK(warnings_of(fleet(10, R"("limit": 100, "window": "1m", "max_overcount": "9.9999%")"))
            .find("leaves 1 of them a floor of 0") != std::string::npos);
  CHECK(
      warnings_of(fleet(3, R"("limit": 17, "window": "1m", "wait": 0)")) ==
      "f:2:12: rules[0].max_overcount: 5% of 17 over 3 nodes leaves 3 of them a floor of 0: a key's first "
      "request "
      "there is refused (\"wait\" is 0); a max_overcount of \"17.7%\" ends the waiting, with a bound of 20");
  CHECK(warnings_of(fleet(10, R"("limit": 9, "window": "1m")"))
            .ends_with("only \"unbounded\" ends the waiting (the limit is below the number of nodes)"));
}

TEST_CASE("floors are split over cluster.size, not over the peers that are there") {
  constexpr std::string_view rule = R"("limit": 100, "window": "1m")";
  CHECK(warnings_of(fleet(3, rule)) == "");
  CHECK(warnings_of(fleet(3, rule, ", \"size\": 6")).find("over 6 nodes leaves 1 of them") !=
        std::string::npos);
}

TEST_CASE("a bucket's floor is what its floor bucket holds") {
  constexpr std::string_view bucket = R"("algorithm": "token_bucket", "rate": "1/s", "burst": )";
  CHECK(warnings_of(fleet(3, std::string(bucket) + "60")) == "");
  // 5 % of 59 is 2, but the buckets of all three nodes are equal, and none of them holds a whole token.
  CHECK(warnings_of(fleet(3, std::string(bucket) + "59")).find("leaves 3 of them a floor of 0") !=
        std::string::npos);
}

TEST_CASE("a window in which no grant comes back in time is warned about") {
  constexpr std::string_view slow = R"(, "sync_interval": "100ms")";
  CHECK(warnings_of(fleet(3, R"("limit": 1000, "window": "404ms")", slow)) == "");
  CHECK(warnings_of(fleet(3, R"("limit": 1000, "window": "403ms")", slow)) ==
        "f:2:51: rules[0].window: too short to lease in time at a sync interval of 100ms: each node admits "
        "its floor "
        "only; a window of 404ms or more, or a sync interval of 99ms or less, would do");
  CHECK(warnings_of(fleet(3, R"("limit": 10, "window": "10ms")", slow))
            .find("some nodes have a floor of 0 and admit nothing at all") != std::string::npos);
  CHECK(warnings_of(fleet(3, R"("limit": 10, "window": "10ms", "max_overcount": "unbounded")", slow)) == "");
  CHECK(warnings_of(fleet(1, R"("limit": 10, "window": "10ms")", slow)).find("window") == std::string::npos);
}

TEST_CASE("a fleet of two is warned about: it has no failover") {
  CHECK(warnings_of(fleet(2, R"("limit": 1000, "window": "1m")"))
            .find("cluster.peers: a fleet of two: both must live") != std::string::npos);
}

TEST_CASE("one aggregator, or two, are warned about") {
  constexpr std::string_view rule = R"("limit": 1000, "window": "1m")";
  const std::string first = R"(, "aggregators": ["127.0.0.1:1")";
  CHECK(warnings_of(fleet(4, rule, first + "]")).find("cluster.aggregators: one alone: while it is down") != std::string::npos);
  CHECK(warnings_of(fleet(4, rule, first + R"(, "127.0.0.1:2"])")).find("cluster.aggregators: two of them: both must live") != std::string::npos);
  CHECK(warnings_of(fleet(4, rule, first + R"(, "127.0.0.1:2", "127.0.0.1:3"])")) == "");
}

TEST_CASE("a strict rule is warned about a wait of 0 and about a policy that is not closed") {
  constexpr std::string_view strict = R"("limit": 5, "window": "1m", "max_overcount": 0)";
  CHECK(warnings_of(fleet(3, std::string(strict) + R"(, "on_isolation": "closed")")) == "");
  CHECK(warnings_of(fleet(3, std::string(strict) + R"(, "on_isolation": "closed", "wait": "0s")"))
            .find("rules[0].wait: a strict rule has no floors") != std::string::npos);
  CHECK(warnings_of(fleet(3, strict)) ==
        "f:2:12: rules[0].on_isolation: a strict rule, but nodes that are cut off may admit up to ~10 in all "
        "by \"share\"; "
        "\"closed\" keeps it at 5");
}

TEST_CASE("other unwise settings are warned about") {
  constexpr std::string_view rule = R"("limit": 1000, "window": "1m")";
  CHECK(warnings_of(fleet(1, rule)).find("cluster.bind: there are no other peers") != std::string::npos);
  CHECK(warnings_of(fleet(3, rule, R"(, "isolation_after": "1s")"))
            .find("cluster.isolation_after: shorter than a failover may take") != std::string::npos);
  CHECK(warnings_of(fleet(3, rule, R"(, "isolation_after": "2s")")) == "");
  CHECK(warnings_of(
            "{\"rules\": [{\"name\": \"a\", \"algorithm\": \"token_bucket\", \"rate\": \"700000000/s\", "
            "\"burst\": 1}]}")
            .find("this is 500000000 in 1s, not 700000000") != std::string::npos);
}

TEST_CASE("HTTP beyond loopback is warned about, as it serves decisions to whoever reaches it") {
  const auto warned = [](std::string_view addresses) { return warnings_of("{\"listen\": {\"http\": [" + std::string(addresses) + "]}}"); };
  CHECK(warned(R"("unix:/run/http.sock", "127.0.0.1:8380", "127.1.2.3:0", "[::1]:8380")") == "");
  CHECK(warned(R"("127.0.0.1:8380", "0.0.0.0:8381")") ==
        "f:1:40: listen.http[1]: HTTP has no passwords and no encryption, and \"0.0.0.0:8381\" is not a loopback address: whoever "
        "reaches it may take from any key; let only your proxies and Prometheus reach it");
  for (const char* address : {R"("[::]:8380")", R"("192.0.2.1:8380")", R"("[2001:db8::1]:8380")"}) {
    CAPTURE(address);
    CHECK(warned(address).find("is not a loopback address") != std::string::npos);
  }
}

TEST_CASE("the promises of a fleet are told rule by rule") {
  constexpr std::string_view text = R"({
    "cluster": {"bind": "127.0.0.1:1", "peers": ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]},
    "rules": [
      {"name": "api", "limit": 1000, "window": "1m"},
      {"name": "login", "algorithm": "fixed_window", "limit": 5, "window": "15m", "max_overcount": 0, "on_isolation": "closed"},
      {"name": "feed", "algorithm": "token_bucket", "rate": "50/s", "burst": 100, "wait": 0},
      {"name": "few", "limit": 40, "window": "1m", "on_isolation": "open"},
      {"name": "quick", "limit": 100, "window": "20ms"},
      {"name": "free", "limit": 10, "window": "1m", "max_overcount": "unbounded"}]})";
  const Parsed parsed = parse_config(text);
  REQUIRE(parsed.errors.empty());
  CHECK(describe_promises(parsed.config) ==
        R"(fleet of 3, sync interval 100ms, cut off after 2s
e: max_overcount; floor: what a node admits without asking; bound: the most in one window over the fleet
a bucket's bound: the most at once; in a time T at most (1 + e) * rate * T come on top
~: about, as shares are told to one node after the other; what cannot be passed is what "open" would have here

rule      limit                  e          floor             bound  bound isolated  what waits
api       1000 per 1m, sliding   5%         17 at 2, 16 at 1  1050   ~2050 (share)   what is beyond the floor, up to 20ms for the grant
login     5 per 15m, fixed       strict     0 each            5      5 (closed)      a key's first request at any node, up to 20ms for the grant; a max_overcount of "60%" ends the waiting, with a bound of 8
feed      50/s, burst 100        5%         1 each            105    ~205 (share)    what is beyond the floor is refused until the grant is there (wait 0)
few       40 per 1m, sliding     5%         1 at 2, 0 at 1    42     162 (open)      a key's first request at 1 of the nodes, up to 20ms for the grant; a max_overcount of "7.5%" ends the waiting, with a bound of 43
quick     100 per 20ms, sliding  5%         2 at 2, 1 at 1    105    ~205 (share)    nothing: too short to lease in, floors only
free      10 per 1m, sliding     unbounded  10 each           30     ~40 (share)     nothing; the owner says stop once the fleet has used the limit
(inline)  as each call says      5%         -                 -      - (share)       first requests at some nodes where a call's limit is under 60
)");
}

TEST_CASE("what processes may hold of a bucket is told as less of its burst") {
  const Parsed parsed = parse_config(R"({"rules": [{"name": "feed", "algorithm": "token_bucket", "rate": "1000/s", "burst": 100, "process_hold": "20ms"}]})");
  REQUIRE(parsed.errors.empty());
  CHECK(describe_promises(parsed.config).find("feed      1000/s, burst 100 less 21 for processes\n") != std::string::npos);
  const Parsed wrong = parse_config(
      R"({"rules": [{"name": "feed", "algorithm": "token_bucket", "rate": "1000/s", "burst": 100, "process_hold": "60ms"},
                    {"name": "api", "limit": 100, "window": "1m", "process_hold": "60ms"}]})");
  REQUIRE(wrong.errors.size() == 2);
  CHECK(wrong.errors[0].path == "rules[0].process_hold");
  CHECK(wrong.errors[1].path == "rules[1].process_hold");
  CHECK(wrong.errors[0].message ==
        "is taken off the burst, as the tokens of that time: 60ms are 62, of a burst of 100 at most half; make it shorter or the burst larger");
}

TEST_CASE("alone, every limit holds as it is written") {
  const Parsed parsed = parse_config(R"({"rules": [{"name": "api", "limit": 7, "window": "1m"}]})");
  CHECK(describe_promises(parsed.config) ==
        "alone: every limit is counted here and holds as it is written\n\n"
        "rule      limit\napi       7 per 1m, sliding\n(inline)  as each call says\n");
}

TEST_CASE("what is laid over the text is checked with it") {
  const std::string common = R"({"cluster": {"peers": ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]}})";
  CHECK(parse_config(common).errors.size() == 1);
  const Parsed parsed = parse_config(common, [](Config& config) { config.cluster.bind = "127.0.0.1:2"; });
  CHECK(parsed.errors.empty());
  CHECK(parsed.config.cluster.own_entry() == "127.0.0.1:2");
  const Parsed other = parse_config(common, [](Config& config) { config.cluster.bind = "127.0.0.1:9"; });
  REQUIRE(other.errors.size() == 1);
  CHECK(format_problem("f", other.errors[0]).starts_with("f:1:23: cluster.peers: none of them is this node"));
}

TEST_CASE("the examples are valid and wise, and the full one shows every default") {
  for (const char* name : {"conf/tallyd.json", "conf/single.json", "conf/fleet-of-three.json", "conf/aggregators.json", "conf/region.json", "conf/world.json"}) {
    CAPTURE(name);
    CHECK(warnings_of(read_file(name)) == "");
  }
  Config all = parse_config(read_file("conf/tallyd.json")).config;
  CHECK(all.rules.size() == 4);
  Rule api;
  api.name = "api";
  api.limit.limit = 1'000;
  api.limit.window = 1min;
  api.comment = all.rules[0].comment;
  api.also_names = {"api-daily"};
  CHECK(samples::same(all.rules[0], api));
  all.rules.clear();
  CHECK(samples::same(all, Config{}));
}

TEST_CASE("RESP over TCP lets every user of the host order: that is said for each such address, of a Unix socket not") {
  const auto warned = [](const std::string& listen) {
    std::vector<std::string> paths;
    for (const Problem& problem : parse_config("{\"listen\": {" + listen + "}}").warnings) {
      CHECK(problem.message.find("TALLY.BLOCK, ALLOW, LIMIT, LIFT, RESET, RELOAD and FORGET") != std::string::npos);
      paths.push_back(problem.path);
    }
    return paths;
  };
  CHECK(warned(R"("resp": ["/run/a", "127.0.0.1:6379", "[::1]:6379"])") == std::vector<std::string>{"listen.resp[1]", "listen.resp[2]"});
  CHECK(warned(R"("resp": ["/run/a"], "http": ["127.0.0.1:8380"])").empty());
}

TEST_CASE("the reference quotes what --check says of the fleet of three") {
  const Config config = parse_config(read_file("conf/fleet-of-three.json")).config;
  CHECK(read_file("docs/configuration.md").find("```\n" + describe_promises(config) + "```\n") !=
        std::string::npos);
}

TEST_CASE("every field is in the full example and in the reference") {
  Config config;
  config.rules.resize(2);
  config.rules[0].comment = "x";
  config.rules[1].limit.algorithm = Algorithm::token_bucket;
  config.rules[1].match = {"edge", {{"remote_address", std::nullopt}, {"path", "/login"}}};
  const std::string printed = print_config(config);
  const std::string example = read_file("conf/tallyd.json"), reference = read_file("docs/configuration.md");
  std::set<std::string> fields;
  for (size_t at = printed.find("\": "); at != std::string::npos; at = printed.find("\": ", at + 1)) {
    const size_t from = printed.rfind('"', at - 1);
    fields.insert(printed.substr(from + 1, at - from - 1));
  }
  CHECK(fields.size() > 35);
  for (const std::string& field : fields) {
    CAPTURE(field);
    CHECK(example.find("\"" + field + "\"") != std::string::npos);
    CHECK(reference.find("`" + field + "`") != std::string::npos);
  }
}
