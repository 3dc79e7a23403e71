// The owner's part when a key's owner is lost, or has lost its books: claims, promises, and who holds what.
//
// Who claims, and when, is a question of speed. What makes it safe: promises come from a majority, whose every member refuses
// lower ballots from then on, and the claimant charges the largest mark that any of them ever accepted.
#include <algorithm>

#include "base/hash.h"
#include "cluster/owner.h"
#include "core/windows.h"

namespace tally {

namespace {

// Two that claim the same at once step out of each other's way for so long, by chance.
constexpr Duration kBackOffMin = std::chrono::milliseconds(20);
constexpr uint64_t kBackOffSpreadMs = 130;
constexpr Duration kClaimsApart = std::chrono::milliseconds(300);  // of one key by one node
constexpr uint32_t kAnewStep = kCounterStep / 16;  // a claim to begin anew raises the counter by up to this
constexpr Duration kAnewWithin = std::chrono::seconds(1);  // else somebody has started again meanwhile: asked once more

}  // namespace

Owner::Contest& Owner::contest(Key& key, int64_t window) {
  for (Contest& c : key.contests)
    if (c.window == window) return c;
  return key.contests.emplace_back(Contest{window, {}, {}, {}});
}

const Owner::Contest* Owner::find_contest(const Key& key, int64_t window) {
  for (const Contest& c : key.contests)
    if (c.window == window) return &c;
  return nullptr;
}

// The highest ballot that this node knows of there.
Ballot Owner::highest_ballot(const Key& key, int64_t window, Now now) const {
  Ballot highest{0, around_.roster.id(group(key, window).rank[0])};
  if (const Contest* c = find_contest(key, window)) highest = std::max(highest, c->highest);
  if (const auto told = around_.registers.look(key.id, window, now)) highest = std::max(highest, told->promised);
  return highest;
}

// Whom that ballot makes the owner; nullopt where that is no member of the group (any more).
std::optional<uint16_t> Owner::holder(const Key& key, int64_t window, Now now) const {
  const auto rank = around_.roster.rank_of(highest_ballot(key, window, now).node);
  return rank && group(key, window).contains(*rank) ? rank : std::nullopt;
}

// `claim_refused`: a member has promised that ballot and refused a claim of this node; the same one, where it was an earlier life's.
void Owner::heard_ballot(Key& key, int64_t window, Ballot ballot, Now now, bool claim_refused) {
  if (ballot.counter == 0 || !plausible(key, window)) return;  // the natural owner's needs no claim
  if (ballot.counter > highest_ballot(key, window, now).counter + kCounterStep) return;
  Contest& c = contest(key, window);
  if (c.claim && (c.claim->ballot < ballot || (claim_refused && c.claim->ballot == ballot))) {
    c.claim.reset();
    const uint64_t chance = mix(key.id.word() ^ around_.self ^ uint64_t{ballot.counter} << 32) % kBackOffSpreadMs;
    c.not_before = now.mono + kBackOffMin + std::chrono::milliseconds(chance);
    ++claims_lost_;
  }
  c.highest = std::max(c.highest, ballot);
  // Deposed: what these books would still issue, no majority would accept.
  if (window == 0 && key.bucket && key.bucket->ballot() < ballot) drop_bucket(key, now);
  if (window != 0)
    if (WindowBook* book = key.book(window); book != nullptr && book->ballot() < ballot)
      key.books[static_cast<size_t>(window & 3)].reset();
}

void Owner::on_promise(const WireId& id, int64_t window, Ballot ballot, Now now) {
  if (Key* const key = keys_.find(id)) heard_ballot(*key, window, ballot, now);
}

bool Owner::claim(const WireId& id, int64_t window, Now now) {
  Key* const found = keys_.find(id);
  if (found == nullptr || !may_claim(*found, window)) return false;
  start_claim(*found, window, now);
  return true;
}

// A window that something may be said of now; 0 for a bucket and for nothing else.
bool Owner::plausible(const Key& key, int64_t window) const {
  if (key.terms.algorithm == Algorithm::token_bucket) return window == 0;
  const int64_t running = window_at(around_.standing.clock(), key.terms.window);
  return window != 0 && window >= running - 1 && window <= running + 1;
}

bool Owner::may_claim(const Key& key, int64_t window) const {
  if (around_.upstream != nullptr) return false;  // there is nothing to take over
  if (!around_.standing.over() || around_.standing.is_clone() || !plausible(key, window)) return false;
  if (!group(key, window).contains(around_.self) || !around_.succession.takes_part(key.groups, window, key.terms.window)) return false;
  // A group of one keeps no marks (WindowBook::needs_marks): what its books have issued, its register could not tell.
  if (group(key, window).size == 1 && key.has_books(window)) return false;
  if (window == 0) return true;
  if (key.terms.max_overcount.unbounded) return false;  // no marks, nothing to claim
  return around_.standing.in_sight(window_start(window, key.terms.window));
}

// Takes the key over where whoever holds it does not answer this node any more, or is this node, which lost its books.
// `insists`: a lessee cannot reach the holder, whoever else can.
void Owner::claim_if_lost(Key& key, int64_t window, bool insists, Now now) {
  if (!may_claim(key, window)) return;
  const Contest* c = find_contest(key, window);
  if (c != nullptr && c->claim) return resend_claim(key, window, now);
  if (c != nullptr && now.mono < c->not_before) return;
  const auto rank = holder(key, window, now);
  if (rank && *rank != around_.self && !insists && !is_lost(*rank, now)) return;
  if (!group_lives(key, now)) {  // who hears no majority gets no promises, and where it is heard its claim would only depose an owner
    key.cut_off = now.mono;
    return;
  }
  // After contact: what this node and the lessee missed of the holder says nothing yet.
  if (key.cut_off != MonoTime{} && now.mono - key.cut_off < around_.pace.isolation_after / 2) return;
  start_claim(key, window, now);
}

// A lessee has waited for it in vain; so it is asked from here too, a few times, before anything is taken from it.
bool Owner::is_lost(uint16_t rank, Now now) {
  if (around_.peers.heard_just_now(rank, now.mono)) return false;
  if (around_.peers.probe_due(rank, now.mono)) around_.mail.send(rank, Hello{});
  return around_.peers.probes_failed(rank, now.mono);
}

void Owner::start_claim(Key& key, int64_t window, Now now) {
  Contest& c = contest(key, window);
  const uint32_t counter = std::max(highest_ballot(key, window, now).counter, c.highest.counter);
  if (counter == UINT32_MAX) return;
  c.highest = {counter + 1, around_.roster.id(around_.self)};
  c.claim = Claim{};
  c.claim->ballot = c.highest;
  c.claim->began = c.claim->sent = now.mono;
  if (window == 0) c.claim->span = span_of(key.terms);
  c.not_before = now.mono + kClaimsApart;
  ++claims_started_;
  activate(key);
  key.touched = now.mono;
  send_claim(key, window, now);
}

void Owner::resend_claim(Key& key, int64_t window, Now now) {
  if (find_contest(key, window) == nullptr) return;
  Contest& c = contest(key, window);
  if (!c.claim || now.mono - c.claim->sent < overdue(key)) return;
  if (c.claim->anew && now.mono - c.claim->began > kAnewWithin) {
    c.claim.reset();
    return;
  }
  c.claim->sent = now.mono;
  send_claim(key, window, now);
}

void Owner::send_claim(Key& key, int64_t window, Now now) {
  Mark mark;
  mark.key = key.id;
  mark.window = window;
  mark.ballot = contest(key, window).highest;
  mark.claim = true;
  const Claim& claim = *contest(key, window).claim;
  if (claim.anew) mark.lives = claim.forgotten_by;
  mark.number = around_.incarnation;
  mark.sliding = key.terms.algorithm == Algorithm::sliding_window;
  mark.length = window != 0 ? key.terms.window : keep_of(claim.span);
  send_to_group(key, mark, now);
}

void Owner::take_promise(Key& key, const Accepted& accepted, size_t index, Now now) {
  if (find_contest(key, accepted.window) == nullptr) return;
  Contest& c = contest(key, accepted.window);
  if (!c.claim || accepted.ballot != c.claim->ballot || accepted.number != around_.incarnation) return;
  if (accepted.forgotten_by != 0 && !accepted.fresh()) return take_forgotten(key, accepted, index, now);
  c.claim->promises[index] = accepted;
  size_t made = 0;
  bool proven = false;  // those who have begun anew and know of no owner since prove something together only
  uint64_t base = 0;
  for (const auto& promise : c.claim->promises) {
    if (!promise) continue;
    ++made;
    proven = proven || !promise->fresh();
    base = std::max(base, promise->mark);  // what no mark can be, no sum must overflow by
  }
  const Group& group = this->group(key, accepted.window);
  if (made < (c.claim->anew || !proven ? group.size : group.majority())) {
    if (accepted.fresh()) take_forgotten(key, accepted, index, now);
    return;
  }
  base = std::min(base, accepted.window != 0 ? uint64_t{kLimitMax} : static_cast<uint64_t>(nanos(kBurstSpanMax)) * 4);
  const Claim claim = *c.claim;
  c.claim.reset();
  ++claims_won_;
  if (claim.anew) ++begun_anew_;
  if (accepted.window == 0) {
    drop_bucket(key, now);
    const MonoTime tat = now.mono + Duration(static_cast<int64_t>(base));
    key.bucket.emplace(key.terms, group, claim.ballot, lease_of(key.terms), around_.recent(), numbers_,
                       BucketBook::Start{tat, claim.began, claim.span});
    return;
  }
  WindowBook& book = begin_book(key, accepted.window, claim.ballot, base);
  const bool same_before = around_.succession.same_before(key.groups, accepted.window, key.terms.window);
  for (size_t i = 0; same_before && i < group.size; ++i) {
    const auto& promise = claim.promises[i];
    if (promise && promise->previous_told) book.tell_previous(i, promise->previous_ballot, promise->previous_mark);
  }
  count_previous(key, book);
}

// Once every member of the group, this one too, has said that it has no memory and has read that nobody has, the rule may have
// it forgotten. All of them must agree, and none may have started again since: two that vote anew without the third could miss
// what the third has voted for with its last life's partner. Where one has begun anew before, with others, those lives may have
// voted for an owner: not if so many of them are still here, and have accepted nothing, that the rest is no majority.
void Owner::take_forgotten(Key& key, const Accepted& accepted, size_t index, Now now) {
  Claim& claim = *contest(key, accepted.window).claim;
  if (claim.anew || key.on_amnesia != OnAmnesia::forget) return;
  claim.forgotten_by[index] = accepted.forgotten_by;
  const Group& group = this->group(key, accepted.window);
  for (size_t i = 0; i < group.size; ++i)
    if (claim.forgotten_by[i] == 0) return;
  for (const auto& promise : claim.promises) {
    if (!promise || !promise->fresh()) continue;
    size_t quiet = 0;
    for (size_t i = 0; i < group.size; ++i) quiet += promise->lives[i] == claim.forgotten_by[i] ? 1 : 0;
    if (group.size - quiet >= group.majority()) return;
  }
  claim.anew = true;
  claim.promises = {};
  // Lessees that lived on may know ballots of before, and be owed nothing under those (report_window): none should come again.
  Contest& c = contest(key, accepted.window);
  uint64_t lives = 1;
  for (const uint64_t life : claim.forgotten_by) lives = mix(lives ^ life);
  c.highest.counter += 1 + static_cast<uint32_t>(lives % kAnewStep);
  claim.ballot = c.highest;
  claim.began = claim.sent = now.mono;
  send_claim(key, accepted.window, now);
}

void Owner::drop_bucket(Key& key, Now now) {
  if (!key.bucket) return;
  numbers_ = std::max(numbers_, key.bucket->last_number());
  key.forgot = now.mono;
  key.bucket.reset();
}

}  // namespace tally
