#include "cluster/orders.h"

#include <algorithm>
#include <tuple>

#include "base/hash.h"

namespace tally {
namespace {

constexpr Duration kAheadMax =
    std::chrono::hours(24);  // a setter's clock further ahead than this is not believed

WallTime at(int64_t ns) { return WallTime(Duration(ns)); }
bool replaces(const KeyOrder& a, const KeyOrder& b) {
  return std::tie(a.set_ns, a.setter) > std::tie(b.set_ns, b.setter);
}
bool holds(const KeyOrder& order, WallTime now) {
  return order.kind != OrderKind::lifted && at(order.until_ns) > now;
}

bool in_range(const KeyOrder& order, WallTime now) {
  const WallTime latest = now + kAheadMax;
  if (order.rule.empty() || order.rule.size() > kOrderRuleMax || order.key.empty() ||
      order.key.size() > kOrderKeyMax)
    return false;
  if (order.kind == OrderKind::limit && (order.limit < 1 || order.limit > kLimitMax)) return false;
  if (order.until_ns > order.keep_ns || order.set_ns > static_cast<uint64_t>(nanos(latest))) return false;
  return at(order.keep_ns) <= latest + kOrderMax;
}

}  // namespace

uint64_t Orders::hash_of(const KeyOrder& order) {
  const uint64_t name = keyed_hash(order.rule, kPublicIdKey) ^ mix(keyed_hash(order.key, kPublicIdKey));
  return mix(name ^ mix(order.set_ns ^ mix(order.setter ^ mix(static_cast<uint64_t>(order.keep_ns)))));
}

void Orders::changed(const Name& name) {
  ++changes_;
  changed_.push_back(name);
  if (changed_.size() > kChangesKept) changed_.pop_front();
}

std::optional<std::vector<Orders::Name>> Orders::changed_since(uint64_t changes) const {
  const uint64_t n = changes_ - changes;
  if (n > changed_.size()) return std::nullopt;
  return std::vector<Name>(changed_.end() - static_cast<std::ptrdiff_t>(n), changed_.end());
}

void Orders::enter(const Name& name, Known& known, WallTime now) {
  known.over = !holds(known.order, now);
  if (known.over)
    over_.emplace(known.order.keep_ns, name);
  else
    in_force_.emplace(known.order.until_ns, name);
}

void Orders::leave(const Name& name, const Known& known) {
  if (known.over)
    over_.erase({known.order.keep_ns, name});
  else
    in_force_.erase({known.order.until_ns, name});
}

// Of those that are over.
void Orders::forget_first() {
  const Name name = over_.begin()->second;
  over_.erase(over_.begin());
  const auto found = known_.find(name);
  digest_ ^= hash_of(found->second.order);
  known_.erase(found);
  changed(name);
}

// In the place of what there is of its key.
void Orders::put(const KeyOrder& order, WallTime now) {
  const Name name{order.rule, order.key};
  const auto [found, fresh] = known_.try_emplace(name);
  Known& known = found->second;
  if (!fresh) {
    leave(name, known);
    digest_ ^= hash_of(known.order);
  }
  known.order = order;
  digest_ ^= hash_of(order);
  enter(name, known, now);
  changed(name);
  if (over_.size() > kMostOver) forget_first();
}

Result<KeyOrder> Orders::set(const Name& name, OrderKind kind, uint32_t limit, Duration lasts, NodeId self,
                             WallTime now) {
  expire(now);
  const KeyOrder* const before = known(name);
  if (in_force_.size() >= kMost && (before == nullptr || !holds(*before, now)))
    return Failure{
        "there are " + std::to_string(in_force_.size()) +
        " orders in force, as many as there may be; the next ends in " +
        std::to_string(std::max<int64_t>(1, (in_force_.begin()->first - nanos(now)) / 1'000'000'000)) +
        " s: lift what is not needed, or put the lasting ones into the configuration (overrides)"};
  KeyOrder order{name.first, name.second, kind, kind == OrderKind::limit ? limit : 0};
  order.until_ns = order.keep_ns = nanos(now + lasts);
  order.set_ns = static_cast<uint64_t>(std::max<int64_t>(1, nanos(now)));
  order.setter = self;
  if (before != nullptr) {
    order.keep_ns = std::max(order.keep_ns, before->keep_ns);
    order.set_ns = std::max(order.set_ns, before->set_ns + 1);
  }
  put(order, now);
  return order;
}

std::optional<KeyOrder> Orders::lift(const Name& name, NodeId self, WallTime now) {
  const KeyOrder* const before = find(name, now);
  if (before == nullptr) return std::nullopt;
  KeyOrder order = *before;
  order.kind = OrderKind::lifted;
  order.limit = 0;
  order.until_ns = nanos(now);
  order.set_ns = std::max(order.set_ns + 1, static_cast<uint64_t>(std::max<int64_t>(1, nanos(now))));
  order.setter = self;
  put(order, now);
  return order;
}

Orders::Heard Orders::hear(const KeyOrder& order, WallTime now) {
  if (!in_range(order, now)) return Heard::out_of_range;
  if (at(order.keep_ns) <= now) return Heard::known;  // over
  const Name name{order.rule, order.key};
  const KeyOrder* const before = known(name);
  if (before == nullptr) {
    const bool full = holds(order, now)
                          ? in_force_.size() >= kMostHeard
                          : over_.size() >= kMostOver && std::pair(order.keep_ns, name) < *over_.begin();
    if (full) return Heard::full;
    put(order, now);
    return Heard::news;
  }
  KeyOrder next = replaces(order, *before) ? order : *before;
  next.keep_ns = std::max(order.keep_ns, before->keep_ns);
  if (next == *before) return Heard::known;
  if (holds(next, now) && !holds(*before, now) && in_force_.size() >= kMostHeard) return Heard::full;
  put(next, now);
  return Heard::news;
}

void Orders::expire(WallTime now) {
  while (!in_force_.empty() && at(in_force_.begin()->first) <= now) {
    const Name name = in_force_.begin()->second;
    Known& known = known_.find(name)->second;
    leave(name, known);
    enter(name, known, now);
    changed(name);
  }
  while (!over_.empty() && (at(over_.begin()->first) <= now || over_.size() > kMostOver)) forget_first();
}

const KeyOrder* Orders::known(const Name& name) const {
  const auto found = known_.find(name);
  return found == known_.end() ? nullptr : &found->second.order;
}

const KeyOrder* Orders::find(const Name& name, WallTime now) const {
  const KeyOrder* const order = known(name);
  return order != nullptr && holds(*order, now) ? order : nullptr;
}

std::vector<KeyOrder> Orders::in_force(WallTime now) const {
  std::vector<KeyOrder> orders;
  for (const auto& [name, known] : known_)
    if (holds(known.order, now)) orders.push_back(known.order);
  return orders;
}

std::vector<KeyOrder> Orders::all() const { return some_after({}, known_.size()); }

std::vector<KeyOrder> Orders::some_after(const Name& after, size_t most) const {
  std::vector<KeyOrder> orders;
  for (auto at_next = known_.upper_bound(after); at_next != known_.end() && orders.size() < most; ++at_next)
    orders.push_back(at_next->second.order);
  return orders;
}

}  // namespace tally
