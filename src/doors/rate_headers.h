// What HTTP headers say about a limit: RateLimit-Policy and RateLimit (the IETF's draft, as structured
// fields), X-RateLimit-Limit, -Remaining and -Reset, and Retry-After.
//
// Thread rule: pure. Units: whole seconds, rounded up, so that nobody comes too early.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/limiter.h"
#include "core/rules.h"
#include "doors/commands.h"

namespace tally {

struct Header {
  std::string name, value;
  friend bool operator==(const Header&, const Header&) = default;
};

// In this order:
//   RateLimit-Policy: "api";q=100;w=60     q: the limit, w: its window (of the calendar: the longest of
//   them);
//                                          of a bucket the burst, and the time in which it fills
//   RateLimit: "api";r=57;t=12             r: what is left, t: until all of it is there again
//   X-RateLimit-Limit: 100, X-RateLimit-Remaining: 57, X-RateLimit-Reset: 12
//   Retry-After: 3                         only where `reason` is a refusal that ends by itself; 1 or more
// `name`: printable ASCII. `limit`: the one that was decided by.
std::vector<Header> rate_headers(std::string_view name, const Limit& limit, const Answer& answer,
                                 resp::Reason reason);

}  // namespace tally
