#include "daemon/top_keys.h"

namespace tally {

void TopKeys::count(const Event& event, MonoTime now) {
  const uint64_t weight = event.n * sampler_.take(now);
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock) return;
  const int64_t number = span_at(now);
  Span& span = spans_[static_cast<size_t>(number % 2)];
  if (span.number != number) {
    span.number = number;
    span.sketch.clear();
  }
  if (event.kind == Event::Kind::put_back)
    span.sketch.take_back(event.hash, weight);
  else
    span.sketch.add(event.rule, event.key, event.hash, event.kind == Event::Kind::limited, weight);
}

std::vector<TopSketch::Entry> TopKeys::entries(MonoTime now) const {
  std::vector<TopSketch::Entry> all;
  all.reserve(2 * TopSketch::kEntries);
  const std::lock_guard lock(mutex_);
  for (const Span& span : spans_)
    if (span.number >= span_at(now) - 1)
      all.insert(all.end(), span.sketch.entries().begin(), span.sketch.entries().end());
  return all;
}

}  // namespace tally
