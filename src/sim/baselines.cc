#include "sim/baselines.h"

#include <deque>
#include <memory>

#include "base/random.h"
#include "core/limiter.h"
#include "core/windows.h"

namespace tally::sim {
namespace {

// tallyd's own limiter on a node alone, with one key.
class Plain {
 public:
  Plain(const Limit& limit, const ModelTerms& terms)
      : rules_({rule_of(limit)}, inline_rule(), Share{0, 1}, kPublicIdKey),
        slots_(16, terms.seed, false),
        limiter_(slots_, false),
        epoch_(terms.epoch) {}

  bool take(uint32_t cost, Duration at) {
    const Rule& rule = rules_.by_id(0);
    const Ask ask{&rule, &rule.limit, "k", limiter_.hash(rule, "k"), cost};
    const Now now{MonoTime(std::chrono::hours(24 * 366)) + at, epoch_ + at};
    return limiter_.take(ask, now, nullptr).verdict == Verdict::admitted;
  }

 private:
  static Rule rule_of(const Limit& limit) {
    Rule rule;
    rule.name.assign(1, 'r');  // g++ 12 mistakes the assignment of a literal (bug 105329)
    rule.limit = limit;
    return rule;
  }
  static Rule inline_rule() {
    Rule rule;
    rule.name = kInlineRule;
    return rule;
  }
  RuleSet rules_;
  SlotTable slots_;
  Limiter limiter_;
  WallTime epoch_;
};

Decisions by_one(const ModelTerms& terms, std::span<const Arrival> arrivals, Duration decided_after) {
  Decisions out;
  out.decided_after = decided_after;
  out.admitted.reserve(arrivals.size());
  Plain limiter(terms.limit, terms);
  for (const Arrival& a : arrivals) out.admitted.push_back(limiter.take(a.cost, a.at + decided_after));
  return out;
}

// Limiters by node; nullptr: that node admits nothing.
Decisions by_each(std::span<const Arrival> arrivals, const std::vector<std::unique_ptr<Plain>>& limiters) {
  Decisions out;
  out.admitted.reserve(arrivals.size());
  for (const Arrival& a : arrivals)
    out.admitted.push_back(limiters[a.node] != nullptr && limiters[a.node]->take(a.cost, a.at));
  return out;
}

// What one host says of itself: its sums in the two newest windows by parity; a bucket: all that it ever
// admitted, in the first. Only grows, so that a lost one is made good by the next.
struct Sum {
  int64_t window = 0;
  uint64_t count = 0;
};
struct Sums {
  Sum of[2];
  uint64_t in(int64_t window) const {
    const Sum& sum = of[window & 1];
    return sum.window == window ? sum.count : 0;
  }
  void add(int64_t window, uint64_t cost) {
    Sum& sum = of[window & 1];
    sum = {window, in(window) + cost};
  }
};

// The hosts of gossiped_sums.
class Gossipers {
 public:
  explicit Gossipers(const ModelTerms& terms)
      : terms_(terms), random_(terms.seed), hosts_(terms.nodes), known_(size_t{terms.nodes} * terms.nodes) {
    for (Host& host : hosts_) host.told.resize(terms.nodes);
  }

  bool ask(uint16_t node, uint32_t cost, Duration at) {
    run_until(at);
    const bool admitted = terms_.limit.algorithm == Algorithm::token_bucket
                              ? fits_bucket(hosts_[node], cost, at)
                              : fits_window(node, cost, at);
    if (!admitted) return false;
    known(node, node).add(window_of(at), cost);
    ++hosts_[node].changes;
    return true;
  }

 private:
  struct Host {
    uint64_t changes = 0;
    uint64_t told_all = 0;       // the changes that everybody was told
    std::vector<uint64_t> told;  // by host: the changes that it was told
    Duration tat{0};             // buckets
  };
  struct Message {
    Duration arrives;
    uint16_t from, to;
    Sums sums;
  };

  // What `node` knows that `of` admitted.
  Sums& known(uint16_t node, uint16_t of) { return known_[size_t{node} * terms_.nodes + of]; }

  int64_t window_of(Duration at) const {
    return terms_.limit.algorithm == Algorithm::token_bucket
               ? 0
               : window_at(terms_.epoch + at, terms_.limit.window);
  }

  bool fits_window(uint16_t node, uint32_t cost, Duration at) {
    const Limit& limit = terms_.limit;
    const int64_t window = window_of(at);
    uint64_t sum = cost, before = 0;
    for (uint16_t of = 0; of < terms_.nodes; ++of) {
      sum += known(node, of).in(window);
      before += known(node, of).in(window - 1);
    }
    if (limit.algorithm == Algorithm::sliding_window)
      sum += carried_over(static_cast<uint32_t>(before), elapsed_in_window(terms_.epoch + at, limit.window),
                          limit.window);
    return sum <= limit.limit;
  }

  bool fits_bucket(Host& host, uint32_t cost, Duration at) {
    const Duration after = std::max(host.tat, at) + terms_.limit.emission * int64_t{cost};
    if (after - at > terms_.limit.burst_span()) return false;
    host.tat = after;
    return true;
  }

  // Ticks and deliveries up to `at`, included; at one instant deliveries come first.
  void run_until(Duration at) {
    while (true) {
      const Duration tick = terms_.sync_interval * static_cast<int64_t>(ticks_) / int64_t{terms_.nodes};
      const bool delivers = !on_way_.empty() && on_way_.front().arrives <= tick;
      const Duration next = delivers ? on_way_.front().arrives : tick;
      if (next > at) return;
      if (delivers) {
        deliver(on_way_.front());
        on_way_.pop_front();
      } else {
        tell(static_cast<uint16_t>(ticks_ % terms_.nodes), tick);
        ++ticks_;
      }
    }
  }

  // Nobody who has heard the newest is told it again, which would change nothing.
  void tell(uint16_t from, Duration now) {
    Host& host = hosts_[from];
    if (host.told_all == host.changes) return;
    bool all = true;
    for (uint16_t to = 0; to < terms_.nodes; ++to) {
      if (to == from || host.told[to] == host.changes) continue;
      if (random_.chance(terms_.loss)) {
        all = false;
        continue;
      }
      host.told[to] = host.changes;
      on_way_.push_back({now + terms_.round_trip / 2, from, to, known(from, from)});
    }
    if (all) host.told_all = host.changes;
  }

  void deliver(const Message& m) {
    Sums& sums = known(m.to, m.from);
    if (terms_.limit.algorithm == Algorithm::token_bucket) {
      Duration& tat = hosts_[m.to].tat;
      const auto news = static_cast<int64_t>(m.sums.in(0) - sums.in(0));
      tat = std::max(tat, m.arrives) + terms_.limit.emission * news;
    }
    sums = m.sums;
  }

  const ModelTerms& terms_;
  Random random_;
  std::vector<Host> hosts_;
  std::vector<Sums> known_;
  std::deque<Message> on_way_;  // all take equally long, so the first sent is the first there
  uint64_t ticks_ = 0;          // of all hosts, in turn
};

}  // namespace

Decisions exact(const ModelTerms& terms, std::span<const Arrival> arrivals) {
  return by_one(terms, arrivals, Duration(0));
}

Decisions each_alone(const ModelTerms& terms, std::span<const Arrival> arrivals) {
  std::vector<std::unique_ptr<Plain>> limiters;
  for (uint16_t node = 0; node < terms.nodes; ++node)
    limiters.push_back(std::make_unique<Plain>(terms.limit, terms));
  return by_each(arrivals, limiters);
}

Decisions equal_parts(const ModelTerms& terms, std::span<const Arrival> arrivals) {
  std::vector<std::unique_ptr<Plain>> limiters;
  for (uint16_t node = 0; node < terms.nodes; ++node) {
    Limit part = terms.limit;
    part.limit = terms.limit.limit / terms.nodes + (node < terms.limit.limit % terms.nodes ? 1 : 0);
    part.emission *= int64_t{terms.nodes};
    limiters.push_back(part.limit == 0 ? nullptr : std::make_unique<Plain>(part, terms));
  }
  return by_each(arrivals, limiters);
}

Decisions shared_store(const ModelTerms& terms, std::span<const Arrival> arrivals) {
  Decisions out = by_one(terms, arrivals, terms.round_trip / 2);
  out.answered_after = terms.round_trip;
  return out;
}

Decisions gossiped_sums(const ModelTerms& terms, std::span<const Arrival> arrivals) {
  Decisions out;
  out.admitted.reserve(arrivals.size());
  Gossipers gossipers(terms);
  for (const Arrival& a : arrivals) out.admitted.push_back(gossipers.ask(a.node, a.cost, a.at));
  return out;
}

}  // namespace tally::sim
