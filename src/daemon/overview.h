// What the whole daemon is and counts: shared by the workers (INFO, TALLY.STATS), the metrics and the log.
//
// Thread rule: built before the threads start; after that every member may be read from any thread, each
// worker writes its own counters, and `waiting` is shared. Only main changes the rules.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/time.h"
#include "core/limiter.h"
#include "core/rules.h"
#include "daemon/counters.h"

namespace tally {

inline constexpr const char* kVersion = "0.1.0";

class Overview {
 public:
  Overview(std::string node_, std::shared_ptr<const RuleSet> rules, Limiter& limiter_, size_t workers_,
           MonoTime started_)
      : node(std::move(node_)), limiter(limiter_), started(started_), rules_(std::move(rules)) {
    for (size_t i = 0; i < workers_; ++i)
      workers.push_back(std::make_unique<WorkerCounters>(rules_->ids()));
  }
  Overview(const Overview&) = delete;
  Overview& operator=(const Overview&) = delete;

  // Of the last configuration that was loaded. A worker decides by those that it was told of (Service::use).
  std::shared_ptr<const RuleSet> rules() const {
    const std::lock_guard lock(rules_mutex_);
    return rules_;
  }
  // Before anybody is told of `next`: what counts by rule id has room for it.
  void make_room_for(const RuleSet& next) {
    for (const auto& worker : workers) worker->decisions.grow(next.ids());
  }
  void use(std::shared_ptr<const RuleSet> next) {
    const std::lock_guard lock(rules_mutex_);
    rules_ = std::move(next);
  }

  uint64_t total(Count WorkerCounters::*count) const {
    uint64_t n = 0;
    for (const auto& worker : workers) n += ((*worker).*count).value();
    return n;
  }
  using ByProtocol = std::array<Count, kProtocols>;
  uint64_t total(ByProtocol WorkerCounters::*counts, Protocol protocol) const {
    uint64_t n = 0;
    for (const auto& worker : workers) n += ((*worker).*counts)[static_cast<size_t>(protocol)].value();
    return n;
  }
  uint64_t total(ByProtocol WorkerCounters::*counts) const {
    uint64_t n = 0;
    for (size_t i = 0; i < kProtocols; ++i) n += total(counts, static_cast<Protocol>(i));
    return n;
  }
  uint64_t decisions(uint16_t rule, Outcome outcome) const {
    uint64_t n = 0;
    for (const auto& worker : workers)
      n += worker->decisions[rule].outcome[static_cast<size_t>(outcome)].value();
    return n;
  }
  uint64_t leased(uint16_t rule) const {
    uint64_t n = 0;
    for (const auto& worker : workers) n += worker->decisions[rule].leased.value();
    return n;
  }
  uint64_t put_back(uint16_t rule) const {
    uint64_t n = 0;
    for (const auto& worker : workers) n += worker->decisions[rule].put_back.value();
    return n;
  }
  uint64_t decided_isolated(uint16_t rule) const {
    uint64_t n = 0;
    for (const auto& worker : workers) n += worker->decisions[rule].isolated.value();
    return n;
  }
  uint64_t troubles(Trouble trouble) const {
    uint64_t n =
        connections_full.load(std::memory_order_relaxed) * (trouble == Trouble::connections_full ? 1 : 0);
    for (const auto& worker : workers) n += worker->troubles[static_cast<size_t>(trouble)].value();
    return n;
  }
  uint64_t faults(size_t fault) const {
    uint64_t n = 0;
    for (const auto& worker : workers) n += worker->faults[fault].value();
    return n;
  }

  const std::string node;  // its name, for people
  Limiter& limiter;
  const MonoTime started;
  uint64_t connections_max = 0;
  std::function<GrpcCounts()> grpc;  // set before anybody listens; nullptr: there is no such door
  std::vector<std::unique_ptr<WorkerCounters>> workers;

  std::atomic<uint64_t> waiting{0};           // parked requests of all workers: what limits.waiting bounds
  std::atomic<uint64_t> connections_full{0};  // turned away by main
  std::atomic<bool> ready{false};             // what /readyz says
  std::atomic<bool> last_reload_successful{true};  // of the configuration

 private:
  mutable std::mutex rules_mutex_;
  std::shared_ptr<const RuleSet> rules_;
};

}  // namespace tally
