// What a node is asked by those who run it, or by an application that is not about a decision.
#include <algorithm>

#include "cluster/node_impl.h"
#include "core/windows.h"

namespace tally {

Node::Past Node::past_of(const Report& report, Now now) const {
  const Impl& i = *impl_;
  const Groups groups = i.roster.groups(report.key);
  const Terms& terms = report.terms;
  Past past;
  if (const auto found = i.ordered.find(report.key); found != i.ordered.end()) {
    // Written by a number that its account has left since, as an order came or ended: to books it would be everybody's. It comes anew.
    if (!i.lessee.goes_by(report.key, terms.limit)) {
      past.takes_part = false;
      return past;
    }
    const Impl::Ordered& order = found->second;
    if (order.holds || now.wall < order.until) {  // else none that it had replaced may come late any more
      past.order = order.number;
      past.order_until = order.until;
    }
  }
  const bool bucket = terms.algorithm == Algorithm::token_bucket;
  past.takes_part = bucket ? i.succession.takes_part(groups, 0, Duration(0)) : i.succession.takes_part(groups, report.window, terms.window);
  if (!bucket) {
    past.knows_before = i.succession.same_before(groups, report.window, terms.window);
    const int64_t next = report.window + 1;
    past.takes_next = i.succession.takes_part(groups, next, terms.window) &&
                      i.succession.group(groups, next, terms.window) == i.succession.group(groups, report.window, terms.window);
    return past;
  }
  const MonoTime base = i.succession.bucket_base(groups, bucket_keep(terms.emission * static_cast<int64_t>(terms.limit), i.config.lease));
  past.charged = base > now.mono ? base - now.mono : Duration(0);
  return past;
}

void Node::tell_all(const std::function<bool(const WireId&)>& of) { impl_->lessee.tell_all(of); }

void Node::books_heard_by(uint16_t rank, std::function<MonoTime(const WireId&)> heard) { impl_->lessee.books_heard_by(rank, std::move(heard)); }

namespace {

// The account that a question is about may not exist yet where the key was only used under its floor.
void ensure_account(Lessee& lessee, Limiter& limiter, const Rule& rule, const Limit& limit, KeyHash hash, const WireId& id,
                    Now now) {
  const auto slot = limiter.slots().ref_of(hash);
  // DEL names a key without its limit: that must not become the limit of an account that has one.
  if (!slot || (limit.algorithm == Algorithm::token_bucket && limit.emission <= Duration(0))) return;
  Note note;
  note.rule = rule.id;
  note.slot = *slot;
  note.hash = hash;
  note.id = id;
  note.limit = limit;
  lessee.note(note, now);
}

}  // namespace

uint32_t Node::give(const Rule& rule, const Limit& limit, KeyHash hash, const WireId& id, uint32_t n, Now now,
                    std::optional<int64_t> only_in) {
  ensure_account(impl_->lessee, impl_->limiter, rule, limit, hash, id, now);
  return static_cast<uint32_t>(std::min<uint64_t>(n, impl_->lessee.give(id, n, now, only_in)));
}

std::optional<Lessee::RunningLease> Node::running_lease(const WireId& id, Now now) const { return impl_->lessee.running_lease(id, now); }

void Node::hold(const WireId& id, uint64_t amount) { impl_->lessee.hold(id, amount); }

void Node::spent(const WireId& id, uint64_t amount) { impl_->lessee.spent(id, amount); }

uint64_t Node::put_back(const WireId& id, uint64_t amount, Now now) { return impl_->lessee.put_back(id, amount, now); }

bool Node::reset(const Rule& rule, const Limit& limit, KeyHash hash, const WireId& id, Now now) {
  Impl& i = *impl_;
  ensure_account(i.lessee, i.limiter, rule, limit, hash, id, now);
  const bool known = i.lessee.view(id, now).has_value() || i.owner.view(id, now).has_value();
  const uint64_t last = std::max({i.resets.number_of(id), i.lessee.reset_of(id), i.owner.reset_of(id)});
  // Numbers from the wall clock: every node's next one is above all that any node gave, but for skew, and then the larger wins.
  const uint64_t number = std::max(last + 1, static_cast<uint64_t>(std::max<int64_t>(1, nanos(now.wall))));
  i.on_reset(id, number, now);
  for (const uint16_t rank : i.others) i.mail.send(rank, Reset{id, number});
  for (const uint16_t rank : i.peers.guests_up(now.mono)) i.mail.send(rank, Reset{id, number});
  return known;
}

bool Node::claim(const WireId& id, int64_t window, Now now) { return impl_->owner.claim(id, window, now); }

Node::KnownResets Node::known_resets(const WireId& id) const {
  return {impl_->lessee.reset_taken(id), impl_->owner.reset_taken(id)};
}

Explanation Node::explain(const Rule&, const Limit& limit, KeyHash hash, const WireId& id, Now now) const {
  const Impl& i = *impl_;
  Explanation e;
  if (alone()) {
    e.owner = i.config.self;
    e.role = "alone";
    e.group = {i.config.self};
    return e;
  }
  const Group group = i.roster.group(id);
  for (size_t m = 0; m < group.size; ++m) e.group.push_back(i.roster.entry(group.rank[m]));
  e.owner = e.group.front();
  e.role = i.is_self(group.rank[0]) ? "owner" : "lessee";
  e.floor = limit.algorithm == Algorithm::token_bucket ? limit.floor
                                                       : i.limiter.floor_in(limit, window_at(now.wall, limit.window));
  e.ceiling = e.floor;
  Ballot ballot;
  if (const auto view = i.lessee.view(id, now)) {
    e.used_here = view->used;
    e.used_fleet = view->used_fleet;
    e.ceiling = std::max(e.ceiling, view->ceiling);
    e.knowledge_age = view->knowledge_age;
    e.isolated = view->isolated;
    ballot = view->ballot;
  } else if (limit.algorithm != Algorithm::token_bucket) {
    if (const auto slot = i.limiter.slots().ref_of(hash))
      e.used_here = i.limiter.slots().count(*slot, static_cast<uint32_t>(window_at(now.wall, limit.window))).value_or(0);
  }
  if (const auto books = i.owner.view(id, now)) {
    e.used_fleet = std::max(e.used_fleet, books->used);
    e.mark = books->mark;
    ballot = std::max(ballot, books->ballot);
  }
  e.used_fleet = std::max(e.used_fleet, e.used_here);
  e.ballot_counter = ballot.counter;
  if (const auto rank = i.roster.rank_of(ballot.node)) e.ballot_node = i.roster.entry(*rank);
  return e;
}

PeerRole Node::Impl::role_of(uint16_t rank) const {
  if (peers.is_guest(rank)) return PeerRole::guest;
  if (config.owners.empty()) return PeerRole::peer;
  return roster.owns(Which::current, rank) ? PeerRole::aggregator : PeerRole::edge;
}

std::vector<PeerStatus> Node::peers(Now now) const {
  const Impl& i = *impl_;
  std::vector<PeerStatus> all;
  std::vector<uint16_t> ranks = i.others;
  ranks.push_back(i.peers.self());
  std::ranges::sort(ranks);
  std::ranges::copy(i.peers.guests_up(now.mono), std::back_inserter(ranks));
  for (const uint16_t rank : ranks) {
    const Peer& peer = i.peers[rank];
    PeerStatus status;
    status.rank = rank;
    status.role = i.role_of(rank);
    if (status.role != PeerRole::guest) status.name = i.roster.entry(rank);
    status.self = i.is_self(rank);
    status.up = i.peers.up(rank, now.mono);
    status.incarnation = status.self ? i.incarnation : peer.remembered;
    status.last_heard = status.self ? Duration(0) : peer.incarnation == 0 ? Duration(-1) : now.mono - peer.heard;
    status.round_trip = peer.round_trip;
    status.clock_skew = peer.clock_skew;
    status.rules_mismatch = peer.rules != 0 && i.rules_fingerprint != 0 && peer.rules != i.rules_fingerprint;
    status.roster_mismatch = peer.roster_mismatch;
    status.gone = i.succession.gone(rank);
    status.roster_version = status.self ? i.roster.version() : peer.roster_version;
    status.loss = peer.loss.ratio();
    status.bytes_in = peer.bytes_in;
    status.bytes_out = peer.bytes_out;
    all.push_back(std::move(status));
  }
  return all;
}

Memory Node::memory(Now now) const { return impl_->recovery.memory(impl_->registers, now); }

std::string Node::forget(const std::string& entry, Now now) {
  Impl& i = *impl_;
  const auto rank = alone() ? std::nullopt : i.roster.rank_of(entry);
  if (!rank) return "no node '" + entry + "' is in a list that this one goes by; TALLY.PEERS has them";
  if (i.is_self(*rank)) return "that is this node, which lives";
  if (i.peers.up(*rank, now.mono)) return "'" + entry + "' was heard just now: stop it, and make sure that it does not come back, first";
  i.succession.forget(*rank, now);
  i.take_turn(now);
  return "";
}

NodeStats Node::stats() const {
  const Impl& i = *impl_;
  NodeStats s;
  s.datagrams_in = i.datagrams_in;
  s.roster_version = i.roster.version();
  s.roster_settled = i.succession.settled();
  s.datagrams_out = i.mail.datagrams();
  std::copy_n(i.entries_in, kEntryKinds, s.entries_in);
  std::copy_n(i.mail.entries(), kEntryKinds, s.entries_out);
  s.dropped = i.dropped;
  for (const auto& [reason, n] : i.owner.dropped()) s.dropped[reason] += n;
  for (const auto& [reason, n] : i.lessee.dropped()) s.dropped[reason] += n;
  if (i.registers.refused_full() > 0) s.dropped["registers_full"] += i.registers.refused_full();
  if (i.registers.refused_no_vote() > 0) s.dropped["no_vote"] += i.registers.refused_no_vote();
  s.marks_accepted = i.owner.marks_accepted();
  s.marks_refused = i.owner.marks_refused();
  s.claims_started = i.owner.claims_started();
  s.claims_won = i.owner.claims_won();
  s.begun_anew = i.owner.begun_anew();
  s.claims_lost = i.owner.claims_lost();
  s.accounts = i.lessee.accounts();
  s.ledgers = i.owner.keys();
  s.registers = i.registers.size();
  s.overflow_cells = i.registers.overflow_cells();
  s.overflow_cells_max = i.config.overflow_cells_max;
  s.marks_overflowed = i.registers.overflowed();
  s.keys_without_majority = i.owner.keys_without_majority();
  s.denied_under_limit = i.owner.denied_under_limit();
  s.overcount_seen = i.owner.overcount_seen();
  return s;
}

}  // namespace tally
