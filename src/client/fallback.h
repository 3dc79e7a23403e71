// A limit of this process alone, for as long as its daemon can not be asked.
//
// Thread rule: any thread.
#pragma once

#include <string_view>

#include "core/limiter.h"
#include "tally/client.h"

namespace tally::client {

class Fallback {
 public:
  Fallback(const ClientOptions::Fallback& limit, size_t keys, uint64_t seed);
  Decision take(std::string_view rule, std::string_view key, uint32_t cost, Now now);

 private:
  RuleSet rules_;
  SlotTable slots_;
  Limiter limiter_;
};

}  // namespace tally::client
