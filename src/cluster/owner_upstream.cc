// The owner's part where there is a level above: it issues what it has drawn there and nothing else, so that it needs no marks,
// and any member of a key's group may issue at any time.
#include <algorithm>
#include <utility>

#include "base/hash.h"
#include "cluster/owner.h"

namespace tally {

namespace {

void learn(Above& above, const Upstream::Drawn& drawn) {
  above.left = drawn.left;
  above.over = drawn.over;
  above.isolated = drawn.isolated;
  above.retry_after = drawn.retry_after;
}

}  // namespace

// With nothing wanted: sees what there is.
void Owner::draw(Key& key, WindowBook& book, uint64_t wanted, Now now) {
  if (window_at(now.wall, key.terms.window) != book.window()) return;
  const Upstream::Drawn drawn = around_.upstream->draw(key.id, key.rule, key.terms, wanted, now);
  book.above()->drawn += drawn.amount;
  learn(*book.above(), drawn);
}

// What is missing here is asked for once, as an application that waits would ask.
void Owner::ask_above(Key& key, WindowBook& book, Now now) {
  if (!book.above() || window_at(now.wall, key.terms.window) != book.window()) return;
  const bool far = around_.far(around_.peers.group_round_trip(group(key)));
  ask_above(key, *book.above(), book.missing(now, far), book.waiting_min(now.mono), now);
}

void Owner::ask_above(const Key& key, Above& above, uint64_t missing, uint64_t waiting_min, Now now) {
  if (now.mono >= above.asked_until) above.asked = 0;
  if (above.over) missing = 0;
  if (missing > above.asked)
    above.asked_until = now.mono + around_.upstream->ask(key.id, key.rule, key.terms, missing - above.asked, waiting_min, now);
  above.asked = missing;
}

// What nobody here has asked for is for other regions; while none of them does, it can be drawn again at once.
void Owner::put_back(Key& key, WindowBook& book, Now now) {
  if (window_at(now.wall, key.terms.window) != book.window()) return;
  const uint64_t back = minus(book.above()->drawn, book.outstanding());
  if (back > 0) book.above()->drawn -= around_.upstream->put_back(key.id, key.rule, key.terms, back, now);
}

// A lessee has heard a ballot that these books do not know of: another owner's, or one of theirs before they were lost. Under a
// higher one all begin anew; what they had is charged as it stands, and what is given back under the old ballot is not counted.
WindowBook& Owner::rebase(Key& key, WindowBook& book, Ballot heard) {
  const uint64_t out = book.outstanding();
  const auto above = book.above();
  const Ballot ballot{std::max(heard.counter, book.ballot().counter) + by_chance(kStepSpread), around_.roster.id(around_.self)};
  WindowBook& next = begin_book(key, book.window(), ballot, out);
  next.above() = above;
  return next;
}

uint32_t Owner::by_chance(uint32_t spread) { return 1 + static_cast<uint32_t>(mix(around_.incarnation ^ mix(++chances_)) % spread); }

// ---- token buckets ------------------------------------------------------------------------------------------------------

// Books whose leases are parts of leases above: none of theirs outlives the one that it is a part of, and what was drawn counts
// above as used when it is spent here. So the account above needs to know nothing of them.
BucketBook& Owner::begin_bucket_below(Key& key, Ballot ballot, const BucketBook::AboveLease& above, Now now) {
  drop_bucket(key, now);
  key.bucket.emplace(key.terms, group(key, 0), ballot, lease_of(key.terms), around_.recent(), numbers_, BucketBook::Start{now.mono, now.mono});
  key.bucket->draw_from_above(above);
  return *key.bucket;
}

// Sees what there is above, and tells what was spent. `heard`: a lessee's ballot. Where another lease runs above, what was leased
// out is no part of it, and ends by itself; where a lessee has heard of higher books, what these have leased out may go on too.
// Either way lessees get leases of other books than before.
void Owner::look_above_bucket(Key& key, Ballot heard, Now now) {
  if (!key.bucket) begin_bucket_below(key, {0, around_.roster.id(around_.self)}, {}, now);
  BucketBook* book = &*key.bucket;
  book->settle(now.mono);
  const Upstream::Drawn drawn = around_.upstream->draw(key.id, key.rule, key.terms, 0, now);
  const bool same = drawn.lease == book->above()->lease;
  const bool lower = heard > book->ballot() && heard.counter < UINT32_MAX;
  if (!same || lower) {
    BucketBook::AboveLease above = same ? book->strand() : BucketBook::AboveLease{};
    above.lease = drawn.lease;
    const uint32_t counter = std::max(heard.counter < UINT32_MAX ? heard.counter : 0, book->ballot().counter) + 1;
    if (lower || book->has_leases())
      book = &begin_bucket_below(key, {counter, around_.roster.id(around_.self)}, above, now);
    else
      book->draw_from_above(above);
  }
  book->above()->until = drawn.lease_end;
  learn(*book->above(), drawn);
  if (const uint64_t spent = std::exchange(book->above()->spent, 0); spent > 0) around_.upstream->spent(key.id, spent);
}

void Owner::draw_bucket(Key& key, const BucketBook::Leased& leased, Now now) {
  BucketBook& book = *key.bucket;
  const uint64_t wanted = book.to_draw(leased, now.mono);
  if (wanted == 0) return;
  const Upstream::Drawn drawn = around_.upstream->draw(key.id, key.rule, key.terms, wanted, now);
  if (drawn.lease == book.above()->lease) book.above()->drawn += drawn.amount;
  learn(*book.above(), drawn);
}

void Owner::tick_bucket_below(Key& key, Now now) {
  look_above_bucket(key, Ballot{}, now);
  serve_turned_away_bucket(key, now);
  BucketBook& book = *key.bucket;
  if (const uint64_t back = book.to_lease(); back > 0)
    book.above()->drawn -= around_.upstream->put_back(key.id, key.rule, key.terms, back, now);
  ask_above_bucket(key, now);
}

void Owner::ask_above_bucket(Key& key, Now now) {
  BucketBook& book = *key.bucket;
  ask_above(key, *book.above(), book.missing(now.mono), book.waiting_min(now.mono), now);
}

void Owner::on_woken(const WireId& id, Now now) {
  Key* const found = keys_.find(id);
  if (found == nullptr) return;
  Key& key = *found;
  if (key.bucket) {
    look_above_bucket(key, Ballot{}, now);
    serve_turned_away_bucket(key, now);
    return ask_above_bucket(key, now);
  }
  if (key.terms.algorithm == Algorithm::token_bucket) return;
  WindowBook* book = key.book(window_at(now.wall, key.terms.window));
  if (book == nullptr) return;
  draw(key, *book, 0, now);
  serve_turned_away(key, *book, now);
  ask_above(key, *book, now);
}

}  // namespace tally
