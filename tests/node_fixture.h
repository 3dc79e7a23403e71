// A few whole nodes on one clock, wired by hand: what one puts into its outbox the others receive at once.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "cluster/node.h"
#include "cluster_fixture.h"

namespace tally::test {

struct Host {
  std::shared_ptr<const RuleSet> rules;
  std::unique_ptr<SlotTable> slots;
  std::unique_ptr<Limiter> limiter;
  std::unique_ptr<NoteRing> notes;
  std::unique_ptr<Node> node;  // nullptr: down
  std::vector<Wake> wakes;
};

inline Bytes datagram_of(const Header& header, const std::vector<Entry>& entries) {
  DatagramWriter writer(header, kPublicIdKey);
  for (const Entry& entry : entries) REQUIRE(writer.add(entry));
  return writer.finish();
}

class Fleet {
 public:
  Fleet(uint16_t nodes, Rule rule, size_t keys = 1000)
      : roster(roster_of(nodes)), rule_(std::move(rule)), keys_(keys), hosts_(nodes) {
    for (uint16_t rank = 0; rank < nodes; ++rank)
      start(rank, {.incarnation = 10, .first = true, .reckoned_start = {}});
  }

  Now now() const { return at(since); }
  Host& operator[](uint16_t rank) { return hosts_[rank]; }
  Node& node(uint16_t rank) { return *hosts_[rank].node; }
  const Rule& rule(uint16_t rank) const { return hosts_[rank].rules->by_id(0); }

  void start(uint16_t rank, Life life) {
    Host& host = hosts_[rank];
    const auto size = static_cast<uint32_t>(roster.count());
    host = Host{};
    host.rules = std::make_shared<RuleSet>(std::vector<Rule>{rule_}, Rule{}, Share{rank, size}, kPublicIdKey);
    host.slots = std::make_unique<SlotTable>(keys_, 7, true);
    host.limiter = std::make_unique<Limiter>(*host.slots, true);
    host.notes = std::make_unique<NoteRing>(16'384);
    NodeConfig config;
    config.peers = entries_of(roster.count());
    config.self = config.peers[rank];
    config.movable = movable;
    config.size = size;
    config.accounts_max = accounts_max;
    config.guests_max = guests_max;
    config.sealed = sealed;
    host.node = std::make_unique<Node>(config, life, *host.limiter, host.rules, rank + 1u, now());
  }
  void stop(uint16_t rank) { hosts_[rank] = Host{}; }
  void use(uint16_t rank, const Rule& rule) {  // under the same name
    Host& host = hosts_[rank];
    const auto before = host.rules;
    host.rules = std::make_shared<RuleSet>(std::vector<Rule>{rule}, Rule{}, before->share(), kPublicIdKey, before.get());
    host.node->use(host.rules, now());
  }

  // All notes are heard and all datagrams delivered, until nobody has anything more to say.
  void settle() {
    bool moved = true;
    for (int round = 0; moved; ++round) {
      if (round >= 200 && !must_settle) return;
      REQUIRE(round < 200);  // somebody talks for ever
      moved = false;
      for (uint16_t rank = 0; rank < hosts_.size(); ++rank)
        if (hosts_[rank].node) moved = speak(rank) || moved;
    }
  }
  void pass(Duration d, Duration step = ms(5)) {
    for (const Duration until = since + d; since < until;) {
      since += std::min(step, until - since);
      for (Host& host : hosts_)
        if (host.node) host.node->tick(now());
      settle();
    }
  }
  void until_ready() {
    pass(ms(100));
    for (Host& host : hosts_) REQUIRE((!host.node || host.node->ready()));
  }

  Ask ask(uint16_t rank, std::string_view key, uint32_t cost = 1) const {
    const Host& host = hosts_[rank];
    const Rule& r = host.rules->by_id(0);
    return {&r, r.for_key(key).limit, key, host.limiter->hash(r, key), cost};
  }
  Answer take(uint16_t rank, std::string_view key, uint32_t cost = 1) {
    return hosts_[rank].limiter->take(ask(rank, key, cost), now(), hosts_[rank].notes.get());
  }
  // As a worker: a request that finds too little waits for as long as its rule says.
  bool admits(uint16_t rank, std::string_view key, uint32_t cost = 1) {
    Answer answer = take(rank, key, cost);
    settle();
    for (Duration waited{0}; answer.verdict == Verdict::starved && waited < rule_.wait; waited += ms(1)) {
      if (waited > Duration(0)) pass(ms(1));
      answer = hosts_[rank].limiter->take(ask(rank, key, cost), now(), nullptr);
    }
    return answer.verdict == Verdict::admitted;
  }
  uint32_t admitted_of(uint16_t rank, std::string_view key, uint32_t tries) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < tries; ++i) n += admits(rank, key) ? 1 : 0;
    return n;
  }

  WireId id(std::string_view key) const { return wire_id(key, rule(up()).id_key); }
  Group group(std::string_view key) const { return roster.group(id(key)); }
  // A key whose natural owner is `rank`.
  std::string key_of(uint16_t rank) const {
    for (int i = 0;; ++i) {
      const std::string key = "key" + std::to_string(i);
      if (group(key).rank[0] == rank) return key;
    }
  }
  Explanation explain(uint16_t rank, std::string_view key) {
    const Ask a = ask(rank, key);
    return node(rank).explain(*a.rule, *a.limit, a.hash, id(key), now());
  }
  uint32_t give(uint16_t rank, std::string_view key, uint32_t n) {
    const Ask a = ask(rank, key);
    const uint32_t given = node(rank).give(*a.rule, *a.limit, a.hash, id(key), n, now());
    settle();
    return given;
  }
  bool reset(uint16_t rank, std::string_view key) {
    const Ask a = ask(rank, key);
    const bool known = node(rank).reset(*a.rule, *a.limit, a.hash, id(key), now());
    settle();
    return known;
  }

  // Entries of one kind that went between hosts so far.
  template <typename T>
  uint64_t sent() const {
    const auto n = sent_.find(Entry(T{}).index());
    return n == sent_.end() ? 0 : n->second;
  }
  uint64_t dropped(uint16_t rank, const std::string& reason) {
    const NodeStats stats = node(rank).stats();
    const auto n = stats.dropped.find(reason);
    return n == stats.dropped.end() ? 0 : n->second;
  }

  // A header as `from` would write it to `to`.
  Header header(uint16_t from, uint16_t to, uint64_t incarnation = 10) const {
    Header h;
    h.sender = roster.id(from);
    h.receiver = roster.id(to);
    h.incarnation = incarnation;
    h.roster_version = roster.version();
    h.roster_hash = roster.hash();
    h.sequence = 1'000'000;
    h.sent_mono_ns = static_cast<uint64_t>(nanos(now().mono));
    h.sent_wall_ns = nanos(now().wall);
    return h;
  }

  const Roster roster;
  Duration since{0};
  size_t guests_max = NodeConfig{}.guests_max;      // likewise
  size_t accounts_max = NodeConfig{}.accounts_max;  // of those that are started from now on
  bool sealed = false;                              // likewise
  bool movable = false;                             // likewise
  bool must_settle = true;  // false: peers that never stop asking are part of the test
  std::function<bool(uint16_t from, uint16_t to)> cut;  // true: lost
  std::function<void(const Entry&, uint16_t from, uint16_t to)> watch;

 private:
  uint16_t up() const {
    for (uint16_t rank = 0; rank < hosts_.size(); ++rank)
      if (hosts_[rank].rules) return rank;
    return 0;
  }
  bool speak(uint16_t rank) {
    Host& host = hosts_[rank];
    for (Note note; host.notes->pop(note);) host.node->note(note, now());
    host.node->flush(now());
    for (const Wake& wake : host.node->take_wakes()) host.wakes.push_back(wake);
    const auto out = host.node->take_outbox();
    for (const Outgoing& o : out) {
      REQUIRE_FALSE(o.to_source);  // nobody here comes from elsewhere
      Datagram datagram;
      REQUIRE(decode(o.bytes, kPublicIdKey, datagram) == DecodeError::none);
      for (const Entry& entry : datagram.entries) {
        ++sent_[entry.index()];
        if (watch) watch(entry, rank, o.to);
      }
      if (o.to >= hosts_.size()) continue;  // to a guest, who is written by hand
      if (hosts_[o.to].node && !(cut && cut(rank, o.to))) hosts_[o.to].node->receive(o.bytes, rank, now());
    }
    return !out.empty();
  }

  Rule rule_;
  size_t keys_;
  std::vector<Host> hosts_;
  std::map<size_t, uint64_t> sent_;
};

}  // namespace tally::test
