// What a full register can no longer keep by key: a sketch of largest marks and promises, a part for each window.
//
// Thread rule: the cluster thread's.
//
// A key has two cells in its window's part, by two hashes (as in a count-min sketch, but with the maximum for the sum: conservative
// in the same way). A cell keeps the largest of all that any key put there; what is read for a key is the smaller of its two cells,
// so never less than what it put there itself. Read too large, a mark makes a claimant charge more and a promise refuses an owner
// more: both only deny. Nothing is taken out of a part before its window is over.
//
// Promises to claims are rare and would depose the owners of others, so a cell knows whose promise it holds while that is one key
// only: to any other it says that nothing is promised. Ballots of counter 0 need no promise, and leave none.
//
// Buckets (window 0) have one part for all; a cell there is forgotten when every key in it has been idle for its keep.
//
// Memory: `cells_max` cells of sizeof(Cell) = 64 bytes at most, allocated a part at a time. A new part takes an eighth of the cells
// that are free, so few windows have large parts and many smaller ones.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/time.h"
#include "cluster/register_key.h"
#include "cluster/wire.h"

namespace tally {

class MarkSketch {
 public:
  explicit MarkSketch(size_t cells_max) : cells_max_(cells_max) {}

  // What is put in for a key, and no less than that read again.
  struct Held {
    Ballot promised;              // counter 0: no claim was promised anything
    uint64_t promised_life = 0;   // of the claimant; 0: of no claim, or of several lives
    uint64_t mark = 0;            // windows: the largest accepted, a cost
    MonoTime until{};             // buckets: the mark on this node's own clock
    MonoTime touched{};           // buckets: last accepted
    Duration length{0};           // windows: W; buckets: how long it is kept when idle
  };

  // Keeps `held` of the key. False where its window has no part and no cells are free for one: nothing is kept then.
  bool raise(const RegisterKey& key, const Held& held, Now now);
  // nullopt: nothing was put in for the key.
  std::optional<Held> read(const RegisterKey& key, Now now) const;
  // Drops what is over: windows by `clock`, buckets by `now`. Cheap when called often: of the buckets it looks at a few cells at a time.
  void expire(WallTime clock, Now now);

  // No window that begins at that time or later has a part. WallTime::min(): none has.
  WallTime windows_before() const;
  bool holds_buckets() const;

  size_t cells() const;  // that something was put in
  size_t cells_max() const { return cells_max_; }

 private:
  struct Cell {
    Ballot promised;
    uint64_t promised_life = 0;
    uint64_t claimed = 0;  // the key whose promises these are, by its word
    int64_t largest = 0;   // windows: mark; buckets: until, ns
    MonoTime touched{};    // buckets
    Duration keep{0};      // buckets
    bool several = false;  // promises of several keys
    bool used = false;
  };
  static_assert(sizeof(Cell) == 64);
  struct Part {  // of one window
    int64_t window = 0;
    Duration length{0};
    std::vector<Cell> cells;  // the first half for one hash, the second for the other
    size_t used = 0;
    size_t swept = 0;
  };
  struct Pair {
    size_t first, second;
  };
  static Pair cells_of(const Part& part, const RegisterKey& key);
  static bool idle(const Part& part, const Cell& cell, Now now);
  static void promise(Cell& cell, uint64_t word, const Held& held);
  static Held read_cell(const Part& part, const Cell& cell, uint64_t word);
  static Held smaller(const Held& a, const Held& b);
  Part* part_for(const RegisterKey& key, Duration length);
  size_t allocated() const;
  static void sweep(Part& part, Now now);

  const size_t cells_max_;
  std::vector<Part> parts_;
};

}  // namespace tally
