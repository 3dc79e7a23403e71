#include "cluster/peers.h"

#include <algorithm>

namespace tally {

namespace {

constexpr uint64_t kRoundTripMaxNs = 60'000'000'000;                // longer is a mistake, not a network
constexpr Duration kPatienceMin = std::chrono::milliseconds(150);
constexpr uint32_t kQuestionsMin = 3;  // one or two are lost now and then
// Who is heard lives, so it is waited for longer before it is taken for one that hears nothing: both ways have to work at some time.
constexpr int kUnheardPatience = 4;
constexpr Duration kProbesApart = std::chrono::milliseconds(10);
constexpr Duration kProbePatienceMin = std::chrono::milliseconds(40);
constexpr Duration kMeasuredLately = std::chrono::seconds(2);  // ways change
constexpr Duration kGuestKept = std::chrono::minutes(1);  // its rank, though it is silent
constexpr size_t kGossipReach = 40;  // nodes that all hear of each other within a second
constexpr int64_t kSkewMaxNs = int64_t{366} * 86'400'000'000'000;  // shown at most

void remember(Peer& peer, uint64_t incarnation) {
  if (incarnation > peer.remembered) {
    peer.before = peer.remembered;
    peer.remembered = incarnation;
  } else if (incarnation < peer.remembered) {
    peer.before = std::max(peer.before, incarnation);
  }
}

// An echo of something that was late, or said again to a life that had heard nothing newer, looks like a long way: seven
// seconds that were taken for the first measurement kept a node from leasing anything for ten (windows of a second, 60 ms).
// So few of them shall move the estimate little, however long they are.
void measure(Peer& peer, Duration sample, MonoTime now) {
  if (now - peer.measured > kMeasuredLately) {
    peer.round_trips.fill(Duration(0));
    peer.round_trip = Duration(0);
  }
  peer.measured = now;
  peer.round_trips[peer.next_round_trip] = std::max(sample, Duration(1));
  peer.next_round_trip = static_cast<uint8_t>((peer.next_round_trip + 1u) % peer.round_trips.size());
  auto latest = peer.round_trips;
  std::ranges::sort(latest);
  const auto first = std::ranges::upper_bound(latest, Duration(0));
  const Duration median = *(first + (latest.end() - first - 1) / 2);  // of an even number the smaller
  const Duration smoothed = peer.round_trip == Duration(0) ? median : (peer.round_trip * 7 + sample) / 8;
  peer.round_trip = std::clamp(smoothed, median / 2, median * 2);
}

}  // namespace

Duration up_within(Duration sync_interval) {
  return std::max<Duration>(std::chrono::seconds(1), sync_interval * 5);
}

Peers::Peers(const Roster& roster, uint16_t self, std::optional<NodeId> guest, Duration sync_interval)
    : peers_(roster.count() + (guest ? 1 : 0)), listed_(roster.count()), self_(self) {
  for (uint16_t rank = 0; rank < listed_; ++rank) peers_[rank].id = roster.id(rank);
  if (guest) peers_[self].id = *guest;
  use(sync_interval);
}

void Peers::use(Duration sync_interval) {
  up_within_ = up_within(sync_interval) * static_cast<int64_t>(1 + listed_ / kGossipReach);
}

std::optional<uint16_t> Peers::guest(NodeId id) const {
  const auto found = guests_.find(id);
  if (found == guests_.end()) return std::nullopt;
  return found->second;
}

std::optional<uint16_t> Peers::welcome(NodeId id, size_t at_most, MonoTime now) {
  uint16_t rank = static_cast<uint16_t>(listed_);
  while (rank < peers_.size() && (rank == self_ || now - peers_[rank].heard < kGuestKept)) ++rank;
  if (rank == peers_.size()) {
    if (rank >= listed_ + at_most) return std::nullopt;
    peers_.emplace_back();
  }
  guests_.erase(peers_[rank].id);
  peers_[rank] = Peer{};
  peers_[rank].id = id;
  guests_.emplace(id, rank);
  return rank;
}

std::vector<uint16_t> Peers::guests_up(MonoTime now) const {
  std::vector<uint16_t> all;
  for (size_t rank = listed_; rank < peers_.size(); ++rank)
    if (rank != self_ && up(static_cast<uint16_t>(rank), now)) all.push_back(static_cast<uint16_t>(rank));
  return all;
}

Peers::Heard Peers::hear(uint16_t rank, const Header& header, Now now) {
  Peer& peer = peers_[rank];
  if (header.incarnation < peer.incarnation)
    return sent_after(header, now.mono) > peer.life_heard ? Heard::clone : Heard::older_life;
  if (header.incarnation > peer.incarnation) {
    Peer fresh;
    fresh.id = peer.id;
    fresh.incarnation = header.incarnation;
    fresh.remembered = peer.remembered;
    fresh.before = peer.before;
    remember(fresh, header.incarnation);
    fresh.life_heard = now.mono;
    fresh.bytes_in = peer.bytes_in;
    fresh.bytes_out = peer.bytes_out;
    fresh.sequence_out = peer.sequence_out;  // ours to count: it belongs to this node's life, not to the peer's
    peer = fresh;
  }
  // Old sequence numbers are only late, and late entries are harmless (all numbers are cumulative); the same number twice
  // in a row is a duplicate, which is harmless too. Both still prove that the peer lives, but carry no newer clock.
  const bool newest = header.sequence > peer.sequence_in;
  if (!peer.taken.has(header.sequence)) peer.loss.heard(header.sequence);
  peer.taken.add(header.sequence);
  peer.heard = now.mono;
  peer.heard_of = now.mono;
  peer.asked = peer.probed = MonoTime{};
  peer.questions = peer.probes = 0;
  if (sent_after(header, now.mono) >= peer.unheard) {
    peer.unheard = MonoTime{};
    peer.unheard_questions = 0;
  }
  if (!newest) return Heard::replayed;
  peer.sequence_in = header.sequence;
  peer.roster_version = header.roster_version;
  peer.echo_mono_ns = header.sent_mono_ns;
  peer.echo_at = now.mono;
  const auto own_clock = static_cast<uint64_t>(nanos(now.mono));
  if (header.echo_mono_ns != 0 && header.echo_mono_ns <= own_clock) {
    const uint64_t elapsed = own_clock - header.echo_mono_ns;
    if (header.echo_held_ns <= elapsed && elapsed - header.echo_held_ns < kRoundTripMaxNs) {
      measure(peer, Duration(static_cast<int64_t>(elapsed - header.echo_held_ns)), now.mono);
    }
  }
  int64_t ahead = 0;  // a hostile wall clock must not overflow
  if (__builtin_sub_overflow(header.sent_wall_ns, nanos(now.wall), &ahead)) return Heard::fine;
  peer.clock_skew = Duration(std::clamp(ahead, -kSkewMaxNs, kSkewMaxNs)) + peer.round_trip / 2;
  return Heard::fine;
}

void Peers::hear_of(uint16_t rank, uint64_t incarnation, MonoTime at, MonoTime asked) {
  Peer& peer = peers_[rank];
  if (incarnation < peer.incarnation) return;
  remember(peer, incarnation);
  peer.heard_of = std::max(peer.heard_of, at);
  const bool known = peer.asked_by_other > peer.heard_of;
  if (asked != MonoTime{} && (!known || asked < peer.asked_by_other)) peer.asked_by_other = asked;
}

MonoTime Peers::sent_after(const Header& header, MonoTime now) {
  const MonoTime echo(Duration(static_cast<int64_t>(std::min<uint64_t>(header.echo_mono_ns, INT64_MAX))));
  return echo <= now ? echo : MonoTime{};  // ahead: an echo of a clock that has begun anew since
}

void Peers::stamp(uint16_t rank, Header& header, Now now) {
  Peer& peer = peers_[rank];
  header.sequence = ++peer.sequence_out;
  header.sent_mono_ns = static_cast<uint64_t>(nanos(now.mono));
  header.sent_wall_ns = nanos(now.wall);
  header.echo_mono_ns = peer.echo_mono_ns;
  header.echo_held_ns = peer.echo_mono_ns == 0 ? 0 : static_cast<uint64_t>(nanos(now.mono - peer.echo_at));
}

bool Peers::up(uint16_t rank, MonoTime now) const {
  if (rank == self_) return true;
  const Peer& peer = peers_[rank];
  return peer.remembered != 0 && now - peer.heard_of <= up_within_;
}

void Peers::asked(uint16_t rank, MonoTime now) {
  if (peers_[rank].asked == MonoTime{}) peers_[rank].asked = now;
  ++peers_[rank].questions;
  if (peers_[rank].unheard == MonoTime{}) peers_[rank].unheard = now;
  ++peers_[rank].unheard_questions;
}

Duration Peers::patience(uint16_t rank) const { return std::max(round_trip(rank) * 3, kPatienceMin); }

bool Peers::asked_in_vain(uint16_t rank) const { return peers_[rank].questions >= kQuestionsMin; }

bool Peers::silent(uint16_t rank, MonoTime now) const {
  if (rank == self_) return false;
  const Peer& peer = peers_[rank];
  if (asked_in_vain(rank) && now - peer.asked >= patience(rank)) return true;
  if (peer.unheard_questions >= kQuestionsMin && now - peer.unheard >= patience(rank) * kUnheardPatience) return true;
  return peer.asked_by_other > peer.heard_of && now - peer.asked_by_other >= patience(rank);
}

bool Peers::heard_just_now(uint16_t rank, MonoTime now) const {
  return peers_[rank].incarnation != 0 && now - peers_[rank].heard <= std::max(round_trip(rank) * 3, kProbePatienceMin);
}

bool Peers::probe_due(uint16_t rank, MonoTime now) {
  Peer& peer = peers_[rank];
  if (peer.probes > 0 && now - peer.probed_last < kProbesApart) return false;
  if (peer.probes++ == 0) peer.probed = now;
  peer.probed_last = now;
  return true;
}

bool Peers::probes_failed(uint16_t rank, MonoTime now) const {
  const Peer& peer = peers_[rank];
  return peer.probes >= kQuestionsMin && now - peer.probed >= std::max(round_trip(rank) * 3, kProbePatienceMin);
}

Duration Peers::round_trip(uint16_t rank) const {
  if (rank == self_) return Duration(0);
  return peers_[rank].round_trip == Duration(0) ? kRoundTripAssumed : peers_[rank].round_trip;
}

Duration Peers::round_trip_lately(uint16_t rank, MonoTime now) const {
  return rank == self_ || now - peers_[rank].measured <= kMeasuredLately ? round_trip(rank) : kRoundTripAssumed;
}

Duration Peers::group_round_trip(const Group& group) const {
  Duration nearest = Duration::max();
  for (size_t i = 0; i < group.size; ++i)
    if (group.rank[i] != self_) nearest = std::min(nearest, round_trip(group.rank[i]));
  return nearest == Duration::max() ? Duration(0) : nearest;
}

bool Peers::majority_heard(const Group& group, MonoTime now, Duration within) const {
  size_t heard = 0;
  for (size_t i = 0; i < group.size; ++i) {
    const uint16_t rank = group.rank[i];
    if (rank == self_ || (peers_[rank].remembered != 0 && now - peers_[rank].heard_of <= within)) ++heard;
  }
  return heard >= group.majority();
}

}  // namespace tally
