// What a process holds of the limits that it asks its daemon about: portions (Limiter::take_portion) that it
// spends in its own memory.
//
// Thread rule: find, spend, is_ours and the Entry's facts from any thread, without a lock. Everything else
// from one thread at a time: the caller has a lock for it. No clock, no socket in it.
//
// The daemon has counted a portion as used when it tells of it, so whatever is spent, lost, or held by a
// process that died, the bound is the daemon's. A portion ends by the clock of the process, reckoned from
// before it was asked for. Who spends reads the clock after the exchange: only what was spent before the end
// counts, the rest is lost.
//
// An entry goes from key to key like this: hash cleared, cells emptied under a number that no portion ever
// had, new hash. So an exchange that was prepared for the old key fails, or finds the hash changed after it;
// then what it took is lost, and the process asks.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "base/time.h"

namespace tally::client {

// What a daemon answered to TALLY.LEASE.
struct Reply {
  bool limited = false;
  uint32_t limit = 0, remaining = 0;
  Duration retry_after{-1};  // negative: nothing to wait for, or never
  Duration reset_after{0};
  int reason = 0;
  uint32_t amount = 0;  // of the portion; 0: none
  Duration lasts{0};
  int64_t account = 0;  // for TALLY.PUTBACK; 0: it can not be put back
};

class Leases {
 public:
  // Room for `keys` keys that are asked about now and then, a power of 2; others push out those that hold
  // nothing. Throws std::bad_alloc. A child process finds its copy empty after a fork: what the parent holds
  // is the parent's alone.
  explicit Leases(size_t keys);
  ~Leases();
  Leases(const Leases&) = delete;
  Leases& operator=(const Leases&) = delete;

  struct Cell {
    std::atomic<uint64_t> word{0};  // number of the portion:32 | left:32
    std::atomic<int64_t> end{0};    // mono ns
  };
  struct alignas(64) Entry {
    std::atomic<uint64_t> hi{0}, lo{0};  // of the key's hash; hi 0: free
    Cell cells[2];
    std::atomic<int64_t> denied_until{0};  // mono ns: the daemon need not be asked before
    std::atomic<uint64_t> said{0};         // limit:32 | remaining:32, when it was asked last
    std::atomic<int64_t> retry_at{0}, reset_at{0};
    std::atomic<uint32_t> ended{0};  // that was held and not spent, since the last tick

    struct Held {
      uint32_t left = 0;
      int64_t end = 0;
    };
    Held held(int cell) const { return {left_in(cells[cell].word.load()), cells[cell].end.load()}; }
    uint32_t left() const {
      return left_in(cells[0].word.load(std::memory_order_relaxed)) +
             left_in(cells[1].word.load(std::memory_order_relaxed));
    }
  };

  Entry* find(KeyHash hash) const {
    for (size_t i = 0; i < kProbes; ++i) {
      Entry& entry = entries_[(hash.lo + i) & mask_];
      if (entry.hi.load(std::memory_order_acquire) == hash.hi &&
          entry.lo.load(std::memory_order_relaxed) == hash.lo)
        return &entry;
    }
    return nullptr;
  }
  // Takes `cost` of what is held; kNothing: there is not enough. Returns the clock's reading, mono ns, once
  // it is taken: what had ended by then was nobody's. `clock` is not read where nothing is held.
  static constexpr int64_t kNothing = std::numeric_limits<int64_t>::min();
  template <typename Clock>
  static int64_t spend(Entry& entry, KeyHash hash, uint32_t cost, Clock clock) {
    for (;;) {
      const int64_t end = take(entry, hash, cost);
      if (end == kNothing) return kNothing;
      const int64_t now = clock();
      if (now < end) return now;
      drop_ended(entry, now);
    }
  }
  static bool is_of(const Entry& entry, KeyHash hash) {
    return entry.hi.load(std::memory_order_acquire) == hash.hi &&
           entry.lo.load(std::memory_order_relaxed) == hash.lo;
  }
  // False in a child of the process that made it.
  bool is_ours() const { return marker_->hi.load(std::memory_order_relaxed) != 0; }

  // A process is about to ask about the key. Returns how much more than `cost` to ask for; 0 while it is
  // asked for seldom, or somebody asks for more already. `ask` is to be followed by `answered` or
  // `unanswered`.
  struct Asking {
    uint32_t most = 0;
    size_t place = 0;  // of the key's entry; kNowhere: it has none
  };
  static constexpr size_t kNowhere = std::numeric_limits<size_t>::max();
  Asking ask(std::string_view rule, std::string_view key, KeyHash hash, uint32_t cost);
  // `sent`: a time before the question was. `every`: between two ticks.
  void answered(const Asking& asking, KeyHash hash, const Reply& reply, MonoTime sent, Duration every);
  void unanswered(const Asking& asking, KeyHash hash);

  // Every tick: what to ask for ahead of need, and what to put back.
  struct Order {
    Asking asking;
    KeyHash hash;
    std::string rule, key;
    uint32_t put_back = 0;  // 0: ask for asking.most
    int64_t account = 0;
  };
  std::vector<Order> tick(MonoTime now);
  // All that can be put back; the end.
  std::vector<Order> leave();
  bool quiet() const { return active_.empty(); }  // no key was asked about lately

  uint64_t spent() const { return spent_; }        // of portions, up to the last tick
  uint64_t received() const { return received_; }  // in portions

 private:
  static constexpr size_t kProbes = 4;
  static constexpr uint32_t left_in(uint64_t word) { return static_cast<uint32_t>(word); }

  // What only those who ask need.
  struct Key {
    KeyHash hash;
    std::string rule, key;
    int64_t account[2] = {0, 0};
    uint64_t granted = 0;      // since the last tick
    uint64_t left_before = 0;  // at the last tick
    uint32_t asked = 0;        // costs that the daemon was asked for since the last tick
    uint32_t calls = 0;        // in which
    uint32_t demand = 0;       // in costs, a tick
    uint32_t idle = 0;         // ticks
    bool hot = false;          // worth a portion, at the last tick
    bool active = false, asking = false;
  };

  // The exchange. Returns when what was taken ends.
  static int64_t take(Entry& entry, KeyHash hash, uint32_t cost) {
    for (Cell& cell : entry.cells) {
      uint64_t word = cell.word.load(std::memory_order_acquire);
      while (left_in(word) >= cost) {
        const int64_t end = cell.end.load(std::memory_order_relaxed);
        if (!cell.word.compare_exchange_weak(word, word - cost, std::memory_order_acq_rel,
                                             std::memory_order_acquire))
          continue;
        return is_of(entry, hash) ? end : kNothing;
      }
    }
    return kNothing;
  }
  // What has ended by `now` is nobody's any more, and not in the way of what has not.
  static void drop_ended(Entry& entry, int64_t now) {
    for (Cell& cell : entry.cells) {
      uint64_t word = cell.word.load(std::memory_order_acquire);
      const uint32_t left = left_in(word);
      if (left == 0 || cell.end.load(std::memory_order_relaxed) > now) continue;
      if (cell.word.compare_exchange_strong(word, word - left, std::memory_order_acq_rel))
        entry.ended.fetch_add(left, std::memory_order_relaxed);
    }
  }

  size_t place_of(KeyHash hash);
  void empty(size_t place);
  uint64_t spent_since(size_t place, uint64_t ended) const;
  bool count_spent(size_t place);
  uint32_t take_out(size_t place, int cell, uint32_t most);
  void put_in(size_t place, const Reply& reply, MonoTime sent);
  void put_back(size_t place, uint32_t leave, std::vector<Order>& orders);
  uint32_t next_number();

  const size_t mask_;
  Entry* entries_ = nullptr;
  Entry* marker_ = nullptr;  // behind them, of no key
  std::vector<Key> keys_;
  std::vector<size_t> active_;
  uint32_t number_ = 0;
  uint64_t spent_ = 0, received_ = 0;
};

}  // namespace tally::client
