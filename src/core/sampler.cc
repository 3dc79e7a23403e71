#include "core/sampler.h"

#include <algorithm>
#include <cmath>

namespace tally {
namespace {

constexpr uint64_t kOneInMax = uint64_t{1} << 20;  // 8 billion a second

}  // namespace

uint32_t Sampler::take(MonoTime now) {
  const uint32_t weight = one_in_;
  if (++taken_ >= kMost && !held_)
    begin(uint64_t{one_in_} * 2, now);
  else
    draw();
  return weight;
}

void Sampler::hold(uint32_t one_in) {
  begin(one_in, MonoTime{});
  held_ = true;
  period_end_ = MonoTime::max();
}

void Sampler::adapt(MonoTime now) {
  const Duration late = now - period_end_;
  if (late >= kPeriod) return begin(1, now);
  const uint64_t happened = uint64_t{taken_} * one_in_;
  const auto in_a_period =
      static_cast<uint64_t>(static_cast<double>(happened) * (static_cast<double>(nanos(kPeriod)) /
                                                             static_cast<double>(nanos(kPeriod + late))));
  begin((in_a_period + kTarget - 1) / kTarget, now);
}

void Sampler::begin(uint64_t one_in, MonoTime now) {
  one_in_ = static_cast<uint32_t>(std::clamp<uint64_t>(one_in, 1, kOneInMax));
  log_passed_ = one_in_ == 1 ? 0 : std::log1p(-1.0 / one_in_);
  taken_ = 0;
  period_end_ = now + kPeriod;
  draw();
}

void Sampler::draw() {
  const double passed = one_in_ == 1 ? 0 : std::log1p(-random_.unit()) / log_passed_;
  left_ = 1 + static_cast<uint32_t>(std::min(passed, 1e9));
}

}  // namespace tally
