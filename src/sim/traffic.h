// Traffic as data: who asks for what, and when. Shapes make it, trace files hold it, fleets and models consume it.
//
// Thread rule: plain data.
#pragma once

#include <cstdint>

#include "base/time.h"

namespace tally::sim {

struct Arrival {
  Duration at{0};      // since the run began; arrivals are kept in this order
  uint16_t node = 0;   // where it arrives
  uint32_t key = 0;    // number of its key
  uint32_t cost = 1;
};

}  // namespace tally::sim
