// A line: one life of a lessee's account at an owner. Shared by the books of windows and of buckets.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/time.h"
#include "cluster/wire.h"

namespace tally {

// Lines in one book: every node of the largest roster, some lives and evictions of each. More are refused.
inline constexpr size_t kLinesMax = 4096;

struct LineKey {
  NodeId node = 0;
  uint64_t incarnation = 0;
  uint32_t number = 0;
  friend bool operator==(const LineKey&, const LineKey&) = default;
};

inline constexpr size_t kLinesPrefetched = 32;  // of one book, at once

constexpr uint64_t minus(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }

// A pool's level as grants carry it: what is left, in 1/255 of the whole.
constexpr uint8_t level(uint64_t left, uint64_t of) {
  return of == 0 ? 0 : static_cast<uint8_t>(std::min<uint64_t>(255, left * 255 / of));
}

// With many lessees the loops over a book's lines are what a report costs: what all of them look at is in the first 64 bytes.
inline constexpr uint64_t kGivenUnknown = UINT64_MAX;

struct alignas(64) Line {
  LineKey key;
  uint16_t rank = 0;  // where its node is reached
  bool turned_away = false;  // asked in vain: is told when room comes back
  bool told_exhausted = false;
  bool news = false;  // while room is being handed out: this line has to be told
  bool final = false;
  MonoTime heard{};  // the newest report
  uint64_t demand_milli = 0, waiting = 0;  // as it said

  // Cumulative, merged by max. For a bucket: within the running lease, in nanoseconds.
  uint64_t floor = 0;
  uint64_t granted = 0;
  uint64_t returned = 0;
  uint64_t refunded = 0;
  uint64_t given = 0;  // kGivenUnknown: the next report that knows of the reset tells from where to count
  uint64_t used = 0;

  // Of the newest report, too.
  uint64_t stamp = 0;
  uint64_t ceiling = 0;
  uint64_t granted_heard = 0;
  uint64_t wanted = 0;
  uint64_t waiting_min = 0;
  MonoTime nudged{};  // when it was last told that the pool is low

  uint64_t net_used() const { return minus(used, refunded); }
  uint64_t in_flight() const { return minus(granted, granted_heard); }
  uint64_t need() const { return minus(wanted, ceiling + in_flight()); }
  // What waits and has got nothing yet: grants that are on their way serve those first.
  uint64_t unmet() const { return waiting == 0 ? 0 : std::min(minus(waiting, in_flight()), need()); }
  // What its share goes by.
  double demand() const { return static_cast<double>(demand_milli) / 1000 + static_cast<double>(unmet()); }
  uint64_t unspent() const { return minus(floor + granted + refunded, returned + used); }

  // `same_books`: whether what the report heard of grants is of this ballot (and lease). False: a newer one was heard before.
  bool take_newest(const Report& report, bool same_books, MonoTime now) {
    heard = now;
    if (report.stamp < stamp) return false;
    stamp = report.stamp;
    ceiling = report.ceiling;
    granted_heard = same_books ? std::min(report.granted_heard, granted) : 0;
    wanted = report.wanted;
    waiting_min = report.waiting_min;
    waiting = report.waiting;
    demand_milli = report.demand_milli;
    return true;
  }
};

}  // namespace tally
