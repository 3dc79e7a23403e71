// What is remembered of evicted keys: two Count-Min sketches (Cormode and Muthukrishnan 2005), one of counts
// by (key, window), one of arrival times by key. Both only ever say too much, so that a key which comes back
// may be denied more and never admitted more.
//
// Thread rule: any thread. Fixed size, allocated by the slot table.
//
// Counts of all rules share one sketch; a cell carries the time at which all that was added to it is over,
// and is begun anew after that. Times are ticks of the wall clock (2^24 ns, about 17 ms).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/time.h"
#include "core/slots_word.h"

namespace tally {

inline constexpr int kTickShift = 24;
constexpr int64_t tick_floor(WallTime t) { return nanos(t) >> kTickShift; }
constexpr int64_t tick_ceil(WallTime t) { return (nanos(t) >> kTickShift) + 1; }  // later than t

class Sketch {
 public:
  static constexpr size_t kRows = 4;
  static size_t words_for(size_t slots);  // how many words a table of that many slots needs

  // `words` zeroed, words_for(slots) of them, outliving the sketch.
  Sketch(Word* words, size_t slots);

  // The clock by which evictions were decided; never runs backwards. Anything that ended before it may be
  // forgotten.
  void saw(Now now);
  WallTime newest_wall() const;
  MonoTime newest_mono() const;

  // Requires that saw() was called before by this thread. `until_tick`: when the window is over.
  void add_count(uint64_t key, uint32_t window, uint32_t count, int64_t until_tick);
  // At least all that was added, if newest_wall() is not past the window's end after the call.
  uint64_t count(uint64_t key, uint32_t window) const;

  void add_arrival(uint64_t key, MonoTime tat);
  MonoTime arrival(uint64_t key) const;  // not before newest_mono

 private:
  Word& count_cell(size_t row, uint64_t key, uint32_t window) const;
  Word& arrival_cell(size_t row, uint64_t key) const;
  bool over(uint64_t cell, int64_t now_tick) const;

  Word* counts_;
  Word* arrivals_;
  const size_t width_;
  alignas(64) Word newest_wall_{0};  // both as order-preserving unsigned; 0: the earliest time there is
  Word newest_mono_{0};
  Word counts_used_{0};  // 0: nothing was ever added
};

}  // namespace tally
