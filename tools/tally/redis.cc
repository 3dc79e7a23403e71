#include "redis.h"

#include <algorithm>
#include <cstring>

#include "daemon/redis_slots.h"

namespace tally::tool {
namespace {

constexpr timeval kTimeout{kRedisPatience.count(), 0};

Result<bool> log_in(Redis& redis, const BooksUrl& url) {
  if (const auto words = url.login(); !words.empty())
    if (const auto reply = redis.ask(words); !reply) return Failure{reply.error()};
  if (url.database == 0) return true;
  if (const auto reply = redis.ask({"SELECT", std::to_string(url.database)}); !reply)
    return Failure{reply.error()};
  return true;
}

Result<bool> is_master(Redis& redis) {
  const auto role = redis.ask({"ROLE"});
  if (!role) return Failure{role.error()};
  const redisReply& reply = *role.value();
  return reply.type == REDIS_REPLY_ARRAY && reply.elements > 0 && text_of(*reply.element[0]) == "master";
}

Result<RedisAddress> ask_sentinel(const RedisAddress& place, const BooksUrl& url) {
  auto sentinel = Redis::open(place, BooksUrl{});
  if (!sentinel) return Failure{sentinel.error()};
  const auto told = sentinel.value().ask({"SENTINEL", "get-master-addr-by-name", url.service});
  if (!told) return Failure{told.error()};
  auto master = read_master(*told.value());
  if (!master) return Failure{"Sentinel " + place.text() + " knows no master '" + url.service + "'"};
  return std::move(*master);
}

// Who has slots.
Result<std::vector<RedisAddress>> ask_cluster(const RedisAddress& place, const BooksUrl& url) {
  auto asked = Redis::open(place, url);
  if (!asked) return Failure{asked.error()};
  const auto told = asked.value().ask({"CLUSTER", "SLOTS"});
  if (!told) return Failure{told.error()};
  std::vector<RedisAddress> masters;
  for (const SlotRange& range : read_slots(*told.value(), place))
    if (std::ranges::find(masters, range.master) == masters.end()) masters.push_back(range.master);
  if (masters.empty())
    return Failure{"Redis at " + place.text() + " is in a cluster in which nobody has slots"};
  return masters;
}

// Of that place of the URL.
Result<std::vector<Redis>> open_masters_at(const RedisAddress& place, const BooksUrl& url) {
  std::vector<RedisAddress> addresses{place};
  if (url.kind == BooksUrl::Kind::sentinel) {
    const auto master = ask_sentinel(place, url);
    if (!master) return Failure{master.error()};
    addresses = {master.value()};
  } else if (url.kind == BooksUrl::Kind::cluster) {
    auto masters = ask_cluster(place, url);
    if (!masters) return Failure{masters.error()};
    addresses = std::move(masters.value());
  }
  std::vector<Redis> opened;
  for (const RedisAddress& address : addresses) {
    auto redis = Redis::open(address, url);
    if (!redis) return Failure{redis.error()};
    const auto master = is_master(redis.value());
    if (!master) return Failure{master.error()};
    if (!master.value()) return Failure{"Redis at " + address.text() + " is no master"};
    opened.push_back(std::move(redis.value()));
  }
  return opened;
}

}  // namespace

void Redis::Free::operator()(redisReply* reply) const { freeReplyObject(reply); }
void Redis::Free::operator()(redisContext* context) const { redisFree(context); }

Failure Redis::failed(std::string_view why) const {
  return {"Redis at " + address_.text() + ": " + std::string(why)};
}

Result<Redis> Redis::open(const RedisAddress& address, const BooksUrl& url) {
  redisContext* const context = address.port == 0
                                    ? redisConnectUnixWithTimeout(address.host.c_str(), kTimeout)
                                    : redisConnectWithTimeout(address.host.c_str(), address.port, kTimeout);
  if (context == nullptr) throw std::bad_alloc();
  Redis redis(address, std::unique_ptr<redisContext, Free>(context));
  if (context->err != 0) return redis.failed(context->errstr);
  redisSetTimeout(context, kTimeout);
  if (const auto in = log_in(redis, url); !in) return Failure{in.error()};
  return redis;
}

Result<Redis::Reply> Redis::ask(const Words& words) {
  auto replies = ask_all({words});
  if (!replies) return Failure{replies.error()};
  Reply& reply = replies.value().front();
  if (reply->type == REDIS_REPLY_ERROR) return failed(words.front() + ": " + std::string(text_of(*reply)));
  return std::move(reply);
}

Result<std::vector<Redis::Reply>> Redis::ask_all(const std::vector<Words>& commands) {
  for (const Words& words : commands) {
    std::vector<const char*> texts;
    std::vector<size_t> lengths;
    for (const std::string& word : words) {
      texts.push_back(word.data());
      lengths.push_back(word.size());
    }
    redisAppendCommandArgv(context_.get(), static_cast<int>(words.size()), texts.data(), lengths.data());
  }
  std::vector<Reply> replies;
  while (replies.size() < commands.size()) {
    void* reply = nullptr;
    if (redisGetReply(context_.get(), &reply) != REDIS_OK)
      return failed(context_->err == REDIS_ERR_IO
                        ? (errno == EAGAIN ? "it does not answer" : std::strerror(errno))
                        : context_->errstr);
    replies.emplace_back(static_cast<redisReply*>(reply));
  }
  return replies;
}

Result<std::vector<Redis>> open_masters(const BooksUrl& url) {
  std::string why;
  for (const RedisAddress& place : url.places) {
    auto masters = open_masters_at(place, url);
    if (masters) return masters;
    why += (why.empty() ? "" : "; ") + masters.error();
  }
  return Failure{why};
}

}  // namespace tally::tool
