// What the tests of the slot table under threads share.
#pragma once

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "core_fixture.h"

namespace tally::test {

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
inline constexpr int kScale = 1;
#else
inline constexpr int kScale = 8;
#endif

inline constexpr WallTime kAlways = WallTime::min();
inline constexpr MonoTime kFull = MonoTime::min();

inline std::string name_of(uint64_t n) { return "key:" + std::to_string(n); }

// The window in which a fixed window's answer was given: a worker with a slow clock decides in the newest
// one.
inline int64_t window_of(const Answer& a, Now now, Duration window) {
  return nanos(now.wall + a.reset_after) / nanos(window) - 1;
}

// A clock that the threads read at will and move themselves.
class SteppedClock {
 public:
  Duration step(Duration by) { return Duration(ns_.fetch_add(nanos(by)) + nanos(by)); }
  Duration read() const { return Duration(ns_.load()); }

 private:
  std::atomic<int64_t> ns_{0};
};

template <typename Body>
void in_threads(size_t n, Body body) {
  std::vector<std::thread> threads;
  for (size_t i = 0; i < n; ++i) threads.emplace_back([&body, i] { body(i); });
  for (auto& thread : threads) thread.join();
}

}  // namespace tally::test
