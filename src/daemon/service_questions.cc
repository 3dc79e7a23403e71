// Several takes of one request: all or nothing.
#include <algorithm>
#include <utility>

#include "core/windows.h"
#include "daemon/service.h"

namespace tally {
namespace {

Ask ask_of(const Question::Part& part, uint32_t cost) {
  return Ask{part.rule, &part.limit, part.key, part.hash, cost};
}

bool refuses(const Question::Part& part) { return resp::is_limited(part.reason); }

}  // namespace

std::unique_ptr<Question> Service::question_of(const resp::Request& request) const {
  auto question = std::make_unique<Question>();
  question->rules = rules_;
  if (request.kind == resp::Request::Kind::take_all)
    for (const resp::Part& part : request.parts) question->add(*part.rule, part.key, part.cost);
  else
    question->add(*request.rule, request.key, request.kind == resp::Request::Kind::take ? request.cost : 0).limit = request.limit;  // it may have come with the request
  return question;
}

void Service::take_all(Session& session, Item& item) {
  item.question = question_of(item.request);
  if (prepare(*item.question)) {
    item.call = ask_redis(item.question);
    if (item.call == nullptr) return;
    static_cast<ReplyTo&>(*item.call) = ReplyTo(session, item.request);
    item.fate = Fate::call;
    return;
  }
  const std::optional<size_t> missing = begin(*item.question);
  if (!missing) return;
  item.parked = park(item.question, *missing);
  if (item.parked == nullptr) return;
  static_cast<ReplyTo&>(*item.parked) = ReplyTo(session, item.request);
  item.fate = Fate::park;
}

void Service::ask(std::unique_ptr<Question> question) {
  now_ = clock_.now();
  counters_.top.tick(now_.mono);
  if (prepare(*question)) {
    std::unique_ptr<Call> call = ask_redis(question);
    if (call != nullptr && port_->calls.push(call.get())) {
      call.release();
      port_->cluster.ring();
      return;
    }
    if (call != nullptr) {
      counters_.failed(Trouble::calls_full);
      end_wait();
      question = std::move(call->question);
      refuse(*question, 0);
    }
    conclude(*question, clock_.mono());
    return answer(std::move(question));
  }
  const std::optional<size_t> missing = begin(*question);
  if (!missing || park(question, *missing) == nullptr) {
    conclude(*question, clock_.mono());
    answer(std::move(question));
  }
  for (const KeyHash hash : std::exchange(to_retry_, {})) retry(hash);
}

void Service::answer(std::unique_ptr<Question> question) {
  const auto done = std::move(question->done);
  done(std::move(question));
}

void Service::apply_gates(Question& question) const {
  for (const Question::Gate& gate : question.gates) {
    const Applied holds = applied(*gate.rule, gate.key, limiter_.hash(*gate.rule, gate.key), now_.wall);
    Question::Part& part = question.parts[gate.part];
    const bool decides = holds.treatment == Treatment::blocked ||
                         (holds.treatment == Treatment::exempt && part.rule == &question.rules->inline_rule());
    if (!decides) continue;
    part.rule = gate.rule;
    part.key = gate.key;
    part.limit = *holds.limit;
    part.treatment = holds.treatment;
  }
}

// What holds of each part. Returns whether Redis has to be asked of any.
bool Service::prepare(Question& question) const {
  apply_gates(question);
  bool central = false;
  for (Question::Part& part : question.parts) {
    part.hash = limiter_.hash(*part.rule, part.key);
    limiter_.prefetch(part.hash);
    if (const OrderTable::Order* const order = order_of(part.hash, now_.wall)) [[unlikely]] {
      part.treatment = order->treatment;
      if (order->treatment == Treatment::limited) part.limit = order->limit;
      part.ordered_for = order->until - now_.wall;
    }
    part.central = part.rule->mode == Mode::central && part.treatment == Treatment::limited && port_ != nullptr;
    if (part.central) part.answer.limit = part.limit.limit;  // where it is refused without asking
    central = central || part.central;
  }
  return central;
}

// As decide(), for one that has not waited yet: it goes behind those that wait under its keys. It is prepared, and Redis has answered.
std::optional<size_t> Service::begin(Question& question) {
  if (!parking_.empty()) {
    for (size_t i = 0; i < question.parts.size(); ++i) {
      Question::Part& part = question.parts[i];
      if (part.cost == 0 || part.rule->shadow || part.treatment != Treatment::limited || part.central || !parking_.waits(part.hash)) continue;
      look(question);
      if (question.refused) return std::nullopt;
      if (part.answer.verdict != Verdict::starved) to_retry_.push_back(part.hash);  // there is something, for those before it
      return i;
    }
  }
  return decide(question);
}

// Takes from all parts or from none. Nullopt: it is decided; else the part that is short of a grant.
std::optional<size_t> Service::decide(Question& question) {
  const std::optional<size_t> short_of = look(question);
  if (question.refused || short_of) return question.refused ? std::nullopt : short_of;
  for (size_t i = 0; i < question.parts.size(); ++i) {
    Question::Part& part = question.parts[i];
    if (part.cost == 0 || part.treatment != Treatment::limited || part.central) continue;
    part.answer = limiter_.take(ask_of(part, part.cost), now_, port_ != nullptr ? &port_->notes : nullptr);
    urgent_ = urgent_ || part.answer.urgent;
    part.reason = resp::reason_of(part.answer, *part.rule);
    part.taken = part.answer.verdict == Verdict::admitted;
    if (!refuses(part)) continue;
    // Others were faster since it was looked at.
    give_back(question);
    if (part.answer.verdict == Verdict::starved) {
      part.noted = true;
      return i;
    }
    const Answer found = part.answer;
    look(question);
    part.answer = found;
    part.reason = resp::reason_of(found, *part.rule);
    question.refused = i;
    return std::nullopt;
  }
  return std::nullopt;
}

// What each part would be told now; nothing is taken. Returns the first that is short of a grant, which the cluster thread hears of,
// unless one is refused.
std::optional<size_t> Service::look(Question& question) {
  question.refused.reset();
  std::optional<size_t> short_of;
  for (size_t i = 0; i < question.parts.size(); ++i) {
    Question::Part& part = question.parts[i];
    const bool peeks = part.cost == 0;
    if (!part.central) {
      part.answer = part.treatment != Treatment::limited ? answer_by({&part.limit, part.treatment}, part.ordered_for) : peek(ask_of(part, peeks ? 1 : part.cost), now_);
      part.reason = peeks ? resp::reason_of_peek(part.answer, *part.rule) : resp::reason_of(part.answer, *part.rule);
    }
    if (!refuses(part)) {
      part.noted = false;
      continue;
    }
    if (!peeks && part.answer.verdict == Verdict::starved && part.rule->wait > Duration(0))
      short_of = short_of.value_or(i);
    else if (!question.refused)
      question.refused = i;
  }
  if (question.refused || !short_of) return std::nullopt;
  for (Question::Part& part : question.parts) {
    if (part.cost == 0 || part.noted || !refuses(part)) continue;
    part.noted = true;
    if (limiter_.note_starved(ask_of(part, part.cost), now_, port_->notes)) urgent_ = true;
  }
  return short_of;
}

// A refusal charges nobody. What Redis took stays until it is known what becomes of all.
void Service::give_back(Question& question) {
  for (Question::Part& part : question.parts) {
    if (part.central || !std::exchange(part.taken, false)) continue;
    const bool bucket = part.limit.algorithm == Algorithm::token_bucket;
    const auto window = bucket ? std::nullopt : std::optional(window_at(now_.wall, part.limit.window));
    if (port_ == nullptr)
      limiter_.give(ask_of(part, part.cost), part.cost, now_, window);
    else
      tell(Call::Kind::give, question.rules, ask_of(part, part.cost), window);
  }
}

// Waits for the grant that part `missing` is short of, where it may; otherwise it is refused by that part, and stays the caller's.
Parked* Service::park(std::unique_ptr<Question>& question, size_t missing) {
  if (!may_park(*question->parts[missing].rule)) {
    refuse(*question, missing);
    return nullptr;
  }
  auto parked = std::make_unique<Parked>();
  parked->since = now_.mono;
  parked->rules = question->rules;
  parked->question = std::move(question);
  wait_for(*parked, missing);
  return &parking_.park(std::move(parked));
}

void Service::wait_for(Parked& parked, size_t missing) {
  const Question::Part& part = parked.question->parts[missing];
  parked.question->refused = missing;
  parked.rule = part.rule;
  parked.limit = part.limit;
  parked.key = part.key;
  parked.hash = part.hash;
  parked.cost = part.cost;
  parked.noted = part.noted;
}

// No grant came in time for part `missing`.
void Service::refuse(Question& question, size_t missing) {
  Question::Part& part = question.parts[missing];
  question.refused = missing;
  part.answer.verdict = Verdict::starved;
  part.reason = resp::reason_of(part.answer, *part.rule);
}

void Service::expire_question(Parked& parked) {
  Question& question = *parked.question;
  const size_t missing = *question.refused;
  look(question);  // for the numbers of the reply
  if (!question.refused) refuse(question, missing);
  end_wait(parked, counters_.waited_denied);
}

void Service::end_waiting() {
  now_ = clock_.now();
  for (const KeyHash hash : parking_.keys())
    while (Parked* parked = parking_.first(hash)) expire_question(*parked);
}

// False: it still waits, where it did.
bool Service::retry_question(Parked& parked) {
  Question& question = *parked.question;
  const std::optional<size_t> missing = decide(question);
  if (!missing) {
    end_wait(parked, question.refused ? counters_.waited_denied : counters_.waited_granted);
    return true;
  }
  if (question.parts[*missing].hash == parked.hash) {
    question.refused = missing;
    parked.noted = question.parts[*missing].noted;
    return false;
  }
  std::unique_ptr<Parked> owned = parking_.leave(parked);
  wait_for(*owned, *missing);
  Parked& again = parking_.park(std::move(owned));
  if (again.held != nullptr) again.held->parked = &again;
  return true;
}

// Says what becomes of it, at `now`, when it is about to be sent.
void Service::conclude(Question& question, MonoTime now) {
  for (size_t i = 0; i < question.parts.size(); ++i) {
    Question::Part& part = question.parts[i];
    if (part.answer.verdict == Verdict::admitted && !part.taken) continue;
    part.answer = as_sent(part.answer, now);
    if (!part.taken || part.answer.verdict == Verdict::admitted) continue;
    part.reason = resp::reason_of(part.answer, *part.rule);  // its lease ended meanwhile: it was never there
    part.taken = false;
    if (refuses(part) && !question.refused) question.refused = i;
  }
  if (question.refused) {
    give_back(question);
    give_back_to_redis(question);
  }
  if (std::ranges::all_of(question.parts, [](const Question::Part& part) { return part.cost == 0; })) return;  // a peek is no decision
  for (size_t i = 0; i < question.parts.size(); ++i) {
    const Question::Part& part = question.parts[i];
    if (question.refused ? *question.refused == i : part.cost != 0) count(*part.rule, part.key, part.hash, part.answer);
  }
}

// Ends the wait of one that is decided.
void Service::end_wait(Parked& which, TimeHistogram& histogram) {
  const MonoTime now = clock_.mono();
  const std::unique_ptr<Parked> parked = leave(which, histogram, now);
  conclude(*parked->question, now);
  reply(std::move(parked->question), *parked);
}

// One that is concluded. `to`: who asked; without a session it is `done` that hears it.
void Service::reply(std::unique_ptr<Question> question, const ReplyTo& to) {
  if (to.session == nullptr) return answer(std::move(question));
  std::string bytes;
  resp::Writer writer(bytes, to.version);
  if (to.http)
    write_http_question(bytes, to.http, *question);
  else
    write_question(writer, to.form, *question);
  to.session->replies.fill(*to.held, std::move(bytes));
  touch(*to.session);
}

void Service::write_question(resp::Writer& writer, resp::Form form, const Question& question) const {
  const Question::Part& one = question.deciding();
  switch (form) {
    case resp::Form::all:
      resp::write_all(writer, question.refused_take(), question.takes());
      question.for_each_take([&](const Question::Part& part) { resp::write_six(writer, part.answer, part.reason); });
      return;
    case resp::Form::lease:
      return resp::write_lease(writer, one.answer, one.reason, {});
    case resp::Form::throttle: {  // of a central rule
      Answer told = one.answer;
      if (one.cost == 0) told.verdict = Verdict::admitted;  // nothing was asked for
      return resp::write_throttle(writer, told);
    }
    case resp::Form::six:
      return resp::write_six(writer, one.answer, one.reason);
  }
}

}  // namespace tally
