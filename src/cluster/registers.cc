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

Registers::Registers(size_t entries_max, const Standing& standing, const Recovery& recovery)
    : entries_max_(entries_max), standing_(standing), recovery_(recovery) {}

bool Registers::may_vote(const WireId& key, int64_t window, Duration length) const {
  const WallTime begins = window_start(window, length);
  if (standing_.may_vote(begins)) return true;
  return standing_.has_forgotten() && standing_.in_sight(begins) && recovery_.has_read(key, window, length);
}

bool Registers::may_vote_bucket(const WireId& key, Duration keep, Now now) const {
  if (standing_.may_vote_bucket(keep, now)) return true;
  return standing_.has_forgotten() && recovery_.has_read_bucket(key, keep);
}

std::optional<Accepted> Registers::accept(const Mark& mark, Now now) {
  if (mark.length <= Duration(0)) return std::nullopt;
  if (mark.anew() && !begin_anew(mark, now)) return std::nullopt;
  auto answer = mark.window == 0 ? accept_bucket(mark, now) : accept_window(mark);
  if (answer && mark.claim && !answer->refused) {
    const Entry& entry = entries_.find({mark.key, mark.window})->second;
    const bool votes = mark.window != 0 ? may_vote(mark.key, mark.window, mark.length) : may_vote_bucket(mark.key, mark.length, now);
    if (entry.fresh && !votes) {
      answer->lives = entry.anew;
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
  if (!standing_.has_forgotten() || !recovery_.has_heard_all(mark.key)) return false;
  if (mark.window != 0) {
    if (mark.length < kWindowMin || mark.length > kWindowMax) return false;
    if (mark.window != window_at(standing_.lives_clock(), mark.length)) return false;  // the running one only
    if (may_vote(mark.key, mark.window, mark.length)) return false;
  } else if (mark.length > kRemainingMax || may_vote_bucket(mark.key, mark.length, now)) {
    return false;
  }
  // What it has read of it, without a vote there, is charged; nothing more is known of it by anybody.
  return !begun_anew(mark.key, mark.window) && holds_all_own_;
}

bool Registers::begin_anew(const Mark& mark, Now now) {
  const size_t place = recovery_.place_in_group(mark.key);
  if (place >= mark.lives.size() || mark.lives[place] != recovery_.incarnation()) return false;
  const auto found = entries_.find({mark.key, mark.window});
  if (found != entries_.end() && found->second.anew == mark.lives) return true;
  const bool fresh = found != entries_.end() && found->second.fresh;
  if (!fresh && !forgot(mark, now)) return false;
  Entry* entry = open({mark.key, mark.window}, mark.length);
  if (entry == nullptr) return false;
  entry->anew = mark.lives;
  entry->fresh = true;
  entry->touched = now.mono;
  return true;
}

bool Registers::begun_anew(const WireId& key, int64_t window) const {
  const auto found = entries_.find({key, window});
  return found != entries_.end() && found->second.anew[0] != 0;
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
  if (!restore(own, now)) holds_all_own_ = false;
}

Registers::Entry* Registers::open(const RegisterKey& key, Duration length) {
  auto found = entries_.find(key);
  if (found != entries_.end()) return &found->second;
  if (entries_.size() >= entries_max_) {
    ++refused_full_;
    return nullptr;
  }
  Entry& entry = entries_[key];
  entry.length = length;
  return &entry;
}

std::optional<Accepted> Registers::accept_window(const Mark& mark) {
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
  Entry* entry = open({mark.key, mark.window}, length);
  if (entry == nullptr) return std::nullopt;

  Accepted answer;
  answer.key = mark.key;
  answer.window = mark.window;
  answer.mark = entry->mark;
  if (!promise(*entry, mark, answer)) return answer;
  if (!mark.claim) {
    entry->fresh = false;
    entry->mark_ballot = mark.ballot;
    answer.mark = entry->mark = std::max(entry->mark, std::min<uint64_t>(mark.mark, kLimitMax));
  }
  if (mark.sliding) tell_previous(mark, answer);
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

void Registers::tell_previous(const Mark& mark, Accepted& answer) const {
  // Who begins a window anew counts the one before as empty, but for what was begun anew in it too.
  const bool left = window_at(standing_.clock(), mark.length) >= mark.window;
  if (!may_tell(mark.key, mark.window - 1, mark.length) && !(left && begun_anew(mark.key, mark.window))) return;
  answer.previous_told = true;
  const auto before = entries_.find({mark.key, mark.window - 1});
  if (before == entries_.end()) return;
  answer.previous_ballot = before->second.mark_ballot;
  answer.previous_mark = before->second.mark;
}

std::optional<Accepted> Registers::accept_bucket(const Mark& mark, Now now) {
  if (!(may_vote_bucket(mark.key, mark.length, now) || begun_anew(mark.key, 0)) || mark.length > kRemainingMax ||
      mark.mark > static_cast<uint64_t>(nanos(kRemainingMax))) {
    ++refused_no_vote_;
    return std::nullopt;
  }
  const RegisterKey key{mark.key, 0};
  const auto found = entries_.find(key);
  if (found != entries_.end() && over(key, found->second, now)) entries_.erase(found);
  Entry* entry = open(key, mark.length);
  if (entry == nullptr) return std::nullopt;

  Accepted answer;
  answer.key = mark.key;
  if (!promise(*entry, mark, answer)) return answer;
  entry->length = std::max(entry->length, mark.length);
  entry->touched = now.mono;
  if (mark.claim) {
    answer.mark = static_cast<uint64_t>(std::max<int64_t>(0, nanos(entry->until - now.mono)));
    return answer;
  }
  entry->fresh = false;
  entry->mark_ballot = mark.ballot;
  entry->until = std::max(entry->until, now.mono + with_margin(Duration(static_cast<int64_t>(mark.mark))));
  answer.mark = mark.mark;
  return answer;
}

std::optional<Registers::Told> Registers::look(const WireId& key, int64_t window, Now now) const {
  const RegisterKey k{key, window};
  const auto found = entries_.find(k);
  if (found == entries_.end() || over(k, found->second, now)) return std::nullopt;
  const Entry& entry = found->second;
  if (window != 0) return Told{entry.mark_ballot, entry.mark, entry.promised};
  const auto remaining = static_cast<uint64_t>(std::max<int64_t>(0, nanos(entry.until - now.mono)));
  return Told{entry.mark_ballot, remaining, entry.promised};
}

bool Registers::may_tell(const WireId& key, int64_t window, Duration length) const {
  return window_at(standing_.clock(), length) > window && (may_vote(key, window, length) || begun_anew(key, window));
}

std::vector<RegisterKey> Registers::keys(const std::function<bool(const WireId&)>& wanted) const {
  std::vector<RegisterKey> found;
  for (const auto& [key, entry] : entries_)
    if (wanted(key.key)) found.push_back(key);
  return found;
}

Registered Registers::tell(const RegisterKey& key, Now now) const {
  Registered told;
  told.key = key.key;
  told.window = key.window;
  const auto found = entries_.find(key);
  if (found == entries_.end() || over(key, found->second, now)) {
    told.clock_ns = nanos(standing_.clock());
    return told;
  }
  const Entry& entry = found->second;
  told.length = entry.length;
  told.promised = entry.promised;
  told.promised_life = entry.promised_life;
  told.mark_ballot = entry.mark_ballot;
  told.mark = key.window != 0 ? entry.mark : static_cast<uint64_t>(std::max<int64_t>(0, nanos(entry.until - now.mono)));
  return told;
}

bool Registers::restore(const Registered& told, Now now) {
  if (told.length <= Duration(0)) return true;  // it was over by then
  if (told.length > kRemainingMax || (told.window == 0 && told.mark > static_cast<uint64_t>(nanos(kRemainingMax)))) return true;
  // Further ahead than any life of this node has voted, it needs nothing told; an honest entry ends some time.
  if (told.window != 0 && (told.length < kWindowMin || told.length > kWindowMax ||
                           told.window > window_at(standing_.lives_clock() + kLookAheadMax, told.length)))
    return true;
  Entry* entry = open({told.key, told.window}, told.length);
  if (entry == nullptr) return false;
  entry->length = std::max(entry->length, told.length);
  if (told.promised > entry->promised) {
    entry->promised = told.promised;
    entry->promised_life = told.promised_life;
  }
  if (told.mark_ballot > entry->mark_ballot) entry->mark_ballot = told.mark_ballot;
  if (told.window != 0) {
    entry->mark = std::max(entry->mark, std::min<uint64_t>(told.mark, kLimitMax));
  } else {
    // The margins of several who tell each other must not add up to more than any mark can be ahead.
    const Duration remaining = std::min(with_margin(Duration(static_cast<int64_t>(told.mark))), told.length);
    entry->until = std::max(entry->until, now.mono + remaining);
    entry->touched = now.mono;
  }
  return true;
}

bool Registers::over(const RegisterKey& key, const Entry& entry, Now now) const {
  if (key.window == 0) return now.mono - entry.touched >= entry.length;
  return window_at(standing_.clock(), entry.length) > key.window + kWindowsKept;
}

void Registers::expire(Now now) {
  constexpr size_t kBucketsAtATime = 64, kRounds = 16;  // the whole table in so many rounds
  if (entries_.empty()) return;
  for (size_t i = 0, n = std::max(kBucketsAtATime, entries_.bucket_count() / kRounds); i < n; ++i) {
    if (sweep_bucket_ >= entries_.bucket_count()) sweep_bucket_ = 0;
    for (auto it = entries_.begin(sweep_bucket_); it != entries_.end(sweep_bucket_);) {
      const RegisterKey key = it->first;
      const bool gone = over(key, it->second, now);
      ++it;  // the local iterator must leave the node before it is erased
      if (gone) entries_.erase(key);
    }
    ++sweep_bucket_;
  }
}

}  // namespace tally
