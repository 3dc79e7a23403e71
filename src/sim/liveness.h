// After the last fault the fleet serves again: a bound that is kept by serving nobody is worth nothing.
//
// Thread rule: the fleet's owner's.
//
// What is promised: once all faults have ended (links are clean and whole, every host runs and is not
// stopped, the clocks agree, nobody attacks), then after recovery_time() every node is ready, and each of its
// requests that is under the limit is admitted within answer_time() of being made for the first time, where
// it is made again as long as it is denied (a rule that never waits denies while a grant is on its way).
#pragma once

#include "sim/cluster_plan.h"

namespace tally::sim {

// The longest that a fleet may take after the last fault. A host that starts then votes in no window that
// begins before its horizon (a horizon step and a look-ahead from its last clock) and a look-ahead more,
// unless it can read its registers anew; so the window after that is the first that is whole, and one more
// lets nothing of before count in a sliding one. For buckets it votes after as long as a register is kept,
// and one that is idle may have to be forgotten first. Two seconds for claims and isolation to be over.
Duration recovery_time(const FleetConfig& config);
// Two windows and a second; a bucket: a second and as long as a member keeps its marks, for whoever takes it over then begins
// with all of a mark charged.
Duration answer_time(const Limit& limit, Duration lease);

// What all hosts have under that rule's name at least; 0: they share no limit, or have none that can be leased.
uint32_t shared_limit(const ClusterPlan& plan, const Rule& rule);

// Asks hosts now, at half of each key's limit in all. Who is not served is a violation of the fleet's
// checkers.
void check_service(Fleet& fleet, const ClusterPlan& plan);
// Ends all faults, waits for recovery_time() and asks: check_service, and where all are served, check_starvation (starvation.h).
void check_liveness(Fleet& fleet, const ClusterPlan& plan);

}  // namespace tally::sim
