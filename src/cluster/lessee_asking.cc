// What a lessee asks for, and whom: demand as measured, wants, reports.
#include <algorithm>

#include "cluster/lessee.h"
#include "core/windows.h"

namespace tally {

namespace {

constexpr uint8_t kRefusalsMax = 2;               // after so many, one that is named and silent is taken for lost
constexpr uint8_t kFinalsMax = 3;                 // a final report is repeated until it is heard, this often at most
constexpr uint64_t kNever = ~uint64_t{0};         // of an ask mark
// Steady demand is averaged over about this time, in sync intervals: enough of them that a single request stays far below one.
constexpr Duration kSteadyTime = std::chrono::milliseconds(800);
constexpr double kDemandMax = 1e15;  // as told, a second: so that its thousandths are whole numbers of 64 bits
// Told to a thousandth where it is small, above this to a tenth: the shares that are made of it need no more, and it is shorter so.
constexpr uint64_t kDemandFineMax = 8'192, kDemandCoarse = 100;  // in thousandths
constexpr double kSteadyIntervalsMin = 3, kSteadyIntervalsMax = 64;

}  // namespace

bool Lessee::lease_runs(const Account& account, Now now) const {
  return account.lease.open() && now.mono < account.lease.end;
}

Lessee::Quota Lessee::quota(Account& account, const Look& at) {
  if (!account.bucket()) {
    const WindowAccount& w = window_account(account, at.running);
    return {count_of(account, w), ceiling_of(account, w)};
  }
  const auto lease = limiter_.slots().lease(account.slot);
  if (!lease || !account.lease.open() || lease->tag != account.lease.tag) return {};
  const auto count = static_cast<uint64_t>(lease->count);
  return {count, lease_runs(account, at) ? static_cast<uint64_t>(lease->ceiling) : count};
}

// The demand of a burst: what was asked since the last tick, less one request. Counting the first request of an interval
// would strand tokens of small limits at nodes that want no more (strict 3 under nine single logins at nine nodes admitted 2).
double Lessee::demand_now(const Account& account, uint64_t count, const Look& at) const {
  const uint64_t seen = account.seen_in == running_in(account, at) ? account.count_seen : 0;
  const uint64_t offered = minus(count, seen) + account.denied;
  if (offered <= account.cost_seen) return 0;
  const Duration since = std::max(at.mono - account.measured_at, around_.pace.sync_interval);
  return static_cast<double>(offered - account.cost_seen) * 1e9 / static_cast<double>(nanos(since));
}

void Lessee::measure(Account& account, Quota& quota, const Look& at) {
  const uint64_t count = quota.count;
  const uint64_t seen = account.seen_in == running_in(account, at) ? account.count_seen : 0;
  const uint64_t offered = minus(count, seen) + account.denied;
  if (offered != 0) account.busy_at = at.mono;
  account.offered += offered;
  const double sample = demand_now(account, count, at);
  account.burst = sample >= account.burst ? sample : (account.burst + sample) / 2;
  if (account.burst * 8 < static_cast<double>(amount_of(account.limit, 1))) account.burst = 0;
  // Steady demand comes from many intervals, so that a node with less than one request an interval has a look-ahead too.
  const double intervals = std::clamp(static_cast<double>(nanos(kSteadyTime)) / static_cast<double>(nanos(around_.pace.sync_interval)),
                                      kSteadyIntervalsMin, kSteadyIntervalsMax);
  const auto since = static_cast<double>(nanos(std::max(at.mono - account.measured_at, around_.pace.sync_interval)));
  account.steady += (static_cast<double>(offered) * 1e9 / since - account.steady) / intervals;
  account.demand = std::max(account.burst, account.steady);
  account.count_seen = count;
  account.seen_in = running_in(account, at);
  account.denied = 0;
  account.measured_at = at.mono;
  quota.wanted.reset();
}

// What is expected to come in `within` that time, in whole requests, rounded down: a part of a request asks for nothing.
uint64_t Lessee::expected(const Account& account, uint64_t count, Duration within, const Look& at) const {
  const double demand = std::max(account.demand, demand_now(account, count, at));
  const uint64_t one = amount_of(account.limit, 1);
  const double most = static_cast<double>(amount_of(account.limit, account.limit.limit));
  return static_cast<uint64_t>(std::min(demand * static_cast<double>(nanos(within)) / 1e9, most) / static_cast<double>(one)) * one;
}

// What those who were woken have not taken yet. It is theirs: to be neither asked for again, nor promised twice, nor returned.
uint64_t Lessee::promised_left(const Account& account, const Quota& quota, Now now) const {
  if (now.mono >= account.promised_until) return 0;
  return minus(account.promised, minus(quota.count, account.promised_at));
}

// What is left of the fleet's limit, as the owner last told; L before it told anything.
uint64_t Lessee::left_known(const Account& account) const {
  return amount_of(account.limit, account.limit.limit) * account.pool / 255;
}

// One request's worth, held while there is one left for each node: a key with less than a request in each look-ahead would
// otherwise be refused every other time where nobody waits. Two where the owner is far, while there is plenty: one cannot
// cover a round trip. It costs no message, as the key's use is reported anyway. (docs/design.md has the figures.)
uint64_t Lessee::spare(const Account& account, Duration trip) const {
  if (account.offered < 2 * account.cost_seen) return 0;
  const uint64_t left_each = left_known(account) / (around_.roster.size() * amount_of(account.limit, 1));
  if (left_each >= 2 && around_.far(trip)) return 2 * account.cost_seen;
  return left_each >= 1 ? account.cost_seen : 0;
}

uint64_t Lessee::wanted(const Account& account, Quota& quota, const Look& at) const {
  if (leaving_) return quota.count;
  if (!quota.wanted) {
    const uint64_t ahead = std::max(expected(account, quota.count, around_.pace.sync_interval * 2 + at.trip, at), spare(account, at.trip));
    quota.wanted = quota.count + ahead + account.waiting + promised_left(account, quota, at);
  }
  return *quota.wanted;
}

bool Lessee::wants_report(Account& account, Quota& q, const Look& at) {
  if (!around_.can_lease(account.terms, around_.peers.round_trip_lately(at.owner, at.mono))) return false;
  if (account.isolated) return true;  // workers refuse without a note: only an answered report ends an isolation
  if (account.bucket()) {
    if (account.changed()) return true;
    const bool moves = q.count != account.count_seen || account.demand > 0 || account.lease.held > 0;
    if (lease_runs(account, at) && moves) return true;
    return at.mono >= account.ask_not_before && wanted(account, q, at) > q.ceiling;
  }
  const WindowAccount& w = window_account(account, at.running);
  const uint64_t used = minus(q.count, w.taken);
  // Unbounded: from half of an equal share on, so that the owner knows of all when all together near the limit.
  if (account.terms.max_overcount.unbounded && w.returned == 0)
    return used > account.limit.limit / (2 * around_.roster.size()) && used != w.used_reported;
  if (w.contacted && (account.changed() || used != w.used_reported || w.returned != w.returned_reported)) return true;
  if (at.mono < account.ask_not_before) return false;
  const uint64_t want = wanted(account, q, at);
  return want > floor_of_window(account, w) && want > q.ceiling;
}

void Lessee::send_report(Account& account, Now now) {
  const Look at = look(account, now);
  Quota q = quota(account, at);
  send_report(account, q, at);
}

void Lessee::send_report(Account& account, Quota& q, const Look& at) {
  if (!limiter_.slots().living(account.slot)) return;  // evicted: the owner goes on counting what this line had
  Report r;
  r.key = account.id;
  r.rule = static_cast<uint32_t>(account.rule->seed);
  r.terms = account.terms;
  r.line = account.line;
  r.ceiling = q.ceiling;
  r.wanted = at.mono < account.exhausted_until ? q.count : wanted(account, q, at);
  r.waiting = account.waiting;
  r.waiting_min = account.waiting_min;
  r.demand_milli = static_cast<uint64_t>(std::min(std::max(account.demand, demand_now(account, q.count, at)), kDemandMax) * 1000);
  if (r.demand_milli >= kDemandFineMax) r.demand_milli -= r.demand_milli % kDemandCoarse;
  r.reset = account.reset;
  r.stamp = static_cast<uint64_t>(nanos(at.mono));
  if (account.bucket()) {
    LeaseAccount& lease = account.lease;
    r.ballot = lease.ballot;
    r.has_ballot = lease.has_ballot;
    r.given = lease.given;
    if (!lease.alone) {  // what it leased to itself while isolated is no owner's business
      r.lease = lease.lease;
      r.used = minus(q.count, lease.returned + lease.held + lease.refunded);
      r.returned = lease.returned;
      r.granted_heard = lease.granted;
    }
  } else {
    WindowAccount& w = window_account(account, at.running);
    r.window = w.window;
    r.ballot = w.ballot;
    r.has_ballot = w.has_ballot;
    r.floor = w.floor_lost ? 0 : static_cast<uint32_t>(floor_of_window(account, w));
    r.used = minus(q.count, w.taken);
    r.returned = w.returned;
    r.refunded = w.refunded;
    r.given = w.given;
    r.granted_heard = w.granted;
    w.used_reported = r.used;
    w.returned_reported = r.returned;
    w.contacted = true;
  }
  if (account.told.stamp == 0 || account.told.window != r.window || account.told.ballot != r.ballot)
    account.told = {r.stamp, r.window, r.ballot, r.refunded, r.given, account.changes};
  if (r.wanted > r.ceiling || account.isolated) {  // one that is isolated asks whether somebody is there
    account.answered = false;
    account.asked_at = at.mono;
    if (account.unanswered_since == MonoTime{}) account.unanswered_since = at.mono;
    if (account.chosen_at == MonoTime{}) account.chosen_at = at.mono;
    around_.peers.asked(at.owner, at.mono);
  }
  r.second_choice = at.owner != at.group->rank[0];
  if (account.refused_in != r.window) account.highest = Ballot{};
  r.highest = account.highest;
  const auto named = around_.roster.rank_of(account.highest.node);
  r.insists = account.refusals >= kRefusalsMax && named && *named != at.owner && around_.peers.silent(*named, at.mono);
  around_.mail.send(at.owner, r);
}

Lessee::Look Lessee::look(const Account& account, Now now) const {
  Look at{now};
  if (!account.bucket()) at.running = window_now(account, now);
  at.group = &around_.succession.group(account.groups, at.running, account.limit.window);
  at.owner = owner_of(account, at);
  at.trip = around_.peers.round_trip(at.owner);
  return at;
}

// Whom the highest ballot makes the owner, or another member names; the natural owner where nobody knows. Who is silent is
// passed over.
uint16_t Lessee::owner_of(const Account& account, const Look& at) const {
  bool has_ballot = false;
  NodeId named = 0;
  if (account.bucket()) {
    has_ballot = account.lease.has_ballot;
    named = account.lease.ask != 0 ? account.lease.ask : has_ballot ? account.lease.ballot.node : 0;
  } else {
    const WindowAccount& w = account.windows[static_cast<size_t>(at.running & 1)];
    has_ballot = w.window == at.running && w.has_ballot;
    if (w.window == at.running) named = w.ask != 0 ? w.ask : has_ballot ? w.ballot.node : 0;
  }
  const auto usable = [&](uint16_t rank) { return !around_.peers.silent(rank, at.mono); };
  const Group& group = *at.group;
  if (named != 0 && account.choice == 0)
    for (size_t i = 0; i < group.size; ++i)
      if (around_.roster.id(group.rank[i]) == named && usable(group.rank[i])) return group.rank[i];
  for (size_t i = 0; i < group.size; ++i) {
    const uint16_t rank = group.rank[(account.choice + i) % group.size];
    if (usable(rank)) return rank;
  }
  return group.rank[0];
}

// No grant backed by a majority came from whom was asked, though it may be heard otherwise: the next of the group.
void Lessee::ask_next(Account& account, Look& at) {
  if (account.chosen_at == MonoTime{}) return;
  if (at.mono - account.chosen_at < around_.peers.patience(at.owner)) return;
  account.choice = static_cast<uint8_t>((account.choice + 1) % at.group->size);
  account.chosen_at = at.mono;
  at = look(account, at);
}

// What is held of the next window, as books that may be lost do not know of it.
void Lessee::tell_ahead(Account& account, Look at) {
  account.tell_ahead = false;
  for (const WindowAccount& w : account.windows) {
    if (w.window <= at.running || !w.has_ballot) continue;
    at.running = w.window;
    Quota q = quota(account, at);
    send_report(account, q, at);
    account.tell_ahead = true;  // until it is answered
    return;
  }
}

// The last word on a window that is over: what was used there will not grow any more.
bool Lessee::send_final(Account& account, const Look& at) {
  if (account.bucket() || account.finals_over_in == at.running) return false;
  bool sent = false, left = false;
  for (WindowAccount& w : account.windows) {
    if (w.window < 0 || w.window >= at.running || !w.contacted || w.final_heard || w.finals >= kFinalsMax) continue;
    left = true;
    // A worker that read its clock before the end may still be spending: what is left is taken first.
    take_back(account, w, 0);
    const auto count = limiter_.slots().count(account.slot, static_cast<uint32_t>(w.window));
    if (!count) continue;  // evicted: the owner goes on counting all that it granted
    ++w.finals;
    Report r;
    r.key = account.id;
    r.rule = static_cast<uint32_t>(account.rule->seed);
    r.terms = account.terms;
    r.window = w.window;
    r.ballot = w.ballot;
    r.has_ballot = w.has_ballot;
    r.line = account.line;
    r.used = minus(*count, w.taken);
    r.returned = w.returned;
    r.refunded = w.refunded;
    r.given = w.given;
    r.ceiling = ceiling_of(account, w);
    r.wanted = *count;
    r.granted_heard = w.granted;
    r.stamp = static_cast<uint64_t>(nanos(at.mono));
    r.final = true;
    around_.mail.send(at.owner, r);
    sent = true;
  }
  account.finals_over_in = left ? -1 : at.running;
  return sent;
}

// A worker notes the key when what is left falls under what comes in during a round trip: so a key with a look-ahead asks
// again at the latest when it has spent its last token.
void Lessee::set_ask_mark(Account& account, Quota& q, const Look& at) {
  const bool never = wanted(account, q, at) == q.count || at.mono < account.exhausted_until;
  const uint64_t headroom = expected(account, q.count, at.trip + std::chrono::milliseconds(1), at) + 1;
  limiter_.slots().set_ask_at(account.slot, never ? kNever : minus(q.ceiling, headroom));
}

}  // namespace tally
