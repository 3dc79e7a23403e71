// The registers that a life leaves for the next one (cluster/memory.h), beside the state file.
//
// Thread rule: at the start and at the end, by one thread; blocks on the disk.
//
// Written when the cluster thread has said its last word, used once: it is removed before the next life votes, and it is only of
// use to the life that follows the one that wrote it. So a daemon that is killed leaves none, and one that is restored from a
// backup finds none that it may use, unless its state file comes from the same moment: never restore the two.
// The format is the wire's (entry_file.h).
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/fail.h"
#include "base/hash.h"
#include "cluster/memory.h"
#include "cluster/roster.h"

namespace tally {

class MemoryFile {
 public:
  // `path`: of the state file. `node`: this node's id; `key` as in NodeConfig.
  MemoryFile(const std::string& state_path, NodeId node, const IdKey& key) : path_(state_path + ".registers"), node_(node), key_(key) {}

  // Of the life of that incarnation; nullptr: there is none. The file is gone afterwards, on the disk too. An error: it is
  // damaged or cannot be removed, and is of no use.
  // Where it is of no list that `roster` has, it is of no use either: other groups may have been smaller.
  Result<std::shared_ptr<const Memory>> take(uint64_t incarnation, const Roster& roster) const;
  Result<bool> leave(const Memory& memory, const Roster& roster) const;
  const std::string& path() const { return path_; }

 private:
  const std::string path_;
  const NodeId node_;
  const IdKey key_;
};

// Pure, for MemoryFile.
std::string format_memory(const Memory& memory, NodeId node, const IdKey& key, const Roster& roster);
Result<Memory> parse_memory(std::string_view text, NodeId node, const IdKey& key, const Roster& roster);

}  // namespace tally
