#include "daemon/books_peer.h"

#include <hiredis/hiredis.h>

#include <algorithm>

#include "cluster/roster.h"

namespace tally {
namespace {

constexpr size_t kCallsAtOnce = 4, kReportsAtOnce = 256;
constexpr size_t kWaitingMax = 1'048'576;
constexpr Duration kBeatEvery = std::chrono::milliseconds(250);  // so often at least it is asked something

}  // namespace

BooksPeer::BooksPeer(Parts parts, const std::string& prefix, Node node, const Pace& pace, Duration lease)
    : parts_(parts),
      names_(prefix),
      node_(std::move(node)),
      caller_{node_.id, node_.incarnation, keyed_hash(kBooksEntry, node_.id_key)},
      pace_(pace),
      lease_(lease),
      beat_(parts.io) {
  beat();
}

BooksPeer::Counts BooksPeer::counts() const {
  const RedisStore::Counts store = parts_.store.counts();
  Counts counts = counts_;
  counts.up = store.up;
  counts.reconnects = store.reconnects;
  counts.errors["connection"] = store.errors;
  return counts;
}

// After a loss nothing is granted for so long. By then every node that lives and reaches Redis has found that
// its connection is gone, has another one, was told of the loss and has told what it holds; and all leases of
// buckets have ended.
Duration BooksPeer::quiet() const { return std::max(pace_.isolation_after, lease_ + lease_ * 3 / 100) + parts_.store.found_anew_within(); }

BooksTerms BooksPeer::terms() const {
  BooksTerms terms;
  terms.server = parts_.store.server();
  terms.generation = generation_;
  terms.quiet = quiet();
  terms.recent = pace_.sync_interval * 3 + std::chrono::milliseconds(50);
  terms.shares_for = pace_.isolation_after / 2 + terms.recent;
  terms.sync_interval = pace_.sync_interval;
  terms.lease = lease_;
  terms.far = round_trip_ * 8 > pace_.sync_interval;
  return terms;
}

void BooksPeer::use(const Pace& pace) {
  pace_ = pace;
  parts_.store.use(pace.isolation_after);
}

void BooksPeer::fail(const std::string& kind, const std::string& what) {
  ++counts_.errors[kind];
  if (std::exchange(said_, true)) return;
  parts_.log.warning("the books in Redis cannot be asked", {{"redis", parts_.store.address()}, {"error", what}});
}

// ---- what the node says
// ---------------------------------------------------------------------------------------------------

void BooksPeer::say(const Bytes& bytes) {
  Datagram datagram;
  if (decode(bytes, node_.id_key, datagram) != DecodeError::none) return;
  spoken_ = datagram.header;
  for (const Entry& entry : datagram.entries) {
    const auto* report = std::get_if<Report>(&entry);
    if (report != nullptr && parts_.store.ready() && waiting_.size() < kWaitingMax)
      if (const BooksBegin begin = past_of_(*report); begin.takes_part)
        waiting_.insert_or_assign(Which{report->key, report->window, report->final}, BooksReport{*report, begin});
    if (const auto* hello = std::get_if<Hello>(&entry); hello != nullptr && !hello->answer) asks_life_ = true;
  }
}

void BooksPeer::flush() {
  if (!parts_.store.ready() || !spoken_) return;
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
  if (parts_.store.ready() && spoken_ && under_way_ == 0 && parts_.clock.mono() - called_ >= kBeatEvery) call({});
  beat_.expires_after(kBeatEvery / 2);
  beat_.async_wait([this](const asio::error_code& error) {
    if (!error) beat();
  });
}

void BooksPeer::call(std::vector<BooksReport> reports) {
  called_ = parts_.clock.mono();
  const auto sent_ns = static_cast<uint64_t>(nanos(called_));
  const BooksCall asked = books_call(reports, caller_, terms(), names_);
  ++under_way_;
  ++counts_.calls;
  counts_.reports += reports.size();
  counts_.bytes_out += asked.argument.size();
  parts_.store.call(BooksScript::apply, asked.keys, {asked.argument},
                    [this, reports = std::move(reports), sent_ns](const redisReply* reply) { on_answer(reply, reports, sent_ns); });
}

void BooksPeer::on_answer(const redisReply* reply, const std::vector<BooksReport>& reports, uint64_t sent_ns) {
  --under_way_;
  if (reply == nullptr) return waiting_.clear();
  if (reply->type == REDIS_REPLY_ERROR) return fail("script", std::string(text_of(*reply)));
  counts_.bytes_in += reply->len;
  auto answer = books_answer(text_of(*reply), reports, caller_);
  if (!answer) return fail("answer", answer.error());
  said_ = false;
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
  parts_.store.call(BooksScript::life, {names_.lives()}, {node_.entry, hex_digits(node_.incarnation)}, [this, sent_ns](const redisReply* reply) {
    if (reply == nullptr) return;
    if (reply->type == REDIS_REPLY_ERROR) return fail("script", std::string(text_of(*reply)));
    Hello hello;
    hello.answer = true;
    hello.remembered = reply->type == REDIS_REPLY_STRING ? std::strtoull(reply->str, nullptr, 16) : 0;
    hello.life = node_.incarnation;
    // Of lists of nodes it knows nothing: it has no part under one before that another
    // could not have.
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
