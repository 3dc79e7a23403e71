// The word of the slot table as the model checker sees it: every operation is a point where another thread
// may run first. Sequentially consistent: what weaker orders would allow is TSan's part.
#pragma once

#include <atomic>  // std::memory_order
#include <cstddef>
#include <cstdint>

namespace tally {

namespace model {
void point(const uint64_t* place, bool writes);                // before an operation
void wrote(uint64_t* place, uint64_t before, uint64_t after);  // its effect
}  // namespace model

class Word {
 public:
  constexpr Word(uint64_t value = 0) : value_(value) {}  // NOLINT: as std::atomic's
  Word(const Word&) = delete;
  Word& operator=(const Word&) = delete;

  uint64_t load(std::memory_order = std::memory_order_seq_cst) const {
    model::point(&value_, false);
    return value_;
  }
  void store(uint64_t value, std::memory_order = std::memory_order_seq_cst) {
    model::point(&value_, true);
    set(value);
  }
  bool compare_exchange_strong(uint64_t& expected, uint64_t desired) {
    model::point(&value_, true);
    if (value_ != expected) {
      expected = value_;
      return false;
    }
    set(desired);
    return true;
  }
  bool compare_exchange_weak(uint64_t& expected, uint64_t desired) {
    return compare_exchange_strong(expected, desired);
  }
  // Figures for people: nobody decides by them, so they are no points.
  void fetch_add(uint64_t n, std::memory_order) { set(value_ + n); }
  void fetch_sub(uint64_t n, std::memory_order) { set(value_ - n); }

 private:
  void set(uint64_t value) {
    model::wrote(&value_, value_, value);
    value_ = value;
  }
  uint64_t value_;
};

inline constexpr size_t kSketchRows = 1;
inline constexpr size_t kWays = 1;  // two buckets of one slot: two keys fill the table

// Few, for there are few threads, and every round is a state.
inline constexpr int kInsertTries = 2;
inline constexpr int kEvictTries = 2;
inline constexpr int kDecisionTries = 6;

}  // namespace tally
