// Reports to books that are in Redis, as one call of the script there, and its answer as grants.
//
// Thread rule: pure functions. An answer is bytes from outside: any give grants, or the reason why not.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fail.h"
#include "base/time.h"
#include "cluster/wire.h"

namespace tally {

// Whose reports they are, and what is known of the place of the books.
struct BooksCaller {
  NodeId node = 0;
  uint64_t incarnation = 0;
  NodeId store = 0;  // what grants' ballots name as the owner
};

struct BooksTerms {
  uint32_t tag = 0;          // of all keys that are asked about
  std::string server;        // run id of the Redis that is asked
  uint64_t generation = 0;   // of the tag, the highest that this node ever heard of; 0: none
  uint64_t generation_since = 0;  // when that began, by the clock of Redis, in microseconds: two may have the same number
  Duration quiet{0};         // how long everybody tells what it holds after a loss, before anything is granted
  Duration recent{0};        // a line heard longer ago has no demand any more
  Duration shares_for{0};    // the same, of the shares that lines are told
  Duration sync_interval{0};
  Duration lease{0};         // of tokens of a bucket, at most
  bool far = false;          // the round trip is long beside the sync interval
  WallTime now{};            // by this node's clock: near the end of a fixed window its grants may be of the next one, too
};

// What a list of nodes that replaced another leaves to books that begin (cluster/succession.h), and an order for the key.
struct BooksBegin {
  bool takes_part = true;      // false: the window, or the bucket, is another list's
  bool knows_before = true;    // they have the books of the window before, if there were any
  bool takes_next = true;      // the window after is this list's, too
  Duration charged{0};         // of a bucket, from now on
  // The operator's order by which the report states its limit: a number, of two the later's is larger, and until when those before may
  // come late. 0: there is none, nor was one lately.
  uint64_t order = 0;
  WallTime order_until{};
};
struct BooksReport {
  Report report;
  BooksBegin begin;
};

// 16 digits, so that texts are ordered as the numbers are: Lua's numbers have 53 bits.
std::string hex_digits(uint64_t n);

// Among so many tags keys are divided in a Redis Cluster: the same number at all nodes, as names have the tag. Enough that masters, up to
// some ten, have about as many each; few enough that a busy node's reports of one sync interval, a call for each tag, remain few calls.
constexpr uint32_t kBooksTags = 64;

// Before the key in the name of a central rule's count: the version of its format.
constexpr std::string_view kCentralMark = "c1:";

// Names of what is kept. All names of one tag are in one slot of a Redis Cluster, and have a generation of their own.
class BooksNames {
 public:
  // `tags`: 1 where there is no cluster.
  explicit BooksNames(std::string prefix, uint32_t tags = 1) : prefix_(std::move(prefix)), tags_(tags) {}
  uint32_t tag_of(const WireId& key) const { return static_cast<uint32_t>(scaled_to(mix(key.word()), tags_)); }
  std::string generation(uint32_t tag) const { return start(tag) + "generation"; }
  std::string lives() const { return start(0) + "lives"; }
  std::string window(const WireId& key, int64_t number) const;
  std::string bucket(const WireId& key) const;
  std::string count(const WireId& key) const;  // of a central rule
  std::optional<std::pair<WireId, int64_t>> window_of(std::string_view name) const;  // the other way round; nullopt: no name of a window's book
  // The channel in which a node hears of grants that it has not asked for.
  std::string pushed(NodeId node) const { return prefix_ + ":{pushed}:" + hex_digits(node); }
  uint32_t tags() const { return tags_; }

 private:
  std::string start(uint32_t tag) const { return prefix_ + ":{" + std::to_string(tag) + "}:"; }

  std::string prefix_;
  uint32_t tags_;
};

struct BooksCall {
  std::vector<std::string> keys;
  std::string argument;
};
// All reports must be of keys of the tag.
BooksCall books_call(std::span<const BooksReport> reports, const BooksCaller& caller, const BooksTerms& terms, const BooksNames& names);

struct BooksAnswer {
  uint64_t generation = 0, generation_since = 0;
  Duration quiet_left{0};
  WallTime now{};  // by the clock of Redis
  std::vector<Grant> grants;
};
// `reports`: of the call that this answers.
Result<BooksAnswer> books_answer(std::string_view bytes, std::span<const BooksReport> reports, const BooksCaller& caller);

// What came in the channel of `caller`; nullopt: nothing that is one of its lines'.
std::optional<Grant> books_push(std::string_view bytes, const BooksCaller& caller, const BooksNames& names);

}  // namespace tally
