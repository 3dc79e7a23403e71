// The goals of accuracy_plan.h: L = 1,000, a sync interval of 100 ms, nobody waiting.
#include <algorithm>

#include "sim/accuracy_plan.h"

namespace tally::sim {
namespace {

using namespace std::chrono_literals;

AccuracySetting far(Duration round_trip, bool group_near, double loss = 0) {
  AccuracySetting s;
  s.round_trip = round_trip;
  s.group_near = group_near;
  s.loss = loss;
  return s;
}

}  // namespace

std::vector<Goal> accuracy_goals() {
  std::vector<Goal> out;
  AccuracySetting at_once;
  at_once.nodes = 20;
  at_once.pace = 1s;
  at_once.load = 20;
  at_once.windows = 1;
  out.push_back({"twenty nodes at once: 20,000 requests in a second; admitted of L", at_once,
                 Goal::Figure::of_limit, 1, 1.005, 20});
  out.push_back({"92 % of L over ten nodes, 0.5 ms", AccuracySetting{}, Goal::Figure::of_admissible, 0.99});
  out.push_back({"the same at 60 ms, group near", far(60ms, true), Goal::Figure::of_admissible, 0.96});
  out.push_back({"the same at 60 ms, group as far", far(60ms, false), Goal::Figure::of_admissible, 0.95});
  out.push_back({"the same at 100 ms and 5 % loss, group near", far(100ms, true, 0.05),
                 Goal::Figure::of_admissible, 0.95});
  out.push_back({"the same at 100 ms and 5 % loss, group as far", far(100ms, false, 0.05),
                 Goal::Figure::of_admissible, 0.935});
  AccuracySetting two;
  two.shape = Shape::two_of_ten;
  two.load = 1;
  out.push_back({"two of ten nodes have all of L", two, Goal::Figure::of_admissible, 0.99});
  AccuracySetting killed;
  killed.windows = 1;
  killed.load = 1;
  killed.kill_owner = true;
  out.push_back({"owner killed in mid-window, traffic of L; admitted of L", killed, Goal::Figure::of_limit,
                 0.9, 0, 20, true});
  for (Goal& goal : out) goal.setting.name = goal.name;
  return out;
}

GoalResult pursue(const Goal& goal, uint64_t seed) {
  GoalResult result;
  for (uint32_t i = 0; i < goal.repeats; ++i) {
    const Row row = measure(goal.setting, seed + i);
    const double figure = goal.figure == Goal::Figure::of_admissible
                              ? row.fleet.admitted
                              : static_cast<double>(row.fleet.total) / goal.setting.limit;
    result.least = i == 0 ? figure : std::min(result.least, figure);
    result.most = std::max(result.most, figure);
    result.mean += figure / goal.repeats;
    result.violations.insert(result.violations.end(), row.violations.begin(), row.violations.end());
  }
  result.reached = result.least >= goal.least && (goal.most == 0 || result.most <= goal.most);
  return result;
}

}  // namespace tally::sim
