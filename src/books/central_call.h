// A decision that Redis makes: the arguments of its script (central.lua), and what the script says as an
// Answer.
//
// Thread rule: pure functions. What the script says is bytes from outside: any numbers give a state, or none.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/time.h"
#include "core/limiter.h"
#include "core/rules.h"

namespace tally {

struct CentralCall {
  enum class What : uint8_t { take, peek, give, reset };
  What what = What::take;
  Limit limit;
  uint32_t n = 0;                  // take: the cost, at most the limit; give: how much
  std::optional<int64_t> only_in;  // give: the window
  WallTime now{};                  // by this node's clock: which windows of the calendar it may be
};
// Behind the name of the count.
std::vector<std::string> central_arguments(const CentralCall& call);

// What the decision was made from: of a take before it, otherwise after.
struct CentralState {
  uint32_t done = 0;  // take: 1 or 0; give: so much; reset: 1 where there was a count
  WallTime now{};     // by the clock of Redis
  int64_t window = 0;
  uint32_t count = 0, previous = 0;  // of windows
  Duration ahead{0};                 // of buckets: the arrival time from now on
};
// nullopt: the script did not say this.
std::optional<CentralState> central_state(const CentralCall& call, std::span<const int64_t> numbers);
// What a take of `cost`, at most the limit, is answered in this state; 0: the state itself. The same as the
// limiter's of a node alone.
Answer central_answer(const CentralState& state, const Limit& limit, uint32_t cost);

}  // namespace tally
