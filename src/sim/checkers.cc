#include "sim/checkers.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "core/windows.h"

namespace tally::sim {

ReferenceBucket::ReferenceBucket(const Limit& limit, uint32_t overcount_ppm, uint32_t rate_slack_ppm)
    : capacity_(Wide{nanos(limit.burst_span())} * (kPartsPerMillion + overcount_ppm) * kPartsPerMillion),
      leak_(Wide{kPartsPerMillion + overcount_ppm} * (kPartsPerMillion + rate_slack_ppm)),
      cost_(Wide{nanos(limit.emission)} * kPartsPerMillion * kPartsPerMillion),
      tolerance_(rate_slack_ppm == 0 ? 0 : leak_ * 2) {}

bool ReferenceBucket::admit(uint64_t cost, Duration at) {
  level_ = std::max(Wide{0}, level_ - leak_ * nanos(at - last_));
  last_ = at;
  level_ += cost_ * static_cast<Wide>(cost);
  const Wide covered = std::clamp(level_ - capacity_, Wide{0}, credit_);
  level_ -= covered;
  credit_ -= covered;
  fullest_ = std::max(fullest_, level_);
  return level_ <= capacity_ + tolerance_;
}

size_t Checkers::add(const CheckedKey& key, const WireId& id) {
  State state{key, {}, {}};
  if (key.rule->limit.algorithm == Algorithm::token_bucket)
    state.bucket.emplace_back(key.rule->limit, key.bucket_overcount_ppm, rate_slack_ppm_);
  keys_.push_back(std::move(state));
  by_id_.emplace(id, keys_.size() - 1);
  return keys_.size() - 1;
}

void Checkers::violate(size_t key, Duration at, std::string_view checker, std::string what) {
  if (violations_.size() >= kViolationsMax) return;
  violations_.push_back({checker, std::move(what), keys_[key].what.rule->name, keys_[key].what.key, at});
}

void Checkers::admitted(size_t key, int64_t window, uint64_t cost, Duration at, WallTime latest) {
  State& state = keys_[key];
  WindowCount& count = state.windows[window];
  count.admitted += cost;
  if (!state.bucket.empty()) {
    if (!state.what.rule->max_overcount.unbounded && (lives_ == 0 || state.what.per_life == 0) &&
        !state.bucket.front().admit(cost, at))
      violate(key, at, "bucket",
              "a bucket admitted more in an interval than (1 + e)(burst + rate * T), fullest " +
                  std::to_string(state.bucket.front().fullest()));
    return;
  }
  const uint64_t bound = state.what.bound + lives_ * state.what.per_life;
  if (count.net() > bound)
    violate(key, at, "window",
            "window " + std::to_string(window) + " admitted " + std::to_string(count.admitted) +
                ", refunded " + std::to_string(count.refunded) + ", bound " + std::to_string(bound));
  if (!state.what.check_sliding) return;
  if (window_at(latest, state.what.rule->limit.window) > window) count.late += cost;
  check_sliding(key, window, at, latest);
}

void Checkers::holding(size_t key, int64_t window, uint64_t unspent, Duration at) {
  const State& state = keys_[key];
  const auto found = state.windows.find(window);
  const WindowCount count = found == state.windows.end() ? WindowCount{} : found->second;
  const uint64_t bound = state.what.bound + lives_ * state.what.per_life;
  // Two hosts may have taken the same use back: then refunds are more than what was admitted, and what is held is theirs.
  if (count.admitted + unspent > bound + count.refunded)
    violate(key, at, "holdings",
            "window " + std::to_string(window) + " holds " + std::to_string(unspent) + " more after " +
                std::to_string(count.admitted) + " less " + std::to_string(count.refunded) + ", bound " + std::to_string(bound));
}

// Floors are nobody's to carry over: what was used of them in the window before may be unknown to the owner.
void Checkers::check_sliding(size_t key, int64_t window, Duration at, WallTime latest) {
  const State& state = keys_[key];
  const Limit& limit = state.what.rule->limit;
  const auto before = state.windows.find(window - 1);
  if (before == state.windows.end()) return;
  const uint64_t budget = state.what.bound - limit.limit;
  uint64_t used = before->second.net();
  if (!state.what.sliding_late) used -= std::min(used, before->second.late);
  const uint64_t counted = std::min<uint64_t>(used - std::min(used, budget), limit.limit);
  const Duration elapsed = std::clamp(latest - window_start(window, limit.window), Duration(0), limit.window);
  const uint64_t carried = carried_over(static_cast<uint32_t>(counted), elapsed, limit.window);
  const uint64_t net = state.windows.at(window).net();
  if (net > state.what.bound - carried)
    violate(key, at, "sliding",
            "sliding window " + std::to_string(window) + " admitted " + std::to_string(net) + " net after " +
                std::to_string(used) + " before, of which " + std::to_string(carried) + " still counted");
}

void Checkers::refunded(size_t key, int64_t window, uint64_t cost) {
  State& state = keys_[key];
  state.windows[window].refunded += cost;
  if (!state.bucket.empty()) state.bucket.front().refund(cost);
}

void Checkers::emptied(size_t key) {
  State& state = keys_[key];
  if (!state.bucket.empty()) state.bucket.front().empty();
}

double Checkers::fullest(size_t key) const {
  return keys_[key].bucket.empty() ? 0 : keys_[key].bucket.front().fullest();
}

void Checkers::sent(const Datagram& datagram, Duration at, uint16_t host) {
  for (const Entry& entry : datagram.entries) {
    if (const auto* report = std::get_if<Report>(&entry)) check(datagram.header, *report, at, host);
    if (const auto* grant = std::get_if<Grant>(&entry)) check(datagram.header, *grant, at, host);
    if (const auto* mark = std::get_if<Mark>(&entry)) check_mark(mark->key, mark->mark, false, at);
    if (const auto* accepted = std::get_if<Accepted>(&entry)) check_mark(accepted->key, accepted->mark, true, at);
    if (const auto* clone = std::get_if<Clone>(&entry))
      told_clone_.emplace(datagram.header.receiver, clone->told);
  }
}

void Checkers::check(const Header& header, const Report& r, Duration at, uint16_t host) {
  // Used and refunded are of the line (a bucket: of the lease); returned and given are of the ballot too.
  const bool bucket = r.terms.algorithm == Algorithm::token_bucket;
  const Ballot of_line = bucket ? r.ballot : Ballot{};
  const uint64_t lease = bucket ? r.lease : 0;
  const NodeId sender = header.sender;
  grows({host, sender, header.incarnation, 0, 0, r.key, r.window, of_line, r.line, lease, 0}, r.used, "used", at);
  grows({host, sender, header.incarnation, 0, 0, r.key, r.window, of_line, r.line, lease, 1}, r.refunded,
        "refunded", at);
  grows({host, sender, header.incarnation, 0, 0, r.key, r.window, r.ballot, r.line, lease, 2}, r.returned,
        "returned", at);
  if (!bucket && r.refunded > r.used)
    if (const auto key = by_id_.find(r.key); key != by_id_.end())
      violate(key->second, at, "refunds",
              "refunded " + std::to_string(r.refunded) + " of " + std::to_string(r.used) +
                  " used in window " + std::to_string(r.window));
  if (bucket) return;  // its ceiling is that of the running lease, or nothing
  if (told_clone_.contains({sender, header.incarnation}) || set_back_.contains(host)) return;
  grows({host, sender, header.incarnation, 0, 0, r.key, r.window, of_line, r.line, 0, 3}, r.ceiling, "ceiling", at);
}

void Checkers::check(const Header& header, const Grant& g, Duration at, uint16_t host) {
  if (g.refused) return;  // no number of any books
  if (const auto key = by_id_.find(g.key); g.lease != 0 && key != by_id_.end()) {
    const uint64_t life =
        leases_.try_emplace({g.key, header.sender, g.lease}, header.incarnation).first->second;
    if (life != header.incarnation)
      violate(key->second, at, "lease numbers",
              "lease number " + std::to_string(g.lease) + " was given out by an earlier life already");
  }
  grows({host, header.sender, header.incarnation, header.receiver, g.incarnation, g.key, g.window, g.ballot, g.line,
         g.lease, 4},
        g.granted, "granted", at);
}

void Checkers::grows(const Counter& counter, uint64_t value, std::string_view name, Duration at) {
  const auto key = by_id_.find(counter.key);
  if (key == by_id_.end()) return;  // not one of those that are checked
  uint64_t& largest = counters_[counter];
  if (value < largest)
    violate(key->second, at, "monotone numbers",
            std::string(name) + " fell from " + std::to_string(largest) + " to " + std::to_string(value) +
                " in window " + std::to_string(counter.window));
  largest = std::max(largest, value);
}

void Checkers::check_mark(const WireId& id, uint64_t mark, bool told, Duration at) {
  const auto key = by_id_.find(id);
  if (key == by_id_.end()) return;
  const CheckedKey& what = keys_[key->second].what;
  if (what.check_marks && (what.check_told || !told) && mark > what.mark_max)
    violate(key->second, at, "marks",
            "a mark of " + std::to_string(mark) + " passes " + std::to_string(what.mark_max));
}

}  // namespace tally::sim
