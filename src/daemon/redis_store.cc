#include "daemon/redis_store.h"

#include <hiredis/hiredis.h>

#include <algorithm>
#include <utility>

namespace tally {
namespace {

constexpr Duration kBackoffMin = std::chrono::milliseconds(50);
constexpr Duration kPatienceMin = std::chrono::milliseconds(500);

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
  return error.starts_with("READONLY") || error.starts_with("LOADING") || error.starts_with("MASTERDOWN") || error.starts_with("NOREPLICAS");
}

std::vector<std::string> words_of(std::string command, std::string script, const std::vector<std::string>& keys, const std::vector<std::string>& arguments) {
  std::vector<std::string> words{std::move(command), std::move(script), std::to_string(keys.size())};
  words.insert(words.end(), keys.begin(), keys.end());
  words.insert(words.end(), arguments.begin(), arguments.end());
  return words;
}

}  // namespace

RedisStore::RedisStore(asio::io_context& io, Log& log, BooksUrl url, Duration isolation_after, uint64_t seed)
    : io_(io), log_(log), url_(std::move(url)), isolation_after_(isolation_after), dice_(seed), again_(io) {
  connect();
}

RedisStore::~RedisStore() {
  if (connection_) connection_->close();
}

Duration RedisStore::patience() const { return std::max(kPatienceMin, isolation_after_ / 2); }

Duration RedisStore::backoff_max() const { return std::max(kBackoffMin, isolation_after_ / 2); }

Duration RedisStore::found_anew_within() const {
  const int steps = url_.kind == BooksUrl::Kind::sentinel ? 3 : 2;  // each may take all of the patience
  return patience() * steps + backoff_max();
}

// ---- the connection
// -------------------------------------------------------------------------------------------------------

void RedisStore::connect() {
  const BooksUrl::Place& place = url_.places[place_++ % url_.places.size()];
  const auto on_end = [this](const std::string& why) { lost(why); };
  const auto on_connected = [this] { url_.kind == BooksUrl::Kind::sentinel ? ask_sentinel() : handshake(); };
  connection_ = RedisConnection::open(io_, {place.host, place.port}, patience(), on_connected, on_end);
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
    if (reply.type != REDIS_REPLY_ARRAY || reply.elements != 2) return connection_->end("Sentinel knows no master '" + url_.service + "'");
    const RedisAddress master{std::string(text_of(*reply.element[0])), static_cast<uint16_t>(std::strtoul(reply.element[1]->str, nullptr, 10))};
    connection_->close();
    connection_ = RedisConnection::open(
        io_, master, patience(), [this] { handshake(); }, [this](const std::string& why) { lost(why); });
  });
}

void RedisStore::handshake() {
  const auto known = [this](const redisReply& info) {
    server_ = field_of(text_of(info), "run_id");
    const std::string policy = field_of(text_of(info), "maxmemory_policy");
    if (field_of(text_of(info), "maxmemory") != "0" && policy != "noeviction")
      log_.warning("Redis may evict books, and more than a limit would be let in: set maxmemory-policy to noeviction", {{"maxmemory_policy", policy}});
    load(0);
  };
  const auto role = [this, known](const redisReply& reply) {
    if (reply.type != REDIS_REPLY_ARRAY || reply.elements < 1 || text_of(*reply.element[0]) != "master") return connection_->end("it is no master");
    step({"INFO"}, known);
  };
  const auto select = [this, role] {
    if (url_.database == 0) return step({"ROLE"}, role);
    step({"SELECT", std::to_string(url_.database)}, [this, role](const redisReply&) { step({"ROLE"}, role); });
  };
  if (url_.password.empty()) return select();
  std::vector<std::string> words{"AUTH"};
  if (!url_.user.empty()) words.push_back(url_.user);
  words.push_back(url_.password);
  step(words, [select](const redisReply&) { select(); });
}

// One after the other, then it is ready.
void RedisStore::load(size_t script) {
  if (script < kBooksScripts) {
    step({"SCRIPT", "LOAD", text_of(static_cast<BooksScript>(script))}, [this, script](const redisReply& sha) {
      shas_[script] = text_of(sha);
      load(script + 1);
    });
    return;
  }
  ready_ = true;
  failures_ = 0;
  said_ = false;
  log_.info("the books are there", {{"redis", connection_->address().text()}, {"run_id", server_}});
}

// Again after a time that grows and is never the same for all.
void RedisStore::lost(const std::string& why) {
  ++errors_;
  if (!std::exchange(said_, true)) log_.warning("the books in Redis cannot be reached", {{"redis", connection_->address().text()}, {"error", why}});
  ready_ = false;
  ++reconnects_;
  const Duration backoff = std::min(backoff_max(), kBackoffMin * (1 << std::min(failures_++, 6)));
  again_.expires_after(backoff / 2 + Duration(static_cast<int64_t>(dice_.below(static_cast<uint64_t>(nanos(backoff / 2))))));
  again_.async_wait([this](const asio::error_code& error) {
    if (!error) connect();
  });
}

// ---- calls
// ----------------------------------------------------------------------------------------------------------------

void RedisStore::call(BooksScript script, const std::vector<std::string>& keys, const std::vector<std::string>& arguments, Then then) {
  const auto answer = [this, then](const redisReply* reply) {
    if (!is_error(reply) || !elsewhere(text_of(*reply))) return then(reply);
    then(nullptr);
    connection_->end(std::string(text_of(*reply)));
  };
  const auto first = [this, script, keys, arguments, answer](const redisReply* reply) {
    if (!is_error(reply) || !text_of(*reply).starts_with("NOSCRIPT")) return answer(reply);
    connection_->command(words_of("EVAL", text_of(script), keys, arguments),
                         answer);  // SCRIPT FLUSH, or it forgets them
  };
  connection_->command(words_of("EVALSHA", shas_[static_cast<size_t>(script)], keys, arguments), first);
}

}  // namespace tally
