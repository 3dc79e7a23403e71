// The register of marks: what this node, as a member of a key's group, has promised and accepted.
//
// Thread rule: the cluster thread's.
//
// One entry per (key, window): the ballot promised, the largest mark accepted and its ballot. A mark is the most that owners
// up to its ballot may ever have outstanding there; it only grows. Losing an entry while its window runs would break the
// bound, so none is ever evicted: a full table refuses new keys (counted; may only deny more).
//
// A sliding window's entry is closed by the clock: once this node's own clock has left window w it accepts nothing more in
// w, and may tell what it has of w to the owner of w + 1. Bucket entries (window 0) live in time: an entry idle for its
// `keep` is forgotten, as nothing issued under it can still be spent.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/time.h"
#include "cluster/recovery.h"
#include "cluster/standing.h"
#include "cluster/wire.h"

namespace tally {

// Claims raise the counter by one each; one that leaps would leave no room above it, and is not believed.
inline constexpr uint32_t kCounterStep = 1u << 16;

struct RegisterKey {
  WireId key;
  int64_t window = 0;
  friend bool operator==(const RegisterKey&, const RegisterKey&) = default;
};

struct RegisterKeyHash {
  size_t operator()(const RegisterKey& k) const {
    return static_cast<size_t>(mix(k.key.word() ^ mix(static_cast<uint64_t>(k.window))));
  }
};

class Registers {
 public:
  // `entries_max`: how many marks are kept at once.
  Registers(size_t entries_max, const Standing& standing, const Recovery& recovery);

  // Answers a mark: accepted, refused with the promised ballot, or nullopt where this node has no vote there (it must
  // not answer) or no room. A claim where it has no vote, and nobody can give it back: `forgotten_by`.
  std::optional<Accepted> accept(const Mark& mark, Now now);

  // What there is of (key, window): nullopt where there is no entry. For a bucket the mark is time remaining.
  struct Told {
    Ballot ballot;  // of the mark
    uint64_t mark = 0;
    Ballot promised;
  };
  std::optional<Told> look(const WireId& key, int64_t window, Now now) const;

  // A mark or claim of this node's own that `accept` did not take, as it has no vote there, or has promised a higher ballot: the
  // others may take it all the same, and who reads this register must learn of it (see recovery.h).
  void remember_own(const Mark& mark, Now now);
  // False once there was no room for one: then what is absent here proves nothing.
  bool holds_all_own() const { return holds_all_own_; }

  // Whether this node may tell (key, window) as the window before the running one: its clock has left it, and it had a vote.
  bool may_tell(const WireId& key, int64_t window, Duration length) const;

  // For others that read theirs anew, and what they tell this node (see recovery.h). `restore` is false where there is no room.
  std::vector<RegisterKey> keys(const std::function<bool(const WireId&)>& wanted) const;
  Registered tell(const RegisterKey& key, Now now) const;  // an entry that is over meanwhile has no length
  bool restore(const Registered& told, Now now);

  // Forgets what is over. Cheap when called often: looks at a part of the table at a time.
  void expire(Now now);

  size_t size() const { return entries_.size(); }
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
  std::optional<Accepted> accept_window(const Mark& mark);
  std::optional<Accepted> accept_bucket(const Mark& mark, Now now);
  static bool promise(Entry& entry, const Mark& mark, Accepted& answer);
  void tell_previous(const Mark& mark, Accepted& answer) const;
  bool may_vote(const WireId& key, int64_t window, Duration length) const;
  bool may_vote_bucket(const WireId& key, Duration keep, Now now) const;
  Entry* open(const RegisterKey& key, Duration length);

  const size_t entries_max_;
  const Standing& standing_;
  const Recovery& recovery_;
  std::unordered_map<RegisterKey, Entry, RegisterKeyHash> entries_;
  bool holds_all_own_ = true;
  size_t sweep_bucket_ = 0;
  uint64_t refused_full_ = 0;
  uint64_t refused_no_vote_ = 0;
};

}  // namespace tally
