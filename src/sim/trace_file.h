// A recorded stream of requests: the text of a trace file -> arrivals, or what is wrong with it and where.
//
// Thread rule: pure; the caller reads the file. Total: any text is either read or refused.
//
// Two formats, told apart by the first line:
//   CSV   time,key,cost,node in any order, named by a header line; cost (1) and node are optional. A time is
//   in
//         seconds, with up to nine decimals, of any epoch. Fields may be quoted as in RFC 4180, on one line.
//   log   a web server's common or combined log: the key is the client's address, each line costs 1. Its
//   times
//         are whole seconds: the requests of one second are spread over it evenly, in their order.
// A request without a node comes to one that is drawn from the seed, as behind a load balancer. Lines need
// not be in order of time.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/fail.h"
#include "base/time.h"
#include "sim/traffic.h"

namespace tally::sim {

struct TraceTerms {
  uint16_t nodes = 1;
  uint64_t seed = 1;
};

struct Trace {
  std::vector<Arrival> arrivals;  // in order of time, the first at 0
  std::vector<std::string> keys;  // by number
  Duration origin{0};             // the time of the first in the file
};

inline constexpr size_t kTraceRequestsMax = 50'000'000;
inline constexpr size_t kTraceKeyMax = 1'024;  // bytes
inline constexpr Duration kTraceSpanMax = std::chrono::hours(24 * 31);

// The error reads "LINE:COLUMN: what was expected", both from 1, columns in bytes.
Result<Trace> parse_trace(std::string_view text, const TraceTerms& terms);

}  // namespace tally::sim
