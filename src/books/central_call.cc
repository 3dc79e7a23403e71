#include "books/central_call.h"

#include "core/decide.h"

namespace tally {
namespace {

// Rounded down: windows of a calendar begin at whole seconds, others have whole microseconds
// (config/validate.cc).
std::string microseconds(Duration d) { return std::to_string(nanos(d) / 1'000); }

const char* name_of(CentralCall::What what) {
  switch (what) {
    case CentralCall::What::take:
      return "take";
    case CentralCall::What::peek:
      return "peek";
    case CentralCall::What::give:
      return "give";
    case CentralCall::What::reset:
      break;
  }
  return "reset";
}

}  // namespace

std::vector<std::string> central_arguments(const CentralCall& call) {
  const Limit& limit = call.limit;
  const bool calendar = is_calendar(limit.window);
  const bool bucket = limit.algorithm == Algorithm::token_bucket,
             sliding = limit.algorithm == Algorithm::sliding_window;
  std::vector<std::string> words{name_of(call.what),
                                 bucket     ? "b"
                                 : sliding  ? "s"
                                 : calendar ? "c"
                                            : "f",
                                 std::to_string(call.n), std::to_string(limit.limit)};
  if (bucket) {
    words.push_back(std::to_string(nanos(limit.emission)));
    return words;
  }
  words.push_back(microseconds(limit.window));
  words.push_back(call.only_in ? std::to_string(*call.only_in) : "");
  if (!calendar) return words;
  const int64_t window = window_at(call.now, limit.window);
  words.push_back(std::to_string(window));
  for (int64_t i = window; i < window + 3; ++i)
    words.push_back(microseconds(window_start(i, limit.window).time_since_epoch()));
  return words;
}

std::optional<CentralState> central_state(const CentralCall& call, std::span<const int64_t> numbers) {
  constexpr int64_t kTimeMax = int64_t{1}
                               << 52;  // microseconds: as nanoseconds less than a WallTime may have
  const auto within = [](int64_t n, int64_t most) { return n >= 0 && n <= most; };
  CentralState state;
  if (numbers.empty() || !within(numbers[0], UINT32_MAX)) return std::nullopt;
  state.done = static_cast<uint32_t>(numbers[0]);
  if (call.what == CentralCall::What::reset) return numbers.size() == 1 ? std::optional(state) : std::nullopt;
  const bool bucket = call.limit.algorithm == Algorithm::token_bucket;
  if (numbers.size() != (bucket ? 3u : 5u) || !within(numbers[1], kTimeMax)) return std::nullopt;
  state.now = WallTime(std::chrono::microseconds(numbers[1]));
  if (bucket) {
    if (!within(numbers[2], nanos(kBurstSpanMax) * 2)) return std::nullopt;
    state.ahead = Duration(numbers[2]);
    return state;
  }
  if (!within(numbers[2], window_at(WallTime(std::chrono::microseconds(kTimeMax)), call.limit.window)) ||
      !within(numbers[3], UINT32_MAX) || !within(numbers[4], UINT32_MAX))
    return std::nullopt;
  state.window = numbers[2];
  state.count = static_cast<uint32_t>(numbers[3]);
  state.previous = static_cast<uint32_t>(numbers[4]);
  return state;
}

Answer central_answer(const CentralState& state, const Limit& limit, uint32_t cost) {
  Answer answer;
  if (limit.algorithm == Algorithm::token_bucket) {
    const MonoTime now(state.now.time_since_epoch());
    MonoTime tat = now + state.ahead;
    decide_bucket(limit, tat, cost, now, answer);
  } else if (limit.algorithm == Algorithm::sliding_window) {
    decide_sliding(limit, state.previous, state.count, cost, state.window, state.now, answer);
  } else {
    decide_fixed(limit, state.count, cost, state.window, state.now, answer);
  }
  return answer;
}

}  // namespace tally
