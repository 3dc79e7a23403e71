// Of the lessee: what comes in (grants, resets), what goes back (returns, refunds), and what happens when
// nothing comes (isolation).
#include <algorithm>
#include <cmath>

#include "cluster/lessee.h"
#include "core/windows.h"

namespace tally {

namespace {

constexpr uint64_t kGrantedMax = UINT32_MAX;                // windows: a cell's range
constexpr uint64_t kLeasedMax = (uint64_t{1} << 56) - 1;    // buckets: a lease cell's range
constexpr uint32_t kHeadroomParts = 4;            // of what is left, a node may keep one part in this many times the nodes
constexpr Duration kTimeMax = kBurstSpanMax * 2;           // no honest time is longer
constexpr uint16_t kShareWhole = 65535;
constexpr uint8_t kRefusalsAtOnce = 2;  // nodes that name each other are not asked in circles
constexpr Duration kTakingTime = std::chrono::milliseconds(2);  // from waking to having taken, generously

}  // namespace

// ---- grants -----------------------------------------------------------------------------------------------------------

void Lessee::on_grant(const Grant& grant, const Origin& origin, Now now) {
  Account* account = accounts_.find(grant.key);
  if (account == nullptr) return;
  if (!account->groups.contains(origin.rank) || (!grant.refused && grant.ballot.node != around_.roster.id(origin.rank))) {
    ++dropped_["not_owner"];
    return;
  }
  if (grant.line != account->line || grant.incarnation != around_.incarnation) return;  // an older line's, or life's
  if (std::max({grant.ask_again, grant.tat_ahead, grant.lease_for}) > kTimeMax) return;  // from no node of ours
  // Numbers that only grow count whenever they come; the rest of a grant tells how it was when it was sent.
  const bool in_order = account->heard_from.before(origin);
  if (in_order) account->heard_from = origin;
  if (grant.refused) {  // by a member without books, which tells of no reset: who has them does not hang on that
    if (in_order) be_refused(*account, grant, now);
    return;
  }
  // What was said before a reset was heard of is no news after it.
  const bool newest = in_order && grant.reset >= account->reset;
  account->refusals = 0;
  account->highest = Ballot{};
  account->heard_at = now.mono;
  if (grant.reset > account->reset) on_reset(grant.key, grant.reset, now);
  if (grant.backed) {
    account->unanswered_since = MonoTime{};
    account->choose_first();
    if (account->isolated) {
      end_isolation(*account, look(*account, now));
      tell_workers(*account, now);  // whatever else becomes of the grant
    }
  }
  if (account->bucket())
    grant_lease(*account, grant, origin.rank, newest, look(*account, now));
  else
    grant_window(*account, grant, newest, look(*account, now));
}

// Whoever was asked has no books of the key.
void Lessee::be_refused(Account& account, const Grant& grant, Now now) {
  if (account.bucket())
    account.lease.ask = grant.ask;
  else if (grant.window == window_now(account, now))
    window_account(account, grant.window).ask = grant.ask;
  if (account.refused_in != grant.window) account.highest = Ballot{};
  account.refused_in = grant.window;
  if (grant.ballot > account.highest) account.refusals = 0;  // somebody has claimed it since
  account.highest = std::max(account.highest, grant.ballot);
  account.ask_not_before = now.mono + grant.ask_again;
  // Passed over here, and yet named: it may be this node that was cut off. So it is asked whether it lives, before others are told to take over.
  if (const auto named = around_.roster.rank_of(account.highest.node);
      named && *named != around_.self && around_.peers.silent(*named, now.mono) && around_.peers.probe_due(*named, now.mono))
    around_.mail.send(*named, Hello{});
  account.refusals = static_cast<uint8_t>(std::min(account.refusals + 1, 255));
  if (grant.ask == 0) return;
  if (account.refusals > kRefusalsAtOnce) account.ask_not_before = now.mono + around_.pace.sync_interval;
  if (account.refusals > kRefusalsAtOnce) return;
  account.choice = 0;  // whoever has them is asked at once
  account.answered = true;
  make_urgent(account);
}

// What the newest grant tells of the key.
void Lessee::learn(Account& account, const Grant& grant, Now now) {
  account.pool = grant.pool;
  if (grant.demand_share != 0 && grant.backed) account.share = grant.demand_share;
  const bool unsure = !unsure_until_.empty() && unsure_until_.contains(account.id);
  account.ask_not_before = now.mono + (unsure ? std::min(grant.ask_again, around_.pace.sync_interval) : grant.ask_again);
  account.exhausted_until = grant.exhausted && !unsure ? account.ask_not_before : MonoTime{};

  const Told told = account.told;
  if (told.stamp == 0 || grant.stamp < told.stamp || grant.window != told.window || grant.ballot != told.ballot) return;
  account.told = Told{};
  account.changes_known = told.changes;
  if (account.bucket()) {
    account.lease.given_known = told.given;
  } else {
    WindowAccount& w = window_account(account, grant.window);
    w.refunded_known = told.refunded;
    w.given_known = told.given;
  }
}

void Lessee::grant_window(Account& account, const Grant& grant, bool newest, Look at) {
  if (grant.window < at.running - 1 || grant.window > at.running + 1) return;
  if (grant.window < at.running) {
    WindowAccount& past = account.windows[static_cast<size_t>(grant.window & 1)];
    if (past.window == grant.window && past.finals > 0) past.final_heard = true;
    return;
  }
  WindowAccount& w = window_account(account, grant.window);
  if (w.window != grant.window) return;
  if (w.has_ballot && grant.ballot < w.ballot) return;  // a deposed owner's
  if (!w.has_ballot || grant.ballot > w.ballot) {
    w.ask = 0;
    w.granted_before += w.granted;
    w.granted = w.returned = w.given = w.given_known = 0;
    w.ballot = grant.ballot;
    w.has_ballot = true;
    at = look(account, at);
  }
  if (grant.granted > w.granted) account.answered = true;
  w.granted = std::max(w.granted, std::min(grant.granted, kGrantedMax));
  raise(account, w);
  if (grant.window != at.running) {  // ahead: nothing of it is known yet
    account.tell_ahead = false;
    return;
  }

  Quota q = quota(account, at);
  if (newest) {
    learn(account, grant, at);
    w.used_fleet = grant.used_fleet;
    if (grant.stop) give_back(account, 0, at);
    if (grant.stamp == 0) give_back_idle(account, true, q, at);  // unasked: the owner looks for what is not used
    if (grant.stop || grant.stamp == 0) q = quota(account, at);
  }
  tell_workers(account, q, at);
  set_ask_mark(account, q, at);
  if (w.returned != w.returned_reported) send_report(account, q, at);
}

void Lessee::begin_lease(LeaseAccount& lease, uint64_t granted) {
  lease.serial = ++leases_;
  lease.granted = granted;
  lease.returned = lease.held = lease.refunded = 0;
}

void Lessee::grant_lease(Account& account, const Grant& grant, uint16_t from, bool newest, Look at) {
  LeaseAccount& lease = account.lease;
  const bool ended = !lease_runs(account, at);
  // A deposed owner's ballot binds only while its lease, or a newer one, runs: else a dead claimant would be followed for ever.
  if (lease.has_ballot && grant.ballot < lease.ballot && !ended) return;
  if (!lease.has_ballot || grant.ballot != lease.ballot) {
    lease.ask = 0;
    lease.ballot = grant.ballot;
    lease.has_ballot = true;
    lease.lease = 0;
    begin_lease(lease, 0);
    lease.given = lease.given_known = 0;
    at = look(account, at);
  }
  if (newest) {
    learn(account, grant, at);
    lease.tat_ahead = grant.tat_ahead;
  }

  // The lease counts from the sending of the report that was answered, by this node's own clock.
  const bool counted = grant.stamp != 0 && grant.stamp <= static_cast<uint64_t>(nanos(at.mono)) &&
                       grant.lease_for > Duration(0) && grant.lease_for <= kBurstSpanMax;
  if (grant.lease != 0 && counted && grant.granted <= kLeasedMax) {
    const MonoTime end = MonoTime(Duration(static_cast<int64_t>(grant.stamp))) + grant.lease_for;
    uint64_t& opened = lease.opened[account.groups.place_of(from)];
    if (grant.lease > opened || (grant.lease == lease.lease && grant.granted > lease.granted)) account.answered = true;
    if (grant.lease > opened) {
      opened = grant.lease;
      ++lease.tag;
      lease.lease = grant.lease;
      lease.alone = false;
      begin_lease(lease, grant.granted);
      lease.end = end;
      limiter_.slots().open_lease(account.slot, lease.tag, lease.ceiling(), end);
      account.count_seen = 0;
      account.seen_in = lease.tag;
    } else if (grant.lease == lease.lease && !lease.alone) {
      lease.granted = std::max(lease.granted, grant.granted);
      lease.end = std::max(lease.end, end);
      limiter_.slots().raise_lease(account.slot, lease.tag, lease.ceiling(), lease.end);
    }
  }
  Quota q = quota(account, at);
  tell_workers(account, q, at);
  set_ask_mark(account, q, at);
}

void Lessee::tell_workers(Account& account, Now now) {
  const Look at = look(account, now);
  tell_workers(account, quota(account, at), at);
}

// Puts what is known where workers see it, and wakes those who wait where they may have an answer now.
void Lessee::tell_workers(Account& account, const Quota& q, const Look& at) {
  Knowledge knowledge;
  knowledge.exhausted_until = at.mono < account.exhausted_until ? account.exhausted_until : MonoTime{};
  knowledge.isolated = account.isolated;
  if (account.heard_at != MonoTime{}) knowledge.heard = heard_tick(account.heard_at);
  if (account.bucket()) {
    knowledge.tat = account.heard_at + account.lease.tat_ahead;
  } else {
    const WindowAccount& w = window_account(account, at.running);
    knowledge.window = static_cast<uint32_t>(w.window);
    // Below 0 where this node returned more than others used: its count has what it returned.
    const auto elsewhere = static_cast<int64_t>(std::min(minus(w.used_fleet, minus(w.used_reported, w.refunded)), kGrantedMax));
    const auto taken = static_cast<int64_t>(std::min(w.taken + w.refunded, kGrantedMax));
    knowledge.elsewhere = static_cast<int32_t>(std::clamp<int64_t>(elsewhere - taken, INT32_MIN, INT32_MAX));
  }
  limiter_.slots().set_knowledge(account.slot, knowledge);
  if (account.waiting == 0) return;
  if (account.isolated || knowledge.exhausted_until != MonoTime{}) {
    wakes_.push_back({account.hash});  // to be refused
    account.waiting = account.waiting_min = 0;
    return;
  }
  const uint64_t earlier = promised_left(account, q, at);
  const uint64_t available = minus(q.unspent(), earlier);
  if (available < account.waiting_min) return;
  wakes_.push_back({account.hash});
  // What they take is theirs until they had the time to; what is then still missing goes on waiting.
  const uint64_t promised = std::min(account.waiting, available);
  account.promised = earlier + promised;
  account.promised_at = q.count;
  account.promised_until = at.mono + kTakingTime;
  account.waiting -= promised;
  account.waiting_young = std::min(account.waiting_young, account.waiting);  // the oldest first
  if (account.waiting == 0) account.waiting_min = 0;
  account.denied = minus(account.denied, promised);  // it will be counted as admitted
  if (account.pool_low()) {
    account.tell_used = true;
    make_urgent(account);
  }
}

// ---- returns -----------------------------------------------------------------------------------------------------------

// What the cluster thread itself added to a count is nobody's demand, and was taken by none of those who were woken.
void Lessee::no_demand(Account& account, uint64_t amount, const Look& at) {
  if (account.seen_in != running_in(account, at)) account.count_seen = 0;
  account.seen_in = running_in(account, at);
  account.count_seen += amount;
  account.promised_at += amount;
}

void Lessee::give_back(Account& account, uint64_t leave, const Look& at) {
  if (account.bucket()) {
    if (!lease_runs(account, at) || account.lease.alone) return;  // its own lease is nobody's to take back
    const int64_t back = limiter_.slots().take_back_lease(account.slot, account.lease.tag, static_cast<int64_t>(leave));
    account.lease.returned += static_cast<uint64_t>(std::max<int64_t>(0, back));
    no_demand(account, static_cast<uint64_t>(std::max<int64_t>(0, back)), at);
    return;
  }
  WindowAccount& w = window_account(account, at.running);
  if (!w.has_ballot) return;
  no_demand(account, take_back(account, w, leave), at);
}

// A return is a take: raises the count, so that `leave` at most stays unspent. What the isolation policy added was issued by
// nobody, so it is only taken.
uint32_t Lessee::take_back(Account& account, WindowAccount& w, uint64_t leave) {
  const uint64_t ceiling = ceiling_of(account, w);
  if (ceiling > kGrantedMax) return 0;
  const uint32_t back = limiter_.slots().take_back(account.slot, static_cast<uint32_t>(w.window), static_cast<uint32_t>(ceiling),
                                                   static_cast<uint32_t>(std::min<uint64_t>(leave, ceiling)),
                                                   window_end(w.window, account.limit.window));
  w.taken += back;
  if (w.has_ballot) w.returned += minus(back, account.isolated ? w.isolated : 0);
  return back;
}

// When the pool is low, what will not be used goes back. `recalled`: others wait for it now, so that only what is about to
// be used is kept.
bool Lessee::give_back_idle(Account& account, bool recalled, Quota& q, const Look& at) {
  if (!account.pool_low() || account.isolated) return false;
  // Otherwise all is kept that the next report would ask for, or the owner would give as headroom: returning it would only
  // fetch it again.
  const Duration soon = at.trip + std::chrono::milliseconds(1);
  uint64_t keep = expected(account, q.count, soon, at) + account.waiting + promised_left(account, q, at);
  if (!recalled) {
    keep = std::max(wanted(account, q, at) - q.count, left_known(account) / (kHeadroomParts * around_.roster.size()));
    // Nor the last request's worth of a window at a node that asks again and again: the token for a request that was refused
    // because nobody waits would go back before the next one comes, and be asked for again.
    if (!account.bucket() && account.offered >= 2 * account.cost_seen) keep = std::max(keep, account.cost_seen);
  }
  if (q.unspent() <= keep) return false;
  give_back(account, keep, at);
  return true;
}

void Lessee::leave(Now now) {
  leaving_ = true;
  accounts_.for_each([&](const WireId&, Account& account) {
    account.waiting = 0;
    const Look at = look(account, now);
    give_back(account, 0, at);
    send_final(account, at);
    if (account.bucket() ? account.lease.open() : window_account(account, at.running).contacted) send_report(account, now);
  });
}

// ---- refunds and resets -------------------------------------------------------------------------------------------------

uint64_t Lessee::give(const WireId& key, uint64_t amount, Now now, std::optional<int64_t> only_in) {
  Account* account = accounts_.find(key);
  if (account == nullptr || (only_in && *only_in != window_now(*account, now))) return 0;
  activate(*account);
  account->busy_at = now.mono;
  if (account->bucket()) {
    LeaseAccount& lease = account->lease;
    if (!lease.has_ballot) return 0;
    // What the bucket owes, as the owner told: less what is leased to this node and unspent, and what is on its way back.
    const uint64_t unit = amount_of(account->limit, 1);
    const uint64_t ahead = static_cast<uint64_t>(std::max<int64_t>(0, nanos(lease.tat_ahead - (now.mono - account->heard_at))));
    const uint64_t owed = minus(ahead, quota(*account, look(*account, now)).unspent() + lease.held + (lease.given - lease.given_known));
    const uint64_t back = std::min(amount, owed / unit);
    // An owner that has forgotten the account counts from what it is told first.
    if (back > 0 && now.mono - account->heard_at > around_.recent()) send_report(*account, now);
    lease.given += back * unit;
    ++account->changes;
    return back;
  }
  WindowAccount& w = window_account(*account, window_now(*account, now));
  const uint64_t used = minus(count_of(*account, w), w.taken + w.refunded);
  const uint64_t room = minus(kGrantedMax, ceiling_of(*account, w));
  const uint64_t here = std::min({amount, used, room});
  w.refunded += here;
  raise(*account, w);
  // The rest was used at other nodes: the owner takes it into its books, never above what it knows of.
  uint64_t there = 0;
  if (w.has_ballot) {
    const uint64_t elsewhere = minus(w.used_fleet, minus(w.used_reported, w.refunded_known) + (w.given - w.given_known));
    there = std::min(amount - here, elsewhere);
    w.given += there;
  }
  account->exhausted_until = account->ask_not_before = MonoTime{};
  ++account->changes;
  tell_workers(*account, now);
  return here + there;
}

void Lessee::refund_all(Account& account, WindowAccount& w) {
  if (w.window < 0) return;
  const uint64_t used = minus(count_of(account, w), w.taken + w.refunded);
  w.refunded += std::min(used, minus(kGrantedMax, ceiling_of(account, w)));
  raise(account, w);
  account.finals_over_in = -1;
  w.finals = 0;  // the owner has to hear of it where that window is over
  w.final_heard = false;
}

bool Lessee::on_reset(const WireId& key, uint64_t number, Now now) {
  Account* account = accounts_.find(key);
  if (account == nullptr) return false;
  if (account->reset >= number || !around_.plausible_reset(number, now)) return true;
  account->reset = number;
  // What a region has drawn its hosts may have spent: a reset of the level above is none of theirs.
  if (around_.region || !account->resets_it(number)) return true;
  account->busy_at = now.mono;
  ++account->changes;
  account->exhausted_until = account->ask_not_before = MonoTime{};
  activate(*account);
  if (!account->bucket()) {
    const int64_t running = window_now(*account, now);
    for (WindowAccount& w : account->windows)
      if (w.window >= running - 1) refund_all(*account, w);
    // What was granted is not spent once more: where others had given back of what was used, all lines together were granted more than the
    // limit. A floor is.
    WindowAccount& w = window_account(*account, running);
    take_back(*account, w, floor_of_window(*account, w));
  }
  tell_workers(*account, now);
  return true;
}

uint64_t Lessee::reset_of(const WireId& key) const {
  const Account* const account = accounts_.find(key);
  return account == nullptr ? 0 : account->reset;
}

uint64_t Lessee::reset_taken(const WireId& key) const {
  const Account* const account = accounts_.find(key);
  return account == nullptr || !account->resets_it(account->reset) ? 0 : account->reset;
}

// ---- isolation ----------------------------------------------------------------------------------------------------------

bool Lessee::group_lost(const Account& account, const Look& at) const {
  if (!around_.standing.over() || at.mono - started_ < around_.pace.isolation_after) return false;
  const Group& group = *at.group;
  if (books_.heard && group.rank[0] == books_.rank) return at.mono - books_.heard(account.id) > around_.pace.isolation_after;
  if (group.contains(around_.self)) return !around_.peers.majority_heard(group, at.mono, around_.pace.isolation_after);
  // One that is heard and speaks of no other cannot grant either: who asks each in turn would wait as long for each.
  size_t heard = 0;
  for (size_t i = 0; i < group.size; ++i) heard += at.mono - around_.peers[group.rank[i]].heard_of <= around_.pace.isolation_after ? 1 : 0;
  return heard < group.majority();
}

double Lessee::isolated_share(const Account& account) const {
  switch (account.rule->on_isolation) {
    case OnIsolation::closed: return 0;
    case OnIsolation::open: return 1;
    case OnIsolation::share: break;
  }
  if (account.share != 0) return static_cast<double>(account.share) / kShareWhole;
  return 1.0 / static_cast<double>(std::max<uint32_t>(1, around_.roster.size()));
}

void Lessee::check_isolation(Account& account, const Look& at) {
  const bool unanswered =
      account.unanswered_since != MonoTime{} && at.mono - account.unanswered_since >= around_.pace.isolation_after;
  const bool wants = account.waiting != 0 || account.unanswered_since != MonoTime{};
  if (!account.isolated && !(wants && (unanswered || group_lost(account, at)))) return;
  account.isolated = true;
  if (!account.bucket()) {
    WindowAccount& w = window_account(account, at.running);
    const auto extra = static_cast<uint64_t>(account.limit.limit * isolated_share(account));
    // `open` and `share` are a limit of their own, not one on top of what was granted in this window.
    const uint64_t target = minus(extra, w.granted_before + w.granted);
    if (target > w.isolated) {
      w.isolated = target;
      raise(account, w);
    }
  }
  tell_workers(account, quota(account, at), at);
}

// A bucket keeps one of its own while isolated: S long, at its share of the rate, leased to itself.
void Lessee::serve_alone(Account& account, const Look& at) {
  if (!account.bucket()) return;
  const double share = isolated_share(account);
  if (share <= 0) return;
  LeaseAccount& lease = account.lease;
  Quota q = quota(account, at);
  const uint64_t held = lease.alone && lease_runs(account, at) ? q.unspent() : 0;
  const auto scaled = [&](uint64_t amount) { return Duration(static_cast<int64_t>(static_cast<double>(amount) / share)); };
  lease.alone_tat = std::max(lease.alone_tat, at.mono + scaled(held));
  const Duration room = account.limit.burst_span() - (lease.alone_tat - at.mono);
  const uint64_t unit = amount_of(account.limit, 1);
  auto amount = static_cast<uint64_t>(std::max(0.0, static_cast<double>(nanos(room)) * share));
  amount = std::min(amount, minus(wanted(account, q, at), q.ceiling));
  amount -= amount % unit;
  if (amount == 0) return;
  lease.alone_tat += scaled(amount);
  if (!lease.alone || !lease_runs(account, at)) {
    ++lease.tag;
    lease.alone = true;
    begin_lease(lease, held);
    limiter_.slots().open_lease(account.slot, lease.tag, lease.ceiling(), at.mono + around_.lease);
  }
  lease.granted += amount;
  lease.end = at.mono + around_.lease;
  limiter_.slots().raise_lease(account.slot, lease.tag, lease.ceiling(), lease.end);
  tell_workers(account, quota(account, at), at);
}

void Lessee::end_isolation(Account& account, const Look& at) {
  account.isolated = false;
  if (account.bucket()) return;  // a lease of its own ends by itself, or with the owner's next
  // What the policy added and nobody spent is taken out of circulation, not returned: no owner ever issued it.
  WindowAccount& w = window_account(account, at.running);
  const Quota q = quota(account, at);
  const uint64_t burn = std::min(w.isolated, q.unspent());
  if (burn == 0 || q.ceiling > kGrantedMax) return;
  const uint32_t taken = limiter_.slots().take_back(
      account.slot, static_cast<uint32_t>(w.window), static_cast<uint32_t>(q.ceiling),
      static_cast<uint32_t>(q.unspent() - burn), window_end(w.window, account.limit.window));
  w.taken += taken;
  no_demand(account, taken, at);
}

}  // namespace tally
