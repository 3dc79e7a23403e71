// The owner's part that gives: what a line may have now, what it is told, and who is told when there is room again.
#include <algorithm>

#include "cluster/owner.h"
#include "core/windows.h"

namespace tally {

namespace {

// After so many rounds of shares of what is left, nothing to speak of is.
constexpr int kRoundsMax = 8;

}  // namespace

// Gives the line what it may have now, raising the mark for it where needed.
uint64_t Owner::issue(Key& key, WindowBook& book, Line& line, Now now) {
  // A sliding window that this clock has left is counted as the past of the next: nothing more is issued in it.
  if (key.terms.algorithm == Algorithm::sliding_window &&
      book.window() < window_at(around_.standing.clock(), key.terms.window))
    return 0;
  const Duration trip = std::max(around_.peers.round_trip(line.rank), around_.peers.group_round_trip(group(key)));
  if (book.above()) draw(key, book, book.to_draw(line, now, around_.far(trip)), now);
  uint64_t amount = book.issue(line, now, around_.far(trip));
  raise_mark(key, book, now, 0);
  // In a group of one the mark is in force at once; else this finds nothing new and the acceptance will.
  if (line.turned_away) amount += book.issue(line, now, around_.far(trip));
  return amount;
}

// Just after a reset the books do not tell: what lessees give back for it is on its way, and nobody is turned away for what
// they used before.
bool Owner::says_exhausted(const Key& key, const WindowBook& book, Now now) const {
  return book.exhausted(now.wall) && (key.reset_at == MonoTime{} || now.mono - key.reset_at > around_.recent());
}

void Owner::send_grant(Key& key, WindowBook& book, Line& line, uint64_t stamp, Now now) {
  const uint64_t allowance = book.allowance(now.wall);
  const uint64_t elsewhere = book.above() ? minus(book.limit(), book.above()->drawn + book.above()->left) : 0;
  Grant grant;
  grant.key = key.id;
  grant.window = book.window();
  grant.ballot = book.ballot();
  grant.line = line.key.number;
  grant.incarnation = line.key.incarnation;
  grant.granted = line.granted;
  grant.used_fleet = book.used() + elsewhere;
  grant.pool = level(minus(allowance, book.outstanding()), book.limit());
  grant.demand_share = book.demand_share(line, now.mono, around_.shares_for());
  grant.backed = backed(key, book, now);
  grant.reset = key.reset;
  grant.stamp = stamp;
  grant.exhausted = says_exhausted(key, book, now);
  grant.stop = grant.exhausted && key.terms.max_overcount.unbounded;
  line.told_exhausted = grant.exhausted;
  const bool granted_out = book.previous_known() && allowance <= book.outstanding();
  if (grant.exhausted) {
    grant.ask_again = std::max(Duration(1), book.regrows_after(std::max<uint64_t>(1, line.waiting_min), now.wall));
  } else if (line.turned_away && book.above() && grant.backed && !granted_out) {
    grant.ask_again = around_.pace.sync_interval;  // the level above was asked, and this line is told when there is more
  } else if (line.turned_away && granted_out) {
    grant.ask_again = around_.pace.sync_interval;  // room may come back before, and then this line is told
    ++denied_under_limit_;
    nudge_holders(key, book, now);
  }
  tell(line, grant);
}

// Where the rank is another guest's by now, nobody is told: its own next report says where it is.
void Owner::tell(const Line& line, const Grant& grant) {
  if (around_.peers.id(line.rank) == line.key.node) around_.mail.send(line.rank, grant);
}

// When the allowance is granted out but not used, those who hold some unspent hear that the pool is low: what they
// will not use comes back as returns.
void Owner::nudge_holders(Key& key, WindowBook& book, Now now) {
  for (Line& line : book.lines()) {
    const Duration pause = around_.peers.round_trip(line.rank) + std::chrono::milliseconds(2);
    if (line.turned_away || line.unspent() == 0 || now.mono - line.nudged < pause) continue;
    line.nudged = now.mono;
    send_grant(key, book, line, 0, now);
  }
}

void Owner::serve_turned_away(Key& key, WindowBook& book, Now now) {
  const bool exhausted = says_exhausted(key, book, now);
  const bool room = book.above() ? book.allowance(now.wall) > book.outstanding() : book.remaining(now.wall) > 0;
  const auto waits = [&](const Line& line) {
    return (line.told_exhausted || line.turned_away) && book.is_recent(line, now.mono);
  };
  bool news = room;
  for (Line& line : book.lines()) {
    line.news = line.told_exhausted != exhausted && (line.told_exhausted || line.turned_away);
    news = news || line.news;
  }
  if (!news) return;
  bool more = !exhausted && room;
  for (int round = 0; more && round < kRoundsMax; ++round) {  // each takes its share of what is left, in turn
    more = false;
    for (Line& line : book.lines())
      if (waits(line) && issue(key, book, line, now) > 0) line.news = more = true;
  }
  for (Line& line : book.lines())
    if (line.news) send_grant(key, book, line, 0, now);
}

}  // namespace tally
