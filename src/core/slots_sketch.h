// What is remembered of evicted keys: two Count-Min sketches (Cormode and Muthukrishnan 2005), one of counts
// by (key, window), one of arrival times by key. Both only ever say too much, so that a key which comes back
// may be denied more and never admitted more.
//
// Thread rule: any thread. Fixed size, allocated by the slot table.
//
// A key that comes back begins with what the sketch says of it, so its next drain says the whole again: cells
// are raised to it, not added to. That is the conservative update of Estan and Varghese (2002); it is tighter
// than sums, and may be done twice. (Sums of whole counts were tried: each life adds its beginning once more,
// which explodes.)
//
// Counts of all rules share one sketch; a cell carries the time at which all that is in it is over, and is
// begun anew after that. Times are ticks of the wall clock (2^24 ns, about 17 ms).
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
  static constexpr size_t kRows = kSketchRows;
  static size_t words_for(size_t slots);  // how many words a table of that many slots needs

  // `words` zeroed, words_for(slots) of them, outliving the sketch.
  Sketch(Word* words, size_t slots);

  // The newest clock by which an eviction was decided. What ended before it may be forgotten: nobody may
  // begin a count in such a window.
  void saw(Now now);
  WallTime newest_wall() const;
  MonoTime newest_mono() const;
  bool forgets() const {
    return newest_wall_.load() != 0;
  }  // nothing was ever evicted: there is nothing to look up

  // Requires that saw() was called before by this thread. `until_tick`: when the window is over.
  void raise_count(uint64_t key, uint32_t window, uint32_t count, int64_t until_tick);
  // At least all that was counted, if newest_wall() is not past the window's end after the call.
  uint32_t count(uint64_t key, uint32_t window) const;

  void raise_arrival(uint64_t key, MonoTime tat);
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
  Word counts_used_{0};  // 0: no count was ever raised
};

}  // namespace tally
