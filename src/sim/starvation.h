// In a fleet that is well, who waits is served: quota that lies about where nobody wants it, or an owner that says less than it has,
// is no breach of a bound, and would be seen by nobody.
//
// Thread rule: the fleet's owner's.
#pragma once

#include "sim/cluster_plan.h"

namespace tally::sim {

// Requires a fleet without faults that serves (sim/liveness.h), whose clocks agree. Asks for each key whose rule waits and is the
// same at all hosts, within one window, one request after the other, each at another host, for half of the limit in all, 40 requests
// at most; for a bucket at half of its rate, when it has rested. Each is made once. More than one of ten denied is a violation of the
// fleet's checkers.
void check_starvation(Fleet& fleet, const ClusterPlan& plan);

}  // namespace tally::sim
