// HTTP messages -> typed requests, as commands.h does it of RESP commands.
//
// Thread rule: pure. Total over any message. GET /v1/auth allocates nothing, unless its key has to be
// decoded.
#pragma once

#include <string>
#include <string_view>

#include "doors/commands.h"
#include "doors/http.h"

namespace tally::http {

// What a request may be answered from, beside what one over RESP may be.
struct Env {
  const resp::Env& about;
  bool may_operate = false;  // reset, reload: on Unix sockets, whose files have modes
  bool ready = false;        // for /readyz
  std::string_view page;     // for /
  std::string_view date;     // as DateField has it
};

// Reads one message. Where the request is `answered`, its reply is appended to `reply`; otherwise nothing is,
// and the reply is the caller's, by request.http. `request` is overwritten whole. A key that does not stand
// in the message as it is lies in `key`, until the next call.
void read_request(const Message& message, const Env& env, resp::Request& request, std::string& reply,
                  std::string& key);

}  // namespace tally::http
