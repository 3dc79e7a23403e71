// What a reload may change, and what it refuses.
#include <doctest/doctest.h>

#include <memory>
#include <string>

#include "config/config.h"

using namespace tally;

namespace {

constexpr std::string_view kBefore = R"({
  "listen": {"http": ["127.0.0.1:9100"]},
  "cluster": {"bind": "127.0.0.1:1", "peers": ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]},
  "rules": [{"name": "login", "limit": 5, "window": "1m"},
            {"name": "api", "algorithm": "token_bucket", "rate": "10/s", "burst": 5}]})";

Config parsed(std::string_view text) {
  const Parsed result = parse_config(text);
  REQUIRE_MESSAGE(result.errors.empty(), format_problem("f", result.errors.front()));
  return result.config;
}

std::shared_ptr<const RuleSet> rules_of(const Config& config, const RuleSet* before = nullptr) {
  return std::make_shared<const RuleSet>(config.rules, config.inline_rule, Share{0, 3}, kPublicIdKey, before);
}

std::string replaced(std::string_view what, std::string_view with) {
  std::string text(kBefore);
  const size_t at = text.find(what);
  REQUIRE(at != std::string::npos);
  return text.replace(at, what.size(), with);
}

// Each path that is refused with its message, by lines.
std::string refused(const Config& running, const Config& next, const RuleSet& known) {
  std::string lines;
  for (const Problem& problem : refused_by_reload(running, next, known)) lines += problem.path + ": " + problem.message + "\n";
  return lines;
}
std::string refused(std::string_view what, std::string_view with) {
  const Config before = parsed(kBefore);
  return refused(before, parsed(replaced(what, with)), *rules_of(before));
}

}  // namespace

TEST_CASE("rules and what a rule says may change, but for its algorithm and its window") {
  CHECK(refused("10/s", "10/s") == "");
  CHECK(refused("\"limit\": 5", "\"limit\": 50, \"max_overcount\": 0, \"wait\": \"1s\", \"shadow\": true") == "");
  CHECK(refused("10/s", "20/m") == "");
  CHECK(refused("\"burst\": 5", "\"burst\": 500") == "");
  CHECK(refused("\"login\"", "\"signup\"") == "");
  CHECK(refused("\"rules\": [", "\"inline\": {\"wait\": \"1s\"}, \"rules\": [{\"name\": \"new\", \"limit\": 1, \"window\": \"1s\"},") == "");
  CHECK(refused("1m", "2m") ==
        "rules[0].window: is 1m for \"login\" since this daemon started, and a reload cannot change that: give the rule another "
        "name, or restart\n");
  CHECK(refused("\"1m\"", "\"minute\"") == "");
  CHECK(refused("\"1m\"", "\"1m\", \"mode\": \"leased\"") == "");
  CHECK(refused("\"1m\"", "\"1m\", \"algorithm\": \"fixed_window\"") ==
        "rules[0].algorithm: is sliding_window for \"login\" since this daemon started, and a reload cannot change that: give the "
        "rule another name, or restart\n");
  CHECK(refused("\"name\": \"login\", \"limit\": 5, \"window\": \"1m\"", "\"name\": \"login\", \"algorithm\": \"token_bucket\", \"rate\": \"1/s\", \"burst\": 2")
            .starts_with("rules[0].algorithm: is sliding_window"));
}

TEST_CASE("a rule that was away comes back as what it was") {
  const Config first = parsed(kBefore), without = parsed(replaced("\"login\"", "\"signup\""));
  const auto known = rules_of(without, rules_of(first).get());
  CHECK(refused(without, first, *known) == "");
  CHECK(refused(without, parsed(replaced("1m", "2m")), *known).starts_with("rules[0].window: is 1m for \"login\""));
}

TEST_CASE("the sync interval and what goes by it may change, while leases stay as long as they are") {
  const auto cluster = [](std::string_view fields) { return refused("\"peers\":", std::string(fields) + ", \"peers\":"); };
  CHECK(cluster(R"("sync_interval": "20ms")") == "");
  CHECK(cluster(R"("sync_interval": "20ms", "isolation_after": "7s", "lease": "1s")") == "");
  CHECK(cluster(R"("sync_interval": "500ms", "lease": "1s")") == "");
  CHECK(cluster(R"("sync_interval": "500ms")") ==
        "cluster.sync_interval: leases would be 5s instead of 1s, and a reload cannot change that: set \"lease\" to \"1s\", or restart\n");
  CHECK(cluster(R"("lease": "3s")") ==
        "cluster.lease: leases would be 3s instead of 1s, and a reload cannot change that: set \"lease\" to \"1s\", or restart\n");
}

TEST_CASE("lists of nodes may change, while the node stays the one that it is") {
  const auto list = [](std::string_view with) { return refused(R"("peers":)", std::string(with) + R"("peers":)"); };
  CHECK(refused("127.0.0.1:3", "127.0.0.1:4") == "");
  CHECK(refused(", \"127.0.0.1:3\"", "") == "");
  CHECK(list(R"("roster_version": 2, "previous": {"roster_version": 1, "peers": ["127.0.0.1:1", "127.0.0.1:2"]}, )") == "");
  CHECK(list(R"("size": 5, "aggregators": ["127.0.0.1:1"], )") == "");
  CHECK(refused(R"("bind": "127.0.0.1:1")", R"("bind": "127.0.0.1:2")").find("cluster.bind: was changed") != std::string::npos);
  CHECK(refused(R"("bind": "127.0.0.1:1")", R"("bind": "127.0.0.1:1", "self": "127.0.0.1:2")").find("this node is 127.0.0.1:1, and would be 127.0.0.1:2") !=
        std::string::npos);
  CHECK(refused(R"("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")", R"("127.0.0.1:1")") == "cluster: this node would be alone, and a reload cannot change that: restart\n");
  CHECK(refused(R"("peers": ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"])", R"("aggregators": ["127.0.0.1:2"])") ==
        "cluster: this node would be a guest, and a reload cannot change that: restart\n");
}

TEST_CASE("which lists differ") {
  const Config before = parsed(kBefore);
  const auto other = [&](std::string_view what, std::string_view with) { return other_lists(before, parsed(replaced(what, with))); };
  CHECK(!other("1m", "1m"));
  CHECK(!other("9100", "9101"));
  CHECK(!other(R"("peers":)", R"("sync_interval": "20ms", "lease": "1s", "peers":)"));
  CHECK(other("127.0.0.1:3", "127.0.0.1:4"));
  CHECK(other(R"("peers":)", R"("size": 4, "peers":)"));
  const auto change = [](std::string_view gone) {
    return parsed(replaced(R"("peers":)", R"("roster_version": 2, "previous": {"peers": ["127.0.0.1:1", "127.0.0.1:4"]}, "gone": [)" + std::string(gone) + R"(], "peers":)"));
  };
  CHECK(other_lists(before, change("")));
  CHECK(!other_lists(change(""), change("")));
  CHECK(other_lists(change(""), change(R"("127.0.0.1:4")")));
  CHECK(other(R"("peers":)", R"("aggregators": ["127.0.0.1:2"], "peers":)"));
  const auto region = [&](std::string_view above) {
    return parsed(replaced(R"("peers":)", R"("aggregators": ["127.0.0.1:1"], "upstream": )" + std::string(above) + R"(, "peers":)"));
  };
  CHECK(!other_lists(region(R"(["127.0.0.1:9"])"), region(R"(["127.0.0.1:9"])")));
  CHECK(other_lists(region(R"(["127.0.0.1:9"])"), region(R"(["127.0.0.1:8"])")));
}

TEST_CASE("anything else needs a restart, and every such place is named") {
  constexpr std::string_view kRestart = ": was changed, and a reload cannot change it: restart\n";
  CHECK(refused("9100", "9101") == "listen.http" + std::string(kRestart));
  CHECK(refused("\"peers\":", R"("secret_file": "/etc/tallyd.secret", "peers":)") == "cluster.secret_file" + std::string(kRestart));
  CHECK(refused("{\n", R"({"table": {"keys": 4096}, "workers": 3, "spin": "50us", "limits": {"waiting": 5}, "node": {"name": "x"},)") ==
        "limits.waiting" + std::string(kRestart) + "node.name" + std::string(kRestart) + "spin" + std::string(kRestart) +
            "table.keys" + std::string(kRestart) + "workers" + std::string(kRestart));
}

TEST_CASE("a rule's mode stays what it is, and so does that of the cluster") {
  const auto text = [](const std::string& mode, const std::string& rule) {
    return R"({"cluster": {"bind": "127.0.0.1:1", "peers": ["127.0.0.1:1"], "books": "redis://10.0.0.5", "mode": ")" + mode + R"("}, "rules": [{"name": "login", "limit": 5, "window": "1m")" +
           rule + "}]}";
  };
  const std::string central = R"(, "mode": "central")", leased = R"(, "mode": "leased")";
  const Config before = parsed(text("leased", central));
  CHECK(refused(before, parsed(text("leased", central + R"(, "wait": "1s", "on_isolation": "closed")")), *rules_of(before)) == "");
  CHECK(refused(before, parsed(text("leased", leased)), *rules_of(before)) ==
        "rules[0].mode: is central for \"login\" since this daemon started, and a reload cannot change that: give the rule another name, or restart\n");
  CHECK(refused(before, parsed(text("central", "")), *rules_of(before)) == "cluster.mode: was changed, and a reload cannot change it: restart\n");
}
