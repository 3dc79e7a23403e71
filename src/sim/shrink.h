// A random cluster that fails, with less in it: so little that a person can follow it.
//
// Thread rule: pure functions, but for what is handed in.
//
// What is left out changes what the fleet's dice decide afterwards (the links' and the applications'), and
// with that whether the rest still fails. So a few other dice are tried with each reduction: what counts is
// that something fails, not that it is the same run.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sim/cluster_plan.h"

namespace tally::sim {

// What is kept of a plan: with the seed, all that is needed to run it again.
struct Cut {
  std::vector<size_t> steps;  // their numbers, rising
  Duration until{0};          // the run ends, in whole milliseconds
  uint16_t nodes = 0;
  uint64_t dice = 0;  // 0: the plan's own
};
Cut whole(const ClusterPlan& plan);
// Steps that name a host that is not there any more must not be in `cut`.
ClusterPlan reduced(const ClusterPlan& plan, const Cut& cut);

// When the plan fails for the first time; nullopt: it does not.
using Fails = std::function<std::optional<Duration>(const ClusterPlan&)>;

// Leaves out steps by halves and one by one, nodes from the last rank on, and what comes after the failure,
// until nothing more can go or `runs_most` runs were made. nullopt where the plan does not fail.
std::optional<Cut> shrink(const ClusterPlan& plan, const Fails& fails, uint64_t runs_most);

// As options of tally-sim: "--steps 0,4-6 --until 3201 --nodes 3 --dice 2".
std::string options_of(const Cut& cut);
// "0,4-6"; nullopt where that is no list of steps.
std::optional<std::vector<size_t>> parse_steps(std::string_view text);

// What the plan holds, for people: hosts, clocks, rules of their own, and what happens in the order of time
// with the numbers of `cut`.
std::string schedule(const ClusterPlan& plan, const Cut& cut);

}  // namespace tally::sim
