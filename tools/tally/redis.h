// A connection of the operator's tool to a Redis, and which servers of one a URL names.
//
// Thread rule: one owner; blocks, at most kRedisPatience for each reply.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/fail.h"
#include "config/books_url.h"
#include "daemon/redis_reply.h"

namespace tally::tool {

inline constexpr std::chrono::seconds kRedisPatience{15};

class Redis {
 public:
  struct Free {
    void operator()(redisReply* reply) const;
    void operator()(redisContext* context) const;
  };
  using Reply = std::unique_ptr<redisReply, Free>;
  using Words = std::vector<std::string>;

  // Errors say which server, and why; none has the password. `url`: what to log in with.
  static Result<Redis> open(const RedisAddress& address, const BooksUrl& url);
  Result<Reply> ask(const Words& words);
  // In one go, replies in order. Errors that Redis answers are replies in this.
  Result<std::vector<Reply>> ask_all(const std::vector<Words>& commands);

  const RedisAddress& address() const { return address_; }

 private:
  Redis(RedisAddress address, std::unique_ptr<redisContext, Free> context)
      : address_(std::move(address)), context_(std::move(context)) {}
  Failure failed(std::string_view why) const;

  RedisAddress address_;
  std::unique_ptr<redisContext, Free> context_;
};

// The masters that the books of that URL are kept in: one, or those of a cluster.
Result<std::vector<Redis>> open_masters(const BooksUrl& url);

}  // namespace tally::tool
