// The owner's part for marks: raises them ahead of need, sends them to the group, takes what the group answers.
#include "cluster/owner.h"

namespace tally {

bool Owner::group_lives(const Key& key, Now now) const {
  return around_.peers.majority_heard(group(key), now.mono, around_.pace.isolation_after / 2);
}

void Owner::raise_mark(Key& key, WindowBook& book, Now now, uint64_t ahead) {
  const auto mark = book.next_mark(now, around_.peers.group_round_trip(group(key)), around_.pace.sync_interval, ahead);
  if (!mark) return;
  book.propose(*mark, now.mono);
  send_mark(key, book, now);
}

// What waits for a mark whose acceptance is overdue does not wait for the next tick.
void Owner::resend_mark(Key& key, WindowBook& book, Now now) {
  if (!book.mark_pending() || now.mono - book.proposed_at() < overdue(key)) return;
  book.propose(book.proposed_mark(), now.mono);
  send_mark(key, book, now);
}

void Owner::send_mark(Key& key, WindowBook& book, Now now) {
  Mark mark;
  mark.key = key.id;
  mark.window = book.window();
  mark.ballot = book.ballot();
  mark.mark = book.proposed_mark();
  mark.length = key.terms.window;
  mark.sliding = key.terms.algorithm == Algorithm::sliding_window;
  send_to_group(key, mark, now);
}

// The owner is a member too: its own acceptance is taken at once.
void Owner::send_to_group(Key& key, const Mark& mark, Now now) {
  const Group group = this->group(key, mark.window);
  for (size_t i = 0; i < group.size; ++i) {
    const uint16_t rank = group.rank[i];
    if (rank != around_.self) {
      around_.mail.send(rank, mark);
      continue;
    }
    const auto own = around_.registers.accept(mark, now);
    const bool taken = own && own->taken();
    if (!taken && !(own && own->refused && mark.claim)) around_.registers.remember_own(mark, now);
    // Its own refusal of a mark ends no books here: they are in use.
    if (taken || (own && mark.claim)) take_acceptance(key, *own, i, now);
  }
}

void Owner::on_accepted(const Accepted& accepted, uint16_t from, Now now) {
  Key* const found = keys_.find(accepted.key);
  if (found == nullptr) return;
  Key& key = *found;
  const size_t index = group(key, accepted.window).place_of(from);
  if (index == kGroupMax) {
    ++dropped_["not_member"];
    return;
  }
  key.rests_in = 0;
  drop_bucket_if_over(key, now);
  take_acceptance(key, accepted, index, now);
  if (key.bucket) return serve_turned_away_bucket(key, now);
  WindowBook* book = key.book(accepted.window);
  if (book == nullptr) return;
  count_previous(key, *book);
  serve_turned_away(key, *book, now);
}

void Owner::take_acceptance(Key& key, const Accepted& accepted, size_t index, Now now) {
  if (accepted.refused) {
    ++marks_refused_;
    return heard_ballot(key, accepted.window, accepted.ballot, now, accepted.claim);
  }
  if (accepted.claim) return take_promise(key, accepted, index, now);
  ++marks_accepted_;
  if (accepted.window == 0) {
    if (key.bucket && accepted.ballot == key.bucket->ballot()) key.bucket->accept(index, accepted.number);
    return;
  }
  WindowBook* book = key.book(accepted.window);
  if (book == nullptr || accepted.ballot != book->ballot()) return;
  book->accept(index, accepted.mark);
  if (!accepted.previous_told || !around_.succession.same_before(key.groups, book->window(), key.terms.window)) return;
  book->tell_previous(index, accepted.previous_ballot, accepted.previous_mark);
  count_previous(key, *book);
}

// Before anything is issued in a sliding window, as it may be that more was issued in the one before since this was last done. Where
// another group kept that, nobody here knows of it: all of the limit counts.
void Owner::count_previous(Key& key, WindowBook& book) {
  if (!around_.succession.same_before(key.groups, book.window(), key.terms.window)) return;
  const WallTime before = window_start(book.window() - 1, key.terms.window);
  book.count_previous(key.book(book.window() - 1), around_.standing.may_vote(before));
}

}  // namespace tally
