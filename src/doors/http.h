// HTTP/1.1 as far as the HTTP door needs it: bytes -> requests (RFC 9112).
//
// Thread rule: one owner per parser; nothing shared. Total over any bytes; allocates only to put the pieces
// of a chunked body together. Whatever pieces the bytes arrive in, the outcome is the same.
//
// Our own, as nothing that is packaged fits: http-parser of Debian 12 is no longer kept by its makers (its
// successor llhttp is not there), and gives each byte to a callback; Boost.Beast brings Boost.Asio and
// allocates each field. Stricter than most, because what two parsers read differently is how requests are
// smuggled past the first: no bare LF, no folded lines, no blank before a colon, one Content-Length, and
// never with a Transfer-Encoding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tally::http {

inline constexpr size_t kHeadBytesMax = 8'192;  // request line and fields, the empty line included
inline constexpr size_t kBodyBytesMax =
    65'536;  // without the framing of chunks, which may take as much again

enum class Method : uint8_t { get, head, post, other };

// One request. The views point into the input, the body of a chunked one into the parser until its next call.
struct Message {
  Method method = Method::other;
  std::string_view method_name;
  std::string_view path;       // as sent, begins with '/'
  std::string_view query;      // as sent, without the '?'
  std::string_view rule, key;  // X-Tally-Rule and X-Tally-Key; "" where absent
  std::string_view body;
  bool has_length = false;  // it says how long its body is
  bool minor_0 = false;     // HTTP/1.0
  bool keep_alive = true;   // the other side wants to send more
};

// Why the bytes are no request that is served. Static text; `detail` says what to do.
struct Refusal {
  int status = 400;
  std::string_view detail;
};

enum class Parse : uint8_t {
  request,     // `message` is filled, `consumed` bytes are done
  incomplete,  // need more bytes; nothing consumed
  error,       // send `refusal`, then close: where the next request begins is not known
};

// One parser for a connection; keeps no bytes, only how far it came after `incomplete`: the next input begins
// with the same bytes, wherever they lie now.
class Parser {
 public:
  Parse next(std::string_view input);
  // After `incomplete`: whether the other side waits for "100 Continue" before it sends the body. True once
  // for each request.
  bool take_continue();
  // What was seen of a request is not to be gone on with.
  void forget();

  Message message;
  size_t consumed = 0;
  Refusal refusal;

 private:
  struct Framing {
    bool host = false, sized = false, chunked = false, expects = false;
    size_t length = 0;
  };
  Parse read_head(std::string_view input);
  Parse read_chunks(std::string_view input);
  Parse read_line(std::string_view input, size_t at, size_t end, std::string_view& line);
  Parse read_request_line(std::string_view line);
  Parse read_target(std::string_view target);
  Parse read_field(std::string_view line);
  Parse read_value(std::string_view name, std::string_view value);
  Parse read_length(std::string_view value);
  Parse read_connection(std::string_view value);
  Parse check_framing();
  Parse fail(int status, std::string_view detail);

  Framing framing_;
  size_t seen_ = 0;       // of a request that was incomplete: so much was looked at
  size_t head_size_ = 0;  // 0: it has not ended yet
  size_t chunk_at_ =
      0;  // chunked: where the next chunk, or the next line of the trailer, begins; 0: not begun
  size_t trailer_at_ = 0;  // where the trailer begins; 0: not there yet
  bool continue_told_ = false;
  std::string chunks_;  // what they had
};

// Decodes %XX and '+' (a blank) of a query's value to the end of `out`; false where a '%' is not followed by
// two hexadecimal digits.
bool decode(std::string_view text, std::string& out);

}  // namespace tally::http
