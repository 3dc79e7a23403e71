// How far admissions pass a limit, measured from outside: what was let in, and when in true time.
//
// Thread rule: one owner. A window is its number on the true clock, and its overcount what it admitted above
// the limit. A bucket has no windows: its overcount is the least x with at most (1 + x)(burst + rate * t) in
// every interval of length t, as its bound is stated; how full one strict bucket would have become says
// nothing, because under load that rises for ever where x > 0.
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "base/time.h"
#include "core/rules.h"

namespace tally::sim {

class OvercountMeter {
 public:
  // `epoch`: the true wall time at which the run began.
  OvercountMeter(const Limit& limit, WallTime epoch) : limit_(limit), epoch_(epoch) {}

  void admitted(uint32_t cost, Duration at);  // `at` since the run began; never falls

  uint64_t total() const { return total_; }
  // As a part of the limit; 0 where nothing was above it.
  double worst() const;
  // Windows: the mean over `windows` of them. A bucket: of all that was admitted, over the burst and what
  // comes back in `windows` times the time that the burst takes to come back.
  double mean(uint64_t windows) const;

 private:
  bool is_bucket() const { return limit_.algorithm == Algorithm::token_bucket; }
  bool within(double x) const;

  const Limit limit_;
  const WallTime epoch_;
  uint64_t total_ = 0;
  std::map<int64_t, uint64_t> windows_;                // by number: cost admitted
  std::vector<std::pair<Duration, uint32_t>> tokens_;  // a bucket: when, and how many
};

}  // namespace tally::sim
