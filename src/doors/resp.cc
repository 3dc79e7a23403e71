#include "doors/resp.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/fail.h"

namespace tally::resp {
namespace {

// More digits than any length that is allowed; a longer line is refused without waiting for its end.
constexpr size_t kLengthDigitsMax = 10;
constexpr size_t kIntegerBytesMax = 20;                    // of an int64 in decimal
constexpr size_t kIntegerReplyMax = kIntegerBytesMax + 3;  // kind, digits, CR LF
constexpr size_t kIntegersMax = 9;

constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }
constexpr bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

enum class Found : uint8_t { whole, part, wrong };

// A length and its CR LF at `at`, which moves behind them. What it says depends only on the bytes up to the
// first one that settles it, so input in pieces and input at once give the same.
Found read_any_length(std::string_view input, size_t& at, int64_t& value) {
  const char* p = input.data() + at;
  const char* const end = input.data() + input.size();
  const bool negative = p != end && *p == '-';
  if (negative) ++p;
  const char* const digits = p;
  int64_t n = 0;
  for (; p != end && is_digit(*p); ++p) {
    if (static_cast<size_t>(p - digits) == kLengthDigitsMax) return Found::wrong;
    n = n * 10 + (*p - '0');
  }
  if (p == end) return Found::part;
  const auto count = p - digits;
  if (*p != '\r' || count == 0 || (*digits == '0' && (count > 1 || negative))) return Found::wrong;
  if (p + 1 == end) return Found::part;
  if (p[1] != '\n') return Found::wrong;
  value = negative ? -n : n;
  at = static_cast<size_t>(p + 2 - input.data());
  return Found::whole;
}

// The same; nearly all lengths have one digit or two, and are read without a loop.
inline Found read_length(std::string_view input, size_t& at, int64_t& value) {
  const char* const p = input.data() + at;
  if (input.size() - at >= 4 && is_digit(p[0])) [[likely]] {
    if (p[1] == '\r' && p[2] == '\n') {
      value = p[0] - '0';
      at += 3;
      return Found::whole;
    }
    if (p[0] != '0' && is_digit(p[1]) && p[2] == '\r' && p[3] == '\n') {
      value = (p[0] - '0') * 10 + (p[1] - '0');
      at += 4;
      return Found::whole;
    }
  }
  return read_any_length(input, at, value);
}

int hex_digit(char c) {
  if (is_digit(c)) return c - '0';
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

char unescaped(char c) {
  switch (c) {
    case 'n':
      return '\n';
    case 'r':
      return '\r';
    case 't':
      return '\t';
    case 'b':
      return '\b';
    case 'a':
      return '\a';
    default:
      return c;
  }
}

// `kind`, the digits, CR LF; requires kIntegerReplyMax bytes at `p`. Returns the end.
char* put_integer(char* p, char kind, int64_t value) {
  *p++ = kind;
  p = std::to_chars(p, p + kIntegerBytesMax, value).ptr;
  *p++ = '\r';
  *p++ = '\n';
  return p;
}

// What an integer's reply looks like, -1 and what most others are: to be copied as a whole.
struct Small {
  char text[7];
  uint8_t size;
};
constexpr int64_t kSmallFrom = -1, kSmallTo = 1000;
constexpr auto kSmall = [] {
  std::array<Small, kSmallTo - kSmallFrom> all{};
  for (int64_t value = kSmallFrom; value < kSmallTo; ++value) {
    Small& small = all[static_cast<size_t>(value - kSmallFrom)];
    char* p = small.text;
    *p++ = ':';
    if (value < 0) *p++ = '-';
    const int64_t n = value < 0 ? -value : value;
    if (n >= 100) *p++ = static_cast<char>('0' + n / 100);
    if (n >= 10) *p++ = static_cast<char>('0' + n / 10 % 10);
    *p++ = static_cast<char>('0' + n % 10);
    *p++ = '\r';
    *p++ = '\n';
    small.size = static_cast<uint8_t>(p - small.text);
  }
  return all;
}();

// As put_integer of ':'.
inline char* put_number(char* p, int64_t value) {
  if (value < kSmallFrom || value >= kSmallTo) return put_integer(p, ':', value);
  const Small& small = kSmall[static_cast<size_t>(value - kSmallFrom)];
  std::memcpy(p, &small, sizeof small);
  return p + small.size;
}

}  // namespace

Parse Parser::next(std::string_view input) {
  consumed = 0;
  if (input.size() < at_) forget();
  if (input.empty()) return Parse::incomplete;
  return input.front() == '*' ? next_array(input) : next_inline(input);
}

Parse Parser::next_array(std::string_view input) {
  args.clear();
  size_t at = at_, left = left_;
  if (at == 0) {
    int64_t count = 0;
    at = 1;
    const Found found = read_length(input, at, count);
    if (found == Found::part) return Parse::incomplete;
    if (found == Found::wrong || count > static_cast<int64_t>(limits_.arguments_max)) {
      return fail("invalid multibulk length");
    }
    if (count <= 0) {
      consumed = at;
      return Parse::nothing;
    }
    left = static_cast<size_t>(count);
  } else {
    for (const Piece& piece : found_) args.push_back(input.substr(piece.offset, piece.size));
  }
  for (; left != 0; --left) {
    if (at == input.size()) return pause(input, at, left);
    if (input[at] != '$') {
      const auto got = static_cast<unsigned char>(input[at]);
      char text[32];
      std::snprintf(text, sizeof text,
                    got >= ' ' && got < 127 ? "expected '$', got '%c'" : "expected '$', got '\\x%02x'", got);
      return fail(text);
    }
    size_t body = at + 1;
    int64_t length = 0;
    const Found found = read_length(input, body, length);
    if (found == Found::part) return pause(input, at, left);
    if (found == Found::wrong || length < 0 || length > static_cast<int64_t>(limits_.argument_bytes_max)) {
      return fail("invalid bulk length");
    }
    const auto size = static_cast<size_t>(length);
    if (body + size + 2 > limits_.command_bytes_max) return fail("invalid bulk length");
    if (input.size() - body < size + 2) return pause(input, at, left);
    if (input[body + size] != '\r' || input[body + size + 1] != '\n') return fail("invalid bulk length");
    args.push_back(input.substr(body, size));
    at = body + size + 2;
  }
  forget();
  consumed = at;
  return Parse::command;
}

// Remembers the arguments as offsets, since the bytes may lie elsewhere next time, so that a big command that
// arrives in many pieces is not read from its beginning with each.
Parse Parser::pause(std::string_view input, size_t at, size_t left) {
  for (size_t i = found_.size(); i < args.size(); ++i) {
    found_.push_back({static_cast<size_t>(args[i].data() - input.data()), args[i].size()});
  }
  at_ = at;
  left_ = left;
  return Parse::incomplete;
}

Parse Parser::fail(std::string_view text) {
  forget();
  args.clear();
  error.assign("Protocol error: ").append(text);
  return Parse::error;
}

Parse Parser::next_inline(std::string_view input) {
  args.clear();
  const size_t reach = std::min(input.size(), limits_.inline_bytes_max + 1);
  const size_t from = std::min(at_, reach);
  const size_t newline = input.substr(0, reach).find('\n', from);
  if (newline == std::string_view::npos) {
    if (reach > limits_.inline_bytes_max) return fail("too big inline request");
    at_ = input.size();
    return Parse::incomplete;
  }
  forget();
  std::string_view line = input.substr(0, newline);
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (!split(line)) return fail("unbalanced quotes in request");
  if (args.size() > limits_.arguments_max) return fail("too big inline request");
  consumed = newline + 1;
  return args.empty() ? Parse::nothing : Parse::command;
}

// A line into words, with the quotes and escapes of redis-cli. False: a quote does not close, or does not end
// its word.
bool Parser::split(std::string_view line) {
  scratch_.clear();
  for (size_t at = 0;;) {
    while (at < line.size() && is_space(line[at])) ++at;
    if (at == line.size()) return true;
    size_t end = at;
    while (end < line.size() && !is_space(line[end]) && line[end] != '"' && line[end] != '\'') ++end;
    if (end == line.size() || is_space(line[end])) {
      args.push_back(line.substr(at, end - at));
    } else {
      end = split_quoted(line, at);
      if (end == std::string_view::npos) return false;
    }
    at = end;
  }
}

// One word that has quotes in it, from `at`; returns where it ends, npos where that is nowhere.
size_t Parser::split_quoted(std::string_view line, size_t at) {
  scratch_.reserve(
      line.size());  // the words are no longer than the line, so that earlier views stay where they are
  const size_t begin = scratch_.size();
  char quote = 0;
  for (; at < line.size(); ++at) {
    const char c = line[at];
    if (quote == 0) {
      if (is_space(c)) break;
      if (c == '"' || c == '\'') {
        quote = c;
      } else {
        scratch_ += c;
      }
    } else if (c == quote) {
      ++at;
      if (at < line.size() && !is_space(line[at])) return std::string_view::npos;
      quote = 0;
      break;
    } else if (c == '\\' && quote == '"' && at + 3 < line.size() && line[at + 1] == 'x' &&
               hex_digit(line[at + 2]) >= 0 && hex_digit(line[at + 3]) >= 0) {
      scratch_ += static_cast<char>(hex_digit(line[at + 2]) * 16 + hex_digit(line[at + 3]));
      at += 3;
    } else if (c == '\\' && at + 1 < line.size() && (quote == '"' || line[at + 1] == '\'')) {
      ++at;
      scratch_ += quote == '"' ? unescaped(line[at]) : line[at];
    } else {
      scratch_ += c;
    }
  }
  if (quote != 0) return std::string_view::npos;
  args.push_back(std::string_view(scratch_).substr(begin));
  return at;
}

void Writer::header(char kind, int64_t value) {
  char buffer[kIntegerReplyMax];
  out_.append(buffer, static_cast<size_t>(put_integer(buffer, kind, value) - buffer));
}

void Writer::line(char kind, std::string_view text) {
  out_ += kind;
  const size_t begin = out_.size();
  out_.append(text);
  for (size_t i = begin; i < out_.size(); ++i) {
    if (out_[i] == '\r' || out_[i] == '\n') out_[i] = ' ';
  }
  out_.append("\r\n");
}

void Writer::simple(std::string_view text) { line('+', text); }
void Writer::error(std::string_view text) { line('-', text); }
void Writer::integer(int64_t value) { header(':', value); }

void Writer::integers(std::span<const int64_t> values) {
  CHECK_THAT(values.size() <= kIntegersMax);
  char buffer[(kIntegersMax + 1) * kIntegerReplyMax];
  char* p = put_integer(buffer, '*', static_cast<int64_t>(values.size()));
  for (const int64_t value : values) p = put_number(p, value);
  out_.append(buffer, static_cast<size_t>(p - buffer));
}

void Writer::bulk(std::string_view bytes) {
  header('$', static_cast<int64_t>(bytes.size()));
  out_.append(bytes).append("\r\n");
}

void Writer::null() { out_.append(version_ >= 3 ? "_\r\n" : "$-1\r\n"); }
void Writer::array(size_t count) { header('*', static_cast<int64_t>(count)); }

void Writer::map(size_t pairs) {
  version_ >= 3 ? header('%', static_cast<int64_t>(pairs)) : header('*', static_cast<int64_t>(pairs * 2));
}

void Writer::boolean(bool value) {
  version_ >= 3 ? line('#', value ? "t" : "f") : header(':', value ? 1 : 0);
}

void Writer::number(double value) {
  char buffer[32];
  std::string_view text = "nan";
  if (std::isinf(value)) {
    text = value > 0 ? "inf" : "-inf";
  } else if (!std::isnan(value)) {
    text = {buffer, static_cast<size_t>(std::to_chars(buffer, buffer + sizeof buffer, value).ptr - buffer)};
  }
  version_ >= 3 ? line(',', text) : bulk(text);
}

bool parse_integer(std::string_view text, int64_t& out) {
  const bool negative = !text.empty() && text.front() == '-';
  const std::string_view digits = text.substr(negative ? 1 : 0);
  if (digits.empty() || digits.size() >= kIntegerBytesMax) return false;
  if (digits.front() == '0' && text.size() > 1) return false;
  uint64_t n = 0;  // 19 digits always fit
  for (const char c : digits) {
    if (!is_digit(c)) return false;
    n = n * 10 + static_cast<uint64_t>(c - '0');
  }
  if (n > uint64_t{INT64_MAX} + negative) return false;
  out = static_cast<int64_t>(negative ? 0 - n : n);
  return true;
}

}  // namespace tally::resp
