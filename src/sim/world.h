// Regions under one limit: a fleet of hosts and aggregators in each, and one above them whose guests the aggregators are. An
// aggregator is a host in two fleets, with a Node in either.
//
// Thread rule: one owner, as a Fleet's.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.h"
#include "cluster/upstream.h"
#include "sim/fleet.h"

namespace tally::sim {

struct WorldConfig {
  uint16_t owners = 3;       // of the level above
  uint16_t regions = 2;
  uint16_t aggregators = 1;  // in each region
  uint16_t hosts = 3;        // with applications, in each
  std::vector<Rule> rules;   // as applications have them: the overcount is split over the regions
  LinkTerms near, far;       // within a region; above
  std::vector<HostClock> clocks;  // of a region's hosts, in every region; those that are missing are true
  int32_t aggregators_drift_ppm = 0;
  Duration sync_interval = std::chrono::milliseconds(100);
  size_t keys = 1000;  // each slot table
  bool keep_datagrams = false;  // of the regions: FleetConfig's
  uint64_t seed = 1;
};

class World {
 public:
  explicit World(const WorldConfig& config);
  ~World();

  Duration now() const { return above_->now(); }
  void run_until(Duration when);
  void run_for(Duration d) { run_until(now() + d); }
  bool run_until_ready(Duration at_most);

  Fleet& above() { return *above_; }
  Fleet& region(uint16_t which) { return *regions_[which]; }
  // Ranks: of a region's aggregators and hosts in the region, of its aggregators above.
  uint16_t aggregator(uint16_t which) const { return which; }
  uint16_t host(uint16_t which) const { return static_cast<uint16_t>(config_.aggregators + which); }
  uint16_t rank_above(uint16_t region, uint16_t aggregator) const {
    return static_cast<uint16_t>(config_.owners + region * config_.aggregators + aggregator);
  }
  uint32_t give(uint16_t region, uint16_t host, std::string_view rule, std::string_view key, uint32_t n);
  void crash(uint16_t region, uint16_t aggregator, bool keep_state = true);
  void start(uint16_t region, uint16_t aggregator);

  // What the regions admitted together, less what they refunded, by window; 0 for a bucket.
  std::map<int64_t, uint64_t> windows(std::string_view rule, std::string_view key) const;
  uint64_t admitted(std::string_view rule, std::string_view key) const;
  uint64_t bound(std::string_view rule) const;  // L + floor(e L)
  // Of every fleet, windows above the bound, and a bucket of all regions above its own.
  std::vector<Violation> violations(std::string_view rule, std::string_view key) const;

 private:
  Upstream& upstream(uint16_t region, uint16_t aggregator) { return *upstreams_[region * config_.aggregators + aggregator]; }
  Upstream* new_upstream(uint16_t region, uint16_t aggregator);
  ReferenceBucket& bucket(const Rule& rule, const std::string& key);
  void count(const Rule& rule, const std::string& key, uint64_t cost);
  const Rule& rule(std::string_view name) const;

  const WorldConfig config_;
  std::shared_ptr<const RuleSet> rules_above_;
  std::vector<std::unique_ptr<Upstream>> upstreams_;
  std::unique_ptr<Fleet> above_;
  std::vector<std::unique_ptr<Fleet>> regions_;
  std::map<std::pair<std::string, std::string>, ReferenceBucket> buckets_;
  std::vector<Violation> violations_;  // of buckets
};

}  // namespace tally::sim
