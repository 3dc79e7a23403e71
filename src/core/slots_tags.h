// The tags of the slot table: 16 bits of the hash of each slot's key, 0 where the slot is free; those of a
// bucket share a cache line, so that a look-up touches two of these and, but for one time in two thousand,
// one slot.
//
// Thread rule: any thread. A look-up compares the tags of both buckets of a key at once, without a branch:
// which bucket a key is in nobody can predict. (Eight bits were tried: in a bucket of 32 one look-up in nine
// met another key's slot first, which costs a whole access to memory.)
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "base/hash.h"
#include "core/slots_word.h"

#if defined(__SSE2__) && !defined(TALLY_MODEL) && !defined(__SANITIZE_THREAD__)
#define TALLY_TAGS_BY_VECTOR
#include <emmintrin.h>
#endif

namespace tally {

inline constexpr size_t kTagsInWord = 4;
inline constexpr size_t kTagWords = (kWays + kTagsInWord - 1) / kTagsInWord;  // of a bucket

// 1 to 65535.
constexpr uint16_t tag_of(KeyHash hash) {
  const auto tag = static_cast<uint16_t>(hash.hi);
  return tag != 0 ? tag : uint16_t{1};
}

// A bit for each way of the bucket whose tag it is, way 0 the lowest. `tags`: kTagWords words, on a cache
// line of their own. What is loaded from a slot that was found here comes after.
inline uint64_t ways_with(const Word* tags, uint16_t tag) {
#ifdef TALLY_TAGS_BY_VECTOR
  // Plain loads beside other threads' exchanges: the processor reads an aligned word in one piece, and a tag
  // lies in one word.
  static_assert(kWays % 16 == 0);
  const auto* at = reinterpret_cast<const __m128i*>(tags);
  const __m128i wanted = _mm_set1_epi16(static_cast<int16_t>(tag));
  uint64_t ways = 0;
  for (size_t i = 0; i < kWays / 16; ++i) {
    const __m128i low = _mm_cmpeq_epi16(_mm_load_si128(at + 2 * i), wanted);
    const __m128i high = _mm_cmpeq_epi16(_mm_load_si128(at + 2 * i + 1), wanted);
    ways |= uint64_t{static_cast<uint32_t>(_mm_movemask_epi8(_mm_packs_epi16(low, high)))} << (16 * i);
  }
  std::atomic_signal_fence(
      std::memory_order_acquire);  // x86 keeps loads in order, the compiler has to be told
  return ways;
#else
  uint64_t ways = 0;
  for (size_t way = 0; way < kWays; way += kTagsInWord) {
    // acquire: pairs with the exchange that sets the tag of a slot reserved before
    const uint64_t word = tags[way / kTagsInWord].load(std::memory_order_acquire);
    for (size_t i = 0; i < kTagsInWord && way + i < kWays; ++i)
      ways |= uint64_t{static_cast<uint16_t>(word >> (16 * i)) == tag} << (way + i);
  }
  return ways;
#endif
}

inline void set_tag(Word* tags, size_t way, uint16_t tag) {
  Word& word = tags[way / kTagsInWord];
  const int shift = static_cast<int>(way % kTagsInWord * 16);
  uint64_t held = word.load();
  while (!word.compare_exchange_weak(held, (held & ~(uint64_t{0xffff} << shift)) | uint64_t{tag} << shift)) {
  }
}

}  // namespace tally
