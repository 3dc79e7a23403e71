// TALLY.TOP: the keys that are asked for most, of all workers of this node.
//
// Thread rule: any thread; costs up to a millisecond for a few workers, so not one that decides.
#pragma once

#include "base/time.h"
#include "daemon/overview.h"
#include "daemon/port.h"

namespace tally {

// How long ago the counting began that top_of() tells of: 10 to 20 s, or since the start.
Duration top_span(const Overview& overview, MonoTime now);
// Answers a call of kind top: at most `n` keys, of its rule alone where it has one. The busiest come first:
// by what was counted, then by rule and key.
void answer_top(Call& call, const Overview& overview, MonoTime now);

}  // namespace tally
