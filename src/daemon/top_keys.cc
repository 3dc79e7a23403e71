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

}  // namespace tally
