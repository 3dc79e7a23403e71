// A little grammar for metric families, and what Linux tells about this process.
//
// Thread rule: pure, but for reading /proc.
#pragma once

#include <prometheus/metric_family.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace tally {

enum class MetricKind : uint8_t { counter, gauge, histogram };
using Labels = std::vector<prometheus::ClientMetric::Label>;

// Appends a family to `all` and metrics to the family. Valid as long as `all` lives: found by place, since
// `all` may grow.
class Family {
 public:
  Family(std::vector<prometheus::MetricFamily>& all, std::string name, std::string help, MetricKind kind);
  Family& add(Labels labels, double value);
  Family& add(Labels labels, uint64_t value) { return add(std::move(labels), static_cast<double>(value)); }
  Family& add(prometheus::ClientMetric metric);

 private:
  std::vector<prometheus::MetricFamily>& all_;
  const size_t place_;
  const MetricKind kind_;
};

// process_cpu_seconds_total, process_resident_memory_bytes, ... as the Prometheus client libraries name them.
void add_process(std::vector<prometheus::MetricFamily>& all);

}  // namespace tally
