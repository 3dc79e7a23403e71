#include "sim/plan.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "core/windows.h"
#include "sim/exact.h"
#include "sim/fleet.h"

namespace tally::sim {
namespace {

constexpr uint64_t kHeaderBytes = 20 + 8;  // IPv4 and UDP
constexpr Duration kAround = std::chrono::seconds(1'800'000'000);
constexpr Duration kStartUp = std::chrono::seconds(2);
constexpr Duration kLengthLeast = std::chrono::seconds(1);  // else no rate can be told
constexpr size_t kProgressEvery = 4096;

// The length of what is called a window: for a bucket the time in which all of it comes back.
Duration window_of(const Limit& limit) {
  return limit.algorithm == Algorithm::token_bucket ? limit.burst_span() : limit.window;
}

size_t keys_in(std::span<const Arrival> arrivals) {
  uint32_t most = 0;
  for (const Arrival& a : arrivals) most = std::max(most, a.key);
  return arrivals.empty() ? 0 : size_t{most} + 1;
}

// How many keys the busiest node sees: the size of a slot table that evicts nothing.
size_t keys_of_one_node(std::span<const Arrival> arrivals, uint16_t nodes) {
  std::vector<std::unordered_set<uint32_t>> seen(nodes);
  size_t most = 0;
  for (const Arrival& a : arrivals) {
    seen[a.node].insert(a.key);
    most = std::max(most, seen[a.node].size());
  }
  return most;
}

class Run {
 public:
  Run(const PlanTerms& terms, const PlanSetting& setting, std::span<const Arrival> arrivals)
      : terms_(terms),
        arrivals_(arrivals),
        window_(window_of(terms.rule.limit)),
        start_(kStartUp + 2 * (setting.sync_interval + setting.round_trip)),
        names_(terms.keys),
        offered_(terms.rule, keys_in(arrivals)),
        admitted_(terms.rule, keys_in(arrivals)),
        fleet_(config_of(terms, setting, arrivals, start_)) {
    const size_t keys = std::max(names_.size(), keys_in(arrivals));
    while (names_.size() < keys) names_.push_back("key-" + std::to_string(names_.size()));
    refs_.resize(names_.size());
    result_.setting = setting;
    result_.nodes = terms.nodes;
    result_.requests = arrivals.size();
    result_.bound = bound_of(terms.rule, terms.nodes);
  }

  PlanResult run(const std::function<void(double)>& progress) {
    fleet_.run_until(start_);
    const Fleet::Traffic before = fleet_.traffic();
    const uint64_t entries_before = entries();
    result_.length =
        std::max({terms_.length, kLengthLeast, arrivals_.empty() ? Duration(0) : arrivals_.back().at});
    for (size_t i = 0; i < arrivals_.size(); ++i) {
      if (progress && i % kProgressEvery == 0)
        progress(static_cast<double>(i) / static_cast<double>(arrivals_.size()));
      arrive(arrivals_[i]);
    }
    fleet_.run_until(start_ + result_.length);
    const Fleet::Traffic sent = fleet_.traffic() - before;
    result_.datagrams = sent.datagrams;
    result_.bytes = sent.bytes + sent.datagrams * kHeaderBytes;
    result_.entries = entries() - entries_before;
    fleet_.run_for(terms_.rule.wait + std::chrono::milliseconds(1));  // who still waits is answered
    conclude();
    return std::move(result_);
  }

 private:
  struct Window {
    uint64_t offered = 0, admissible = 0, admitted = 0, overcount = 0;
  };

  static FleetConfig config_of(const PlanTerms& terms, const PlanSetting& setting,
                               std::span<const Arrival> arrivals, Duration start) {
    FleetConfig config;
    config.nodes = terms.nodes;
    config.rules = {terms.rule};
    config.rules[0].name = "planned";
    config.link.delay_min = config.link.delay_max = setting.round_trip / 2;
    config.link.loss = setting.loss;
    config.sync_interval = setting.sync_interval;
    config.isolation_after = setting.isolation_after;
    config.lease = setting.lease;
    // The traffic begins at its origin in a window, whenever the fleet began.
    const Duration window = window_of(terms.rule.limit);
    const WallTime begins = window_start(window_at(WallTime(kAround), window), window);
    config.epoch = begins + elapsed_in_window(WallTime(terms.origin), window) - start;
    config.keys = 2 * keys_of_one_node(arrivals, terms.nodes) + 64;
    config.isolation_possible = true;
    config.check_wire = false;
    config.seed = terms.seed;
    return config;
  }

  void arrive(const Arrival& a) {
    fleet_.run_until(start_ + a.at);
    Window& window = window_now(a.key);
    window.offered += a.cost;
    if (offered_.admits(names_[a.key], a.cost, fleet_.clock(0))) window.admissible += a.cost;
    if (!refs_[a.key]) refs_[a.key] = fleet_.key("planned", names_[a.key]);
    fleet_.take(a.node, refs_[a.key], a.cost, [this, &a](Outcome outcome) { answered(a, outcome); });
  }

  void answered(const Arrival& a, Outcome outcome) {
    const Duration waited = fleet_.now() - start_ - a.at;
    if (waited > Duration(0)) waits_.push_back(waited);
    if (outcome == Outcome::no_grant) result_.no_grant += a.cost;
    if (outcome != Outcome::admitted) return;
    Window& window = window_now(a.key);
    window.admitted += a.cost;
    if (!admitted_.admits(names_[a.key], a.cost, fleet_.clock(0))) window.overcount += a.cost;
  }

  Window& window_now(uint32_t key) {
    const int64_t number = window_at(fleet_.clock(0).wall, window_);
    if (first_ == INT64_MIN) first_ = number;
    return windows_[uint64_t{key} << 32 | static_cast<uint32_t>(number - first_)];
  }

  uint64_t entries() {
    uint64_t sum = 0;
    for (uint16_t rank = 0; rank < fleet_.nodes(); ++rank)
      for (const uint64_t n : fleet_.node(rank).stats().entries_out) sum += n;
    return sum;
  }

  void conclude() {
    uint64_t overcount_full = 0;
    for (const auto& [key, w] : windows_) {
      result_.offered += w.offered;
      result_.admissible += w.admissible;
      result_.admitted += w.admitted;
      result_.overcount += w.overcount;
      result_.overcount_worst = std::max(result_.overcount_worst, w.overcount);
      result_.most_in_window = std::max(result_.most_in_window, w.admitted);
      if (w.offered <= w.admissible && w.overcount == 0) continue;
      ++result_.windows_full;
      overcount_full += w.overcount;
    }
    if (result_.windows_full != 0)
      result_.overcount_mean =
          static_cast<double>(overcount_full) / static_cast<double>(result_.windows_full);
    result_.waited = waits_.size();
    std::ranges::sort(waits_);
    if (!waits_.empty()) {
      result_.wait_p50 = waits_[(waits_.size() - 1) / 2];
      result_.wait_p99 = waits_[(waits_.size() - 1) * 99 / 100];
    }
    for (const Violation& v : fleet_.violations()) result_.violations.push_back(v.key + ": " + v.what);
  }

  const PlanTerms& terms_;
  const std::span<const Arrival> arrivals_;
  const Duration window_;
  const Duration start_;  // of the traffic, in the fleet's time
  std::vector<std::string> names_;
  ExactLimiter offered_, admitted_;
  Fleet fleet_;
  std::vector<Fleet::KeyRef> refs_;
  std::unordered_map<uint64_t, Window> windows_;  // by key and number
  int64_t first_ = INT64_MIN;                     // number
  std::vector<Duration> waits_;
  PlanResult result_;
};

}  // namespace

double PlanResult::kept() const {
  if (admissible == 0) return 1;
  return 1 - static_cast<double>(undercount()) / static_cast<double>(admissible);
}

double PlanResult::per_node_second(uint64_t n) const {
  const double seconds = static_cast<double>(nanos(length)) / 1e9;
  return seconds <= 0 ? 0 : static_cast<double>(n) / seconds / nodes;
}

PlanResult run_plan(const PlanTerms& terms, const PlanSetting& setting, std::span<const Arrival> arrivals,
                    const std::function<void(double)>& progress) {
  return Run(terms, setting, arrivals).run(progress);
}

}  // namespace tally::sim
