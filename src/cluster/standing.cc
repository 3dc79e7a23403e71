#include "cluster/standing.h"

#include <algorithm>

namespace tally {

namespace {

// Far enough for every bucket (kBurstSpanMax is 2^55 ns), near enough that adding to them overflows nothing.
constexpr MonoTime kLongPast{Duration(-(int64_t{1} << 57))};
constexpr MonoTime kNever{Duration(int64_t{1} << 61)};

}  // namespace

Duration look_ahead(Duration sync_interval) {
  return std::max<Duration>(std::chrono::seconds(1), sync_interval * 4);
}

Standing::Standing(bool first_life, WallTime reckoned_start, Duration sync_interval, bool fleet, Now now)
    : state_(first_life && fleet ? State::asking : State::settled),
      first_life_(first_life),
      reckoned_start_(std::max(reckoned_start, now.wall)),
      started_(now.mono),
      asking_since_(now.mono),
      clock_(now.wall),
      look_ahead_(look_ahead(sync_interval)) {}

bool Standing::tick(Now now, bool all_peers_answered) {
  clock_ = std::max(clock_, now.wall);
  if (state_ != State::asking) return false;
  if (!all_peers_answered && now.mono - asking_since_ < kAskFirst) return false;
  state_ = State::settled;
  return true;
}

bool Standing::set_back(Now now, Duration window) {
  clock_ = std::max(clock_, now.wall);
  if (clock_ - now.wall <= window || set_back_from_ == clock_) return false;
  set_back_from_ = clock_;
  return true;
}

void Standing::remembered(Now now) {
  if (!first_life_) return;
  first_life_ = false;
  // The horizon of the earlier life is lost with its state file; it may have voted up to the look-ahead from now.
  reckoned_start_ = std::max(clock_, now.wall);
}

void Standing::doubted(Now now) {
  if (state_ == State::shut) return;
  state_ = State::asking;
  asking_since_ = now.mono;
}

void Standing::cloned() { state_ = State::shut; }

bool Standing::in_sight(WallTime window_begins) const { return window_begins <= clock_ + look_ahead_; }

bool Standing::may_vote(WallTime window_begins) const {
  if (state_ != State::settled || !in_sight(window_begins)) return false;
  return window_begins >= votes_from();
}

WallTime Standing::votes_from() const {
  if (state_ != State::settled) return WallTime::max();
  return first_life_ ? WallTime::min() : reckoned_start_ + look_ahead_;
}

bool Standing::may_vote_bucket(Duration keep, Now now) const {
  if (state_ != State::settled) return false;
  return remembers(now) >= keep;
}

Duration Standing::remembers(Now now) const {
  if (state_ != State::settled) return Duration(0);
  return first_life_ ? Duration::max() : now.mono - started_;
}

WallTime Standing::floors_from() const {
  if (state_ != State::settled) return WallTime::max();
  return std::max(first_life_ ? WallTime::min() : reckoned_start_, set_back_from_);
}

MonoTime Standing::buckets_empty_at() const {
  if (state_ != State::settled) return kNever;
  return first_life_ ? kLongPast : started_;
}

}  // namespace tally
