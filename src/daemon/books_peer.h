// The owner of all keys of a fleet whose books are in Redis, as the node sees it: a peer that is reported to
// and grants.
//
// Thread rule: the cluster thread's after construction.
//
// Datagrams of the node go in, datagrams that it takes for the owner's come out. In between reports become
// calls of a script (books/batch.h), of which few are under way at once; what comes meanwhile waits, the
// newest of each key. While nobody answers nothing is kept: reports say all anew in the next sync interval,
// and the node sees an owner that is silent about these keys. A tag (BooksNames) is asked for by itself: it
// has a generation of its own, and in a cluster its server may be away while others answer.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "base/time.h"
#include "books/batch.h"
#include "cluster/pace.h"
#include "cluster/wire.h"
#include "daemon/books_store.h"
#include "daemon/counters.h"
#include "daemon/log.h"

namespace tally {

class BooksPeer {
 public:
  struct Node {  // that speaks to it
    std::string entry;
    NodeId id = 0;
    uint64_t incarnation = 0;
    IdKey id_key;
    uint32_t roster_version = 1;  // of the list that it goes by, and its hash
    uint64_t roster_hash = 0;
  };
  struct Parts {
    BooksStore& store;
    std::function<Now()> clock;
    TimeHistogram& call_times;
    Log& log;
  };
  BooksPeer(Parts parts, BooksNames names, Node node, const Pace& pace, Duration lease);
  BooksPeer(const BooksPeer&) = delete;
  BooksPeer& operator=(const BooksPeer&) = delete;

  void use(const Pace& pace);
  void ask_past(std::function<BooksBegin(const Report&)> past_of) { past_of_ = std::move(past_of); }  // before anything is said
  void say(const Bytes& datagram);
  bool busy() const;  // something was said that Redis has not answered yet
  void flush();  // what was said goes out, and who was not asked for long is; at least in each sync interval
  std::vector<Bytes> take() { return std::exchange(heard_, {}); }
  // Of which keys books may have been lost since it was asked last: all that is held of them has to be told. Empty: of none.
  std::function<bool(const WireId&)> take_lost();
  MonoTime heard(const WireId& key) const { return tags_[names_.tag_of(key)].heard; }  // when it answered last about such a key
  std::string address() const { return parts_.store.address(); }  // "": not connected

  struct Counts {
    uint64_t calls = 0, reports = 0, grants = 0, pushes = 0, bytes_in = 0, bytes_out = 0;
    BooksStore::Counts store;
    uint64_t losses = 0, generation = 0;
    std::map<std::string, uint64_t> errors{{"connection", 0}, {"script", 0}, {"answer", 0}};  // by kind
  };
  Counts counts() const;

 private:
  using Which = std::tuple<WireId, int64_t, bool>;
  using Reports = std::map<Which, BooksReport>;  // the newest
  struct Tag {
    Reports pressing, others;  // requests wait for what comes of it; not
    size_t pressing_under_way = 0, others_under_way = 0;  // calls
    size_t under_way() const { return pressing_under_way + others_under_way; }
    MonoTime called{}, heard{};
    uint64_t generation = 0, generation_since = 0;
    bool lost = false;
  };

  void fail(const std::string& kind, const std::string& what);
  void beat();
  void send(uint32_t tag, Reports Tag::*which, size_t Tag::*under_way, size_t at_once);
  void call(uint32_t tag, size_t Tag::*under_way, std::vector<BooksReport> reports);
  void on_answer(uint32_t tag, const redisReply* reply, const std::vector<BooksReport>& reports,
                 uint64_t sent_ns);
  void heard_generation(uint32_t tag, const BooksAnswer& answer);
  void ask_life();
  void on_push(std::string_view bytes);
  void deliver(const std::vector<Entry>& entries, uint64_t sent_ns, uint64_t echo_ns);
  Duration quiet() const;
  Duration beat_every() const;
  BooksTerms terms(uint32_t tag, const std::string& server) const;

  Parts parts_;
  const BooksNames names_;
  const Node node_;
  const BooksCaller caller_;
  Pace pace_;
  const Duration lease_;
  bool said_ = false;  // that an answer was none
  Duration round_trip_{0};

  std::vector<Tag> tags_;
  uint64_t generation_ = 1;  // the highest of all
  bool asks_life_ = false;
  std::optional<Header> spoken_;  // of the newest datagram of the node
  uint64_t sequence_ = 0;
  MonoTime quiet_until_{};        // after the newest loss
  WallTime there_{};              // the clock of Redis, when it answered last:
  MonoTime there_at_{};           // then
  std::vector<Bytes> heard_;
  std::function<BooksBegin(const Report&)> past_of_;
  Counts counts_;
};

}  // namespace tally
