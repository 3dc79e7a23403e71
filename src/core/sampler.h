// Takes one in N of what happens, at random, with N such that some 8,000 a second are taken: 1 where no more
// than that happen.
//
// Thread rule: one owner. Pure: `now` comes in.
//
// Each event is taken with a probability of 1/N whatever became of those before (the gaps are geometric), so
// that nothing in the stream can keep step with it. Whoever gives what is taken a weight of N estimates
// without a bias: of f events a count comes out whose variance is f * (N - 1).
#pragma once

#include <cstdint>

#include "base/random.h"
#include "base/time.h"

namespace tally {

class Sampler {
 public:
  static constexpr Duration kPeriod =
      std::chrono::milliseconds(100);       // N is chosen anew so often, by what happened in the last one
  static constexpr uint32_t kTarget = 800;  // of these are taken in a period
  static constexpr uint32_t kMost = 1'000;  // that many before its end: N doubles at once

  explicit Sampler(uint64_t seed) : random_(seed) {}

  // An event: whether it is to be taken, by take().
  bool due() { return --left_ == 0; }
  // Returns N of the event that was due, and looks out for the next one.
  uint32_t take(MonoTime now);
  // Often, before events: adapts N where it is time to. After two quiet periods N is 1.
  void tick(MonoTime now) {
    if (now >= period_end_) [[unlikely]]
      adapt(now);
  }
  uint32_t one_in() const { return one_in_; }
  // N stays `one_in` from now on, whatever happens: for what is to be counted exactly.
  void hold(uint32_t one_in);

 private:
  void adapt(MonoTime now);
  void begin(uint64_t one_in, MonoTime now);
  void draw();

  uint32_t left_ = 1;  // events until the next one that is taken
  uint32_t one_in_ = 1;
  uint32_t taken_ = 0;  // in this period
  bool held_ = false;
  MonoTime period_end_{};
  double log_passed_ = 0;  // ln(1 - 1/N)
  Random random_;
};

}  // namespace tally
