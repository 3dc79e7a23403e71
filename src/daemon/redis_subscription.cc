#include "daemon/redis_subscription.h"

#include <utility>

#include "daemon/redis_reply.h"

namespace tally {

RedisSubscription::RedisSubscription(asio::io_context& io, const RedisAddress& server, std::vector<std::string> login, std::string channel, Duration patience,
                                     std::function<void(std::string_view)> on_message, std::function<void(const std::string&)> on_end) {
  const auto subscribe = [this, channel = std::move(channel)] { step({"SUBSCRIBE", channel}, [] {}); };
  const auto begin = [this, login = std::move(login), subscribe] { login.empty() ? subscribe() : step(login, subscribe); };
  connection_ = RedisConnection::open(io, server, patience, begin, std::move(on_end));
  connection_->hear([on_message = std::move(on_message)](const redisReply& message) {  // "message", the channel, what was said
    if (message.type == REDIS_REPLY_ARRAY && message.elements == 3 && text_of(*message.element[0]) == "message") on_message(text_of(*message.element[2]));
  });
}

void RedisSubscription::step(const std::vector<std::string>& words, std::function<void()> then) {
  connection_->command(words, [this, name = words.front(), then = std::move(then)](const redisReply* reply) {
    if (reply == nullptr) return;  // on_end is told
    if (reply->type == REDIS_REPLY_ERROR) return connection_->end(name + ": " + std::string(text_of(*reply)));
    then();
  });
}

}  // namespace tally
