// Whole nodes in one process for cluster_bench.cc: what one says the others take in, and where the time goes.
//
// Thread rule: a World belongs to one thread.
//
// Every datagram is made, sealed, opened, parsed and applied by the code that ships; there are no sockets,
// and the clock is virtual, so that a sync interval comes when the one before is done.
#pragma once

#include <sodium.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/random.h"
#include "base/secret.h"
#include "cluster/node.h"
#include "cluster/seal.h"

namespace tally::bench {

inline constexpr Duration kSync = std::chrono::milliseconds(100);
inline constexpr size_t kAroundUdp = 28;  // headers of IP (version 4) and UDP
inline constexpr size_t kFullAtLeast =
    1300;                             // a datagram of so many bytes is a full one: one entry more had no room
inline constexpr size_t kBatch = 64;  // datagrams that are taken in before the answers go out
inline constexpr uint32_t kLimit = 100'000;

// Of this thread's processor time: what else runs on the machine counts only by what it does to the caches.
inline double seconds_now() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// Time by stage; each call charges what passed since the last.
class Stopwatch {
 public:
  void begin() { last_ = seconds_now(); }
  void charge(double& stage) {
    const double now = seconds_now();
    stage += now - last_;
    last_ = now;
  }

 private:
  double last_ = 0;
};

struct Host {
  std::shared_ptr<const RuleSet> rules;
  std::unique_ptr<SlotTable> slots;
  std::unique_ptr<Limiter> limiter;
  std::unique_ptr<NoteRing> notes;
  std::unique_ptr<Node> node;
};

// What goes one way between two nodes.
struct Stages {
  // `take_in`: parse and apply; `answer`: packing what the receiver has to say to it; `parse`: once more by
  // itself, not counted.
  double pack = 0, seal = 0, open = 0, take_in = 0, answer = 0, parse = 0;
  uint64_t datagrams = 0, bytes = 0;
  std::array<uint64_t, kEntryKinds> entries{};
  std::array<uint64_t, kEntryKinds> full_entries{},
      full_bytes{};  // of full datagrams with entries of one kind alone
  uint64_t all() const {
    uint64_t sum = 0;
    for (const uint64_t n : entries) sum += n;
    return sum;
  }
  double total() const { return pack + seal + open + take_in + answer; }
};

struct Shape {
  uint16_t owners = 3, lessees = 1;
  size_t keys = 100'000;  // of the first owner
  size_t table = 0;       // room for so many; 0: for `keys`
};

class World {
 public:
  explicit World(const Shape& shape) : shape_(shape), secret_(Secret::random()) {
    NodeConfig config;
    for (uint16_t i = 0; i < shape.owners; ++i) config.owners.push_back("aggregator-" + number(i) + ":8381");
    config.peers = config.owners;
    for (uint16_t i = 0; i < shape.lessees; ++i) config.peers.push_back("lessee-" + number(i) + ":8381");
    config.size = static_cast<uint32_t>(config.peers.size());
    config.pace.sync_interval = kSync;
    config.id_key = secret_.id;
    config.sealed = true;
    const size_t room = std::max(shape.table, shape.keys) + 1000;
    config.accounts_max = config.ledgers_max = config.registers_max = room;
    Rule rule;
    rule.name.assign("per-user");
    rule.limit.algorithm = Algorithm::sliding_window;
    rule.limit.limit = kLimit;
    rule.limit.window = std::chrono::hours(1);
    hosts_.resize(config.peers.size());
    pending_.resize(config.peers.size());
    for (uint16_t rank = 0; rank < hosts_.size(); ++rank) {
      Host& host = hosts_[rank];
      host.rules =
          std::make_shared<RuleSet>(std::vector<Rule>{rule}, Rule{}, Share{rank, config.size}, secret_.id);
      host.slots = std::make_unique<SlotTable>(rank < shape.owners ? 1000 : room, 7, true);
      host.limiter = std::make_unique<Limiter>(*host.slots, true);
      host.notes = std::make_unique<NoteRing>(1 << 12);
      config.self = config.peers[rank];
      host.node = std::make_unique<Node>(config, Life{life_of(rank), true, {}, {}, {}}, *host.limiter,
                                         host.rules, rank + 1u, now());
    }
    for (int i = 0; i < 10; ++i) pass();
    for (const Host& host : hosts_)
      if (!host.node->ready()) std::abort();
    const Rule& named = hosts_[0].rules->by_id(0);
    for (size_t i = 0; keys_.size() < shape.keys; ++i) {
      std::string key = "user:" + std::to_string(i);
      if (hosts_[0].node->roster().group(wire_id(key, named.id_key)).rank[0] == 0)
        keys_.push_back(std::move(key));
    }
  }

  Now now() const {
    return {MonoTime(std::chrono::hours(5)) + since_,
            WallTime(std::chrono::hours(480'000)) + std::chrono::minutes(20) + since_};
  }
  uint32_t floor() const { return hosts_.back().rules->by_id(0).limit.floor; }
  Node& node(uint16_t rank) { return *hosts_[rank].node; }
  uint16_t owners() const { return shape_.owners; }
  uint16_t hosts() const { return static_cast<uint16_t>(hosts_.size()); }

  // The keys in another order: nothing here shall profit from their being created in the order in which they
  // are used.
  void shuffle() {
    for (size_t i = keys_.size(); i > 1; --i) std::swap(keys_[i - 1], keys_[random_.below(i)]);
  }
  // `n` requests for each of the keys from `first` to `last`, at that lessee; its notes are heard.
  void use(uint16_t rank, size_t first, size_t last, uint32_t n) {
    Host& host = hosts_[rank];
    const Rule& rule = host.rules->by_id(0);
    for (size_t i = first; i < last; ++i) {
      const Ask ask{&rule, &rule.limit, keys_[i], host.limiter->hash(rule, keys_[i]), n};
      host.limiter->take(ask, now(), host.notes.get());
      for (Note note; host.notes->pop(note);) host.node->note(note, now());
    }
  }
  void later(Duration d) { since_ += d; }

  // All that `from` has to say to others: packed, sealed, opened and taken in, in batches; what the others
  // answer is packed after each batch, as a daemon does it, and waits for its own turn.
  void deliver(uint16_t from, Stages& s) {
    Stopwatch watch;
    watch.begin();
    collect(from);
    watch.charge(s.pack);
    std::vector<Outgoing> out = std::exchange(pending_[from], {});
    for (size_t first = 0; first < out.size(); first += kBatch) {
      const size_t n = std::min(kBatch, out.size() - first);
      watch.begin();
      for (size_t i = 0; i < n; ++i) {
        SealNonce nonce;
        randombytes_buf(nonce.data(), nonce.size());
        sealed_[i] = seal(out[first + i].bytes, secret_.seal, nonce, sealed_bytes_[i]);
      }
      watch.charge(s.seal);
      for (size_t i = 0; i < n; ++i) opened_[i] = open(sealed_[i], secret_, opened_bytes_[i]).content;
      watch.charge(s.open);
      for (size_t i = 0; i < n; ++i) node(out[first + i].to).receive(opened_[i], from, now());
      watch.charge(s.take_in);
      for (size_t i = 0; i < n; ++i)
        if (i == 0 || out[first + i].to != out[first + i - 1].to) collect(out[first + i].to);
      watch.charge(s.answer);
      for (size_t i = 0; i < n; ++i)
        if (decode(opened_[i], secret_.id, datagram_) != DecodeError::none) std::abort();
      watch.charge(s.parse);
      for (size_t i = 0; i < n; ++i) {
        decode(opened_[i], secret_.id, datagram_);
        count(s, sealed_[i].size() + kAroundUdp);
      }
    }
    s.datagrams += out.size();
  }
  void deliver(uint16_t from) {
    Stages ignored;
    deliver(from, ignored);
  }

  // Every node's tick, and all that comes of it.
  void pass() {
    since_ += kSync;
    for (uint16_t rank = 0; rank < hosts(); ++rank) node(rank).tick(now());
    settle();
  }
  void settle() {
    for (int round = 0; round < 6; ++round)
      for (uint16_t rank = 0; rank < hosts(); ++rank) deliver(rank);
  }
  double tick(uint16_t rank) {  // how long it took
    const double began = seconds_now();
    node(rank).tick(now());
    return seconds_now() - began;
  }

  // The first owner gets `n` more keys, of which it hears once: reports as the last lessee would make them.
  void fill_ledger(size_t n) {
    const auto from = static_cast<uint16_t>(hosts() - 1);
    const Rule& rule = hosts_[from].rules->by_id(0);
    const Roster& roster = node(0).roster();
    Header header{
        roster.id(from), roster.id(0), life_of(from), roster.version(), roster.hash(), 1u << 30, 0, 0, 0, 0};
    Report report;
    report.rule = static_cast<uint32_t>(rule.seed);
    report.terms = {rule.limit.algorithm, rule.limit.limit, rule.max_overcount, rule.limit.window,
                    rule.limit.emission};
    report.window = nanos(now().wall) / nanos(rule.limit.window);
    report.floor = rule.limit.floor;
    report.used = report.ceiling = report.floor;
    report.wanted = report.used + 1;
    for (size_t made = 0; made < n;) {
      ++header.sequence;
      header.sent_mono_ns = static_cast<uint64_t>(nanos(now().mono));
      header.sent_wall_ns = nanos(now().wall);
      DatagramWriter writer(header, secret_.id, kDatagramMax);
      do {
        if (report.line == made) {  // the one before was written
          ++report.line;
          do {
            for (uint8_t& b : report.key.bytes) b = static_cast<uint8_t>(random_.next());
          } while (roster.group(report.key).rank[0] != 0);
        }
      } while (made < n && writer.add(report) && ++made != 0);
      node(0).receive(writer.finish(), from, now());
      deliver(0);
      deliver(1);
      deliver(2);
    }
  }

 private:
  void collect(uint16_t rank) {
    node(rank).flush(now());
    std::vector<Outgoing> out = node(rank).take_outbox();
    std::move(out.begin(), out.end(), std::back_inserter(pending_[rank]));
  }
  static uint64_t life_of(uint16_t rank) {
    return 1'795'929'440'000 + rank * 3'600'000ull;
  }  // started an hour apart
  static std::string number(uint16_t i) {
    return std::string(i < 10 ? "00" : i < 100 ? "0" : "") + std::to_string(i);
  }
  void count(Stages& s, size_t bytes) {
    s.bytes += bytes;
    for (const Entry& entry : datagram_.entries) ++s.entries[entry.index()];
    if (bytes < kFullAtLeast || datagram_.entries.empty()) return;
    const size_t kind = datagram_.entries[0].index();
    for (const Entry& entry : datagram_.entries)
      if (entry.index() != kind) return;
    s.full_entries[kind] += datagram_.entries.size();
    s.full_bytes[kind] += bytes;
  }

  const Shape shape_;
  const Secret secret_;
  Duration since_{0};
  std::vector<Host> hosts_;
  std::vector<std::vector<Outgoing>> pending_;  // by rank: packed, not delivered
  std::vector<std::string> keys_;
  Random random_{7};
  std::array<DatagramBuffer, kBatch> sealed_bytes_, opened_bytes_;
  std::array<std::span<const uint8_t>, kBatch> sealed_, opened_;
  Datagram datagram_;
};

}  // namespace tally::bench
