// Where the books of a fleet are kept, when they are in Redis.
//
// Thread rule: pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/fail.h"

namespace tally {

struct RedisAddress {
  std::string host;   // an address or a name; a path where it begins with '/'
  uint16_t port = 0;  // 0 of a path
  std::string text() const;  // as it is written in a URL
  friend bool operator==(const RedisAddress&, const RedisAddress&) = default;
};

struct BooksUrl {
  enum class Kind : uint8_t {
    redis,     // redis://[USER[:PASSWORD]@]HOST[:PORT][,HOST[:PORT]...][/DATABASE][?prefix=NAME], the first that is a master; unix:PATH[?...]
    sentinel,  // redis-sentinel://[USER[:PASSWORD]@]HOST[:PORT][,...]/SERVICE[/DATABASE][?prefix=NAME]
    cluster,   // redis-cluster://[USER[:PASSWORD]@]HOST[:PORT][,...][?prefix=NAME], some of its nodes
  } kind = Kind::redis;
  std::vector<RedisAddress> places;
  std::string user, password;  // percent-encoded in the text where need be; "": none
  std::string service;         // sentinel: the name of the master there
  uint32_t database = 0;       // cluster: 0, it has no other
  std::string prefix = "tally";  // of all names there: letters, digits, '-', '_', '.', ':'

  std::vector<std::string> login() const;   // the command that logs in; empty: none does
  std::string text() const;                 // as it is written, with the password
  std::string text_without_secret() const;  // for the log
  friend bool operator==(const BooksUrl&, const BooksUrl&) = default;
};

// The error says what is wrong.
Result<BooksUrl> parse_books_url(std::string_view text);

}  // namespace tally
