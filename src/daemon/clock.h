// The only place that reads a clock.
//
// Thread rule: now() from any thread; the rest from one thread at a time (the cluster thread; alone, main).
//
// A worker needs both clocks for every batch, and one reading costs more than a decision. So it reads the
// monotonic clock alone and adds an offset that somebody else refreshes: the two clocks run at one rate
// (adjustments of the rate apply to both), only a step of the system clock moves the offset.
#pragma once

#include <time.h>

#include <atomic>

#include "base/time.h"

namespace tally {

class Clock {
 public:
  Clock() { refresh(); }
  Clock(const Clock&) = delete;
  Clock& operator=(const Clock&) = delete;

  Now now() const {
    const int64_t mono = read(CLOCK_MONOTONIC);
    return Now{MonoTime(Duration(mono)), WallTime(Duration(mono + offset_.load(std::memory_order_acquire)))};
  }
  MonoTime mono() const { return MonoTime(Duration(read(CLOCK_MONOTONIC))); }

  // Reads how far the system clock was stepped from what now() goes by (0 within the noise of reading two
  // clocks). Nobody goes by it before publish(): between the two is the time to prepare for a clock that was
  // set back.
  Duration look() {
    const int64_t before = read(CLOCK_MONOTONIC);
    const int64_t wall = read(CLOCK_REALTIME);
    const int64_t after = read(CLOCK_MONOTONIC);
    const int64_t fresh = wall - (before + (after - before) / 2);
    const int64_t step = fresh - offset_.load(std::memory_order_relaxed);
    const bool noise = step < kNoise && step > -kNoise;
    if (noise && after - before > kNoise / 10) return Duration(0);  // interrupted: no better
    looked_ = fresh;
    return noise ? Duration(0) : Duration(step);
  }
  Now looked() const {  // now() after publish()
    const int64_t mono = read(CLOCK_MONOTONIC);
    return Now{MonoTime(Duration(mono)), WallTime(Duration(mono + looked_))};
  }
  void publish() {
    offset_.store(looked_, std::memory_order_release);  // pairs with now(): what was prepared is seen
  }
  Duration refresh() {
    const Duration step = look();
    publish();
    return step;
  }

 private:
  static constexpr int64_t kNoise = 1'000'000;
  static int64_t read(clockid_t id) {
    timespec t{};
    ::clock_gettime(id, &t);
    return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
  }
  std::atomic<int64_t> offset_{0};  // wall - mono, ns
  int64_t looked_ = 0;              // the same, as last looked at
};

}  // namespace tally
