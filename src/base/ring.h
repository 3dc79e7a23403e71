// A bounded queue from one thread to one other (Lamport's ring with cached positions).
//
// Thread rule: exactly one thread pushes, exactly one pops. push returns false when full: the caller counts
// it and goes on; nothing here allocates after construction, waits or locks.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <vector>

namespace tally {

template <typename T>
class Ring {
 public:
  explicit Ring(size_t capacity) : cells_(std::bit_ceil(capacity)), mask_(cells_.size() - 1) {}
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  bool push(const T& value) {
    const size_t tail = tail_.load(std::memory_order_relaxed);  // only this thread writes it
    if (tail - head_seen_ > mask_) {
      head_seen_ = head_.load(std::memory_order_acquire);  // pairs with pop's release: the cell is free
      if (tail - head_seen_ > mask_) return false;
    }
    cells_[tail & mask_] = value;
    tail_.store(tail + 1, std::memory_order_release);  // pairs with pop's acquire: the cell is written
    return true;
  }

  bool pop(T& out) {
    const size_t head = head_.load(std::memory_order_relaxed);  // only this thread writes it
    if (head == tail_seen_) {
      tail_seen_ = tail_.load(std::memory_order_acquire);  // pairs with push's release
      if (head == tail_seen_) return false;
    }
    out = cells_[head & mask_];
    head_.store(head + 1, std::memory_order_release);  // pairs with push's acquire
    return true;
  }

 private:
  std::vector<T> cells_;
  const size_t mask_;
  alignas(64) std::atomic<size_t> head_{0};
  alignas(64) size_t tail_seen_ = 0;  // the popper's
  alignas(64) std::atomic<size_t> tail_{0};
  alignas(64) size_t head_seen_ = 0;  // the pusher's
};

}  // namespace tally
