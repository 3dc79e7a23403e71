// What a Redis answers, as hiredis has it.
#pragma once

#include <hiredis/hiredis.h>

#include <string_view>

namespace tally {

// Of strings, states and errors; "": it has none.
inline std::string_view text_of(const redisReply& reply) {
  return reply.str == nullptr ? std::string_view() : std::string_view(reply.str, reply.len);
}

}  // namespace tally
