#include "cluster/bucket_book.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace tally {

namespace {

// No honest amount is larger (see kBurstSpanMax); keeps sums of hostile ones from overflowing.
constexpr uint64_t kAmountMax = uint64_t{1} << 57;

// The owner keeps a lease this much longer than the lessee was told: clocks may run 1 % apart, and a report takes time.
constexpr Duration owner_lease(Duration d) { return d + d * 3 / 100; }

constexpr Duration signed_amount(uint64_t amount) { return Duration(static_cast<int64_t>(std::min(amount, kAmountMax))); }

constexpr uint64_t amount_of(Duration d) { return d > Duration(0) ? static_cast<uint64_t>(nanos(d)) : 0; }

}  // namespace

Duration bucket_mark_max(Duration burst_span, Duration lease) { return burst_span + owner_lease(lease); }

Duration bucket_keep(Duration burst_span, Duration lease) {
  const Duration most = bucket_mark_max(burst_span, lease);
  return most + most * 7 / 100;
}

Duration lease_for(Duration burst_span, Duration configured, Duration sync_interval) {
  return std::min(configured, std::max(burst_span / 4, sync_interval * 4));
}

BucketBook::BucketBook(const Terms& terms, const Group& group, Ballot ballot, Duration lease, Duration recent,
                       uint64_t numbered, const Start& start)
    : proven_(start.proven), group_(group), ballot_(ballot), recent_(recent), leases_(numbered), tat_(start.tat), since_(start.since), base_(start.tat) {
  proposal_.number = numbered;
  use_terms(terms, lease);
}

void BucketBook::use_terms(const Terms& terms, Duration lease) {
  emission_ = terms.emission;
  burst_span_ = terms.emission * static_cast<int64_t>(terms.limit);
  longest_span_ = std::max(longest_span_, burst_span_);
  lease_ = std::max(lease_, lease);
  if (burst_span_ <= proven_) return;
  const Duration unknown = bucket_keep(burst_span_, lease_) - bucket_keep(proven_, lease_);
  tat_ += unknown;
  base_ += unknown;
  proven_ = burst_span_;
}

BucketBook::Leased* BucketBook::find(const LineKey& key) {
  for (Leased& leased : lines_)
    if (leased.line.key == key) return &leased;
  return nullptr;
}

BucketBook::Leased& BucketBook::open(const LineKey& key, uint16_t rank, MonoTime given_from) {
  Leased& leased = lines_.emplace_back();
  leased.line.key = key;
  leased.line.rank = rank;
  leased.given_from = given_from;
  return leased;
}

uint64_t BucketBook::unreported() const {
  uint64_t sum = 0;
  for (const Leased& leased : lines_) sum += leased.unreported();
  return sum;
}

void BucketBook::settle(MonoTime now) {
  // An ended lease may have been spent until its very end: charge TAT as of that end, then forget it. Taking the whole
  // of what is unreported (not only this lease's) errs towards denying.
  for (Leased& leased : lines_) {
    if (leased.lease == 0 || leased.end > now) continue;
    if (leased.unreported() > 0) tat_ = std::max(tat_, leased.end + signed_amount(unreported()));
    if (above_) count_spent(leased.unreported());
    leased.lease = 0;
    leased.line.granted = leased.line.used = leased.line.returned = 0;
  }
  if (above_ && above_->stranded > 0 && above_->stranded_until <= now) count_spent(std::exchange(above_->stranded, 0));
  tat_ = std::max(tat_, now + signed_amount(unreported()));
}

void BucketBook::merge(Leased& leased, const Report& report, MonoTime now) {
  settle(now);
  Line& line = leased.line;
  const bool running = leased.lease != 0 && report.lease == leased.lease && report.has_ballot && report.ballot == ballot_;
  if (line.take_newest(report, running, now)) leased.held = running;
  if (line.waiting_min != 0) line.waiting_min = std::max(line.waiting_min, static_cast<uint64_t>(nanos(emission_)));
  if (!running) return;
  const uint64_t returned = std::min(std::max(line.returned, report.returned), line.granted);
  const uint64_t back = returned - line.returned;
  line.returned = returned;
  const uint64_t used = std::max(line.used, std::min(report.used, line.granted - returned));
  if (above_) count_spent(used - line.used);
  line.used = used;
  // A return undoes that part of the grant: those tokens were not spent and can't be any more.
  tat_ -= signed_amount(back);
  tat_ = std::max(tat_, now + signed_amount(unreported()));
}

Duration BucketBook::room(MonoTime now) {
  settle(now);
  if (above_) return signed_amount(to_lease() + (above_->over ? 0 : above_->left));
  return std::max(Duration(0), burst_span_ - (tat_ - now));
}

bool BucketBook::exhausted(uint64_t cost, MonoTime now) {
  if (above_ && !above_->over) return false;
  return room(now) + signed_amount(unreported()) < signed_amount(std::max<uint64_t>(cost, 1));
}

Duration BucketBook::regrows_after(uint64_t cost, MonoTime now) {
  if (above_) return above_->over ? above_->retry_after : Duration(0);
  return std::max(Duration(0), signed_amount(std::max<uint64_t>(cost, 1)) - room(now));
}

MonoTime BucketBook::last_end() const {
  MonoTime end{};
  for (const Leased& leased : lines_)
    if (leased.lease != 0 && leased.unreported() > 0) end = std::max(end, leased.end);  // of a spent one nothing can come
  return end;
}

uint64_t BucketBook::issue(Leased& leased, MonoTime now) {
  settle(now);
  Line& line = leased.line;
  line.turned_away = false;
  const uint64_t waits = line.unmet();
  const uint64_t out = unreported();
  const MonoTime mark = needs_marks() ? accepted_mark() : MonoTime::max();

  // What the accepted mark leaves: TAT + n <= mark, and (end of the last lease) + out + n <= mark, where this lease may be
  // cut short to fit, down to a quarter.
  const auto under = [&](MonoTime base) { return mark == MonoTime::max() ? kAmountMax : amount_of(mark - base); };
  const MonoTime running = leased.lease != 0 ? leased.end : now;  // its own lease goes on at least as long as it did
  const MonoTime shortest = std::max({last_end(), running, now + lease_ / 4});
  const uint64_t cap = std::min(under(tat_), under(shortest + signed_amount(out)));

  const uint64_t space = above_ ? (above_->until > now ? to_lease() : 0) : std::min(amount_of(burst_span_ - (tat_ - now)), cap);
  const uint64_t amount = part_of(leased, space, now);
  line.turned_away = waits > 0 && amount < waits;
  if (amount > 0) {
    if (leased.lease == 0) {
      leased.lease = ++leases_;
      leased.held = true;
      line.granted = line.used = line.returned = line.granted_heard = 0;
    }
    tat_ = std::max(tat_, now) + signed_amount(amount);
    line.granted += amount;
  }
  // An empty lease is not renewed: its end would stand in the way of the next grant. Nor is one that the lessee does not
  // have (it leased to itself while isolated, or lost it): a new one can only follow when it has ended.
  if (leased.unreported() > 0 && leased.held) {
    const MonoTime whole = std::min(now + owner_lease(lease_), above_ ? above_->until : MonoTime::max());
    leased.end = std::max(leased.end, mark == MonoTime::max() ? whole : std::min(whole, leave_room(mark, out + amount, shortest)));
  }
  leased.length = std::max(Duration(0), leased.end - now) * 100 / 103;  // no lease: its end is the epoch, which may be years ago
  return amount;
}

MonoTime BucketBook::leave_room(MonoTime mark, uint64_t out, MonoTime shortest) const {
  const MonoTime latest = mark - signed_amount(out);
  const Duration rest = std::max(Duration(0), burst_span_ - signed_amount(out));
  return std::min(latest, std::max(shortest, latest - std::min(rest, lease_ / 4)));
}

uint64_t BucketBook::part_of(const Leased& leased, uint64_t space, MonoTime now) const {
  const Line& line = leased.line;
  const uint64_t need = line.need();
  if (space == 0 || need == 0) return 0;
  const uint64_t out = unreported();
  const uint64_t half = minus(amount_of(burst_span_ / 2), out);
  const uint64_t policy = std::max(half, line.waiting_min);  // one whole request may always be
  const double all = demand_of_late(now, recent_);
  const auto part = all > 0 ? static_cast<uint64_t>(std::ceil(static_cast<double>(space) * line.demand() / all)) : space;
  const uint64_t share = std::max({static_cast<uint64_t>(nanos(emission_)), line.waiting_min, part});
  uint64_t amount = std::min({need, policy, share, space});
  const uint64_t whole = line.waiting_min != 0 ? line.waiting_min : static_cast<uint64_t>(nanos(emission_));
  if (whole > 0 && amount < need) amount -= amount % whole;  // parts of a token are of no use
  if (amount == 0 && space >= whole && out == 0) amount = whole;
  return amount;
}

uint64_t BucketBook::unmet(MonoTime now) const {
  uint64_t sum = 0;
  for (const Leased& leased : lines_)
    if (leased.line.turned_away && is_recent(leased, now)) sum += leased.line.unmet();
  return std::min(sum, kAmountMax);
}

double BucketBook::demand_of_late(MonoTime now, Duration within) const {
  double sum = 0;
  for (const Leased& leased : lines_)
    if (now - leased.line.heard <= within) sum += leased.line.demand();
  return sum;
}

uint16_t BucketBook::demand_share(const Leased& leased, MonoTime now, Duration within) const {
  const double all = demand_of_late(now, within);
  if (all <= 0) return 0;
  const double own = leased.line.demand();
  return static_cast<uint16_t>(std::min(1.0, own / all) * 65535);
}

uint64_t BucketBook::give(Leased& leased, uint64_t given, MonoTime sent_after, MonoTime now) {
  Line& line = leased.line;
  if (!leased.given_known) {
    if (sent_after <= leased.given_from) return 0;
    leased.given_known = true;
    line.given = given;  // an earlier line has counted it, or it is lost
  }
  if (given <= line.given) return 0;
  settle(now);
  const uint64_t news = std::min(given - line.given, kAmountMax);
  tat_ = std::max(tat_ - signed_amount(news), now + signed_amount(unreported()));
  line.given = given;
  return news;
}

uint64_t BucketBook::reset(MonoTime now) {
  settle(now);
  for (Leased& leased : lines_) {  // what was given back before is undone with all else
    leased.given_from = now;
    leased.given_known = false;
  }
  const MonoTime before = tat_;
  tat_ = std::max(now + signed_amount(unreported()), base_);
  return amount_of(before - tat_);
}

void BucketBook::count_spent(uint64_t amount) {
  above_->drawn = minus(above_->drawn, amount);
  above_->spent += amount;
}

BucketBook::AboveLease BucketBook::strand() const {
  AboveLease above = *above_;
  above.stranded += unreported();
  above.stranded_until = std::max(above.stranded_until, last_end());
  return above;
}

uint64_t BucketBook::to_draw(const Leased& leased, MonoTime now) {
  settle(now);
  return minus(part_of(leased, to_lease() + above_->left, now), to_lease());
}

uint64_t BucketBook::missing(MonoTime now) {
  settle(now);
  uint64_t sum = 0;
  for (const Leased& leased : lines_)
    if (is_recent(leased, now)) sum += part_of(leased, to_lease() + above_->left, now);
  return minus(sum, to_lease());
}

uint64_t BucketBook::waiting_min(MonoTime now) const {
  auto least = UINT64_MAX;
  for (const Leased& leased : lines_)
    if (is_recent(leased, now) && leased.line.unmet() > 0 && leased.line.waiting_min > 0) least = std::min(least, leased.line.waiting_min);
  return least == UINT64_MAX ? static_cast<uint64_t>(nanos(emission_)) : least;
}

MonoTime BucketBook::accepted_mark() const {
  return reached_by_majority(group_, accepted_);
}

std::optional<BucketBook::Proposal> BucketBook::next_mark(MonoTime now, Duration look_ahead) {
  if (!needs_marks()) return std::nullopt;
  settle(now);
  // What is out, held for a whole lease from now, plus what waits, plus a sixteenth of the bucket, plus what time alone
  // moves until the next mark can be in force.
  const uint64_t waits = unmet(now);
  const MonoTime held = now + owner_lease(lease_) + signed_amount(unreported() + waits);
  const MonoTime charged = tat_ + signed_amount(waits);
  const Duration margin = burst_span_ / 16 + look_ahead;
  const MonoTime most = now + bucket_mark_max(burst_span_, lease_);
  const MonoTime target = std::min(most, std::max(held, charged) + std::max(margin, emission_));
  // At the most there is, `target` moves with the clock: without a step every acceptance would call for the next mark at
  // once, two for one.
  const MonoTime enough = std::min(target - look_ahead / 4, std::max(held, charged) + std::max(margin / 2, Duration(1)));
  // Never beyond what a member keeps: what a claim was told may lie further ahead than marks go.
  if (proposal_.mark >= enough || target <= proposal_.mark) return std::nullopt;
  if (!mark_pending()) pending_since_ = now;
  proposal_ = {proposal_.number + 1, target, now};
  sent_[proposal_.number % sent_.size()] = proposal_;
  return proposal_;
}

void BucketBook::accept(size_t index, uint64_t number) {
  const Proposal& sent = sent_[number % sent_.size()];
  if (number == 0 || sent.number != number) return;  // not ours, or too long ago
  accepted_[index] = std::max(accepted_[index], sent.mark);
  accepted_sent_[index] = std::max(accepted_sent_[index], sent.sent);
}

MonoTime BucketBook::owned_until() const {
  if (!needs_marks()) return MonoTime::max();
  return std::max(since_, reached_by_majority(group_, accepted_sent_)) + keep() * 96 / 100;
}

bool BucketBook::idle(MonoTime now) {
  settle(now);
  if (has_leases()) return false;
  if (above_ && above_->drawn + above_->spent > 0) return false;
  return tat_ <= now && accepted_mark() <= now && proposal_.mark <= now;
}

}  // namespace tally
