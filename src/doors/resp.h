// RESP2 and RESP3, as Redis clients speak it: bytes -> commands, replies -> bytes.
//
// Thread rule: one owner per parser and per buffer; nothing shared. Total over any bytes; allocates only to
// grow its own buffers, never per command once warm. Source of the format: the Redis serialization protocol
// specification, and what Redis 7.0 does where that is silent. Stricter than Redis in one thing: a length
// must be followed by CR LF, and so must the bytes that it counts.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tally::resp {

struct Limits {
  size_t arguments_max = 1024;
  size_t argument_bytes_max = 65'536;
  size_t inline_bytes_max = 65'536;
  size_t command_bytes_max = 1'048'576;  // of one whole command; a read buffer of this size always suffices
};

enum class Parse : uint8_t {
  command,     // `args` is filled (one or more), `consumed` bytes are done
  incomplete,  // need more bytes; nothing consumed
  nothing,     // an empty line or a null or empty array: skip `consumed`
  error,       // protocol error: `error` is the text to send (without "-ERR "), then close; nothing consumed
};

// One parser for a connection; keeps no bytes, only scratch and, after `incomplete`, how far it came: the
// next input begins with the same bytes (wherever they lie now), or forget() comes before it. The views in
// `args` point into `input`, except after an inline command with quotes, where they point into the parser's
// scratch until the next call.
class Parser {
 public:
  explicit Parser(Limits limits = {}) : limits_(limits) {}
  Parse next(std::string_view input);
  void forget() {
    at_ = 0;
    found_.clear();
  }

  std::vector<std::string_view> args;
  size_t consumed = 0;
  std::string error;

 private:
  struct Piece {
    size_t offset, size;
  };
  Parse next_array(std::string_view input);
  Parse next_inline(std::string_view input);
  bool split(std::string_view line);
  size_t split_quoted(std::string_view line, size_t at);
  Parse pause(std::string_view input, size_t at, size_t left);
  Parse fail(std::string_view text);

  Limits limits_;
  std::string scratch_;
  // Where an unfinished command stands: the first byte not yet understood (0: nothing is), arguments still to
  // come and those found so far.
  size_t at_ = 0;
  size_t left_ = 0;
  std::vector<Piece> found_;
};

// Appends replies to a buffer the caller owns. `version` is 2 or 3 (HELLO).
class Writer {
 public:
  explicit Writer(std::string& out, int version = 2) : out_(out), version_(version) {}
  int version() const { return version_; }
  void simple(std::string_view text);  // +OK
  void error(std::string_view text);   // "ERR ...": the first word is the stable code; CR and LF are replaced
  void integer(int64_t value);
  void integers(std::span<const int64_t> values);  // an array of them, in one append; at most 9
  void bulk(std::string_view bytes);
  void null();
  void array(size_t count);   // followed by that many replies
  void map(size_t pairs);     // RESP2: an array of twice as many
  void boolean(bool value);   // RESP2: 1 or 0
  void number(double value);  // RESP2: a bulk string

 private:
  void header(char kind, int64_t value);
  void line(char kind, std::string_view text);

  std::string& out_;
  int version_;
};

// Parses a decimal integer the way Redis does (no spaces, no +, no leading zeros, whole range of int64).
bool parse_integer(std::string_view text, int64_t& out);

}  // namespace tally::resp
