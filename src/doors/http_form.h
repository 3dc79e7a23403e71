// How the reply to a request over HTTP is written, beside what it says. Small: it travels with a request that
// waits.
//
// Thread rule: a value.
#pragma once

#include <cstdint>

namespace tally::http {

struct Form {
  enum class Kind : uint8_t {
    none,  // the request did not come over HTTP
    auth,  // a status and headers, for proxies
    json,
    all,  // JSON, of several takes
  };
  Kind kind = Kind::none;
  bool head_only = false;  // HEAD: no body
  bool close = false;      // the reply says that the connection ends behind it
  bool says_kept = false;  // the reply says that the connection goes on, as HTTP/1.0 needs it
  bool too_many = false;   // auth: a denial is 429 rather than 403

  explicit operator bool() const { return kind != Kind::none; }
};

}  // namespace tally::http
