// What operators order of single keys (orders.h), at a node: told to all, and another limit given to account
// and books.
#include <algorithm>

#include "cluster/node_impl.h"

namespace tally {

namespace {

constexpr Duration kLookEvery = std::chrono::milliseconds(20);  // however many come

}  // namespace

Result<KeyOrder> Node::order(const Orders::Name& name, OrderKind kind, uint32_t limit, Duration lasts,
                             Now now) {
  Impl& i = *impl_;
  auto order = i.orders.orders().set(name, kind, limit, lasts, i.peers.id(i.peers.self()), now.wall);
  if (order) i.tell_all(order.value(), now);
  return order;
}

bool Node::lift(const Orders::Name& name, Now now) {
  Impl& i = *impl_;
  const auto order = i.orders.orders().lift(name, i.peers.id(i.peers.self()), now.wall);
  if (order) i.tell_all(*order, now);
  return order.has_value();
}

void Node::remember(const KeyOrder& order, Now now) { impl_->on_order(order, now); }

const std::shared_ptr<const RuleSet>& Node::rules() const { return impl_->rules; }

const Orders& Node::orders() const { return impl_->orders.orders(); }

void Node::Impl::tell_all(const KeyOrder& order, Now now) {
  orders.spread(order);
  for (const uint16_t rank : others) mail.send(rank, order);
  for (const uint16_t rank : peers.guests_up(now.mono)) mail.send(rank, order);
}

void Node::Impl::on_order(const KeyOrder& order, Now now) {
  const Orders::Heard heard = orders.on_order(order, now);
  if (heard == Orders::Heard::out_of_range) ++dropped["order_out_of_range"];
  if (heard == Orders::Heard::full) ++dropped["orders_full"];
}

// What limits of single keys hold now, for the owner's books and the lessee's accounts.
void Node::Impl::look_at_orders(Now now) {
  if (orders.orders().changes() == orders_seen || now.mono < orders_looked_at + kLookEvery) return;
  orders_seen = orders.orders().changes();
  orders_looked_at = now.mono;
  KeyLimits next;
  for (const KeyOrder& order : orders.orders().in_force(now.wall)) {
    const Rule* rule = order.kind == OrderKind::limit ? rules->find(order.rule) : nullptr;
    if (rule != nullptr && rule != &rules->inline_rule())
      next[wire_id(order.key, rule->id_key)] = order.limit;
  }
  std::swap(key_limits, next);  // `next` is what held before
  const auto changed = [](const KeyLimits& of, const KeyLimits& other, const WireId& id) {
    const auto found = other.find(id);
    return found == other.end() || found->second != of.at(id);
  };
  const auto use = [&](const WireId& id) {
    lessee.use_limit(id, now);
    owner.use_limit(id, now);
  };
  for (const auto& [id, limit] : key_limits)
    if (changed(key_limits, next, id)) use(id);
  for (const auto& [id, limit] : next)
    if (!key_limits.contains(id)) use(id);
}

}  // namespace tally
