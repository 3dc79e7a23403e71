// Which datagrams of one life of a peer have been here: the latest by number, and a bit for each of some
// before it.
//
// Thread rule: the cluster thread's. Bounded: 136 bytes a peer, and one word touched for a datagram in order.
//
// As in RFC 6479: a ring of words, of which those that the latest number passes are emptied. What is older
// than the window counts as having been here: it may be, and a loss costs nothing, as every number in a
// datagram is cumulative or absolute.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace tally {

class ReplayWindow {
  static constexpr uint64_t kWords = 16;

 public:
  static constexpr uint64_t kReach = 64 * (kWords - 1);  // numbers before the latest of which each is known

  bool has(uint64_t number) const {
    if (number > latest_) return false;
    if (latest_ - number > kReach) return true;
    return (words_[number / 64 % kWords] >> (number % 64) & 1) != 0;
  }
  void add(uint64_t number) {
    if (number > latest_) {
      const uint64_t passed = std::min(number / 64 - latest_ / 64, kWords);
      for (uint64_t i = 0; i < passed; ++i) words_[(number / 64 - i) % kWords] = 0;
      latest_ = number;
    } else if (latest_ - number > kReach) {
      return;
    }
    words_[number / 64 % kWords] |= uint64_t{1} << (number % 64);
  }

 private:
  uint64_t latest_ = 0;
  std::array<uint64_t, kWords> words_{};
};

}  // namespace tally
