// "match", "overrides" and "overrides_file" of a rule: what is read, and every error with its place, also in the other file.
#include <doctest/doctest.h>

#include <map>
#include <string>

#include "config/config.h"
#include "config_samples.h"
#include "core/overrides.h"

using namespace tally;
using namespace std::chrono_literals;

namespace {

using Texts = std::map<std::string, std::string>;  // the files that there are

OtherFiles files_of(const Texts& texts) {
  return {"/etc/tallyd/tallyd.json", [texts](const std::string& path) -> Result<std::string> {
            const auto found = texts.find(path);
            if (found == texts.end()) return Failure{path + ": cannot be read: No such file or directory"};
            return found->second;
          }};
}

const std::string kWindow = R"("name": "a", "limit": 9, "window": "1m", )";
const std::string kBucket = R"("name": "a", "algorithm": "token_bucket", "rate": "10/s", "burst": 20, )";

Parsed parsed(const std::string& rule, const Texts& texts = {}) { return parse_config("{\"rules\": [ {" + rule + "} ]}", {}, files_of(texts)); }

// Whole lines.
std::string errors_of(const std::string& rule, const Texts& texts = {}) {
  std::string out;
  for (const Problem& problem : parsed(rule, texts).errors) out += (out.empty() ? "" : "\n") + format_problem("f", problem);
  return out;
}

Rule rule_of(const std::string& fields, const Texts& texts = {}) {
  const Parsed result = parsed(fields, texts);
  REQUIRE_MESSAGE(result.errors.empty(), format_problem("f", result.errors.front()));
  return result.config.rules.front();
}

}  // namespace

TEST_CASE("a match is a domain and the entries of a descriptor") {
  const Match match = rule_of(kWindow + R"("match": {"domain": "edge", "descriptors": [{"key": "remote_address"}, {"key": "path", "value": "/api/*"}]})").match;
  CHECK(match.domain == "edge");
  REQUIRE(match.descriptors.size() == 2);
  CHECK(match.descriptors[0] == Match::Entry{"remote_address", std::nullopt});
  CHECK(match.descriptors[1] == Match::Entry{"path", "/api/*"});
  CHECK(rule_of(kWindow + R"("match": null)").match == Match{});
}

TEST_CASE("a wrong match is named with its place") {
  CHECK(errors_of(kWindow + R"("match": 7)") == "f:1:64: rules[0].match: must be an object, got 7");
  CHECK(errors_of(kWindow + R"("match": {"descriptors": [{"key": "k"}]})") ==
        "f:1:64: rules[0].match.domain: is missing; it is the domain that requests come with, such as \"edge\"");
  CHECK(errors_of(kWindow + R"("match": {"domain": "", "descriptors": [{"key": "k"}]})") ==
        "f:1:75: rules[0].match.domain: must be the domain that requests come with, such as \"edge\", got \"\"");
  CHECK(errors_of(kWindow + R"("match": {"domain": "d"})") ==
        "f:1:64: rules[0].match.descriptors: are missing: the entries of a descriptor, such as [{\"key\": \"remote_address\"}]");
  CHECK(errors_of(kWindow + R"("match": {"domain": "d", "descriptors": []})") ==
        "f:1:95: rules[0].match.descriptors: must have an entry, such as {\"key\": \"remote_address\"}");
  CHECK(errors_of(kWindow + R"("match": {"domain": "d", "descriptors": [7, {}, {"key": "", "value": ""}, {"key": "k", "vlaue": "x"}]})") ==
        "f:1:96: rules[0].match.descriptors[0]: must be an entry such as {\"key\": \"path\", \"value\": \"/login\"}, got 7\n"
        "f:1:99: rules[0].match.descriptors[1].key: is missing; it is the key of an entry, such as \"remote_address\"\n"
        "f:1:111: rules[0].match.descriptors[2].key: must be the key of an entry, such as \"remote_address\", got \"\"\n"
        "f:1:124: rules[0].match.descriptors[2].value: must not be empty; leave it out for any value\n"
        "f:1:142: rules[0].match.descriptors[3].vlaue: unknown field; did you mean \"value\"?");
  std::string entries;
  for (size_t i = 0; i <= kMatchEntriesMax; ++i) entries += std::string(i == 0 ? "" : ", ") + R"({"key": "k"})";
  CHECK(errors_of(kWindow + R"("match": {"domain": "d", "descriptors": [)" + entries + "]}") ==
        "f:1:95: rules[0].match.descriptors: at most 16 entries, got 17");
}

TEST_CASE("overrides of a window change its limit, and of a bucket its rate and burst") {
  const Rule window = rule_of(kWindow + R"("overrides": {"a": 50, "b*": {"limit": 60}, "10.0.0.0/8": "exempt", "c": "blocked", "d": null})");
  REQUIRE(window.overrides != nullptr);
  CHECK(window.overrides->size() == 4);
  CHECK(window.for_key("a").limit->limit == 50);
  CHECK(window.for_key("a").limit->window == 1min);
  CHECK(window.for_key("bb").limit->limit == 60);
  CHECK(window.for_key("10.9.9.9").treatment == Treatment::exempt);
  CHECK(window.for_key("c").treatment == Treatment::blocked);
  CHECK(window.for_key("d").limit == &window.limit);
  const Rule bucket = rule_of(kBucket + R"("overrides": {"a": {"rate": "50/s", "burst": 100}, "b": "exempt"})");
  CHECK(bucket.for_key("a").limit->emission == 20ms);
  CHECK(bucket.for_key("a").limit->limit == 100);
  CHECK(bucket.for_key("b").treatment == Treatment::exempt);
  CHECK(bucket.for_key("c").limit->emission == 100ms);
  CHECK(rule_of(kWindow + R"("overrides": {})").overrides == nullptr);
  CHECK(rule_of(kWindow + R"("overrides": null)").overrides == nullptr);
}

TEST_CASE("wrong overrides are all named with their places") {
  CHECK(errors_of(kWindow + R"("overrides": [1])") ==
        "f:1:68: rules[0].overrides: must be an object such as {\"user:1\": 50, \"10.0.0.0/8\": \"exempt\"}, got an array");
  CHECK(errors_of(kWindow + R"("overrides": {"a": 0, "b": "blokced", "c": {"limit": 0}, "d": {"burst": 1}, "10.0.0.1/8": 1, "": 1, "e": true})") ==
        "f:1:74: rules[0].overrides.a: must be a whole number, 1 to 2147483648, got 0\n"
        "f:1:82: rules[0].overrides.b: must be a limit such as 50, \"exempt\" or \"blocked\", got the string \"blokced\"\n"
        "f:1:108: rules[0].overrides.c.limit: must be a whole number, 1 to 2147483648, got 0\n"
        "f:1:117: rules[0].overrides.d.limit: is missing; it has \"limit\"\n"
        "f:1:118: rules[0].overrides.d.burst: unknown field\n"
        "f:1:131: rules[0].overrides.10.0.0.1/8: is no block of addresses: the address has more bits than that; the block that it lies in is \"10.0.0.0/8\"\n"
        "f:1:148: rules[0].overrides.: a key has 1 byte or more\n"
        "f:1:160: rules[0].overrides.e: must be a limit such as 50, \"exempt\" or \"blocked\", got true");
  CHECK(errors_of(kBucket + R"("overrides": {"a": 5, "b": {"rate": "5/s"}, "c": {"rate": "5", "burst": 1}, "d": {"rate": "1/d", "burst": 1000}})") ==
        "f:1:104: rules[0].overrides.a: must be {\"rate\": \"50/s\", \"burst\": 100}, \"exempt\" or \"blocked\", got 5\n"
        "f:1:112: rules[0].overrides.b.burst: is missing; it has \"rate\" and \"burst\"\n"
        "f:1:143: rules[0].overrides.c.rate: must be a rate such as \"50/s\", \"1000/m\" or \"10/100ms\", got \"5\": there is no '/'\n"
        "f:1:191: rules[0].overrides.d.burst: a bucket must fill within 417 days: at 1/d a burst of 416 at most, got 1000");
}

TEST_CASE("a key that looks like a block of addresses and is none is warned of, also in a file") {
  const auto warnings_of = [](const std::string& rule, const Texts& texts = {}) {
    std::string out;
    for (const Problem& problem : parsed(rule, texts).warnings) out += (out.empty() ? "" : "\n") + format_problem("f", problem);
    return out;
  };
  CHECK(warnings_of(kWindow + R"("overrides": {"10.0.0.0/255.0.0.0": 1, "10.0.0.0-10.0.0.255": "blocked", "/api/1": 1, "10.0.0.0/8": 1})") ==
        "f:1:69: rules[0].overrides.10.0.0.0/255.0.0.0: is taken for one whole key, not for a block of addresses; did you mean \"10.0.0.0/8\"?\n"
        "f:1:94: rules[0].overrides.10.0.0.0-10.0.0.255: is taken for one whole key, not for a block of addresses; that is written as "
        "\"10.0.0.0/8\"");
  CHECK(warnings_of(kWindow + R"("overrides_file": "more.json")", {{"/etc/tallyd/more.json", R"({"[::]/0": 1})"}}) ==
        "/etc/tallyd/more.json:1:2: [::]/0: is taken for one whole key, not for a block of addresses; did you mean \"::/0\"?");
}

TEST_CASE("where the form of the rule is unknown, nothing is said of its overrides") {
  CHECK(errors_of(R"("name": "a", "algorithm": "bucket", "overrides": {"a": {"rate": "x"}}, "overrides_file": "none")").find("overrides") == std::string::npos);
}

TEST_CASE("a file of overrides lies beside the configuration and is read with it") {
  const Rule rule = rule_of(kWindow + R"("overrides": {"a": 50}, "overrides_file": "keys/more.json")",
                            {{"/etc/tallyd/keys/more.json", "// some more\n{\"b\": 60, \"c*\": \"blocked\"}"}});
  CHECK(rule.overrides->size() == 3);
  CHECK(rule.for_key("a").limit->limit == 50);
  CHECK(rule.for_key("b").limit->limit == 60);
  CHECK(rule.for_key("cc").treatment == Treatment::blocked);
  CHECK(rule.overrides->file() == "keys/more.json");
  CHECK(rule.overrides->written().size() == 1);
  CHECK(rule_of(kWindow + R"("overrides_file": "/x.json")", {{"/x.json", "{}"}}).overrides->size() == 0);
  CHECK(OtherFiles{"tallyd.json", {}}.beside("more.json") == "more.json");
  CHECK(OtherFiles{"conf/tallyd.json", {}}.beside("../more.json") == "conf/../more.json");
}

TEST_CASE("errors in a file of overrides name that file, its lines and columns, all at once and behind those of the configuration") {
  const std::string field = kWindow + R"("overrides": {"a": 50, "b": 0}, "overrides_file": "more.json")";
  CHECK(errors_of(field, {{"/etc/tallyd/more.json", "{\n  \"a\": 60,\n  \"c\": {\"limt\": 5},\n  \"d\": 1, \"d\": 2\n}"}}) ==
        "f:1:83: rules[0].overrides.b: must be a whole number, 1 to 2147483648, got 0\n"
        "/etc/tallyd/more.json:2:3: a: stands in these overrides already\n"
        "/etc/tallyd/more.json:3:8: c.limit: is missing; it has \"limit\"\n"
        "/etc/tallyd/more.json:3:9: c.limt: unknown field; did you mean \"limit\"?\n"
        "/etc/tallyd/more.json:4:11: d: duplicate key: it stands at 4:3 already");
  const std::string alone = kWindow + R"("overrides_file": "more.json")";
  CHECK(errors_of(alone) == "f:1:73: rules[0].overrides_file: /etc/tallyd/more.json: cannot be read: No such file or directory");
  CHECK(errors_of(alone, {{"/etc/tallyd/more.json", "[]"}}) == "/etc/tallyd/more.json:1:1: overrides are an object: { KEY: LIMIT, ... }, got an array");
  CHECK(errors_of(alone, {{"/etc/tallyd/more.json", "{\"a\": 1"}}).starts_with("/etc/tallyd/more.json:1:8: syntax error: "));
  CHECK(errors_of(kWindow + R"("overrides_file": "")") == "f:1:73: rules[0].overrides_file: must be the path of a file, got \"\"");
  std::string many = "{";
  for (int i = 0; i < 1'500; ++i) many += (i == 0 ? "\"k" : ", \"k") + std::to_string(i) + "\": 0";
  const Parsed result = parsed(alone, {{"/etc/tallyd/more.json", many + "}"}});
  REQUIRE(result.errors.size() == 1'001);
  CHECK(result.errors.back().message == "and 500 more errors");
}

TEST_CASE("a hundred thousand overrides are read, each of them") {
  std::string text = "{";
  for (int i = 0; i < 100'000; ++i) text += (i == 0 ? "\"user:" : ",\n\"user:") + std::to_string(i) + "\": " + std::to_string(i + 1);
  const Rule rule = rule_of(kWindow + R"("overrides_file": "more.json")", {{"/etc/tallyd/more.json", text + "}"}});
  CHECK(rule.overrides->size() == 100'000);
  for (int i = 0; i < 100'000; i += 997) CHECK(rule.for_key("user:" + std::to_string(i)).limit->limit == static_cast<uint32_t>(i + 1));
}

TEST_CASE("a rule with match and overrides is printed and read back equal") {
  const std::string fields = kBucket +
                             R"("overrides": {"a": {"rate": "50/s", "burst": 100}, "b\"*": "exempt", "c": "blocked"}, "overrides_file": "more.json",
                                "match": {"domain": "edge", "descriptors": [{"key": "k", "value": "v*"}, {"key": "l"}]})";
  const Texts texts{{"/etc/tallyd/more.json", "{}"}};
  const Config config = parsed(fields, texts).config;
  const Parsed again = parse_config(print_config(config), {}, files_of(texts));
  REQUIRE(again.errors.empty());
  CHECK(samples::same(again.config, config));
  CHECK(print_config(again.config) == print_config(config));
  CHECK(print_config(config).find(R"("b\"*": "exempt")") != std::string::npos);
}

TEST_CASE("what is promised of a rule with overrides, and of one that limits nothing") {
  const Config config = parse_config(R"({"rules": [{"name": "a", "limit": 7, "window": "1m", "overrides": {"x": 9}},
      {"name": "b", "limit": 1, "window": "1s", "overrides": {"*": "exempt", "x": "blocked"}}]})").config;
  CHECK(describe_promises(config) ==
        "alone: every limit is counted here and holds as it is written\n\n"
        "rule      limit\n"
        "a         7 per 1m, sliding; overrides: 1\n"
        "b         none: each key is exempt or blocked\n"
        "(inline)  as each call says\n");
  const std::string fleet = R"({"cluster": {"bind": "127.0.0.1:1", "peers": ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]},
      "rules": [{"name": "b", "limit": 1, "window": "100ms", "overrides": {"*": "exempt"}}]})";
  CHECK(parse_config(fleet).warnings.empty());
  CHECK(describe_promises(parse_config(fleet).config).find("b         none: each key is exempt or blocked  -") != std::string::npos);
}
