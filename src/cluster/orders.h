// What operators have ordered of single keys while the fleet runs: block, allow, another limit, each until
// some time.
//
// Thread rule: the cluster thread's; of a node alone, whoever keeps them (daemon/order_board.h).
//
// Of two orders of one key the later holds: by the setter's wall clock, which is put above all that it knew
// of the key, and by the setter's id where two chose the same. Lifting is an order, too. An order that was
// replaced may still come from a node that was away, and would hold again where the one that replaced it is
// forgotten; so each is known until the last of all that it replaced would have ended (keep_ns, merged by
// max). Nothing else is remembered, and what is over leaves no trace. Of those that do not hold any more and
// are only known so, there are kMostOver at most: those whose time ends last, at every node the same.
//
// A node that was away learns of them by a digest of all: nodes gossip it, and who knows others than its peer
// tells its own, some at each sync interval. So two nodes that hear each other know the same within
// kTransferAtATime orders in a sync interval and kAgain.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fail.h"
#include "base/time.h"
#include "cluster/wire.h"

namespace tally {

class Orders {
 public:
  static constexpr size_t kMost = 65'536;  // in force, that an operator may have set at once
  static constexpr size_t kMostHeard =
      kMost + kMost / 4;  // in force, set at several nodes before these heard of each other
  static constexpr size_t kMostOver = kMostHeard;  // known, and not in force any more
  static constexpr size_t kChangesKept = 4096;     // by name, for who goes by differences

  using Name = std::pair<std::string, std::string>;  // rule, key

  // Sets one of this node's own. `limit`: of OrderKind::limit. Requires a kind other than lifted, a rule and
  // a key within their lengths, `lasts` from 1 ns to kOrderMax. The error says why it cannot be: there are
  // too many.
  Result<KeyOrder> set(const Name& name, OrderKind kind, uint32_t limit, Duration lasts, NodeId self,
                       WallTime now);
  // nullopt: there is none that holds.
  std::optional<KeyOrder> lift(const Name& name, NodeId self, WallTime now);

  // What a peer, or a file, says. `news`: others should hear of it, too.
  enum class Heard : uint8_t { news, known, out_of_range, full };
  Heard hear(const KeyOrder& order, WallTime now);

  // Forgets what nobody needs to know any more. Costs what there is to forget.
  void expire(WallTime now);

  uint64_t digest() const { return digest_; }  // of all that are known; 0: none
  size_t size() const { return known_.size(); }
  // nullptr: none that holds.
  const KeyOrder* find(const Name& name, WallTime now) const;
  // nullptr: not known, in force or not.
  const KeyOrder* known(const Name& name) const;
  std::vector<KeyOrder> in_force(WallTime now) const;  // in order of rule and key
  std::vector<KeyOrder> all() const;                   // lifted and replaced ones, too
  // Up to `most` of them behind `after`, for somebody who walks through all.
  std::vector<KeyOrder> some_after(const Name& after, size_t most) const;

  // Who keeps something beside goes by differences: changes() grows by one with each name of which something
  // changed, and changed_since() has the names, the oldest first, some of them twice. nullopt: it is too long
  // ago, look at all.
  uint64_t changes() const { return changes_; }
  std::optional<std::vector<Name>> changed_since(uint64_t changes) const;

 private:
  struct Known {
    KeyOrder order;
    bool over = false;  // in which of the two below
  };
  using Ends = std::set<std::pair<int64_t, Name>>;

  void put(const KeyOrder& order, WallTime now);
  void enter(const Name& name, Known& known, WallTime now);
  void leave(const Name& name, const Known& known);
  void changed(const Name& name);
  void forget_first();
  static uint64_t hash_of(const KeyOrder& order);

  std::map<Name, Known> known_;
  Ends in_force_;  // by until_ns
  Ends over_;      // by keep_ns
  uint64_t digest_ = 0;
  uint64_t changes_ = 0;
  std::deque<Name> changed_;  // the newest
};

}  // namespace tally
