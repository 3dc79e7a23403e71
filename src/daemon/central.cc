#include "daemon/central.h"

#include <hiredis/hiredis.h>

#include <algorithm>
#include <optional>
#include <utility>

namespace tally {
namespace {

constexpr size_t kUnderWayMax = 65'536;  // more than that a Redis that hangs is not asked
constexpr const char* kUnknown = "Redis does not answer: it may have been done, or not";

// nullopt: what came back is none of the script's answers.
std::optional<CentralState> state_of(const CentralCall& what, const redisReply& reply) {
  constexpr size_t kMost = 5;
  int64_t numbers[kMost];
  if (reply.type != REDIS_REPLY_ARRAY || reply.elements > kMost) return std::nullopt;
  for (size_t i = 0; i < reply.elements; ++i) {
    if (reply.element[i]->type != REDIS_REPLY_INTEGER) return std::nullopt;
    numbers[i] = reply.element[i]->integer;
  }
  auto state = central_state(what, {numbers, reply.elements});
  if (!state || what.what != CentralCall::What::take) return state;
  const bool admitted = central_answer(*state, what.limit, what.n).verdict == Verdict::admitted;
  return admitted == (state->done == 1) ? state : std::nullopt;
}

Duration wait_of(const Call& call) {
  if (call.question == nullptr) return call.rule->wait;
  Duration wait = Duration::max();
  for (const Question::Part& part : call.question->parts)
    if (part.central) wait = std::min(wait, part.rule->wait);
  return wait;
}

}  // namespace

bool Central::decides(const Call& call) {
  switch (call.kind) {
    case Call::Kind::take:
      return true;
    case Call::Kind::give:
    case Call::Kind::reset:
      return call.rule->mode == Mode::central;
    case Call::Kind::explain:
      return call.rule->mode == Mode::central &&
             call.rule->name != kInlineRule;  // which has no limit of its own
    default:
      return false;
  }
}

std::vector<Central::Asked> Central::asked_by(const Call& call) const {
  using What = CentralCall::What;
  const WallTime now = parts_.clock.now().wall;
  std::vector<Asked> all;
  if (call.kind == Call::Kind::take) {
    const auto& parts = call.question->parts;
    for (size_t i = 0; i < parts.size(); ++i) {
      const Question::Part& part = parts[i];
      if (!part.central) continue;
      const bool takes = part.cost != 0 && part.cost <= part.limit.limit && !call.question->dry;
      const WireId id = wire_id(part.key, part.rule->id_key);
      all.push_back({i, names_.tag_of(id), names_.count(id),
                     {takes ? What::take : What::peek, part.limit, part.cost, std::nullopt, now},
                     part.rule->on_isolation == OnIsolation::closed});
    }
    return all;
  }
  const What what = call.kind == Call::Kind::give    ? What::give
                    : call.kind == Call::Kind::reset ? What::reset
                                                     : What::peek;
  for (const Call::Key& key : call.keys)
    all.push_back({0, names_.tag_of(key.id), names_.count(key.id), {what, call.limit, call.n, call.only_in, now}});
  return all;
}

void Central::ask(std::unique_ptr<Call> call, Port& port) {
  const std::vector<Asked> all = asked_by(*call);
  const MonoTime now = parts_.clock.mono();
  const auto waiting = std::make_shared<Waiting>(Waiting{std::move(call), port, all.size()});
  waiting->place = waiting_.emplace(now + wait_of(*waiting->call), waiting);
  if (under_way_ >= kUnderWayMax) {
    counts_.unreachable += all.size();
    return finish(*waiting);
  }
  under_way_ += all.size();
  for (const Asked& asked : all) {
    if (parts_.store.ready(asked.tag))
      call_script(asked, asked.what, [this, waiting, asked, now](const redisReply* reply) { on_answer(*waiting, asked, reply, now); });
    else
      on_answer(*waiting, asked, nullptr, now);
  }
}

void Central::call_script(const Asked& asked, const CentralCall& what, BooksStore::Then then) {
  const BooksStore::Words words{{asked.name}, central_arguments(what)};
  parts_.store.call(asked.tag, BooksScript::central, [words](const std::string&) { return words; }, std::move(then));
}

void Central::on_answer(Waiting& waiting, const Asked& asked, const redisReply* reply, MonoTime sent) {
  --under_way_;
  std::optional<CentralState> state;
  if (reply != nullptr && reply->type != REDIS_REPLY_ERROR) state = state_of(asked.what, *reply);
  if (waiting.call == nullptr) {
    if (state && asked.alone_refuses) give_back(asked, *state);
    return;
  }
  if (state) {
    ++counts_.answered;
    parts_.call_times.observe(parts_.clock.mono() - sent);
    Call& call = *waiting.call;
    call.count += state->done;
    if (call.question != nullptr)
      call.question->parts[asked.which].state = state;
    else if (call.kind != Call::Kind::reset)
      call.state = state;
  } else {
    ++(reply == nullptr                   ? counts_.unreachable
       : reply->type == REDIS_REPLY_ERROR ? counts_.refused
                                          : counts_.malformed);
    waiting.call->error = kUnknown;
  }
  if (--waiting.open == 0) finish(waiting);
}

// What came too late was refused, so it is not to count.
void Central::give_back(const Asked& asked, const CentralState& state) {
  if (asked.what.what != CentralCall::What::take || state.done == 0) return;
  CentralCall give = asked.what;
  give.what = CentralCall::What::give;
  if (give.limit.algorithm != Algorithm::token_bucket) give.only_in = state.window;
  if (parts_.store.ready(asked.tag)) call_script(asked, give, [](const redisReply*) {});
}

void Central::finish(Waiting& waiting) {
  if (waiting.open != 0) waiting.call->error = kUnknown;
  waiting_.erase(waiting.place);  // who calls holds it
  waiting.port.answered.push_back(std::move(waiting.call));
}

void Central::expire(MonoTime now) {
  while (next_due() <= now) {
    const auto waiting = waiting_.begin()->second;
    counts_.late += waiting->open;
    finish(*waiting);
  }
}

void Central::end() {
  while (!waiting_.empty()) finish(*std::shared_ptr(waiting_.begin()->second));
}

}  // namespace tally
