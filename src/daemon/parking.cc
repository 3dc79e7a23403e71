#include "daemon/parking.h"

#include <algorithm>
#include <utility>

#include "base/fail.h"

namespace tally {

// Behind `before`; nullptr: as the first.
void Parking::insert(Ends& ends, Parked* before, Parked& parked, Parked::Links Parked::*links) {
  Parked*& next = before != nullptr ? (before->*links).behind : ends.first;
  parked.*links = {before, next};
  (next != nullptr ? (next->*links).before : ends.last) = &parked;
  next = &parked;
}

void Parking::remove(Ends& ends, Parked& parked, Parked::Links Parked::*links) {
  auto [before, behind] = parked.*links;
  (before != nullptr ? (before->*links).behind : ends.first) = behind;
  (behind != nullptr ? (behind->*links).before : ends.last) = before;
  parked.*links = {};
}

Parked& Parking::park(std::unique_ptr<Parked> owned) {
  Parked& parked = *owned.release();  // owned by the lists from here on; leave() gives it back
  const Duration wait = parked.rule->wait;
  parked.due = parked.since + wait;
  const auto list = std::ranges::find(by_wait_, wait, &WaitList::wait);
  parked.wait_list_ = static_cast<size_t>(list - by_wait_.begin());
  if (list == by_wait_.end()) by_wait_.push_back({wait, {}});
  Ends& wait_ends = by_wait_[parked.wait_list_].ends;
  Parked* before = wait_ends.last;
  while (before != nullptr && before->since > parked.since) before = before->in_wait_.before;
  insert(wait_ends, before, parked, &Parked::in_wait_);
  Ends& key_ends = by_key_[parked.hash];
  insert(key_ends, key_ends.last, parked, &Parked::in_key_);
  ++count_;
  return parked;
}

std::unique_ptr<Parked> Parking::leave(Parked& parked) {
  remove(by_wait_[parked.wait_list_].ends, parked, &Parked::in_wait_);
  const auto queue = by_key_.find(parked.hash);
  CHECK_THAT(queue != by_key_.end());
  remove(queue->second, parked, &Parked::in_key_);
  if (queue->second.first == nullptr) by_key_.erase(queue);
  --count_;
  return std::unique_ptr<Parked>(&parked);
}

Parked* Parking::first(KeyHash hash) const {
  const auto queue = by_key_.find(hash);
  return queue == by_key_.end() ? nullptr : queue->second.first;
}

Parked* Parking::last(KeyHash hash) const {
  const auto queue = by_key_.find(hash);
  return queue == by_key_.end() ? nullptr : queue->second.last;
}

Parked* Parking::due(MonoTime now) const {
  for (const WaitList& list : by_wait_)
    if (list.ends.first != nullptr && list.ends.first->due <= now) return list.ends.first;
  return nullptr;
}

std::optional<MonoTime> Parking::next_due() const {
  std::optional<MonoTime> next;
  for (const WaitList& list : by_wait_)
    if (list.ends.first != nullptr && (!next || list.ends.first->due < *next)) next = list.ends.first->due;
  return next;
}

std::vector<KeyHash> Parking::keys() const {
  std::vector<KeyHash> keys;
  for (const auto& [hash, queue] : by_key_) keys.push_back(hash);
  return keys;
}

}  // namespace tally
