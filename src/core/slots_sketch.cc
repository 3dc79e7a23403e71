#include "core/slots_sketch.h"

#include <algorithm>

#include "base/hash.h"
#include "core/slots_layout.h"

namespace tally {
namespace {

constexpr size_t kWidthMin = 1024;
constexpr size_t kSlotsACell = 36;  // of each row, of which there is one for counts and one for arrival times

// A cell of counts: the high half is when it is over (units of 8 ticks mod 2^32, about 0.13 s), the low half
// the count.
constexpr int kUnitShift = 3;
constexpr uint32_t unit_floor(int64_t tick) { return static_cast<uint32_t>(tick >> kUnitShift); }
constexpr uint32_t unit_ceil(int64_t tick) { return unit_floor(tick + (1 << kUnitShift) - 1); }

// Signed times as unsigned words in the same order.
constexpr uint64_t kSign = uint64_t{1} << 63;
constexpr uint64_t ordered(int64_t t) { return static_cast<uint64_t>(t) ^ kSign; }
constexpr int64_t from_ordered(uint64_t w) { return static_cast<int64_t>(w ^ kSign); }

void raise(Word& word, uint64_t value) {
  uint64_t held = word.load();
  while (held < value && !word.compare_exchange_weak(held, value)) {
  }
}

size_t width_for(size_t slots) { return std::max(kWidthMin, slots / kSlotsACell); }

size_t place(uint64_t x, size_t row, size_t width) {
  return scaled_to(mix(x + row * 0x9e3779b97f4a7c15), width) + row * width;
}

}  // namespace

size_t Sketch::words_for(size_t slots) { return 2 * kRows * width_for(slots); }

Sketch::Sketch(Word* words, size_t slots)
    : counts_(words), arrivals_(words + kRows * width_for(slots)), width_(width_for(slots)) {}

Word& Sketch::count_cell(size_t row, uint64_t key, uint32_t window) const {
  return counts_[place(key ^ mix(window + 1), row, width_)];
}
Word& Sketch::arrival_cell(size_t row, uint64_t key) const { return arrivals_[place(key, row, width_)]; }

void Sketch::saw(Now now) {
  raise(newest_wall_, ordered(nanos(now.wall)));
  raise(newest_mono_, ordered(nanos(now.mono)));
}
WallTime Sketch::newest_wall() const { return WallTime(Duration(from_ordered(newest_wall_.load()))); }
MonoTime Sketch::newest_mono() const { return MonoTime(Duration(from_ordered(newest_mono_.load()))); }

bool Sketch::over(uint64_t cell, int64_t now_tick) const {
  return static_cast<int32_t>(unit_floor(now_tick) - Cell::of(cell).tag) >= 0;
}

void Sketch::raise_count(uint64_t key, uint32_t window, uint32_t count, int64_t until_tick) {
  const int64_t now_tick = tick_floor(newest_wall());
  const uint32_t until = unit_ceil(until_tick);
  if (counts_used_.load() == 0) counts_used_.store(1);
  for (size_t row = 0; row < kRows; ++row) {
    Word& word = count_cell(row, key, window);
    uint64_t held = word.load(), next;
    do {
      Cell cell{until, count};
      if (held != 0 && !over(held, now_tick)) {
        const Cell there = Cell::of(held);
        if (static_cast<int32_t>(there.tag - until) > 0) cell.tag = there.tag;
        cell.value = std::max(cell.value, there.value);
      }
      next = cell.word();
    } while (next != held && !word.compare_exchange_weak(held, next));
  }
}

uint32_t Sketch::count(uint64_t key, uint32_t window) const {
  if (counts_used_.load() == 0) return 0;
  const int64_t now_tick = tick_floor(newest_wall());
  uint32_t least = UINT32_MAX;
  for (size_t row = 0; row < kRows; ++row) {
    const uint64_t held = count_cell(row, key, window).load();
    least = std::min(least, held == 0 || over(held, now_tick) ? 0 : Cell::of(held).value);
  }
  return least;
}

void Sketch::raise_arrival(uint64_t key, MonoTime tat) {
  for (size_t row = 0; row < kRows; ++row) raise(arrival_cell(row, key), ordered(nanos(tat)));
}

MonoTime Sketch::arrival(uint64_t key) const {
  uint64_t least = UINT64_MAX;
  for (size_t row = 0; row < kRows; ++row) least = std::min<uint64_t>(least, arrival_cell(row, key).load());
  return std::max(MonoTime(Duration(from_ordered(least))), newest_mono());
}

}  // namespace tally
