#include "core/order_table.h"

#include <bit>

#include "base/fail.h"

namespace tally {

// A load of a half at most.
OrderTable::OrderTable(size_t most) : places_(std::bit_ceil(2 * most + 1)), mask_(places_.size() - 1) {
  orders_.reserve(most);
}

void OrderTable::add(const Order& order) {
  CHECK_THAT(orders_.size() < orders_.capacity());
  orders_.push_back(order);
  size_t at = order.key.lo & mask_;
  while (places_[at] != 0) at = (at + 1) & mask_;
  places_[at] = static_cast<uint32_t>(orders_.size());
}

}  // namespace tally
