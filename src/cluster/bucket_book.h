// The owner's books for one token bucket: one theoretical arrival time (TAT) and the leases that are out.
//
// Thread rule: the cluster thread's. Pure arithmetic: no messages, no clock.
//
// GCRA (ITU-T I.371) in nanoseconds of emission: a grant of n is the same operation as n hits, TAT = max(TAT, now) + n, allowed
// while TAT - now <= S (S = burst / rate). What is leased and not reported used may be spent at any time until the lease
// ends, so TAT is held at or above now + leased-and-unreported; then in any interval of length t no more than S + t is spent
// by leases. Two things are kept under the accepted mark: TAT, and the end of the last lease plus what is unreported, as a
// claimant that knows only the mark must start no lower than either.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/time.h"
#include "cluster/above.h"
#include "cluster/line.h"
#include "cluster/roster.h"
#include "cluster/wire.h"

namespace tally {

// C = S + 1.03 lease: no mark is further ahead. V = 1.07 C: how long a member keeps an idle register.
Duration bucket_mark_max(Duration burst_span, Duration lease);
Duration bucket_keep(Duration burst_span, Duration lease);
// The lease of a bucket: `configured` at most, S / 4 at most where 4 sync intervals allow it.
Duration lease_for(Duration burst_span, Duration configured, Duration sync_interval);

class BucketBook {
 public:
  // Leases and marks are numbered above `numbered`, so that books that are begun again give no number out twice.
  // `recent`: a line heard longer ago has no demand any more, and nothing that waits.
  struct Start {
    MonoTime tat;    // `now` for the natural owner; a claimant's is as far ahead as the largest mark that it was told
    MonoTime since;  // when ownership began: for a claimant, when its claim was sent
    // Of a bucket with a burst/rate of this at most, nothing can have been forgotten. (What members forgot is older than V, which
    // goes by burst/rate, and hosts may have different rules: while these change, and where each call brings its own.)
    Duration proven = Duration::max();
  };
  BucketBook(const Terms& terms, const Group& group, Ballot ballot, Duration lease, Duration recent, uint64_t numbered,
             const Start& start);
  uint64_t last_number() const { return std::max(leases_, proposal_.number); }

  Ballot ballot() const { return ballot_; }
  Duration burst_span() const { return burst_span_; }
  Duration lease() const { return lease_; }
  Duration keep() const { return bucket_keep(burst_span_, lease_); }
  // A call may come with other parameters (inline limits); each is answered by its own. A longer burst/rate than was proven when
  // the books began counts as used up so far.
  void use_terms(const Terms& terms, Duration lease);
  void use_recent(Duration recent) { recent_ = recent; }  // the node's sync interval is another one
  Duration longest_span() const { return longest_span_; }  // of the terms so far

  struct Leased {
    Line line;
    uint64_t lease = 0;   // number; 0: none yet
    bool held = false;    // the lessee said that it has it, or has not been told yet
    MonoTime end{};       // on the owner's clock, with its margin
    Duration length{0};   // as the lessee is told it, counted from its report
    MonoTime given_from{};     // a report that was sent after this tells at least what earlier lines of the account have counted
    bool given_known = false;  // such a report was heard
    uint64_t unreported() const { return minus(line.granted, line.returned + line.used); }
  };
  Leased* find(const LineKey& key);
  // `given_from`: see Leased.
  Leased& open(const LineKey& key, uint16_t rank, MonoTime given_from);
  // Takes in a report at `now`; what it says of a lease that is not the running one is ignored (it was charged in full).
  void merge(Leased& leased, const Report& report, MonoTime now);
  std::vector<Leased>& lines() { return lines_; }
  bool has_leases() const {  // that have not ended
    return std::ranges::any_of(lines_, [](const Leased& leased) { return leased.lease != 0; });
  }

  // Brings TAT up to `now`: leases that have ended are charged in full. Called by everything below.
  void settle(MonoTime now);
  MonoTime tat() const { return tat_; }
  uint64_t unreported() const;  // of all running leases
  Duration room(MonoTime now);  // how much more may be charged by the bucket's own arithmetic
  // Whether nothing could be had even if all leases came back unspent.
  bool exhausted(uint64_t cost, MonoTime now);
  Duration regrows_after(uint64_t cost, MonoTime now);

  // Grants and renews under the accepted mark. Returns how much was granted; a lease is renewed even by 0.
  uint64_t issue(Leased& leased, MonoTime now);
  bool is_recent(const Leased& leased, MonoTime now) const { return now - leased.line.heard <= recent_; }
  uint64_t unmet(MonoTime now) const;
  uint16_t demand_share(const Leased& leased, MonoTime now, Duration within) const;

  // What applications gave back elsewhere: `given` is all of it since the account's beginning, in a report that was sent
  // after `sent_after`. A line may be forgotten and then opened anew by a late copy of an old report: the first report that is
  // certainly younger than that only tells from where to count.
  // Returns how much of it is news.
  uint64_t give(Leased& leased, uint64_t given, MonoTime sent_after, MonoTime now);
  // TAT = now + leased and unreported; not below what a claim was told, of which earlier owners' leases may still be spent.
  // Returns by how much TAT fell.
  uint64_t reset(MonoTime now);

  // --- with a level above ---
  // What is leased out here is of a lease from the level above (cluster/upstream.h), within it in amount and in time: no marks.
  // Of what was drawn that much is spent as lessees tell, or as their leases end; not before.
  struct AboveLease : Above {
    uint64_t lease = 0;     // which; 0: none runs
    MonoTime until{};       // its end, on this clock
    uint64_t stranded = 0;  // of `drawn`: leased by books before these, until
    MonoTime stranded_until{};
    uint64_t spent = 0;     // no part of `drawn` any more; to be told above
  };
  void draw_from_above(const AboveLease& above) { above_ = above; }
  std::optional<AboveLease>& above() { return above_; }
  const std::optional<AboveLease>& above() const { return above_; }
  // As books that begin after these have it: what is leased out is stranded until those leases have ended.
  AboveLease strand() const;
  uint64_t to_lease() const { return minus(above_->drawn, above_->stranded + unreported()); }
  // What would have to be drawn for the line to have its part of all that is left, and for all lines.
  uint64_t to_draw(const Leased& leased, MonoTime now);
  uint64_t missing(MonoTime now);
  uint64_t waiting_min(MonoTime now) const;  // the smallest amount that waits; a token where nothing does

  // --- marks, as times on the owner's clock ---
  bool needs_marks() const { return group_.size > 1 && !above_; }
  MonoTime accepted_mark() const;
  struct Proposal {
    uint64_t number = 0;
    MonoTime mark{};
    MonoTime sent{};  // first
  };
  std::optional<Proposal> next_mark(MonoTime now, Duration look_ahead);
  const Proposal& proposal() const { return proposal_; }
  void accept(size_t index, uint64_t number);
  bool mark_pending() const { return needs_marks() && accepted_mark() < proposal_.mark; }
  MonoTime pending_since() const { return pending_since_; }  // while mark_pending()
  // Members forget a register that is idle for `keep`. So ownership ends before: 0.96 of it after the sending of the last
  // claim or mark that a majority accepted. Never where no marks are needed.
  MonoTime owned_until() const;
  // Nothing of this bucket is left to remember: full, no lease, no mark in force.
  bool idle(MonoTime now);

 private:
  double demand_of_late(MonoTime now, Duration within) const;
  MonoTime last_end() const;
  // Until when a lease may run that leaves `out` in all leased out: under the mark in force, no earlier than `shortest` where the mark
  // allows that, and early enough for the rest of the bucket to be leased under the same mark, for a quarter of a lease at most.
  MonoTime leave_room(MonoTime mark, uint64_t out, MonoTime shortest) const;
  uint64_t part_of(const Leased& leased, uint64_t space, MonoTime now) const;  // what of `space` the line may have of what it asked for
  void count_spent(uint64_t amount);

  Duration burst_span_{0};
  Duration longest_span_{0};
  Duration proven_;
  Duration emission_{0};
  Duration lease_{0};
  const Group group_;
  const Ballot ballot_;
  Duration recent_;
  std::vector<Leased> lines_;
  uint64_t leases_;  // the last number given out
  MonoTime tat_{};
  Proposal proposal_;
  std::array<MonoTime, kGroupMax> accepted_{};
  std::array<MonoTime, kGroupMax> accepted_sent_{};
  MonoTime since_;
  MonoTime base_;
  MonoTime pending_since_{};
  std::array<Proposal, 8> sent_{};  // the newest proposals, so that an echo of any of them counts
  std::optional<AboveLease> above_;
};

}  // namespace tally
