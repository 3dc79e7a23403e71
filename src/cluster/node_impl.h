// What a node is made of; for node.cc, where things come in and time passes, and node_questions.cc.
//
// Thread rule: the cluster thread's.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cluster/lessee.h"
#include "cluster/mail.h"
#include "cluster/node.h"
#include "cluster/order_gossip.h"
#include "cluster/owner.h"
#include "cluster/peers.h"
#include "cluster/recovery.h"
#include "cluster/registers.h"
#include "cluster/seal.h"
#include "cluster/standing.h"
#include "cluster/succession.h"

namespace tally {

struct Node::Impl {
  Impl(NodeConfig c, Life which, Limiter& l, std::shared_ptr<const RuleSet> r, uint64_t seed, Now now);

  Surroundings around() {
    return {roster,  rules, peers, standing, succession, registers, resets, key_limits, mail, pace, config.lease,
            peers.self(), incarnation, config.upstream, config.region};
  }

  void open_floors() { limiter.open_floors(std::max(standing.floors_from(), succession.floors_from()), standing.buckets_empty_at()); }
  bool is_self(uint16_t rank) const { return rank == peers.self(); }
  bool alone() const { return roster.count() < 2 && config.owners.empty() && !config.guest; }
  size_t around_datagrams() const { return config.sealed ? kSealBytes : 0; }

  // Before `handle` is called for several entries, for all of them (kPrefetchSteps; key_table.h).
  void prefetch(const Entry& entry, int step) const {
    if (const auto* report = std::get_if<Report>(&entry)) return owner.prefetch(report->key, report->window, step);
    if (const auto* grant = std::get_if<Grant>(&entry)) return lessee.prefetch(grant->key, step);
    if (const auto* mark = std::get_if<Mark>(&entry)) {
      registers.prefetch({mark->key, mark->window}, step);
      if (mark->sliding) registers.prefetch({mark->key, mark->window - 1}, step);  // it asks for that one, too
      return;
    }
    if (const auto* accepted = std::get_if<Accepted>(&entry)) return owner.prefetch(accepted->key, accepted->window, step);
  }
  void handle(const Entry& entry, const Origin& origin, Now now);
  void on_moved(const Moved& moved, uint16_t from, Now now);
  void take_turn(Now now);
  void on_mark(const Mark& mark, uint16_t from, Now now);
  void on_hello(const Hello& hello, const Origin& from, Now now);
  void on_clone(const Clone& clone, Now now);
  void on_reset(const WireId& key, uint64_t number, Now now);
  void on_order(const KeyOrder& order, Now now);
  void tell_all(const KeyOrder& order, Now now);
  void look_at_orders(Now now);
  void look_at_all_orders(Now now);
  void note_order(const WireId& id, const KeyOrder* order, bool holds);
  const Rule* rule_of(const Orders::Name& name) const;
  void use_limit(const WireId& id, std::optional<uint32_t> limit, Now now);
  bool decoded(std::span<const uint8_t> bytes, Datagram& datagram);
  Taken receive_from(std::optional<uint16_t> from, const Datagram& datagram, size_t bytes, Now now);
  std::optional<uint16_t> rank_of_sender(const Header& header, bool known_list, bool listed_place, Now now);
  bool says_what_it_may(const Entry& entry, uint16_t from) const;
  void deliver_local(Now now);
  bool all_answered() const;
  void ask(Now now);
  void gossip(Now now);
  PeerRole role_of(uint16_t rank) const;
  std::vector<uint16_t> some_of(std::vector<uint16_t> ranks, size_t n);

  const NodeConfig config;
  std::shared_ptr<const RuleSet> rules;
  Pace pace;
  Limiter& limiter;
  const MonoTime started;
  const uint64_t incarnation;
  Random random;
  const Roster roster;
  Peers peers;
  // The nodes of the lists that this one speaks with: all others; a guest only those that it may be a guest of.
  const std::vector<uint16_t> others;
  Standing standing;
  Succession succession;
  Recovery recovery;
  Registers registers;
  Resets resets;
  OrderGossip orders;
  KeyLimits key_limits;      // by orders, as last looked at
  struct Ordered {  // the newest order of a key, as last looked at
    uint64_t number = 0;
    bool holds = false;  // a limit, which it sets
    WallTime until{};    // when it, and all that it replaced, would have ended
  };
  std::unordered_map<WireId, Ordered> ordered;  // for books that are no node's (past_of)
  uint64_t orders_seen = 0;  // Orders::changes() then; 0: look anew
  MonoTime orders_looked_at{};
  Mail mail;
  Owner owner;
  Lessee lessee;
  uint64_t rules_fingerprint;  // 0: this node has none to tell and compares none
  Duration window_min;
  MonoTime next_sync, next_gossip, next_ask;
  MonoTime next_call{};  // a guest's
  MonoTime elsewhere_since{};  // that it was told so, and not reached since; epoch: never
  MonoTime reached{};  // when somebody last echoed what this life sent, to where its name is looked for; epoch: never
  bool ready = false;
  Datagram incoming;  // the one just read; kept for the room that its entries have

  uint64_t datagrams_in = 0;
  uint64_t entries_in[kEntryKinds]{};
  std::map<std::string, uint64_t> dropped;
};

}  // namespace tally
