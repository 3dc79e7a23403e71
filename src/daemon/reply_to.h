// Where the answer to a request that waits goes, and how it is written.
//
// Thread rule: the worker's that owns the connection.
#pragma once

#include "doors/commands.h"
#include "doors/http_form.h"

namespace tally {

struct Session;
struct HeldReply;

struct ReplyTo {
  Session* session = nullptr;  // nullptr: the connection went, or it was none that asked
  HeldReply* held = nullptr;   // its place there, as soon as that is known
  int version = 2;
  resp::Form form = resp::Form::six;
  http::Form http;

  ReplyTo() = default;
  ReplyTo(Session& asks, const resp::Request& request) : session(&asks), version(request.version), form(request.form), http(request.http) {}
};

}  // namespace tally
