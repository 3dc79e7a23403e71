#include "daemon/region.h"

#include <utility>

namespace tally {
namespace {

// What the region misses is asked for again after so long: some round trips to the level above.
constexpr Duration kWait = std::chrono::milliseconds(500);

Rule above(Rule rule) {
  rule.max_overcount = Overcount{0};
  rule.on_isolation = OnIsolation::closed;
  rule.wait = kWait;
  rule.process_hold = Duration(0);  // taken off below, and nobody asks here
  return rule;
}

// The same rules without floors, which are all below, and without anything of its own where it is cut off.
std::shared_ptr<const RuleSet> rules_above(const RuleSet& below, const IdKey& id_key, const RuleSet* before) {
  std::vector<Rule> rules;
  for (const Rule& rule : below.all())
    if (&rule != &below.inline_rule()) rules.push_back(above(rule));
  return std::make_shared<const RuleSet>(std::move(rules), above(below.inline_rule()), Share{}, id_key, before);
}

}  // namespace

Region::Region(NodeConfig config, const RuleSet& below, Link::Sockets sockets, PeerSeal seal, size_t keys, uint64_t seed, Now now)
    : id_key_(config.id_key), rules_(rules_above(below, id_key_, nullptr)), slots_(keys, seed, true), limiter_(slots_, true) {
  auto node = std::make_unique<Node>(std::move(config), stateless_life(now.wall, mix(seed)), limiter_, rules_, ~seed, now);
  upstream_ = std::make_unique<Upstream>(*node, limiter_, rules_);
  link_ = std::make_unique<Link>(std::move(sockets), std::move(seal), std::move(node), seed);
}

void Region::use(const RuleSet& below, Now now) {
  rules_ = rules_above(below, id_key_, rules_.get());
  link_->node().use(rules_, now);
  upstream_->use(rules_);
}

}  // namespace tally
