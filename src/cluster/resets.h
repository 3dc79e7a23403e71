// The resets of keys that a node has heard of lately: told on by gossip for some rounds, and where an account or books of such a
// key begin afterwards, they begin with the number.
//
// Thread rule: the cluster thread's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

#include "base/time.h"
#include "cluster/wire.h"

namespace tally {

class Resets {
 public:
  // False: the key's number is not above the one known.
  bool hear(const WireId& key, uint64_t number, MonoTime now);
  uint64_t number_of(const WireId& key) const;  // the highest heard lately; 0: none

  // One round of gossip: what is still to be told, then round_over().
  template <class Tell>  // void(const Reset&)
  void tell(Tell&& tell) const {
    for (const auto& [key, known] : known_)
      if (known.rounds > 0) tell(Reset{key, known.number});
  }
  void round_over(MonoTime now);

 private:
  struct Known {
    uint64_t number = 0;
    uint8_t rounds = 0;  // still to be told in
    MonoTime heard{};
  };
  std::map<WireId, Known> known_;
};

}  // namespace tally
