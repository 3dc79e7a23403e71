// What HTTP headers say about a limit: RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers-10, as structured fields),
// X-RateLimit-Limit, -Remaining and -Reset (its draft 03, in seconds from now), and Retry-After (RFC 9110).
//
// Thread rule: pure. Units: whole seconds, rounded up, so that nobody comes too early.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/calendar.h"
#include "core/limiter.h"
#include "core/rules.h"
#include "doors/commands.h"

namespace tally {

// A number as text, for those that are written more than once.
class Digits {
 public:
  explicit Digits(int64_t n) : end_(std::to_chars(text_.data(), text_.data() + text_.size(), n).ptr) {}
  operator std::string_view() const { return {text_.data(), static_cast<size_t>(end_ - text_.data())}; }

 private:
  std::array<char, 20> text_;
  const char* end_;
};

// In this order:
//   RateLimit-Policy: "api";q=100;w=60     q: the limit, w: its window (of the calendar: the longest of them);
//                                          of a bucket the burst, and the time in which it fills
//   RateLimit: "api";r=57;t=12             r: what is left, t: until all of it is there again
//   X-RateLimit-Limit: 100, X-RateLimit-Remaining: 57, X-RateLimit-Reset: 12
//   Retry-After: 3                         only where `reason` is a refusal that ends by itself; 1 or more
// `name`: printable ASCII. `limit`: the one that was decided by. For each of them `out` is told field(name), the value in parts, quoted(text)
// for a string and `<<` for text, and end_field().
template <typename Out>
void tell_rate_headers(Out& out, std::string_view name, const Limit& limit, const Answer& answer, resp::Reason reason) {
  const Duration window = limit.algorithm == Algorithm::token_bucket ? limit.burst_span() : longest_length(limit.window);
  const Digits quota(answer.limit), left(answer.remaining), reset(std::max<int64_t>(resp::seconds_up(answer.reset_after), 0));
  out.field("RateLimit-Policy").quoted(name) << ";q=" << quota << ";w=" << Digits(std::max<int64_t>(resp::seconds_up(window), 1));
  out.end_field();
  out.field("RateLimit").quoted(name) << ";r=" << left << ";t=" << reset;
  out.end_field();
  out.field("X-RateLimit-Limit") << quota;
  out.end_field();
  out.field("X-RateLimit-Remaining") << left;
  out.end_field();
  out.field("X-RateLimit-Reset") << reset;
  out.end_field();
  if (!resp::is_limited(reason) || answer.retry_after < Duration(0)) return;
  out.field("Retry-After") << Digits(std::max<int64_t>(resp::seconds_up(answer.retry_after), 1));
  out.end_field();
}

struct Header {
  std::string name, value;
  friend bool operator==(const Header&, const Header&) = default;
};

std::vector<Header> rate_headers(std::string_view name, const Limit& limit, const Answer& answer, resp::Reason reason);

}  // namespace tally
