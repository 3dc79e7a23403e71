// Rules: floors, bounds, inline limits, names.
#include "core/rules.h"

#include <doctest/doctest.h>

#include "core_fixture.h"

namespace tally {
namespace {

using namespace test;

TEST_CASE("the floors of all nodes add up to exactly the overcount budget") {
  Random random(seed() + 20);
  for (int i = 0; i < 20'000; ++i) {
    const auto limit =
        static_cast<uint32_t>(random.chance(0.5) ? random.between(1, 300) : random.between(1, kLimitMax));
    const Overcount e{static_cast<uint32_t>(random.below(kPartsPerMillion + 1)), false};
    const auto size = static_cast<uint32_t>(random.between(2, 50));
    uint64_t sum = 0;
    uint32_t least = UINT32_MAX, most = 0;
    for (uint32_t rank = 0; rank < size; ++rank) {
      const uint32_t floor = floor_of(limit, e, {rank, size});
      sum += floor;
      least = std::min(least, floor);
      most = std::max(most, floor);
    }
    REQUIRE(sum == uint64_t{limit} * e.ppm / 1'000'000);
    REQUIRE(most - least <= 1);
  }
}

TEST_CASE("a node alone, or beyond the size, has no floor; unbounded has all of the limit") {
  CHECK(floor_of(1000, Overcount{50'000, false}, {0, 1}) == 0);
  CHECK(floor_of(1000, Overcount{50'000, false}, {5, 5}) == 0);
  CHECK(floor_of(1000, Overcount{0, false}, {0, 5}) == 0);
  CHECK(floor_of(1000, Overcount{0, true}, {4, 5}) == 1000);
}

TEST_CASE("the bound that is shown is the one that is promised") {
  Rule rule = window_rule(Algorithm::fixed_window, 1000, secs(60));
  rule.on_isolation = OnIsolation::closed;
  CHECK(bound_of(rule, 10) == 1050);
  CHECK(bound_isolated_of(rule, 10) == 1050);
  rule.on_isolation = OnIsolation::share;
  CHECK(bound_isolated_of(rule, 10) == 2050);
  rule.on_isolation = OnIsolation::open;
  CHECK(bound_isolated_of(rule, 10) == 11'050);
  CHECK(bound_of(rule, 1) == 1000);
  CHECK(bound_isolated_of(rule, 1) == 1000);
  rule.max_overcount = {0, false};
  CHECK(bound_of(rule, 10) == 1000);
  rule.max_overcount.unbounded = true;
  CHECK(bound_of(rule, 10) == 10'000);
  rule.limit.limit = kLimitMax;
  CHECK(bound_of(rule, UINT32_MAX) == uint64_t{UINT32_MAX} * kLimitMax);
  CHECK(bound_isolated_of(rule, UINT32_MAX) == uint64_t{1} << 63);
}

TEST_CASE("all floor buckets together hold and refill at most the overcount's part of the bucket") {
  Random random(seed() + 21);
  for (int i = 0; i < 20'000; ++i) {
    const auto burst =
        static_cast<uint32_t>(random.chance(0.5) ? random.between(1, 300) : random.between(1, kLimitMax));
    const Duration emission(random.between(1, nanos(kBurstSpanMax) / burst));
    Rule inline_rule;
    inline_rule.max_overcount = {static_cast<uint32_t>(random.below(kPartsPerMillion + 1)), false};
    const auto size = static_cast<uint32_t>(random.between(2, 1000));
    const Limit limit =
        inline_limit(inline_rule, {static_cast<uint32_t>(random.below(size)), size}, burst, 1, emission);
    REQUIRE(limit.limit == burst);
    REQUIRE(limit.emission == emission);
    if (limit.floor_emission == Duration(0)) {
      REQUIRE(limit.floor == 0);
      continue;
    }
    // size floor buckets at one token per floor_emission are at most e of the rate, each of whole tokens at
    // most its part.
    using Wide = __int128;
    REQUIRE(Wide{nanos(limit.floor_emission)} * inline_rule.max_overcount.ppm >=
            Wide{nanos(emission)} * size * 1'000'000);
    REQUIRE(limit.floor >= 1);
    REQUIRE(Wide{limit.floor} * nanos(limit.floor_emission) <= nanos(limit.burst_span()));
  }
}

TEST_CASE("an inline limit rounds a token's time up, so that never more than count come in a period") {
  const Limit limit = inline_limit(Rule{}, {}, 5, 3, secs(1));
  CHECK(nanos(limit.emission) == 333'333'334);
  CHECK(limit.burst_span() == limit.emission * 5);
}

TEST_CASE("a window rule with another number has the floors of that number, and is the same otherwise") {
  const Rule rule = window_rule(Algorithm::sliding_window, 1000, secs(60), Overcount{50'000, false});
  const Share share{0, 10};
  const Limit limit = with_number(rule, share, 400);
  CHECK(limit.limit == 400);
  CHECK(limit.floor == floor_of(400, rule.max_overcount, share));
  CHECK(limit.window == rule.limit.window);
  CHECK(limit.algorithm == rule.limit.algorithm);
  CHECK(with_number(rule, {}, kLimitMax).floor == 0);
}

TEST_CASE("rules are found by name and number, the inline rule is the last") {
  Rule a = window_rule(Algorithm::fixed_window, 5, secs(1)), b = bucket_rule(5, ms(10));
  a.name = "login";
  b.name = "api";
  const RuleSet rules({a, b}, Rule{}, {0, 2}, kPublicIdKey);
  REQUIRE(rules.all().size() == 3);
  CHECK(rules.find("login")->id == 0);
  CHECK(rules.by_id(1).name == "api");
  CHECK(rules.find(kInlineRule) == &rules.inline_rule());
  CHECK(rules.inline_rule().id == 2);
  CHECK(rules.find("lgoin") == nullptr);
  CHECK(rules.nearest("lgoin") == "login");
  CHECK(rules.nearest("feed").empty());
  CHECK(rules.find("login")->seed == rule_seed_of("login"));
  CHECK(rules.find("login")->id_key == rule_id_key("login", kPublicIdKey));
}

TEST_CASE("a rule keeps its id in the sets that follow, also when it was away, and what is gone is found by its id alone") {
  const auto named = [](const char* name, uint32_t limit) {
    Rule rule = window_rule(Algorithm::fixed_window, limit, secs(1));
    rule.name = name;
    return rule;
  };
  const RuleSet first({named("login", 5), named("api", 6)}, Rule{}, {0, 2}, kPublicIdKey);
  CHECK(RuleSet::ids_with({named("feed", 1), named("api", 6)}, &first) == 4);
  const RuleSet second({named("feed", 7), named("api", 8)}, Rule{}, {0, 2}, kPublicIdKey, &first);
  CHECK(second.ids() == 4);
  CHECK(second.all().size() == 3);
  CHECK(second.find("api")->id == 1);
  CHECK(second.by_id(1).limit.limit == 8);
  CHECK(second.inline_rule().id == 2);
  CHECK(&second.inline_rule() == &second.by_id(2));
  CHECK(second.find("feed")->id == 3);
  CHECK(second.find("login") == nullptr);
  CHECK(second.by_seed(static_cast<uint32_t>(rule_seed_of("login"))) == nullptr);
  CHECK(second.by_id(0).name == "login");
  CHECK(second.is_retired(0));
  CHECK_FALSE(second.is_retired(1));
  const RuleSet third({named("login", 9)}, Rule{}, {0, 2}, kPublicIdKey, &second);
  CHECK(third.ids() == 4);
  CHECK(third.find("login")->id == 0);
  CHECK(third.by_id(0).limit.limit == 9);
  CHECK(third.by_id(3).limit.limit == 7);
  CHECK_FALSE(third.is_retired(2));
}

TEST_CASE("a rule knows those that it takes along, in its own set; what is gone takes none along") {
  const auto named = [](const char* name, std::vector<std::string> also) {
    Rule rule = window_rule(Algorithm::fixed_window, 5, secs(1));
    rule.name = name;
    rule.also_names = std::move(also);
    return rule;
  };
  const RuleSet first({named("a", {"b", "c"}), named("b", {"a"}), named("c", {})}, Rule{}, {0, 2}, kPublicIdKey);
  CHECK(first.find("a")->also == std::vector<const Rule*>{first.find("b"), first.find("c")});
  CHECK(first.find("b")->also == std::vector<const Rule*>{first.find("a")});
  CHECK(first.find("c")->also.empty());
  const RuleSet second({named("b", {}), named("c", {"b"})}, Rule{}, {0, 2}, kPublicIdKey, &first);
  CHECK(second.find("b")->also.empty());
  CHECK(second.find("c")->also == std::vector<const Rule*>{second.find("b")});
  CHECK(second.by_id(0).name == "a");
  CHECK(second.by_id(0).also.empty());
}

}  // namespace
}  // namespace tally
