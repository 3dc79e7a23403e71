#include "doors/http.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/nearest.h"

namespace tally::http {
namespace {

constexpr size_t kChunkLineMax = 256;
constexpr size_t kLengthDigitsMax = 18;  // more could not be told apart from what is too long anyway

constexpr auto kToken = [] {
  std::array<bool, 256> token{};
  for (int c = 'a'; c <= 'z'; ++c) token[static_cast<size_t>(c)] = true;
  for (int c = 'A'; c <= 'Z'; ++c) token[static_cast<size_t>(c)] = true;
  for (int c = '0'; c <= '9'; ++c) token[static_cast<size_t>(c)] = true;
  for (const char c : std::string_view("!#$%&'*+-.^_`|~")) token[static_cast<size_t>(c)] = true;
  return token;
}();

size_t token_size(std::string_view text) {
  size_t n = 0;
  while (n < text.size() && kToken[static_cast<unsigned char>(text[n])]) ++n;
  return n;
}

bool is_blank(char c) { return c == ' ' || c == '\t'; }

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

// Without branches: the compiler looks at many bytes at once.
bool has_control(std::string_view text) {
  unsigned found = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    found |= static_cast<unsigned>((byte < 0x20) & (byte != '\t')) | static_cast<unsigned>(byte == 0x7f);
  }
  return found != 0;
}

bool is_visible(std::string_view text) {
  unsigned other = 0;
  for (const char c : text)
    other |= static_cast<unsigned>((c <= 0x20) | (static_cast<unsigned char>(c) >= 0x7f));
  return other == 0;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

int hex_value(char c) {
  if (is_digit(c)) return c - '0';
  const char l = lower_ascii(c);
  return l >= 'a' && l <= 'f' ? l - 'a' + 10 : -1;
}

bool is_word(std::string_view text, std::string_view lower) {
  return std::ranges::equal(text, lower, {}, lower_ascii);
}

bool is_known_method(std::string_view name) {
  constexpr std::array<std::string_view, 6> kOthers{"PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"};
  return std::ranges::find(kOthers, name) != kOthers.end();
}

}  // namespace

Parse Parser::fail(int status, std::string_view detail) {
  refusal = {status, detail};
  return Parse::error;
}

void Parser::forget() {
  seen_ = head_size_ = chunk_at_ = trailer_at_ = 0;
  continue_told_ = false;
}

bool Parser::take_continue() {
  if (head_size_ == 0 || !framing_.expects || seen_ > head_size_ || continue_told_) return false;
  return continue_told_ = true;
}

Parse Parser::next(std::string_view input) {
  const bool again = head_size_ != 0;
  if (!again) {
    // Lines are judged when they are whole, so without the end of one there is nothing new.
    const bool nothing_new = seen_ != 0 && input.size() < kHeadBytesMax &&
                             std::memchr(input.data() + seen_, '\n', input.size() - seen_) == nullptr;
    const Parse head = nothing_new ? Parse::incomplete : read_head(input);
    seen_ = input.size();
    if (head != Parse::request) return head;
  }
  seen_ = input.size();
  if (framing_.chunked) {
    if (const Parse body = read_chunks(input); body != Parse::request) return body;
  } else if (input.size() - head_size_ < framing_.length) {
    return Parse::incomplete;
  }
  if (again) read_head(input);  // its bytes may lie elsewhere by now
  message.body = framing_.chunked ? std::string_view(chunks_) : input.substr(head_size_, framing_.length);
  consumed = framing_.chunked ? chunk_at_ : head_size_ + framing_.length;
  forget();
  return Parse::request;
}

// The line at `at`, without its CR LF. Nothing of a line is judged before all of it is there. What has no end
// before the offset `end` is incomplete for good, which is the caller's to say.
Parse Parser::read_line(std::string_view input, size_t at, size_t end, std::string_view& line) {
  const std::string_view within = input.substr(0, end);
  if (at >= within.size()) return Parse::incomplete;
  const void* found = std::memchr(within.data() + at, '\n', within.size() - at);
  if (found == nullptr) return Parse::incomplete;
  const auto lf = static_cast<size_t>(static_cast<const char*>(found) - within.data());
  if (lf == at || within[lf - 1] != '\r') return fail(400, "a line ends with LF alone; lines end with CR LF");
  line = within.substr(at, lf - 1 - at);
  return Parse::request;
}

Parse Parser::read_head(std::string_view input) {
  message = {};
  framing_ = {};
  // One empty line before a request is let pass, as RFC 9112 wants it: some clients end a body with one.
  size_t at = input.starts_with("\r\n") ? 2 : 0;
  for (bool first = true;; first = false) {
    std::string_view line;
    const Parse found = read_line(input, at, kHeadBytesMax, line);
    if (found == Parse::error) return found;
    if (found == Parse::incomplete) {
      if (input.size() < kHeadBytesMax) return found;
      return first ? fail(414, "the request line is longer than the 8192 bytes that a head may have")
                   : fail(431, "the head of the request is longer than the 8192 bytes that it may have");
    }
    at += line.size() + 2;
    if (line.empty() && !first) break;
    if (const Parse read = first ? read_request_line(line) : read_field(line); read != Parse::request)
      return read;
  }
  if (const Parse fine = check_framing(); fine != Parse::request) return fine;
  head_size_ = at;
  return Parse::request;
}

Parse Parser::read_request_line(std::string_view line) {
  constexpr std::string_view kWhat = "the request line must be METHOD SP TARGET SP HTTP/1.1";
  const size_t name = token_size(line);
  if (name == 0 || name == line.size() || line[name] != ' ') return fail(400, kWhat);
  message.method_name = line.substr(0, name);
  const std::string_view rest = line.substr(name + 1);
  const size_t target = std::min(rest.find(' '), rest.size());
  if (target == 0 || target == rest.size()) return fail(400, kWhat);
  const std::string_view version = rest.substr(target + 1);
  if (version.size() != 8 || !version.starts_with("HTTP/") || !is_digit(version[5]) || version[6] != '.' ||
      !is_digit(version[7]))
    return fail(400, kWhat);
  if (version[5] != '1') return fail(505, "HTTP/1.1 and HTTP/1.0 are served");
  message.minor_0 = version[7] == '0';
  message.keep_alive = !message.minor_0;
  if (message.method_name == "GET")
    message.method = Method::get;
  else if (message.method_name == "POST")
    message.method = Method::post;
  else if (message.method_name == "HEAD")
    message.method = Method::head;
  else if (!is_known_method(message.method_name))
    return fail(501, "the method is none that is known here; there are GET, HEAD and POST");
  return read_target(rest.substr(0, target));
}

Parse Parser::read_target(std::string_view target) {
  if (!is_visible(target)) return fail(400, "the target has a byte that must be percent-encoded");
  constexpr std::string_view kScheme = "http://";
  if (target.size() > kScheme.size() && is_word(target.substr(0, kScheme.size()), kScheme)) {
    target.remove_prefix(kScheme.size());
    target.remove_prefix(std::min(target.find('/'), target.size()));
    if (target.empty()) target = "/";
  }
  if (target.front() != '/') return fail(400, "the target must be a path that begins with '/'");
  const size_t query = std::min(target.find('?'), target.size());
  message.path = target.substr(0, query);
  message.query = target.substr(std::min(query + 1, target.size()));
  return Parse::request;
}

Parse Parser::read_field(std::string_view line) {
  const size_t name = token_size(line);
  if (name == 0 || name == line.size() || line[name] != ':')
    return fail(400, "a field must be NAME: VALUE, in one line and with no blank before the colon");
  const std::string_view value = line.substr(name + 1);
  if (has_control(value)) return fail(400, "the value of a field has a control character");
  return read_value(line.substr(0, name), trimmed(value));
}

// What matters here of all fields. By the length of their names first: most are none of these.
Parse Parser::read_value(std::string_view name, std::string_view value) {
  switch (name.size()) {
    case 4:
      if (!is_word(name, "host")) break;
      if (std::exchange(framing_.host, true)) return fail(400, "there are two Host fields");
      break;
    case 6:
      if (!is_word(name, "expect")) break;
      if (!is_word(value, "100-continue")) return fail(417, "of Expect there is 100-continue alone");
      framing_.expects = !message.minor_0;
      break;
    case 10:
      if (is_word(name, "connection")) return read_connection(value);
      break;
    case 11:
      if (!is_word(name, "x-tally-key")) break;
      if (!message.key.empty()) return fail(400, "there are two X-Tally-Key fields");
      message.key = value;
      break;
    case 12:
      if (!is_word(name, "x-tally-rule")) break;
      if (!message.rule.empty()) return fail(400, "there are two X-Tally-Rule fields");
      message.rule = value;
      break;
    case 14:
      if (is_word(name, "content-length")) return read_length(value);
      break;
    case 17:
      if (!is_word(name, "transfer-encoding")) break;
      if (framing_.chunked) return fail(400, "there are two Transfer-Encoding fields");
      if (!is_word(value, "chunked")) return fail(501, "of Transfer-Encoding there is chunked alone");
      framing_.chunked = true;
      break;
    default:
      break;
  }
  return Parse::request;
}

Parse Parser::read_length(std::string_view value) {
  if (std::exchange(framing_.sized, true)) return fail(400, "there are two Content-Length fields");
  if (value.empty() || !std::ranges::all_of(value, is_digit))
    return fail(400, "Content-Length must be a whole number");
  if (value.size() > kLengthDigitsMax) return fail(413, "a body may have 65536 bytes");
  for (const char c : value) framing_.length = framing_.length * 10 + static_cast<size_t>(c - '0');
  return Parse::request;
}

Parse Parser::read_connection(std::string_view value) {
  while (!value.empty()) {
    const size_t comma = std::min(value.find(','), value.size());
    const std::string_view word = trimmed(value.substr(0, comma));
    if (is_word(word, "close")) message.keep_alive = false;
    if (is_word(word, "keep-alive") && message.minor_0) message.keep_alive = true;
    value.remove_prefix(std::min(comma + 1, value.size()));
  }
  return Parse::request;
}

Parse Parser::check_framing() {
  if (!framing_.host && !message.minor_0) return fail(400, "HTTP/1.1 needs a Host field");
  if (framing_.chunked && framing_.sized)
    return fail(400, "there are both Content-Length and Transfer-Encoding");
  if (framing_.chunked && message.minor_0) return fail(400, "HTTP/1.0 has no Transfer-Encoding");
  if (framing_.length > kBodyBytesMax) return fail(413, "a body may have 65536 bytes");
  message.has_length = framing_.sized || framing_.chunked;
  return Parse::request;
}

// Takes whole chunks only, each once.
Parse Parser::read_chunks(std::string_view input) {
  if (chunk_at_ == 0) {
    chunk_at_ = head_size_;
    chunks_.clear();
  }
  std::string_view line;
  while (trailer_at_ == 0) {
    const Parse found = read_line(input, chunk_at_, chunk_at_ + kChunkLineMax, line);
    if (found == Parse::error) return found;
    if (found == Parse::incomplete)
      return input.size() < chunk_at_ + kChunkLineMax
                 ? found
                 : fail(400, "the line before a chunk is longer than 256 bytes");
    size_t digits = 0, size = 0;
    for (; digits < line.size() && hex_value(line[digits]) >= 0; ++digits) {
      size = size * 16 + static_cast<size_t>(hex_value(line[digits]));
      if (size > kBodyBytesMax) return fail(413, "a body may have 65536 bytes");
    }
    if (digits == 0 || (digits < line.size() && line[digits] != ';') || has_control(line))
      return fail(400, "before a chunk there must be its length in hexadecimal digits");
    const size_t data = chunk_at_ + line.size() + 2;
    if (size == 0) {
      trailer_at_ = chunk_at_ = data;
      break;
    }
    if (chunks_.size() + size > kBodyBytesMax) return fail(413, "a body may have 65536 bytes");
    if (data + size + 2 - head_size_ > 2 * kBodyBytesMax)
      return fail(413, "the chunks of the body are too small");
    if (input.size() < data + size + 2) return Parse::incomplete;
    if (input.substr(data + size, 2) != "\r\n") return fail(400, "a chunk must end with CR LF");
    chunks_.append(input, data, size);
    chunk_at_ = data + size + 2;
  }
  do {  // of the trailer nothing is wanted
    const size_t end = trailer_at_ + kHeadBytesMax;
    const Parse found = read_line(input, chunk_at_, end, line);
    if (found == Parse::error) return found;
    if (found == Parse::incomplete)
      return input.size() < end ? found : fail(431, "the trailer is longer than 8192 bytes");
    chunk_at_ += line.size() + 2;
  } while (!line.empty());
  return Parse::request;
}

bool decode(std::string_view text, std::string& out) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i] == '+' ? ' ' : text[i];
      continue;
    }
    if (text.size() - i < 3) return false;
    const int high = hex_value(text[i + 1]), low = hex_value(text[i + 2]);
    if (high < 0 || low < 0) return false;
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return true;
}

}  // namespace tally::http
