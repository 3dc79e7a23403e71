// The register of marks: what this node, as a member of a key's group, has promised and accepted.
//
// Thread rule: the cluster thread's.
//
// One entry per (key, window): the ballot promised, the largest mark accepted and its ballot. A mark is the most that owners
// up to its ballot may ever have outstanding there; it only grows. Losing an entry while its window runs would break the
// bound, so none is ever evicted: what a full table has no room for goes into a sketch of largest marks (mark_sketch.h; counted;
// may only deny more), and what finds none there either is not answered. An entry that is opened later begins with what the
// sketch has of its key.
//
// A sliding window's entry is closed by the clock: once this node's own clock has left window w it accepts nothing more in
// w, and may tell what it has of w to the owner of w + 1. Bucket entries (window 0) live in time: an entry idle for its
// `keep` is forgotten, as nothing issued under it can still be spent.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "base/time.h"
#include "cluster/key_table.h"
#include "cluster/mark_sketch.h"
#include "cluster/recovery.h"
#include "cluster/register_key.h"
#include "cluster/standing.h"
#include "cluster/succession.h"
#include "cluster/wire.h"

namespace tally {

// Claims raise the counter by one each; one that leaps would leave no room above it, and is not believed.
inline constexpr uint32_t kCounterStep = 1u << 16;

// The ballot of a mark that may be another key's: above every owner's, so that none takes it for its own.
inline constexpr Ballot kNobodysBallot{UINT32_MAX, UINT64_MAX};

class Registers {
 public:
  // `entries_max`: how many marks are kept at once; `overflow_max`: in how many cells those are kept that have no room.
  Registers(size_t entries_max, size_t overflow_max, const Roster& roster, const Standing& standing, const Succession& succession,
            const Recovery& recovery);

  // Before accept is called for several keys, for all of them (kPrefetchSteps; key_table.h).
  void prefetch(const RegisterKey& key, int step) const {
    if (step == 0) entries_.prefetch_cell(key);
    if (step == 1) entries_.prefetch_value(key);
  }
  // Answers a mark: accepted, refused with the promised ballot, or nullopt where this node has no vote there (it must
  // not answer) or no room. A claim where it has no vote, and nobody can give it back: `forgotten_by`.
  std::optional<Accepted> accept(const Mark& mark, Now now);

  // What there is of (key, window): nullopt where there is nothing. For a bucket the mark is time remaining.
  struct Told {
    Ballot ballot;  // of the mark
    uint64_t mark = 0;
    Ballot promised;
    bool shared = false;  // by the sketch: some or all of it may be other keys'
  };
  std::optional<Told> look(const WireId& key, int64_t window, Now now) const;
  // Whether the natural owner may begin at ballot 0: nothing is known of the key, or, where only the sketch may know of it, no claim
  // was promised anything. (Of its own earlier books of this life a window's owner needs no trace here, as it keeps them or has
  // noted that they were deposed; a bucket's begins with what look() says.)
  bool may_begin(const WireId& key, int64_t window, Now now) const;

  // A mark or claim of this node's own that `accept` did not take, as it has no vote there, or has promised a higher ballot: the
  // others may take it all the same, and who reads this register must learn of it (see recovery.h).
  void remember_own(const Mark& mark, Now now);
  // The list of keys() is all that there is of windows that begin at that time or later; of buckets, where so. Else there is more
  // in the sketch, or there was no room even there for a mark of this node's own.
  WallTime tells_from() const { return std::max(sketch_.windows_before(), lost_before_); }
  bool tells_buckets(Now now) const { return !sketch_.holds_buckets() && now.mono >= lost_buckets_until_; }

  // Whether this node may tell (key, window) as the window before the running one: its clock has left it, and it had a vote.
  bool may_tell(const WireId& key, int64_t window, Duration length) const;

  // For others that read theirs anew, and what they tell this node (see recovery.h). `restore` is false where there is no room.
  std::vector<RegisterKey> keys(const std::function<bool(const WireId&)>& wanted) const;
  Registered tell(const RegisterKey& key, Now now) const;  // an entry that is over meanwhile has no length
  bool restore(const Registered& told, Now now);

  // Forgets what is over. Cheap when called often: looks at a part of the table at a time.
  void expire(Now now);

  size_t size() const { return entries_.size(); }
  size_t overflow_cells() const { return sketch_.cells(); }
  uint64_t overflowed() const { return overflowed_; }  // marks and claims that went into the sketch
  uint64_t refused_full() const { return refused_full_; }
  uint64_t refused_no_vote() const { return refused_no_vote_; }

 private:
  struct Entry {
    Ballot promised;
    uint64_t promised_life = 0;  // of the claimant, where it was a claim: its next life must claim higher
    Ballot mark_ballot;
    uint64_t mark = 0;     // windows
    MonoTime until{};      // buckets: the mark on this node's own clock
    MonoTime touched{};    // buckets: last accepted
    Duration length{0};    // windows: W; buckets: keep
    Lives anew{};          // with whom it was begun anew; all 0: it was not
    bool fresh = false;    // begun anew, and no mark accepted since
  };
  bool over(const RegisterKey& key, const Entry& entry, Now now) const;
  // Whether this life has no vote there, and has read from all others that none can give it back.
  bool forgot(const Mark& mark, Now now) const;
  // Votes there from here on, if this life is one of those named, and has forgotten or accepted nothing since it began anew before.
  bool begin_anew(const Mark& mark, Now now);
  bool begun_anew(const WireId& key, int64_t window) const;
  std::optional<Accepted> accept_window(const Mark& mark, Now now);
  std::optional<Accepted> accept_bucket(const Mark& mark, Now now);
  // A bucket's mark on this node's own clock: what was accepted, and what owners under an earlier list may have issued.
  MonoTime until_of(const WireId& key, const Entry& entry) const;
  static bool promise(Entry& entry, const Mark& mark, Accepted& answer);
  void tell_previous(const Mark& mark, Accepted& answer, Now now) const;
  bool may_vote(const WireId& key, int64_t window, Duration length) const;
  bool may_vote_bucket(const WireId& key, Duration keep, Now now) const;
  Entry* open(const RegisterKey& key, Duration length, Now now);
  // What the sketch has of the key, as an entry; nullopt: nothing.
  std::optional<Entry> from_sketch(const RegisterKey& key, Now now) const;
  // What Succession asks for. Without a list before it looks at no groups, and a mark shall not cost finding them.
  Groups groups_in_change(const WireId& key) const { return roster_.has_previous() ? roster_.groups(key) : Groups{}; }
  Ballot among_group(Ballot ballot, const WireId& key) const;
  // Keeps in the sketch what an answer to `mark` binds this node to. False where there is no room: it must not answer.
  bool overflow(const RegisterKey& key, const MarkSketch::Held& held, Now now);

  const size_t entries_max_;
  const Roster& roster_;
  const Standing& standing_;
  const Succession& succession_;
  const Recovery& recovery_;
  KeyTable<RegisterKey, Entry, RegisterKeyHash> entries_;
  MarkSketch sketch_;
  WallTime lost_before_ = WallTime::min();  // of windows that begin before it, own marks may have found no room
  MonoTime lost_buckets_until_ = MonoTime::min();
  uint64_t overflowed_ = 0;
  uint64_t refused_full_ = 0;
  uint64_t refused_no_vote_ = 0;
};

}  // namespace tally
