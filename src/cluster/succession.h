// A list of nodes that replaces another, node by node: which of the two rules a window, and what this node may do there.
//
// Thread rule: the cluster thread's. Pure: messages and time in, messages out.
//
// Every window has one list, so that what is issued in it is backed by majorities of one list's groups only. A node that knows
// both goes by the one before until all know the new one; then it chooses a time and *leaves*: it has no vote and owns nothing
// under the list before in windows that begin then or later. That time is kept in the state file before anybody hears of it, and
// is further ahead than any window in which a life of this node may have voted. Once all but one of the list before have left
// (all, where keys belonged to one), no group of it has a majority in later windows: they are the new list's. One node that does not know
// yet, or is dead, holds the others up for seconds only, and one that goes on alone by the list before can issue nothing.
//
// Where a key's group is the same in both lists nothing changes for it. Else, in the first window of the new list, members have
// nothing to tell of the one before, which counts as full; and nobody is a natural owner, so that ballots rise. A token bucket has
// no windows: it passes over when all but one have said that they went, and its members then tell at least what any owner of
// before may have issued (`bucket_base`).
//
// Floors are the smaller of both lists' while a node knows both (Share); a node goes by the new list's alone from its next start
// without `previous`, in windows that begin after all have left.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/time.h"
#include "cluster/mail.h"
#include "cluster/peers.h"
#include "cluster/roster.h"
#include "cluster/standing.h"
#include "cluster/wire.h"

namespace tally {

// What a node must remember of it from life to life, beside the horizon in its state file.
struct Tenure {
  uint32_t version = 0;  // of the newest list that it has gone by; 0: of none
  // It has no part under the list before in windows that begin then or later; max(): it has not left.
  WallTime leaves = WallTime::max();
  // All had left the list before in windows that begin then or later; max(): that is not known yet. min(): there was none.
  WallTime settled = WallTime::max();
  WallTime settled_before = WallTime::min();  // the same of the list before
  friend bool operator==(const Tenure&, const Tenure&) = default;
};

// Whether a node that kept this may go by that list: an older one never; a newer one only with the one before it beside it, and
// only when the change before is over. `previous`: 0: none is given. `clock`: of now, and of no life before it less.
enum class Succeeds : uint8_t { yes, older, without_previous, unsettled };
Succeeds succeeds(const Tenure& kept, uint32_t version, uint32_t previous, WallTime clock);

class Succession {
 public:
  // `kept`: from the state file; of version 0 where there was none. Requires succeeds(kept, ...) == yes.
  // `gone`: entries of the list before that are stopped for good, as the operator says.
  Succession(const Roster& roster, uint16_t self, const Tenure& kept, const std::vector<std::string>& gone,
             const Standing& standing, Duration sync_interval, Now now);

  // --- which list ---
  Which rules(WallTime begins) const { return begins >= rules_from_ ? Which::current : Which::previous; }
  Which rules_buckets() const { return buckets_over_ ? Which::current : Which::previous; }
  // The group that keeps (key, window) as far as this node knows; window 0: a bucket. Any number will do.
  const Group& group(const Groups& groups, int64_t window, Duration length) const {
    if (!roster_.has_previous()) return groups.current;  // for which no window has to be looked at: this is asked for every entry
    return group_in_change(groups, window, length);
  }

  // --- what this node may do, beyond what Standing says ---
  bool takes_part(const Groups& groups, int64_t window, Duration length) const;
  // Whether ballot 0 may be begun.
  bool natural(const Groups& groups) const { return !roster_.has_previous() || groups.same(); }
  // Whether the group of the window before that one was the same: else its members cannot tell of it, and it counts as full.
  bool same_before(const Groups& groups, int64_t window, Duration length) const;
  // Buckets: whether what others remember of it is all that there is.
  bool may_read_bucket(const Groups& groups, Duration keep) const;
  // The least that a member has to tell of a bucket's mark: what owners under the list before may have issued.
  MonoTime bucket_base(const Groups& groups, Duration keep) const;
  // Buckets: for how long this node has been a member of those groups that keep them now; for those that read its registers.
  Duration remembers_buckets(Now now) const;
  WallTime floors_from() const { return roster_.has_previous() ? tenure_.settled_before : tenure_.settled; }
  // From which window on this node remembers what it had a part in; for those that read its registers.
  WallTime remembers_from() const { return floors_from(); }
  bool gone(uint16_t rank) const { return rank < gone_.size() && gone_[rank]; }
  // That node is stopped for good, as the operator says: it will say nothing more, and nobody waits for it.
  void forget(uint16_t rank, Now now);
  bool settled() const { return tenure_.settled != WallTime::max(); }

  // --- in and out ---
  void on_moved(const Moved& moved, uint16_t from, Mail& mail, Now now);
  // For gossip to `to`, of itself and of those `about`.
  void tell(uint16_t to, const std::vector<uint16_t>& about, Mail& mail) const;
  void answer_newcomer(uint16_t to, Mail& mail) const;
  bool knows(uint16_t rank) const { return knows_[rank]; }  // that node goes by the current list, or knows of it
  void heard_current(uint16_t rank) { knows_[rank] = true; }
  void tick(const Peers& peers, Now now);
  // What has to be in the state file before it holds; kept() once it is.
  std::optional<Tenure> to_keep() const;
  void kept(const Tenure& tenure, Now now);
  const Tenure& tenure() const { return tenure_; }
  // Whether another list rules since this was asked last: what is held under the one before is void.
  bool turned() { return std::exchange(turned_, false); }

 private:
  struct Left {
    WallTime from = WallTime::max();
    bool buckets = false;
  };
  const Group& group_in_change(const Groups& groups, int64_t window, Duration length) const;
  bool is_guest() const { return self_ >= roster_.count(); }  // in no list: it has no part in either, and nothing to say of itself
  bool everybody_knows(const Peers& peers, Now now) const;
  void look_at_others(Now now);
  void mark_gone(uint16_t rank);
  void all_left(WallTime settled, Now now);
  void buckets_over(Now now);
  Moved moved(uint16_t rank) const;

  const Roster& roster_;
  const uint16_t self_;
  const Standing& standing_;
  const Duration look_ahead_;
  const MonoTime started_;
  Tenure tenure_;               // as kept
  std::optional<Tenure> next_;  // not kept yet
  std::vector<Left> left_;      // by rank, of the list before
  std::vector<bool> knows_, gone_;
  WallTime rules_from_;
  bool fresh_ = false;  // it began with this list, as far as it knows itself
  bool buckets_over_ = false;
  MonoTime buckets_since_{};
  bool turned_ = false;
};

}  // namespace tally
