// Datagrams that no host sent: noise, damaged and old ones, and those of another roster.
//
// Thread rule: the fleet's. Whoever injects them can listen to everything and send from any address, but does
// not hold the fleet's key: what it may say of its own is refused before anybody looks at the numbers, and
// what is accepted was said by a node at some time, to that receiver.
#pragma once

#include <cstdint>
#include <string>

#include "sim/fleet.h"

namespace tally::sim {

enum class Attack : uint8_t {
  noise,          // random bytes
  damage,         // real datagrams, cut short, with bits flipped, or sent on to another host
  replay,         // real ones of any age, from the address that they came from
  earlier_lives,  // the same, of the time before the newest start in the fleet: to or from that host
  stranger,       // with numbers that would do harm, under another roster or from another address
};

// `each` datagrams at once, every so often, to random hosts.
struct AttackSeries {
  Attack attack = Attack::noise;
  Duration from{0}, until{0};
  Duration every{0};  // above 0
  uint32_t each = 1;
  uint64_t seed = 1;
};

// Requires config.keep_datagrams. To be called before `series.from`.
void arrange(Fleet& fleet, const AttackSeries& series);
std::string describe(const AttackSeries& series);

}  // namespace tally::sim
