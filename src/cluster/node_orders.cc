// What operators order of single keys (orders.h), at a node: told to all, and another limit given to account
// and books.
#include <optional>

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
  const Orders& known = orders.orders();
  if (known.changes() == orders_seen || now.mono < orders_looked_at + kLookEvery) return;
  const auto names = orders_seen != 0 ? known.changed_since(orders_seen) : std::nullopt;
  orders_seen = known.changes();
  orders_looked_at = now.mono;
  if (!names) return look_at_all_orders(now);
  for (const Orders::Name& name : *names) {
    const Rule* const rule = rule_of(name);
    if (rule == nullptr) continue;
    const KeyOrder* const order = known.find(name, now.wall);
    const bool limits = order != nullptr && order->kind == OrderKind::limit;
    const WireId id = wire_id(name.second, rule->id_key);
    note_order(id, known.known(name), limits);
    use_limit(id, limits ? std::optional(order->limit) : std::nullopt, now);
  }
}

// Numbers are of microseconds, as Lua's have 53 bits. An order that holds no more, but may still come late,
// counts as a later one.
void Node::Impl::note_order(const WireId& id, const KeyOrder* order, bool holds) {
  if (order == nullptr)
    ordered.erase(id);
  else
    ordered[id] = {order->set_ns / 1000 * 2 + (holds ? 0 : 1), holds,
                   WallTime(Duration(std::max(order->until_ns, order->keep_ns)))};
}

// By other rules, or where more changed than is kept.
void Node::Impl::look_at_all_orders(Now now) {
  KeyLimits next;
  ordered.clear();
  for (const KeyOrder& order : orders.orders().all())
    if (const Rule* const rule = rule_of({order.rule, order.key}))
      note_order(wire_id(order.key, rule->id_key), &order,
                 order.kind == OrderKind::limit && WallTime(Duration(order.until_ns)) > now.wall);
  for (const KeyOrder& order : orders.orders().in_force(now.wall)) {
    const Rule* const rule = order.kind == OrderKind::limit ? rule_of({order.rule, order.key}) : nullptr;
    if (rule != nullptr) next[wire_id(order.key, rule->id_key)] = order.limit;
  }
  const KeyLimits before = key_limits;
  for (const auto& [id, limit] : before)
    if (!next.contains(id)) use_limit(id, std::nullopt, now);
  for (const auto& [id, limit] : next) use_limit(id, limit, now);
}

// nullptr: no rule whose keys may be given another limit.
const Rule* Node::Impl::rule_of(const Orders::Name& name) const {
  const Rule* const rule = rules->find(name.first);
  return rule != &rules->inline_rule() ? rule : nullptr;
}

void Node::Impl::use_limit(const WireId& id, std::optional<uint32_t> limit, Now now) {
  const auto found = key_limits.find(id);
  if (limit == (found == key_limits.end() ? std::nullopt : std::optional(found->second))) return;
  if (limit)
    key_limits[id] = *limit;
  else
    key_limits.erase(id);
  lessee.use_limit(id, now);
  owner.use_limit(id, now);
}

}  // namespace tally
