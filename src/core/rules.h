// Rules: named limits, immutable once built.
//
// Thread rule: a RuleSet never changes after construction and is shared by pointer to const.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/hash.h"
#include "base/time.h"

namespace tally {

enum class Algorithm : uint8_t { sliding_window, fixed_window, token_bucket };
enum class OnIsolation : uint8_t { share, open, closed };
enum class OnAmnesia : uint8_t { forget, deny };
// Who decides: the node, from what it was granted; or, for each request, the Redis that has the fleet's books.
enum class Mode : uint8_t { leased, central };

inline constexpr uint32_t kLimitMax = uint32_t{1} << 31;
inline constexpr Duration kWindowMin = std::chrono::milliseconds(10);
inline constexpr Duration kWindowMax = std::chrono::hours(24 * 366);
inline constexpr uint32_t kPartsPerMillion = 1'000'000;
inline constexpr std::string_view kInlineRule = "(inline)";

// The part e of a limit that the fleet may admit on top of it. Counted in millionths, so that every node
// computes the same whole numbers. Above 100 % a bound means nothing better than `unbounded` does.
struct Overcount {
  uint32_t ppm = 50'000;  // 0 (strict) to 1,000,000
  bool unbounded = false;
  friend bool operator==(const Overcount&, const Overcount&) = default;
};

// floor(e * L); 0 for a strict rule. Requires a bounded e.
constexpr uint32_t overcount_budget(uint32_t limit, Overcount e) {
  return static_cast<uint32_t>(uint64_t{limit} * e.ppm / kPartsPerMillion);
}

// A node's place in the split of the overcount budget: `rank` in [0, size); at or above `size`: it has no part. A fleet of one
// has size 1. While a list of nodes replaces another a node has the smaller of its parts in both.
struct Share {
  uint32_t rank = 0;
  uint32_t size = 1;
  struct Place {
    uint32_t rank = 0, size = 0;
  };
  Place before{};  // in the list before; size 0: there is none
  Share in_before() const { return {before.rank, before.size, {}}; }
};

// What this node may admit without a word to anyone: its part of floor(e * L), split exactly over `size`
// nodes, the remainder by rank; 0 in a fleet of one (which needs none), and for a rank at or above `size`; L
// where unbounded.
uint32_t floor_of(uint32_t limit, Overcount e, Share share);

// The numbers behind a decision. For a window: `limit` per `window`. For a token bucket: `limit` is the
// burst, one token comes back every `emission`, and `window` is 0.
struct Limit {
  Algorithm algorithm = Algorithm::sliding_window;
  uint32_t limit = 1;    // 1 to kLimitMax
  uint32_t floor = 0;    // floor_of for this node; for a bucket in tokens
  Duration window{0};    // windows only: kWindowMin to kWindowMax; of a fixed window also kWeek, kMonth or kYear (calendar.h)
  Duration emission{0};  // buckets only: rate_period / rate_count rounded up to a whole nanosecond
  Duration floor_emission{
      0};  // buckets only: emission * size / e, the emission of this node's floor bucket; 0: no floor

  Duration burst_span() const { return emission * static_cast<int64_t>(limit); }  // burst / rate
  friend bool operator==(const Limit&, const Limit&) = default;
};

// The largest burst / rate of a bucket: 2^55 ns (417 days), so that a lease's amount fits its 56 bits.
inline constexpr Duration kBurstSpanMax{int64_t{1} << 55};

// Which requests a rule is for, where they are described and not named, as Envoy does: one path of a tree of descriptors. A descriptor of
// the domain has to have as many entries, with these keys in this order, and these values.
struct Match {
  struct Entry {
    std::string key;
    std::optional<std::string> value;  // "/login": this one; "/api/*": all that begin so; nullopt: any
    friend bool operator==(const Entry&, const Entry&) = default;
  };
  std::string domain;
  std::vector<Entry> descriptors;  // empty: the rule is asked for by its name alone
  friend bool operator==(const Match&, const Match&) = default;
};
inline constexpr size_t kMatchEntriesMax = 16;  // of one path

class Overrides;  // overrides.h
class Matcher;    // matcher.h

// What an override makes of a key.
enum class Treatment : uint8_t {
  limited,  // there is a limit
  exempt,   // all is admitted, and nothing counted
  blocked,  // nothing is admitted
};

// What holds for a key of a rule. Valid as long as the rule.
struct Applied {
  const Limit* limit = nullptr;  // the key's own, or else the rule's; exempt or blocked: the rule's
  Treatment treatment = Treatment::limited;
};

struct Rule {
  std::string name;
  uint16_t id = 0;  // in all RuleSets of this process that follow each other
  Limit limit;
  uint32_t rate_count = 0;  // buckets: rate_count tokens per rate_period, as configured
  Duration rate_period{0};
  Overcount max_overcount;
  OnIsolation on_isolation = OnIsolation::share;
  OnAmnesia on_amnesia = OnAmnesia::forget;
  Mode mode = Mode::leased;  // central: max_overcount means nothing, the count is exact
  Duration wait = std::chrono::milliseconds(20);  // 0: never wait
  bool shadow = false;
  // Buckets: how long a process may hold tokens that it took for later (Limiter::take_portion); 0: none. All that is spent in a time T was
  // taken in T and this much before, so RuleSet takes that time of the rate off the burst.
  Duration process_hold{0};
  std::vector<std::string> also_names;  // other rules that are taken along under the same key and cost, all or nothing; theirs not
  std::string comment;
  Match match;
  std::shared_ptr<const Overrides> overrides;  // nullptr: the limit holds for every key

  // By the overrides. Every door decides by this.
  Applied for_key(std::string_view key) const {
    if (overrides == nullptr) [[likely]]
      return {&limit};
    return overridden(key);
  }

  // Set by RuleSet.
  std::vector<const Rule*> also;  // also_names; none where the rule is not configured any more
  bool by_slot_alone = true;      // a decision needs one slot and nothing else: no other rule is taken along, and the mode is leased
  uint32_t held = 0;        // buckets: what is taken off the burst, tokens_held of this rule and of those that it follows
  uint64_t seed = 0;        // rule_seed_of(name)
  uint64_t table_seed = 0;  // of name, algorithm and window: a reload that changes these begins new keys
  IdKey id_key{};           // rule_id_key(name, fleet's id key)

 private:
  Applied overridden(std::string_view key) const;
};

// What the floors of a rule are made from: max_overcount; of a central rule, what on_isolation lets nodes admit by themselves while Redis
// does not answer: nothing (closed), one limit in all (share), or one at each (open).
struct FloorTerms {
  Overcount e;
  Share share;
};
FloorTerms floors_by(const Rule& rule, Share share);

// What the fleet may admit in a window at most: L + floor(e*L); where unbounded, size * L; L by a central rule. Isolated adds what
// the policy adds: closed nothing; share one more L; open L for each node. Both saturate at 2^63. `limit`: L of a key with an override.
uint64_t bound_of(const Rule& rule, uint32_t limit, uint32_t size);
uint64_t bound_isolated_of(const Rule& rule, uint32_t limit, uint32_t size);
inline uint64_t bound_of(const Rule& rule, uint32_t size) { return bound_of(rule, rule.limit.limit, size); }
inline uint64_t bound_isolated_of(const Rule& rule, uint32_t size) { return bound_isolated_of(rule, rule.limit.limit, size); }

// Makes the limit's floor and floor_emission those of a node.
void set_floor(Limit& limit, const FloorTerms& terms);

// A limit that came with a call (CL.THROTTLE) under the settings of `rule` (the inline rule).
// Requires burst in [1, kLimitMax], count >= 1, period > 0, burst * period / count <= kBurstSpanMax.
Limit inline_limit(const Rule& rule, Share share, uint32_t burst, uint32_t count, Duration period);

// The rule's limit with `number`, in [1, kLimitMax], in place of its own: of a bucket its burst, no more than kBurstSpanMax has room for.
Limit with_number(const Rule& rule, Share share, uint32_t number);

// What is to be taken off a burst for rule.process_hold: the tokens of that time by a clock that is 3 % slow, rounded up. 0 for windows.
uint32_t tokens_held(const Rule& rule);

// Of one name, whether two rules count the same things: a rule of another form is another rule, whose keys begin anew.
inline bool same_form(const Limit& a, const Limit& b) { return a.algorithm == b.algorithm && a.window == b.window; }

// The rules of one configuration. Never changed: a reload makes the set that follows.
class RuleSet {
 public:
  static constexpr size_t kIdsMax = UINT16_MAX;

  // `rules` in configured order, names unique; `inline_rule` carries only max_overcount, on_isolation,
  // on_amnesia, wait. Fills in id, seed, id_key, limit.floor and limit.floor_emission, also in overrides; takes what processes may hold off
  // the burst, which must be more than that (but not off those of overrides, of which processes get nothing to hold). Each of
  // also_names is in `rules`.
  // `before`: the set that this one follows, if any. Ids go by name: a rule keeps the one it had, also when it was away, and of
  // what is not configured any more the last that was known stays to be found by its id. Requires
  // ids_with(rules, before) <= kIdsMax.
  RuleSet(std::vector<Rule> rules, Rule inline_rule, Share share, const IdKey& id_key, const RuleSet* before = nullptr);
  RuleSet(const RuleSet&) = delete;
  RuleSet& operator=(const RuleSet&) = delete;
  ~RuleSet();
  static size_t ids_with(const std::vector<Rule>& rules, const RuleSet* before);

  const Rule* find(
      std::string_view name) const;  // nullptr where there is none; "(inline)" finds the inline rule
  // By the low 32 bits of Rule::seed, as reports name rules; nullptr where there is none.
  const Rule* by_seed(uint32_t seed) const;
  size_t ids() const { return by_id_.size(); }  // given out so far
  const Rule& by_id(uint16_t id) const { return *by_id_[id]; }
  bool is_retired(uint16_t id) const { return find(by_id_[id]->name) == nullptr; }  // not configured any more
  const Rule& inline_rule() const { return rules_.back(); }
  const std::vector<Rule>& all() const { return rules_; }  // the named ones in order, then the inline rule
  Share share() const { return share_; }
  const Matcher& matcher() const { return *matcher_; }  // of the named ones
  std::string nearest(std::string_view name) const;  // for "did you mean"; "" where nothing is near

 private:
  void keep_ids(const RuleSet& before);

  std::vector<Rule> rules_;    // configured
  std::vector<Rule> retired_;
  std::vector<const Rule*> by_id_;
  std::unordered_map<std::string, Rule*, TextHash, std::equal_to<>> by_name_;  // configured
  std::unique_ptr<const Matcher> matcher_;
  Share share_;
};

}  // namespace tally
