// Rows of the accuracy as Markdown.
//
// Thread rule: pure; the same rows give the same text.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "sim/accuracy_plan.h"

namespace tally::sim {

std::string table_of(std::span<const Row> rows);
std::string table_of(std::span<const std::pair<Goal, GoalResult>> goals);
// Of random settings: what came of all of them, and the `worst` that admitted least and those that passed L
// by most.
std::string summary_of(std::span<const Row> rows, size_t worst);
// Each broken bound in a line; nothing where there is none.
std::string violations_of(std::span<const Row> rows);

}  // namespace tally::sim
