#include "cluster/succession.h"

#include <algorithm>
#include <functional>

#include "core/windows.h"

namespace tally {

namespace {

constexpr Duration kAnnounced = std::chrono::seconds(2);   // all hear of a time well before it comes
// A node that is gone may have voted as far ahead as its clock was. Of one such node that makes no difference, as all others leave
// beyond what any of them voted with it; of several it is assumed that their clocks were no further ahead than this.
constexpr Duration kGoneClock = std::chrono::seconds(10);
constexpr Duration kAdopted = std::chrono::seconds(10);    // no later times of others than so much
constexpr Duration kSilentFor = std::chrono::seconds(10);  // whoever is not heard for that long is not waited for

WallTime begins(int64_t window, Duration length) {
  return WallTime(Duration(static_cast<int64_t>(std::clamp<__int128>(window_start_wide(window, length), INT64_MIN, INT64_MAX))));
}

WallTime later(WallTime t, Duration d) { return t > WallTime::max() - d ? WallTime::max() : t + d; }

Tenure at_start(const Roster& roster, uint16_t self, const Tenure& kept, const Standing& standing, Duration look_ahead) {
  if (kept.version == roster.version()) return kept;
  Tenure tenure;
  tenure.version = roster.version();
  if (!roster.has_previous()) {
    // The first list; of a later one those tell for whom the change is over.
    if (tenure.version == 1) tenure.settled = WallTime::min();
  } else if (kept.version != 0) {
    tenure.settled_before = kept.settled;
  } else if (roster.lists(Which::previous, self)) {
    // Nothing is known of what lives before this one did under the list before: there is none for it.
    tenure.settled_before = WallTime::max();
    tenure.leaves = later(standing.lives_clock(), look_ahead + Duration(1));
  }
  return tenure;
}

}  // namespace

Succeeds succeeds(const Tenure& kept, uint32_t version, uint32_t previous, WallTime clock) {
  if (kept.version == 0) return Succeeds::yes;
  if (version < kept.version) return Succeeds::older;
  const bool over = clock >= kept.settled;
  if (version == kept.version) return previous == 0 && !over ? Succeeds::unsettled : Succeeds::yes;
  if (previous != kept.version) return Succeeds::without_previous;
  return over ? Succeeds::yes : Succeeds::unsettled;
}

Succession::Succession(const Roster& roster, uint16_t self, const Tenure& kept, const std::vector<std::string>& gone,
                       const Standing& standing, Duration sync_interval, Now now)
    : roster_(roster),
      self_(self),
      standing_(standing),
      look_ahead_(look_ahead(sync_interval)),
      started_(now.mono),
      tenure_(at_start(roster, self, kept, standing, look_ahead_)),
      left_(std::max<size_t>(roster.count(), self + size_t{1})),
      knows_(left_.size()),
      gone_(left_.size()),
      rules_from_(roster.has_previous() ? WallTime::max() : WallTime::min()),
      fresh_(kept.version == 0 && !roster.has_previous()),
      buckets_over_(!roster.has_previous()) {
  knows_[self_] = true;
  for (const std::string& entry : gone)
    if (const auto rank = roster_.rank_of(entry)) mark_gone(*rank);
  if (tenure_ != kept) next_ = tenure_;
  if (!roster.has_previous()) return;
  // What it has told of itself holds before its first tick.
  if (!next_) left_[self_] = {tenure_.leaves, tenure_.leaves != WallTime::max() && standing.lives_clock() >= tenure_.leaves};
  if (settled()) all_left(tenure_.settled, now);
}

// ---- which list, and what may be done there ---------------------------------------------------------------------------

const Group& Succession::group_in_change(const Groups& groups, int64_t window, Duration length) const {
  return groups.of(window == 0 ? rules_buckets() : rules(begins(window, length)));
}

bool Succession::takes_part(const Groups& groups, int64_t window, Duration length) const {
  if (window == 0) {
    if (!roster_.has_previous()) return settled();
    if (groups.same() || rules_buckets() == Which::current) return true;
    return tenure_.settled_before != WallTime::max() && !left_[self_].buckets;
  }
  const WallTime from = begins(window, length);
  if (!roster_.has_previous()) return from >= tenure_.settled;
  if (rules(from) == Which::current) return true;
  return from >= tenure_.settled_before && (groups.same() || from < tenure_.leaves) && (!next_ || from < next_->leaves);
}

bool Succession::same_before(const Groups& groups, int64_t window, Duration length) const {
  const WallTime from = begins(window, length), before = begins(window - 1, length);
  if (before < remembers_from() && !(roster_.has_previous() && rules(before) == Which::current)) return false;
  return groups.same() || rules(from) == rules(before);
}

bool Succession::may_read_bucket(const Groups& groups, Duration keep) const {
  if (roster_.has_previous() && !groups.same() && rules_buckets() == Which::current) return true;  // see bucket_base
  return standing_.clock() >= later(remembers_from(), keep);
}

Duration Succession::remembers_buckets(Now now) const {
  const bool passed = roster_.has_previous() ? buckets_over_ : fresh_ && tenure_.settled != WallTime::min();
  return passed ? now.mono - buckets_since_ : Duration::max();
}

MonoTime Succession::bucket_base(const Groups& groups, Duration keep) const {
  if (fresh_ && tenure_.settled != WallTime::min()) return buckets_since_ + keep;
  if (!roster_.has_previous() || groups.same() || rules_buckets() == Which::previous) return MonoTime::min();
  return buckets_since_ + keep;
}

// ---- what others say ------------------------------------------------------------------------------------------------------

void Succession::on_moved(const Moved& moved, uint16_t from, Mail& mail, Now now) {
  if (moved.version != roster_.version() || moved.hash != roster_.hash()) return;
  const WallTime leaves{Duration(moved.leaves_ns)};
  if (!roster_.has_previous()) {
    if (moved.node != kAllNodes) return settled() ? answer_newcomer(from, mail) : void();
    // Who began with this list alone, and knew of none before, is told from when on windows are its own. Nodes may tell different
    // times, of which any will do.
    if (!fresh_ || settled() || leaves == WallTime::max()) return;
    turned_ = true;
    buckets_since_ = now.mono;
    tenure_.settled = leaves;
    next_ = tenure_;
    return;
  }
  knows_[from] = true;
  if (moved.node == kAllNodes) return leaves != WallTime::max() ? all_left(leaves, now) : void();
  const auto rank = roster_.rank_of(moved.node);
  if (!rank || *rank == self_) return;
  knows_[*rank] = true;
  Left& left = left_[*rank];
  left.from = std::min(left.from, leaves);
  left.buckets = left.buckets || moved.left_buckets;
  look_at_others(now);
}

Moved Succession::moved(uint16_t rank) const {
  return {roster_.id(rank), roster_.version(), roster_.hash(), nanos(left_[rank].from), left_[rank].buckets};
}

void Succession::tell(uint16_t to, const std::vector<uint16_t>& about, Mail& mail) const {
  if (!roster_.has_previous()) return;
  if (!is_guest()) mail.send(to, moved(self_));
  if (settled()) return answer_newcomer(to, mail);
  for (const uint16_t rank : about)
    if (rank != to && knows_[rank] && !gone_[rank]) mail.send(to, moved(rank));
}

void Succession::answer_newcomer(uint16_t to, Mail& mail) const {
  if (!roster_.has_previous() && tenure_.settled == WallTime::min()) return;
  mail.send(to, Moved{kAllNodes, roster_.version(), roster_.hash(), nanos(tenure_.settled), true});
}

void Succession::mark_gone(uint16_t rank) {
  gone_[rank] = true;
  left_[rank] = {later(standing_.lives_clock(), look_ahead_ + kGoneClock), true};
}

void Succession::forget(uint16_t rank, Now now) {
  if (gone_[rank]) return;
  mark_gone(rank);
  if (roster_.has_previous()) look_at_others(now);
}

// With one of a list of two or more owners left, no group of it has a majority any more. Where one is gone, that is the one: nobody knows
// what it voted for, nor by which clock.
void Succession::look_at_others(Now now) {
  const auto& members = roster_.ranks(Which::previous);
  std::vector<WallTime> from;
  size_t buckets = 0;
  for (const uint16_t rank : members) {
    from.push_back(left_[rank].from);
    buckets += left_[rank].buckets ? 1 : 0;
  }
  std::ranges::sort(from, std::greater{});
  const auto owners = std::ranges::count_if(members, [&](uint16_t rank) { return roster_.owns(Which::previous, rank); });
  const size_t may_stay = owners > 1 ? 1 : 0;
  const bool gone = std::ranges::any_of(members, [&](uint16_t rank) { return gone_[rank]; });
  const WallTime rules_from = from[gone ? 0 : may_stay];
  if (rules_from < rules_from_) {
    rules_from_ = rules_from;
    turned_ = true;
  }
  if (buckets + may_stay >= members.size()) buckets_over(now);
  if (from[0] != WallTime::max() && buckets == members.size() && !settled() && !next_) {
    next_ = tenure_;
    next_->settled = from[0];
  }
}

void Succession::all_left(WallTime settled, Now now) {
  if (settled < rules_from_) {
    rules_from_ = settled;
    turned_ = true;
  }
  buckets_over(now);
  if (this->settled() || next_) return;
  next_ = tenure_;
  next_->settled = settled;
}

void Succession::buckets_over(Now now) {
  if (buckets_over_) return;
  buckets_over_ = turned_ = true;
  buckets_since_ = now.mono;
}

// ---- time -------------------------------------------------------------------------------------------------------------------

// All of both lists, but for one of each that is silent: it does not hold the others up.
bool Succession::everybody_knows(const Peers& peers, Now now) const {
  size_t silent[2]{};
  for (uint16_t rank = 0; rank < roster_.count(); ++rank) {
    if (knows_[rank] || gone_[rank]) continue;
    if (peers.up(rank, now.mono) || now.mono - started_ < kSilentFor) return false;
    for (const Which which : {Which::current, Which::previous})
      silent[static_cast<size_t>(which)] += roster_.lists(which, rank) ? 1 : 0;
  }
  return silent[0] <= 1 && silent[1] <= 1;
}

void Succession::tick(const Peers& peers, Now now) {
  if (!roster_.has_previous() || !standing_.over() || standing_.is_clone() || is_guest()) return;
  if (tenure_.leaves == WallTime::max() && !next_ && everybody_knows(peers, now)) {
    next_ = tenure_;
    // Beyond all windows in which any life of this node may have voted or granted; and as the others, where they have chosen and
    // their clocks are near.
    next_->leaves = later(standing_.lives_clock(), look_ahead_ + kAnnounced);
    const WallTime most = later(next_->leaves, kAdopted);
    for (const uint16_t rank : roster_.ranks(Which::previous))
      if (!gone_[rank] && left_[rank].from <= most) next_->leaves = std::max(next_->leaves, left_[rank].from);
  }
  Left& own = left_[self_];
  if (!own.buckets && own.from != WallTime::max() && standing_.lives_clock() >= own.from) {
    own.buckets = turned_ = true;
    look_at_others(now);
  }
}

std::optional<Tenure> Succession::to_keep() const { return next_; }

void Succession::kept(const Tenure& tenure, Now now) {
  if (!next_ || tenure != *next_) return;
  tenure_ = tenure;
  next_.reset();
  if (!roster_.has_previous()) return;
  left_[self_].from = std::min(left_[self_].from, tenure_.leaves);
  look_at_others(now);
}

}  // namespace tally
