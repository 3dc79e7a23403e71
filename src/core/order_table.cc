#include "core/order_table.h"

#include <algorithm>
#include <bit>

namespace tally {

void OrderTable::Part::place(size_t i) {
  const size_t mask = places.size() - 1;
  size_t at = orders[i].key.lo & mask;
  while (places[at] != 0) at = (at + 1) & mask;
  places[at] = static_cast<uint32_t>(i + 1);
}

void OrderTable::Part::place_all() {
  places.assign(std::bit_ceil(2 * orders.size() + 2), 0);
  for (size_t i = 0; i < orders.size(); ++i) place(i);
}

// No other table's.
OrderTable::Part& OrderTable::own(size_t i) {
  std::shared_ptr<Part>& part = parts_[i];
  if (part == nullptr) {
    part = std::make_shared<Part>();
    part->place_all();
  } else if (part.use_count() > 1) {
    part = std::make_shared<Part>(*part);
  }
  return *part;
}

void OrderTable::put(const Order& order) {
  Part& part = own(part_of(order.key));
  if (const Order* const there = part.find(order.key)) {
    part.orders[static_cast<size_t>(there - part.orders.data())] = order;
    return;
  }
  part.orders.push_back(order);
  ++size_;
  if (2 * part.orders.size() > part.places.size())
    part.place_all();
  else
    part.place(part.orders.size() - 1);
}

void OrderTable::remove(KeyHash key) {
  const size_t i = part_of(key);
  if (parts_[i] == nullptr || parts_[i]->find(key) == nullptr) return;
  Part& part = own(i);
  std::erase_if(part.orders, [&](const Order& order) { return order.key == key; });
  part.place_all();
  --size_;
}

}  // namespace tally
