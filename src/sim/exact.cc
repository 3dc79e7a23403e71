#include "sim/exact.h"

namespace tally::sim {
namespace {

// Buckets of sixteen with two choices never overflow at half of the load that the table is made for.
size_t roomy(size_t keys) { return 2 * keys + 64; }
constexpr uint64_t kHashSeed = 1;

}  // namespace

ExactLimiter::ExactLimiter(const Rule& rule, size_t keys)
    : rules_({rule}, Rule{}, Share{}, kPublicIdKey),
      rule_(rules_.by_id(0)),
      slots_(roomy(keys), kHashSeed, false),
      limiter_(slots_, false) {}

Answer ExactLimiter::take(std::string_view key, uint32_t cost, Now now) {
  const Ask ask{&rule_, &rule_.limit, key, limiter_.hash(rule_, key), cost};
  return limiter_.take(ask, now, nullptr);
}

}  // namespace tally::sim
