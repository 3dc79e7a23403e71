// The small languages inside strings: rates, overcounts, numeric endpoints; and the range of every number.
//
// Thread rule: pure. Private to src/config.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/fail.h"
#include "base/time.h"
#include "core/rules.h"

namespace tally {

// Tokens per time: "50/s", "1000/m", "10/100ms".
struct Rate {
  uint32_t count = 0;
  Duration period{0};
};
Result<Rate> parse_rate(std::string_view text);
std::string format_rate(Rate rate);
Duration emission_of(Rate rate);  // of one token, rounded up to a whole nanosecond

// "5%", "0.25%", "unbounded". More than 100 % is `unbounded`.
Result<Overcount> parse_overcount(std::string_view text);
Result<Overcount> overcount_of(double fraction);  // 0 to 1
std::string format_overcount(Overcount e);        // "5%", "0%", "unbounded"

// A numeric address and a port, as getaddrinfo never sees it.
struct Endpoint {
  std::string host;
  uint16_t port = 0;
  bool loopback = false;
};
// "127.0.0.1:8381", "[::1]:8381", in one way of writing only, so that equal endpoints are equal strings.
Result<Endpoint> parse_endpoint(std::string_view text);

bool is_utf8(std::string_view text);
bool is_unsigned_decimal(std::string_view text);  // digits only, no leading zero

// Inclusive.
struct Range {
  uint64_t low = 0;
  uint64_t high = 0;
  bool contains(uint64_t value) const { return low <= value && value <= high; }
  std::string text() const;
};
struct DurationRange {
  Duration low{0};
  Duration high{0};
  bool contains(Duration value) const { return low <= value && value <= high; }
  std::string text() const;
};

inline constexpr Range kLimitRange{1, kLimitMax};
inline constexpr Range kBurstRange{1, kLimitMax};
inline constexpr DurationRange kWindowRange{kWindowMin, kWindowMax};
inline constexpr DurationRange kWaitRange{Duration(0), std::chrono::seconds(10)};
inline constexpr DurationRange kProcessHoldRange{Duration(0), std::chrono::seconds(1)};
inline constexpr DurationRange kSyncIntervalRange{std::chrono::milliseconds(1), std::chrono::minutes(1)};
inline constexpr DurationRange kIsolationRange{std::chrono::milliseconds(10), std::chrono::hours(1)};
inline constexpr DurationRange kLeaseRange{std::chrono::milliseconds(10), std::chrono::hours(1)};
inline constexpr Range kRosterVersionRange{1, UINT32_MAX};
inline constexpr Range kSizeRange{0, 100'000};
inline constexpr Range kTableKeysRange{1'024, uint64_t{1} << 31};
inline constexpr Range kConnectionsRange{1, 1'000'000};
inline constexpr Range kKeyBytesRange{1, 65'536};
inline constexpr Range kPipelineBytesRange{4'096, uint64_t{1} << 30};
inline constexpr Range kWaitingRange{0, uint64_t{1} << 24};
inline constexpr Range kRegistersRange{1'024, uint64_t{1} << 31};
inline constexpr Range kGuestsRange{0, 4'096};  // lines in one book, kLinesMax
inline constexpr DurationRange kHttpIdleRange{std::chrono::seconds(1), std::chrono::hours(24)};
inline constexpr Range kWorkersRange{0, 256};
inline constexpr DurationRange kSpinRange{Duration(0), std::chrono::milliseconds(10)};
inline constexpr size_t kAlsoMax = 8;
inline constexpr size_t kRulesMax = 65'535 - 1;  // ids are 16 bits, and the inline rule has one
inline constexpr size_t kProblemsMax = 1'000;    // shown of one text; the others are counted
inline constexpr size_t kPeersMax = 1'000;       // kRosterMax
inline constexpr size_t kNodeNameMax = 64;
inline constexpr size_t kUnixPathMax = 107;  // sun_path less its final NUL

}  // namespace tally
