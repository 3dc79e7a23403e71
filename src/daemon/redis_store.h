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
#include "daemon/books_store.h"
#include "daemon/log.h"
#include "daemon/redis_subscription.h"

namespace tally {

class RedisStore : public BooksStore {
 public:
  // `on_lost`: a connection has ended, or none was made.
  RedisStore(
      asio::io_context& io, Log& log, BooksUrl url, Duration isolation_after, uint64_t seed,
      std::function<void()> on_lost = [] {});
  ~RedisStore() override;

  bool ready(uint32_t) const override { return ready_; }
  std::string address() const override { return ready_ ? connection_->address().text() : ""; }
  void call(uint32_t tag, BooksScript script, Make make, Then then) override;
  Counts counts() const override;

  // Of a server of a cluster. `asking`: a slot that moves here. An error that says that another server has to
  // be asked for all ends the connection.
  void ask(BooksScript script, const Words& words, bool asking, Then then);
  bool ready() const { return ready_; }
  const RedisAddress& place() const { return url_.places.front(); }
  const std::string& server() const { return server_; }  // the run id of who was connected to last

 private:
  void connect();
  void ask_sentinel();
  void handshake();
  void load(size_t script);
  void step(const std::vector<std::string>& words, std::function<void(const redisReply&)> then);
  void subscribe();
  void lost(const std::string& why);

  asio::io_context& io_;
  Log& log_;
  const BooksUrl url_;
  Random dice_;
  const std::function<void()> on_lost_;
  asio::steady_timer again_;
  std::shared_ptr<RedisConnection> connection_;
  std::unique_ptr<RedisSubscription> subscription_;
  std::shared_ptr<void> here_ = std::make_shared<int>();
  bool ready_ = false;  // scripts can be called
  bool said_ = false;   // that it cannot be reached
  bool said_deaf_ = false;
  size_t place_ = 0;    // of the url, the next to be tried
  int failures_ = 0;    // in a row
  std::string server_;
  std::array<std::string, kBooksScripts> shas_;
  uint64_t reconnects_ = 0, errors_ = 0;
};

}  // namespace tally
