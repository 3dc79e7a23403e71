// The bits of a slot's words. Private to slots*.cc.
//
// Thread rule: pure functions of words that the caller loaded, except is_idle and weight_of, which load
// cells.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "base/time.h"
#include "core/rules.h"
#include "core/slots.h"
#include "core/windows.h"

namespace tally {

// --- the key word: generation:32 | low bits of the hash:30 | state:2
inline constexpr uint64_t kStateBits = 3;
inline constexpr uint64_t kFree = 0, kReserved = 1, kLive = 2, kDying = 3;
inline constexpr uint64_t kHashBits = 0xffffffff & ~kStateBits;

constexpr uint64_t hash_bits(KeyHash hash) { return hash.lo << 2 & kHashBits; }
constexpr uint32_t generation_of(uint64_t key) { return static_cast<uint32_t>(key >> 32); }
// The reservation of the slot's next life.
constexpr uint64_t next_life(uint64_t key, KeyHash hash) {
  const uint32_t generation = generation_of(key) + 1;
  return uint64_t{generation != 0 ? generation : 1} << 32 | hash_bits(hash) | kReserved;
}

// --- the life word: low bits of the generation:16 | log2:6 | bucket:1 | noted:1 | pins:6 | expiry:34
// It is changed only by compare-and-swap, so the generation in it keeps what was meant for another life out.
// expiry: the tick (slots_sketch.h) at which every window that was counted here is over, mod 2^34 (9 years).
// log2: of the window, rounded up, so that none lasts longer (calendar.h); of a bucket's emission, rounded down.
inline constexpr int kExpiryWidth = 34;
inline constexpr uint64_t kExpiryBits = (uint64_t{1} << kExpiryWidth) - 1;
inline constexpr int kPinsAt = kExpiryWidth;
inline constexpr uint64_t kOnePin = uint64_t{1} << kPinsAt, kPinsMax = 63;
inline constexpr uint64_t kNoted = uint64_t{1} << 40;
inline constexpr uint64_t kBucket = uint64_t{1} << 41;
inline constexpr int kLog2At = 42;
inline constexpr int kLifeAt = 48;

constexpr bool same_life(uint64_t life, uint32_t generation) {
  return life >> kLifeAt == (uint64_t{generation} & (~uint64_t{0} >> kLifeAt));
}
constexpr uint64_t pins_of(uint64_t life) { return life >> kPinsAt & kPinsMax; }
constexpr bool is_bucket(uint64_t life) { return (life & kBucket) != 0; }
constexpr int log2_of(uint64_t life) { return static_cast<int>(life >> kLog2At & 63); }

// From `tick` to the expiry; negative where it has passed.
constexpr int64_t until_expiry(uint64_t life, int64_t tick) {
  constexpr int kUnused = 64 - kExpiryWidth;
  return static_cast<int64_t>((life - static_cast<uint64_t>(tick)) << kUnused) >> kUnused;
}
constexpr uint64_t with_expiry(uint64_t life, int64_t tick) {
  return (life & ~kExpiryBits) | (static_cast<uint64_t>(tick) & kExpiryBits);
}
constexpr int64_t expiry_tick(uint64_t life, WallTime now) {
  return tick_floor(now) + until_expiry(life, tick_floor(now));
}

// When nothing that was counted in `window` matters any more. The sliding window reads the one before.
constexpr int64_t last_tick(const Limit& limit, int64_t window) {
  return tick_ceil(
      window_end(limit.algorithm == Algorithm::sliding_window ? window + 1 : window, limit.window));
}

// --- arrival times
constexpr uint64_t arrival_word(MonoTime t) { return static_cast<uint64_t>(nanos(t)); }
constexpr MonoTime arrival_of(uint64_t word) { return MonoTime(Duration(static_cast<int64_t>(word))); }

// --- a fresh slot
// Count cells are not used yet; in their tags is the window in which the slot was taken (unused_tag). Ceiling
// cells begin with what no other life has had there, so that an exchange that was prepared for the key before
// can not raise this key's ceiling: a tag of the wrong parity with the generation; a lease 0 that ended long
// ago.
constexpr uint64_t fresh_count(uint32_t cell, int64_t window) {
  return Cell{unused_tag(cell, static_cast<uint32_t>(window)), 0}.word();
}
constexpr uint64_t fresh_ceiling(bool bucket, uint32_t cell, uint32_t generation) {
  if (!bucket) return Cell{1 - cell, generation}.word();
  return cell == 0 ? LeaseCell{0, generation}.word() : static_cast<uint64_t>(INT64_MIN) + generation;
}
// A lease's end that no lease ever had.
constexpr bool is_fresh_end(uint64_t word) { return word - static_cast<uint64_t>(INT64_MIN) <= UINT32_MAX; }

constexpr int log2_up(Duration window) { return static_cast<int>(std::bit_width(static_cast<uint64_t>(nanos(window)) - 1)); }
static_assert(longest_length(kWeek) <= Duration(int64_t{1} << log2_up(kWeek)) && longest_length(kMonth) <= Duration(int64_t{1} << log2_up(kMonth)) &&
              longest_length(kYear) <= Duration(int64_t{1} << log2_up(kYear)));

constexpr uint64_t fresh_life(const Limit& limit, int64_t window, uint32_t generation) {
  const uint64_t high = uint64_t{generation} << kLifeAt;
  if (limit.algorithm == Algorithm::token_bucket)
    return high | kBucket |
           uint64_t(std::bit_width(static_cast<uint64_t>(nanos(limit.emission)) | 1) - 1) << kLog2At;
  const auto log2 = static_cast<uint64_t>(log2_up(limit.window));
  return with_expiry(high | log2 << kLog2At, last_tick(limit, window));
}

// --- who goes first when there is no room
inline constexpr uint64_t kWeightIdle = 0, kWeightDying = 1, kWeightLive = 2;
inline constexpr uint64_t kWeightKnown = uint64_t{1} << 57;  // the cluster thread has it in use

inline bool is_idle(const Slot& slot, uint64_t life, Now now) {
  if (!is_bucket(life)) return until_expiry(life, tick_floor(now.wall)) <= 0;
  return arrival_of(slot.count[0].load()) <= now.mono && arrival_of(slot.ceiling[1].load()) <= now.mono;
}

inline uint64_t weight_of(const Slot& slot, Now now) {
  const uint64_t life = slot.life.load();
  const bool noted = (life & kNoted) != 0;  // an ask that found too little here may wait for the cluster thread
  if (!noted && is_idle(slot, life, now)) return kWeightIdle;
  const uint64_t known = noted || slot.ask_at.load() != UINT64_MAX ? kWeightKnown : 0;
  const uint64_t first = slot.count[0].load();
  if (is_bucket(life)) {
    const MonoTime arrival = arrival_of(first);  // of a bucket that only has a lease: as long ago as there is
    const int64_t ahead_ns = arrival > now.mono ? nanos(arrival - now.mono) : 0;
    return kWeightLive + known + (static_cast<uint64_t>(ahead_ns) >> log2_of(life));
  }
  const Cell a = Cell::of(first), b = Cell::of(slot.count[1].load());
  return kWeightLive + known + std::max(a.value, b.value);
}

}  // namespace tally
