#include "doors/rate_headers.h"

#include <algorithm>
#include <cstdint>

#include "core/calendar.h"

namespace tally {
namespace {

// A String of RFC 8941, section 3.3.3.
std::string structured_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

std::string seconds(Duration d, int64_t least) {
  return std::to_string(std::max(resp::seconds_up(d), least));
}

}  // namespace

std::vector<Header> rate_headers(std::string_view name, const Limit& limit, const Answer& answer,
                                 resp::Reason reason) {
  const std::string quota = std::to_string(limit.limit), left = std::to_string(answer.remaining),
                    policy = structured_string(name);
  const std::string window = seconds(
      limit.algorithm == Algorithm::token_bucket ? limit.burst_span() : longest_length(limit.window), 1);
  const std::string reset = seconds(answer.reset_after, 0);
  std::vector<Header> headers{{"RateLimit-Policy", policy + ";q=" + quota + ";w=" + window},
                              {"RateLimit", policy + ";r=" + left + ";t=" + reset},
                              {"X-RateLimit-Limit", quota},
                              {"X-RateLimit-Remaining", left},
                              {"X-RateLimit-Reset", reset}};
  if (resp::is_limited(reason) && answer.retry_after >= Duration(0))
    headers.push_back({"Retry-After", seconds(answer.retry_after, 1)});
  return headers;
}

}  // namespace tally
