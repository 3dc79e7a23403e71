// A connection of the operator's tool to a daemon: one command, one reply, in RESP3.
//
// Thread rule: one owner; blocks, at most kPatience for each reply.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fail.h"
#include "daemon/descriptor.h"

namespace tally::tool {

struct Reply {
  enum class Kind { null, text, error, integer, number, boolean, list, map } kind = Kind::null;
  std::string text;                                // text and error
  int64_t integer = 0;                             // integer and boolean
  double number = 0;                               // number
  std::vector<Reply> items;                        // list; map: name, value, name, value, ...
  const Reply* find(std::string_view name) const;  // in a map; nullptr where it is not there
};

// Reads one reply from the front of `bytes`. Returns how many bytes it had; 0: more are needed. Fails on what
// is not RESP.
Result<size_t> parse_reply(std::string_view bytes, Reply& out, int depth = 0);
std::string to_json(const Reply& reply);
std::string to_text(const Reply& reply);  // of a plain value

// For a reply. More than a request may wait for, and than a node takes to be ready, which a reload answers after: 10 s.
inline constexpr auto kPatience = std::chrono::seconds(15);

class Connection {
 public:
  // `where`: a socket's path, or HOST:PORT with a numeric host. The error says the path, the errno and what
  // to do.
  static Result<Connection> open(const std::string& where);
  // Fails where the daemon went away or did not answer in time; an error reply is a reply.
  Result<Reply> ask(const std::vector<std::string>& command);

 private:
  Connection(std::string where, Descriptor fd) : where_(std::move(where)), fd_(std::move(fd)) {}
  Result<bool> send(std::string_view bytes);

  std::string where_;
  Descriptor fd_;
  std::string input_;
};

}  // namespace tally::tool
