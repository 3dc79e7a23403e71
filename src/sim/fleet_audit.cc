// What must hold of a fleet at every moment, though nobody has asked for it yet: what hosts hold, not what they gave.
#include <algorithm>
#include <string>

#include "core/windows.h"
#include "sim/fleet.h"

namespace tally::sim {

// What the host admits of the key in the window without hearing anything more; 0 where a worker would not admit one request
// (a slot that was in a later window never goes back). A key without a slot begins with what the sketch remembers of it:
// nothing is counted for it, which is less than it may have.
uint64_t Fleet::spendable(uint16_t rank, const KeyState& state, const Limit& limit, int64_t window) const {
  const Host& host = hosts_[rank];
  const auto slot = host.slots->ref_of(hash_on(host, state));
  if (!slot) return 0;
  Now then = clock(rank);
  if (window != window_at(then.wall, limit.window)) then.wall = window_start(window, limit.window);
  if (host.limiter->peek(ask_of(host, state, 1), then).verdict != Verdict::admitted) return 0;
  const auto tag = static_cast<uint32_t>(window);
  const uint64_t ceiling = host.slots->ceiling(*slot, tag).value_or(host.limiter->floor_in(limit, window));
  const uint64_t count = host.slots->count(*slot, tag).value_or(0);
  return ceiling - std::min(ceiling, count);
}

// Of each window that a clock shows, and the next one, which is granted in ahead: what was admitted and what may be, of each
// form of the rule. And the floors, which are there whatever anybody grants.
void Fleet::audit_windows(const KeyState& state) {
  struct Held {
    uint64_t spendable = 0, floors = 0;
  };
  const Forms& forms = forms_[state.rule->id];
  for (size_t form = 0; form < forms.rules.size(); ++form) {
    const Rule& rule = forms.rules[form];
    if (rule.limit.algorithm == Algorithm::token_bucket) return;
    std::map<int64_t, Held> held;
    for (uint16_t rank = 0; rank < hosts(); ++rank) {
      const Host& host = hosts_[rank];
      if (host.node == nullptr || forms.of_host[rank] != form) continue;
      const Limit& limit = host.rules->by_id(rule.id).limit;
      const int64_t running = window_counted(rank, state);
      for (const int64_t window : {running, running + 1}) {
        held[window].spendable += spendable(rank, state, limit, window);
        held[window].floors += host.limiter->floor_in(limit, window);
      }
    }
    for (auto& [window, h] : held)
      if (const auto with = state.with_processes.find(window); with != state.with_processes.end() && forms.rules.size() == 1) h.spendable += with->second;
    const uint64_t floors_most = bound_in(rule) - std::min<uint64_t>(bound_in(rule), rule.limit.limit);
    for (const auto& [window, h] : held) {
      checkers_.holding(state.checked[form], window, h.spendable, now_);
      if (!rule.max_overcount.unbounded && h.floors > floors_most)
        checkers_.violate(state.checked[form], now_, "floors",
                          "floors of window " + std::to_string(window) + " are " + std::to_string(h.floors) + " in all, of " +
                              std::to_string(floors_most));
    }
  }
}

void Fleet::audit() {
  if (config_.nodes + config_.guests < 2) return;
  for (const auto& [name, state] : keys_) audit_windows(state);
  if (keys_.empty()) return;
  // Tables have room for a million, but for registers that were drawn small, and a run has a few dozen keys: whatever is full
  // leaks, or counts what is not so.
  for (uint16_t rank = 0; rank < hosts(); ++rank) {
    if (hosts_[rank].node == nullptr) continue;
    for (const auto& [reason, times] : hosts_[rank].node->stats().dropped)
      if (reason.ends_with("_full") && !(reason == "registers_full" && config_.registers < NodeConfig{}.registers_max))
        checkers_.violate(keys_.begin()->second.checked.front(), now_, "full",
                          "host " + std::to_string(rank) + " counts " + std::to_string(times) + " " + reason);
  }
}

}  // namespace tally::sim
