#include "sim/accuracy.h"

#include <algorithm>

#include "base/hash.h"
#include "sim/fleet.h"
#include "sim/overcount.h"

namespace tally::sim {
namespace {

using namespace std::chrono_literals;

constexpr Duration kStart = 3s;                // of the traffic; the fleet's own start is over by then
constexpr Duration kIdle = 1s;                 // before it, in which the bytes of an idle fleet are counted
constexpr WallTime kBoundary{1'800'057'600s};  // where windows of every length begin: a midnight
constexpr uint32_t kAgeEvery = 8;              // the age of knowledge is looked at for each so many requests
constexpr size_t kCountedKinds = 4;            // reports, grants, marks, acceptances
static_assert(std::is_same_v<std::variant_alternative_t<3, Entry>, Accepted>);
constexpr std::string_view kRule = "rule";

double seconds(Duration d) { return static_cast<double>(nanos(d)) / 1e9; }

Rule rule_of(const AccuracySetting& s) {
  Rule rule = s.algorithm == Algorithm::token_bucket
                  ? bucket_rule(std::string(kRule), s.limit, s.limit, s.window, s.overcount.ppm)
                  : window_rule(std::string(kRule), s.algorithm, s.limit, s.window, s.overcount.ppm);
  rule.max_overcount = s.overcount;
  rule.wait = s.wait;
  rule.on_isolation = OnIsolation::closed;
  return rule;
}

FleetConfig config_of(const AccuracySetting& s, uint64_t seed) {
  FleetConfig config;
  config.nodes = s.nodes;
  config.rules = {rule_of(s)};
  config.link.delay_min = config.link.delay_max = s.round_trip / 2;
  config.link.loss = s.loss;
  config.sync_interval = s.sync_interval;
  config.keys = s.keys;
  config.check_wire = false;
  config.seed = seed;
  const Duration lead = s.across ? s.traffic_length() / int64_t{s.windows} : Duration(0);
  config.epoch = kBoundary - kStart - lead;
  return config;
}

std::vector<Arrival> arrivals_of(const AccuracySetting& s, uint64_t seed) {
  ShapeTerms terms;
  terms.shape = s.shape;
  terms.limit = rule_of(s).limit;
  terms.length = s.traffic_length();
  const bool at_once = s.shape == Shape::burst;
  terms.load = at_once ? s.load
                       : s.load * static_cast<double>(nanos(s.window)) * s.windows /
                             static_cast<double>(nanos(terms.length));
  terms.nodes = s.nodes;
  terms.seed = seed;
  std::vector<Arrival> arrivals = sim::arrivals_of(terms);
  for (Arrival& a : arrivals) a.at += kStart;
  return arrivals;
}

// The limited key: the first of a row of names that the last node owns.
std::string key_of_last_node(const Fleet& fleet) {
  for (int n = 0;; ++n) {
    std::string key = "key-" + std::to_string(n);
    if (fleet.owner(kRule, key) == fleet.nodes() - 1) return key;
  }
}

void bring_near(Fleet& fleet, const Group& group) {
  for (size_t a = 0; a < group.size; ++a)
    for (size_t b = 0; b < group.size; ++b) {
      if (a == b) continue;
      LinkTerms& link = fleet.network().link(group.rank[a], group.rank[b]);
      link.delay_min = link.delay_max = AccuracySetting::kNear / 2;
    }
}

uint64_t entries_sent(Fleet& fleet) {
  uint64_t sum = 0;
  for (uint16_t rank = 0; rank < fleet.nodes(); ++rank) {
    if (!fleet.is_up(rank)) continue;
    const NodeStats stats = fleet.node(rank).stats();
    for (size_t kind = 0; kind < kCountedKinds; ++kind) sum += stats.entries_out[kind];
  }
  return sum;
}

// Asks a fleet as the arrivals say, and measures what came of it.
class Run {
 public:
  Run(const AccuracySetting& s, Fleet& fleet, std::span<const Arrival> arrivals, WallTime epoch)
      : fleet_(fleet), arrivals_(arrivals), key_(key_of_last_node(fleet)), meter_(rule_of(s).limit, epoch) {}

  const std::string& key() const { return key_; }
  const OvercountMeter& meter() const { return meter_; }

  void begin() { next(); }
  void put(Row& row) {
    row.once_offered = once_offered_;
    row.once_admitted = once_admitted_;
    if (ages_.empty()) return;
    const auto place = ages_.begin() + static_cast<ptrdiff_t>(ages_.size() * 99 / 100);
    std::ranges::nth_element(ages_, place);
    row.age_p99_ms = static_cast<double>(nanos(*place)) / 1e6;
  }

 private:
  void next() {
    if (asked_ < arrivals_.size())
      fleet_.at(arrivals_[asked_].at, [this] {
        ask(arrivals_[asked_]);
        ++asked_;
        next();
      });
  }

  void ask(const Arrival& a) {
    if (a.key != 0) {
      ++once_offered_;
      fleet_.take(a.node, kRule, "once-" + std::to_string(a.key), a.cost,
                  [this](Outcome outcome) { once_admitted_ += outcome == Outcome::admitted; });
      return;
    }
    if (asked_ % kAgeEvery == 0) look(a.node);
    fleet_.take(a.node, kRule, key_, a.cost, [this, cost = a.cost](Outcome outcome) {
      if (outcome == Outcome::admitted) meter_.admitted(cost, fleet_.now());
    });
  }

  void look(uint16_t node) {
    if (!fleet_.is_up(node)) return;
    const Duration age = fleet_.explain(node, kRule, key_).knowledge_age;
    if (age >= Duration(0)) ages_.push_back(age);
  }

  Fleet& fleet_;
  std::span<const Arrival> arrivals_;
  size_t asked_ = 0;
  const std::string key_;
  OvercountMeter meter_;
  std::vector<Duration> ages_;
  uint64_t once_offered_ = 0, once_admitted_ = 0;
};

Accuracy accuracy_of(const OvercountMeter& meter, const Row& row) {
  Accuracy a;
  a.total = meter.total();
  a.admitted = row.admissible == 0 ? 1 : static_cast<double>(a.total) / static_cast<double>(row.admissible);
  a.worst = meter.worst();
  a.mean = meter.mean(row.setting.windows);
  return a;
}

OvercountMeter metered(const ModelTerms& terms, std::span<const Arrival> arrivals,
                       const Decisions& decisions) {
  OvercountMeter meter(terms.limit, terms.epoch);
  for (size_t i = 0; i < arrivals.size(); ++i)
    if (decisions.admitted[i]) meter.admitted(arrivals[i].cost, arrivals[i].at + decisions.decided_after);
  return meter;
}

void run_models(Row& row, std::span<const Arrival> all, WallTime epoch, uint64_t seed) {
  std::vector<Arrival> arrivals;
  std::ranges::copy_if(all, std::back_inserter(arrivals), [](const Arrival& a) { return a.key == 0; });
  const AccuracySetting& s = row.setting;
  const ModelTerms terms{rule_of(s).limit, s.nodes, s.round_trip, s.sync_interval, s.loss, epoch, seed};
  row.offered = 0;
  for (const Arrival& a : arrivals) row.offered += a.cost;
  row.admissible = metered(terms, arrivals, exact(terms, arrivals)).total();
  for (size_t i = 0; i < std::size(kBaselines); ++i) {
    const Decisions decisions = kBaselines[i].decide(terms, arrivals);
    row.others[i] = accuracy_of(metered(terms, arrivals, decisions), row);
    row.others[i].answered_after = decisions.answered_after;
  }
}

void run_fleet(Row& row, std::span<const Arrival> arrivals, const FleetConfig& config) {
  const AccuracySetting& s = row.setting;
  Fleet fleet(config);
  Run run(s, fleet, arrivals, config.epoch);
  const Group group = fleet.group(kRule, run.key());
  if (s.group_near) bring_near(fleet, group);
  fleet.run_until(kStart - kIdle);
  const uint64_t before = fleet.traffic().bytes;
  fleet.run_until(kStart);
  const uint64_t idle = fleet.traffic().bytes - before, sent = fleet.traffic().bytes;
  const uint64_t entries = entries_sent(fleet);
  run.begin();
  if (s.kill_owner) fleet.at(kStart + s.traffic_length() / 2, [&] { fleet.crash(group.rank[0]); });
  fleet.run_until(kStart + s.traffic_length());
  const double per = 1.0 / (uint32_t{s.nodes} * s.windows);
  row.idle_bytes = static_cast<double>(idle) / (seconds(kIdle) * s.nodes);
  row.bytes = static_cast<double>(fleet.traffic().bytes - sent) * per -
              row.idle_bytes * seconds(s.traffic_length()) / s.windows;
  if (!s.kill_owner) row.entries = static_cast<double>(entries_sent(fleet) - entries) * per;
  fleet.run_for(s.wait);
  run.put(row);
  row.fleet = accuracy_of(run.meter(), row);
  for (const Violation& v : fleet.violations()) row.violations.push_back(v.what);
}

}  // namespace

Row measure(const AccuracySetting& setting, uint64_t seed) {
  const uint64_t own = mix(seed ^ rule_seed_of(setting.name));
  Row row;
  row.setting = setting;
  const std::vector<Arrival> arrivals = arrivals_of(setting, own);
  const FleetConfig config = config_of(setting, own);
  run_models(row, arrivals, config.epoch, own);
  run_fleet(row, arrivals, config);
  return row;
}

}  // namespace tally::sim
