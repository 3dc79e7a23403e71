// Envoy's RateLimitRequest -> one Question, and the Question, answered -> RateLimitResponse.
//
// Thread rule: pure functions.
//
// A descriptor takes from each rule that it matches, and from those that go along with it (`also`). All
// descriptors are one Question: all or nothing. One that matches no rule lets through and counts nothing. A
// descriptor with a limit of its own (an override) does not go by its rules' numbers: of the rules that it
// matches those of a window of that unit are taken with the number of the override (in a fleet only those whose
// keys may differ in it, by `overrides`: of all others the owners of keys know one number), and the others are passed
// over; where there is none, it takes from a bucket of that limit under the inline rule. A rule that is passed over
// still says who is blocked, and who is exempt from that bucket: by its overrides, or by an order (Question::gates).
#pragma once

#include <envoy/service/ratelimit/v3/rls.pb.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "base/fail.h"
#include "core/rules.h"
#include "daemon/question.h"

namespace tally::rls {

using Request = envoy::service::ratelimit::v3::RateLimitRequest;
using Response = envoy::service::ratelimit::v3::RateLimitResponse;

// What a request may have. Names and values are bounded by the size of the message alone: they come from
// headers, and a limit that a client can break would let it pass where the proxy fails open.
inline constexpr int kDescriptorsMax = 100;
inline constexpr int kEntriesMax = 32;  // of one descriptor

// A descriptor's share of the question.
struct Asked {
  size_t begin = 0, end = 0;  // its parts
  int unit = 0;               // of its own limit; 0: it has none, or one without a name
  bool closed = false;        // its own limit is 0: nothing passes but exempt keys
};

struct Translated {
  std::unique_ptr<Question> question;  // without `done`; without parts there is nothing to ask
  std::vector<Asked> descriptors;
};

// The error is for INVALID_ARGUMENT: which field, and what would be right.
//
// Costs: a descriptor's hits_addend, or else the request's, in which 0 means 1. A descriptor's own 0 is a
// peek, which refuses where a take of 1 would be refused. What is above 2^32 - 1 is taken as that. Where a
// limit of 0 requests closes a descriptor, its parts are blocked, but for exempt keys.
Result<Translated> translate(const Request& request, std::shared_ptr<const RuleSet> rules);

// `response` is empty. Each status, and the headers, tell the most restrictive of the limits that they are
// about: one that refused, else of those that can (rules in shadow and exempt keys cannot) the one with the
// least left.
void fill_response(const Question& question, const std::vector<Asked>& descriptors, Response& response);

}  // namespace tally::rls
