#include "cluster/window_book.h"

#include <algorithm>
#include <cmath>

#include "base/fail.h"
#include "core/windows.h"

namespace tally {

namespace {

// No honest number is larger; keeps sums of hostile ones from overflowing.
constexpr uint64_t kAmountMax = uint64_t{1} << 40;

// On a near group, a line may hold unspent, beyond what waits, one part in this many (times the active lines) of what is
// left: what an owner's death would strand. On a far one it gets headroom instead, to hide the round trip.
constexpr uint64_t kNearHoldParts = 8;
// The owner's own node needs no more than it spends while its thread has its turn, and what it holds dies with the owner.
constexpr uint64_t kOwnHoldParts = 32;
constexpr uint64_t kFarHeadroomParts = 4;

// A mark is raised ahead of need by this part of what is left. Where the group is far, by what is asked for until the next one can be in
// force, so many times over as demand is never known well; at most by round trip / sync interval more of what is left, and kMarkShareMax.
constexpr double kMarkShare = 1.0 / 16;
constexpr double kMarkShareMax = 3.0 / 4;
constexpr double kMarkDemand = 3;

constexpr uint64_t kNewcomersParts = 10;  // of a window granted ahead, a tenth is held back for newcomers

}  // namespace

WindowBook::WindowBook(int64_t window, const Terms& terms, const Group& group, Ballot ballot, Duration recent,
                       uint64_t base)
    : window_(window),
      terms_(terms),
      begin_(window_start(window, terms.window)),
      end_(window_end(window, terms.window)),
      group_(group), ballot_(ballot), recent_(recent), base_(base) {
  previous_ = terms_.algorithm == Algorithm::sliding_window && !unbounded() ? terms_.limit : 0;
}

void WindowBook::lower_limit(uint32_t limit) {
  terms_.limit = std::min(terms_.limit, limit);
  previous_ = std::min<uint64_t>(previous_, terms_.limit);
}

void WindowBook::set_limit(uint32_t limit) {
  terms_.limit = limit;
  previous_ = std::min<uint64_t>(previous_, limit);
}

Line* WindowBook::find(const LineKey& key) {
  for (Line& line : lines_)
    if (line.key == key) return &line;
  return nullptr;
}

Line& WindowBook::open(const LineKey& key, uint16_t rank, uint64_t floor) {
  Line& line = lines_.emplace_back();
  line.key = key;
  line.rank = rank;
  line.floor = std::min<uint64_t>(floor, terms_.limit);
  if (reset_ != 0) line.given = kGivenUnknown;
  outstanding_ += line_outstanding(line);
  return line;
}

void WindowBook::reset(uint64_t number) {
  if (number <= reset_) return;
  reset_ = number;
  given_ = 0;
  for (Line& line : lines_) line.given = kGivenUnknown;
}

uint64_t WindowBook::line_outstanding(const Line& line) const {
  if (has_unbounded_floor(line)) return line.net_used();
  const uint64_t issued = minus(line.floor + line.granted, line.returned);
  if (claimed()) return issued;  // what it used may be of what earlier owners issued, which is in the base
  return std::max(issued, line.net_used());  // used can be more after an isolation: it is charged when heard
}

void WindowBook::charge_floor(Line& line, uint64_t floor) {
  outstanding_ -= line_outstanding(line);
  line.floor = std::max(line.floor, std::min<uint64_t>(floor, terms_.limit));
  outstanding_ += line_outstanding(line);
}

uint64_t WindowBook::outstanding() const {
  const uint64_t issued = base_ + outstanding_;
  // Drawn from above: what lines used of other owners' is theirs.
  return minus(claimed() && !above_ ? std::max(issued, used_) : issued, given_);
}

void WindowBook::merge(Line& line, const Report& report, MonoTime now) {
  const bool ours = report.has_ballot && report.ballot == ballot_;
  outstanding_ -= line_outstanding(line);
  used_ -= line.net_used();
  line.used = std::max(line.used, std::min(report.used, kAmountMax));
  line.refunded = std::max(line.refunded, std::min(report.refunded, kAmountMax));
  if (ours) line.returned = std::max(line.returned, std::min(report.returned, kAmountMax));
  line.final = line.final || report.final;
  line.take_newest(report, ours, now);
  outstanding_ += line_outstanding(line);
  used_ += line.net_used();
  if (ours) count_given(line, report);
}

void WindowBook::count_given(Line& line, const Report& report) {
  const uint64_t given = std::min(report.given, kAmountMax);
  if (line.given == kGivenUnknown) {
    if (report.reset >= reset_) line.given = given;
    return;
  }
  if (given <= line.given) return;
  given_ += std::min(given - line.given, used());
  line.given = given;
}

uint64_t WindowBook::allowance(WallTime now) const {
  const uint64_t limit = terms_.limit;
  if (above_) return above_->over ? above_->drawn : std::min(limit, above_->drawn + above_->left);
  if (!has_begun(now))
    return terms_.algorithm == Algorithm::fixed_window ? limit - limit / kNewcomersParts : 0;
  if (terms_.algorithm == Algorithm::fixed_window || previous_ == 0) return limit;
  if (is_over(now)) return limit;  // late: nothing of the window before counts any more
  return minus(limit, carried_over(static_cast<uint32_t>(std::min<uint64_t>(previous_, limit)), now - begin_, terms_.window));
}

uint64_t WindowBook::remaining(WallTime now) const {
  return minus(std::min(allowance(now), accepted_mark()), outstanding());
}

bool WindowBook::exhausted(WallTime now) const {
  if (above_ && !above_->over) return false;
  return has_begun(now) && previous_known() && used() >= allowance(now);
}

Duration WindowBook::regrows_after(uint64_t cost, WallTime now) const {
  const Duration window = terms_.window;
  if (!has_begun(now) || is_over(now)) return Duration(0);
  if (above_) return above_->retry_after;
  const uint64_t limit = terms_.limit, spent = used();
  if (terms_.algorithm == Algorithm::fixed_window) return end_ - now;
  const Duration elapsed = now - begin_;
  const auto previous = static_cast<uint32_t>(std::min(previous_, limit));
  if (spent + cost <= limit && previous > 0)
    return std::max(Duration(0), elapsed_when_carried(previous, static_cast<uint32_t>(limit - spent - cost), window) - elapsed);
  const auto next = static_cast<uint32_t>(std::min(spent, limit));
  return window - elapsed + elapsed_when_carried(next, static_cast<uint32_t>(minus(limit, cost)), window);
}

WindowBook::Demand WindowBook::demand_of_late(MonoTime now, Duration within) const {
  Demand demand;
  for (const Line& line : lines_) {
    if (now - line.heard > within || (line.demand_milli == 0 && line.waiting == 0)) continue;
    ++demand.lines;
    demand.all += line.demand();
  }
  demand.lines = std::max<uint64_t>(1, demand.lines);
  return demand;
}

uint16_t WindowBook::demand_share(const Line& line, MonoTime now, Duration within) const {
  const Demand demand = demand_of_late(now, within);
  if (demand.all <= 0) return 0;
  const double own = line.demand();
  return static_cast<uint16_t>(std::min(1.0, own / demand.all) * 65535);
}

uint64_t WindowBook::issue(Line& line, Now now, bool far) {
  if (has_unbounded_floor(line)) return 0;  // it needs nothing
  line.turned_away = false;
  if (line.need() == 0) return 0;
  const uint64_t waits = line.unmet();
  const uint64_t amount = part_of(line, remaining(now.wall), now, far);
  line.turned_away = amount < waits || (waits > 0 && amount == 0);
  grant(line, amount);
  return amount;
}

uint64_t WindowBook::part_of(const Line& line, uint64_t room, Now now, bool far) const {
  const uint64_t need = line.need();
  if (need == 0) return 0;
  const uint64_t waits = line.unmet();
  const Demand demand = demand_of_late(now.mono, recent_);

  // Beyond what waits: the look-ahead, which on a near group is held small, and never what others wait for.
  const uint64_t left = minus(allowance(now.wall), outstanding());
  uint64_t beyond = need - waits;
  if (far) {
    beyond += left / (kFarHeadroomParts * demand.lines);
  } else {
    const uint64_t parts = line.key.node == ballot().node ? kOwnHoldParts : kNearHoldParts;
    const uint64_t hold = std::max<uint64_t>(1, left / (parts * demand.lines));
    beyond = std::min(beyond, minus(hold, line.unspent()));
  }
  const uint64_t others = minus(unmet(now.mono), line.turned_away ? waits : 0);
  beyond = std::min(beyond, minus(left, others));
  // Shares proportional to demand (Raghavan et al., SIGCOMM 2007: flow proportional share), at least one whole request.
  const double own = line.demand();
  const auto part = demand.all > 0 ? static_cast<uint64_t>(std::ceil(static_cast<double>(room) * own / demand.all)) : room;
  const uint64_t share = std::max({uint64_t{1}, line.waiting_min, part});
  uint64_t amount = std::min({waits + beyond, share, room});
  if (waits > 0 && amount < waits && line.waiting_min > 1) {  // whole requests only
    amount -= amount % line.waiting_min;
    if (amount == 0 && room >= line.waiting_min) amount = line.waiting_min;
  }
  return amount;
}

void WindowBook::grant(Line& line, uint64_t amount) {
  outstanding_ -= line_outstanding(line);
  line.granted += amount;
  outstanding_ += line_outstanding(line);
}

uint64_t WindowBook::issue_ahead(Line& line, uint64_t amount, WallTime now) {
  amount = std::min(amount, remaining(now));
  grant(line, amount);
  return amount;
}

uint64_t WindowBook::unmet(MonoTime now) const {
  uint64_t sum = 0;
  for (const Line& line : lines_)
    if (line.turned_away && is_recent(line, now)) sum += line.unmet();
  return sum;
}

uint64_t WindowBook::accepted_mark() const {
  if (above_) return above_->drawn;
  if (!needs_marks()) return terms_.limit;
  return reached_by_majority(group_, accepted_);
}

std::optional<uint64_t> WindowBook::next_mark(Now now, Duration trip, Duration every, uint64_t ahead) const {
  if (!needs_marks()) return std::nullopt;
  const uint64_t limit = terms_.limit;
  const uint64_t out = outstanding();
  // A mark is a permission, not a grant: until the window has begun and its past is known it is raised as if nothing
  // were carried over.
  const bool known = has_begun(now.wall) && previous_known();
  const uint64_t left = minus(known ? allowance(now.wall) : limit, out);
  const uint64_t waits = unmet(now.mono);
  const double near = static_cast<double>(left) * kMarkShare;
  const double far = static_cast<double>(left) * std::min(kMarkShareMax, kMarkShare + static_cast<double>(nanos(trip)) / static_cast<double>(nanos(every)));
  const double asked_for = demand_of_late(now.mono, recent_).all * static_cast<double>(nanos(2 * trip + every)) * 1e-9;
  const auto share = static_cast<uint64_t>(std::ceil(std::clamp(kMarkDemand * asked_for, near, far)));
  const uint64_t wanted = std::min(left, waits + ahead + share);
  const uint64_t target = std::min(limit, out + wanted);
  if (target <= proposed_) return std::nullopt;
  const bool low = minus(proposed_, out) < waits + ahead + (share + 1) / 2;
  return low ? std::optional(target) : std::nullopt;
}

uint64_t WindowBook::to_draw(const Line& line, Now now, bool far) const {
  // What is outstanding beyond what was drawn (floors) has to be drawn first.
  return minus(part_of(line, minus(allowance(now.wall), outstanding()), now, far) + outstanding(), accepted_mark());
}

uint64_t WindowBook::missing(Now now, bool far) const {
  const uint64_t left = minus(allowance(now.wall), outstanding());
  uint64_t sum = 0;
  for (const Line& line : lines_)
    if (is_recent(line, now.mono)) sum += part_of(line, left, now, far);
  return sum == 0 ? 0 : minus(std::min(sum, left) + outstanding(), accepted_mark());
}

uint64_t WindowBook::waiting_min(MonoTime now) const {
  uint64_t least = UINT64_MAX;
  for (const Line& line : lines_)
    if (is_recent(line, now) && line.unmet() > 0 && line.waiting_min > 0) least = std::min(least, line.waiting_min);
  return least == UINT64_MAX ? 1 : least;
}

void WindowBook::propose(uint64_t mark, MonoTime now) {
  if (!mark_pending()) pending_since_ = now;
  proposed_ = mark;
  proposed_at_ = now;
}

void WindowBook::accept(size_t index, uint64_t mark) {
  // A member can hold a larger mark (an earlier ballot's); what counts here is what this owner asked for.
  accepted_[index] = std::max(accepted_[index], std::min(mark, proposed_));
}

void WindowBook::tell_previous(size_t index, Ballot ballot, uint64_t mark) {
  Told& told = told_[index];
  if (told.told && ballot < told.ballot) return;
  told = {true, ballot, told.told ? std::max(told.mark, mark) : mark};
}

bool WindowBook::previous_known() const {
  if (terms_.algorithm != Algorithm::sliding_window || !needs_marks()) return true;
  size_t told = 0;
  for (size_t i = 0; i < group_.size; ++i) told += told_[i].told ? 1 : 0;
  return told >= group_.majority();
}

void WindowBook::count_previous(const WindowBook* own, bool remembered) {
  if (terms_.algorithm != Algorithm::sliding_window) return;
  if (!needs_marks()) {  // nobody else can have issued anything, but an earlier life (or, unbounded, there is no issuing at all)
    if (own != nullptr || unbounded() || remembered)
      previous_ = own != nullptr ? std::min<uint64_t>(own->as_previous(), terms_.limit) : 0;
    return;
  }
  if (!previous_known()) return;
  Told highest;
  uint64_t largest = 0;
  for (size_t i = 0; i < group_.size; ++i) {
    if (!told_[i].told) continue;
    if (!highest.told || told_[i].ballot > highest.ballot) highest = told_[i];
    largest = std::max(largest, told_[i].mark);
  }
  const bool ours = own != nullptr && highest.ballot == own->ballot();
  previous_ = std::min<uint64_t>(ours ? std::min(largest, own->as_previous()) : largest, terms_.limit);
}

uint64_t WindowBook::as_previous() const {
  if (claimed()) return outstanding();  // lines that never came to this owner may have spent of the base
  uint64_t sum = 0;
  for (const Line& line : lines_) sum += line.final || unbounded() ? line.net_used() : line_outstanding(line);
  return minus(sum, given_);
}

}  // namespace tally
