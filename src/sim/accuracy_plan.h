// What is measured of the accuracy: a base, around it one thing at a time, settings at random, and the goals.
//
// Thread rule: pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sim/accuracy.h"

namespace tally::sim {

struct Section {
  std::string title;
  std::string about;  // a sentence or two below the title; may be empty
  std::vector<AccuracySetting> settings;
};
std::vector<Section> accuracy_sections();

// Drawn from lists of usual values; names are numbers.
std::vector<AccuracySetting> random_settings(uint64_t seed, size_t n);
// All of a setting in a line, for one whose name does not say it.
std::string describe(const AccuracySetting& setting);

// A figure that has to be reached, in the worst of `repeats` runs.
struct Goal {
  enum class Figure : uint8_t {
    of_admissible,  // admitted, of what was admissible
    of_limit,       // admitted, of the limit: traffic of one window
  };
  std::string name;
  AccuracySetting setting;
  Figure figure = Figure::of_admissible;
  double least = 0, most = 0;  // parts; most 0: no upper end
  uint32_t repeats = 5;
  bool needs_failover = false;  // cannot be reached while nobody takes over from an owner that died
};
std::vector<Goal> accuracy_goals();

struct GoalResult {
  double least = 0, mean = 0, most = 0;  // over the repeats
  bool reached = false;
  std::vector<std::string> violations;
};
GoalResult pursue(const Goal& goal, uint64_t seed);

}  // namespace tally::sim
