#include "cluster/mark_sketch.h"

#include <algorithm>

#include "core/windows.h"

namespace tally {

namespace {

constexpr size_t kPartOfFree = 8;  // a new part takes one in so many of the cells that are free
constexpr size_t kPartsMax = 256;  // and no fewer than one in so many of all
constexpr size_t kCellsLeast = 2;  // one for each hash
constexpr size_t kSweeps = 16;     // the cells of buckets are looked at once in so many calls

}  // namespace

MarkSketch::Pair MarkSketch::cells_of(const Part& part, const RegisterKey& key) {
  const uint64_t hash = RegisterKeyHash{}(key);
  const uint64_t half = part.cells.size() / 2;
  const auto place = [&](uint64_t bits) { return static_cast<size_t>((bits & 0xffff'ffff) * half >> 32); };
  return {place(hash), static_cast<size_t>(half) + place(hash >> 32)};
}

// Every key in it has been idle for its keep.
bool MarkSketch::idle(const Part& part, const Cell& cell, Now now) {
  return part.window == 0 && now.mono - cell.touched >= cell.keep;
}

size_t MarkSketch::allocated() const {
  size_t sum = 0;
  for (const Part& part : parts_) sum += part.cells.size();
  return sum;
}

MarkSketch::Part* MarkSketch::part_for(const RegisterKey& key, Duration length) {
  for (Part& part : parts_)
    if (part.window == key.window && (key.window == 0 || part.length == length)) return &part;
  const size_t least = std::max(kCellsLeast, cells_max_ / kPartsMax);
  const size_t free = cells_max_ - allocated();
  const size_t size = std::max(least, free / kPartOfFree) / 2 * 2;
  if (size > free) return nullptr;
  Part& part = parts_.emplace_back();
  part.window = key.window;
  part.length = length;
  part.cells.resize(size);
  return &part;
}

// A ballot that several lives or keys were promised is nobody's to have again, so life 0. A mark (life 0) of
// the key's own ballot leaves its claim's life.
void MarkSketch::promise(Cell& cell, uint64_t word, const Held& held) {
  if (held.promised.counter == 0) return;
  const bool own = cell.promised.counter == 0 || (!cell.several && cell.claimed == word);
  cell.several = cell.several || !own;
  cell.claimed = word;
  if (held.promised > cell.promised) {
    cell.promised = held.promised;
    cell.promised_life = held.promised_life;
  } else if (held.promised == cell.promised && held.promised_life != cell.promised_life &&
             !(own && held.promised_life == 0)) {
    cell.promised_life = 0;
  }
}

bool MarkSketch::raise(const RegisterKey& key, const Held& held, Now now) {
  Part* part = part_for(key, held.length);
  if (part == nullptr) return false;
  const auto [first, second] = cells_of(*part, key);
  for (const size_t at : {first, second}) {
    Cell& cell = part->cells[at];
    if (cell.used && idle(*part, cell, now)) {
      cell = Cell{};
      --part->used;
    }
    part->used += cell.used ? 0 : 1;
    cell.used = true;
    promise(cell, key.key.word(), held);
    const auto largest = key.window != 0 ? static_cast<int64_t>(held.mark) : nanos(held.until);
    cell.largest = std::max(cell.largest, largest);
    cell.touched = std::max(cell.touched, held.touched);
    cell.keep = std::max(cell.keep, held.length);
  }
  return true;
}

MarkSketch::Held MarkSketch::read_cell(const Part& part, const Cell& cell, uint64_t word) {
  Held held;
  if (cell.several || cell.claimed == word) {
    held.promised = cell.promised;
    held.promised_life = cell.promised_life;
  }
  if (part.window != 0)
    held.mark = static_cast<uint64_t>(cell.largest);
  else
    held.until = MonoTime(Duration(cell.largest));
  held.touched = cell.touched;
  held.length = part.window != 0 ? part.length : cell.keep;
  return held;
}

// Of one ballot either life will do: where the key itself was promised it, each cell has that life or 0.
MarkSketch::Held MarkSketch::smaller(const Held& a, const Held& b) {
  Held held = a.promised < b.promised ? a : b;
  held.mark = std::min(a.mark, b.mark);
  held.until = std::min(a.until, b.until);
  held.touched = std::min(a.touched, b.touched);
  held.length = std::min(a.length, b.length);
  return held;
}

std::optional<MarkSketch::Held> MarkSketch::read(const RegisterKey& key, Now now) const {
  std::optional<Held> largest;
  for (const Part& part : parts_) {  // two where rules are at odds about the window's length
    if (part.window != key.window) continue;
    const auto [first, second] = cells_of(part, key);
    const Cell &a = part.cells[first], &b = part.cells[second];
    if (!a.used || !b.used || idle(part, a, now) || idle(part, b, now)) continue;
    Held held = smaller(read_cell(part, a, key.key.word()), read_cell(part, b, key.key.word()));
    if (largest) {
      if (largest->promised > held.promised)
        held.promised = largest->promised, held.promised_life = largest->promised_life;
      held.mark = std::max(held.mark, largest->mark);
      held.length = std::max(held.length, largest->length);
    }
    largest = held;
  }
  return largest;
}

void MarkSketch::sweep(Part& part, Now now) {
  for (size_t i = 0, n = part.cells.size() / kSweeps + 1; i < n; ++i) {
    if (part.swept >= part.cells.size()) part.swept = 0;
    Cell& cell = part.cells[part.swept++];
    if (!cell.used || !idle(part, cell, now)) continue;
    cell = Cell{};
    --part.used;
  }
}

void MarkSketch::expire(WallTime clock, Now now) {
  for (Part& part : parts_)
    if (part.window == 0) sweep(part, now);
  std::erase_if(parts_, [&](const Part& part) {
    return part.window == 0 ? part.used == 0 : window_at(clock, part.length) > part.window + kWindowsKept;
  });
}

WallTime MarkSketch::windows_before() const {
  WallTime before = WallTime::min();
  for (const Part& part : parts_)
    if (part.window != 0) before = std::max(before, window_start(part.window, part.length) + Duration(1));
  return before;
}

bool MarkSketch::holds_buckets() const {
  return std::any_of(parts_.begin(), parts_.end(), [](const Part& part) { return part.window == 0; });
}

size_t MarkSketch::cells() const {
  size_t sum = 0;
  for (const Part& part : parts_) sum += part.used;
  return sum;
}

}  // namespace tally
