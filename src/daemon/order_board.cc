#include "daemon/order_board.h"

#include <algorithm>
#include <asio/post.hpp>
#include <utility>

#include "base/hash.h"
#include "daemon/order_file.h"

namespace tally {
namespace {

constexpr NodeId kAlone = 1;
constexpr Duration kPause = std::chrono::milliseconds(20), kPauseEach = std::chrono::microseconds(4);

std::shared_ptr<const OrderTable> table_of(const std::vector<KeyOrder>& orders, const RuleSet& rules,
                                           uint64_t seed) {
  auto table = std::make_shared<OrderTable>(orders.size());
  for (const KeyOrder& order : orders) {
    const Rule* rule = rules.find(order.rule);
    if (rule == nullptr) continue;  // it may come with a reload
    OrderTable::Order one;
    one.key = hash_key(order.key, seed, rule->table_seed);
    one.until = WallTime(Duration(order.until_ns));
    one.limit = rule->limit;
    if (order.kind == OrderKind::block) one.treatment = Treatment::blocked;
    if (order.kind == OrderKind::allow) one.treatment = Treatment::exempt;
    if (order.kind == OrderKind::limit) {
      if (rule == &rules.inline_rule()) continue;
      one.limit = with_number(*rule, rules.share(), order.limit);
    }
    table->add(one);
  }
  return table;
}

}  // namespace

OrderBoard::OrderBoard(Parts parts) : parts_(std::move(parts)) {
  if (parts_.file.empty()) return;
  auto read = read_orders(parts_.file);
  if (!read) {
    parts_.log.warning("what was ordered of keys cannot be read: this node has it from the others alone",
                       {{"error", read.error()}});
    return;
  }
  known_ = std::move(read.value());
  for (const KeyOrder& order : known_) orders_.hear(order, parts_.clock.now().wall);
}

void OrderBoard::set_workers(const std::vector<std::unique_ptr<Worker>>& workers) {
  const std::lock_guard lock(mutex_);
  workers_ = &workers;
  if (newest_ == nullptr) return;
  for (const auto& worker : workers) worker->use(newest_);
}

std::vector<KeyOrder> OrderBoard::known() const {
  const std::lock_guard lock(mutex_);
  return known_;
}

Duration OrderBoard::pause() const {
  return kPause + kPauseEach * static_cast<int64_t>(newest_ != nullptr ? newest_->size() : 0);
}

void OrderBoard::publish(const Orders& orders, const RuleSet& rules, WallTime now) {
  auto table = table_of(orders.in_force(now), rules, parts_.overview.limiter.slots().seed());
  std::erase_if(tables_, [](const auto& held) { return held.use_count() == 1; });
  tables_.push_back(table);
  {
    const std::lock_guard lock(mutex_);
    newest_ = std::move(table);
    if (workers_ != nullptr)
      for (const auto& worker : *workers_) worker->use(newest_);
  }
  keep(orders.all());
}

// Written once for all that came until then.
void OrderBoard::keep(std::vector<KeyOrder> known) {
  {
    const std::lock_guard lock(mutex_);
    known_ = std::move(known);
    if (parts_.file.empty() || std::exchange(to_write_, true)) return;
  }
  asio::post(parts_.admin, [this] { write(); });
}

void OrderBoard::write() {
  std::vector<KeyOrder> known;
  {
    const std::lock_guard lock(mutex_);
    to_write_ = false;
    known = known_;
  }
  const auto written = write_orders(parts_.file, known);
  if (!written && !failing_)
    parts_.log.error(
        "what is ordered of keys cannot be written: this node forgets it when it restarts, unless others "
        "tell it",
        {{"error", written.error()}});
  if (written && failing_)
    parts_.log.info("what is ordered of keys is written again", {{"file", parts_.file}});
  failing_ = !written;
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
  if (std::exchange(published_, orders_.changes()) != orders_.changes())
    publish(orders_, *parts_.overview.rules(), now);
}

void OrderBoard::use(const RuleSet& rules) {
  if (orders_.size() > 0) publish(orders_, rules, parts_.clock.now().wall);
}

}  // namespace tally
