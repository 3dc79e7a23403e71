// The applications of a simulated fleet: what they ask, what waits, and what they got.
#include <algorithm>
#include <cmath>
#include <utility>

#include "base/fail.h"
#include "core/windows.h"
#include "sim/fleet.h"
#include "sim/trace.h"

namespace tally::sim {
namespace {

constexpr std::string_view kOutcomeNames[kOutcomes] = {"admitted", "over_limit", "no_grant", "isolated",
                                                       "lost"};

}  // namespace

std::string_view outcome_name(Outcome outcome) { return kOutcomeNames[static_cast<size_t>(outcome)]; }

uint64_t Tally::offered() const {
  uint64_t sum = 0;
  for (const uint64_t n : by_outcome) sum += n;
  return sum;
}

Tally& Tally::operator+=(const Tally& other) {
  for (size_t i = 0; i < kOutcomes; ++i) by_outcome[i] += other.by_outcome[i];
  waited += other.waited;
  waited_most = std::max(waited_most, other.waited_most);
  return *this;
}

// --- asking ---

Ask Fleet::ask_of(const Host& host, const KeyState& state, uint32_t cost) const {
  const Rule& rule = host.rules->by_id(state.rule->id);
  return {&rule, &rule.limit, state.key, hash_on(host, state), cost};
}

KeyHash Fleet::hash_on(const Host& host, const KeyState& state) const {
  return host.limiter->hash(host.rules->by_id(state.rule->id), state.key);
}

int64_t Fleet::window_on(uint16_t rank, const Rule& rule) const {
  if (rule.limit.algorithm == Algorithm::token_bucket) return 0;
  return window_at(clock(rank).wall, rule.limit.window);
}

// Where a slot counts now: its cell for the running window may have gone on to a later one, before the clock was set back.
int64_t Fleet::window_counted(uint16_t rank, const KeyState& state) const {
  const Host& host = hosts_[rank];
  const Rule& own = rule_on(rank, state);
  const int64_t running = window_on(rank, own);
  if (running == 0 || host.furthest <= host.clock.offset) return running;
  const auto slot = host.slots->ref_of(hash_on(host, state));
  if (!slot) return running;
  const int64_t furthest = window_at(clock(rank).wall + (host.furthest - host.clock.offset), own.limit.window);
  for (int64_t window = furthest - ((furthest - running) & 1); window > running; window -= 2)
    if (host.slots->count(*slot, static_cast<uint32_t>(window)).value_or(0) > 0) return window;
  return running;
}

Fleet::KeyRef Fleet::key(std::string_view rule, std::string_view key) {
  KeyRef ref;
  ref.state_ = &key_state(rule, key);
  return ref;
}

void Fleet::take(uint16_t rank, KeyRef key, uint32_t cost, Done done) {
  Host& host = hosts_[rank];
  KeyState& state = *key.state_;
  if (host.paused_until <= now_) return ask(rank, state, cost, std::move(done));
  Event event;
  event.at = host.paused_until;
  event.host = rank;
  event.call = [this, rank, &state, cost, then = std::move(done)] { ask(rank, state, cost, then); };
  push(std::move(event));
}

void Fleet::ask(uint16_t rank, KeyState& state, uint32_t cost, Done done) {
  Host& host = hosts_[rank];
  if (host.node == nullptr) return finish(rank, state, cost, Outcome::lost, Duration(0), done);
  const KeyHash hash = hash_on(host, state);
  const auto waiting = host.parked.find(hash);
  const bool behind = waiting != host.parked.end() && !waiting->second.empty();
  bool noted = true;
  Verdict verdict = Verdict::starved;
  if (behind)
    noted = note_behind(host, rank, state, cost);
  else
    verdict = decide(host, rank, state, cost, host.notes.get());
  settle_soon(rank);
  if (verdict == Verdict::admitted) return finish(rank, state, cost, Outcome::admitted, Duration(0), done);
  if (verdict == Verdict::over_limit)
    return finish(rank, state, cost, Outcome::over_limit, Duration(0), done);
  if (verdict == Verdict::isolated) return finish(rank, state, cost, Outcome::isolated, Duration(0), done);
  const Duration wait = state.rule->wait;
  if (wait <= Duration(0)) return finish(rank, state, cost, Outcome::no_grant, Duration(0), done);

  host.parked[hash].push_back({++parked_, &state, cost, now_, std::move(done), noted});
  ++state.by_rank[rank].waited;
  Event event;
  event.at = now_ + wait;
  event.kind = Kind::deadline;
  event.host = rank;
  event.life = host.life;
  event.number = parked_;
  event.hash = hash;
  push(std::move(event));
  if (!noted) retry(host, rank, hash);
}

// Nobody passes those that wait under the same key, as in the daemon's worker: where there is something now, it is tried for
// those before first, and the cluster thread is told of what is then still missing.
bool Fleet::note_behind(Host& host, uint16_t rank, const KeyState& state, uint32_t cost) {
  const Ask ask = ask_of(host, state, cost);
  if (host.limiter->peek(ask, clock(rank)).verdict != Verdict::starved) return false;
  host.limiter->note_starved(ask, clock(rank), *host.notes);
  return true;
}

Verdict Fleet::decide(Host& host, uint16_t rank, const KeyState& state, uint32_t cost, NoteRing* notes) {
  const auto before = counted_ahead(rank, state);
  const Verdict verdict = host.limiter->take(ask_of(host, state, cost), clock(rank), notes).verdict;
  if (verdict != Verdict::admitted) return verdict;
  host.decided_in = window_on(rank, rule_on(rank, state));
  for (const auto& [window, count] : counted_ahead(rank, state)) {
    const auto was = before.find(window);
    if (was == before.end() || was->second != count) host.decided_in = window;
  }
  return verdict;
}

// The counts of the key's slot in windows that the host's clock has been in before it was set back. Where keys were evicted
// meanwhile, the slot may go on in any of them.
std::map<int64_t, uint32_t> Fleet::counted_ahead(uint16_t rank, const KeyState& state) const {
  const Host& host = hosts_[rank];
  const Rule& own = rule_on(rank, state);
  const int64_t running = window_on(rank, own);
  std::map<int64_t, uint32_t> counts;
  if (running == 0 || host.furthest <= host.clock.offset) return counts;
  const auto slot = host.slots->ref_of(hash_on(host, state));
  if (!slot) return counts;
  const int64_t furthest = window_at(clock(rank).wall + (host.furthest - host.clock.offset), own.limit.window);
  for (int64_t window = furthest; window > running; --window)
    if (const auto count = host.slots->count(*slot, static_cast<uint32_t>(window)); count.value_or(0) > 0) counts.emplace(window, *count);
  return counts;
}

void Fleet::finish(uint16_t rank, KeyState& state, uint32_t cost, Outcome outcome, Duration waited,
                   const Done& done) {
  log(200 + static_cast<uint64_t>(outcome), rank, state.checked.front() << 32 | cost);
  Tally& tally = state.by_rank[rank];
  tally.by_outcome[static_cast<size_t>(outcome)] += cost;
  tally.waited_most = std::max(tally.waited_most, waited);
  if (outcome == Outcome::admitted) {
    const int64_t window = hosts_[rank].decided_in;
    if (window != 0) spent_of(state, rank).by_window[window] += cost;
    checkers_.admitted(checked_on(rank, state), window, cost, now_, latest_wall());
    if (config_.admitted) config_.admitted(*state.rule, state.key, cost);
  }
  if (traced_ == &state)
    trace_line(rank, state,
               std::string(outcome_name(outcome)) + " cost=" + std::to_string(cost) +
                   (waited > Duration(0) ? " waited=" + describe(waited) : ""));
  if (done) done(outcome);
}

bool Fleet::retry(Host& host, uint16_t rank, KeyHash hash) {
  for (bool answered = false;; answered = true) {
    const auto it = host.parked.find(hash);
    if (it == host.parked.end()) return answered;
    if (it->second.empty()) {
      host.parked.erase(it);
      return answered;
    }
    Parked& first = it->second.front();
    const Verdict verdict = decide(host, rank, *first.state, first.cost, nullptr);
    if (verdict == Verdict::starved) {
      Parked& last = it->second.back();  // each is tried as it comes, so that no other can be new
      if (!std::exchange(last.noted, true))
        host.limiter->note_starved(ask_of(host, *last.state, last.cost), clock(rank), *host.notes);
      return answered;
    }
    const Parked parked = std::move(first);
    it->second.pop_front();
    const Outcome outcome = verdict == Verdict::admitted   ? Outcome::admitted
                            : verdict == Verdict::isolated ? Outcome::isolated
                                                           : Outcome::over_limit;
    finish(rank, *parked.state, parked.cost, outcome, now_ - parked.since, parked.done);
  }
}

void Fleet::expire(Host& host, uint16_t rank, KeyHash hash, uint64_t number) {
  const auto it = host.parked.find(hash);
  if (it == host.parked.end()) return;
  const auto parked = std::ranges::find(it->second, number, &Parked::number);
  if (parked == it->second.end()) return;
  const Parked gone = std::move(*parked);
  it->second.erase(parked);
  finish(rank, *gone.state, gone.cost, Outcome::no_grant, now_ - gone.since, gone.done);
  retry(host, rank, hash);  // what stood behind it may want less
}

namespace {

// `n` tokens of `own` in those of `form`: hosts tell each other of a bucket's tokens in time, and where one
// has a longer emission than the others, what it gives back is more of theirs.
uint64_t in_tokens_of(const Limit& form, const Limit& own, uint32_t n) {
  if (form.algorithm != Algorithm::token_bucket || form.emission == own.emission) return n;
  return (uint64_t{n} * static_cast<uint64_t>(nanos(own.emission)) +
          static_cast<uint64_t>(nanos(form.emission)) - 1) /
         static_cast<uint64_t>(nanos(form.emission));
}

}  // namespace

uint32_t Fleet::give(uint16_t rank, std::string_view rule, std::string_view key, uint32_t n) {
  Host& host = hosts_[rank];
  KeyState& state = key_state(rule, key);
  if (host.node == nullptr) return 0;
  const Ask ask = ask_of(host, state, n);
  const uint32_t given = host.node->alone()
                             ? host.limiter->give(ask, n, clock(rank))
                             : host.node->give(*ask.rule, *ask.limit, ask.hash, state.id, n, clock(rank));
  checkers_.refunded(checked_on(rank, state), window_counted(rank, state),
                     in_tokens_of(rule_on(rank, state).limit, *ask.limit, given));
  log(300, rank, given);
  if (traced_ == &state)
    trace_line(rank, state, "give " + std::to_string(n) + " gave " + std::to_string(given));
  settle(host, rank, rank);
  return given;
}

bool Fleet::claim(uint16_t rank, std::string_view rule, std::string_view key, int64_t ahead) {
  Host& host = hosts_[rank];
  const KeyState& state = key_state(rule, key);
  if (host.node == nullptr || host.paused_until > now_) return false;
  const Rule& own = rule_on(rank, state);
  const bool bucket = own.limit.algorithm == Algorithm::token_bucket;
  const bool claimed = host.node->claim(state.id, window_on(rank, own) + (bucket ? 0 : ahead), clock(rank));
  log(302, rank, claimed);
  settle(host, rank, rank);
  return claimed;
}

bool Fleet::reset(uint16_t rank, std::string_view rule, std::string_view key) {
  Host& host = hosts_[rank];
  KeyState& state = key_state(rule, key);
  if (host.node == nullptr) return false;
  const Ask ask = ask_of(host, state, 0);
  const bool there = host.node->alone()
                         ? host.limiter->reset(ask, clock(rank))
                         : host.node->reset(*ask.rule, *ask.limit, ask.hash, state.id, clock(rank));
  if (!std::exchange(state.was_reset, true)) were_reset_.push_back(&state);
  if (host.node->alone()) take_back_all(state, rank);
  log(301, rank, there);
  if (traced_ == &state) trace_line(rank, state, "reset");
  settle(host, rank, rank);
  return there;
}

// What a host takes back when it hears of a reset: all that it used of the running window and the one before.
void Fleet::take_back_all(KeyState& state, uint16_t rank) {
  const Rule& own = rule_on(rank, state);
  const size_t checked = checked_on(rank, state);
  if (own.limit.algorithm == Algorithm::token_bucket) {
    // What processes hold of it was counted, and is given back with all that was.
    if (const auto with = state.with_processes.find(0); with != state.with_processes.end()) checkers_.refunded(checked, 0, with->second);
    return checkers_.emptied(checked);
  }
  const int64_t running = window_counted(rank, state);
  for (auto& [window, used] : spent_of(state, rank).by_window)
    if (window >= running - 1) checkers_.refunded(checked, window, std::exchange(used, 0));
}

Fleet::Spent& Fleet::spent_of(KeyState& state, uint16_t rank) {
  Spent& spent = state.spent[rank];
  if (spent.life != hosts_[rank].life) {
    spent = Spent{};
    spent.life = hosts_[rank].life;
  }
  return spent;
}

void Fleet::look_at_resets(Host& host, uint16_t rank) {
  for (KeyState* state : were_reset_) look_at_reset(*state, host, rank);
}

void Fleet::look_at_reset(KeyState& state, Host& host, uint16_t rank) {
  Spent& spent = spent_of(state, rank);
  const Node::KnownResets known = host.node->known_resets(state.id);
  const bool bucket = rule_on(rank, state).limit.algorithm == Algorithm::token_bucket;
  const bool heard = bucket ? known.books > spent.reset_books : known.account > spent.reset_account;
  spent.reset_account = std::max(spent.reset_account, known.account);
  spent.reset_books = std::max(spent.reset_books, known.books);
  if (heard) take_back_all(state, rank);
}

// --- traffic ---

void Fleet::poisson(uint16_t rank, std::string rule, std::string key, double rate, Duration from,
                    Duration until) {
  const auto next = [this, rate] {
    return Duration(static_cast<int64_t>(-std::log(1 - random_.unit()) / rate * 1e9));
  };
  const Duration first = from + next();
  if (first >= until) return;
  at(first, [this, rank, rule = std::move(rule), key = std::move(key), rate, first, until] {
    take(rank, rule, key);
    poisson(rank, rule, key, rate, first, until);
  });
}

void Fleet::evenly(uint16_t rank, std::string rule, std::string key, uint32_t n, Duration from,
                   Duration until) {
  for (uint32_t i = 0; i < n; ++i)
    at(from + (until - from) * i / n, [this, rank, rule, key] { take(rank, rule, key); });
}

// --- looking ---

const Fleet::KeyState* Fleet::known(std::string_view rule, std::string_view key) const {
  const auto it = keys_.find({std::string(rule), std::string(key)});
  return it == keys_.end() ? nullptr : &it->second;
}

Tally Fleet::tally(std::string_view rule, std::string_view key) const {
  Tally sum;
  if (const KeyState* state = known(rule, key))
    for (const auto& [rank, t] : state->by_rank) sum += t;
  return sum;
}

Tally Fleet::tally(std::string_view rule, std::string_view key, uint16_t rank) const {
  const KeyState* state = known(rule, key);
  if (state == nullptr) return {};
  const auto it = state->by_rank.find(rank);
  return it == state->by_rank.end() ? Tally{} : it->second;
}

const std::map<int64_t, Checkers::WindowCount>& Fleet::windows(std::string_view rule,
                                                               std::string_view key) const {
  static const std::map<int64_t, Checkers::WindowCount> kNone;
  const KeyState* state = known(rule, key);
  return state == nullptr ? kNone : checkers_.windows(state->checked.front());
}

double Fleet::fullest(std::string_view rule, std::string_view key) const {
  const KeyState* state = known(rule, key);
  return state == nullptr ? 0 : checkers_.fullest(state->checked.front());
}

Group Fleet::group(std::string_view rule_name, std::string_view key) const {
  return roster_.group(wire_id(key, rule(rule_name).id_key));
}

uint16_t Fleet::owner(std::string_view rule_name, std::string_view key) const {
  return group(rule_name, key).rank[0];
}

Explanation Fleet::explain(uint16_t rank, std::string_view rule_name, std::string_view key) {
  Host& host = hosts_[rank];
  const KeyState& state = key_state(rule_name, key);
  const Rule& on_host = host.rules->by_id(state.rule->id);
  return host.node->explain(on_host, on_host.limit, hash_on(host, state), state.id, clock(rank));
}

void Fleet::violate(std::string_view rule, std::string_view key, std::string_view checker, std::string what) {
  checkers_.violate(key_state(rule, key).checked.front(), now_, checker, std::move(what));
}

WallTime Fleet::latest_wall() const {
  Duration furthest = config_.books ? config_.books_offset + now_ : Duration::min();
  for (const Host& host : hosts_)
    furthest = std::max(furthest, host.furthest + shown(now_, host.clock.drift_ppm));
  return config_.epoch + furthest;
}

void Fleet::trace(std::string_view rule, std::string_view key, std::function<void(const std::string&)> line) {
  traced_ = &key_state(rule, key);
  trace_ = std::move(line);
}

void Fleet::trace_line(uint16_t rank, const KeyState& state, const std::string& text) {
  std::string line = describe(now_) + "  node " + std::to_string(rank);
  const Rule& own = rule_on(rank, state);
  if (own.limit.window > Duration(0)) line += " in w=" + std::to_string(window_on(rank, own));
  trace_(line + "  " + text);
}

}  // namespace tally::sim
