// Answers -> the headers that tell them.
#include "doors/rate_headers.h"

#include <doctest/doctest.h>

#include "core/calendar.h"
#include "core_fixture.h"

using namespace tally;
using namespace tally::test;

namespace {

Answer answer_with(Verdict verdict, uint32_t limit, uint32_t remaining, Duration retry_after, Duration reset_after) {
  Answer answer;
  answer.verdict = verdict;
  answer.limit = limit;
  answer.remaining = remaining;
  answer.retry_after = retry_after;
  answer.reset_after = reset_after;
  return answer;
}

std::string value_of(const std::vector<Header>& headers, std::string_view name) {
  for (const Header& header : headers)
    if (header.name == name) return header.value;
  return "(none)";
}

}  // namespace

TEST_CASE("what was admitted tells the policy, what is left and when all is back") {
  const Limit limit = window_rule(Algorithm::sliding_window, 100, secs(60)).limit;
  const auto headers = rate_headers("api", limit, answer_with(Verdict::admitted, 100, 57, Duration(-1), secs(12)),
                                    resp::Reason::admitted);
  CHECK(headers == std::vector<Header>{{"RateLimit-Policy", "\"api\";q=100;w=60"},
                                       {"RateLimit", "\"api\";r=57;t=12"},
                                       {"X-RateLimit-Limit", "100"},
                                       {"X-RateLimit-Remaining", "57"},
                                       {"X-RateLimit-Reset", "12"}});
}

TEST_CASE("a refusal says when to come again, in true ceilings of seconds and never now") {
  const Limit limit = window_rule(Algorithm::fixed_window, 5, secs(60)).limit;
  const auto after = [&](Duration retry, resp::Reason reason) {
    return value_of(rate_headers("api", limit, answer_with(Verdict::over_limit, 5, 0, retry, secs(1)), reason),
                    "Retry-After");
  };
  CHECK(after(secs(3), resp::Reason::over_limit) == "3");
  CHECK(after(secs(3) + Duration(1), resp::Reason::over_limit) == "4");
  CHECK(after(Duration(1), resp::Reason::no_grant) == "1");
  CHECK(after(Duration(0), resp::Reason::isolated) == "1");
  CHECK(after(Duration(-1), resp::Reason::over_limit) == "(none)");  // it never passes
  CHECK(after(secs(3), resp::Reason::shadow) == "(none)");           // it was let through
}

TEST_CASE("the window of a bucket is the time in which it fills; times under a second are one") {
  const auto policy = [](const Limit& limit) {
    return value_of(rate_headers("r", limit, answer_with(Verdict::admitted, limit.limit, 0, Duration(-1), Duration(0)), resp::Reason::admitted), "RateLimit-Policy");
  };
  CHECK(policy(bucket_rule(100, ms(20)).limit) == "\"r\";q=100;w=2");
  CHECK(policy(bucket_rule(100, ms(20) + Duration(1)).limit) == "\"r\";q=100;w=3");
  CHECK(policy(window_rule(Algorithm::fixed_window, 7, ms(10)).limit) == "\"r\";q=7;w=1");
  CHECK(policy(window_rule(Algorithm::fixed_window, 7, kMonth).limit) == "\"r\";q=7;w=2678400");
  CHECK(policy(window_rule(Algorithm::fixed_window, kLimitMax, kWindowMax).limit) ==
        "\"r\";q=2147483648;w=31622400");
}

TEST_CASE("a name with quotes and backslashes stays one string") {
  const Limit limit = window_rule(Algorithm::fixed_window, 5, secs(1)).limit;
  const auto headers = rate_headers(
      "a\"b\\c", limit, answer_with(Verdict::admitted, 5, 5, Duration(-1), Duration(0)), resp::Reason::admitted);
  CHECK(value_of(headers, "RateLimit") == R"("a\"b\\c";r=5;t=0)");
}
