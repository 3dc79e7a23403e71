// What an aggregator of a region is one level up: a guest of the aggregators there, whose ceiling its owner draws from
// (cluster/upstream.h).
//
// Thread rule: the cluster thread's after construction.
#pragma once

#include <memory>
#include <vector>

#include "cluster/upstream.h"
#include "core/limiter.h"
#include "core/slots.h"
#include "daemon/link.h"

namespace tally {

class Region {
 public:
  // `config`: this node's above, a guest's. `below`: the region's rules.
  Region(NodeConfig config, const RuleSet& below, Link::Sockets sockets, PeerSeal seal, size_t keys, uint64_t seed, Now now);

  Upstream& upstream() { return *upstream_; }
  Link& link() { return *link_; }
  void use(const RuleSet& below, Now now);
  void use(const Pace& pace, Now now) { link_->node().use(pace, now); }

 private:
  const IdKey id_key_;
  std::shared_ptr<const RuleSet> rules_;
  SlotTable slots_;
  Limiter limiter_;
  std::unique_ptr<Link> link_;
  std::unique_ptr<Upstream> upstream_;
};

}  // namespace tally
