// How often a node speaks and how long it waits for others: one of the few things that may differ from node to node, and change
// while a node runs. The bound depends on none of it (but see Standing::remembered: a node that lost its state file reckons how far
// ahead its last life may have voted by the interval that it has now).
#pragma once

#include "base/time.h"

namespace tally {

struct Pace {
  Duration sync_interval = std::chrono::milliseconds(100);
  Duration isolation_after = std::chrono::seconds(2);  // without an answer of a key's owner for so long: it is isolated
};

}  // namespace tally
