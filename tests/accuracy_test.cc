// The table of the accuracy: decided by the seed, and its figures where they are known beforehand.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "sim/accuracy_table.h"

using namespace tally;
using namespace tally::sim;
using namespace std::chrono_literals;

namespace {

// A second of a small limit: quick, and enough to see that the parts fit together.
AccuracySetting small(double load) {
  AccuracySetting s;
  s.name = "small";
  s.nodes = 3;
  s.limit = 30;
  s.window = 1s;
  s.algorithm = Algorithm::fixed_window;
  s.load = load;
  return s;
}

}  // namespace

TEST_CASE("the table is decided by the seed") {
  const auto table = [](uint64_t seed) {
    std::vector<Row> rows;
    for (const AccuracySetting& s : random_settings(seed, 3)) {
      AccuracySetting shorter = s;
      shorter.limit = 10;
      shorter.window = 1s;
      shorter.windows = 2;
      rows.push_back(measure(shorter, seed));
    }
    return table_of(rows) + summary_of(rows, 2);
  };
  const std::string one = table(1);
  CHECK(one == table(1));
  CHECK(one != table(2));
}

TEST_CASE("each line of a table has as many columns as its head") {
  const Row row = measure(small(1), 1);
  const std::pair<Goal, GoalResult> goal{accuracy_goals().front(), {}};
  for (const std::string& table : {table_of({&row, 1}), table_of({&goal, 1})}) {
    std::vector<ptrdiff_t> columns;
    for (size_t from = 0, to; (to = table.find('\n', from)) != std::string::npos; from = to + 1)
      columns.push_back(std::count(table.begin() + static_cast<ptrdiff_t>(from),
                                   table.begin() + static_cast<ptrdiff_t>(to), '|'));
    CHECK(columns.size() == 3);
    CHECK(std::ranges::count(columns, columns.front()) == 3);
  }
}

TEST_CASE("above the limit: what is admissible is the limit of each window, and alone each node gives it") {
  const Row row = measure(small(9), 1);
  CHECK(row.violations.empty());
  CHECK(row.offered == 9 * 30 * 3);
  CHECK(row.admissible == 30 * 3);
  CHECK(row.others[0].total == 3 * 30 * 3);
  CHECK(row.others[0].worst == doctest::Approx(2));
  CHECK(row.others[1].total == 30 * 3);
  CHECK(row.others[1].worst == 0);
  CHECK(row.others[2].total == 30 * 3);
  CHECK(row.others[2].answered_after == row.setting.round_trip);
  CHECK(row.others[3].worst > 0);
  CHECK(row.fleet.worst <= 0.05);
  CHECK(row.entries > 0);
}

TEST_CASE("a day is measured around its midnight: half of the traffic before, half after") {
  AccuracySetting s = small(1);
  s.window = 24h;
  s.windows = 2;
  s.pace = 1s;
  s.across = true;
  const Row row = measure(s, 1);
  CHECK(row.offered == 60);
  CHECK(row.admissible >= 55);  // random times: one half may have a few more than the other
  CHECK(row.admissible <= 60);
}

TEST_CASE("a goal is judged by its worst run, at both ends") {
  Goal goal;
  goal.setting = small(0.5);
  goal.repeats = 2;
  goal.figure = Goal::Figure::of_limit;  // three windows at half: 1.5
  goal.least = 0.1;
  CHECK(pursue(goal, 1).reached);
  goal.most = 0.2;
  CHECK(!pursue(goal, 1).reached);
  goal.least = 1.6;
  goal.most = 0;
  CHECK(!pursue(goal, 1).reached);
}

TEST_CASE("names of settings and sections are told apart, so that each has its own randomness") {
  std::vector<std::string> names;
  for (const Section& section : accuracy_sections())
    for (const AccuracySetting& s : section.settings) {
      names.push_back(section.title + s.name + std::to_string(s.load));
      CHECK(!s.name.empty());
    }
  std::ranges::sort(names);
  CHECK(std::ranges::adjacent_find(names) == names.end());
}
