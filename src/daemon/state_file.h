// What a node must remember over its own death: which life this is, and a time that it has not passed.
//
// Thread rule: one owner; write() blocks on the disk.
//
// A later life reckons its start from the larger of its clock and the horizon, so a clock that was set back
// between two lives makes nothing spendable twice. That only holds when the horizon on the disk is never
// behind what the node acts on: it is synced before the first floor or vote, and a later one before clock +
// look-ahead passes it (10 s at a time).
//
// The file is a few lines of text with a checksum, replaced as a whole (temporary file, fsync, rename, fsync
// of the directory). A lock beside it keeps a second daemon away from the same life.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/fail.h"
#include "base/time.h"
#include "cluster/node.h"
#include "daemon/descriptor.h"

namespace tally {

struct StateRecord {
  std::string entry;  // of the roster
  uint64_t incarnation = 0;  // ms of the clock at its start; files of old versions have seconds, which are less
  Tenure tenure;  // the lists of nodes that it has gone by
  WallTime horizon{};
  friend bool operator==(const StateRecord&, const StateRecord&) = default;
};

std::string format_state(const StateRecord& record);
Result<StateRecord> parse_state(
    std::string_view text);  // total; the error says what is wrong, not where the file is

inline constexpr Duration kHorizonStep = std::chrono::seconds(10);

class StateFile {
 public:
  // Creates the directory where needed, takes the lock, reads what is there. Fails where another daemon holds
  // the lock, where the file cannot be read, and where it is damaged (with what to do).
  static Result<std::unique_ptr<StateFile>> open(const std::string& directory, const std::string& name);

  const std::string& path() const { return path_; }
  const std::optional<StateRecord>& record() const { return record_; }  // nullopt: no file yet
  // On the disk when it returns true; the record is unchanged otherwise.
  Result<bool> write(const StateRecord& record);

  // Begins the next life of `entry` and syncs it with a horizon of now + look_ahead + kHorizonStep at least.
  // `previous`: the number of the list that this one replaces; 0: none is given. Fails where the file is another entry's, and where
  // the list may not follow the one that it went by (cluster/succession.h).
  Result<Life> begin_life(const std::string& entry, uint32_t roster_version, uint32_t previous, WallTime now,
                          Duration look_ahead);
  // Why the next life may not go by that list; "" where it may, and where there is no record.
  std::string refuses(uint32_t roster_version, uint32_t previous, WallTime now) const;
  // Syncs a horizon of now + look_ahead + kHorizonStep where the one there is nearer.
  Result<bool> extend(WallTime now, Duration look_ahead);
  Result<bool> keep(const Tenure& tenure);

 private:
  StateFile(std::string path, Descriptor lock) : path_(std::move(path)), lock_(std::move(lock)) {}

  const std::string path_;
  const Descriptor lock_;
  std::optional<StateRecord> record_;
};

}  // namespace tally
