#include "daemon/order_board.h"

#include <algorithm>
#include <asio/post.hpp>
#include <utility>

#include "base/hash.h"
#include "daemon/order_file.h"

namespace tally {
namespace {

constexpr NodeId kAlone = 1;
constexpr int kWritePart = 20;       // one part in so many of the admin thread's time goes into the file
constexpr size_t kCopyAtOnce = 256;  // of what is known, under the mutex

// `order`: nullptr: nothing holds of the key.
void enter(OrderTable& table, const Orders::Name& name, const KeyOrder* order, const RuleSet& rules,
           uint64_t seed) {
  const Rule* const rule = rules.find(name.first);
  if (rule == nullptr) return;  // it may come with a reload
  OrderTable::Order one;
  one.key = hash_key(name.second, seed, rule->table_seed);
  if (order == nullptr || (order->kind == OrderKind::limit && rule == &rules.inline_rule()))
    return table.remove(one.key);
  one.until = WallTime(Duration(order->until_ns));
  one.limit = rule->limit;
  if (order->kind == OrderKind::block) one.treatment = Treatment::blocked;
  if (order->kind == OrderKind::allow) one.treatment = Treatment::exempt;
  if (order->kind == OrderKind::limit) one.limit = with_number(*rule, rules.share(), order->limit);
  table.put(one);
}

}  // namespace

OrderBoard::OrderBoard(Parts parts) : parts_(std::move(parts)), write_again_(parts_.admin) {
  if (parts_.file.empty()) return;
  auto read = read_orders(parts_.file);
  if (!read) {
    parts_.log.warning("what was ordered of keys cannot be read: this node has it from the others alone",
                       {{"error", read.error()}});
    return;
  }
  for (const KeyOrder& order : read.value()) {
    known_.insert_or_assign({order.rule, order.key}, order);
    orders_.hear(order, parts_.clock.now().wall);
  }
}

void OrderBoard::set_workers(const std::vector<std::unique_ptr<Worker>>& workers) {
  const std::lock_guard lock(mutex_);
  workers_ = &workers;
  if (newest_ == nullptr) return;
  for (const auto& worker : workers) worker->use(newest_);
}

// In parts, so that nobody who has something new waits long. An order is whole in any case.
std::vector<KeyOrder> OrderBoard::known() const {
  std::vector<KeyOrder> all;
  Orders::Name last;
  for (size_t more = kCopyAtOnce; more == kCopyAtOnce;) {
    const std::lock_guard lock(mutex_);
    more = 0;
    for (auto at = known_.upper_bound(last); at != known_.end() && more < kCopyAtOnce; ++at, ++more)
      all.push_back(at->second);
    if (more != 0) last = {all.back().rule, all.back().key};
  }
  return all;
}

void OrderBoard::publish(const Orders& orders, const RuleSet& rules, WallTime now,
                         std::optional<uint64_t> since) {
  const auto names = since && newest_ != nullptr ? orders.changed_since(*since) : std::nullopt;
  const auto table = names ? std::make_shared<OrderTable>(*newest_) : std::make_shared<OrderTable>();
  const uint64_t seed = parts_.overview.limiter.slots().seed();
  if (names)
    for (const Orders::Name& name : *names) enter(*table, name, orders.find(name, now), rules, seed);
  else
    for (const KeyOrder& order : orders.in_force(now))
      enter(*table, {order.rule, order.key}, &order, rules, seed);
  std::erase_if(tables_, [](const auto& held) { return held.use_count() == 1; });
  tables_.push_back(table);
  bool to_write = false;
  {
    const std::lock_guard lock(mutex_);
    newest_ = table;
    if (workers_ != nullptr)
      for (const auto& worker : *workers_) worker->use(newest_);
    if (names)
      for (const Orders::Name& name : *names) keep(name, orders.known(name));
    else
      keep_all(orders);
    to_write = !parts_.file.empty() && !std::exchange(to_write_, true);
  }
  if (to_write) asio::post(parts_.admin, [this] { write_soon(); });
}

void OrderBoard::keep(const Orders::Name& name, const KeyOrder* order) {
  if (order != nullptr)
    known_.insert_or_assign(name, *order);
  else
    known_.erase(name);
}

void OrderBoard::keep_all(const Orders& orders) {
  known_.clear();
  for (KeyOrder& order : orders.all()) {
    Orders::Name name{order.rule, order.key};
    known_.emplace_hint(known_.end(), std::move(name), std::move(order));
  }
}

// Written once for all that came until then.
void OrderBoard::write_soon() {
  write_again_.expires_after(std::max(Duration(0), write_not_before_ - parts_.clock.mono()));
  write_again_.async_wait([this](const asio::error_code& error) {
    if (!error) write();
  });
}

void OrderBoard::write() {
  const MonoTime began = parts_.clock.mono();
  {
    const std::lock_guard lock(mutex_);
    to_write_ = false;
  }
  const auto written = write_orders(parts_.file, known());
  if (!written && !failing_)
    parts_.log.error(
        "what is ordered of keys cannot be written: this node forgets it when it restarts, unless others "
        "tell it",
        {{"error", written.error()}});
  if (written && failing_)
    parts_.log.info("what is ordered of keys is written again", {{"file", parts_.file}});
  failing_ = !written;
  const MonoTime ended = parts_.clock.mono();
  write_not_before_ = ended + kWritePart * (ended - began);
}

void OrderBoard::finish() {
  if (to_write_) write();
}

// --- alone ---

void OrderBoard::ask(Call& call, std::function<void()> then) {
  asio::post(parts_.main, [this, &call, then = std::move(then)] {
    answer(call);
    then();
  });
}

void OrderBoard::answer(Call& call) {
  const WallTime now = parts_.clock.now().wall;
  const Orders::Name name = call.rule != nullptr ? Orders::Name{call.rule->name, call.key} : Orders::Name{};
  if (call.kind == Call::Kind::order) {
    const auto set = orders_.set(name, call.ordered, call.n, call.lasts, kAlone, now);
    if (!set) call.error = set.error();
  } else if (call.kind == Call::Kind::lift) {
    call.count = orders_.lift(name, kAlone, now) ? 1 : 0;
  } else {
    call.orders = orders_.in_force(now);
  }
  look();
}

void OrderBoard::look() {
  const WallTime now = parts_.clock.now().wall;
  orders_.expire(now);
  const uint64_t since = std::exchange(published_, orders_.changes());
  if (since != orders_.changes()) publish(orders_, *parts_.overview.rules(), now, since);
}

void OrderBoard::use(const RuleSet& rules) {
  if (orders_.size() == 0) return;
  published_ = orders_.changes();
  publish(orders_, rules, parts_.clock.now().wall, std::nullopt);
}

}  // namespace tally
