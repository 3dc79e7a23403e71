// The lessee's part of a node: accounts of the keys that this node spends, and the reports that ask for quota.
//
// Thread rule: the cluster thread's. Touches slots only by the calls that SlotTable gives to it.
//
// A key has an account from the first note of it until its windows are over. While its wants stay under its floor the owner
// never hears of it. Then each sync interval, and at once where requests wait or quota runs low, a report tells the owner
// cumulative numbers and an absolute ceiling that is wanted, so that loss, duplication and reordering change nothing.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <queue>
#include <unordered_map>
#include <string>
#include <utility>
#include <vector>

#include "base/time.h"
#include "cluster/key_table.h"
#include "cluster/owner.h"
#include "core/limiter.h"
#include "core/windows.h"

namespace tally {

// A key whose quota, exhaustion or isolation changed: whoever parked requests for it tries them again.
struct Wake {
  KeyHash hash;
};

// What requests of cost `cost` are in the units of an account: costs, or nanoseconds of emission.
constexpr uint64_t amount_of(const Limit& limit, uint64_t cost) {
  return limit.algorithm == Algorithm::token_bucket ? cost * static_cast<uint64_t>(nanos(limit.emission)) : cost;
}

class Lessee {
 public:
  Lessee(Surroundings around, Limiter& limiter, size_t accounts_max, MonoTime started);

  void note(const Note& note, Now now);
  // Before on_grant is called for several keys, for all of them (kPrefetchSteps; key_table.h).
  void prefetch(const WireId& key, int step) const;
  void use_rules();  // those of the surroundings are others
  void use_limit(const WireId& key, Now now);  // likewise: the key's limit by an order
  void books_heard_by(uint16_t rank, std::function<MonoTime(const WireId&)> heard) { books_ = {rank, std::move(heard)}; }  // see Node
  void tell_all(const std::function<bool(const WireId&)>& of);  // at the next tick these accounts report, whatever was acknowledged
  void on_grant(const Grant& grant, const Origin& origin, Now now);
  // A reset that this node has not seen yet: refunds all that it used in this window and the one before, once. A number is
  // the wall clock of the node that was asked (ns); an account that began later has nothing to refund for it.
  // Returns whether there was an account.
  bool on_reset(const WireId& key, uint64_t number, Now now);
  uint64_t reset_of(const WireId& key) const;     // the highest number heard; 0: none
  uint64_t reset_taken(const WireId& key) const;  // of those that the account refunded for; 0: none
  void tick(Now now);              // every sync interval
  void send_urgent(Now now);       // what cannot wait for it; call before mail goes out
  MonoTime next_urgent() const;    // MonoTime::max(): nothing is due
  void leave(Now now);             // returns all that is unspent
  std::vector<Wake> take_wakes() { return std::exchange(wakes_, {}); }

  // GIVE: what this node used is refunded here, the rest travels to the owner. Returns how much was taken back.
  // `only_in`: nothing, where the key is counted in another window.
  uint64_t give(const WireId& key, uint64_t amount, Now now, std::optional<int64_t> only_in = std::nullopt);

  // A bucket's tokens that a region has drawn count as used when the region says so, not before: in a bucket the time counts at
  // which they were spent. Of the running lease; amounts in ns of emission.
  struct RunningLease {
    uint64_t serial = 0;  // never that of another lease
    MonoTime end{};
  };
  std::optional<RunningLease> running_lease(const WireId& key, Now now) const;
  bool goes_by(const WireId& key, uint32_t limit) const;  // the key's account does, now
  void hold(const WireId& key, uint64_t amount);   // drawn just now
  void spent(const WireId& key, uint64_t amount);  // of what is held
  uint64_t put_back(const WireId& key, uint64_t amount, Now now);  // likewise; can be drawn again. Returns how much that was

  struct View {
    uint64_t used = 0, ceiling = 0, used_fleet = 0;  // buckets: in tokens
    Ballot ballot;
    Duration knowledge_age{-1};
    bool isolated = false;
  };
  std::optional<View> view(const WireId& key, Now now) const;

  size_t accounts() const { return accounts_.size(); }
  const std::map<std::string, uint64_t>& dropped() const { return dropped_; }

 private:
  struct WindowAccount {
    int64_t window = -1;  // -1: none
    Ballot ballot;
    NodeId ask = 0;  // whom another member names as the owner; 0: nobody did
    bool has_ballot = false;
    uint32_t floor = 0;         // of the limit as it was when the window began here: rules may change in it
    bool floor_lost = false;    // the key was evicted in this window: its floor was charged to an older line
    uint64_t granted_before = 0;  // under earlier ballots; stays in the ceiling
    uint64_t granted = 0;         // under `ballot`
    uint64_t returned = 0;        // under `ballot`
    uint64_t taken = 0;           // all that returns added to the count, under every ballot
    uint64_t refunded = 0;
    uint64_t given = 0;           // under `ballot`
    uint64_t isolated = 0;        // what the isolation policy added to the ceiling
    uint64_t used_reported = 0, returned_reported = 0;
    uint64_t used_fleet = 0;      // as the owner told; of this node's it knew then at least:
    uint64_t refunded_known = 0, given_known = 0;
    bool contacted = false;       // a report went out
    uint8_t finals = 0;           // final reports sent
    bool final_heard = false;
  };
  struct LeaseAccount {
    Ballot ballot;
    NodeId ask = 0;  // as in WindowAccount
    bool has_ballot = false;
    uint64_t lease = 0;  // the owner's number of the last that was opened under `ballot`; 0: none
    // The highest ever opened, by the owner's place in the groups: none is opened twice, whatever ballots came between.
    std::array<uint64_t, Groups::kPlaces> opened{};
    uint8_t tag = 0;     // in the slot
    uint64_t serial = 0;  // see begin_lease
    uint64_t granted = 0, returned = 0;
    uint64_t held = 0;      // counted in the slot, but not known to be spent: a region's
    uint64_t refunded = 0;  // counted in the slot, and put back
    uint64_t given = 0;
    uint64_t given_known = 0;  // to the owner, when it told `tat_ahead`
    MonoTime end{};
    Duration tat_ahead{0};  // the owner's, when heard
    bool alone = false;     // the running lease is this node's own, issued while isolated
    MonoTime alone_tat{};   // of the bucket that it then keeps for itself
    bool open() const { return lease != 0 || alone; }
    int64_t ceiling() const { return static_cast<int64_t>(std::min<uint64_t>(granted + refunded, LeaseCell::kAmountMax)); }
  };
  // What the oldest report said that is not acknowledged yet: a grant that echoes its stamp, or a later one, does.
  struct Told {
    uint64_t stamp = 0;  // 0: nothing is under way
    int64_t window = 0;
    Ballot ballot;
    uint64_t refunded = 0, given = 0;
    uint32_t changes = 0;
  };
  struct Account {
    WireId id;
    KeyHash hash;
    SlotRef slot;
    const Rule* rule = nullptr;
    Limit limit;
    Terms terms;
    Groups groups;
    uint32_t line = 0;

    double demand = 0;            // cost (buckets: ns) per second: the larger of burst and steady
    double burst = 0, steady = 0;
    uint64_t offered = 0;         // all that was asked for here, as measured
    uint64_t count_seen = 0;      // at the last tick, in window or lease `seen_in`
    int64_t seen_in = 0;
    uint64_t denied = 0;          // starved since the last tick
    uint64_t cost_seen = 1;       // of one request
    MonoTime measured_at{};
    uint64_t waiting = 0, waiting_min = 0;
    uint64_t waiting_young = 0;  // of it: what came in this generation (end_waits)
    MonoTime waiting_turn{};     // when that begins anew; epoch: nothing waits
    MonoTime waiting_until{};
    uint64_t promised = 0;        // to those who were woken, when the count was `promised_at`; see promised_left
    uint64_t promised_at = 0;
    MonoTime promised_until{};

    MonoTime asked_at{};
    bool answered = true;         // with tokens: more may be asked for at once
    Origin heard_from;            // of the newest grant: what came before it and arrives later tells nothing
    Told told;
    uint32_t changes = 0, changes_known = 0;  // what a report has to say that the counts do not show; until acknowledged
    MonoTime ask_not_before{};
    MonoTime unanswered_since{};  // epoch: the owner answers, backed by a majority
    uint8_t refusals = 0;         // since the last grant
    Ballot highest;               // that they told of, in `refused_in`
    int64_t refused_in = 0;
    uint8_t choice = 0;           // whom of the group to ask where no ballot says it: who comes before has not answered
    MonoTime chosen_at{};         // epoch: nothing was asked of that one yet
    MonoTime heard_at{};
    MonoTime exhausted_until{};
    uint8_t pool = 255;
    uint16_t share = 0;           // last demand share, in 1/65535; 0: none known
    bool isolated = false;
    uint64_t reset = 0;           // the highest number heard
    WallTime born{};
    MonoTime busy_at{};           // last change
    bool active = false, urgent = false, idle = false;  // which of the lists it stands in
    bool tell_ahead = false;  // what is held of the next window: books may be lost
    bool tell_used = false;  // the pool is low: what is used is told at once, so that the owner can say `exhausted`
    int64_t finals_over_in = -1;  // while that window runs, no final report is left to be sent; -1: one may be
    // Last, as an account needs but one of the three at a time: only that is waited for (prefetch).
    std::array<WindowAccount, 2> windows;  // by parity
    LeaseAccount lease;

    bool pool_low() const { return pool < 64; }  // a quarter, in 1/255
    void choose_first() { choice = 0, chosen_at = MonoTime{}; }
    bool changed() const { return changes != changes_known; }
    bool resets_it(uint64_t number) const {  // else it is from before this account, which has nothing to refund for it
      return number >= static_cast<uint64_t>(std::max<int64_t>(0, nanos(born)));
    }
    bool bucket() const { return limit.algorithm == Algorithm::token_bucket; }
  };

  Account* account_for(const Note& note, Now now);
  Limit limit_of(const Rule& rule, const WireId& id, const Limit& otherwise) const;
  void adopt_slot(Account& account, SlotRef slot);
  void activate(Account& account);
  void make_urgent(Account& account);
  static void end_waits(Account& account, Now now);
  // What holds of an account while it is looked at, worked out once: which window runs, whom to ask, how far away that is.
  struct Look : Now {
    int64_t running = 0;  // 0: a bucket
    const Group* group = nullptr;
    uint16_t owner = 0;
    Duration trip{0};  // a round trip to the owner
  };
  Look look(const Account& account, Now now) const;
  uint16_t owner_of(const Account& account, const Look& at) const;
  void ask_next(Account& account, Look& at);

  // Windows.
  int64_t window_now(const Account& account, Now now) const { return window_at(now.wall, account.limit.window); }
  WindowAccount& window_account(Account& account, int64_t window);
  uint64_t floor_of_window(const Account& account, const WindowAccount& w) const;
  uint64_t ceiling_of(const Account& account, const WindowAccount& w) const;
  uint64_t count_of(const Account& account, const WindowAccount& w) const;
  void raise(Account& account, const WindowAccount& w);
  void grant_window(Account& account, const Grant& grant, bool newest, Look at);
  void tell_ahead(Account& account, Look at);
  bool send_final(Account& account, const Look& at);  // whether there was something to send
  // Buckets.
  bool lease_runs(const Account& account, Now now) const;
  void begin_lease(LeaseAccount& lease, uint64_t granted);  // or none: numbers anew, under another serial
  void grant_lease(Account& account, const Grant& grant, uint16_t from, bool newest, Look at);
  void be_refused(Account& account, const Grant& grant, Now now);
  void learn(Account& account, const Grant& grant, Now now);

  struct Quota {  // of the running window or lease
    uint64_t count = 0, ceiling = 0;
    std::optional<uint64_t> wanted{};  // once somebody has asked for it
    uint64_t unspent() const { return minus(ceiling, count); }
  };
  Quota quota(Account& account, const Look& at);
  uint64_t promised_left(const Account& account, const Quota& quota, Now now) const;
  static int64_t running_in(const Account& account, const Look& at) { return account.bucket() ? account.lease.tag : at.running; }
  void measure(Account& account, Quota& quota, const Look& at);
  double demand_now(const Account& account, uint64_t count, const Look& at) const;
  uint64_t expected(const Account& account, uint64_t count, Duration within, const Look& at) const;
  uint64_t left_known(const Account& account) const;
  uint64_t spare(const Account& account, Duration trip) const;
  uint64_t wanted(const Account& account, Quota& quota, const Look& at) const;
  bool wants_report(Account& account, Quota& quota, const Look& at);
  void send_report(Account& account, Quota& quota, const Look& at);
  void send_report(Account& account, Now now);
  void set_ask_mark(Account& account, Quota& quota, const Look& at);
  void no_demand(Account& account, uint64_t amount, const Look& at);
  uint32_t take_back(Account& account, WindowAccount& w, uint64_t leave);
  void give_back(Account& account, uint64_t leave, const Look& at);
  bool give_back_idle(Account& account, bool recalled, Quota& quota, const Look& at);  // whether anything was given back
  void tell_workers(Account& account, const Quota& quota, const Look& at);
  void tell_workers(Account& account, Now now);
  void check_isolation(Account& account, const Look& at);
  bool group_lost(const Account& account, const Look& at) const;
  double isolated_share(const Account& account) const;
  void end_isolation(Account& account, const Look& at);
  void serve_alone(Account& account, const Look& at);
  void refund_all(Account& account, WindowAccount& w);
  MonoTime bucket_full_at(const Account& account) const;
  bool finished(const Account& account, Now now) const;
  struct Idle {  // waits for its windows, or its lease, to end
    MonoTime due{};
    WireId id;
    friend bool operator>(const Idle& a, const Idle& b) { return a.due > b.due; }
  };
  void be_idle(Account& account, bool told, Now now);  // `told`: a final report has just been sent, and may have to be repeated
  void tick_idle(Now now);

  Surroundings around_;
  Limiter& limiter_;
  const size_t accounts_max_;
  const MonoTime started_;
  struct Books {
    uint16_t rank = 0;
    std::function<MonoTime(const WireId&)> heard;  // none: they are kept by nodes
  } books_;
  KeyTable<WireId, Account> accounts_;
  std::vector<WireId> active_;   // looked at every sync interval
  std::priority_queue<Idle, std::vector<Idle>, std::greater<>> idle_;
  std::deque<Idle> idle_long_;  // those that are due last of all: in order by themselves, so that many of them cost little
  std::vector<WireId> urgent_;
  std::vector<MonoTime> urgent_sent_;  // by owner's rank
  MonoTime next_urgent_ = MonoTime::max();
  // Keys of which an order has just ended, and maybe not at every worker: only their notes tell what an override comes to. So these are
  // not told that all is used until then, which may be said of the order's limit: they would note nothing any more.
  std::unordered_map<WireId, MonoTime> unsure_until_;
  uint32_t lines_ = 0;
  uint64_t leases_ = 0;  // the last serial
  bool leaving_ = false;  // asks for nothing any more
  std::vector<Wake> wakes_;
  std::map<std::string, uint64_t> dropped_;
};

}  // namespace tally
