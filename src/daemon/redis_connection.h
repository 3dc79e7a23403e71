// One connection to a Redis server: commands in, replies out, in order.
//
// Thread rule: that of the io_context that it was made with. hiredis reads and writes the protocol; the socket is asio's, so that
// nothing here waits.
#pragma once

#include <asio/generic/stream_protocol.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/steady_timer.hpp>
#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.h"

struct redisReply;
struct redisReader;

namespace tally {

struct RedisAddress {
  std::string host;  // an address or a name; a path where it begins with '/'
  uint16_t port = 0;
  std::string text() const;  // as it is written
  friend bool operator==(const RedisAddress&, const RedisAddress&) = default;
};

std::string_view text_of(const redisReply& reply);  // "": it has none

class RedisConnection : public std::enable_shared_from_this<RedisConnection> {
 public:
  // nullptr: the connection ended before the answer came. The command may have been carried out.
  using Then = std::function<void(const redisReply*)>;
  // `answer_within`: of connecting, and of each command; whoever takes longer is gone. `on_end`: once, with the reason; not after close().
  static std::shared_ptr<RedisConnection> open(asio::io_context& io, const RedisAddress& address, Duration answer_within, std::function<void()> on_connected,
                                               std::function<void(const std::string&)> on_end);
  ~RedisConnection();
  RedisConnection(const RedisConnection&) = delete;
  RedisConnection& operator=(const RedisConnection&) = delete;

  void command(const std::vector<std::string>& words, Then then);
  void end(const std::string& why);  // as if the other side had ended it
  void close();                      // what is not answered never is

  const RedisAddress& address() const { return address_; }

 private:
  RedisConnection(asio::io_context& io, RedisAddress address, Duration answer_within, std::function<void()> on_connected,
                  std::function<void(const std::string&)> on_end);
  void connect();
  void connect_to(std::vector<asio::generic::stream_protocol::endpoint> endpoints, size_t which);
  void read();
  void write();
  void expect();

  asio::io_context& io_;
  const RedisAddress address_;
  const Duration answer_within_;
  std::function<void()> on_connected_;
  std::function<void(const std::string&)> on_end_;
  asio::generic::stream_protocol::socket socket_;
  asio::ip::tcp::resolver resolver_;
  asio::steady_timer patience_;
  struct Free {
    void operator()(redisReader* reader) const;
  };
  std::unique_ptr<redisReader, Free> reader_;
  std::array<char, 65'536> in_;
  std::string out_, writing_;
  std::deque<Then> waiting_;
  bool connected_ = false, ended_ = false;
};

}  // namespace tally
