// How a key's slot is found; inline, for it is part of every decision.
//
// Thread rule: any thread. Private to slots*.cc and limiter*.cc.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "core/slots.h"
#include "core/slots_layout.h"
#include "core/slots_tags.h"

namespace tally {

inline SlotTable::Homes SlotTable::homes_of(KeyHash hash) const {
  const size_t a = scaled_to(hash.hi, buckets_), b = scaled_to(hash.lo, buckets_);
  return {a, a != b ? b : (b + 1) % buckets_};
}

inline void SlotTable::prefetch(KeyHash hash) const {
  const Homes homes = homes_of(hash);
  __builtin_prefetch(tags_of(homes.a));
  __builtin_prefetch(tags_of(homes.b));
}

// The slots that have the key's tag; a bit each, the home's the lower half.
struct SlotTable::Candidates {
  Homes homes;
  uint64_t bits = 0;
  size_t index() const {
    const auto at = static_cast<size_t>(std::countr_zero(bits));
    return (at < 32 ? homes.a : homes.b) * kWays + at % 32;
  }
};
inline SlotTable::Candidates SlotTable::candidates(KeyHash hash) const {
  static_assert(kWays <= 32);
  const Homes homes = homes_of(hash);
  const uint16_t tag = tag_of(hash);
  return {homes, ways_with(tags_of(homes.a), tag) | ways_with(tags_of(homes.b), tag) << 32};
}

inline uint32_t SlotTable::prefetch_slot(KeyHash hash) const {
  const Candidates found = candidates(hash);
  if (found.bits == 0) return kNoPlace;
  const size_t index = found.index();
  __builtin_prefetch(&slots_[index], 1);
  if (known_ != nullptr) __builtin_prefetch(&known_[index]);
  return static_cast<uint32_t>(index);
}

// The first slot that holds the key, living or dying, for which `fits` is true.
template <typename Fits>
Held SlotTable::find_where(KeyHash hash, Fits fits) const {
  for (Candidates found = candidates(hash); found.bits != 0; found.bits &= found.bits - 1) {
    const size_t index = found.index();
    Slot& slot = slots_[index];
    // acquire: pairs with the release of the exchanges that reserve, commit and publish
    const uint64_t key = slot.key.load(std::memory_order_acquire);
    if ((key & kHashBits) != hash_bits(hash) || slot.hash.load(std::memory_order_acquire) != hash.hi)
      continue;
    const Held held{&slot, key};
    if (fits(held)) return held;
  }
  return {};
}

// State and hash bits are compared at once.
inline Held SlotTable::living_at(size_t index, KeyHash hash) const {
  Slot& slot = slots_[index];
  const uint64_t key = slot.key.load(std::memory_order_acquire);  // as in find_where
  if (static_cast<uint32_t>(key) != static_cast<uint32_t>(hash_bits(hash) | kLive)) return {};
  return slot.hash.load(std::memory_order_acquire) == hash.hi ? Held{&slot, key} : Held{};
}

inline Held SlotTable::find(KeyHash hash, uint32_t place) const {
  if (place != kNoPlace)
    if (const Held held = living_at(place, hash)) return held;
  for (Candidates found = candidates(hash); found.bits != 0; found.bits &= found.bits - 1)
    if (const Held held = living_at(found.index(), hash)) [[likely]]
      return held;
  return {};
}

inline Held SlotTable::find_or_insert(KeyHash hash, uint32_t place, const Limit& limit, const Now& now) {
  if (const Held held = find(hash, place)) return held;
  return insert(hash, limit, now);
}

}  // namespace tally
