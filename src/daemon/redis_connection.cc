#include "daemon/redis_connection.h"

#include <asio/buffer.hpp>
#include <asio/local/stream_protocol.hpp>
#include <asio/post.hpp>
#include <asio/write.hpp>
#include <utility>

namespace tally {

using Endpoint = asio::generic::stream_protocol::endpoint;

void RedisConnection::Free::operator()(redisReader* reader) const { redisReaderFree(reader); }

std::shared_ptr<RedisConnection> RedisConnection::open(asio::io_context& io, const RedisAddress& address, Duration answer_within, std::function<void()> on_connected,
                                                       std::function<void(const std::string&)> on_end) {
  std::shared_ptr<RedisConnection> connection(new RedisConnection(io, address, answer_within, std::move(on_connected), std::move(on_end)));
  connection->connect();
  return connection;
}

RedisConnection::RedisConnection(asio::io_context& io, RedisAddress address, Duration answer_within, std::function<void()> on_connected,
                                 std::function<void(const std::string&)> on_end)
    : io_(io),
      address_(std::move(address)),
      answer_within_(answer_within),
      on_connected_(std::move(on_connected)),
      on_end_(std::move(on_end)),
      socket_(io),
      resolver_(io),
      patience_(io),
      reader_(redisReaderCreate()) {}

RedisConnection::~RedisConnection() = default;

void RedisConnection::connect() {
  expect();
  if (address_.host.starts_with('/')) return connect_to({Endpoint(asio::local::stream_protocol::endpoint(address_.host))}, 0);
  resolver_.async_resolve(address_.host, std::to_string(address_.port), [self = shared_from_this()](const asio::error_code& error, const asio::ip::tcp::resolver::results_type& found) {
    if (self->ended_) return;
    if (error) return self->end("its name cannot be looked up: " + error.message());
    std::vector<Endpoint> endpoints;
    for (const auto& one : found) endpoints.emplace_back(one.endpoint());
    self->connect_to(std::move(endpoints), 0);
  });
}

void RedisConnection::connect_to(std::vector<Endpoint> endpoints, size_t which) {
  asio::error_code ignored;
  socket_.close(ignored);
  const Endpoint& endpoint = endpoints[which];
  socket_.async_connect(endpoint, [self = shared_from_this(), endpoints, which](const asio::error_code& error) mutable {
    if (self->ended_) return;
    if (error && which + 1 < endpoints.size()) return self->connect_to(std::move(endpoints), which + 1);
    if (error) return self->end(error.message());
    if (!self->address_.host.starts_with('/')) {
      asio::error_code no_matter;
      self->socket_.set_option(asio::ip::tcp::no_delay(true), no_matter);
    }
    self->connected_ = true;
    self->patience_.cancel();
    self->read();
    self->write();
    std::exchange(self->on_connected_, nullptr)();
  });
}

void RedisConnection::command(const std::vector<std::string>& words, Then then) {
  if (ended_) return asio::post(io_, [then = std::move(then)] { then(nullptr); });
  std::vector<const char*> texts;
  std::vector<size_t> lengths;
  for (const std::string& word : words) {
    texts.push_back(word.data());
    lengths.push_back(word.size());
  }
  char* formatted = nullptr;
  const int length = redisFormatCommandArgv(&formatted, static_cast<int>(words.size()), texts.data(), lengths.data());
  out_.append(formatted, static_cast<size_t>(length));
  redisFreeCommand(formatted);
  waiting_.push_back(std::move(then));
  if (waiting_.size() == 1) expect();
  write();
}

void RedisConnection::write() {
  if (!connected_ || ended_ || !writing_.empty() || out_.empty()) return;
  writing_ = std::exchange(out_, {});
  asio::async_write(socket_, asio::buffer(writing_), [self = shared_from_this()](const asio::error_code& error, size_t) {
    if (self->ended_) return;
    if (error) return self->end(error.message());
    self->writing_.clear();
    self->write();
  });
}

void RedisConnection::read() {
  socket_.async_read_some(asio::buffer(in_), [self = shared_from_this()](const asio::error_code& error, size_t bytes) {
    if (self->ended_) return;
    if (error) return self->end(error == asio::error::eof ? "it closed the connection" : error.message());
    redisReaderFeed(self->reader_.get(), self->in_.data(), bytes);
    for (void* reply = nullptr;;) {
      const bool read = redisReaderGetReply(self->reader_.get(), &reply) == REDIS_OK;
      if (read && reply == nullptr) break;
      const std::unique_ptr<void, void (*)(void*)> held(reply, freeReplyObject);
      if (!read || (self->waiting_.empty() && !self->on_message_)) return self->end("what it says is not Redis's protocol");
      if (self->waiting_.empty()) {
        self->on_message_(*static_cast<const redisReply*>(reply));
        if (self->ended_) return;
        continue;
      }
      const Then then = std::move(self->waiting_.front());
      self->waiting_.pop_front();
      self->expect();
      then(static_cast<const redisReply*>(reply));
      if (self->ended_) return;
    }
    self->read();
  });
}

// The time for the next answer begins anew.
void RedisConnection::expect() {
  patience_.cancel();
  if (ended_ || (connected_ && waiting_.empty())) return;
  patience_.expires_after(answer_within_);
  patience_.async_wait([self = shared_from_this()](const asio::error_code& error) {
    // Else it was set anew, or the last answer came, just before.
    const bool over = self->patience_.expiry() <= std::chrono::steady_clock::now() && (!self->connected_ || !self->waiting_.empty());
    if (!error && over && !self->ended_) self->end("it does not answer");
  });
}

void RedisConnection::end(const std::string& why) {
  if (ended_) return;
  const auto on_end = std::move(on_end_);
  const auto waiting = std::move(waiting_);
  close();
  if (on_end) on_end(why);
  for (const Then& then : waiting) then(nullptr);
}

void RedisConnection::close() {
  ended_ = true;
  on_connected_ = nullptr;
  on_end_ = nullptr;
  on_message_ = nullptr;
  waiting_.clear();
  patience_.cancel();
  resolver_.cancel();
  asio::error_code ignored;
  socket_.close(ignored);
}

}  // namespace tally
