// The owner's books for one (key, window): who holds how much of it, and what may still be issued.
//
// Thread rule: the cluster thread's. Pure arithmetic: no messages, no clock.
//
// The invariant that carries the bound: outstanding() never exceeds the mark that a majority of the key's group has
// accepted, apart from floors that are charged "whatever is left" (all floors together are floor(e*L), and outstanding beyond
// them is at most L). Everything that a report carries is cumulative and merged by max.
#pragma once

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

class WindowBook {
 public:
  // `limit`: L as the owner knows it; the book uses the smallest L that any report of the window stated.
  // `recent`: a line heard longer ago has no demand any more, and nothing that waits.
  // `base`: the largest mark that the promises to this ballot told, all of which earlier owners may have issued; 0 for the
  // natural owner.
  WindowBook(int64_t window, const Terms& terms, const Group& group, Ballot ballot, Duration recent, uint64_t base = 0);

  // What is issued here is drawn from the level above instead, which also knows of the window before (cluster/upstream.h): no
  // marks.
  void draw_from_above() {
    terms_.algorithm = Algorithm::fixed_window;  // what is carried over, the level above counts
    above_ = Above{.left = terms_.limit};
  }
  std::optional<Above>& above() { return above_; }
  const std::optional<Above>& above() const { return above_; }
  // What would have to be drawn for the line to have its part of all that is left, and for all lines.
  uint64_t to_draw(const Line& line, Now now, bool far) const;
  uint64_t missing(Now now, bool far) const;
  uint64_t waiting_min(MonoTime now) const;  // the smallest cost that waits; 1 where nothing does

  int64_t window() const { return window_; }
  const Group& group() const { return group_; }
  Ballot ballot() const { return ballot_; }
  uint64_t limit() const { return terms_.limit; }
  void lower_limit(uint32_t limit);
  void set_limit(uint32_t limit);  // also a higher one: an order, or what holds when it has ended

  // --- lines ---
  Line* find(const LineKey& key);
  // Opens a line and charges `floor` to it (0 where it was charged under an earlier ballot, or where there is none).
  Line& open(const LineKey& key, uint16_t rank, uint64_t floor);
  void charge_floor(Line& line, uint64_t floor);  // the larger of what was charged and this
  void merge(Line& line, const Report& report, MonoTime now);
  // Lessees refund all that they used before; what others gave back of that is undone with it.
  void reset(uint64_t number);
  std::vector<Line>& lines() { return lines_; }
  const std::vector<Line>& lines() const { return lines_; }

  // --- what is left ---
  uint64_t outstanding() const;
  uint64_t used() const { return minus(used_, given_); }  // less what was refunded, as reported
  // What the fleet may have used by now. Before the window begins: what may be granted ahead.
  uint64_t allowance(WallTime now) const;
  uint64_t remaining(WallTime now) const;  // min(allowance, accepted mark) - outstanding
  // Used up, not only granted out. Never while the past of a sliding window is not known yet.
  bool exhausted(WallTime now) const;
  // How long until `cost` more could fit if nothing else came; for `exhausted`.
  Duration regrows_after(uint64_t cost, WallTime now) const;

  // --- issuing ---
  // Takes into the line's granted what it may have now of what it asked for, and returns how much that was.
  uint64_t issue(Line& line, Now now, bool far);
  // Ahead of the window: `amount` at most, by what is left.
  uint64_t issue_ahead(Line& line, uint64_t amount, WallTime now);
  void use_recent(Duration recent) { recent_ = recent; }  // the node's sync interval is another one
  bool is_recent(const Line& line, MonoTime now) const { return now - line.heard <= recent_; }
  uint64_t unmet(MonoTime now) const;  // what waits at lines and could not be given
  uint16_t demand_share(const Line& line, MonoTime now, Duration within) const;  // in 1/65535, of the lines heard within

  // --- marks ---
  bool needs_marks() const { return group_.size > 1 && !terms_.max_overcount.unbounded && !above_; }
  uint64_t accepted_mark() const;
  uint64_t proposed_mark() const { return proposed_; }
  // The next mark to propose, if one is due. `trip`: to the group and back; `every`: the sync interval.
  std::optional<uint64_t> next_mark(Now now, Duration trip, Duration every, uint64_t ahead) const;
  MonoTime proposed_at() const { return proposed_at_; }
  MonoTime pending_since() const { return pending_since_; }  // while mark_pending()
  void propose(uint64_t mark, MonoTime now);
  // Member `index` of the group has accepted `mark` under this book's ballot. The owner itself is a member.
  void accept(size_t index, uint64_t mark);
  bool mark_pending() const { return accepted_mark() < proposed_; }

  // --- the sliding window's past ---
  // Member `index` told what it has of the window before. Once a majority has, `previous_told` says what to count.
  void tell_previous(size_t index, Ballot ballot, uint64_t mark);
  bool previous_known() const;  // also where there is nothing to be told
  // `own`: this owner's book of the window before, nullptr where it has none; `remembered`: this life would have it.
  void count_previous(const WindowBook* own, bool remembered);
  // As the past of the next window: final reports count as used, the rest as issued.
  uint64_t as_previous() const;

 private:
  bool unbounded() const { return terms_.max_overcount.unbounded; }
  // An unbounded line's floor is L. Only what it used is charged, until it was stopped and gave the rest back.
  bool has_unbounded_floor(const Line& line) const { return unbounded() && line.floor > 0 && line.returned == 0; }
  bool claimed() const { return ballot_.counter != 0; }
  uint64_t line_outstanding(const Line& line) const;
  void count_given(Line& line, const Report& report);
  void grant(Line& line, uint64_t amount);
  // What of `room` the line may have of what it asked for.
  uint64_t part_of(const Line& line, uint64_t room, Now now, bool far) const;
  struct Demand {
    double all = 0;
    uint64_t lines = 0;
  };
  Demand demand_of_late(MonoTime now, Duration within) const;

  bool has_begun(WallTime now) const { return now >= begin_; }
  bool is_over(WallTime now) const { return now >= end_; }

  const int64_t window_;
  Terms terms_;
  const WallTime begin_, end_;  // of the window
  const Group group_;
  const Ballot ballot_;
  Duration recent_;
  const uint64_t base_;
  std::vector<Line> lines_;
  uint64_t outstanding_ = 0;  // sum of line_outstanding
  uint64_t used_ = 0;         // sum of net_used
  uint64_t reset_ = 0;        // the highest number heard; 0: none
  uint64_t given_ = 0;        // refunds of what others admitted; each counts up to what the fleet had used when it was heard

  uint64_t proposed_ = 0;
  MonoTime proposed_at_{}, pending_since_{};
  std::array<uint64_t, kGroupMax> accepted_{};
  std::optional<Above> above_;

  struct Told {
    bool told = false;
    Ballot ballot;
    uint64_t mark = 0;
  };
  std::array<Told, kGroupMax> told_{};
  uint64_t previous_ = 0;  // what of the window before is counted; L until known
};

}  // namespace tally
