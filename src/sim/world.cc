#include "sim/world.h"

#include <algorithm>
#include <string>

#include "base/fail.h"

namespace tally::sim {
namespace {

constexpr Duration kAggregatorsWait = std::chrono::milliseconds(500);  // for what they ask for: some round trips to the level above

std::vector<uint16_t> ranks(uint16_t from, uint16_t count) {
  std::vector<uint16_t> all;
  for (uint16_t i = 0; i < count; ++i) all.push_back(static_cast<uint16_t>(from + i));
  return all;
}

// Above there are no floors: the regions have all of the overcount.
std::vector<Rule> rules_above(std::vector<Rule> rules) {
  for (Rule& rule : rules) {
    rule.max_overcount = Overcount{0};
    rule.on_isolation = OnIsolation::closed;
    rule.wait = kAggregatorsWait;
  }
  return rules;
}

std::vector<Rule> rules_of_region(std::vector<Rule> rules, uint16_t regions) {
  for (Rule& rule : rules) rule.max_overcount.ppm /= regions;
  return rules;
}

}  // namespace

World::World(const WorldConfig& config)
    : config_(config),
      rules_above_(rule_set(rules_above(config.rules), Share{})),
      upstreams_(size_t{config.regions} * config.aggregators) {
  const auto aggregators = static_cast<uint16_t>(config.regions * config.aggregators);
  FleetConfig above;
  above.nodes = config.owners;
  above.owners = ranks(0, config.owners);
  above.guests = aggregators;
  above.rules = rules_above(config.rules);
  above.link = config.far;
  above.sync_interval = config.sync_interval;
  above.keys = config.keys;
  above.clocks.resize(size_t{config.owners} + aggregators);
  for (uint16_t rank = config.owners; rank < above.clocks.size(); ++rank) above.clocks[rank].drift_ppm = config.aggregators_drift_ppm;
  above.region_hosts = ranks(config.owners, aggregators);
  above.seed = config.seed;
  above.settled = [this](uint16_t rank) {
    if (rank < config_.owners) return;
    const auto which = static_cast<uint16_t>(rank - config_.owners);
    const size_t region = which / config_.aggregators;
    if (region < regions_.size()) regions_[region]->nudge(which % config_.aggregators);
  };
  above_ = std::make_unique<Fleet>(std::move(above));
  for (uint16_t region = 0; region < config.regions; ++region) {
    FleetConfig fleet;
    fleet.nodes = static_cast<uint16_t>(config.aggregators + config.hosts);
    fleet.lists = {{ranks(0, fleet.nodes), 0, {}, ranks(0, config.aggregators)}};
    fleet.rules = rules_of_region(config.rules, config.regions);
    fleet.link = config.near;
    fleet.sync_interval = config.sync_interval;
    fleet.keys = config.keys;
    fleet.keep_datagrams = config.keep_datagrams;
    fleet.clocks.resize(config.aggregators);
    fleet.clocks.insert(fleet.clocks.end(), config.clocks.begin(), config.clocks.end());
    for (uint16_t i = 0; i < config.aggregators; ++i)
      fleet.clocks[i] = {Duration(0), config.aggregators_drift_ppm, default_origin(rank_above(region, i))};  // one host
    fleet.admitted = [this](const Rule& of, const std::string& key, uint64_t cost) { count(of, key, cost); };
    fleet.seed = config.seed + region + 1;
    fleet.upstream = [this, region](uint16_t rank) -> Upstream* {
      return rank < config_.aggregators ? new_upstream(region, rank) : nullptr;
    };
    fleet.settled = [this, region](uint16_t rank) {
      if (rank < config_.aggregators && upstream(region, rank).take_news()) above_->nudge(rank_above(region, rank));
    };
    regions_.push_back(std::make_unique<Fleet>(std::move(fleet)));
  }
}

World::~World() = default;

Upstream* World::new_upstream(uint16_t region, uint16_t aggregator) {
  auto& upstream = upstreams_[region * config_.aggregators + aggregator];
  const uint16_t rank = rank_above(region, aggregator);
  upstream = std::make_unique<Upstream>(above_->node(rank), above_->limiter(rank), rules_above_);
  return upstream.get();
}

void World::run_until(Duration when) {
  while (now() < when) {  // event by event, whichever fleet's is next
    Duration next = above_->next_event();
    for (const auto& region : regions_) next = std::min(next, region->next_event());
    next = std::min(next, when);
    above_->run_until(next);
    for (const auto& region : regions_) region->run_until(next);
  }
}

bool World::run_until_ready(Duration at_most) {
  const Duration end = now() + at_most;
  const auto ready = [](Fleet& fleet) {
    for (uint16_t rank = 0; rank < fleet.hosts(); ++rank)
      if (fleet.is_up(rank) && !fleet.node(rank).ready()) return false;
    return true;
  };
  while (!ready(*above_) || !std::ranges::all_of(regions_, [&](const auto& region) { return ready(*region); })) {
    if (now() >= end) return false;
    run_for(std::chrono::milliseconds(1));
  }
  return true;
}

uint32_t World::give(uint16_t region, uint16_t host, std::string_view rule_name, std::string_view key, uint32_t n) {
  const uint32_t given = regions_[region]->give(this->host(host), rule_name, key, n);
  const Rule& of = rule(rule_name);
  if (of.limit.algorithm == Algorithm::token_bucket) bucket(of, std::string(key)).refund(given);
  return given;
}

ReferenceBucket& World::bucket(const Rule& of, const std::string& key) {
  int32_t fastest = std::max(0, config_.aggregators_drift_ppm);
  for (const HostClock& clock : config_.clocks) fastest = std::max(fastest, clock.drift_ppm);
  return buckets_.try_emplace({of.name, key}, of.limit, rule(of.name).max_overcount.ppm, static_cast<uint32_t>(fastest)).first->second;
}

void World::count(const Rule& of, const std::string& key, uint64_t cost) {
  if (of.limit.algorithm != Algorithm::token_bucket || bucket(of, key).admit(cost, now())) return;
  violations_.push_back({"world", "the bucket of all regions, fullest " + std::to_string(bucket(of, key).fullest()), of.name, key, now()});
}

// One process: both Nodes go, and come again, together.
void World::crash(uint16_t region, uint16_t aggregator, bool keep_state) {
  regions_[region]->crash(aggregator, keep_state);
  above_->crash(rank_above(region, aggregator), keep_state);
}

void World::start(uint16_t region, uint16_t aggregator) {
  above_->start(rank_above(region, aggregator));
  regions_[region]->start(aggregator);
}

std::map<int64_t, uint64_t> World::windows(std::string_view rule, std::string_view key) const {
  std::map<int64_t, uint64_t> sums;
  for (const auto& region : regions_)
    for (const auto& [window, count] : region->windows(rule, key))
      sums[window] += count.net();
  return sums;
}

uint64_t World::admitted(std::string_view rule, std::string_view key) const {
  uint64_t sum = 0;
  for (const auto& region : regions_) sum += region->tally(rule, key).admitted();
  return sum;
}

const Rule& World::rule(std::string_view name) const {
  const auto found = std::ranges::find(config_.rules, name, &Rule::name);
  CHECK_THAT(found != config_.rules.end());
  return *found;
}

uint64_t World::bound(std::string_view name) const {
  const Rule& of = rule(name);
  return of.limit.limit + uint64_t{overcount_budget(of.limit.limit, of.max_overcount)};
}

std::vector<Violation> World::violations(std::string_view name, std::string_view key) const {
  std::vector<Violation> all = violations_;
  all.insert(all.end(), above_->violations().begin(), above_->violations().end());
  for (const auto& region : regions_) all.insert(all.end(), region->violations().begin(), region->violations().end());
  if (rule(name).limit.algorithm == Algorithm::token_bucket) return all;
  for (const auto& [window, sum] : windows(name, key))
    if (sum > bound(name))
      all.push_back({"world", "window " + std::to_string(window) + ": " + std::to_string(sum) + " of " + std::to_string(bound(name)),
                     std::string(name), std::string(key), now()});
  return all;
}

}  // namespace tally::sim
