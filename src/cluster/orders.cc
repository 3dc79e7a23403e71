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

// In the place of what there is of its key.
KeyOrder& Orders::put(const KeyOrder& order) {
  const auto [found, fresh] = known_.try_emplace(Name{order.rule, order.key}, order);
  if (!fresh) {
    digest_ ^= hash_of(found->second);
    found->second = order;
  }
  digest_ ^= hash_of(order);
  next_end_ = std::min(next_end_, at(order.kind == OrderKind::lifted ? order.keep_ns : order.until_ns));
  ++changes_;
  return found->second;
}

Result<KeyOrder> Orders::set(const Name& name, OrderKind kind, uint32_t limit, Duration lasts, NodeId self,
                             WallTime now) {
  const auto found = known_.find(name);
  if (found == known_.end() && known_.size() >= kMost) {
    const auto soonest =
        std::ranges::min_element(known_, {}, [](const auto& known) { return known.second.keep_ns; });
    return Failure{
        "there are " + std::to_string(known_.size()) +
        " orders that are not over, as many as there may be; the next ends in " +
        std::to_string(std::max<int64_t>(1, (soonest->second.keep_ns - nanos(now)) / 1'000'000'000)) +
        " s: lift what is not needed, or put the lasting ones into the configuration (overrides)"};
  }
  KeyOrder order{name.first, name.second, kind, kind == OrderKind::limit ? limit : 0};
  order.until_ns = order.keep_ns = nanos(now + lasts);
  order.set_ns = static_cast<uint64_t>(std::max<int64_t>(1, nanos(now)));
  order.setter = self;
  if (found != known_.end()) {
    order.keep_ns = std::max(order.keep_ns, found->second.keep_ns);
    order.set_ns = std::max(order.set_ns, found->second.set_ns + 1);
  }
  return put(order);
}

std::optional<KeyOrder> Orders::lift(const Name& name, NodeId self, WallTime now) {
  const auto found = known_.find(name);
  if (found == known_.end() || !holds(found->second, now)) return std::nullopt;
  KeyOrder order = found->second;
  order.kind = OrderKind::lifted;
  order.limit = 0;
  order.until_ns = nanos(now);
  order.set_ns = std::max(order.set_ns + 1, static_cast<uint64_t>(std::max<int64_t>(1, nanos(now))));
  order.setter = self;
  return put(order);
}

Orders::Heard Orders::hear(const KeyOrder& order, WallTime now) {
  if (!in_range(order, now)) return Heard::out_of_range;
  if (at(order.keep_ns) <= now) return Heard::known;  // over
  const auto found = known_.find(Name{order.rule, order.key});
  if (found == known_.end()) {
    if (known_.size() >= kMostHeard) return Heard::full;
    put(order);
    return Heard::news;
  }
  KeyOrder next = replaces(order, found->second) ? order : found->second;
  next.keep_ns = std::max(order.keep_ns, found->second.keep_ns);
  if (next == found->second) return Heard::known;
  put(next);
  return Heard::news;
}

void Orders::expire(WallTime now) {
  if (now < next_end_) return;
  next_end_ = WallTime::max();
  std::erase_if(known_, [&](const auto& known) {
    const KeyOrder& order = known.second;
    if (at(order.keep_ns) <= now) {
      digest_ ^= hash_of(order);
      return true;
    }
    next_end_ = std::min(next_end_, at(holds(order, now) ? order.until_ns : order.keep_ns));
    return false;
  });
  ++changes_;
}

std::vector<KeyOrder> Orders::in_force(WallTime now) const {
  std::vector<KeyOrder> orders;
  for (const auto& [name, order] : known_)
    if (holds(order, now)) orders.push_back(order);
  return orders;
}

std::vector<KeyOrder> Orders::all() const {
  std::vector<KeyOrder> orders;
  for (const auto& [name, order] : known_) orders.push_back(order);
  return orders;
}

std::vector<KeyOrder> Orders::some_after(const Name& after, size_t most) const {
  std::vector<KeyOrder> orders;
  for (auto at_next = known_.upper_bound(after); at_next != known_.end() && orders.size() < most; ++at_next)
    orders.push_back(at_next->second);
  return orders;
}

}  // namespace tally
