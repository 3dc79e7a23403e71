// Envoy's requests -> questions, and back.
#include "rls/translate.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "rls/units.h"
#include "rls_fixture.h"

using namespace tally;
using namespace tally::test;
using rls::Response;

namespace {

constexpr auto kRules = R"(
  { "name": "per-address", "algorithm": "fixed_window", "limit": 10, "window": "1m",
    "match": { "domain": "edge", "descriptors": [{ "key": "remote_address" }] } },
  { "name": "login", "algorithm": "fixed_window", "limit": 3, "window": "1m",
    "match": { "domain": "edge", "descriptors": [{ "key": "route", "value": "login" }] } },
  { "name": "login-by-the-day", "algorithm": "fixed_window", "limit": 5, "window": "1d",
    "match": { "domain": "edge", "descriptors": [{ "key": "route", "value": "login" }] } },
  { "name": "feed", "algorithm": "token_bucket", "rate": "10/s", "burst": 20,
    "match": { "domain": "edge", "descriptors": [{ "key": "feed" }] } },
  { "name": "watched", "algorithm": "fixed_window", "limit": 1, "window": "1h", "shadow": true,
    "match": { "domain": "edge", "descriptors": [{ "key": "watched" }] } })";

const Entries kAddress{{"remote_address", "10.0.0.1"}}, kLogin{{"route", "login"}}, kFeed{{"feed", "a"}},
    kUnknown{{"color", "red"}};

rls::Translated translated(const rls::Request& request, std::shared_ptr<const RuleSet> rules) {
  auto result = rls::translate(request, std::move(rules));
  if (!result) FAIL(result.error());
  return std::move(result.value());
}

std::string error_of(const rls::Request& request) {
  const auto result = rls::translate(request, rules_of(kRules));
  return result ? "" : result.error();
}

Response response_to(Asker& asker, const rls::Request& request, std::shared_ptr<const RuleSet> rules,
                     Now now = at(Duration(0))) {
  const rls::Translated asked = translated(request, std::move(rules));
  asker.answer(*asked.question, now);
  Response response;
  rls::fill_response(*asked.question, asked.descriptors, response);
  return response;
}

std::string header(const Response& response, std::string_view name) {
  for (const auto& added : response.response_headers_to_add())
    if (added.key() == name) return added.value();
  return "(none)";
}

void set_limit(EnvoyDescriptor& descriptor, uint32_t number, int unit) {
  descriptor.mutable_limit()->set_requests_per_unit(number);
  descriptor.mutable_limit()->set_unit(static_cast<envoy::type::v3::RateLimitUnit>(unit));
}

}  // namespace

TEST_CASE("each descriptor asks the rules that it matches, in one question, and keeps its own parts") {
  const auto rules = rules_of(kRules);
  const auto asked = translated(request_of({kAddress, kUnknown, kLogin}), rules);
  const auto& parts = asked.question->parts;
  REQUIRE(parts.size() == 3);
  CHECK(asked.question->rules == rules);
  CHECK(parts[0].rule == rules->find("per-address"));
  CHECK(parts[0].limit == rules->find("per-address")->limit);
  CHECK(parts[0].key.find("10.0.0.1") != std::string::npos);
  std::vector<std::string> login{parts[1].rule->name, parts[2].rule->name};
  std::ranges::sort(login);
  CHECK(login == std::vector<std::string>{"login", "login-by-the-day"});
  REQUIRE(asked.descriptors.size() == 3);
  CHECK(asked.descriptors[0].end - asked.descriptors[0].begin == 1);
  CHECK(asked.descriptors[1].end - asked.descriptors[1].begin == 0);
  CHECK(asked.descriptors[2].end - asked.descriptors[2].begin == 2);
}

TEST_CASE("another domain matches nothing, and what matches nothing lets through and says no limit") {
  Asker asker;
  const Response response = response_to(asker, request_of({kAddress, kLogin}, "other"), rules_of(kRules));
  CHECK(response.overall_code() == Response::OK);
  REQUIRE(response.statuses_size() == 2);
  CHECK(response.statuses(0).code() == Response::OK);
  CHECK_FALSE(response.statuses(0).has_current_limit());
  CHECK(response.response_headers_to_add_size() == 0);
}

TEST_CASE(
    "the request's hits_addend counts for descriptors without one, 0 of it means 1, and a descriptor's own 0 "
    "is a peek") {
  auto request = request_of({kAddress, kFeed, kFeed});
  request.mutable_descriptors(1)->mutable_hits_addend()->set_value(0);
  request.mutable_descriptors(2)->mutable_hits_addend()->set_value(uint64_t{1} << 40);
  const auto costs = [&] {
    std::vector<uint32_t> all;
    const auto asked = translated(request, rules_of(kRules));
    for (const auto& part : asked.question->parts) all.push_back(part.cost);
    return all;
  };
  CHECK(costs() == std::vector<uint32_t>{1, 0, UINT32_MAX});
  request.set_hits_addend(7);
  CHECK(costs() == std::vector<uint32_t>{7, 0, UINT32_MAX});
}

TEST_CASE("a status tells the limit, what is left and when it is all back, in Envoy's units") {
  Asker asker;
  const Response response = response_to(asker, request_of({kAddress, kFeed}), rules_of(kRules), at(secs(0)));
  CHECK(response.overall_code() == Response::OK);
  const auto& address = response.statuses(0);
  CHECK(address.code() == Response::OK);
  CHECK(address.current_limit().name() == "per-address");
  CHECK(address.current_limit().requests_per_unit() == 10);
  CHECK(address.current_limit().unit() == Response::RateLimit::MINUTE);
  CHECK(address.limit_remaining() == 9);
  CHECK(address.duration_until_reset().seconds() == 60);
  const auto& feed = response.statuses(1);
  CHECK(feed.current_limit().requests_per_unit() == 20);
  CHECK(feed.current_limit().unit() == Response::RateLimit::UNKNOWN);  // 2 s
  CHECK(feed.duration_until_reset().seconds() == 0);
  CHECK(feed.duration_until_reset().nanos() == 100'000'000);
  CHECK(header(response, "RateLimit-Policy") == "\"per-address\";q=10;w=60");  // of the one with less left
  CHECK(header(response, "RateLimit") == "\"per-address\";r=9;t=60");
  CHECK(header(response, "Retry-After") == "(none)");
}

TEST_CASE(
    "of several rules that one descriptor matches all are taken, and the status shows the most restrictive") {
  Asker asker;
  const auto rules = rules_of(kRules);
  for (int i = 0; i < 3; ++i) {
    const Response response = response_to(asker, request_of({kLogin}), rules);
    CHECK(response.overall_code() == Response::OK);
    CHECK(response.statuses(0).current_limit().name() == "login");
    CHECK(response.statuses(0).limit_remaining() == 2 - static_cast<uint32_t>(i));
  }
  const Response refused = response_to(asker, request_of({kLogin}), rules);
  CHECK(refused.overall_code() == Response::OVER_LIMIT);
  CHECK(refused.statuses(0).current_limit().name() == "login");
  // The day's rule counted what was let through, and no more: two of its five are left when the minute is
  // over.
  const Now later = at(secs(60));
  CHECK(response_to(asker, request_of({kLogin}), rules, later).statuses(0).current_limit().name() ==
        "login-by-the-day");
  CHECK(response_to(asker, request_of({kLogin}), rules, later).overall_code() == Response::OK);
  CHECK(response_to(asker, request_of({kLogin}), rules, later).overall_code() == Response::OVER_LIMIT);
}

TEST_CASE("a refusal names its descriptor, charges no other, and says when to come again") {
  Asker asker;
  const auto rules = rules_of(kRules);
  for (int i = 0; i < 3; ++i) response_to(asker, request_of({kLogin}), rules);
  const Response refused = response_to(asker, request_of({kAddress, kLogin}), rules, at(secs(20)));
  CHECK(refused.overall_code() == Response::OVER_LIMIT);
  CHECK(refused.statuses(0).code() == Response::OK);
  CHECK(refused.statuses(1).code() == Response::OVER_LIMIT);
  CHECK(header(refused, "RateLimit-Policy") == "\"login\";q=3;w=60");
  CHECK(header(refused, "Retry-After") == "40");
  CHECK(response_to(asker, request_of({kAddress}), rules, at(secs(20))).statuses(0).limit_remaining() == 9);
}

TEST_CASE("a peek takes nothing, and refuses where one more would be refused") {
  Asker asker;
  const auto rules = rules_of(kRules);
  auto peek = request_of({kLogin, kAddress});
  peek.mutable_descriptors(0)->mutable_hits_addend()->set_value(0);
  for (int i = 0; i < 3; ++i) CHECK(response_to(asker, peek, rules).statuses(0).limit_remaining() == 3);
  for (int i = 0; i < 3; ++i) response_to(asker, request_of({kLogin}), rules);
  const Response refused = response_to(asker, peek, rules);
  CHECK(refused.overall_code() == Response::OVER_LIMIT);
  CHECK(refused.statuses(0).code() == Response::OVER_LIMIT);
  CHECK(refused.statuses(1).limit_remaining() == 7);  // the three before, and nothing for this one
}

TEST_CASE("a rule in shadow lets through whatever it counts") {
  Asker asker;
  const auto rules = rules_of(kRules);
  for (int i = 0; i < 3; ++i) {
    const Response response = response_to(asker, request_of({{{"watched", "x"}}}), rules);
    CHECK(response.overall_code() == Response::OK);
    CHECK(response.statuses(0).limit_remaining() == 0);
    CHECK(header(response, "Retry-After") == "(none)");
  }
}

TEST_CASE("a limit that cannot refuse is not the one that is told, where there is another") {
  Asker asker;
  const auto rules = rules_of(kRules);
  CHECK(header(response_to(asker, request_of({{{"watched", "x"}}, kAddress}), rules), "RateLimit-Policy") ==
        "\"per-address\";q=10;w=60");
  CHECK(header(response_to(asker, request_of({{{"watched", "x"}}}), rules), "RateLimit-Policy") ==
        "\"watched\";q=1;w=3600");
}

TEST_CASE(
    "rules that go along with one that matches are taken too, and what a rule has for a key holds here as "
    "well") {
  const auto rules = rules_of(R"(
    { "name": "a", "algorithm": "fixed_window", "limit": 10, "window": "1m", "also": ["day"],
      "overrides": { "vip": 500, "friend": "exempt", "enemy": "blocked" },
      "match": { "domain": "edge", "descriptors": [{ "key": "user" }] } },
    { "name": "day", "algorithm": "fixed_window", "limit": 100, "window": "1d" })");
  const auto parts_of = [&](const char* user, std::optional<uint32_t> own = std::nullopt) {
    auto request = request_of({{{"user", user}}});
    if (own) set_limit(*request.mutable_descriptors(0), *own, 2);
    return std::move(translated(request, rules).question->parts);
  };
  const auto plain = parts_of("bob");
  REQUIRE(plain.size() == 2);
  CHECK(plain[0].rule->name == "a");
  CHECK(plain[0].limit.limit == 10);
  CHECK(plain[1].rule->name == "day");
  CHECK(plain[1].key == plain[0].key);
  CHECK(parts_of("vip")[0].limit.limit == 500);
  CHECK(parts_of("friend")[0].treatment == Treatment::exempt);
  CHECK(parts_of("enemy")[0].treatment == Treatment::blocked);
  CHECK(parts_of("vip", 7)[0].limit.limit == 7);
  CHECK(parts_of("enemy", 7)[0].treatment == Treatment::blocked);  // the operator's word stands
  CHECK(parts_of("bob", 7).size() == 2);
}

TEST_CASE("whatever the reason of a refusal is, it is OVER_LIMIT") {
  const auto rules = rules_of(kRules);
  using resp::Reason;
  for (const auto& [reason, over] : {std::pair{Reason::admitted, false},
                                     {Reason::over_limit, true},
                                     {Reason::no_grant, true},
                                     {Reason::isolated, true},
                                     {Reason::shadow, false},
                                     {Reason::blocked, true},
                                     {Reason::exempt, false}}) {
    const auto asked = translated(request_of({kAddress}), rules);
    asked.question->parts[0].reason = reason;
    Response response;
    rls::fill_response(*asked.question, asked.descriptors, response);
    CHECK((response.overall_code() == Response::OVER_LIMIT) == over);
    CHECK((response.statuses(0).code() == Response::OVER_LIMIT) == over);
  }
}

TEST_CASE("a limit in the request takes the place of the number of a rule with that window") {
  auto request = request_of({kAddress});
  set_limit(*request.mutable_descriptors(0), 400, 2);
  const auto rules = rules_of(kRules);
  const auto asked = translated(request, rules);
  REQUIRE(asked.question->parts.size() == 1);
  CHECK(asked.question->parts[0].rule == rules->find("per-address"));
  CHECK(asked.question->parts[0].limit.limit == 400);
  CHECK(asked.question->parts[0].limit.window == secs(60));
}

TEST_CASE(
    "in a fleet it does so where keys may differ in their numbers, with its floors; otherwise it is a "
    "bucket") {
  const Entries user{{"user", "alice"}};
  const auto rules = rules_of(std::string(kRules) + R"(,
    { "name": "per-user", "algorithm": "fixed_window", "limit": 10, "window": "1m", "overrides": { "vip": 500 },
      "match": { "domain": "edge", "descriptors": [{ "key": "user" }] } })",
                              {0, 10});
  auto request = request_of({user, kAddress});
  set_limit(*request.mutable_descriptors(0), 400, 2);
  set_limit(*request.mutable_descriptors(1), 400, 2);
  const auto asked = translated(request, rules);
  REQUIRE(asked.question->parts.size() == 2);
  const auto& own = asked.question->parts[0];
  CHECK(own.rule == rules->find("per-user"));
  CHECK(own.limit.limit == 400);
  CHECK(own.limit.floor == floor_of(400, own.rule->max_overcount, {0, 10}));
  CHECK(asked.question->parts[1].rule == &rules->inline_rule());
  CHECK(asked.question->parts[1].limit.limit == 400);
}

TEST_CASE("of several rules only those of the unit are taken by the request's limit") {
  auto request = request_of({kLogin});
  set_limit(*request.mutable_descriptors(0), 50, 4);
  const auto asked = translated(request, rules_of(kRules));
  REQUIRE(asked.question->parts.size() == 1);
  CHECK(asked.question->parts[0].rule->name == "login-by-the-day");
  CHECK(asked.question->parts[0].limit.limit == 50);
}

TEST_CASE(
    "where no rule has the unit's window, the request's limit is a bucket under the inline rule, by domain "
    "and entries") {
  const auto rules = rules_of(kRules);
  for (const Entries& entries : {kAddress, kUnknown, kFeed}) {
    auto request = request_of({entries});
    set_limit(*request.mutable_descriptors(0), 100, 1);
    const auto asked = translated(request, rules);
    REQUIRE(asked.question->parts.size() == 1);
    const auto& part = asked.question->parts[0];
    CHECK(part.rule == &rules->inline_rule());
    CHECK(part.limit == inline_limit(rules->inline_rule(), {}, 100, 100, secs(1)));
    CHECK(part.key == "edge|" + entries[0].first + "=" + entries[0].second + "|100/second");
    Asker asker;
    const Response response = response_to(asker, request, rules);
    CHECK(response.statuses(0).current_limit().requests_per_unit() == 100);
    CHECK(response.statuses(0).current_limit().unit() == Response::RateLimit::SECOND);
    CHECK(response.statuses(0).limit_remaining() == 99);
  }
}

TEST_CASE("limits of other numbers or units on the same entries are counted apart") {
  Asker asker;
  const auto rules = rules_of(kRules);
  const auto left = [&](uint32_t number, int unit) {
    auto request = request_of({kUnknown});
    set_limit(*request.mutable_descriptors(0), number, unit);
    return response_to(asker, request, rules).statuses(0).limit_remaining();
  };
  CHECK(left(10, 2) == 9);
  CHECK(left(1000, 3) == 999);
  CHECK(left(10, 3) == 9);
  CHECK(left(10, 2) == 8);
  CHECK(left(1000, 3) == 998);
}

TEST_CASE(
    "rules that a limit in the request passes over are asked whether they block the key or exempt it, those "
    "in shadow are not") {
  const auto rules = rules_of(std::string(kRules) + R"(,
    { "name": "by-user", "algorithm": "fixed_window", "limit": 10, "window": "1d", "also": ["all"],
      "match": { "domain": "edge", "descriptors": [{ "key": "user" }] } },
    { "name": "all", "algorithm": "fixed_window", "limit": 10, "window": "1d" })");
  const auto gates_of = [&](const Entries& entries, int unit) {
    auto request = request_of({kAddress, entries});
    set_limit(*request.mutable_descriptors(1), 100, unit);
    std::vector<std::string> names;
    const auto asked = translated(request, rules);
    for (const Question::Gate& gate : asked.question->gates) {
      CHECK(gate.part == asked.descriptors[1].begin);
      names.push_back(gate.rule->name + " " + gate.key);
    }
    return names;
  };
  using Names = std::vector<std::string>;
  CHECK(gates_of({{"user", "bob"}}, 1) == Names{"by-user bob", "all bob"});
  CHECK(gates_of({{"user", "bob"}}, 4) == Names{});  // it is taken
  CHECK(gates_of(kLogin, 4) == Names{"login *"});
  CHECK(gates_of({{"watched", "x"}}, 1) == Names{});
}

TEST_CASE("a limit of 0 in the request refuses all but exempt keys") {
  Asker asker;
  const auto rules = rules_of(R"({ "name": "a", "algorithm": "fixed_window", "limit": 10, "window": "1m",
      "overrides": { "friend": "exempt" }, "match": { "domain": "edge", "descriptors": [{ "key": "user" }] } })");
  for (const auto& [user, code] :
       {std::pair{"friend", Response::OK}, std::pair{"bob", Response::OVER_LIMIT}}) {
    auto request = request_of({{{"user", user}}});
    set_limit(*request.mutable_descriptors(0), 0, 2);
    CHECK(response_to(asker, request, rules).overall_code() == code);
  }
}

TEST_CASE("names that have the marks of the inline key in them stay apart") {
  const auto key_of = [&](const char* domain, const Entries& entries) {
    auto request = request_of({entries}, domain);
    set_limit(*request.mutable_descriptors(0), 1, 1);
    return translated(request, rules_of(kRules)).question->parts[0].key;
  };
  CHECK(key_of("d", {{"a", "b|c=d"}}) == R"(d|a=b\|c\=d|1/second)");
  CHECK(key_of("d", {{"a", "b"}, {"c", "d"}}) == "d|a=b|c=d|1/second");
  CHECK(key_of("d|a=b", {{"c", "d\\"}}) == R"(d\|a\=b|c=d\\|1/second)");
}

TEST_CASE("months and years are buckets of 30 and 365 days, and the largest number is the largest limit") {
  const auto part_of = [&](uint32_t number, int unit) {
    auto request = request_of({kUnknown});
    set_limit(*request.mutable_descriptors(0), number, unit);
    return translated(request, rules_of(kRules)).question->parts[0];
  };
  CHECK(part_of(30, 5).limit.emission == std::chrono::hours(24));
  CHECK(part_of(365, 6).limit.emission == std::chrono::hours(24));
  CHECK(part_of(1, 6).limit.burst_span() <= kBurstSpanMax);
  CHECK(part_of(UINT32_MAX, 1).limit.limit == kLimitMax);
}

TEST_CASE("a limit of 0 in the request refuses it, and takes nothing from anybody") {
  Asker asker;
  const auto rules = rules_of(kRules);
  auto request = request_of({kFeed, kAddress});
  set_limit(*request.mutable_descriptors(1), 0, 2);
  const Response refused = response_to(asker, request, rules);
  CHECK(refused.overall_code() == Response::OVER_LIMIT);
  CHECK(refused.statuses(0).code() == Response::OK);
  CHECK(refused.statuses(1).code() == Response::OVER_LIMIT);
  CHECK(refused.statuses(1).current_limit().requests_per_unit() == 0);
  CHECK(header(refused, "Retry-After") == "(none)");  // it never passes
  const Response after = response_to(asker, request_of({kFeed, kAddress}), rules);
  CHECK(after.statuses(0).limit_remaining() == 19);
  CHECK(after.statuses(1).limit_remaining() == 9);
  auto watched = request_of({{{"watched", "x"}}});
  set_limit(*watched.mutable_descriptors(0), 0, 3);
  CHECK(response_to(asker, watched, rules).overall_code() == Response::OK);
}

TEST_CASE("what cannot be a request says which field is wrong, and what would be right") {
  CHECK(error_of(request_of({kAddress})) == "");
  CHECK(error_of(request_of({kAddress}, "")) == "domain: must not be empty");
  CHECK(error_of(request_of({})) == "descriptors: must have 1 to 100, got 0");
  auto many = request_of({});
  for (int i = 0; i < 100; ++i) add(many, kAddress);
  CHECK(error_of(many) == "");
  add(many, kAddress);
  CHECK(error_of(many) == "descriptors: must have 1 to 100, got 101");
  CHECK(error_of(request_of({kAddress, {}})) == "descriptors[1].entries: must have 1 to 32, got 0");
  CHECK(error_of(request_of({Entries(33, {"a", "b"})})) ==
        "descriptors[0].entries: must have 1 to 32, got 33");
  CHECK(error_of(request_of({{{"a", "b"}, {"", "b"}}})) ==
        "descriptors[0].entries[1].key: must not be empty");
  auto unit = request_of({kAddress});
  set_limit(*unit.mutable_descriptors(0), 1, 0);
  CHECK(error_of(unit) == "descriptors[0].limit.unit: must be 1 (SECOND) to 6 (YEAR), got 0");
  set_limit(*unit.mutable_descriptors(0), 1, 99);
  CHECK(error_of(unit) == "descriptors[0].limit.unit: must be 1 (SECOND) to 6 (YEAR), got 99");
}

TEST_CASE("what a client sent in a header is no reason to fail: empty, long, or not UTF-8") {
  const auto key_of = [&](const std::string& value) {
    std::string bytes = request_of({{{"remote_address", value}}}).SerializeAsString();
    rls::Request read;
    REQUIRE(read.ParseFromString(bytes));
    const auto asked = translated(read, rules_of(kRules));
    REQUIRE(asked.question->parts.size() == 1);
    return asked.question->parts[0].key;
  };
  CHECK(key_of("\xff\xfe") != key_of("\xff\xfd"));
  CHECK(key_of(std::string(100'000, 'x')) != key_of(std::string(100'001, 'x')));
  CHECK(key_of("") != key_of("x"));
}

TEST_CASE("months and years of the calendar are Envoy's, too") {
  const auto rules =
      rules_of(R"({ "name": "monthly", "algorithm": "fixed_window", "limit": 1000, "window": "month",
    "match": { "domain": "edge", "descriptors": [{ "key": "user" }] } })");
  auto request = request_of({{{"user", "bob"}}});
  Asker asker;
  CHECK(response_to(asker, request, rules).statuses(0).current_limit().unit() == Response::RateLimit::MONTH);
  set_limit(*request.mutable_descriptors(0), 20, 5);
  const auto asked = translated(request, rules);
  CHECK(asked.question->parts[0].rule->name == "monthly");
  CHECK(asked.question->parts[0].limit.limit == 20);
  CHECK(asked.question->parts[0].limit.window == kMonth);
}

TEST_CASE("units and windows are each other's") {
  for (const rls::Unit& unit : rls::kUnits) {
    CHECK(rls::unit_of_number(unit.number) == &unit);
    CHECK(rls::number_of_window(unit.length) == unit.number);
  }
  CHECK(rls::unit_of_number(0) == nullptr);
  CHECK(rls::unit_of_number(7) == nullptr);
  CHECK(rls::number_of_window(secs(2)) == 0);
  CHECK(rls::number_of_window(Duration(0)) == 0);
  CHECK(rls::number_of_window(kYear) == static_cast<int>(envoy::type::v3::YEAR));
  CHECK(rls::number_of_window(kWeek) == 0);
  CHECK(rls::kUnits[4].number == Response::RateLimit::MONTH);
  CHECK(rls::kUnits[5].number == static_cast<int>(envoy::type::v3::YEAR));
}
