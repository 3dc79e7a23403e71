#include "core/rules.h"

#include <algorithm>
#include <unordered_set>

#include "base/fail.h"
#include "base/nearest.h"
#include "core/matcher.h"
#include "core/overrides.h"

namespace tally {
namespace {

constexpr uint64_t kBoundMax = uint64_t{1} << 63;
constexpr uint16_t kNoId = RuleSet::kIdsMax;

uint64_t saturated(unsigned __int128 x) { return x < kBoundMax ? static_cast<uint64_t>(x) : kBoundMax; }

constexpr Duration divided_up(unsigned __int128 a, unsigned __int128 b) {
  return Duration(static_cast<int64_t>((a + b - 1) / b));
}

// The emission of this node's floor bucket: emission * size / e, rounded up; 0 where the bucket could not
// hold one token. Requires emission > 0.
Duration floor_emission_of(const Limit& limit, Overcount e, Share share) {
  if (floor_of(limit.limit, e, share) == 0) return Duration(0);
  if (share.before.size != 0) {
    const Duration before = floor_emission_of(limit, e, share.in_before());
    const Duration now = floor_emission_of(limit, e, {share.rank, share.size, {}});
    return std::min(before, now) == Duration(0) ? Duration(0) : std::max(before, now);
  }
  if (e.unbounded) return limit.emission;
  const auto all = static_cast<unsigned __int128>(nanos(limit.emission)) * share.size * kPartsPerMillion;
  if (all / e.ppm >= static_cast<unsigned __int128>(nanos(limit.burst_span()))) {
    const bool exact =
        all / e.ppm == static_cast<unsigned __int128>(nanos(limit.burst_span())) && all % e.ppm == 0;
    return exact ? limit.burst_span() : Duration(0);
  }
  return divided_up(all, e.ppm);
}

}  // namespace

void set_floor(Limit& limit, const FloorTerms& terms) {
  const auto& [e, share] = terms;
  limit.floor = floor_of(limit.limit, e, share);
  limit.floor_emission = Duration(0);
  if (limit.algorithm != Algorithm::token_bucket) return;
  if (nanos(limit.emission) > 0) limit.floor_emission = floor_emission_of(limit, e, share);
  const int64_t emission = nanos(limit.floor_emission);
  limit.floor = emission == 0 ? 0 : static_cast<uint32_t>(nanos(limit.burst_span()) / emission);
}

uint32_t floor_of(uint32_t limit, Overcount e, Share share) {
  if (share.before.size != 0)
    return std::min(floor_of(limit, e, share.in_before()), floor_of(limit, e, {share.rank, share.size, {}}));
  if (share.size <= 1 || share.rank >= share.size) return 0;
  if (e.unbounded) return limit;
  const uint32_t budget = overcount_budget(limit, e);
  return budget / share.size + (share.rank < budget % share.size ? 1 : 0);
}

FloorTerms floors_by(const Rule& rule, Share share) {
  if (rule.mode == Mode::leased) return {rule.max_overcount, share};
  if (rule.on_isolation == OnIsolation::closed) return {{0, false}, share};
  if (share.size <= 1) return {{kPartsPerMillion, true}, {0, 2}};  // all of one is at each, and has no floor by itself
  return {{kPartsPerMillion, rule.on_isolation == OnIsolation::open}, share};
}

uint64_t bound_of(const Rule& rule, uint32_t limit, uint32_t size) {
  if (size <= 1 || rule.mode == Mode::central) return limit;
  if (rule.max_overcount.unbounded) return saturated(static_cast<unsigned __int128>(limit) * size);
  return uint64_t{limit} + overcount_budget(limit, rule.max_overcount);
}

uint64_t bound_isolated_of(const Rule& rule, uint32_t limit, uint32_t size) {
  unsigned __int128 bound = bound_of(rule, limit, size);
  if (size > 1 && rule.on_isolation == OnIsolation::share) bound += limit;
  if (size > 1 && rule.on_isolation == OnIsolation::open) bound += static_cast<unsigned __int128>(limit) * size;
  return saturated(bound);
}

Applied Rule::overridden(std::string_view key) const {
  const Override* found = overrides->find(key);
  if (found == nullptr) return {&limit};
  return {found->treatment == Treatment::limited ? &found->limit : &limit, found->treatment};
}

Limit inline_limit(const Rule& rule, Share share, uint32_t burst, uint32_t count, Duration period) {
  Limit limit;
  limit.algorithm = Algorithm::token_bucket;
  limit.limit = burst;
  limit.emission = divided_up(static_cast<unsigned __int128>(nanos(period)), count);
  set_floor(limit, floors_by(rule, share));
  return limit;
}

Limit with_number(const Rule& rule, Share share, uint32_t number) {
  Limit limit = rule.limit;
  limit.limit = number;
  if (limit.algorithm == Algorithm::token_bucket && limit.emission > Duration(0))
    limit.limit = static_cast<uint32_t>(std::min<int64_t>(number, kBurstSpanMax / limit.emission));
  set_floor(limit, floors_by(rule, share));
  return limit;
}

uint32_t tokens_held(const Rule& rule) {
  if (rule.process_hold <= Duration(0) || rule.limit.emission <= Duration(0)) return 0;
  const Duration longest = rule.process_hold + rule.process_hold / 32;
  const int64_t tokens = (nanos(longest) + nanos(rule.limit.emission) - 1) / nanos(rule.limit.emission);
  return static_cast<uint32_t>(std::min<int64_t>(tokens, kLimitMax));
}

size_t RuleSet::ids_with(const std::vector<Rule>& rules, const RuleSet* before) {
  if (before == nullptr) return rules.size() + 1;
  std::unordered_set<std::string_view> known;
  for (const Rule* rule : before->by_id_) known.insert(rule->name);
  return before->ids() + static_cast<size_t>(std::ranges::count_if(rules, [&](const Rule& rule) { return !known.contains(rule.name); }));
}

RuleSet::RuleSet(std::vector<Rule> rules, Rule inline_rule, Share share, const IdKey& id_key, const RuleSet* before)
    : rules_(std::move(rules)), share_(share) {
  CHECK_THAT(ids_with(rules_, before) <= kIdsMax);
  inline_rule.name = kInlineRule;
  inline_rule.limit.algorithm = Algorithm::token_bucket;
  rules_.push_back(std::move(inline_rule));
  for (Rule& rule : rules_) {
    rule.id = kNoId;
    rule.held = 0;
    by_name_.emplace(rule.name, &rule);
  }
  if (before != nullptr) keep_ids(*before);
  for (Rule& rule : rules_) {
    if (rule.id == kNoId) {
      rule.id = static_cast<uint16_t>(by_id_.size());
      by_id_.push_back(&rule);
    }
    rule.seed = rule_seed_of(rule.name);
    const auto form = static_cast<uint64_t>(rule.limit.algorithm);
    rule.table_seed = rule.seed ^ mix(form + static_cast<uint64_t>(nanos(rule.limit.window)) * 4);
    rule.id_key = rule_id_key(rule.name, id_key);
    // What processes took before a reload they may still hold: the most that it ever was, half the burst at most.
    if (rule.limit.algorithm == Algorithm::token_bucket) {
      rule.held = std::max(tokens_held(rule), std::min(rule.held, rule.limit.limit / 2));
      rule.limit.limit -= rule.held;
    }
    set_floor(rule.limit, floors_by(rule, share));
    if (rule.overrides != nullptr) rule.overrides = rule.overrides->with_floors(floors_by(rule, share));
    rule.also.clear();
    for (const std::string& name : rule.also_names) {
      rule.also.push_back(find(name));
      CHECK_THAT(rule.also.back() != nullptr);
    }
    rule.by_slot_alone = rule.also.empty() && rule.mode == Mode::leased;
  }
  matcher_ = std::make_unique<const Matcher>(rules_);
}

RuleSet::~RuleSet() = default;

void RuleSet::keep_ids(const RuleSet& before) {
  for (const Rule* known : before.by_id_)
    if (!by_name_.contains(known->name)) {
      Rule& rule = retired_.emplace_back(*known);
      rule.also.clear();
      rule.by_slot_alone = rule.mode == Mode::leased;
    }
  by_id_.resize(before.ids());
  for (Rule& rule : retired_) by_id_[rule.id] = &rule;
  for (const Rule* known : before.by_id_) {
    const auto kept = by_name_.find(known->name);
    if (kept == by_name_.end()) continue;
    kept->second->id = known->id;
    kept->second->held = known->held;
    by_id_[known->id] = kept->second;
  }
}

const Rule* RuleSet::find(std::string_view name) const {
  const auto it = by_name_.find(name);
  return it != by_name_.end() ? it->second : nullptr;
}

const Rule* RuleSet::by_seed(uint32_t seed) const {
  const auto it = std::find_if(rules_.begin(), rules_.end(),
                               [&](const Rule& r) { return static_cast<uint32_t>(r.seed) == seed; });
  return it != rules_.end() ? &*it : nullptr;
}

std::string RuleSet::nearest(std::string_view name) const {
  Nearest nearest(name);
  for (const Rule& rule : rules_)
    if (&rule != &rules_.back()) nearest.offer(rule.name);  // the inline rule is nobody's typing error
  return std::string(nearest.best());
}

}  // namespace tally
