#include "daemon/top.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

namespace tally {
namespace {

uint64_t counted(const resp::TopRow& row) { return row.admitted + row.limited; }

}  // namespace

Duration top_span(const Overview& overview, MonoTime now) {
  const MonoTime begun(TopKeys::kSpan * (TopKeys::span_at(now) - 1));
  return now - std::max(begun, overview.started);
}

void answer_top(Call& call, const Overview& overview, MonoTime now) {
  struct Sum {
    uint64_t admitted = 0, limited = 0;
  };
  std::map<std::pair<uint16_t, std::string>, Sum> sums;
  for (const auto& worker : overview.workers) {
    for (const TopSketch::Entry& entry : worker->top.entries(now)) {
      if (call.rule != nullptr && entry.rule != call.rule->id) continue;
      Sum& sum = sums[{entry.rule, entry.key}];
      sum.admitted += entry.admitted;
      sum.limited += entry.limited;
    }
  }
  const auto rules = overview.rules();
  for (const auto& [name, sum] : sums) {
    const auto& [rule, key] = name;
    if (rule < rules->ids() && sum.admitted + sum.limited != 0)
      call.top.push_back({key, sum.admitted, sum.limited, rules->by_id(rule).name});
  }
  const size_t n = std::min<size_t>(call.n, call.top.size());
  std::partial_sort(call.top.begin(), call.top.begin() + static_cast<ptrdiff_t>(n), call.top.end(),
                    [](const resp::TopRow& a, const resp::TopRow& b) {
                      return std::forward_as_tuple(counted(b), a.rule, a.key) <
                             std::forward_as_tuple(counted(a), b.rule, b.key);
                    });
  call.top.resize(n);
  call.top_span = top_span(overview, now);
}

}  // namespace tally
