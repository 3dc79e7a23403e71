// Central rules: Redis decides, by way of the cluster thread. A request is a question whose central parts go
// there, all at once; the others are taken when it is back. Where Redis does not answer a node goes by
// itself, from its floor, which is what on_isolation lets it have (floors_by): the same limiter on the same
// table, but nobody is told of it.
#include <algorithm>
#include <utility>

#include "core/decide.h"
#include "daemon/service.h"

namespace tally {
namespace {

// Of a take that Redis has not made.
Answer would_be(const CentralState& state, const Limit& limit, uint32_t cost) {
  const Answer now = central_answer(state, limit, 0);
  return cost > limit.limit ? refused_for_ever(now) : resp::peeked(central_answer(state, limit, cost), now);
}

void isolate(Answer& answer) {
  answer.isolated = true;
  if (answer.verdict == Verdict::starved) answer.verdict = Verdict::isolated;
}

}  // namespace

// nullptr: there is no room to wait, so it is refused, and stays the caller's.
std::unique_ptr<Call> Service::ask_redis(std::unique_ptr<Question>& question) {
  if (!begin_wait()) {
    refuse(*question, static_cast<size_t>(std::ranges::find(question->parts, true, &Question::Part::central) -
                                          question->parts.begin()));
    return nullptr;
  }
  if (!std::ranges::all_of(question->parts, &Question::Part::central))
    look(*question);  // also lets owners hear of what will be missing
  question->dry = question->refused.has_value();
  auto call = std::make_unique<Call>();
  call->kind = Call::Kind::take;
  call->rules = question->rules;
  call->question = std::move(question);
  return call;
}

void Service::finish_question(std::unique_ptr<Call> call) {
  end_wait();
  now_ = clock_.now();
  std::unique_ptr<Question> question = std::move(call->question);
  for (Question::Part& part : question->parts)
    if (part.central) settle(part, question->dry);
  if (call->session == nullptr && !question->done)
    return give_back_to_redis(*question);  // the connection went
  std::optional<size_t> missing;
  if (question->dry) {
    const size_t by = *question->refused;
    look(*question);
    if (!question->refused)
      refuse(*question, by);  // meanwhile there would be something, but Redis was told to take nothing
  } else {
    missing = begin(*question);
  }
  if (missing) {
    if (Parked* const parked = park(question, *missing)) {
      static_cast<ReplyTo&>(*parked) = *call;
      if (call->held != nullptr) {
        call->held->call = nullptr;
        call->held->parked = parked;
      }
    }
  }
  if (question != nullptr) {
    conclude(*question, clock_.mono());
    reply(std::move(question), *call);
  }
  for (const KeyHash hash : std::exchange(to_retry_, {})) retry(hash);
}

void Service::settle(Question::Part& part, bool dry) {
  const bool takes = part.cost != 0 && !dry;
  const Ask ask{part.rule, &part.limit, part.key, part.hash, std::max(part.cost, 1u)};
  if (!part.state) {
    part.answer = takes ? limiter_.take(ask, now_, nullptr) : peek(ask, now_);
    isolate(part.answer);
  } else if (takes && part.cost <= part.limit.limit) {
    part.answer = central_answer(*part.state, part.limit, part.cost);
    part.taken = part.state->done != 0;
  } else {
    part.answer = would_be(*part.state, part.limit, ask.cost);
  }
  part.reason = part.cost == 0 ? resp::reason_of_peek(part.answer, *part.rule)
                               : resp::reason_of(part.answer, *part.rule);
}

// What it took for a question that is refused. What a node took from its floor stays taken.
void Service::give_back_to_redis(Question& question) {
  for (Question::Part& part : question.parts) {
    if (!part.central || !std::exchange(part.taken, false)) continue;
    const bool bucket = part.limit.algorithm == Algorithm::token_bucket;
    tell(Call::Kind::give, question.rules, Ask{part.rule, &part.limit, part.key, part.hash, part.cost},
         bucket ? std::nullopt : std::optional(part.state->window));
    part.answer = would_be(*part.state, part.limit, part.cost);  // as it was before
  }
}

// What TALLY.PEEK tells.
Answer Service::peek_of(const Call& call, Now now) const {
  if (call.state) return would_be(*call.state, call.limit, 1);
  Answer answer = peek(Ask{call.rule, &call.limit, call.key, call.keys.front().hash}, now);
  isolate(answer);
  return answer;
}

}  // namespace tally
