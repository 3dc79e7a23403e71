// Where the owners of a region get what they issue: from an account of their own one level up. Beside the region's own Node a
// host has a second one, a lessee of the level above; what that is granted is drawn here, as an application takes it, and
// issued below.
//
// Thread rule: the cluster thread's.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "base/time.h"
#include "cluster/wire.h"
#include "core/limiter.h"
#include "core/rules.h"

namespace tally {

class Node;

class Upstream {
 public:
  // `above` is this host in the level above and spends from `limiter`, which no worker touches; `rules` are those of that
  // level, with a wait of some round trips there. The first two outlive this.
  Upstream(Node& above, Limiter& limiter, std::shared_ptr<const RuleSet> rules);

  // Goes by these from now on; `above` was told of them.
  void use(std::shared_ptr<const RuleSet> rules) { rules_ = std::move(rules); }

  // Amounts in costs; a bucket's in nanoseconds of emission.
  struct Drawn {
    uint64_t amount = 0;
    uint64_t left = 0;         // of the limit, still to be had above, as far as is known
    bool over = false;         // the limit is used up; for at least:
    Duration retry_after{0};
    bool isolated = false;     // nobody above can be asked
    uint64_t lease = 0;        // a bucket's: of which lease it was drawn, 0 where none runs, and when that ends
    MonoTime lease_end{};
  };
  // Takes up to `wanted` in the window that runs now: of the rule of that name above, of `terms` where there is none (a limit
  // that came with a call).
  Drawn draw(const WireId& key, const Rule* rule, const Terms& terms, uint64_t wanted, Now now);
  // Tells the level above that so much more is missing here, of use in requests of `cost` only. Returns for how long it has been
  // told: the wait of the rule above.
  Duration ask(const WireId& key, const Rule* rule, const Terms& terms, uint64_t missing, uint64_t cost, Now now);
  // Gives back what was drawn in the window that runs now, or of the running lease. Returns how much that was.
  uint64_t put_back(const WireId& key, const Rule* rule, const Terms& terms, uint64_t amount, Now now);
  // Of what was drawn of a bucket's running lease that much is spent; and that much that was spent is given back.
  void spent(const WireId& key, uint64_t amount);
  void refund(const WireId& key, const Rule* rule, const Terms& terms, uint64_t amount, Now now);
  // Keys of which more may be had now.
  std::vector<WireId> take_woken();
  // Whether something was said to `above` since the last call: it is to be flushed.
  bool take_news() { return std::exchange(news_, false); }

 private:
  // The rule above and a limit of it; nullptr where that shares nothing with the one below.
  struct Form {
    const Rule* rule = nullptr;
    Limit limit;
  };
  Form form_above(const Rule* rule, const Terms& terms) const;
  uint64_t give(const Form& form, const WireId& key, uint64_t cost, Now now);
  void note(Note::Kind kind, const Form& form, const WireId& key, uint64_t cost, uint64_t requests, Now now);

  Node& above_;
  Limiter& limiter_;
  std::shared_ptr<const RuleSet> rules_;
  bool news_ = false;
};

}  // namespace tally
