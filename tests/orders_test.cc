// Orders of single keys: which one holds, what is forgotten when, and that what was replaced never comes
// back.
#include "cluster/orders.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <memory>

#include "core/order_table.h"
#include "core_fixture.h"

namespace tally {
namespace {

using namespace test;

constexpr NodeId kMe = 10, kOther = 20;
const Orders::Name kBob{"api", "bob"};

WallTime after(Duration d) { return wall(kEpoch + d); }

// What holds of a key: "" nothing, "block", "allow", or a limit.
std::string holds(const Orders& orders, const Orders::Name& name, WallTime now) {
  for (const KeyOrder& order : orders.in_force(now))
    if (Orders::Name{order.rule, order.key} == name)
      return order.kind == OrderKind::block   ? "block"
             : order.kind == OrderKind::allow ? "allow"
                                              : std::to_string(order.limit);
  return "";
}

TEST_CASE("an order holds until its end, and is forgotten then") {
  Orders orders;
  REQUIRE(orders.set(kBob, OrderKind::block, 0, secs(10), kMe, after(secs(0))));
  CHECK(holds(orders, kBob, after(secs(9))) == "block");
  CHECK(holds(orders, kBob, after(secs(10))) == "");
  const uint64_t changes = orders.changes();
  orders.expire(after(secs(9)));
  CHECK(orders.changes() == changes);
  orders.expire(after(secs(10)));
  CHECK(orders.changes() > changes);
  CHECK(orders.size() == 0);
  CHECK(orders.digest() == 0);
}

TEST_CASE("of two orders the later holds, wherever they are heard in which order") {
  Orders mine, others;
  const KeyOrder first = mine.set(kBob, OrderKind::block, 0, secs(60), kMe, after(secs(0))).value();
  others.hear(first, after(secs(0)));
  const KeyOrder second =
      others.set(kBob, OrderKind::limit, 7, secs(30), kOther, after(secs(-5))).value();  // its clock is late
  CHECK(second.set_ns > first.set_ns);
  CHECK(mine.hear(second, after(secs(1))) == Orders::Heard::news);
  CHECK(mine.hear(second, after(secs(1))) == Orders::Heard::known);
  CHECK(mine.hear(first, after(secs(1))) == Orders::Heard::known);
  CHECK(holds(mine, kBob, after(secs(1))) == "7");
  Orders third;
  third.hear(second, after(secs(1)));
  third.hear(first, after(secs(1)));
  CHECK(holds(third, kBob, after(secs(1))) == "7");
  CHECK(third.digest() == mine.digest());
}

TEST_CASE(
    "what was replaced or lifted does not come back from who was away, however short the later order was") {
  for (const bool lifts : {false, true}) {
    Orders here;
    const KeyOrder old = here.set(kBob, OrderKind::block, 0, secs(100), kMe, after(secs(0))).value();
    if (lifts)
      REQUIRE(here.lift(kBob, kMe, after(secs(1))));
    else
      REQUIRE(here.set(kBob, OrderKind::allow, 0, secs(5), kMe, after(secs(1))));
    here.expire(after(secs(10)));
    CHECK(holds(here, kBob, after(secs(10))) == "");
    CHECK(here.size() == 1);  // known, as the old one may still come
    CHECK(here.hear(old, after(secs(50))) == Orders::Heard::known);
    CHECK(holds(here, kBob, after(secs(50))) == "");
    here.expire(after(secs(100)));
    CHECK(here.size() == 0);
    CHECK(here.hear(old, after(secs(100))) == Orders::Heard::known);  // over
    CHECK(here.size() == 0);
  }
}

TEST_CASE("an older order that lasts longer, heard late, keeps the later one known for as long") {
  Orders away, here;
  const KeyOrder old = away.set(kBob, OrderKind::block, 0, secs(100), kOther, after(secs(0))).value();
  const KeyOrder later = here.set(kBob, OrderKind::allow, 0, secs(20), kMe, after(secs(1))).value();
  CHECK(later.keep_ns < old.keep_ns);
  CHECK(here.hear(old, after(secs(10))) == Orders::Heard::news);  // that it was there
  CHECK(holds(here, kBob, after(secs(10))) == "allow");
  here.expire(after(secs(30)));
  CHECK(here.hear(old, after(secs(30))) == Orders::Heard::known);
  CHECK(holds(here, kBob, after(secs(30))) == "");
}

TEST_CASE("only what holds can be lifted") {
  Orders orders;
  CHECK_FALSE(orders.lift(kBob, kMe, after(secs(0))));
  REQUIRE(orders.set(kBob, OrderKind::block, 0, secs(10), kMe, after(secs(0))));
  CHECK(orders.lift(kBob, kMe, after(secs(1))));
  CHECK_FALSE(orders.lift(kBob, kMe, after(secs(2))));
  CHECK(holds(orders, kBob, after(secs(2))) == "");
}

TEST_CASE("numbers that no node of ours says are refused") {
  Orders orders;
  const KeyOrder good = Orders().set(kBob, OrderKind::limit, 5, secs(10), kOther, after(secs(0))).value();
  const auto refused = [&](auto change) {
    KeyOrder order = good;
    change(order);
    return orders.hear(order, after(secs(0))) == Orders::Heard::out_of_range;
  };
  CHECK(refused([](KeyOrder& o) { o.rule.clear(); }));
  CHECK(refused([](KeyOrder& o) { o.key.clear(); }));
  CHECK(refused([](KeyOrder& o) { o.key.assign(kOrderKeyMax + 1, 'x'); }));
  CHECK(refused([](KeyOrder& o) { o.limit = 0; }));
  CHECK(refused([](KeyOrder& o) { o.until_ns = o.keep_ns + 1; }));
  CHECK(refused([](KeyOrder& o) { o.keep_ns = INT64_MAX; }));
  CHECK(refused([](KeyOrder& o) { o.set_ns += static_cast<uint64_t>(nanos(std::chrono::hours(25))); }));
  CHECK(orders.size() == 0);
  CHECK(orders.hear(good, after(secs(0))) == Orders::Heard::news);
}

TEST_CASE("there is an end to how many there are, which is said with what to do") {
  Orders orders;
  for (size_t i = 0; i < Orders::kMost; ++i)
    REQUIRE(orders.set({"api", std::to_string(i)}, OrderKind::block, 0, secs(100), kMe, after(secs(0))));
  const auto more = orders.set({"api", "more"}, OrderKind::block, 0, secs(100), kMe, after(secs(40)));
  REQUIRE_FALSE(more);
  CHECK(more.error().find("there are 65536 orders in force") == 0);
  CHECK(more.error().find("the next ends in 60 s") != std::string::npos);
  CHECK(orders.set({"api", "7"}, OrderKind::allow, 0, secs(100), kMe,
                   after(secs(40))));  // in the place of another
  const KeyOrder theirs =
      Orders().set({"api", "theirs"}, OrderKind::block, 0, secs(100), kOther, after(secs(40))).value();
  CHECK(orders.hear(theirs, after(secs(40))) == Orders::Heard::news);
  orders.expire(after(secs(100)));
  CHECK(orders.set({"api", "more"}, OrderKind::block, 0, secs(100), kMe, after(secs(100))));
}

TEST_CASE("an order that was lifted or has ended makes room for another, however long it has to be known") {
  Orders orders;
  for (size_t i = 0; i < Orders::kMost; ++i)
    REQUIRE(orders.set({"api", std::to_string(i)}, OrderKind::block, 0, secs(1000), kMe, after(secs(0))));
  REQUIRE(orders.set({"api", "0"}, OrderKind::block, 0, secs(10), kMe,
                     after(secs(0))));  // shorter than the one before
  CHECK_FALSE(orders.set({"api", "more"}, OrderKind::block, 0, secs(1000), kMe, after(secs(1))));
  REQUIRE(orders.lift({"api", "1"}, kMe, after(secs(1))));
  CHECK(orders.set({"api", "more"}, OrderKind::block, 0, secs(1000), kMe, after(secs(1))));
  CHECK_FALSE(orders.set({"api", "1"}, OrderKind::block, 0, secs(1000), kMe, after(secs(1))));
  CHECK(orders.set({"api", "1"}, OrderKind::block, 0, secs(1000), kMe, after(secs(10))));
  CHECK(orders.size() == Orders::kMost + 1);
}

TEST_CASE(
    "of those that are known and not in force, the ones that end last are kept, and nodes agree which") {
  Orders first, second;
  std::vector<KeyOrder> said;
  for (size_t i = 0; i < Orders::kMostOver + 100; ++i) {
    const Orders::Name name{"api", std::to_string(i)};
    REQUIRE(first.set(name, OrderKind::block, 0, secs(static_cast<int64_t>(1000 + i % 1000)), kMe,
                      after(secs(0))));
    said.push_back(first.lift(name, kMe, after(secs(0))).value());
  }
  std::ranges::reverse(said);
  for (const KeyOrder& order : said) second.hear(order, after(secs(0)));
  CHECK(first.size() == Orders::kMostOver);
  CHECK(first.all() == second.all());
  CHECK(first.digest() == second.digest());
  for (const KeyOrder& order : first.all()) REQUIRE(order.keep_ns > nanos(after(secs(1000))));
  CHECK(first.set(kBob, OrderKind::block, 0, secs(10), kMe, after(secs(0))));
  // Nor does telling each other go on.
  for (const KeyOrder& order : said) REQUIRE(first.hear(order, after(secs(0))) != Orders::Heard::news);
}

TEST_CASE("who goes by the differences has what holds, and is told to look at all where it is too long ago") {
  Random random(seed());
  Orders orders;
  std::map<Orders::Name, KeyOrder> beside;
  uint64_t seen = 0;
  for (int i = 0; i < 3000; ++i) {
    const WallTime now = after(secs(i));
    const Orders::Name name{"api", std::to_string(random.below(20))};
    if (random.chance(0.3))
      orders.lift(name, kMe, now);
    else
      REQUIRE(orders.set(name, OrderKind::limit, static_cast<uint32_t>(i + 1), secs(random.between(1, 50)),
                         kMe, now));
    orders.expire(now);
    if (random.chance(0.7)) continue;
    const auto names = orders.changed_since(seen);
    REQUIRE(names);
    seen = orders.changes();
    for (const Orders::Name& changed : *names)
      if (const KeyOrder* const order = orders.find(changed, now))
        beside[changed] = *order;
      else
        beside.erase(changed);
    std::vector<KeyOrder> all;
    for (const auto& [at, order] : beside) all.push_back(order);
    REQUIRE(all == orders.in_force(now));
  }
  CHECK(orders.changed_since(orders.changes())->empty());
  CHECK(orders.changed_since(orders.changes() - Orders::kChangesKept));
  CHECK_FALSE(orders.changed_since(orders.changes() - Orders::kChangesKept - 1));
}

TEST_CASE("nodes that heard the same in any order, some of it twice, hold the same") {
  Random random(seed());
  for (int round = 0; round < kRounds; ++round) {
    std::vector<KeyOrder> said;
    Orders setters[2];
    for (int i = 0; i < 30; ++i) {
      Orders& setter = setters[random.below(2)];
      const NodeId id = &setter == setters ? kMe : kOther;
      const Orders::Name name{"api", std::to_string(random.below(5))};
      const WallTime now = after(secs(i));
      if (random.chance(0.3)) {
        if (const auto lifted = setter.lift(name, id, now)) said.push_back(*lifted);
      } else {
        said.push_back(setter
                           .set(name, OrderKind::limit, static_cast<uint32_t>(i + 1),
                                secs(random.between(1, 200)), id, now)
                           .value());
      }
      if (!said.empty() && random.chance(0.5))
        setters[random.below(2)].hear(said[random.below(said.size())], now);
    }
    Orders a, b;
    const WallTime now = after(secs(30));
    for (const KeyOrder& order : said) a.hear(order, now);
    for (size_t i = 0; i < 3 * said.size(); ++i) b.hear(said[random.below(said.size())], now);
    std::ranges::reverse(said);
    for (const KeyOrder& order : said) b.hear(order, now);
    REQUIRE(a.in_force(now) == b.in_force(now));
    for (int s = 30; s < 250; s += 20) {
      a.expire(after(secs(s)));
      for (const KeyOrder& order : said) a.hear(order, after(secs(s)));  // from who was away all the time
      REQUIRE(a.in_force(after(secs(s))).size() <= b.in_force(after(secs(s))).size());
      REQUIRE(a.in_force(after(secs(s))) == b.in_force(after(secs(s))));
    }
  }
}

TEST_CASE("all are walked through in parts") {
  Orders orders;
  for (int i = 0; i < 1000; ++i)
    REQUIRE(orders.set({"api", std::to_string(i)}, OrderKind::block, 0, secs(100), kMe, after(secs(0))));
  Orders::Name last;
  size_t seen = 0;
  for (;;) {
    const auto some = orders.some_after(last, 256);
    if (some.empty()) break;
    CHECK(some.size() <= 256);
    CHECK(Orders::Name{some.front().rule, some.front().key} > last);
    last = {some.back().rule, some.back().key};
    seen += some.size();
  }
  CHECK(seen == 1000);
}

TEST_CASE("the table of decisions finds each key, and nothing of it when it is over") {
  Random random(seed());
  OrderTable table;
  std::map<uint64_t, OrderTable::Order> all;
  for (uint64_t i = 0; i < 500; ++i) {
    OrderTable::Order order;
    order.key = {random.next(), i < 100 ? 7 : random.next()};  // some in one place
    order.treatment = static_cast<Treatment>(random.below(3));
    order.until = after(secs(random.between(1, 100)));
    table.put(order);
    all[order.key.hi] = order;
  }
  for (const Duration when : {secs(0), secs(50), secs(100)}) {
    for (const auto& [hi, order] : all) {
      const OrderTable::Order* found = table.find(order.key, after(when));
      REQUIRE((found != nullptr) == (order.until > after(when)));
      if (found != nullptr) REQUIRE(found->treatment == order.treatment);
      REQUIRE(table.find({hi, order.key.lo + 1}, after(when)) == nullptr);
    }
  }
  CHECK(OrderTable().find({1, 2}, after(secs(0))) == nullptr);
}

TEST_CASE("a table that was made of another differs in what was changed, and that one stays as it was") {
  Random random(seed());
  std::map<uint64_t, OrderTable::Order> all;
  auto table = std::make_unique<OrderTable>();
  for (int round = 0; round < 200; ++round) {
    const auto before = all;
    auto next = std::make_unique<OrderTable>(*table);
    for (uint64_t i = random.below(20); i > 0; --i) {
      const uint64_t n = random.below(2000);
      OrderTable::Order order;
      order.key = {n, n % 7};
      order.until = after(secs(random.between(1, 100)));
      if (random.chance(0.4)) {
        next->remove(order.key);
        all.erase(n);
      } else {
        next->put(order);
        all[n] = order;
      }
    }
    const auto has = [](const OrderTable& one, const auto& orders) {
      REQUIRE(one.size() == orders.size());
      for (uint64_t n = 0; n < 2000; ++n) {
        const auto should = orders.find(n);
        const OrderTable::Order* const found = one.find({n, n % 7}, after(secs(0)));
        REQUIRE((found != nullptr) == (should != orders.end()));
        if (found != nullptr) REQUIRE(found->until == should->second.until);
      }
    };
    has(*table, before);
    has(*next, all);
    table = std::move(next);
  }
}

}  // namespace
}  // namespace tally
