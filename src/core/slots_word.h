// The word that the slot table is made of.
//
// In the product it is std::atomic<uint64_t>. tests/model compiles the very same sources with TALLY_MODEL,
// where every operation on a word is a point at which another thread may run, and tries all orders.
#pragma once

#ifdef TALLY_MODEL
#include "model/word.h"
#else

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace tally {

using Word = std::atomic<uint64_t>;
static_assert(Word::is_always_lock_free && sizeof(Word) == 8);

inline constexpr size_t kWays = 32;  // slots in a bucket
inline constexpr size_t kSketchRows = 4;

// The most that a loop goes round because other threads were faster; past that a decision is a denial.
inline constexpr int kInsertTries = 64;
inline constexpr int kEvictTries = 16;
inline constexpr int kDecisionTries = 1000;

}  // namespace tally
#endif
