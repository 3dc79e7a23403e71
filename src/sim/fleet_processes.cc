// Processes that admit by themselves, beside the daemons of a simulated fleet: the library's own leases, with a socket that takes its time.
#include <algorithm>
#include <cmath>
#include <utility>

#include "core/windows.h"
#include "sim/fleet.h"
#include "sim/trace.h"

namespace tally::sim {

using client::Leases;

namespace {
// Of a process, whatever seed its table has.
KeyHash process_hash(const WireId& id) { return {id.word() | 1, mix(id.word())}; }
}  // namespace

void Fleet::take_by(size_t number, std::string_view rule, std::string_view key, uint32_t cost) {
  Process& process = *processes_[number];
  KeyState& state = key_state(rule, key);
  if (!spend_held(process, state, cost)) ask_for(process, state, cost);
}

bool Fleet::spend_held(Process& process, KeyState& state, uint32_t cost) {
  const KeyHash hash = process_hash(state.id);
  Leases::Entry* entry = process.leases.find(hash);
  if (entry == nullptr) return false;
  const int64_t now = nanos(clock(process.terms.host).mono);
  const Leases::Entry::Held before[2] = {entry->held(0), entry->held(1)};
  if (Leases::spend(*entry, hash, cost, [now] { return now; }) == Leases::kNothing) return now < entry->denied_until.load();
  // From the one that has less of what has not ended.
  const bool second = entry->held(0).left == before[0].left || before[0].end <= now;
  spent_by(process, state, cost, process.taken.at({hash.lo, before[second ? 1 : 0].end}));
  return true;
}

// It counts in the window that the clock shows; where that was set meanwhile, in the one that it was taken in.
void Fleet::spent_by(Process& process, KeyState& state, uint32_t cost, const Process::Taken& taken) {
  const uint16_t rank = process.terms.host;
  const bool set = hosts_[rank].clock.offset != taken.offset;
  const int64_t window = taken.window == 0 || set ? taken.window : window_on(rank, rule_on(rank, state));
  log(210, rank, state.checked.front() << 32 | cost);
  state.by_rank[rank].by_outcome[static_cast<size_t>(Outcome::admitted)] += cost;
  by_processes_ += cost;
  uint64_t& with = state.with_processes[taken.window];
  with -= std::min<uint64_t>(with, cost);
  checkers_.admitted(checked_on(rank, state), window, cost, now_, latest_wall());
  if (config_.admitted) config_.admitted(*state.rule, state.key, cost);
  if (traced_ == &state) trace_line(rank, state, "a process admits cost=" + std::to_string(cost));
}

void Fleet::ask_for(Process& process, KeyState& state, uint32_t cost) {
  const KeyHash hash = process_hash(state.id);
  const auto asking = process.leases.ask(state.rule->name, state.key, hash, cost);
  if (!std::exchange(process.ticking, true)) at(now_ + process.terms.tick, [this, &process] { tick(process); });
  const MonoTime sent = clock(process.terms.host).mono;
  KeyRef key;
  key.state_ = &state;
  at(now_ + takes(process), [this, &process, &state, key, cost, asking, hash, sent] {
    take(process.terms.host, key, cost, [this, &process, &state, asking, hash, sent](Outcome outcome) {
      if (outcome == Outcome::lost) return process.leases.unanswered(asking, hash);
      client::Reply reply;
      reply.limited = outcome != Outcome::admitted;
      if (outcome == Outcome::over_limit) reply.retry_after = process.terms.tick;
      answer(process, state, {asking, hash, sent}, reply, outcome == Outcome::admitted);
    });
  });
}

// The daemon's answer goes out: with a portion, where there is one. It comes in after a while.
void Fleet::answer(Process& process, KeyState& state, const Process::Question& asked, client::Reply reply, bool leases) {
  Process::Taken taken{0, hosts_[process.terms.host].clock.offset};
  if (leases) taken.window = take_portion(process, state, asked.asking.most, reply);
  at(now_ + takes(process), [&process, asked, reply, taken] {
    if (reply.amount != 0) process.taken.emplace(std::pair{asked.hash.lo, nanos(asked.sent + reply.lasts)}, taken);
    process.leases.answered(asked.asking, asked.hash, reply, asked.sent, process.terms.tick);
  });
}

Duration Fleet::takes(const Process& process) {
  return Duration(static_cast<int64_t>(random_.unit() * static_cast<double>(nanos(process.terms.answers_most))));
}

int64_t Fleet::take_portion(Process& process, KeyState& state, uint32_t most, client::Reply& reply) {
  const uint16_t rank = process.terms.host;
  Host& host = hosts_[rank];
  if (most == 0 || host.node == nullptr) return 0;
  const Ask ask = ask_of(host, state, 0);
  const Portion portion = host.limiter->take_portion(ask, most, clock(rank), host.notes.get());
  if (portion.amount == 0) return 0;
  const bool bucket = ask.limit->algorithm == Algorithm::token_bucket;
  reply.amount = portion.amount;
  reply.lasts = portion.lasts;
  reply.account = bucket ? 0 : host.limiter->account_of(portion.window);
  const int64_t window = bucket ? 0 : portion.window;
  state.with_processes[window] += portion.amount;
  if (!bucket) spent_of(state, rank).by_window[window] += portion.amount;
  log(211, rank, portion.amount);
  if (traced_ == &state) trace_line(rank, state, "a process takes " + std::to_string(portion.amount));
  settle_soon(rank);
  return window;
}

void Fleet::tick(Process& process) {
  const MonoTime now = clock(process.terms.host).mono;
  for (const Leases::Order& order : process.leases.tick(now)) {
    if (order.put_back != 0)
      at(now_ + takes(process), [this, &process, order] { put_back(process, order); });
    else
      at(now_ + takes(process), [this, &process, order, now] {
        const Host& host = hosts_[process.terms.host];
        if (host.node == nullptr || host.paused_until > now_) return process.leases.unanswered(order.asking, order.hash);
        answer(process, key_state(order.rule, order.key), {order.asking, order.hash, now}, {}, true);
      });
  }
  process.ticking = !process.leases.quiet();
  if (process.ticking) at(now_ + process.terms.tick, [this, &process] { tick(process); });
}

void Fleet::put_back(Process& process, const Leases::Order& order) {
  const uint16_t rank = process.terms.host;
  Host& host = hosts_[rank];
  KeyState& state = key_state(order.rule, order.key);
  if (host.node == nullptr || host.paused_until > now_) return;  // lost
  const Ask ask = ask_of(host, state, 0);
  if (ask.limit->algorithm == Algorithm::token_bucket) return;
  const int64_t window = window_at(clock(rank).wall, ask.limit->window);
  if (host.limiter->account_of(window) != order.account) return;
  const uint32_t given = host.node->alone() ? host.limiter->give(ask, order.put_back, clock(rank), window)
                                            : host.node->give(*ask.rule, *ask.limit, ask.hash, state.id, order.put_back, clock(rank), window);
  uint64_t& with = state.with_processes[window];
  with -= std::min<uint64_t>(with, given);
  uint64_t& counted = spent_of(state, rank).by_window[window];
  counted -= std::min<uint64_t>(counted, given);
  log(212, rank, given);
  if (traced_ == &state) trace_line(rank, state, "a process puts back " + std::to_string(order.put_back) + ", taken " + std::to_string(given));
  settle(host, rank, rank);
}

void Fleet::poisson_by(size_t process, std::string rule, std::string key, double rate, Duration from, Duration until) {
  const Duration first = from + Duration(static_cast<int64_t>(-std::log(1 - random_.unit()) / rate * 1e9));
  if (first >= until) return;
  at(first, [this, process, rule = std::move(rule), key = std::move(key), rate, first, until] {
    take_by(process, rule, key);
    poisson_by(process, rule, key, rate, first, until);
  });
}

}  // namespace tally::sim
