// The masters of a Redis Cluster that keep books: found by their slots, connected to and asked.
//
// Thread rule: as BooksStore.
//
// Each master that has a tag has a connection of its own, so one that is away takes away its tags and no
// others. Who has a slot is asked of any server: at the beginning, when a connection ends, and when a master
// sends elsewhere.
#pragma once

#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "config/books_url.h"
#include "daemon/books_store.h"
#include "daemon/log.h"
#include "daemon/redis_store.h"

namespace tally {

class RedisCluster : public BooksStore {
 public:
  // `slots`: of each tag.
  RedisCluster(asio::io_context& io, Log& log, BooksUrl url, std::vector<uint16_t> slots,
               Duration isolation_after, uint64_t seed);
  ~RedisCluster() override;

  void use(Duration isolation_after) override;
  bool ready(uint32_t tag) const override { return masters_[tag] != nullptr && masters_[tag]->ready(); }
  std::string address() const override;
  void call(uint32_t tag, BooksScript script, Make make, Then then) override;
  Counts counts() const override;

 private:
  struct Question {
    uint32_t tag;
    BooksScript script;
    Make make;
    Then then;
  };
  void ask(RedisStore* server, std::shared_ptr<Question> question, bool asking, int hops);
  void on_error(std::string_view error, const RedisAddress& from, const std::shared_ptr<Question>& question,
                int hops, const redisReply* reply);
  RedisStore& server_at(const RedisAddress& address);
  void look_up_soon();
  void look_up();
  void ask_slots();
  void looked_up(const std::string& failure);
  void take(const redisReply& slots);
  RedisAddress whom_to_ask();

  asio::io_context& io_;
  Log& log_;
  const BooksUrl url_;
  const std::vector<uint16_t> slots_;
  Random dice_;
  asio::steady_timer again_;
  std::shared_ptr<RedisConnection> asked_;                      // who has which slots
  std::map<std::string, std::unique_ptr<RedisStore>> servers_;  // by address
  std::vector<RedisStore*> masters_;                            // of each tag; nullptr: not known
  bool looks_up_ = false;                                       // or will soon
  bool said_ = false;                                           // that nobody tells
  int failures_ = 0;                                            // in a row
  size_t place_ = 0;
  Counts counts_;  // of what is gone, and of redirections
};

}  // namespace tally
