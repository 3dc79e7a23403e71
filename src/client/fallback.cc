#include "client/fallback.h"

#include <algorithm>

namespace tally::client {
namespace {

Rule rule_of(const ClientOptions::Fallback& limit) {
  Rule rule;
  rule.name = "fallback";
  rule.limit.algorithm = Algorithm::sliding_window;
  rule.limit.limit = limit.limit;
  rule.limit.window = limit.window;
  return rule;
}

}  // namespace

Fallback::Fallback(const ClientOptions::Fallback& limit, size_t keys, uint64_t seed)
    : rules_({rule_of(limit)}, Rule{}, Share{}, kPublicIdKey),
      slots_(keys, seed, false),
      limiter_(slots_, false) {}

Decision Fallback::take(std::string_view rule, std::string_view key, uint32_t cost, Now now) {
  const Rule& own = rules_.by_id(0);
  const KeyHash hash = hash_key(key, slots_.seed(), rule_seed_of(rule));
  const Answer answer = limiter_.take({&own, &own.limit, key, hash, cost}, now, nullptr);
  const auto micros = [](Duration d) { return std::chrono::ceil<std::chrono::microseconds>(d); };
  Decision decision;
  decision.allowed = answer.verdict == Verdict::admitted;
  decision.limit = answer.limit;
  decision.remaining = answer.remaining;
  if (!decision.allowed && answer.retry_after >= Duration(0))
    decision.retry_after = micros(answer.retry_after);
  decision.reset_after = micros(answer.reset_after);
  return decision;
}

}  // namespace tally::client
