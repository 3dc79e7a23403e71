// What one exact limiter makes of a stream: the plain algorithm on one node, by the very code that ships.
//
// Thread rule: one owner.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/time.h"
#include "core/limiter.h"
#include "core/rules.h"
#include "core/slots.h"

namespace tally::sim {

class ExactLimiter {
 public:
  // Room for `keys` keys, none of which is ever evicted.
  ExactLimiter(const Rule& rule, size_t keys);

  Answer take(std::string_view key, uint32_t cost, Now now);
  bool admits(std::string_view key, uint32_t cost, Now now) {
    return take(key, cost, now).verdict == Verdict::admitted;
  }

 private:
  const RuleSet rules_;
  const Rule& rule_;
  SlotTable slots_;
  Limiter limiter_;
};

}  // namespace tally::sim
