// The last question of a connection, for the next one that differs in its key alone: applications ask by one rule, or by one limit, again
// and again. Comparing bytes is then all that reading a command takes (half of the instructions of a decision otherwise).
//
// Thread rule: one owner, with the connection's parser. Total over any bytes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "doors/commands.h"

namespace tally::resp {

class Repeat {
 public:
  // `command`: the bytes of a whole command, read by the parser, of which `request` was made. Forgets where it is none that asks about
  // one key, or where it is too long to keep, or was no array.
  void remember(std::string_view command, const Request& request, const Env& env);
  // Where `input` begins with the same command with any key: `request` is what read_command would have made of it, its key in `input`.
  // Returns how many bytes it had; 0: it is another one, or not all of it is there. Whoever changes what the connection is, forgets.
  size_t read(std::string_view input, const Env& env, Request& request) const;
  void forget() { rules_number_ = 0; }

 private:
  std::array<char, 64> head_;  // up to the length of the key
  std::array<char, 96> tail_;  // from the key's end
  uint8_t head_size_ = 0, tail_size_ = 0;
  uint64_t rules_number_ = 0;  // as in Env; 0: nothing is remembered
  Request request_;
};

}  // namespace tally::resp
