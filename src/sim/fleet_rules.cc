// Which rules the hosts of a simulated fleet have, and what each key may have over the fleet by them.
#include <algorithm>
#include <utility>

#include "base/fail.h"
#include "sim/fleet.h"

namespace tally::sim {
namespace {

// What holds both: of two limits of one form that hosts of a fleet have under one name.
void widen(Rule& rule, const Rule& other) {
  rule.max_overcount.ppm = std::max(rule.max_overcount.ppm, other.max_overcount.ppm);
  if (rule.limit.algorithm != Algorithm::token_bucket) {
    rule.limit.limit = std::max(rule.limit.limit, other.limit.limit);
    return;
  }
  // Hosts tell each other of a bucket's tokens in time: who has the shortest emission makes most of it.
  const Duration span = std::max(rule.limit.burst_span(), other.limit.burst_span());
  const Duration emission = std::min(rule.limit.emission, other.limit.emission);
  rule.limit.limit = static_cast<uint32_t>((nanos(span) + nanos(emission) - 1) / nanos(emission));
  rule.limit.emission = emission;
}

}  // namespace

Rule window_rule(std::string name, Algorithm algorithm, uint32_t limit, Duration window,
                 uint32_t overcount_ppm) {
  Rule rule;
  rule.name = std::move(name);
  rule.limit.algorithm = algorithm;
  rule.limit.limit = limit;
  rule.limit.window = window;
  rule.max_overcount.ppm = overcount_ppm;
  return rule;
}

Rule bucket_rule(std::string name, uint32_t burst, uint32_t count, Duration period, uint32_t overcount_ppm) {
  Rule rule;
  rule.name = std::move(name);
  rule.limit.algorithm = Algorithm::token_bucket;
  rule.limit.limit = burst;
  rule.limit.emission = Duration((nanos(period) + count - 1) / count);
  rule.rate_count = count;
  rule.rate_period = period;
  rule.max_overcount.ppm = overcount_ppm;
  return rule;
}

std::shared_ptr<const RuleSet> rule_set(std::vector<Rule> rules, Share share, const RuleSet* before) {
  Rule inline_rule;
  inline_rule.name = kInlineRule;
  return std::make_shared<RuleSet>(std::move(rules), inline_rule, share, kPublicIdKey, before);
}

std::vector<Rule> Fleet::rules_of(uint16_t rank) const {
  std::vector<Rule> rules = config_.rules;
  for (const OwnRule& own : config_.own_rules) {
    if (own.host != rank || !hosts_[rank].own_rules) continue;
    const auto found = std::ranges::find(rules, own.rule.name, &Rule::name);
    CHECK_THAT(found != rules.end());
    *found = own.rule;
  }
  return rules;
}

void Fleet::find_forms() {
  reference_ = rule_set(config_.rules, Share{0, config_.size});
  for (Rule rule : reference_->all()) {
    rule.limit.limit += rule.held;  // what is promised: as configured, whatever processes hold
    forms_.push_back({{rule}, std::vector<uint8_t>(hosts_.size(), 0)});
  }
  for (const OwnRule& own : config_.own_rules) {
    const Rule* named = reference_->find(own.rule.name);
    CHECK_THAT(named != nullptr && own.host < hosts_.size());
    Forms& forms = forms_[named->id];
    auto form =
        std::ranges::find_if(forms.rules, [&](const Rule& r) { return same_form(r.limit, own.rule.limit); });
    if (form == forms.rules.end()) {
      Rule other = own.rule;
      other.id = named->id;
      other.seed = named->seed;
      other.id_key = named->id_key;
      form = forms.rules.insert(form, std::move(other));
    }
    widen(*form, own.rule);
  }
}

void Fleet::decide_by(uint16_t rank, std::shared_ptr<const RuleSet> rules) {
  hosts_[rank].rules = std::move(rules);
  for (Forms& forms : forms_) {
    const Limit& limit = hosts_[rank].rules->by_id(forms.rules.front().id).limit;
    const auto form = std::ranges::find_if(forms.rules, [&](const Rule& r) { return same_form(r.limit, limit); });
    forms.of_host[rank] = static_cast<uint8_t>(form - forms.rules.begin());
  }
}

void Fleet::reload(uint16_t rank, bool own_rules, Duration workers_after) {
  Host& host = hosts_[rank];
  if (host.paused_until > now_) return at(host.paused_until, [this, rank, own_rules, workers_after] { reload(rank, own_rules, workers_after); });
  host.own_rules = own_rules;
  if (host.node == nullptr) return;
  const auto next = rule_set(rules_of(rank), share_of(host), host.rules.get());
  host.node->use(next, clock(rank));
  settle_soon(rank);
  at(now_ + workers_after, [this, rank, next, life = host.life] {
    Host& later = hosts_[rank];
    if (later.life != life || later.node == nullptr) return;
    decide_by(rank, next);
  });
}

void Fleet::set_pace(uint16_t rank, const Pace& pace) {
  CHECK_THAT(pace.sync_interval <= config_.sync_interval);
  Host& host = hosts_[rank];
  if (host.paused_until > now_) return at(host.paused_until, [this, rank, pace] { set_pace(rank, pace); });
  host.pace = pace;
  if (host.node == nullptr) return;
  host.node->use(pace, clock(rank));
  settle_soon(rank);
}

const Rule& Fleet::rule_on(uint16_t rank, const KeyState& state) const {
  const Forms& forms = forms_[state.rule->id];
  return forms.rules[forms.of_host[rank]];
}

size_t Fleet::checked_on(uint16_t rank, const KeyState& state) const {
  return state.checked[forms_[state.rule->id].of_host[rank]];
}

const Rule& Fleet::rule(std::string_view name) const {
  const Rule* found = reference_->find(name);
  CHECK_THAT(found != nullptr);
  return *found;
}

Fleet::KeyState& Fleet::key_state(std::string_view rule, std::string_view key) {
  const auto it = keys_.find({std::string(rule), std::string(key)});
  if (it != keys_.end()) return it->second;
  const Rule* found = reference_->find(rule);
  CHECK_THAT(found != nullptr);
  const Forms& forms = forms_[found->id];
  KeyState state{&forms.rules.front(), std::string(key), wire_id(key, found->id_key), {}, {}, {}, false, {}};
  for (const Rule& form : forms.rules) {
    CheckedKey checked = checked_key(form, key);
    checked.check_marks =
        checked.check_marks && forms.rules.size() == 1;  // a mark does not say of which form it is
    state.checked.push_back(checkers_.add(checked, state.id));
  }
  return keys_.emplace(std::pair(std::string(rule), std::string(key)), std::move(state)).first->second;
}

CheckedKey Fleet::checked_key(const Rule& form, std::string_view key) const {
  CheckedKey checked;
  checked.rule = &form;
  checked.key = key;
  checked.bound = bound_in(form);
  checked.check_marks = !form.max_overcount.unbounded;
  checked.check_told = config_.registers == FleetConfig{}.registers;
  checked.bucket_overcount_ppm = bucket_overcount(form);
  checked.mark_max = form.limit.limit;
  if (config_.isolation_possible && form.on_isolation != OnIsolation::closed)
    checked.per_life = form.limit.limit;
  checked.check_sliding = form.limit.algorithm == Algorithm::sliding_window &&
                          !form.max_overcount.unbounded && checked.per_life == 0;
  if (form.limit.algorithm == Algorithm::token_bucket) {
    // As far as a mark may be ahead, and what a member adds for the drift of clocks.
    const auto ahead = form.limit.burst_span() + config_.lease * 103 / 100;
    checked.mark_max = static_cast<uint64_t>(nanos(ahead) * 107 / 100);
  }
  checked.sliding_late = config_.sliding_late;
  return checked;
}

uint64_t Fleet::bound(std::string_view name) const { return bound_in(forms_[rule(name).id].rules.front()); }

// `share` adds one more limit in all only while the shares are true, which nobody can know in the middle of a
// partition; what it never passes is what `open` adds: a limit for each node that can be isolated. A clone
// has the floor of its name once more where nobody told it in time that it is one, in each life that knows of
// none before, and is isolated from the first.
uint64_t Fleet::bound_in(Rule form) const {
  if (config_.nodes == 1) return form.limit.limit;
  uint64_t clones = 0;
  for (const auto* lives : {&config_.clones, &config_.forgetful})
    for (const uint16_t name : *lives) clones += floor_of(form.limit.limit, form.max_overcount, Share{name, config_.size});
  if (!config_.isolation_possible) return bound_of(form, config_.size) + clones;
  if (form.on_isolation != OnIsolation::closed) clones += form.limit.limit * (config_.clones.size() + config_.forgetful.size());
  if (form.on_isolation == OnIsolation::share) form.on_isolation = OnIsolation::open;
  return bound_isolated_of(form, config_.size) + clones;
}

// As above, for a bucket: in millionths of the limit.
uint32_t Fleet::bucket_overcount(const Rule& form) const {
  const bool isolated = config_.isolation_possible && form.on_isolation != OnIsolation::closed;
  const auto clones = static_cast<uint32_t>(config_.clones.size() + config_.forgetful.size());
  const uint32_t share = (form.max_overcount.ppm + config_.size - 1) / config_.size;  // of one floor
  return form.max_overcount.ppm + clones * share + (isolated ? hosts() * kPartsPerMillion : 0);
}

}  // namespace tally::sim
