#include "cluster/lessee.h"

#include <algorithm>

#include "core/windows.h"

namespace tally {

namespace {

constexpr size_t kIdleAtATime = 4096;             // idle accounts looked at in one sync interval
constexpr Duration kIdleLookMost = std::chrono::seconds(5);  // between two looks: its slot may be evicted, or the wall clock set
constexpr Duration kWorkersLate = std::chrono::seconds(2);  // longer than a worker decides by an order that has ended
constexpr Duration kAskAgainMin = std::chrono::milliseconds(3);

Terms terms_of(const Rule& rule, const Limit& limit) {
  return {limit.algorithm, limit.limit, rule.max_overcount, limit.window, limit.emission};
}

}  // namespace

Lessee::Lessee(Surroundings around, Limiter& limiter, size_t accounts_max, MonoTime started)
    : around_(around), limiter_(limiter), accounts_max_(accounts_max), started_(started), urgent_sent_(around.roster.count()) {}

// ---- accounts -------------------------------------------------------------------------------------------------------

Lessee::Account* Lessee::account_for(const Note& note, Now now) {
  if (!limiter_.slots().living(note.slot)) return nullptr;  // evicted meanwhile; its next use is noted anew
  const Rule& rule = around_.rules->by_id(note.rule);
  const bool own_limit = &rule != &around_.rules->inline_rule() && rule.overrides == nullptr;
  Account* account = accounts_.find(note.id);
  if (account == nullptr) {
    if (accounts_.size() >= accounts_max_) {
      ++dropped_["accounts_full"];
      limiter_.slots().clear_noted(note.slot);  // to be noted again, and evicted before those that have accounts
      return nullptr;
    }
    account = &accounts_[note.id];
    account->id = note.id;
    account->rule = &rule;
    account->groups = around_.roster.groups(note.id);
    account->line = ++lines_;
    account->slot = note.slot;
    account->hash = note.hash;
    account->measured_at = now.mono;
    account->born = now.wall;
    account->reset = around_.resets.number_of(note.id);
  } else if (account->slot != note.slot) {
    adopt_slot(*account, note.slot);
  }
  account->limit = limit_of(rule, note.id, own_limit ? rule.limit : note.limit);  // a worker may still decide by the rules before these
  account->terms = terms_of(rule, account->limit);
  return account;
}

void Lessee::use_rules() {
  accounts_.for_each([&](const WireId&, Account& account) {
    const Rule& before = *account.rule;
    account.rule = &around_.rules->by_id(before.id);
    // What an override comes to now says the key's next note.
    const bool overridden = account.rule->overrides != nullptr && account.limit != before.limit;
    if (account.rule == &around_.rules->inline_rule()) return;
    account.limit = limit_of(*account.rule, account.id, overridden ? account.limit : account.rule->limit);
    account.terms = terms_of(*account.rule, account.limit);
  });
}

// What an operator has ordered, or else `otherwise`.
Limit Lessee::limit_of(const Rule& rule, const WireId& id, const Limit& otherwise) const {
  const auto ordered = around_.ordered_limit(id);
  return ordered ? with_number(rule, around_.rules->share(), *ordered) : otherwise;
}

void Lessee::use_limit(const WireId& id, Now now) {
  Account* const account = accounts_.find(id);
  if (account == nullptr || account->rule == &around_.rules->inline_rule()) return;
  const bool overrides = account->rule->overrides != nullptr;  // what one comes to says the key's next note
  account->limit = limit_of(*account->rule, id, overrides ? account->limit : account->rule->limit);
  // Grants that are on their way were made by the number before: one that says "used up" would be believed for the rest of the window.
  unsure_until_[id] = now.mono + kWorkersLate;
  account->terms = terms_of(*account->rule, account->limit);
  account->exhausted_until = account->ask_not_before = MonoTime{};
  activate(*account);
  tell_workers(*account, now);
}

bool Lessee::goes_by(const WireId& key, uint32_t limit) const {
  const Account* const account = accounts_.find(key);
  return account != nullptr && account->terms.limit == limit;
}

void Lessee::tell_all(const std::function<bool(const WireId&)>& of) {
  accounts_.for_each([&](const WireId& id, Account& account) {
    if (!of(id)) return;
    ++account.changes;
    account.ask_not_before = MonoTime{};
    for (WindowAccount& w : account.windows) {
      w.final_heard = false;
      w.finals = 0;
      w.contacted = w.contacted || w.has_ballot;  // granted ahead
    }
    account.finals_over_in = -1;
    account.tell_ahead = !account.bucket();
    activate(account);
  });
}

// The key was evicted and came back: a new line, whose floor the old line already spent or holds.
void Lessee::adopt_slot(Account& account, SlotRef slot) {
  account.slot = slot;
  account.line = ++lines_;
  for (WindowAccount& w : account.windows) {
    const int64_t window = w.window;
    w = WindowAccount{};
    w.window = window;
    w.floor = account.limit.floor;
    w.floor_lost = true;
  }
  const MonoTime none{};
  account.lease.lease = 0;
  account.lease.alone = false;
  begin_lease(account.lease, 0);
  account.lease.end = none;
  account.lease.has_ballot = false;
  account.count_seen = 0;
}

void Lessee::activate(Account& account) {
  if (account.active) return;
  account.active = true;
  account.unanswered_since = MonoTime{};  // of a question that nobody waits for any more
  account.choose_first();
  active_.push_back(account.id);
}

void Lessee::make_urgent(Account& account) {
  if (account.urgent) return;
  account.urgent = true;
  urgent_.push_back(account.id);
}

void Lessee::note(const Note& note, Now now) {
  Account* account = account_for(note, now);
  if (account == nullptr) return;
  activate(*account);
  account->busy_at = now.mono;
  const uint64_t amount = amount_of(note.limit, note.cost);
  account->cost_seen = std::max<uint64_t>(1, amount);
  if (note.kind == Note::Kind::used) return;
  if (note.kind == Note::Kind::starved) {
    const uint64_t all = amount * note.requests;
    account->denied += all;
    end_waits(*account, now);
    const bool waits = account->rule->wait > Duration(0);
    // Nobody waits under `wait` 0: one request's worth is asked for, so that the next try finds it.
    account->waiting = waits ? account->waiting + all : std::max(account->waiting, all);
    account->waiting_young += all;
    account->waiting_min = account->waiting_min == 0 ? amount : std::min(account->waiting_min, amount);
    const Duration patience = waits ? account->rule->wait : look(*account, now).trip * 2 + kAskAgainMin;
    account->waiting_until = std::max(account->waiting_until, now.mono + patience);
    if (account->waiting_turn == MonoTime{}) account->waiting_turn = account->waiting_until;
  }
  make_urgent(*account);
}

// Nobody says when a request has waited in vain. So they are counted in two generations, and the older is forgotten when the
// younger's time has come: else a key that is asked for all the time would seem to wait for all that it was ever refused.
void Lessee::end_waits(Account& account, Now now) {
  if (account.waiting == 0 || now.mono >= account.waiting_until) {
    account.waiting = account.waiting_min = account.waiting_young = 0;
    account.waiting_turn = MonoTime{};
  } else if (now.mono >= account.waiting_turn) {
    account.waiting = std::min(account.waiting, account.waiting_young);
    account.waiting_young = 0;
    account.waiting_turn = account.waiting_until;
  }
}

// ---- windows ----------------------------------------------------------------------------------------------------------

Lessee::WindowAccount& Lessee::window_account(Account& account, int64_t window) {
  WindowAccount& w = account.windows[static_cast<size_t>(window & 1)];
  if (w.window < window) {
    w = WindowAccount{};
    w.window = window;
    w.floor = account.limit.floor;
  }
  return w;
}

uint64_t Lessee::floor_of_window(const Account& account, const WindowAccount& w) const {
  return limiter_.floor_in({.floor = w.floor, .window = account.limit.window}, w.window);
}

uint64_t Lessee::ceiling_of(const Account& account, const WindowAccount& w) const {
  return floor_of_window(account, w) + w.granted_before + w.granted + w.refunded + w.isolated;
}

// Where the clock was set back the slot may have left a window that comes again: nothing is added to what was counted there.
uint64_t Lessee::count_of(const Account& account, const WindowAccount& w) const {
  return limiter_.slots().count(account.slot, static_cast<uint32_t>(w.window)).value_or(w.used_reported + w.taken);
}

void Lessee::raise(Account& account, const WindowAccount& w) {
  const uint64_t ceiling = std::min<uint64_t>(ceiling_of(account, w), UINT32_MAX);
  limiter_.slots().raise_ceiling(account.slot, static_cast<uint32_t>(w.window), static_cast<uint32_t>(ceiling));
}

void Lessee::prefetch(const WireId& key, int step) const {
  if (step == 0) return accounts_.prefetch_cell(key);
  if (step == 1) return accounts_.prefetch_value(key, sizeof(Account::windows) + sizeof(Account::lease));
  if (step == 3) return;
  const Account* const account = accounts_.find(key);
  if (account == nullptr) return;
  limiter_.slots().prefetch(account->slot);
  if (account->bucket()) return prefetch_object(&account->lease);
  prefetch_object(&account->windows[static_cast<size_t>(account->seen_in & 1)]);
}

// ---- time --------------------------------------------------------------------------------------------------------------

void Lessee::tick(Now now) {
  std::erase_if(unsure_until_, [&](const auto& unsure) { return unsure.second <= now.mono; });
  std::vector<WireId> still;
  still.reserve(active_.size());
  with_prefetch(std::exchange(active_, {}), [this](const WireId& id, int step) { prefetch(id, step); }, [&](const WireId& id) {
    Account* account = accounts_.find(id);
    if (account == nullptr) return;
    end_waits(*account, now);
    Look at = look(*account, now);
    ask_next(*account, at);
    Quota q = quota(*account, at);
    const bool report = wants_report(*account, q, at);  // before `measure` takes the changes in
    measure(*account, q, at);
    if (give_back_idle(*account, false, q, at)) q = quota(*account, at);
    const bool told = send_final(*account, at);
    if (account->tell_ahead) tell_ahead(*account, at);
    if (report || wants_report(*account, q, at)) send_report(*account, q, at);
    if (!account->isolated && account->waiting == 0 && !wants_report(*account, q, at)) {
      account->unanswered_since = MonoTime{};
      account->choose_first();
    }
    check_isolation(*account, at);
    if (account->isolated) q = quota(*account, at);
    set_ask_mark(*account, q, at);
    if (!limiter_.slots().living(account->slot)) account->isolated = false;  // evicted: nobody asks for it here any more
    account->active = now.mono - account->busy_at <= around_.recent() || account->isolated;
    if (account->active) {
      still.push_back(id);
    } else {
      limiter_.slots().clear_noted(account->slot);
      if (!account->idle) be_idle(*account, told, now);
    }
  });
  still.insert(still.end(), active_.begin(), active_.end());
  active_ = std::move(still);
  tick_idle(now);
}

// When its lease has surely ended and, as far as is known here, its bucket is full again.
MonoTime Lessee::bucket_full_at(const Account& account) const {
  return std::max(account.lease.end + around_.lease, account.heard_at + account.lease.tat_ahead);
}

// Whether nothing of the account is still needed: its windows are over and told, its lease has ended and, as far as is known
// here, its bucket is full again, so that nothing of it can be given back.
bool Lessee::finished(const Account& account, Now now) const {
  if (account.active || account.urgent) return false;
  if (account.bucket()) return now.mono >= bucket_full_at(account);  // a later account is another line, which gave nothing
  const int64_t running = window_at(now.wall, account.limit.window);
  for (const WindowAccount& w : account.windows)
    if (w.window >= running - 1) return false;
  return true;
}

// It is looked at next when it may have a final report to send, or be finished.
void Lessee::be_idle(Account& account, bool told, Now now) {
  const Duration least = around_.pace.sync_interval, most = std::max(least, kIdleLookMost);
  const Duration left = account.bucket() ? bucket_full_at(account) - now.mono : window_end(window_now(account, now), account.limit.window) - now.wall;
  const Idle idle{now.mono + (told ? least : std::clamp(left, least, most)), account.id};
  account.idle = true;
  if (idle.due == now.mono + most && (idle_long_.empty() || idle_long_.back().due <= idle.due))
    idle_long_.push_back(idle);
  else
    idle_.push(idle);
}

void Lessee::tick_idle(Now now) {
  std::vector<WireId> due;
  for (; due.size() < kIdleAtATime && !idle_.empty() && idle_.top().due <= now.mono; idle_.pop()) due.push_back(idle_.top().id);
  for (; due.size() < kIdleAtATime && !idle_long_.empty() && idle_long_.front().due <= now.mono; idle_long_.pop_front())
    due.push_back(idle_long_.front().id);
  with_prefetch(due, [this](const WireId& id, int step) { prefetch(id, step); }, [&](const WireId& id) {
    Account* account = accounts_.find(id);
    if (account == nullptr) return;
    account->idle = false;
    if (account->active) return;  // among the active again
    const bool told = send_final(*account, look(*account, now));
    if (finished(*account, now) || !limiter_.slots().living(account->slot)) {
      limiter_.slots().clear_noted(account->slot);
      accounts_.erase(id);
    } else {
      be_idle(*account, told, now);
    }
  });
}

MonoTime Lessee::next_urgent() const { return urgent_.empty() ? MonoTime::max() : next_urgent_; }

void Lessee::send_urgent(Now now) {
  next_urgent_ = MonoTime::max();
  std::vector<WireId> still;
  std::vector<uint16_t> sent;
  for (const WireId& id : std::exchange(urgent_, {})) {
    Account* account = accounts_.find(id);
    if (account == nullptr) continue;
    Look at = look(*account, now);
    const uint16_t owner = at.owner;
    end_waits(*account, now);
    if (!around_.can_lease(account->terms, around_.peers.round_trip_lately(owner, now.mono))) {
      account->exhausted_until = now.mono + (window_end(window_now(*account, now), account->limit.window) - now.wall);
      account->urgent = false;
      tell_workers(*account, now);
      continue;
    }
    ask_next(*account, at);
    check_isolation(*account, at);
    if (account->isolated) {
      serve_alone(*account, at);
      activate(*account);  // workers refuse without a note from now on: only a report that is answered ends it
    }
    Quota q = quota(*account, at);
    const bool done = now.mono < account->exhausted_until || wanted(*account, q, at) <= q.ceiling;
    if (done && !account->tell_used) {
      account->urgent = false;
      tell_workers(*account, q, at);
      continue;
    }
    const Duration patience = std::max(kAskAgainMin, around_.peers.round_trip(owner) * 2);
    MonoTime due = account->answered ? MonoTime{} : account->asked_at + patience;
    due = std::max(due, account->tell_used ? account->promised_until : account->ask_not_before);
    if (owner != around_.self) due = std::max(due, urgent_sent_[owner] + std::chrono::milliseconds(1));
    if (due <= now.mono) {
      send_report(*account, q, at);
      sent.push_back(owner);
      due = now.mono + patience;
      account->tell_used = false;
    }
    account->urgent = account->tell_used || (account->waiting != 0 && due < account->waiting_until);
    if (!account->urgent) continue;
    still.push_back(id);
    next_urgent_ = std::min(next_urgent_, due);
  }
  for (const uint16_t owner : sent) urgent_sent_[owner] = now.mono;
  urgent_.insert(urgent_.end(), still.begin(), still.end());
}

// ---- for EXPLAIN -----------------------------------------------------------------------------------------------------------

std::optional<Lessee::View> Lessee::view(const WireId& key, Now now) const {
  const Account* const found = accounts_.find(key);
  if (found == nullptr) return std::nullopt;
  const Account& account = *found;
  View view;
  view.isolated = account.isolated;
  if (account.heard_at != MonoTime{}) view.knowledge_age = now.mono - account.heard_at;
  if (account.bucket()) {
    const uint64_t unit = amount_of(account.limit, 1);
    view.ballot = account.lease.ballot;
    if (const auto lease = limiter_.slots().lease(account.slot)) {
      view.used = static_cast<uint64_t>(lease->count) / unit;
      view.ceiling = (lease_runs(account, now) ? static_cast<uint64_t>(lease->ceiling) : 0) / unit;
    }
    view.used_fleet = static_cast<uint64_t>(std::max<int64_t>(0, nanos(account.lease.tat_ahead))) / unit;
    return view;
  }
  const int64_t running = window_at(now.wall, account.limit.window);
  const WindowAccount& w = account.windows[static_cast<size_t>(running & 1)];
  if (w.window != running) return view;
  view.ballot = w.ballot;
  view.used = minus(count_of(account, w), w.taken + w.refunded);
  view.ceiling = ceiling_of(account, w);
  view.used_fleet = w.used_fleet;
  return view;
}

}  // namespace tally
