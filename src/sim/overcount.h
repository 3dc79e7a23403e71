// How far admissions pass a limit, measured from outside: what was let in, and when in true time.
//
// Thread rule: one owner. A window is its number on the true clock. A bucket has none: its overcount is how
// full a leaky bucket of the same burst and rate would have become, taken in stretches as long as the burst
// takes to refill.
#pragma once

#include <cstdint>
#include <map>

#include "base/time.h"
#include "core/rules.h"

namespace tally::sim {

class OvercountMeter {
 public:
  // `epoch`: the true wall time at which the run began.
  OvercountMeter(const Limit& limit, WallTime epoch) : limit_(limit), epoch_(epoch) {}

  void admitted(uint32_t cost, Duration at);  // `at` since the run began; never falls

  uint64_t total() const { return total_; }
  uint64_t in_window(Duration at) const;  // windows only: admitted in the one that `at` lies in
  // Admitted above the limit, as a part of it; 0 where nothing was. The mean is over `windows` of them.
  double worst() const;
  double mean(uint64_t windows) const;

 private:
  int64_t window_of(Duration at) const;
  uint64_t above(uint64_t peak) const;

  const Limit limit_;
  const WallTime epoch_;
  uint64_t total_ = 0;
  // By number of window: cost admitted. A bucket: by stretch, the fullest level, in nanoseconds of emission.
  std::map<int64_t, uint64_t> peaks_;
  int64_t level_ = 0;
  Duration last_{0};
};

}  // namespace tally::sim
