// What a worker counts, and what the metrics thread sums at scrape time.
//
// Thread rule: one thread adds (a plain load and store: no locked instruction on the hot path), any thread
// reads. TopKeys has a rule of its own.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/time.h"
#include "daemon/top_keys.h"

namespace tally {

class Count {
 public:
  void add(uint64_t n = 1) { n_.store(n_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed); }
  void subtract(uint64_t n = 1) {
    n_.store(n_.load(std::memory_order_relaxed) - n, std::memory_order_relaxed);
  }
  uint64_t value() const { return n_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> n_{0};
};

// Buckets at powers of two of a microsecond: 1 us, 2 us, ... 2^23 us (8.4 s), then the rest.
class TimeHistogram {
 public:
  static constexpr size_t kBounds = 24;
  static constexpr double upper_seconds(size_t i) { return 1e-6 * static_cast<double>(uint64_t{1} << i); }

  void observe(Duration d, uint64_t times = 1) {
    const auto us = static_cast<uint64_t>((nanos(d) > 0 ? nanos(d) : 0) + 999) / 1000;
    const size_t i = us <= 1 ? 0 : static_cast<size_t>(64 - __builtin_clzll(us - 1));
    buckets_[i < kBounds ? i : kBounds].add(times);
    sum_ns_.add(static_cast<uint64_t>(nanos(d) > 0 ? nanos(d) : 0) * times);
  }
  uint64_t bucket(size_t i) const { return buckets_[i].value(); }  // i in [0, kBounds]; not cumulative
  double sum_seconds() const { return 1e-9 * static_cast<double>(sum_ns_.value()); }

 private:
  std::array<Count, kBounds + 1> buckets_;
  Count sum_ns_;
};

enum class Outcome : uint8_t { admitted, limited, no_grant, isolated, shadow_limited, blocked, exempt };
inline constexpr size_t kOutcomes = 7;
inline constexpr const char* kOutcomeNames[kOutcomes] = {"admitted",       "limited", "no_grant", "isolated",
                                                         "shadow_limited", "blocked", "exempt"};

// How applications ask.
enum class Protocol : uint8_t { resp, http };
inline constexpr size_t kProtocols = 2;
inline constexpr const char* kProtocolNames[kProtocols] = {"resp", "http"};

// Why a client was turned away or a request denied, beside the faults in the commands themselves
// (resp::Fault).
enum class Trouble : uint8_t { connections_full, waiting_full, calls_full, lease_passed, slow_client };
inline constexpr size_t kTroubles = 5;
inline constexpr const char* kTroubleNames[kTroubles] = {"connections_full", "waiting_full", "calls_full",
                                                         "lease_passed", "slow_client"};
inline constexpr size_t kFaults = 6;  // of resp::Fault, none included

// By rule id. It may grow while it is counted in: what is there never moves.
//
// Thread rule: grow() from one thread at a time; whoever uses a rule's counters was told of the rule after that.
class RuleCounters {
 public:
  struct PerRule {
    std::array<Count, kOutcomes> outcome;
    Count leased, put_back;  // by processes that admit by themselves
    Count isolated;  // of all of these: decided while the key's owner could not be asked
  };
  explicit RuleCounters(size_t rules) { grow(rules); }
  RuleCounters(const RuleCounters&) = delete;
  RuleCounters& operator=(const RuleCounters&) = delete;

  void grow(size_t rules) {  // at most 65,536
    for (size_t i = 0; i * kChunk < rules; ++i)
      if (chunks_[i] == nullptr) chunks_[i] = std::make_unique<PerRule[]>(kChunk);
  }
  PerRule& operator[](uint16_t rule) { return chunks_[rule / kChunk][rule % kChunk]; }

 private:
  static constexpr size_t kChunk = 256;
  std::array<std::unique_ptr<PerRule[]>, 65'536 / kChunk> chunks_;
};

// Of the gRPC door, which is no worker's.
struct GrpcCounts {
  uint64_t answered = 0;
  uint64_t invalid = 0;      // of these: refused for what they asked
  uint64_t connections = 0;  // now open
};

struct WorkerCounters {
  explicit WorkerCounters(size_t rules) : decisions(rules) {}

  void decided(uint16_t rule, Outcome outcome) {
    decisions[rule].outcome[static_cast<size_t>(outcome)].add();
  }
  void failed(Trouble trouble) { troubles[static_cast<size_t>(trouble)].add(); }
  Count& requests_of(Protocol protocol) { return requests[static_cast<size_t>(protocol)]; }
  Count& connections_of(Protocol protocol) { return connections[static_cast<size_t>(protocol)]; }

  RuleCounters decisions;
  Count unknown_rule;
  std::array<Count, kProtocols> requests;
  std::array<Count, kFaults> faults;
  std::array<Count, kTroubles> troubles;
  std::array<Count, kProtocols> connections;  // now open
  Count waiting;      // now parked
  TimeHistogram batch;
  TimeHistogram staleness;  // of one decision in many: how long ago the key's owner was heard
  TimeHistogram waited_granted, waited_denied, waited_dropped;
  Count wakes_overflowed;
  TopKeys top;
};

}  // namespace tally
