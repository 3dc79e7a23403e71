// The runs of a plan as people and programs read them: a table, CSV, JSON, a plot, a sentence of advice.
//
// Thread rule: pure.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/time.h"
#include "core/rules.h"
#include "sim/plan.h"

namespace tally::sim {

using Cells = std::vector<std::vector<std::string>>;  // rows; the first is the head

std::string short_duration(Duration d);          // three figures: "100ms", "1.52ms", "0s"
std::string percent_of(double part);             // 0.992: "99.2%"; what is not nothing is never shown as 0
std::string bytes_rate(double bytes_per_s);      // "3.1 kB/s"
std::string describe_rule(const Rule& rule);     // "1000 per 1m, sliding_window, overcount 5%"
std::string describe_setting(const PlanSetting& s);  // "100ms sync, 500us round trip, 0% loss"

Cells plan_table(const Rule& rule, std::span<const PlanResult> results);
std::string plan_csv(std::span<const PlanResult> results);
std::string plan_json(std::span<const PlanResult> results);  // an array of objects, the fields as in the CSV

// Which sync interval to take: the cheapest in bytes of those whose undercount and worst overcount together
// are next to the least. One sentence for each round trip and loss.
std::vector<std::string> plan_advice(const Rule& rule, std::span<const PlanResult> results);
// What an operator should know beside the figures: a sentence for each setting under which there are floors
// only.
std::vector<std::string> plan_notes(const Rule& rule, std::span<const PlanResult> results);

// Overcount, undercount and bytes a second against the sync interval, a line for each round trip and loss.
// `about`: the traffic, in a few words.
std::string plan_svg(const Rule& rule, std::span<const PlanResult> results, const std::string& about);

}  // namespace tally::sim
