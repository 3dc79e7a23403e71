// Clusters drawn from a seed: rules, sizes, links, clocks, traffic and faults, run under the checkers.
//
// Thread rule: pure; a seed and the options give one result.
//
// What is drawn stays within what the scheme promises to survive: clocks run equally fast within 1 %, a state
// file outlives the process or a peer that can be heard remembers its node, and where all memory of a key is
// lost the rule says `deny`.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "sim/cluster_plan.h"
#include "sim/fleet.h"

namespace tally::sim {

struct ClusterOptions {
  bool faults = true;         // crashes, pauses, partitions; without: the network alone
  bool sliding_late = false;  // see CheckedKey
  bool liveness = false;      // and that the fleet serves again after its faults: sim/liveness.h
  // Trace this key, where `trace` is set.
  std::string trace_rule, trace_key;
  std::function<void(const std::string&)> trace;
};

struct ClusterResult {
  uint64_t seed = 0;
  std::string about;  // what was drawn, in a line
  std::vector<Violation> violations;
  uint64_t log_hash = 0;
  uint64_t events = 0;
  uint64_t offered = 0, admitted = 0;
  uint64_t windows = 0,
           windows_full = 0;  // (key, window)s that admitted something, and those at the limit or above
  Fleet::Traffic traffic;
  uint64_t by_processes = 0;      // admitted of what they had taken before
  uint64_t marks_overflowed = 0;  // that found no room in a register, and were kept in its sketch
};

ClusterPlan random_cluster(uint64_t seed, const ClusterOptions& options = {});
// The same plan and options give the same run.
ClusterResult run_cluster(const ClusterPlan& plan, const ClusterOptions& options = {});
ClusterResult run_random_cluster(uint64_t seed, const ClusterOptions& options = {});

}  // namespace tally::sim
