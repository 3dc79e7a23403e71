#include "sim/overcount.h"

#include <algorithm>

#include "core/windows.h"

namespace tally::sim {

int64_t OvercountMeter::window_of(Duration at) const {
  if (limit_.algorithm == Algorithm::token_bucket) return at / limit_.burst_span();
  return window_at(epoch_ + at, limit_.window);
}

void OvercountMeter::admitted(uint32_t cost, Duration at) {
  total_ += cost;
  uint64_t& peak = peaks_[window_of(at)];
  if (limit_.algorithm != Algorithm::token_bucket) {
    peak += cost;
    return;
  }
  level_ = std::max<int64_t>(0, level_ - nanos(at - last_)) + nanos(limit_.emission) * int64_t{cost};
  last_ = at;
  peak = std::max(peak, static_cast<uint64_t>(level_));
}

uint64_t OvercountMeter::in_window(Duration at) const {
  const auto it = peaks_.find(window_of(at));
  return it == peaks_.end() ? 0 : it->second;
}

// In costs; a bucket: in nanoseconds of emission.
uint64_t OvercountMeter::above(uint64_t peak) const {
  const uint64_t limit = limit_.algorithm == Algorithm::token_bucket
                             ? static_cast<uint64_t>(nanos(limit_.burst_span()))
                             : limit_.limit;
  return peak > limit ? peak - limit : 0;
}

double OvercountMeter::worst() const {
  uint64_t most = 0;
  for (const auto& [window, peak] : peaks_) most = std::max(most, above(peak));
  const bool bucket = limit_.algorithm == Algorithm::token_bucket;
  return static_cast<double>(most) /
         (bucket ? static_cast<double>(nanos(limit_.burst_span())) : limit_.limit);
}

double OvercountMeter::mean(uint64_t windows) const {
  double sum = 0;
  for (const auto& [window, peak] : peaks_) sum += static_cast<double>(above(peak));
  const bool bucket = limit_.algorithm == Algorithm::token_bucket;
  const double limit = bucket ? static_cast<double>(nanos(limit_.burst_span())) : limit_.limit;
  return windows == 0 ? 0 : sum / limit / static_cast<double>(windows);
}

}  // namespace tally::sim
