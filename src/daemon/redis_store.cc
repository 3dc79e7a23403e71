#include "daemon/redis_store.h"

#include <algorithm>
#include <asio/post.hpp>
#include <utility>

#include "daemon/redis_slots.h"

namespace tally {
namespace {

// The value of a line "NAME:VALUE" in what INFO says.
std::string field_of(std::string_view info, const std::string& name) {
  const std::string start = "\n" + name + ":";
  const size_t at = info.find(start);
  if (at == std::string_view::npos) return "";
  const std::string_view rest = info.substr(at + start.size());
  return std::string(rest.substr(0, rest.find_first_of("\r\n")));
}

bool is_error(const redisReply* reply) { return reply != nullptr && reply->type == REDIS_REPLY_ERROR; }

// It is a master no longer, or loads: whoever is one is to be looked for.
bool elsewhere(std::string_view error) {
  return error.starts_with("READONLY") || error.starts_with("LOADING") || error.starts_with("MASTERDOWN") ||
         error.starts_with("NOREPLICAS");
}

std::vector<std::string> words_of(std::string command, std::string script, const BooksStore::Words& said) {
  std::vector<std::string> words{std::move(command), std::move(script), std::to_string(said.keys.size())};
  words.insert(words.end(), said.keys.begin(), said.keys.end());
  words.insert(words.end(), said.arguments.begin(), said.arguments.end());
  return words;
}

}  // namespace

RedisStore::RedisStore(asio::io_context& io, Log& log, BooksUrl url, Duration isolation_after, uint64_t seed,
                       std::function<void()> on_lost)
    : BooksStore(isolation_after, url.kind == BooksUrl::Kind::sentinel ? 3 : 2),
      io_(io),
      log_(log),
      url_(std::move(url)),
      dice_(seed),
      on_lost_(std::move(on_lost)),
      again_(io) {
  connect();
}

RedisStore::~RedisStore() {
  if (connection_) connection_->close();
}

BooksStore::Counts RedisStore::counts() const {
  Counts counts;
  counts.up = ready_;
  counts.reconnects = reconnects_;
  counts.errors = errors_;
  return counts;
}

// ---- the connection ---------------------------------------------------------------------------------------

void RedisStore::connect() {
  const RedisAddress& place = url_.places[place_++ % url_.places.size()];
  const auto on_end = [this](const std::string& why) { lost(why); };
  const auto on_connected = [this] { url_.kind == BooksUrl::Kind::sentinel ? ask_sentinel() : handshake(); };
  connection_ = RedisConnection::open(io_, place, patience(), on_connected, on_end);
}

// One step of the beginning: an error there is the end of this connection.
void RedisStore::step(const std::vector<std::string>& words, std::function<void(const redisReply&)> then) {
  connection_->command(words, [this, name = words.front(), then = std::move(then)](const redisReply* reply) {
    if (reply == nullptr) return;  // lost() is told
    if (is_error(reply)) return connection_->end(name + ": " + std::string(text_of(*reply)));
    then(*reply);
  });
}

void RedisStore::ask_sentinel() {
  step({"SENTINEL", "get-master-addr-by-name", url_.service}, [this](const redisReply& reply) {
    const auto master = read_master(reply);
    if (!master) return connection_->end("Sentinel knows no master '" + url_.service + "'");
    connection_->close();
    connection_ = RedisConnection::open(
        io_, *master, patience(), [this] { handshake(); }, [this](const std::string& why) { lost(why); });
  });
}

void RedisStore::handshake() {
  const auto known = [this](const redisReply& info) {
    server_ = field_of(text_of(info), "run_id");
    const std::string policy = field_of(text_of(info), "maxmemory_policy");
    if (field_of(text_of(info), "maxmemory") != "0" && policy != "noeviction")
      log_.warning(
          "Redis may evict books, and more than a limit would be let in: set maxmemory-policy to noeviction",
          {{"maxmemory_policy", policy}});
    load(0);
  };
  const auto role = [this, known](const redisReply& reply) {
    if (reply.type != REDIS_REPLY_ARRAY || reply.elements < 1 || text_of(*reply.element[0]) != "master")
      return connection_->end("it is no master");
    step({"INFO"}, known);
  };
  const auto select = [this, role] {
    if (url_.database == 0) return step({"ROLE"}, role);
    step({"SELECT", std::to_string(url_.database)},
         [this, role](const redisReply&) { step({"ROLE"}, role); });
  };
  const auto login = url_.login();
  if (login.empty()) return select();
  step(login, [select](const redisReply&) { select(); });
}

// One after the other, then it is ready.
void RedisStore::load(size_t script) {
  if (script < kBooksScripts) {
    step({"SCRIPT", "LOAD", text_of(static_cast<BooksScript>(script))},
         [this, script](const redisReply& sha) {
           shas_[script] = text_of(sha);
           load(script + 1);
         });
    return;
  }
  ready_ = true;
  failures_ = 0;
  said_ = false;
  log_.info("the books are there", {{"redis", connection_->address().text()}, {"run_id", server_}});
  if (!channel().empty()) subscribe();
}

// Without it nothing is wrong, but later: what it tells is told again in the answer to the next call.
void RedisStore::subscribe() {
  const auto deaf = [this](const std::string& why) {
    if (ready_ && !std::exchange(said_deaf_, true))
      log_.warning("nothing is heard of Redis between calls, so that some requests wait longer",
                   {{"channel", channel()}, {"error", why}});
  };
  subscription_ = std::make_unique<RedisSubscription>(io_, connection_->address(), url_.login(), channel(),
                                                      patience(), on_message(), deaf);
}

// Again after a time that grows and is never the same for all.
void RedisStore::lost(const std::string& why) {
  ++errors_;
  if (!std::exchange(said_, true))
    log_.warning("the books in Redis cannot be reached",
                 {{"redis", connection_->address().text()}, {"error", why}});
  ready_ = false;
  subscription_.reset();
  ++reconnects_;
  again_.expires_after(backoff(failures_++, dice_.unit()));
  // The timer may have expired, and the handler wait for its turn, when this goes.
  again_.async_wait([this, here = std::weak_ptr<void>(here_)](const asio::error_code& error) {
    if (!error && !here.expired()) connect();
  });
  on_lost_();
}

// ---- calls ------------------------------------------------------------------------------------------------

void RedisStore::call(uint32_t, BooksScript script, Make make, Then then) {
  if (!ready_) return asio::post(io_, [then = std::move(then)] { then(nullptr); });
  ask(script, make(server_), false, std::move(then));
}

void RedisStore::ask(BooksScript script, const Words& words, bool asking, Then then) {
  const auto say = [this, asking](std::string command, std::string name, const Words& said, Then answer) {
    if (asking) connection_->command({"ASKING"}, [](const redisReply*) {});
    connection_->command(words_of(std::move(command), std::move(name), said), std::move(answer));
  };
  const auto answer = [this, then](const redisReply* reply) {
    if (!is_error(reply) || !elsewhere(text_of(*reply))) return then(reply);
    then(nullptr);
    connection_->end(std::string(text_of(*reply)));
  };
  const auto first = [say, script, words, answer](const redisReply* reply) {
    if (!is_error(reply) || !text_of(*reply).starts_with("NOSCRIPT")) return answer(reply);
    say("EVAL", text_of(script), words, answer);  // SCRIPT FLUSH, or it forgets them
  };
  say("EVALSHA", shas_[static_cast<size_t>(script)], words, first);
}

}  // namespace tally
