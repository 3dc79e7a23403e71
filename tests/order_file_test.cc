// The file of orders: what was written is read, and what is damaged is said.
#include "daemon/order_file.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "base/random.h"
#include "seed.h"

using namespace tally;

namespace {

std::vector<KeyOrder> some_orders(size_t n) {
  Random random(test_seed(2));
  std::vector<KeyOrder> orders;
  for (size_t i = 0; i < n; ++i) {
    KeyOrder order;
    order.rule = "api";
    order.key.resize(1 + random.below(kOrderKeyMax));
    for (char& c : order.key) c = static_cast<char>(random.next());
    order.kind = static_cast<OrderKind>(random.below(4));
    order.limit = static_cast<uint32_t>(random.below(1000));
    order.until_ns = static_cast<int64_t>(random.next() >> 2);
    order.keep_ns = order.until_ns + 5;
    order.set_ns = random.next();
    order.setter = random.next();
    orders.push_back(std::move(order));
  }
  return orders;
}

struct Folder {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("tally-orders-" + std::to_string(::getpid()));
  ~Folder() { std::filesystem::remove_all(path); }
};

}  // namespace

TEST_CASE("orders are read as they were written, none and thousands") {
  for (const size_t n : {size_t{0}, size_t{1}, size_t{3000}}) {
    const auto orders = some_orders(n);
    const auto read = parse_orders(format_orders(orders));
    REQUIRE(read);
    CHECK(read.value() == orders);
  }
}

TEST_CASE("any damage is found") {
  const std::string text = format_orders(some_orders(20));
  for (size_t size = 1; size < text.size(); size += 7)
    CHECK((!parse_orders(text.substr(0, size)) || parse_orders(text.substr(0, size)).value().size() < 20));
  for (size_t at = 0; at < text.size(); at += 5) {
    std::string damaged = text;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    CHECK_FALSE(parse_orders(damaged));
  }
}

TEST_CASE("the file makes its directory, is replaced as a whole, and is none where there is none") {
  const Folder folder;
  const std::string file = (folder.path / "deeper" / "n.state.orders").string();
  CHECK(read_orders(file).value().empty());
  const auto orders = some_orders(10);
  REQUIRE(write_orders(file, some_orders(3)));
  REQUIRE(write_orders(file, orders));
  CHECK(read_orders(file).value() == orders);
  std::ofstream(file, std::ios::trunc) << "something else";
  const auto read = read_orders(file);
  REQUIRE_FALSE(read);
  CHECK(read.error().find(file + " is of no use") == 0);
}
