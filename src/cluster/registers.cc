#include "cluster/registers.h"

#include <algorithm>

#include "core/windows.h"

namespace tally {

namespace {

// Clocks of two hosts do not run alike; a member keeps a bucket's mark this much longer than it was told (1/32, three
// times the 1 % that the bound allows clocks to differ).
constexpr Duration with_margin(Duration d) { return d + d / 32; }

// Longer than any bucket's C; what claims more is not from a node of ours.
constexpr Duration kRemainingMax = kBurstSpanMax * 4;

// Longer than any look-ahead; keeps a hostile number from overflowing the arithmetic.
constexpr Duration kLookAheadMax = std::chrono::minutes(10);

}  // namespace

Registers::Registers(size_t entries_max, size_t overflow_max, const Roster& roster, const Standing& standing,
                     const Succession& succession, const Recovery& recovery)
    : entries_max_(entries_max), roster_(roster), standing_(standing), succession_(succession), recovery_(recovery), sketch_(overflow_max) {}

bool Registers::may_vote(const WireId& key, int64_t window, Duration length) const {
  const WallTime begins = window_start(window, length);
  if (!succession_.takes_part(groups_in_change(key), window, length)) return false;
  if (standing_.may_vote(begins)) return true;
  return standing_.has_forgotten() && standing_.in_sight(begins) && recovery_.has_read(key, window, length);
}

bool Registers::may_vote_bucket(const WireId& key, Duration keep, Now now) const {
  const Groups groups = groups_in_change(key);
  if (!succession_.takes_part(groups, 0, keep)) return false;
  if (standing_.may_vote_bucket(keep, now)) return true;
  return standing_.has_forgotten() && succession_.may_read_bucket(groups, keep) && recovery_.has_read_bucket(key, keep);
}

std::optional<Accepted> Registers::accept(const Mark& mark, Now now) {
  if (mark.length <= Duration(0)) return std::nullopt;
  if (mark.anew() && !begin_anew(mark, now)) return std::nullopt;
  auto answer = mark.window == 0 ? accept_bucket(mark, now) : accept_window(mark, now);
  if (const Entry* entry = entries_.find({mark.key, mark.window}); answer && mark.claim && !answer->refused && entry != nullptr) {
    const bool votes = mark.window != 0 ? may_vote(mark.key, mark.window, mark.length) : may_vote_bucket(mark.key, mark.length, now);
    if (entry->fresh && !votes) {
      answer->lives = entry->anew;
      answer->forgotten_by = recovery_.incarnation();
    }
  }
  if (!answer && mark.claim && forgot(mark, now)) {
    answer = Accepted{};
    answer->key = mark.key;
    answer->window = mark.window;
    answer->ballot = mark.ballot;
    answer->number = mark.number;
    answer->claim = true;
    answer->forgotten_by = recovery_.incarnation();
  }
  return answer;
}

bool Registers::forgot(const Mark& mark, Now now) const {
  if (!standing_.has_forgotten() || !recovery_.has_heard_all(mark.key, mark.window, mark.length)) return false;
  const Groups groups = groups_in_change(mark.key);
  if (!succession_.takes_part(groups, mark.window, mark.length)) return false;
  if (mark.window == 0 && !succession_.may_read_bucket(groups, mark.length)) return false;
  if (mark.window != 0) {
    if (mark.length < kWindowMin || mark.length > kWindowMax) return false;
    if (mark.window != window_at(standing_.lives_clock(), mark.length)) return false;  // the running one only
    if (may_vote(mark.key, mark.window, mark.length)) return false;
    if (window_start(mark.window, mark.length) < lost_before_) return false;
  } else if (mark.length > kRemainingMax || may_vote_bucket(mark.key, mark.length, now) || now.mono < lost_buckets_until_) {
    return false;
  }
  // What it has read of it, without a vote there, is charged; nothing more is known of it by anybody.
  return !begun_anew(mark.key, mark.window);
}

bool Registers::begin_anew(const Mark& mark, Now now) {
  const size_t place = recovery_.place_in_group(mark.key, mark.window, mark.length);
  if (place >= mark.lives.size() || mark.lives[place] != recovery_.incarnation()) return false;
  const Entry* const found = entries_.find({mark.key, mark.window});
  if (found != nullptr && found->anew == mark.lives) return true;
  const bool fresh = found != nullptr && found->fresh;
  if (!fresh && !forgot(mark, now)) return false;
  Entry* entry = open({mark.key, mark.window}, mark.length, now);
  if (entry == nullptr) {  // the sketch does not know whom a key was begun anew with
    ++refused_full_;
    return false;
  }
  entry->anew = mark.lives;
  entry->fresh = true;
  entry->touched = now.mono;
  return true;
}

bool Registers::begun_anew(const WireId& key, int64_t window) const {
  const Entry* entry = entries_.find({key, window});
  return entry != nullptr && entry->anew[0] != 0;
}

void Registers::remember_own(const Mark& mark, Now now) {
  Registered own;
  own.key = mark.key;
  own.window = mark.window;
  own.length = mark.length;
  own.promised = mark.ballot;
  if (mark.claim) own.promised_life = mark.number;
  if (!mark.claim) own.mark_ballot = mark.ballot;
  own.mark = mark.mark;
  if (restore(own, now)) return;
  if (mark.window != 0)
    lost_before_ = std::max(lost_before_, window_start(mark.window, mark.length) + Duration(1));
  else
    lost_buckets_until_ = std::max(lost_buckets_until_, now.mono + mark.length);
}

// nullptr: the table is full.
Registers::Entry* Registers::open(const RegisterKey& key, Duration length, Now now) {
  if (Entry* const found = entries_.find(key)) return found;
  if (entries_.size() >= entries_max_) return nullptr;
  Entry& entry = entries_[key] = from_sketch(key, now).value_or(Entry{});
  entry.length = std::max(entry.length, length);
  return &entry;
}

std::optional<Registers::Entry> Registers::from_sketch(const RegisterKey& key, Now now) const {
  const auto held = sketch_.read(key, now);
  if (!held) return std::nullopt;
  Entry entry;
  entry.promised = among_group(held->promised, key.key);
  if (entry.promised == held->promised) entry.promised_life = held->promised_life;
  if (held->mark > 0) entry.mark_ballot = kNobodysBallot;
  entry.mark = held->mark;
  entry.until = held->until;
  entry.touched = held->touched;
  entry.length = held->length;
  return entry;
}

// The highest ballot up to this one that a member of the key's groups can have: what is read from a shared cell may be of another
// group, and no lessee should be sent there. Of counter 0, nothing needs a promise.
Ballot Registers::among_group(Ballot ballot, const WireId& key) const {
  const Groups groups = roster_.groups(key);
  NodeId largest = 0, below = 0;
  for (const Group& group : {groups.current, groups.previous})
    for (size_t i = 0; i < group.size; ++i) {
      const NodeId id = roster_.id(group.rank[i]);
      largest = std::max(largest, id);
      if (id <= ballot.node) below = std::max(below, id);
    }
  if (below != 0) ballot.node = below;
  else if (ballot.counter > 0) ballot = {ballot.counter - 1, largest};
  return ballot.counter > 0 ? ballot : Ballot{};
}

bool Registers::overflow(const RegisterKey& key, const MarkSketch::Held& held, Now now) {
  const bool kept = sketch_.raise(key, held, now);
  ++(kept ? overflowed_ : refused_full_);
  return kept;
}

std::optional<Accepted> Registers::accept_window(const Mark& mark, Now now) {
  const Duration length = mark.length;
  if (length < kWindowMin || length > kWindowMax) return std::nullopt;
  const int64_t running = window_at(standing_.clock(), length);
  // A sliding window is closed for good once it was left (see may_tell); a fixed one may hear a late owner out.
  // By a clock that earlier lives were not beyond: they may have told a window as over, and have forgotten it.
  const int64_t left = window_at(standing_.lives_clock(), length);
  const int64_t oldest = mark.sliding ? left : left - 1;
  if (mark.window < oldest || mark.window > running + kLookAheadMax / length + 1 ||
      !(may_vote(mark.key, mark.window, length) || begun_anew(mark.key, mark.window))) {
    ++refused_no_vote_;
    return std::nullopt;
  }
  const RegisterKey key{mark.key, mark.window};
  Entry* const kept = open(key, length, now);
  Entry shared;  // where the table is full
  if (kept == nullptr) shared = from_sketch(key, now).value_or(Entry{});
  Entry& entry = kept != nullptr ? *kept : shared;

  Accepted answer;
  answer.key = mark.key;
  answer.window = mark.window;
  answer.mark = entry.mark;
  if (!promise(entry, mark, answer)) return answer;
  const uint64_t asked = mark.claim ? 0 : std::min<uint64_t>(mark.mark, kLimitMax);
  if (!mark.claim) {
    entry.fresh = false;
    entry.mark_ballot = mark.ballot;
    answer.mark = entry.mark = std::max(entry.mark, asked);
  }
  if (kept == nullptr) {
    MarkSketch::Held held;
    held.promised = mark.ballot;
    if (mark.claim) held.promised_life = mark.number;
    held.mark = asked;
    held.length = length;
    if (!overflow(key, held, now)) return std::nullopt;
    if (!mark.claim) answer.mark = asked;  // the owner shall not take another key's mark for an acceptance of its own
  }
  if (mark.sliding) tell_previous(mark, answer, now);
  return answer;
}

// False: refused, as something higher is promised, or the same to another life of that node, whose late promises would count.
bool Registers::promise(Entry& entry, const Mark& mark, Accepted& answer) {
  answer.claim = mark.claim;
  answer.number = mark.number;
  answer.ballot = entry.promised;
  const bool again = mark.ballot == entry.promised && mark.ballot.counter != 0;
  const bool another_life = again && mark.claim && entry.promised_life != mark.number;
  const bool far = mark.claim && !mark.anew() && mark.ballot.counter > entry.promised.counter + kCounterStep;
  answer.refused = mark.ballot < entry.promised || another_life || far;
  if (answer.refused) return false;
  entry.promised = answer.ballot = mark.ballot;
  if (mark.claim) entry.promised_life = mark.number;
  return true;
}

void Registers::tell_previous(const Mark& mark, Accepted& answer, Now now) const {
  if (!succession_.same_before(groups_in_change(mark.key), mark.window, mark.length)) return;
  // Who begins a window anew counts the one before as empty, but for what was begun anew in it too.
  const bool left = window_at(standing_.clock(), mark.length) >= mark.window;
  if (!may_tell(mark.key, mark.window - 1, mark.length) && !(left && begun_anew(mark.key, mark.window))) return;
  answer.previous_told = true;
  const RegisterKey before{mark.key, mark.window - 1};
  if (const Entry* entry = entries_.find(before); entry != nullptr) {
    answer.previous_ballot = entry->mark_ballot;
    answer.previous_mark = entry->mark;
  } else if (const auto shared = from_sketch(before, now)) {
    answer.previous_ballot = shared->mark_ballot;
    answer.previous_mark = shared->mark;
  }
}

std::optional<Accepted> Registers::accept_bucket(const Mark& mark, Now now) {
  if (!(may_vote_bucket(mark.key, mark.length, now) || begun_anew(mark.key, 0)) || mark.length > kRemainingMax ||
      mark.mark > static_cast<uint64_t>(nanos(kRemainingMax))) {
    ++refused_no_vote_;
    return std::nullopt;
  }
  const RegisterKey key{mark.key, 0};
  if (const Entry* const found = entries_.find(key); found != nullptr && over(key, *found, now)) entries_.erase(key);
  Entry* const kept = open(key, mark.length, now);
  Entry shared;  // where the table is full
  if (kept == nullptr) shared = from_sketch(key, now).value_or(Entry{});
  Entry& entry = kept != nullptr ? *kept : shared;

  Accepted answer;
  answer.key = mark.key;
  if (!promise(entry, mark, answer)) return answer;
  const MonoTime asked = mark.claim ? MonoTime{} : now.mono + with_margin(Duration(static_cast<int64_t>(mark.mark)));
  entry.length = std::max(entry.length, mark.length);
  entry.touched = now.mono;
  entry.until = std::max(entry.until, asked);
  answer.mark = mark.claim ? static_cast<uint64_t>(std::max<int64_t>(0, nanos(until_of(mark.key, entry) - now.mono))) : mark.mark;
  if (!mark.claim) {
    entry.fresh = false;
    entry.mark_ballot = mark.ballot;
  }
  if (kept == nullptr) {
    MarkSketch::Held held;
    held.promised = mark.ballot;
    if (mark.claim) held.promised_life = mark.number;
    held.until = asked;
    held.touched = now.mono;
    held.length = mark.length;
    if (!overflow(key, held, now)) return std::nullopt;
  }
  return answer;
}

MonoTime Registers::until_of(const WireId& key, const Entry& entry) const {
  return std::max(entry.until, succession_.bucket_base(groups_in_change(key), entry.length));
}

std::optional<Registers::Told> Registers::look(const WireId& key, int64_t window, Now now) const {
  const RegisterKey k{key, window};
  const Entry* entry = entries_.find(k);
  const bool in_table = entry != nullptr && !over(k, *entry, now);
  const auto shared = in_table ? std::nullopt : from_sketch(k, now);
  if (!in_table && !shared) return std::nullopt;
  if (!in_table) entry = &*shared;
  Told told{entry->mark_ballot, entry->mark, entry->promised, !in_table};
  if (window == 0) told.mark = static_cast<uint64_t>(std::max<int64_t>(0, nanos(until_of(key, *entry) - now.mono)));
  return told;
}

bool Registers::may_begin(const WireId& key, int64_t window, Now now) const {
  const auto told = look(key, window, now);
  return !told || (told->shared && told->promised.counter == 0);
}

bool Registers::may_tell(const WireId& key, int64_t window, Duration length) const {
  return window_at(standing_.clock(), length) > window && (may_vote(key, window, length) || begun_anew(key, window));
}

std::vector<RegisterKey> Registers::keys(const std::function<bool(const WireId&)>& wanted) const {
  std::vector<RegisterKey> found;
  entries_.for_each([&](const RegisterKey& key, const Entry&) {
    if (wanted(key.key)) found.push_back(key);
  });
  return found;
}

Registered Registers::tell(const RegisterKey& key, Now now) const {
  Registered told;
  told.key = key.key;
  told.window = key.window;
  const Entry* const found = entries_.find(key);
  if (found == nullptr || over(key, *found, now)) {
    told.clock_ns = nanos(standing_.clock());
    return told;
  }
  const Entry& entry = *found;
  told.length = entry.length;
  told.promised = entry.promised;
  told.promised_life = entry.promised_life;
  told.mark_ballot = entry.mark_ballot;
  told.mark = key.window != 0 ? entry.mark : static_cast<uint64_t>(std::max<int64_t>(0, nanos(until_of(key.key, entry) - now.mono)));
  return told;
}

bool Registers::restore(const Registered& told, Now now) {
  if (told.length <= Duration(0)) return true;  // it was over by then
  if (told.length > kRemainingMax || (told.window == 0 && told.mark > static_cast<uint64_t>(nanos(kRemainingMax)))) return true;
  // Further ahead than any life of this node has voted, it needs nothing told; an honest entry ends some time.
  if (told.window != 0 && (told.length < kWindowMin || told.length > kWindowMax ||
                           told.window > window_at(standing_.lives_clock() + kLookAheadMax, told.length)))
    return true;
  const RegisterKey key{told.key, told.window};
  // The margins of several who tell each other must not add up to more than any mark can be ahead.
  const MonoTime until = told.window != 0 ? MonoTime{} : now.mono + std::min(with_margin(Duration(static_cast<int64_t>(told.mark))), told.length);
  Entry* entry = open(key, told.length, now);
  if (entry == nullptr) {
    if (told.window != 0 && window_at(standing_.clock(), told.length) > told.window + kWindowsKept) return true;
    MarkSketch::Held held;
    held.promised = told.promised;
    held.promised_life = told.promised_life;
    held.mark = std::min<uint64_t>(told.mark, kLimitMax);
    held.until = until;
    held.touched = now.mono;
    held.length = told.length;
    return overflow(key, held, now);
  }
  entry->length = std::max(entry->length, told.length);
  if (told.promised > entry->promised) {
    entry->promised = told.promised;
    entry->promised_life = told.promised_life;
  }
  if (told.mark_ballot > entry->mark_ballot) entry->mark_ballot = told.mark_ballot;
  if (told.window != 0) {
    entry->mark = std::max(entry->mark, std::min<uint64_t>(told.mark, kLimitMax));
  } else {
    entry->until = std::max(entry->until, until);
    entry->touched = now.mono;
  }
  return true;
}

bool Registers::over(const RegisterKey& key, const Entry& entry, Now now) const {
  if (key.window == 0) return now.mono - entry.touched >= entry.length;
  return window_at(standing_.clock(), entry.length) > key.window + kWindowsKept;
}

void Registers::expire(Now now) {
  constexpr size_t kRounds = 16;
  sketch_.expire(standing_.clock(), now);
  entries_.sweep(kRounds, now.mono, [&](const RegisterKey& key, const Entry& entry) -> std::optional<MonoTime> {
    if (over(key, entry, now)) return std::nullopt;
    if (key.window == 0) return entry.touched + entry.length;
    return now.mono + (window_start(key.window + kWindowsKept + 1, entry.length) - standing_.clock());
  });
}

}  // namespace tally
