// Reads the replies that load generators ask for: an integer, an array of integers, a simple string or an
// error of RESP2.
//
// Thread rule: a pure function. Total over any bytes.
#pragma once

#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace tally::tools {

struct Reply {
  std::array<int64_t, 16> values{};
  size_t count = 0;  // of values
  bool error = false;
  std::string_view text;   // of an error or a simple string; points into the input
  size_t consumed = 0;     // 0: incomplete
  bool malformed = false;  // not RESP2, or a kind that is not read here
};

namespace detail {

// The line at `at` without its CR LF; false where it is not complete.
inline bool line_at(std::string_view in, size_t& at, std::string_view& line) {
  const size_t end = in.find("\r\n", at);
  if (end == std::string_view::npos) return false;
  line = in.substr(at, end - at);
  at = end + 2;
  return true;
}

inline bool number_in(std::string_view line, int64_t& out) {
  if (line.size() < 2) return false;
  const char* end = line.data() + line.size();
  const auto [stop, fault] = std::from_chars(line.data() + 1, end, out);
  return fault == std::errc() && stop == end;
}

}  // namespace detail

inline Reply read_reply(std::string_view in) {
  Reply reply;
  size_t at = 0;
  std::string_view line;
  if (!detail::line_at(in, at, line)) return reply;
  int64_t n = 0;
  const char kind = line.empty() ? '?' : line[0];
  if (kind == '-' || kind == '+') {
    reply.error = kind == '-';
    reply.text = line.substr(1);
  } else if (kind == ':' && detail::number_in(line, n)) {
    reply.values[reply.count++] = n;
  } else if (kind == '*' && detail::number_in(line, n) && n >= 0 &&
             n <= static_cast<int64_t>(reply.values.size())) {
    for (int64_t i = 0; i < n; ++i) {
      if (!detail::line_at(in, at, line)) return Reply{};
      int64_t value = 0;
      if (line.empty() || line[0] != ':' || !detail::number_in(line, value)) {
        reply.malformed = true;
        return reply;
      }
      reply.values[reply.count++] = value;
    }
  } else {
    reply.malformed = true;
    return reply;
  }
  reply.consumed = at;
  return reply;
}

}  // namespace tally::tools
