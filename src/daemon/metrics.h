// The metrics of interface names, summed when somebody asks.
//
// Thread rule: Collect() from one thread at a time (the admin thread); it reads the workers' counters and
// asks the cluster thread for a copy of its own. A key is never a label.
#pragma once

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "daemon/fleet.h"
#include "daemon/overview.h"

namespace tally {

class Metrics : public prometheus::Collectable {
 public:
  // `fleet`: nullptr alone. `registers_max`: limits.registers.
  Metrics(const Overview& overview, Fleet* fleet, uint64_t registers_max)
      : overview_(overview), fleet_(fleet), registers_max_(registers_max) {}

  std::vector<prometheus::MetricFamily> Collect() const override;
  std::string text() const;  // the exposition format

 private:
  std::optional<ClusterThread::View> view() const;

  const Overview& overview_;
  Fleet* const fleet_;
  const uint64_t registers_max_;
};

}  // namespace tally
