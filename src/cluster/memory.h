// What a node remembers of what it voted for, as its next life is given it: all of its registers, and what their absence is worth.
//
// Thread rule: a value.
//
// A member that restarts and has this needs nobody else for its votes. Without it, it reads its registers anew from all others of
// each group (recovery.h), which it cannot where one of them is dead: it may be the only one that knows what both had accepted. Then
// a fleet that is restarted host by host while one is dead would have no majority left in windows that run.
#pragma once

#include <cstdint>
#include <vector>

#include "cluster/wire.h"

namespace tally {

struct Memory {
  uint64_t incarnation = 0;  // of the life that it is of: the next one's, and no later one's
  std::vector<Registered> registers;
  RegistersEnd worth;
};

}  // namespace tally
