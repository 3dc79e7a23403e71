#include "daemon/books_peer.h"

#include <hiredis/hiredis.h>

#include <algorithm>

#include "books/scripts.h"
#include "cluster/roster.h"

namespace tally {
namespace {

constexpr size_t kCallsAtOnce = 4, kReportsAtOnce = 256;
constexpr size_t kWaitingMax = 1'048'576;
constexpr Duration kBackoffMin = std::chrono::milliseconds(50);
constexpr Duration kBeatEvery = std::chrono::milliseconds(250);  // so often at least it is asked something
constexpr Duration kPatienceMin = std::chrono::milliseconds(500);

// Tells the highest life of a node that was heard of before this one, and keeps the highest.
constexpr std::string_view kLifeScript =
    "local before = redis.call('HGET', KEYS[1], ARGV[1]) "
    "if not before or before < ARGV[2] then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end "
    "return before";

std::string_view text_of(const redisReply& reply) { return reply.str == nullptr ? std::string_view() : std::string_view(reply.str, reply.len); }

// The value of a line "NAME:VALUE" in what INFO says.
std::string field_of(std::string_view info, const std::string& name) {
  const std::string start = "\n" + name + ":";
  const size_t at = info.find(start);
  if (at == std::string_view::npos) return "";
  const std::string_view rest = info.substr(at + start.size());
  return std::string(rest.substr(0, rest.find_first_of("\r\n")));
}

}  // namespace

BooksPeer::BooksPeer(Parts parts, BooksUrl url, Node node, const Pace& pace, Duration lease, uint64_t seed)
    : parts_(parts),
      url_(std::move(url)),
      names_(url_.prefix),
      node_(std::move(node)),
      caller_{node_.id, node_.incarnation, keyed_hash(kBooksEntry, node_.id_key)},
      pace_(pace),
      lease_(lease),
      dice_(seed),
      again_(parts.io),
      beat_(parts.io) {
  connect();
  beat();
}

BooksPeer::~BooksPeer() {
  if (connection_) connection_->close();
}

BooksPeer::Counts BooksPeer::counts() const {
  Counts counts = counts_;
  counts.up = ready_;
  return counts;
}

std::string BooksPeer::address() const { return ready_ ? connection_->address().text() : ""; }

// Who does not answer for so long is gone: before the node takes it for silent, so that another connection, or another master, is found.
Duration BooksPeer::patience() const { return std::max(kPatienceMin, pace_.isolation_after / 2); }

Duration BooksPeer::backoff_max() const { return std::max(kBackoffMin, pace_.isolation_after / 2); }

// After a loss nothing is granted for so long. By then every node that lives and reaches Redis has found that its connection is gone, has another
// one, was told of the loss and has told what it holds; and all leases of buckets have ended.
Duration BooksPeer::quiet() const {
  const int steps = url_.kind == BooksUrl::Kind::sentinel ? 3 : 2;  // each may take all of the patience
  return std::max(pace_.isolation_after, lease_ + lease_ * 3 / 100) + patience() * steps + backoff_max();
}

BooksTerms BooksPeer::terms() const {
  BooksTerms terms;
  terms.server = server_;
  terms.generation = generation_;
  terms.quiet = quiet();
  terms.recent = pace_.sync_interval * 3 + std::chrono::milliseconds(50);
  terms.shares_for = pace_.isolation_after / 2 + terms.recent;
  terms.sync_interval = pace_.sync_interval;
  terms.lease = lease_;
  terms.far = round_trip_ * 8 > pace_.sync_interval;
  return terms;
}

// ---- the connection -------------------------------------------------------------------------------------------------------

void BooksPeer::connect() {
  const RedisAddress& place = url_.places[place_++ % url_.places.size()];
  const auto on_end = [this](const std::string& why) { lost(why); };
  const auto on_connected = [this] { url_.kind == BooksUrl::Kind::sentinel ? ask_sentinel() : handshake(); };
  connection_ = RedisConnection::open(parts_.io, place, patience(), on_connected, on_end);
}

// One step of the beginning: an error there is the end of this connection.
void BooksPeer::step(const std::vector<std::string>& words, std::function<void(const redisReply&)> then) {
  connection_->command(words, [this, name = words.front(), then = std::move(then)](const redisReply* reply) {
    if (reply == nullptr) return;  // lost() was told
    if (reply->type == REDIS_REPLY_ERROR) return lost(name + ": " + std::string(text_of(*reply)));
    then(*reply);
  });
}

void BooksPeer::ask_sentinel() {
  step({"SENTINEL", "get-master-addr-by-name", url_.service}, [this](const redisReply& reply) {
    if (reply.type != REDIS_REPLY_ARRAY || reply.elements != 2) return lost("Sentinel knows no master '" + url_.service + "'");
    const RedisAddress master{std::string(text_of(*reply.element[0])), static_cast<uint16_t>(std::strtoul(reply.element[1]->str, nullptr, 10))};
    connection_->close();
    connection_ = RedisConnection::open(parts_.io, master, patience(), [this] { handshake(); }, [this](const std::string& why) { lost(why); });
  });
}

void BooksPeer::handshake() {
  const auto ready = [this](const redisReply& sha) {
    script_sha_ = text_of(sha);
    ready_ = true;
    failures_ = 0;
    said_ = false;
    parts_.log.info("the books are there", {{"redis", connection_->address().text()}, {"run_id", server_}});
    flush();
  };
  const auto load = [this, ready](const redisReply& info) {
    server_ = field_of(text_of(info), "run_id");
    const std::string policy = field_of(text_of(info), "maxmemory_policy");
    if (field_of(text_of(info), "maxmemory") != "0" && policy != "noeviction")
      parts_.log.warning("Redis may evict books, and more than a limit would be let in: set maxmemory-policy to noeviction", {{"maxmemory_policy", policy}});
    step({"SCRIPT", "LOAD", std::string(kLedgerScript) + std::string(kApplyScript)}, ready);
  };
  const auto known = [this, load](const redisReply& role) {
    if (role.type != REDIS_REPLY_ARRAY || role.elements < 1 || text_of(*role.element[0]) != "master") return lost("it is no master");
    step({"INFO"}, load);
  };
  const auto select = [this, known] {
    if (url_.database == 0) return step({"ROLE"}, known);
    step({"SELECT", std::to_string(url_.database)}, [this, known](const redisReply&) { step({"ROLE"}, known); });
  };
  if (url_.password.empty()) return select();
  std::vector<std::string> words{"AUTH"};
  if (!url_.user.empty()) words.push_back(url_.user);
  words.push_back(url_.password);
  step(words, [select](const redisReply&) { select(); });
}

// Again after a time that grows and is never the same for all.
void BooksPeer::lost(const std::string& why) {
  fail("connection", why);
  ready_ = false;
  waiting_.clear();
  connection_->close();
  under_way_ = 0;
  ++counts_.reconnects;
  const Duration backoff = std::min(backoff_max(), kBackoffMin * (1 << std::min(failures_++, 6)));
  again_.expires_after(backoff / 2 + Duration(static_cast<int64_t>(dice_.below(static_cast<uint64_t>(nanos(backoff / 2))))));
  again_.async_wait([this](const asio::error_code& error) {
    if (!error) connect();
  });
}

void BooksPeer::fail(const std::string& kind, const std::string& what) {
  ++counts_.errors[kind];
  if (std::exchange(said_, true)) return;
  parts_.log.warning("the books in Redis cannot be asked", {{"redis", connection_->address().text()}, {"error", what}});
}

// ---- what the node says ---------------------------------------------------------------------------------------------------

void BooksPeer::say(const Bytes& bytes) {
  Datagram datagram;
  if (decode(bytes, node_.id_key, datagram) != DecodeError::none) return;
  spoken_ = datagram.header;
  for (const Entry& entry : datagram.entries) {
    const auto* report = std::get_if<Report>(&entry);
    if (report != nullptr && ready_ && waiting_.size() < kWaitingMax)
      if (const BooksBegin begin = past_of_(*report); begin.takes_part)
        waiting_.insert_or_assign(Which{report->key, report->window, report->final}, BooksReport{*report, begin});
    if (const auto* hello = std::get_if<Hello>(&entry); hello != nullptr && !hello->answer) asks_life_ = true;
  }
}

void BooksPeer::flush() {
  if (!ready_ || !spoken_) return;
  if (std::exchange(asks_life_, false)) ask_life();
  while (!waiting_.empty() && under_way_ < kCallsAtOnce) {
    std::vector<BooksReport> reports;
    while (!waiting_.empty() && reports.size() < kReportsAtOnce) {
      reports.push_back(std::move(waiting_.begin()->second));
      waiting_.erase(waiting_.begin());
    }
    call(std::move(reports));
  }
}

// A call without reports tells that it lives, and of which generation the books are.
void BooksPeer::beat() {
  if (ready_ && spoken_ && under_way_ == 0 && parts_.clock.mono() - called_ >= kBeatEvery) call({});
  beat_.expires_after(kBeatEvery / 2);
  beat_.async_wait([this](const asio::error_code& error) {
    if (!error) beat();
  });
}

void BooksPeer::call(std::vector<BooksReport> reports) {
  called_ = parts_.clock.mono();
  const auto sent_ns = static_cast<uint64_t>(nanos(called_));
  BooksCall asked = books_call(reports, caller_, terms(), names_);
  std::vector<std::string> words{"EVALSHA", script_sha_, std::to_string(asked.keys.size())};
  words.insert(words.end(), asked.keys.begin(), asked.keys.end());
  words.push_back(asked.argument);
  ++under_way_;
  ++counts_.calls;
  counts_.reports += reports.size();
  counts_.bytes_out += asked.argument.size();
  connection_->command(words, [this, reports = std::move(reports), asked = std::move(asked), sent_ns](const redisReply* reply) {
    on_answer(reply, reports, sent_ns, asked, false);
  });
}

void BooksPeer::on_answer(const redisReply* reply, const std::vector<BooksReport>& reports, uint64_t sent_ns, const BooksCall& asked, bool whole) {
  if (reply != nullptr && reply->type == REDIS_REPLY_ERROR && text_of(*reply).starts_with("NOSCRIPT") && !whole) {
    std::vector<std::string> words{"EVAL", std::string(kLedgerScript) + std::string(kApplyScript), std::to_string(asked.keys.size())};
    words.insert(words.end(), asked.keys.begin(), asked.keys.end());
    words.push_back(asked.argument);
    return connection_->command(words, [this, reports, asked, sent_ns](const redisReply* again) { on_answer(again, reports, sent_ns, asked, true); });
  }
  --under_way_;
  if (reply == nullptr) return;
  if (reply->type == REDIS_REPLY_ERROR) {
    const std::string_view error = text_of(*reply);
    // It is a master no longer, or loads: whoever is one is looked for.
    const bool elsewhere = error.starts_with("READONLY") || error.starts_with("LOADING") || error.starts_with("MASTERDOWN") || error.starts_with("NOREPLICAS");
    if (elsewhere) return lost(std::string(error));
    return fail("script", std::string(error));
  }
  counts_.bytes_in += reply->len;
  auto answer = books_answer(text_of(*reply), reports, caller_);
  if (!answer) return fail("answer", answer.error());
  round_trip_ = parts_.clock.mono() - MonoTime(Duration(static_cast<int64_t>(sent_ns)));
  parts_.call_times.observe(round_trip_);
  counts_.grants += answer.value().grants.size();
  there_ = answer.value().now;
  if (answer.value().generation > generation_) {
    if (generation_ != 0) {
      loss_ = true;
      ++counts_.losses;
      parts_.log.warning("books may have been lost: all nodes tell what they hold before anything is granted",
                         {{"generation", answer.value().generation}, {"quiet_ms", static_cast<double>(nanos(answer.value().quiet_left)) * 1e-6}});
    }
    counts_.generation = generation_ = answer.value().generation;
  }
  std::vector<Entry> entries(answer.value().grants.begin(), answer.value().grants.end());
  if (entries.empty()) entries.emplace_back(Member{caller_.store, generation_, 0});
  deliver(entries, sent_ns);
  flush();
}

void BooksPeer::ask_life() {
  const auto sent_ns = static_cast<uint64_t>(nanos(parts_.clock.mono()));
  connection_->command({"EVAL", std::string(kLifeScript), "1", names_.lives(), node_.entry, hex_digits(node_.incarnation)}, [this, sent_ns](const redisReply* reply) {
    if (reply == nullptr) return;
    if (reply->type == REDIS_REPLY_ERROR) return fail("script", std::string(text_of(*reply)));
    Hello hello;
    hello.answer = true;
    hello.remembered = reply->type == REDIS_REPLY_STRING ? std::strtoull(reply->str, nullptr, 16) : 0;
    hello.life = node_.incarnation;
    // Of lists of nodes it knows nothing: it has no part under one before that another could not have.
    deliver({hello, Moved{caller_.store, node_.roster_version, node_.roster_hash, nanos(parts_.clock.now().wall), true}}, sent_ns);
  });
}

void BooksPeer::deliver(const std::vector<Entry>& entries, uint64_t sent_ns) {
  Header header;
  header.sender = caller_.store;
  header.receiver = node_.id;
  header.incarnation = std::max<uint64_t>(1, generation_);
  header.roster_version = spoken_->roster_version;
  header.roster_hash = spoken_->roster_hash;
  header.sent_mono_ns = sent_ns;
  header.sent_wall_ns = nanos(there_);
  header.echo_mono_ns = sent_ns;
  for (size_t next = 0; next < entries.size();) {
    header.sequence = ++sequence_;
    DatagramWriter writer(header, node_.id_key);
    while (next < entries.size() && writer.add(entries[next])) ++next;
    heard_.push_back(writer.finish());
  }
}

}  // namespace tally
