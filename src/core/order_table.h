// What operators have ordered of single keys while the daemon runs (cluster/orders.h), as decisions look it
// up.
//
// Thread rule: put() and remove() before it is shared; immutable afterwards, shared by pointer to const.
// find() allocates and locks nothing.
//
// A copy shares all with what it was made of, and put() and remove() copy one part in kParts first: so a
// table that differs from another in a few orders costs little, however many there are.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/hash.h"
#include "base/time.h"
#include "core/rules.h"

namespace tally {

enum class OrderKind : uint8_t { lifted, block, allow, limit };
inline constexpr Duration kOrderMax = std::chrono::hours(24 * 366);  // how long one may hold
inline constexpr size_t kOrderKeyMax = 1'000;  // bytes: so that the largest fits a datagram, sealed

class OrderTable {
 public:
  struct Order {
    KeyHash key;
    Treatment treatment = Treatment::limited;
    Limit limit;  // limited: the key's; else its rule's
    WallTime until{};
  };

  void put(const Order& order);  // in the place of what there is of its key
  void remove(KeyHash key);      // also where there is nothing of it

  size_t size() const { return size_; }
  // nullptr: there is none, or it is over.
  const Order* find(KeyHash key, WallTime now) const {
    const Part* const part = parts_[part_of(key)].get();
    if (part == nullptr) return nullptr;
    const Order* const order = part->find(key);
    return order != nullptr && order->until > now ? order : nullptr;
  }

 private:
  struct Part {
    std::vector<Order> orders;
    std::vector<uint32_t>
        places;  // by hash, open addressing: place in `orders`, from 1; 0: free. Half of them at least

    const Order* find(KeyHash key) const {
      const size_t mask = places.size() - 1;
      for (size_t at = key.lo & mask; places[at] != 0; at = (at + 1) & mask)
        if (const Order& order = orders[places[at] - 1]; order.key == key) return &order;
      return nullptr;
    }
    void place_all();
    void place(size_t i);
  };
  static constexpr size_t kParts = 256;
  static size_t part_of(KeyHash key) { return key.hi % kParts; }
  Part& own(size_t i);

  std::array<std::shared_ptr<Part>, kParts> parts_;  // nullptr: there is none
  size_t size_ = 0;
};

}  // namespace tally
