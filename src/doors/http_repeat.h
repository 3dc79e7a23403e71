// The last GET /v1/auth of a connection, for the next one that differs in its key alone: a proxy asks by one
// rule, with the same fields, again and again. Comparing bytes is then all that reading a request takes (half
// of the instructions of a decision otherwise). As repeat.h does it of RESP.
//
// Thread rule: one owner, with the connection's parser. Total over any bytes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "doors/commands.h"
#include "doors/http.h"

namespace tally::http {

class Repeat {
 public:
  // `bytes`: of a whole request, read by the parser, of which `request` was made. Forgets where it is none
  // that asks about a key that stands in it as it is, or is too long to keep.
  void remember(std::string_view bytes, const Message& message, const resp::Request& request,
                const resp::Env& env);
  // Where `input` begins with the same request with any key: `request` is what read_request would have made
  // of it, its key in `input`. Returns how many bytes it had; 0: it is another one, or not all of it is
  // there, or its key is one that has to be looked at more closely.
  size_t read(std::string_view input, const resp::Env& env, resp::Request& request) const;
  void forget() { rules_number_ = 0; }

 private:
  std::array<char, 384> head_;  // up to the key
  std::array<char, 384> tail_;  // from the key's end
  uint16_t head_size_ = 0, tail_size_ = 0;
  bool in_query_ = false;      // else in a field
  uint64_t rules_number_ = 0;  // as in resp::Env; 0: nothing is remembered
  resp::Request request_;
};

}  // namespace tally::http
