// What this life of a node may do: floors, votes and natural ownership after a start.
//
// Thread rule: the cluster thread's.
//
// A first life may do everything, but asks first: for kAskFirst, or until all peers answered, it has no floor and no vote, and
// where a peer remembers another life it is none. A later life has no floor in windows that began before its (reckoned)
// start, and no vote and no natural ownership in windows that begin before its start plus the look-ahead: its last
// life may have spent and voted there. The clock that decides is its own and never goes back.
//
// When the system clock is set back by more than a window, that window's number comes again, and what was remembered of
// it may be gone. For floors that is a new life, which begins at the latest time seen: none in windows that began
// before. For votes and ownership nothing has to be done: they go by clock(), under which those windows are over, and
// in those that still run by it nothing was forgotten (a restart forgets, a step does not). Taking them away as well
// would leave a window of a day without its majority for a step of a minute.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/time.h"

namespace tally {

// How far ahead of its beginning a window may be voted for or granted in.
Duration look_ahead(Duration sync_interval);

inline constexpr Duration kAskFirst = std::chrono::milliseconds(500);
inline constexpr Duration kAskEvery = std::chrono::milliseconds(50);

class Standing {
 public:
  // `reckoned_start`: a later life's, the larger of the clock at its start and the horizon its last life left.
  Standing(bool first_life, WallTime reckoned_start, Duration sync_interval, bool fleet, Now now);

  // Moves the clock on. Returns true once, when the start is over and floors open (see floors_from).
  bool tick(Now now, bool all_peers_answered);
  // To be told of every clock that decisions are made by before they are. True where it was set back from the latest
  // time seen by more than `window` and floors were lost (see floors_from); once for each such time.
  bool set_back(Now now, Duration window);
  void remembered(Now now);  // a peer knew an earlier life of this name: this is no first life
  // Another life of this name may be alive: nothing more until all peers have answered, or none has said so for kAskFirst.
  void doubted(Now now);
  void cloned();             // an older life of this name is still alive: no floor, no vote, no ownership, ever

  bool over() const { return state_ != State::asking; }
  bool is_clone() const { return state_ == State::shut; }
  WallTime clock() const { return clock_; }  // the latest wall time seen; never falls

  bool in_sight(WallTime window_begins) const;  // no further ahead than anybody may vote or grant
  bool may_vote(WallTime window_begins) const;  // also the rule for natural ownership
  bool may_vote_bucket(Duration keep, Now now) const;
  // A later life, which may vote where may_vote says no once it has read anew what its last life knew (recovery.h).
  bool has_forgotten() const { return state_ == State::settled && !first_life_; }
  WallTime votes_from() const;        // windows that begin at that time or later; WallTime::max(): none
  Duration remembers(Now now) const;  // for how long it has kept its registers; Duration::max(): always
  // No earlier than any clock that a life of this node has gone by: what those told of windows that they had left, binds this one.
  WallTime lives_clock() const { return first_life_ ? clock_ : std::max(clock_, reckoned_start_); }
  WallTime floors_from() const;      // WallTime::max() while there are none
  MonoTime buckets_empty_at() const;  // floor buckets fill from here; long past for a first life

 private:
  enum class State : uint8_t { asking, settled, shut };
  State state_;
  bool first_life_;
  WallTime reckoned_start_;
  WallTime set_back_from_ = WallTime::min();  // the latest time seen when the clock was last set back
  MonoTime started_;
  MonoTime asking_since_;
  WallTime clock_;
  const Duration look_ahead_;
};

}  // namespace tally
