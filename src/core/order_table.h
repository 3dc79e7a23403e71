// What operators have ordered of single keys while the daemon runs (cluster/orders.h), as decisions look it
// up.
//
// Thread rule: add() before it is shared; immutable afterwards, shared by pointer to const. find() allocates
// and locks nothing.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
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

  // `most`: how many are added at most.
  explicit OrderTable(size_t most);
  void add(const Order& order);  // of one key once

  size_t size() const { return orders_.size(); }
  // nullptr: there is none, or it is over.
  const Order* find(KeyHash key, WallTime now) const {
    for (size_t at = key.lo & mask_; places_[at] != 0; at = (at + 1) & mask_) {
      const Order& order = orders_[places_[at] - 1];
      if (order.key == key) return order.until > now ? &order : nullptr;
    }
    return nullptr;
  }

 private:
  std::vector<Order> orders_;
  std::vector<uint32_t> places_;  // by hash, open addressing: place in orders_, from 1; 0: free
  size_t mask_;
};

}  // namespace tally
