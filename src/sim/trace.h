// A message as a line that a person can read.
//
// Thread rule: pure functions.
#pragma once

#include <optional>
#include <string>

#include "cluster/roster.h"
#include "cluster/wire.h"

namespace tally::sim {

// Without the key: a trace is of one. `roster` names the nodes of ballots by rank.
std::string describe(const Entry& entry, const Roster& roster);
// The key that an entry is about; nullopt where it is about none.
std::optional<WireId> key_of(const Entry& entry);
std::string describe(Duration d);  // in milliseconds

}  // namespace tally::sim
