#include "cluster/upstream.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "cluster/node.h"

namespace tally {

namespace {

// Both levels name a key alike. In the table above its name is its hash: it is one already, keyed, and so a wake tells it.
KeyHash hash_of(const WireId& key) {
  uint32_t rest;
  std::memcpy(&rest, key.bytes.data() + sizeof(uint64_t), sizeof rest);
  return {uint64_t{rest} << 32 | (mix(key.word()) & UINT32_MAX), key.word()};
}

WireId name_of(KeyHash hash) {
  WireId key;
  const auto rest = static_cast<uint32_t>(hash.hi >> 32);
  std::memcpy(key.bytes.data(), &hash.lo, sizeof hash.lo);
  std::memcpy(key.bytes.data() + sizeof hash.lo, &rest, sizeof rest);
  return key;
}

}  // namespace

Upstream::Upstream(Node& above, Limiter& limiter, std::shared_ptr<const RuleSet> rules)
    : above_(above), limiter_(limiter), rules_(std::move(rules)) {}

Upstream::Form Upstream::form_above(const Rule* rule, const Terms& terms) const {
  const Rule* named = rule != nullptr ? rules_->find(rule->name) : nullptr;
  if (named != nullptr) {
    Limit limit = named->limit;
    limit.floor = 0;  // floors are the regions' alone: what is admitted without a grant is spent at once, and cannot be issued below
    limit.floor_emission = Duration(0);
    if (named->overrides != nullptr) {  // the key's own, as those below report it
      limit.limit = terms.limit;
      limit.emission = terms.emission;
    }
    const bool alike = limit.algorithm == terms.algorithm && limit.window == terms.window && limit.emission == terms.emission;
    return {alike ? named : nullptr, limit};
  }
  Limit limit;
  limit.algorithm = terms.algorithm;
  limit.limit = terms.limit;
  limit.window = terms.window;
  limit.emission = terms.emission;
  return {&rules_->inline_rule(), limit};
}

void Upstream::note(Note::Kind kind, const Form& form, const WireId& key, uint64_t cost, uint64_t requests, Now now) {
  news_ = true;
  const KeyHash hash = hash_of(key);
  if (const auto slot = limiter_.slots().ref_of(hash))
    above_.note({kind, form.rule->id, static_cast<uint32_t>(cost), *slot, hash, key, form.limit, static_cast<uint32_t>(requests)}, now);
}

Upstream::Drawn Upstream::draw(const WireId& key, const Rule* rule, const Terms& terms, uint64_t wanted, Now now) {
  const Form form = form_above(rule, terms);
  Drawn drawn;
  if (form.rule == nullptr) return drawn;
  const bool bucket = terms.algorithm == Algorithm::token_bucket;
  const uint64_t unit = amount_of(form.limit, 1);
  Ask ask{form.rule, &form.limit, {}, hash_of(key), 0};
  const uint64_t missing = (wanted + unit - 1) / unit;
  uint64_t taken = 0;
  uint64_t step = std::min<uint64_t>(missing, form.limit.limit);
  while (step > 0) {  // a take is whole or not at all
    ask.cost = static_cast<uint32_t>(step);
    const bool admitted = limiter_.take(ask, now, nullptr).verdict == Verdict::admitted;
    if (admitted) taken += step;
    step = std::min(missing - taken, admitted ? step : step / 2);
  }
  drawn.amount = taken * unit;
  if (taken > 0) note(Note::Kind::low, form, key, 1, 1, now);
  if (bucket) {
    above_.hold(key, drawn.amount);
    if (const auto lease = above_.running_lease(key, now)) drawn.lease = lease->serial, drawn.lease_end = lease->end;
  }
  ask.cost = 1;
  const Answer answer = limiter_.peek(ask, now);
  drawn.left = (answer.remaining + (answer.verdict == Verdict::admitted ? 1 : 0)) * unit;
  drawn.over = answer.verdict == Verdict::over_limit;
  drawn.isolated = answer.verdict == Verdict::isolated;
  drawn.retry_after = std::max(Duration(0), answer.retry_after);
  return drawn;
}

Duration Upstream::ask(const WireId& key, const Rule* rule, const Terms& terms, uint64_t missing, uint64_t cost, Now now) {
  const Form form = form_above(rule, terms);
  if (form.rule == nullptr) return Duration(0);
  const uint64_t unit = amount_of(form.limit, 1);
  missing = std::min<uint64_t>((missing + unit - 1) / unit, form.limit.limit);
  cost = (cost + unit - 1) / unit;
  cost = std::clamp<uint64_t>(cost, 1, missing);
  note(Note::Kind::starved, form, key, cost, (missing + cost - 1) / cost, now);
  return form.rule->wait;
}

uint64_t Upstream::put_back(const WireId& key, const Rule* rule, const Terms& terms, uint64_t amount, Now now) {
  const Form form = form_above(rule, terms);
  if (form.rule == nullptr) return 0;
  news_ = true;
  if (terms.algorithm == Algorithm::token_bucket) return above_.put_back(key, amount, now);
  return give(form, key, amount, now);
}

uint64_t Upstream::give(const Form& form, const WireId& key, uint64_t cost, Now now) {
  return above_.give(*form.rule, form.limit, hash_of(key), key, static_cast<uint32_t>(std::min<uint64_t>(cost, kLimitMax)), now);
}

void Upstream::spent(const WireId& key, uint64_t amount) {
  news_ = true;
  above_.spent(key, amount);
}

void Upstream::refund(const WireId& key, const Rule* rule, const Terms& terms, uint64_t amount, Now now) {
  const Form form = form_above(rule, terms);
  if (form.rule == nullptr) return;
  news_ = true;
  give(form, key, amount / amount_of(form.limit, 1), now);
}

std::vector<WireId> Upstream::take_woken() {
  std::vector<WireId> keys;
  for (const Wake& wake : above_.take_wakes()) keys.push_back(name_of(wake.hash));
  return keys;
}

}  // namespace tally
