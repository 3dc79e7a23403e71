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
    const bool alike = named->limit.algorithm == terms.algorithm && named->limit.window == terms.window;
    return {alike ? named : nullptr, named->limit};
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
  Ask ask{form.rule, &form.limit, {}, hash_of(key), 0};
  uint64_t step = std::min<uint64_t>(wanted, form.limit.limit);
  while (step > 0) {  // a take is whole or not at all
    ask.cost = static_cast<uint32_t>(step);
    const bool taken = limiter_.take(ask, now, nullptr).verdict == Verdict::admitted;
    if (taken) drawn.amount += step;
    step = std::min(wanted - drawn.amount, taken ? step : step / 2);
  }
  if (drawn.amount > 0) note(Note::Kind::low, form, key, 1, 1, now);
  ask.cost = 1;
  const Answer answer = limiter_.peek(ask, now);
  drawn.left = answer.remaining + (answer.verdict == Verdict::admitted ? 1 : 0);
  drawn.over = answer.verdict == Verdict::over_limit;
  drawn.isolated = answer.verdict == Verdict::isolated;
  drawn.retry_after = std::max(Duration(0), answer.retry_after);
  return drawn;
}

Duration Upstream::ask(const WireId& key, const Rule* rule, const Terms& terms, uint64_t missing, uint64_t cost, Now now) {
  const Form form = form_above(rule, terms);
  if (form.rule == nullptr) return Duration(0);
  missing = std::min<uint64_t>(missing, form.limit.limit);
  cost = std::clamp<uint64_t>(cost, 1, missing);
  note(Note::Kind::starved, form, key, cost, (missing + cost - 1) / cost, now);
  return form.rule->wait;
}

uint64_t Upstream::put_back(const WireId& key, const Rule* rule, const Terms& terms, uint64_t amount, Now now) {
  const Form form = form_above(rule, terms);
  if (form.rule == nullptr) return 0;
  news_ = true;
  return above_.give(*form.rule, form.limit, hash_of(key), key, static_cast<uint32_t>(std::min<uint64_t>(amount, kLimitMax)), now);
}

std::vector<WireId> Upstream::take_woken() {
  std::vector<WireId> keys;
  for (const Wake& wake : above_.take_wakes()) keys.push_back(name_of(wake.hash));
  return keys;
}

}  // namespace tally
