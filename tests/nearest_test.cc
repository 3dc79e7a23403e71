#include "base/nearest.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/random.h"
#include "seed.h"

using namespace tally;

namespace {

// The textbook's full table, without bands or early ends.
size_t plain_distance(const std::string& a, const std::string& b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i)
    for (size_t j = 1; j <= b.size(); ++j) {
      d[i][j] =
          std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  return d[a.size()][b.size()];
}

const std::vector<std::string> kFields = {"name",  "limit", "window", "rate",
                                          "burst", "wait",  "shadow", "comment"};

}  // namespace

TEST_CASE("edit_distance is the restricted Damerau-Levenshtein distance, or above its limit") {
  Random random(test_seed(20240611));
  for (int round = 0; round < 20'000; ++round) {
    std::string a, b;
    for (auto* word : {&a, &b})
      for (uint64_t n = random.below(9); n > 0; --n) *word += static_cast<char>('a' + random.below(3));
    const size_t limit = random.below(5);
    const size_t plain = plain_distance(a, b);
    const size_t got = edit_distance(a, b, limit);
    CAPTURE(a);
    CAPTURE(b);
    CAPTURE(limit);
    if (plain <= limit)
      CHECK(got == plain);
    else
      CHECK(got > limit);
  }
}

TEST_CASE("a swapped, missing, doubled or wrong letter finds the word that was meant") {
  CHECK(nearest_of("brust", kFields) == "burst");
  CHECK(nearest_of("limt", kFields) == "limit");
  CHECK(nearest_of("wwindow", kFields) == "window");
  CHECK(nearest_of("shodow", kFields) == "shadow");
  CHECK(nearest_of("LIMIT", kFields) == "limit");
  CHECK(nearest_of("rte", kFields) == "rate");
}

TEST_CASE("what is no typing error has no nearest word") {
  CHECK(nearest_of("tenant", kFields) == "");
  CHECK(nearest_of("", kFields) == "");
  CHECK(nearest_of("x", kFields) == "");
  CHECK(nearest_of("zz", std::vector<std::string>{"ab"}) == "");
  CHECK(nearest_of("limit", std::vector<std::string>{}) == "");
  CHECK(nearest_of(std::string(100'000, 'a'), kFields) == "");
  CHECK(nearest_of("limit", std::vector<std::string>{std::string(100'000, 'l')}) == "");
}

TEST_CASE("the nearest wins over a near one, and the first of equals") {
  CHECK(nearest_of("login", std::vector<std::string>{"logging", "logins", "logout"}) == "logins");
  CHECK(nearest_of("feedx", std::vector<std::string>{"feeda", "feedb"}) == "feeda");
  CHECK(nearest_of("feeda", std::vector<std::string>{"feedb", "feeda"}) == "feeda");
}

TEST_CASE("candidates beyond the maximum are not looked at") {
  Nearest nearest("login");
  for (size_t i = 0; i < kNearestCandidatesMax; ++i) nearest.offer("unlike");
  nearest.offer("login");
  CHECK(nearest.best() == "");
}
