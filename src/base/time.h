// Time as the core and the cluster see it: values that somebody else read from a clock.
//
// Nothing here can ask for the time; only src/daemon reads clocks (once a batch) and hands the reading
// down. Window numbers are counted on the wall clock, everything that only measures an interval (token
// buckets, leases, round trips) on the monotonic clock; the two types do not mix.
#pragma once

#include <chrono>
#include <cstdint>

namespace tally {

using Duration = std::chrono::nanoseconds;

struct WallClock {  // nanoseconds since the Unix epoch; no now(), by intent
  using duration = Duration;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<WallClock, Duration>;
  static constexpr bool is_steady = false;
};

struct MonoClock {  // nanoseconds since an arbitrary start, never set back; no now(), by intent
  using duration = Duration;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<MonoClock, Duration>;
  static constexpr bool is_steady = true;
};

using WallTime = WallClock::time_point;
using MonoTime = MonoClock::time_point;

// One reading of both clocks.
struct Now {
  MonoTime mono;
  WallTime wall;
};

constexpr int64_t nanos(Duration d) { return d.count(); }
constexpr int64_t nanos(WallTime t) { return t.time_since_epoch().count(); }
constexpr int64_t nanos(MonoTime t) { return t.time_since_epoch().count(); }

}  // namespace tally
