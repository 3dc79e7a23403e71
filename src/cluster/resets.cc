#include "cluster/resets.h"

namespace tally {

namespace {

constexpr uint8_t kRounds = 10;  // a reset is gossiped in so many intervals
constexpr Duration kKept = std::chrono::minutes(10);
constexpr size_t kMost = 4096;  // remembered at once

}  // namespace

bool Resets::hear(const WireId& key, uint64_t number, MonoTime now) {
  auto found = known_.find(key);
  if (found != known_.end() && found->second.number >= number) return false;
  if (found == known_.end() && known_.size() < kMost) found = known_.emplace(key, Known{}).first;
  if (found != known_.end()) found->second = {number, kRounds, now};
  return true;
}

uint64_t Resets::number_of(const WireId& key) const {
  const auto found = known_.find(key);
  return found == known_.end() ? 0 : found->second.number;
}

void Resets::round_over(MonoTime now) {
  for (auto& [key, known] : known_)
    if (known.rounds > 0) --known.rounds;
  // Kept when told: a peer that still tells it must not make it new again.
  std::erase_if(known_, [&](const auto& known) { return now - known.second.heard > kKept; });
}

}  // namespace tally
