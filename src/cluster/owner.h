// The owner's part of a node: answers reports from its books, keeps its marks ahead, tells lines when room comes back.
//
// Thread rule: the cluster thread's.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/time.h"
#include "cluster/boxed.h"
#include "cluster/bucket_book.h"
#include "cluster/key_table.h"
#include "cluster/mail.h"
#include "cluster/pace.h"
#include "cluster/peers.h"
#include "cluster/registers.h"
#include "cluster/resets.h"
#include "cluster/roster.h"
#include "cluster/standing.h"
#include "cluster/succession.h"
#include "cluster/upstream.h"
#include "cluster/window_book.h"
#include "core/rules.h"
#include "core/windows.h"

namespace tally {

using KeyLimits = std::unordered_map<WireId, uint32_t>;

// What every part of a node sees of the rest. The node owns all of it.
struct Surroundings {
  const Roster& roster;
  const std::shared_ptr<const RuleSet>& rules;  // the node's, which change
  Peers& peers;
  Standing& standing;
  const Succession& succession;
  Registers& registers;
  const Resets& resets;
  const KeyLimits& key_limits;  // of keys that an operator has given another limit than their rule's
  Mail& mail;
  const Pace& pace;  // the node's, which changes
  Duration lease;
  uint16_t self;
  uint64_t incarnation;
  Upstream* upstream;  // nullptr: this fleet is the highest level
  bool region;         // what this node takes is a region's, which issues it

  std::optional<uint32_t> ordered_limit(const WireId& id) const {
    if (key_limits.empty()) return std::nullopt;
    const auto found = key_limits.find(id);
    return found == key_limits.end() ? std::nullopt : std::optional(found->second);
  }
  // A link or a group is far where a round trip takes more than an eighth of the sync interval.
  bool far(Duration round_trip) const { return round_trip * 8 > pace.sync_interval; }
  // How long a report's demand counts.
  Duration recent() const { return pace.sync_interval * 3 + std::chrono::milliseconds(50); }
  // How long it counts in the shares that others are told. Longer than it takes to see that the group's majority is gone: those
  // who are cut off together are not told shares of the demand on their side alone.
  Duration shares_for() const { return pace.isolation_after / 2 + recent(); }
  // A reset's number is a wall clock; one from far ahead would stand in the way of all that come.
  bool plausible_reset(uint64_t number, Now now) const {
    return number <= static_cast<uint64_t>(nanos(now.wall + std::chrono::hours(24)));
  }
  // A window must be long enough to ask and be answered a few times, else there are only floors.
  bool can_lease(const Terms& terms, Duration round_trip) const {
    return terms.algorithm == Algorithm::token_bucket || terms.window >= (pace.sync_interval + round_trip) * 4;
  }
};

class Owner {
 public:
  Owner(Surroundings around, size_t keys_max, MonoTime started);

  // Before one of these is called for several keys, for all of them (kPrefetchSteps; key_table.h).
  void prefetch(const WireId& key, int64_t window, int step) const;
  void on_report(const Report& report, const Origin& from, Now now);
  void on_accepted(const Accepted& accepted, uint16_t from, Now now);
  // This node's own register has promised `ballot` to another: lower books stop.
  void on_promise(const WireId& key, int64_t window, Ballot ballot, Now now);
  // Claims (key, window), whoever holds it; harmless at any time. False where the key is not known here.
  bool claim(const WireId& key, int64_t window, Now now);
  void on_reset(const WireId& key, uint64_t number, Now now);
  uint64_t reset_of(const WireId& key) const;     // the highest number heard; 0: none
  uint64_t reset_taken(const WireId& key) const;  // of those that the books of a bucket were emptied for; 0: none
  // Another list of nodes rules: drops what is kept under the one before where that had another group.
  void on_turn(Now now);
  // More of it may be had from the level above.
  void on_woken(const WireId& key, Now now);
  void use_rules();    // those of the surroundings are others
  void use_limit(const WireId& key, Now now);  // likewise: the key's limit by an order
  void use_pace();     // likewise
  void tick(Now now);  // every sync interval

  struct View {  // for EXPLAIN; amounts in tokens or costs
    Ballot ballot;
    uint64_t used = 0, mark = 0, outstanding = 0;
  };
  std::optional<View> view(const WireId& key, Now now) const;

  size_t keys() const { return keys_.size(); }
  uint64_t keys_without_majority() const { return without_majority_; }
  uint64_t denied_under_limit() const { return denied_under_limit_; }
  uint64_t marks_accepted() const { return marks_accepted_; }
  uint64_t marks_refused() const { return marks_refused_; }
  uint64_t claims_started() const { return claims_started_; }
  uint64_t claims_won() const { return claims_won_; }
  uint64_t claims_lost() const { return claims_lost_; }
  uint64_t begun_anew() const { return begun_anew_; }  // of those won: where nobody had memory
  // By rule id: of the newest window that is over, the worst key's used / limit - 1, 0 or more.
  std::map<uint16_t, double> overcount_seen() const;
  const std::map<std::string, uint64_t>& dropped() const { return dropped_; }

 private:
  struct Claim {
    Ballot ballot;
    std::array<std::optional<Accepted>, kGroupMax> promises;  // by place in the group
    Lives forgotten_by{};  // who has no memory of the window
    bool anew = false;     // nobody has: it is claimed from those lives, all of them
    MonoTime began{}, sent{};
    Duration span{0};  // of a bucket, when it began: its promises prove so much
  };
  // What is known of who owns (key, window), where it is not simply the natural owner.
  struct Contest {
    int64_t window = 0;
    Ballot highest;         // heard from anywhere
    MonoTime not_before{};  // of the next claim
    std::optional<Claim> claim;
  };
  struct Key {
    WireId id;
    Terms terms;  // limit and overcount: of the newest report, where this node has no such rule itself
    Groups groups;
    OnAmnesia on_amnesia = OnAmnesia::deny;
    uint32_t stated = 0;  // the limit in the newest report
    MonoTime newest_until{};  // after an order, until then: books go by it, where this node has no such rule itself
    const Rule* rule = nullptr;  // nullptr: a rule that this node does not have, or whose limits come with each call
    uint64_t reset = 0;   // the highest number heard
    MonoTime reset_at{};  // when; none: before these books were
    WallTime born{};
    bool resets_it(uint64_t number) const {  // else it is from before these books
      return number >= static_cast<uint64_t>(std::max<int64_t>(0, nanos(born)));
    }
    MonoTime touched{};
    bool active = false;
    int64_t rests_in = 0;  // the window in whose books a tick has nothing to do until something comes; 0: none
    std::array<Boxed<WindowBook>, 4> books;  // by window number mod 4
    Boxed<BucketBook> bucket;
    MonoTime forgot{};  // when books of the bucket were dropped last
    std::vector<Contest> contests;  // of windows that are not over
    MonoTime cut_off{};             // when it was in use here last and no majority of the group was heard

    bool has_books(int64_t window) const {  // 0: of a bucket
      const auto& b = books[static_cast<size_t>(window & 3)];
      return window == 0 ? bucket.has_value() : b && b->window() == window;
    }
    WindowBook* book(int64_t window) {
      auto& b = books[static_cast<size_t>(window & 3)];
      return b && b->window() == window ? &*b : nullptr;
    }
  };

  Key* key_for(const Report& report, Now now);
  WindowBook* open_book(Key& key, int64_t window, Now now);
  WindowBook& begin_book(Key& key, int64_t window, Ballot ballot, uint64_t base);
  static Duration span_of(const Terms& terms) { return terms.emission * static_cast<int64_t>(terms.limit); }
  // V: how long members keep a bucket's register, and have no vote where they forgot it. By the longest lease that any owner may
  // give, whatever its sync interval.
  Duration keep_of(Duration span) const { return bucket_keep(span, around_.lease); }
  Duration lease_of(const Terms& terms) const { return lease_for(span_of(terms), around_.lease, around_.pace.sync_interval); }
  // A bucket's line that holds no lease and is not heard for longer is forgotten.
  Duration line_kept() const { return around_.recent() + around_.lease; }
  const Group& group(const Key& key, int64_t window) const { return around_.succession.group(key.groups, window, key.terms.window); }
  // Of its running window.
  const Group& group(const Key& key) const {
    const bool bucket = key.terms.algorithm == Algorithm::token_bucket;
    return group(key, bucket ? 0 : window_at(around_.standing.clock(), key.terms.window));
  }
  // Whether ballot 0 is this node's own there.
  bool natural(const Key& key, int64_t window) const {
    return group(key, window).rank[0] == around_.self && around_.succession.natural(key.groups);
  }
  Duration overdue(const Key& key) const {  // what a member has not answered by then is sent again
    return around_.peers.group_round_trip(group(key)) * 2 + std::chrono::milliseconds(2);
  }
  // Claims (owner_claims.cc).
  Contest& contest(Key& key, int64_t window);
  static const Contest* find_contest(const Key& key, int64_t window);
  Ballot highest_ballot(const Key& key, int64_t window, Now now) const;
  std::optional<uint16_t> holder(const Key& key, int64_t window, Now now) const;
  void heard_ballot(Key& key, int64_t window, Ballot ballot, Now now, bool claim_refused = false);
  bool plausible(const Key& key, int64_t window) const;
  bool may_claim(const Key& key, int64_t window) const;
  void claim_if_lost(Key& key, int64_t window, bool insists, Now now);
  bool is_lost(uint16_t rank, Now now);
  void start_claim(Key& key, int64_t window, Now now);
  void send_claim(Key& key, int64_t window, Now now);
  void resend_claim(Key& key, int64_t window, Now now);
  void take_promise(Key& key, const Accepted& accepted, size_t index, Now now);
  void take_forgotten(Key& key, const Accepted& accepted, size_t index, Now now);
  void drop_bucket(Key& key, Now now);
  void drop_bucket_if_over(Key& key, Now now);

  // With a level above (owner_upstream.cc).
  void draw(Key& key, WindowBook& book, uint64_t wanted, Now now);
  void ask_above(Key& key, WindowBook& book, Now now);
  void ask_above(const Key& key, Above& above, uint64_t missing, uint64_t waiting_min, Now now);
  void put_back(Key& key, WindowBook& book, Now now);
  WindowBook& rebase(Key& key, WindowBook& book, Ballot heard);
  BucketBook& begin_bucket_below(Key& key, Ballot ballot, const BucketBook::AboveLease& above, Now now);
  void look_above_bucket(Key& key, Ballot heard, Now now);
  void draw_bucket(Key& key, const BucketBook::Leased& leased, Now now);
  void ask_above_bucket(Key& key, Now now);
  void tick_bucket_below(Key& key, Now now);
  // From 1 to `spread`. Counters of ballots begin and step by chance there, so that no two lives give one ballot to different books.
  uint32_t by_chance(uint32_t spread);
  static constexpr uint32_t kFirstSpread = 1u << 30, kStepSpread = 1u << 20;

  void report_window(Key& key, const Report& report, const Origin& from, Now now);
  void report_bucket(Key& key, const Report& report, const Origin& from, Now now);
  uint64_t issue(Key& key, WindowBook& book, Line& line, Now now);
  bool says_exhausted(const Key& key, const WindowBook& book, Now now) const;
  void send_grant(Key& key, WindowBook& book, Line& line, uint64_t stamp, Now now);
  uint64_t issue_bucket(Key& key, BucketBook::Leased& leased, Now now);
  void send_bucket_grant(Key& key, BucketBook::Leased& leased, uint64_t stamp, Now now);
  void refuse(const Key& key, const Report& report, const Origin& from, Now now);
  void serve_turned_away(Key& key, WindowBook& book, Now now);
  void resend_mark(Key& key, WindowBook& book, Now now);
  void serve_turned_away_bucket(Key& key, Now now);
  void tell(const Line& line, const Grant& grant);
  void nudge_holders(Key& key, WindowBook& book, Now now);
  void raise_mark(Key& key, WindowBook& book, Now now, uint64_t ahead);
  void raise_mark_bucket(Key& key, Now now);
  void send_mark(Key& key, WindowBook& book, Now now);
  void send_mark_bucket(Key& key, Now now);
  void send_to_group(Key& key, const Mark& mark, Now now);
  void take_acceptance(Key& key, const Accepted& accepted, size_t index, Now now);
  void count_previous(Key& key, WindowBook& book);
  static bool rests(const WindowBook& book);
  bool rests(const Key& key, Now now) const;
  void tick_windows(Key& key, Now now);
  void tick_bucket(Key& key, Now now);
  void look_to_next_window(Key& key, WindowBook& book, Now now);
  void retire(Key& key);
  bool group_lives(const Key& key, Now now) const;
  template <typename Book>
  bool backed(const Key& key, const Book& book, Now now) const {
    if (book.above()) return !book.above()->isolated;
    const bool stuck = book.mark_pending() && now.mono - book.pending_since() > around_.pace.isolation_after / 2;
    return !stuck && group_lives(key, now);
  }
  void lower_limit(Key& key);
  void hear_limit(const Key& key, WindowBook& book, uint32_t stated, Now now);
  void activate(Key& key);
  void expire(Now now);
  MonoTime look_again(const Key& key, Now now) const;

  Surroundings around_;
  const MonoTime started_;
  const size_t keys_max_;
  KeyTable<WireId, Key> keys_;
  std::vector<WireId> active_;
  uint64_t chances_ = 0;
  uint64_t numbers_;  // leases and bucket marks are numbered above this: never twice, in no life
  uint64_t without_majority_ = 0;
  uint64_t denied_under_limit_ = 0;
  uint64_t marks_accepted_ = 0, marks_refused_ = 0;
  uint64_t claims_started_ = 0, claims_won_ = 0, claims_lost_ = 0, begun_anew_ = 0;
  struct Seen {
    int64_t window = 0;
    double ratio = 0;
  };
  std::map<uint16_t, Seen> overcount_seen_;
  std::map<std::string, uint64_t> dropped_;
};

}  // namespace tally
