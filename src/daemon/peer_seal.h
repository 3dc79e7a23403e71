// What stands between the cluster thread's node and its socket: datagrams are sealed and opened, and what
// cannot be opened is counted.
//
// Thread rule: the cluster thread's.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/secret.h"
#include "cluster/node.h"
#include "cluster/seal.h"

namespace tally {

inline constexpr const char* kOtherFleetsSecret =
    "its line \"id\" is another one: that is another fleet's secret; hosts change it by a restart, all at once";

class PeerSeal {
 public:
  // Without a secret everything passes as it is, but for what another host sealed.
  explicit PeerSeal(std::optional<Secret> secret) : secret_(std::move(secret)) {}

  // What both return is valid until the next call of the same.
  std::span<const uint8_t> seal(std::span<const uint8_t> content);
  std::optional<std::span<const uint8_t>> open(std::span<const uint8_t> bytes);  // nullopt: dropped, counted

  // All or nothing. Fails where it is the secret of another fleet: the names of keys must stay as they are,
  // and workers have them.
  Result<bool> replace(const Secret& secret);

  struct KeyUse {
    std::string fingerprint, use;  // "seal", "next", "old"
    uint64_t opened = 0;           // datagrams, since the start
  };
  std::vector<KeyUse> keys() const;  // none without a secret
  void add_dropped(NodeStats& stats) const;

 private:
  std::optional<Secret> secret_;
  DatagramBuffer sealed_{}, opened_{};
  uint64_t dropped_[kOpenErrors]{};
  uint64_t dropped_sealed_ = 0;
  std::map<uint32_t, uint64_t> opened_by_;  // by fingerprint, of the keys that there are
};

}  // namespace tally
