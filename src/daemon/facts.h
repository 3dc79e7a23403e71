// What the daemon says about itself, as named values: TALLY.EXPLAIN, TALLY.PEERS and TALLY.STATS.
//
// Thread rule: pure, but for the counters that `stats_fields` reads.
#pragma once

#include <string_view>
#include <vector>

#include "base/time.h"
#include "cluster/node.h"
#include "core/limiter.h"
#include "core/rules.h"
#include "daemon/overview.h"
#include "doors/commands.h"

namespace tally {

// `answer`: what a take of 1 would be told now; nullptr where the rule has no limit of its own (the inline
// rule). `ordered`: what an operator has ordered of the key; "": nothing.
std::vector<resp::Field> explain_fields(const Explanation& e, const Rule& rule, std::string_view key, uint32_t size,
                                        const Answer* answer, const std::string& ordered);
// Of TALLY.BLOCKS: a map for each.
std::vector<std::vector<resp::Field>> order_maps(const std::vector<KeyOrder>& orders, WallTime now);
// A node alone: all there is to know lies in the answer to a peek (nullptr as above).
Explanation explain_alone(const std::string& node, const Answer* answer);
// Of a central rule. `answer`: what Redis said, or, where it did not, what the node says by itself; nullptr: nobody was asked.
Explanation explain_central(const Limit& limit, const Answer* answer);
std::vector<resp::Row> peer_rows(const std::vector<PeerStatus>& peers);
// `node`: nullptr alone.
std::vector<resp::Field> stats_fields(const Overview& overview, const NodeStats* node, MonoTime now);

}  // namespace tally
