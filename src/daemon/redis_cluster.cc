#include "daemon/redis_cluster.h"

#include <algorithm>
#include <asio/post.hpp>
#include <utility>

#include "daemon/redis_slots.h"

namespace tally {
namespace {

constexpr int kSteps = 3;    // that a server is gone, who has its slots, another one
constexpr int kHopsMax = 4;  // of one call from master to master

}  // namespace

RedisCluster::RedisCluster(asio::io_context& io, Log& log, BooksUrl url, std::vector<uint16_t> slots,
                           Duration isolation_after, uint64_t seed)
    : BooksStore(isolation_after, kSteps),
      io_(io),
      log_(log),
      url_(std::move(url)),
      slots_(std::move(slots)),
      dice_(seed),
      again_(io),
      masters_(slots_.size(), nullptr) {
  looks_up_ = true;
  look_up();
}

RedisCluster::~RedisCluster() {
  if (asked_) asked_->close();
}

void RedisCluster::use(Duration isolation_after) {
  BooksStore::use(isolation_after);
  for (const auto& [address, server] : servers_) server->use(isolation_after);
}

std::string RedisCluster::address() const {
  std::string all;
  for (const auto& [address, server] : servers_)
    if (server->ready()) all += (all.empty() ? "" : ",") + address;
  return all;
}

BooksStore::Counts RedisCluster::counts() const {
  Counts counts = counts_;
  counts.up = std::ranges::all_of(
      masters_, [](const RedisStore* master) { return master != nullptr && master->ready(); });
  for (const auto& [address, server] : servers_) {
    counts.reconnects += server->counts().reconnects;
    counts.errors += server->counts().errors;
  }
  return counts;
}

// ---- calls ------------------------------------------------------------------------------------------------

void RedisCluster::call(uint32_t tag, BooksScript script, Make make, Then then) {
  ask(masters_[tag], std::make_shared<Question>(Question{tag, script, std::move(make), std::move(then)}),
      false, 0);
}

void RedisCluster::ask(RedisStore* server, std::shared_ptr<Question> question, bool asking, int hops) {
  if (server == nullptr || !server->ready()) return asio::post(io_, [question] { question->then(nullptr); });
  const auto answer = [this, from = server->place(), question, hops](const redisReply* reply) {
    if (reply == nullptr || reply->type != REDIS_REPLY_ERROR) return question->then(reply);
    on_error(text_of(*reply), from, question, hops, reply);
  };
  server->ask(question->script, question->make(server->server()), asking, answer);
}

void RedisCluster::on_error(std::string_view error, const RedisAddress& from,
                            const std::shared_ptr<Question>& question, int hops, const redisReply* reply) {
  if (const auto elsewhere = read_redirection(error, from)) {
    RedisStore& to = server_at(elsewhere->to);
    ++(elsewhere->moved ? counts_.moved : counts_.asked);
    if (elsewhere->moved) {
      for (size_t tag = 0; tag < slots_.size(); ++tag)
        if (slots_[tag] == slots_[question->tag]) masters_[tag] = &to;
      look_up_soon();
    }
    return ask(hops < kHopsMax ? &to : nullptr, question, !elsewhere->moved, hops + 1);
  }
  const bool moves = error.starts_with("TRYAGAIN"), down = error.starts_with("CLUSTERDOWN");
  if (!moves && !down) return question->then(reply);
  ++(moves ? counts_.try_again : counts_.down);
  question->then(nullptr);
}

// ---- who has which slots ----------------------------------------------------------------------------------

RedisStore& RedisCluster::server_at(const RedisAddress& address) {
  std::unique_ptr<RedisStore>& server = servers_[address.text()];
  if (server) return *server;
  BooksUrl url = url_;
  url.kind = BooksUrl::Kind::redis;
  url.places = {address};
  server = std::make_unique<RedisStore>(io_, log_, std::move(url), isolation_after(), dice_.next(),
                                        [this] { look_up_soon(); });
  server->hear(channel(), on_message());
  return *server;
}

void RedisCluster::look_up_soon() {
  if (std::exchange(looks_up_, true)) return;
  again_.expires_after(backoff(failures_++, dice_.unit()));
  again_.async_wait([this](const asio::error_code& error) {
    if (!error) look_up();
  });
}

// One that is connected to, if there is any: it answers at once. Else in turn all that are known.
RedisAddress RedisCluster::whom_to_ask() {
  std::vector<RedisAddress> ready, all = url_.places;
  for (const auto& [address, server] : servers_) (server->ready() ? ready : all).push_back(server->place());
  const std::vector<RedisAddress>& from = ready.empty() ? all : ready;
  return from[place_++ % from.size()];
}

void RedisCluster::look_up() {
  asked_ = RedisConnection::open(
      io_, whom_to_ask(), patience(), [this] { ask_slots(); },
      [this](const std::string& why) { looked_up(why); });
}

void RedisCluster::ask_slots() {
  if (const auto login = url_.login(); !login.empty())
    asked_->command(login, [this](const redisReply* reply) {
      if (reply != nullptr && reply->type == REDIS_REPLY_ERROR)
        asked_->end("AUTH: " + std::string(text_of(*reply)));
    });
  asked_->command({"CLUSTER", "SLOTS"}, [this](const redisReply* reply) {
    if (reply == nullptr) return;  // looked_up() is told
    if (reply->type == REDIS_REPLY_ERROR)
      return asked_->end("CLUSTER SLOTS: " + std::string(text_of(*reply)));
    take(*reply);
    const bool all = std::ranges::find(masters_, nullptr) == masters_.end();
    if (!all) return asked_->end("nobody has some of the slots");
    asked_->close();
    looked_up("");
  });
}

// "": all have a master. Else again, after a time that grows.
void RedisCluster::looked_up(const std::string& failure) {
  looks_up_ = false;
  if (failure.empty()) {
    failures_ = 0;
    said_ = false;
    return;
  }
  ++counts_.errors;
  if (!std::exchange(said_, true))
    log_.warning("the masters of the Redis Cluster are not all known",
                 {{"redis", asked_->address().text()}, {"error", failure}});
  look_up_soon();
}

void RedisCluster::take(const redisReply& slots) {
  const std::vector<SlotRange> ranges = read_slots(slots, asked_->address());
  for (size_t tag = 0; tag < slots_.size(); ++tag) {
    const auto range = std::ranges::find_if(
        ranges, [&](const SlotRange& one) { return one.first <= slots_[tag] && slots_[tag] <= one.last; });
    masters_[tag] = range == ranges.end() ? nullptr : &server_at(range->master);
  }
  // Of those that have nothing for us only what is connected is kept: a slot that moves may send there.
  std::erase_if(servers_, [this](const auto& one) {
    const RedisStore& server = *one.second;
    if (server.ready() || std::ranges::find(masters_, &server) != masters_.end()) return false;
    counts_.reconnects += server.counts().reconnects;
    counts_.errors += server.counts().errors;
    return true;
  });
}

}  // namespace tally
