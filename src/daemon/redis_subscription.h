// A channel of a Redis server, heard on a connection of its own.
//
// Thread rule: that of the io_context.
#pragma once

#include <asio/io_context.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.h"
#include "daemon/redis_connection.h"

namespace tally {

class RedisSubscription {
 public:
  // `login`: the command for it; empty: none. `on_end`: once, with the reason: nothing is heard any more.
  RedisSubscription(asio::io_context& io, const RedisAddress& server, std::vector<std::string> login, std::string channel, Duration patience,
                    std::function<void(std::string_view)> on_message, std::function<void(const std::string&)> on_end);
  ~RedisSubscription() { connection_->close(); }
  RedisSubscription(const RedisSubscription&) = delete;
  RedisSubscription& operator=(const RedisSubscription&) = delete;

 private:
  void step(const std::vector<std::string>& words, std::function<void()> then);

  std::shared_ptr<RedisConnection> connection_;
};

}  // namespace tally
