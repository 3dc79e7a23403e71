// How many of a peer's datagrams do not come, by the numbers that they carry.
//
// Thread rule: the cluster thread's.
#pragma once

#include <algorithm>
#include <cstdint>

namespace tally {

// Looks at a span of numbers when all of it should have come. What is late by more than a span counts as lost; what comes twice is
// to be kept away.
class LossMeter {
 public:
  static constexpr uint64_t kSpan = 128;

  void heard(uint64_t number) {
    if (first_ == 0 || number >= first_ + 2 * kSpan) return begin(number);
    ++heard_;
    if (number < first_ + kSpan) return;
    const double lost = 1.0 - std::min(1.0, static_cast<double>(heard_) / static_cast<double>(number - first_ + 1));
    ratio_ = measured_ ? (ratio_ + lost) / 2 : lost;
    measured_ = true;
    begin(number + 1);
    heard_ = 0;
  }
  double ratio() const { return ratio_; }  // 0 until a span is over

 private:
  void begin(uint64_t number) {
    first_ = number;
    heard_ = 1;
  }

  uint64_t first_ = 0;
  uint64_t heard_ = 0;
  double ratio_ = 0;
  bool measured_ = false;
};

}  // namespace tally
