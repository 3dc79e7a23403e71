#include "daemon/deadlines.h"

namespace tally {

void Deadlines::add(Deadline& deadline) {
  auto& order = list_of(deadline.until).order;
  deadline.at_ = order.insert(order.end(), &deadline);
}

void Deadlines::remove(Deadline& deadline) { list_of(deadline.until).order.erase(deadline.at_); }

void Deadlines::set(Deadline& deadline, Until until, uint64_t step, MonoTime now) {
  List& to = list_of(until);
  if (until == deadline.until) {
    if (step == deadline.step) return;
    deadline.step = step;
    if (now - (deadline.due - to.length) < to.length / 16) return;
  }
  List& from = list_of(deadline.until);
  to.order.splice(to.order.end(), from.order, deadline.at_);
  deadline.until = until;
  deadline.step = step;
  deadline.due = now + to.length;
}

Deadline* Deadlines::due(MonoTime now) const {
  for (size_t i = 1; i < lists_.size(); ++i)
    if (!lists_[i].order.empty() && lists_[i].order.front()->due <= now) return lists_[i].order.front();
  return nullptr;
}

std::optional<MonoTime> Deadlines::next_due() const {
  std::optional<MonoTime> next;
  for (size_t i = 1; i < lists_.size(); ++i)
    if (!lists_[i].order.empty() && (!next || lists_[i].order.front()->due < *next))
      next = lists_[i].order.front()->due;
  return next;
}

}  // namespace tally
