#include "sim/overcount.h"

#include <algorithm>

#include "core/windows.h"

namespace tally::sim {
namespace {

constexpr double kPrecise = 1e-6;  // of a bucket's overcount

}  // namespace

void OvercountMeter::admitted(uint32_t cost, Duration at) {
  total_ += cost;
  if (is_bucket())
    tokens_.emplace_back(at, cost);
  else
    windows_[window_at(epoch_ + at, limit_.window)] += cost;
}

// Whether a bucket that is 1 + x times as large and fast would have admitted all of it.
bool OvercountMeter::within(double x) const {
  const double leak = 1 + x;  // nanoseconds of emission a nanosecond
  const double capacity = leak * static_cast<double>(nanos(limit_.burst_span())) * (1 + kPrecise / 10);
  const auto emission = static_cast<double>(nanos(limit_.emission));
  double level = 0;
  Duration last{0};
  for (const auto& [at, cost] : tokens_) {
    level = std::max(0.0, level - leak * static_cast<double>(nanos(at - last))) + emission * cost;
    last = at;
    if (level > capacity) return false;
  }
  return true;
}

double OvercountMeter::worst() const {
  if (!is_bucket()) {
    uint64_t most = 0;
    for (const auto& [window, count] : windows_) most = std::max(most, count);
    return most > limit_.limit ? static_cast<double>(most - limit_.limit) / limit_.limit : 0;
  }
  if (within(0)) return 0;
  double low = 0, high = 1;
  for (; !within(high); high *= 2) low = high;
  while (high - low > kPrecise) {
    const double middle = (low + high) / 2;
    (within(middle) ? high : low) = middle;
  }
  return high;
}

double OvercountMeter::mean(uint64_t windows) const {
  const double limit = limit_.limit;
  if (is_bucket())
    return std::max(0.0, static_cast<double>(total_) / limit / static_cast<double>(windows + 1) - 1);
  double sum = 0;
  for (const auto& [window, count] : windows_) sum += std::max(0.0, static_cast<double>(count) - limit);
  return windows == 0 ? 0 : sum / limit / static_cast<double>(windows);
}

}  // namespace tally::sim
