// What books have from the level above (cluster/upstream.h) instead of a mark.
//
// Thread rule: the cluster thread's.
#pragma once

#include <cstdint>

#include "base/time.h"

namespace tally {

// Amounts in the books' units: costs, or nanoseconds of emission.
struct Above {
  uint64_t drawn = 0;
  uint64_t left = 0;   // to be had there, as far as is known
  uint64_t asked = 0;  // what it was told to be missing, until it forgets
  MonoTime asked_until{};
  bool over = false, isolated = false;
  Duration retry_after{0};  // where `over`
};

}  // namespace tally
