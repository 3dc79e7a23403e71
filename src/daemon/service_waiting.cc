// Requests that wait for a grant: parked, tried again, woken, and ended by their deadline.
#include <utility>

#include "daemon/service.h"

namespace tally {
namespace {

Ask ask_of(const Parked& parked) {
  return Ask{parked.rule, &parked.limit, parked.key, parked.hash, parked.cost};
}

}  // namespace

bool Service::may_park(const Rule& rule) { return rule.wait > Duration(0) && !rule.shadow && port_ != nullptr && begin_wait(); }

// Whether there is room for one more that waits, which then counts as one.
bool Service::begin_wait() {
  if (overview_.waiting.fetch_add(1, std::memory_order_relaxed) >= limits_.waiting) {
    overview_.waiting.fetch_sub(1, std::memory_order_relaxed);
    counters_.failed(Trouble::waiting_full);
    return false;
  }
  counters_.waiting.add();
  return true;
}

void Service::end_wait() {
  overview_.waiting.fetch_sub(1, std::memory_order_relaxed);
  counters_.waiting.subtract();
}

std::unique_ptr<Parked> Service::leave(Parked& which, TimeHistogram& histogram, MonoTime now) {
  std::unique_ptr<Parked> parked = parking_.leave(which);
  end_wait();
  histogram.observe(now - parked->since);
  return parked;
}

// A starved request waits where it may; otherwise it is denied now. Its reply gets its place in answer_batch.
// In shadow nobody waits: the request will be let through whatever comes.
void Service::try_park(Session& session, Item& item) {
  const resp::Request& request = item.request;
  if (!may_park(*request.rule)) return;
  auto parked = std::make_unique<Parked>();
  parked->rules = rules_;
  parked->rule = request.rule;
  parked->limit = request.limit;
  parked->key = request.key;
  parked->hash = item.hash;
  parked->cost = request.cost;
  static_cast<ReplyTo&>(*parked) = ReplyTo(session, request);
  parked->most = request.most;
  parked->since = now_.mono;
  parked->noted = item.noted;
  item.parked = &parking_.park(std::move(parked));
  item.fate = Fate::park;
}

// Tries those that wait under a key, in order. The cluster thread knows of each that was noted, and goes on asking for what
// is still missing; who came when there was something hoped for it, and is noted now that it did not suffice.
void Service::retry(KeyHash hash) {
  while (Parked* parked = parking_.first(hash))
    if (!retry_one(*parked)) break;
  for (Parked* parked = parking_.last(hash); parked != nullptr && !parked->noted; parked = Parking::before(*parked)) {
    parked->noted = true;
    if (parked->question != nullptr) parked->question->parts[*parked->question->refused].noted = true;
    if (limiter_.note_starved(ask_of(*parked), now_, port_->notes)) urgent_ = true;
  }
}

bool Service::retry_one(Parked& parked) {
  if (parked.question != nullptr) return retry_question(parked);
  const Answer answer = limiter_.take(ask_of(parked), now_, nullptr);
  if (answer.verdict == Verdict::starved) return false;
  const bool granted = answer.verdict == Verdict::admitted;
  end_wait(parked, answer, granted ? counters_.waited_granted : counters_.waited_denied);
  return true;
}

void Service::wake(KeyHash hash) {
  if (!parking_.waits(hash)) return;
  now_ = clock_.now();
  retry(hash);
}

void Service::wake_all() {
  now_ = clock_.now();
  for (const KeyHash hash : parking_.keys()) retry(hash);
}

void Service::end_life() {
  for (const KeyHash hash : parking_.keys())
    for (Parked* parked = parking_.last(hash); parked != nullptr; parked = Parking::before(*parked)) {
      parked->limit.floor = 0;
      if (parked->question == nullptr) continue;
      for (Question::Part& part : parked->question->parts) part.limit.floor = 0;
    }
}

void Service::begin_life() {
  now_ = clock_.now();
  for (const KeyHash hash : parking_.keys()) {
    for (Parked* parked = parking_.last(hash); parked != nullptr; parked = Parking::before(*parked)) {
      parked->noted = false;
      if (parked->question == nullptr) continue;
      for (Question::Part& part : parked->question->parts) part.noted = false;
    }
    retry(hash);
  }
}

// With its time over a request no longer stands before those behind it, which may ask for less.
void Service::expire() {
  if (parking_.empty()) return;
  now_ = clock_.now();
  while (Parked* parked = parking_.due(now_.mono)) {
    const KeyHash hash = parked->hash;
    if (parked->question != nullptr) {
      expire_question(*parked);
      retry(hash);
      continue;
    }
    // The state for the numbers of the reply; the verdict stands.
    Answer answer = limiter_.peek(ask_of(*parked), now_);
    answer.verdict = Verdict::starved;
    end_wait(*parked, answer, counters_.waited_denied);
    retry(hash);
  }
}

void Service::end_wait(Parked& which, const Answer& found, TimeHistogram& histogram) {
  const MonoTime now = clock_.mono();
  const std::unique_ptr<Parked> parked = leave(which, histogram, now);
  const Answer answer = as_sent(found, now);
  count(*parked->rule, parked->key, parked->hash, answer);
  std::string bytes;
  resp::Writer writer(bytes, parked->version);
  if (parked->http)
    http_writer(bytes, parked->http).answer(*parked->rule, parked->limit, answer, resp::reason_of(answer, *parked->rule));
  else if (parked->form == resp::Form::lease)
    write_lease(writer, *parked->rule, answer, answer.verdict == Verdict::admitted ? take_portion(ask_of(*parked), parked->most) : Portion{});
  else if (parked->form == resp::Form::throttle)
    resp::write_throttle(writer, answer);
  else
    resp::write_six(writer, answer, resp::reason_of(answer, *parked->rule));
  parked->session->replies.fill(*parked->held, std::move(bytes));
  touch(*parked->session);
}

}  // namespace tally
