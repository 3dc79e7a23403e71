// The Redis that keeps books: found, connected to and asked.
//
// Thread rule: the thread that runs `io`, after construction too.
//
// Scripts are called, which a server gets as soon as it is connected to. A connection that ends, or whose
// server is no master, is made anew after a while that grows and is never the same for all; what was asked of
// it and is not answered has failed.
#pragma once

#include <array>
#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "base/time.h"
#include "books/scripts.h"
#include "config/books_url.h"
#include "daemon/log.h"
#include "daemon/redis_connection.h"

namespace tally {

class RedisStore {
 public:
  // nullptr: no answer. The call may have been carried out.
  using Then = RedisConnection::Then;
  // `isolation_after`: how long may pass without an answer until whoever relies on it goes by itself.
  RedisStore(asio::io_context& io, Log& log, BooksUrl url, Duration isolation_after, uint64_t seed);
  ~RedisStore();
  RedisStore(const RedisStore&) = delete;
  RedisStore& operator=(const RedisStore&) = delete;

  void use(Duration isolation_after) { isolation_after_ = isolation_after; }  // of what begins from now on
  bool ready() const { return ready_; }
  const std::string& server() const { return server_; }  // the run id of who was connected to last
  std::string address() const { return ready_ ? connection_->address().text() : ""; }
  // `keys`: all of one slot of a Redis Cluster. Without ready() it fails soon. An error that says that
  // another server has to be asked ends the connection.
  void call(BooksScript script, const std::vector<std::string>& keys, const std::vector<std::string>& arguments, Then then);

  // Who does not answer for so long is gone: before a node takes it for silent, so that another connection,
  // or another master, is found.
  Duration patience() const;
  // For how long at most after a loss of the server's state some node may not know of it: its connection is
  // found to be gone, and another one is made.
  Duration found_anew_within() const;

  struct Counts {
    bool up = false;
    uint64_t reconnects = 0, errors = 0;
  };
  Counts counts() const { return {ready_, reconnects_, errors_}; }

 private:
  void connect();
  void ask_sentinel();
  void handshake();
  void load(size_t script);
  void step(const std::vector<std::string>& words, std::function<void(const redisReply&)> then);
  void refuse(const std::string& why);
  void lost(const std::string& why);
  Duration backoff_max() const;

  asio::io_context& io_;
  Log& log_;
  const BooksUrl url_;
  Duration isolation_after_;
  Random dice_;
  asio::steady_timer again_;
  std::shared_ptr<RedisConnection> connection_;
  bool ready_ = false;  // scripts can be called
  bool said_ = false;   // that it cannot be reached
  size_t place_ = 0;    // of the url, the next to be tried
  int failures_ = 0;    // in a row
  std::string server_;
  std::array<std::string, kBooksScripts> shas_;
  uint64_t reconnects_ = 0, errors_ = 0;
};

}  // namespace tally
