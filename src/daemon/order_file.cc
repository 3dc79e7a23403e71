#include "daemon/order_file.h"

#include <variant>

#include "daemon/entry_file.h"
#include "daemon/paths.h"
#include "daemon/whole_file.h"

namespace tally {
namespace {

constexpr size_t kBytesMax = size_t{256} << 20;  // more than Orders::kMostHeard of the longest are

}  // namespace

std::string format_orders(const std::vector<KeyOrder>& orders) {
  EntryFileWriter file(Header{}, kPublicIdKey);
  for (const KeyOrder& order : orders) file.add(order);
  return file.finish();
}

Result<std::vector<KeyOrder>> parse_orders(std::string_view text) {
  std::vector<KeyOrder> orders;
  const auto read = read_entries(text, kPublicIdKey, [&](const Datagram& datagram) -> std::string {
    for (const Entry& entry : datagram.entries)
      if (const auto* order = std::get_if<KeyOrder>(&entry)) orders.push_back(*order);
    return "";
  });
  if (!read) return Failure{read.error()};
  return orders;
}

Result<std::vector<KeyOrder>> read_orders(const std::string& path) {
  const auto text = read_whole_file(path, kBytesMax);
  if (!text) return Failure{text.error()};
  if (!text.value()) return std::vector<KeyOrder>();
  auto orders = parse_orders(*text.value());
  if (!orders) return Failure{path + " is of no use: " + orders.error()};
  return orders;
}

Result<bool> write_orders(const std::string& path, const std::vector<KeyOrder>& orders) {
  if (const auto made = make_directories(path.substr(0, path.rfind('/'))); !made) return made;
  return replace_file(path, format_orders(orders));
}

}  // namespace tally
