// The owner's part where there is a level above: it issues what it has drawn there and nothing else, so that it needs no marks,
// and any member of a key's group may issue at any time.
#include "base/hash.h"
#include "cluster/owner.h"

namespace tally {

// With nothing wanted: sees what there is.
void Owner::draw(Key& key, WindowBook& book, uint64_t wanted, Now now) {
  if (window_at(now.wall, key.terms.window) != book.window()) return;
  WindowBook::Above& above = *book.above();
  const Upstream::Drawn drawn = around_.upstream->draw(key.id, key.rule, key.terms, wanted, now);
  above.drawn += drawn.amount;
  above.left = drawn.left;
  above.over = drawn.over;
  above.isolated = drawn.isolated;
  above.retry_after = drawn.retry_after;
}

// What is missing here is asked for once, as an application that waits would ask.
void Owner::ask_above(Key& key, WindowBook& book, Now now) {
  if (!book.above() || window_at(now.wall, key.terms.window) != book.window()) return;
  WindowBook::Above& above = *book.above();
  if (now.mono >= above.asked_until) above.asked = 0;
  const uint64_t missing = above.over ? 0 : book.missing(now, around_.far(around_.peers.group_round_trip(group(key))));
  if (missing > above.asked)
    above.asked_until = now.mono + around_.upstream->ask(key.id, key.rule, key.terms, missing - above.asked, book.waiting_min(now.mono), now);
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

void Owner::on_woken(const WireId& id, Now now) {
  const auto found = keys_.find(id);
  if (found == keys_.end() || found->second.terms.algorithm == Algorithm::token_bucket) return;
  Key& key = found->second;
  WindowBook* book = key.book(window_at(now.wall, key.terms.window));
  if (book == nullptr) return;
  draw(key, *book, 0, now);
  serve_turned_away(key, *book, now);
  ask_above(key, *book, now);
}

}  // namespace tally
