#include "daemon/books_peer.h"

#include <algorithm>

#include "cluster/roster.h"

namespace tally {
namespace {

constexpr size_t kPressingCalls = 4, kReportsAtOnce = 64;  // of all tags; of a call: a millisecond or two of Redis, for which others wait
constexpr size_t kCallsOfTag = 2;  // of each kind and tag at least
constexpr size_t kWaitingMax = 1'048'576;  // of all tags
constexpr Duration kBeatMin = std::chrono::milliseconds(20);

}  // namespace

BooksPeer::BooksPeer(Parts parts, BooksNames names, Node node, const Pace& pace, Duration lease)
    : parts_(parts),
      names_(std::move(names)),
      node_(std::move(node)),
      caller_{node_.id, node_.incarnation, keyed_hash(kBooksEntry, node_.id_key)},
      pace_(pace),
      lease_(lease),
      tags_(names_.tags()) {
  parts_.store.hear(names_.pushed(node_.id), [this](std::string_view bytes) { on_push(bytes); });
}

BooksPeer::Counts BooksPeer::counts() const {
  Counts counts = counts_;
  counts.store = parts_.store.counts();
  counts.errors["connection"] = counts.store.errors;
  return counts;
}

// After a loss nothing is granted for so long. By then every node that lives and reaches Redis has found that
// its connection is gone, has another one, was told of the loss and has told what it holds; and all leases of
// buckets have ended.
Duration BooksPeer::quiet() const {
  return std::max(pace_.isolation_after, lease_ + lease_ * 3 / 100) + parts_.store.found_anew_within();
}

// So often at least each tag is asked something: nobody takes it for silent who did not ask, and a loss is
// known to all within a part of the quiet time.
Duration BooksPeer::beat_every() const { return std::max(kBeatMin, pace_.isolation_after / 4); }

BooksTerms BooksPeer::terms(uint32_t tag, const std::string& server) const {
  BooksTerms terms;
  terms.tag = tag;
  terms.server = server;
  terms.generation = tags_[tag].generation;
  terms.generation_since = tags_[tag].generation_since;
  terms.quiet = quiet();
  terms.recent = pace_.sync_interval * 3 + std::chrono::milliseconds(50);
  terms.shares_for = pace_.isolation_after / 2 + terms.recent;
  terms.sync_interval = pace_.sync_interval;
  terms.lease = lease_;
  terms.now = parts_.clock().wall;
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
  parts_.log.warning("the books in Redis cannot be asked",
                     {{"redis", parts_.store.address()}, {"error", what}});
}

// ---- what the node says -----------------------------------------------------------------------------------

void BooksPeer::say(const Bytes& bytes) {
  Datagram datagram;
  if (decode(bytes, node_.id_key, datagram) != DecodeError::none) return;
  spoken_ = datagram.header;
  for (const Entry& entry : datagram.entries) {
    if (const auto* report = std::get_if<Report>(&entry)) {
      const uint32_t tag = names_.tag_of(report->key);
      Tag& at = tags_[tag];
      if (!parts_.store.ready(tag) || at.pressing.size() + at.others.size() >= kWaitingMax / tags_.size()) continue;
      const BooksBegin begin = past_of_(*report);
      if (!begin.takes_part) continue;
      const Which which{report->key, report->window, report->final};
      at.pressing.erase(which);
      at.others.erase(which);
      (report->waiting != 0 ? at.pressing : at.others).emplace(which, BooksReport{*report, begin});
    }
    if (const auto* hello = std::get_if<Hello>(&entry); hello != nullptr && !hello->answer) asks_life_ = true;
  }
}

void BooksPeer::flush() {
  if (!spoken_) return;
  if (asks_life_ && parts_.store.ready(0)) {
    asks_life_ = false;
    ask_life();
  }
  for (uint32_t tag = 0; tag < tags_.size(); ++tag) {
    send(tag, &Tag::pressing, &Tag::pressing_under_way, std::max(kCallsOfTag, kPressingCalls / tags_.size()));
    send(tag, &Tag::others, &Tag::others_under_way, kCallsOfTag);
  }
  beat();
}

bool BooksPeer::busy() const {
  return std::ranges::any_of(tags_, [](const Tag& tag) { return tag.under_way() != 0 || !tag.pressing.empty() || !tag.others.empty(); });
}

void BooksPeer::send(uint32_t tag, Reports Tag::*which, size_t Tag::*under_way, size_t at_once) {
  Reports& waiting = tags_[tag].*which;
  while (!waiting.empty() && tags_[tag].*under_way < at_once && parts_.store.ready(tag)) {
    std::vector<BooksReport> reports;
    while (!waiting.empty() && reports.size() < kReportsAtOnce) {
      reports.push_back(std::move(waiting.begin()->second));
      waiting.erase(waiting.begin());
    }
    call(tag, under_way, std::move(reports));
  }
}

// A call without reports tells that it lives, and of which generation the books are. As often as the node speaks: in each sync interval.
void BooksPeer::beat() {
  const MonoTime now = parts_.clock().mono;
  for (uint32_t tag = 0; tag < tags_.size(); ++tag)
    if (tags_[tag].under_way() == 0 && now - tags_[tag].called >= beat_every() && parts_.store.ready(tag)) call(tag, &Tag::others_under_way, {});
}

void BooksPeer::call(uint32_t tag, size_t Tag::*under_way, std::vector<BooksReport> all) {
  tags_[tag].called = parts_.clock().mono;
  const auto sent_ns = static_cast<uint64_t>(nanos(tags_[tag].called));
  ++(tags_[tag].*under_way);
  ++counts_.calls;
  counts_.reports += all.size();
  const auto reports = std::make_shared<const std::vector<BooksReport>>(std::move(all));
  const auto words = [this, tag, reports](const std::string& server) {
    BooksCall asked = books_call(*reports, caller_, terms(tag, server), names_);
    counts_.bytes_out += asked.argument.size();
    return BooksStore::Words{std::move(asked.keys), {std::move(asked.argument)}};
  };
  parts_.store.call(tag, BooksScript::apply, words, [this, tag, under_way, reports, sent_ns](const redisReply* reply) {
    --(tags_[tag].*under_way);
    on_answer(tag, reply, *reports, sent_ns);
  });
}

void BooksPeer::on_answer(uint32_t tag, const redisReply* reply, const std::vector<BooksReport>& reports,
                          uint64_t sent_ns) {
  if (reply == nullptr) {
    tags_[tag].pressing.clear();
    tags_[tag].others.clear();
    return;
  }
  if (reply->type == REDIS_REPLY_ERROR) return fail("script", std::string(text_of(*reply)));
  counts_.bytes_in += reply->len;
  auto answer = books_answer(text_of(*reply), reports, caller_);
  if (!answer) return fail("answer", answer.error());
  said_ = false;
  tags_[tag].heard = parts_.clock().mono;
  round_trip_ = parts_.clock().mono - MonoTime(Duration(static_cast<int64_t>(sent_ns)));
  parts_.call_times.observe(round_trip_);
  counts_.grants += answer.value().grants.size();
  there_ = answer.value().now;
  there_at_ = parts_.clock().mono;
  heard_generation(tag, answer.value());
  std::vector<Entry> entries(answer.value().grants.begin(), answer.value().grants.end());
  if (entries.empty()) entries.emplace_back(Member{caller_.store, generation_, 0});
  deliver(entries, sent_ns, sent_ns);
  flush();
}

// Tags that are lost together, as those of a master, are one loss.
void BooksPeer::heard_generation(uint32_t tag, const BooksAnswer& answer) {
  uint64_t& known = tags_[tag].generation;
  if (answer.generation <= known) return;  // of two of one number the script makes another one
  tags_[tag].generation_since = answer.generation_since;
  if (known != 0) {
    tags_[tag].lost = true;
    if (const MonoTime now = parts_.clock().mono; now >= quiet_until_) {
      ++counts_.losses;
      quiet_until_ = now + answer.quiet_left;
      parts_.log.warning("books may have been lost: all nodes tell what they hold before anything is granted",
                         {{"generation", answer.generation},
                          {"quiet_ms", static_cast<double>(nanos(answer.quiet_left)) * 1e-6}});
    }
  }
  known = answer.generation;
  counts_.generation = generation_ = std::max(generation_, known);
}

std::function<bool(const WireId&)> BooksPeer::take_lost() {
  std::vector<bool> lost;
  for (Tag& tag : tags_) lost.push_back(std::exchange(tag.lost, false));
  if (std::ranges::find(lost, true) == lost.end()) return {};
  return [this, lost = std::move(lost)](const WireId& key) { return lost[names_.tag_of(key)]; };
}

void BooksPeer::ask_life() {
  const auto sent_ns = static_cast<uint64_t>(nanos(parts_.clock().mono));
  const auto words = [this](const std::string&) {
    return BooksStore::Words{{names_.lives()}, {node_.entry, hex_digits(node_.incarnation)}};
  };
  parts_.store.call(0, BooksScript::life, words, [this, sent_ns](const redisReply* reply) {
    if (reply == nullptr) return;
    if (reply->type == REDIS_REPLY_ERROR) return fail("script", std::string(text_of(*reply)));
    Hello hello;
    hello.answer = true;
    hello.remembered = reply->type == REDIS_REPLY_STRING ? std::strtoull(reply->str, nullptr, 16) : 0;
    hello.life = node_.incarnation;
    // Of lists of nodes it knows nothing: it has no part under one before that another could not have.
    deliver({hello, Moved{caller_.store, node_.roster_version, node_.roster_hash,
                          nanos(parts_.clock().wall), true}},
            sent_ns, sent_ns);
  });
}

// Unasked, so it tells nothing of the round trip.
void BooksPeer::on_push(std::string_view bytes) {
  const auto grant = books_push(bytes, caller_, names_);
  if (!grant || !spoken_) return;
  ++counts_.pushes;
  deliver({*grant}, static_cast<uint64_t>(nanos(parts_.clock().mono)), 0);
}

void BooksPeer::deliver(const std::vector<Entry>& entries, uint64_t sent_ns, uint64_t echo_ns) {
  Header header;
  header.sender = caller_.store;
  header.receiver = node_.id;
  header.incarnation = generation_;
  header.roster_version = spoken_->roster_version;
  header.roster_hash = spoken_->roster_hash;
  header.sent_mono_ns = sent_ns;
  header.sent_wall_ns = nanos(there_ + (parts_.clock().mono - there_at_));
  header.echo_mono_ns = echo_ns;
  for (size_t next = 0; next < entries.size();) {
    header.sequence = ++sequence_;
    DatagramWriter writer(header, node_.id_key);
    while (next < entries.size() && writer.add(entries[next])) ++next;
    heard_.push_back(writer.finish());
  }
}

}  // namespace tally
