#include "daemon/service.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "daemon/facts.h"

namespace tally {
namespace {

constexpr size_t kBatch = 64;  // commands: enough to hide the misses of the table behind each other
constexpr Duration kEnvEvery = std::chrono::milliseconds(10);

bool inside(std::string_view part, std::string_view whole) {
  return part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size();
}

Ask ask_of(const resp::Request& request, KeyHash hash, uint32_t place = kNoPlace) {
  return Ask{request.rule, &request.limit, request.key, hash, request.cost, place};
}

}  // namespace

Service::Service(Overview& overview, WorkerCounters& counters, const Clock& clock, Port* port,
                 ServiceLimits limits, std::function<void(std::unique_ptr<Call>)> hand_out)
    : overview_(overview),
      limiter_(overview.limiter),
      counters_(counters),
      clock_(clock),
      port_(port),
      limits_(limits),
      hand_out_(std::move(hand_out)),
      batch_(kBatch) {
  use(overview.rules(), limits.sync_interval);
  env_.key_bytes_max = limits.key_bytes;
  env_.version = kVersion;
  env_.node = overview.node;
  env_.process_id = ::getpid();
  env_.connections_max = overview.connections_max;
}

Service::~Service() = default;

void Service::use(std::shared_ptr<const RuleSet> rules, Duration sync_interval) {
  rules_ = std::move(rules);
  limits_.sync_interval = sync_interval;
  env_.rules = rules_.get();
  ++env_.rules_number;
}

void Service::use(std::shared_ptr<const OrderTable> orders) {
  orders_ = orders != nullptr && orders->size() != 0 ? std::move(orders) : nullptr;
}

// --- serving ---

bool Service::may_read(const Session& session) const {
  if (session.closing || (session.barrier && session.replies.waiting())) return false;
  return session.unsent() + session.replies.held_bytes() < limits_.pipeline_bytes;
}

size_t Service::serve(Session& session, std::string_view input) {
  size_t done = 0;
  while (done < input.size() && may_read(session)) {
    session.barrier = false;
    now_ = clock_.now();
    counters_.top.tick(now_.mono);
    if (now_.mono - env_at_ >= kEnvEvery) refresh_env();
    const size_t parsed = session.http != nullptr ? read_http_batch(session, input.substr(done)) : read_batch(session, input.substr(done));
    const size_t decided = decide_batch(session);
    const bool put_back = decided < batch_size_;
    const size_t advanced = put_back ? batch_[decided].begin : parsed;
    answer_batch(session, decided);
    if (session.http != nullptr && session.http->parser.take_continue()) http_writer(session.replies.tail(), {}).go_on();
    done += advanced;
    for (const KeyHash hash : std::exchange(to_retry_, {})) retry(hash);
    if (put_back || advanced == 0) break;
  }
  return session.closing ? input.size() : done;
}

void Service::expect(const Session& session, std::string_view input) {
  if (session.repeat.read(input, env_, expected_) == 0) return;
  expected_hash_ = limiter_.hash(*expected_.rule, expected_.key);
  limiter_.prefetch(*expected_hash_);
}

void Service::prefetch_expected() {
  if (expected_hash_) limiter_.prefetch_slot(*expected_hash_);
  expected_hash_.reset();
}

void Service::refresh_env() {
  env_at_ = now_.mono;
  env_.now = now_.wall;
  env_.uptime = now_.mono - overview_.started;
  env_.connections = overview_.total(&WorkerCounters::connections);
  env_.commands = overview_.total(&WorkerCounters::requests);
}

// Fills batch_ with the commands at the beginning of `input`; returns how many bytes they have.
size_t Service::read_batch(Session& session, std::string_view input) {
  size_t done = 0;
  batch_size_ = 0;
  texts_.clear();
  protocol_error_ = false;
  while (batch_size_ < kBatch) {
    if (const size_t bytes = session.repeat.read(input.substr(done), env_, batch_[batch_size_].request)) [[likely]] {
      begin_item(done);
      done += bytes;
      session.parser.forget();
      if (done == input.size()) break;
      continue;
    }
    const resp::Parse parsed = session.parser.next(input.substr(done));
    if (parsed == resp::Parse::incomplete) break;
    if (parsed == resp::Parse::error) {
      protocol_error_ = true;
      break;
    }
    const size_t begin = done;
    done += session.parser.consumed;
    if (parsed == resp::Parse::nothing) {
      if (done == input.size()) break;
      continue;
    }
    const size_t text_at = texts_.size();
    resp::Request& request = batch_[batch_size_].request;
    resp::read_command(session.parser.args, session.about, env_, request, texts_);
    Item& item = begin_item(begin);
    item.text_at = text_at;
    item.text_size = texts_.size() - text_at;
    // A key outside the input lies in the parser's scratch and lives until the next command is parsed.
    const auto lent = [&](std::string_view key) { return !key.empty() && !inside(key, input); };
    const bool borrowed = lent(request.key) || std::ranges::any_of(request.parts, lent, &resp::Part::key);
    session.repeat.remember(input.substr(begin, done - begin), request, env_);
    if (request.barrier || request.close || borrowed || done == input.size()) break;
  }
  return done;
}

// The next item of the batch, whose request is read.
Service::Item& Service::begin_item(size_t begin) {
  Item& item = batch_[batch_size_++];
  item.begin = begin;
  item.fate = Fate::reply;
  item.place = kNoPlace;
  item.answer = Answer{};
  item.portion = Portion{};
  item.noted = true;
  item.ordered_for = Duration(0);
  const resp::Request& request = item.request;
  if (!request.key.empty() && request.rule != nullptr) {
    item.hash = limiter_.hash(*request.rule, request.key);
    limiter_.prefetch(item.hash);
  }
  return item;
}

const OrderTable::Order* Service::order_of(KeyHash hash, WallTime now) const {
  return orders_ != nullptr ? orders_->find(hash, now) : nullptr;
}

Applied Service::applied(const Rule& rule, std::string_view key, KeyHash hash, WallTime now) const {
  const OrderTable::Order* const order = order_of(hash, now);
  return order != nullptr ? Applied{&order->limit, order->treatment} : rule.for_key(key);
}

// What an operator has ordered of the key goes before what its rule says of it.
void Service::apply_order(Item& item) {
  using Kind = resp::Request::Kind;
  resp::Request& request = item.request;
  switch (request.kind) {
    case Kind::take:
    case Kind::peek:
    case Kind::give:
    case Kind::lease:
    case Kind::put_back:
    case Kind::explain:
      break;
    default:
      return;
  }
  const OrderTable::Order* const order = order_of(item.hash, now_.wall);
  if (order == nullptr) return;
  request.treatment = order->treatment;
  if (order->treatment == Treatment::limited) request.limit = order->limit;
  item.ordered_for = order->until - now_.wall;
}

// Decides in order; returns how many of the batch were. Fewer than all: the next one must wait for what is
// held.
size_t Service::decide_batch(Session& session) {
  if (batch_size_ > 1)  // by now the tags are there, which say which slot will be needed
    for (size_t i = 0; i < batch_size_; ++i)
      if (!batch_[i].request.key.empty()) batch_[i].place = limiter_.prefetch_slot(batch_[i].hash);
  bool gap = session.replies.waiting();
  for (size_t i = 0; i < batch_size_; ++i) {
    Item& item = batch_[i];
    if (item.request.barrier) {
      session.barrier = true;
      if (gap && item.request.kind != resp::Request::Kind::answered) return i;
    }
    decide(session, item);
    gap = gap || item.fate != Fate::reply;
  }
  return batch_size_;
}

void Service::decide(Session& session, Item& item) {
  using Kind = resp::Request::Kind;
  const resp::Request& request = item.request;
  if (orders_ != nullptr) [[unlikely]]
    apply_order(item);  // not where it is read: the next command may be made of that one (resp::Repeat)
  if (request.treatment != Treatment::limited) [[unlikely]] {
    if (request.kind == Kind::give) give_along(request);
    const bool takes_along = !request.rule->also.empty() && request.kind != Kind::give && request.kind != Kind::put_back;
    if (request.kind != Kind::explain && !takes_along) return answer_by_override(item);
  }
  const Ask ask = ask_of(request, item.hash);
  switch (request.kind) {
    case Kind::answered:
      return;
    case Kind::take:
      if (!request.rule->by_slot_alone) [[unlikely]] return take_all(session, item);
      return take(session, item);
    case Kind::take_all:
      return take_all(session, item);
    case Kind::peek:
      if (!request.rule->by_slot_alone) [[unlikely]] return take_all(session, item);
      item.answer = request.form == resp::Form::throttle ? limiter_.peek(ask, now_) : peek(ask, now_);
      return;
    case Kind::give:
      give_along(request);
      if (port_ != nullptr) return ask_elsewhere(session, item, Call::Kind::give);
      limiter_.give(ask, request.cost, now_);
      item.answer = limiter_.peek(Ask{request.rule, &request.limit, request.key, item.hash, 0}, now_);
      return;
    case Kind::lease:
      if (!request.rule->by_slot_alone) [[unlikely]] return take_all(session, item);
      item.portion = take_portion(ask, request.most);
      item.answer = limiter_.peek(Ask{request.rule, &request.limit, request.key, item.hash, 0}, now_);
      return;
    case Kind::put_back:
      return put_back(session, item);
    case Kind::reset:
      reset_along(request);
      if (port_ != nullptr) return ask_elsewhere(session, item, Call::Kind::reset);
      limiter_.reset(ask, now_);
      return;
    case Kind::del:
      if (port_ != nullptr) return ask_elsewhere(session, item, Call::Kind::reset);
      item.text_size = 0;  // the number of keys that had a count
      for (const std::string_view key : request.keys)
        item.text_size += limiter_.reset(
            Ask{request.rule, &request.limit, key, limiter_.hash(*request.rule, key), 0}, now_);
      return;
    case Kind::explain:
      if (port_ != nullptr) ask_elsewhere(session, item, Call::Kind::explain);
      return;
    case Kind::peers:
      if (port_ != nullptr) ask_elsewhere(session, item, Call::Kind::peers);
      return;
    case Kind::stats:
      if (port_ != nullptr) ask_elsewhere(session, item, Call::Kind::stats);
      return;
    case Kind::reload:
      return ask_elsewhere(session, item, Call::Kind::reload);
    case Kind::forget:
      if (port_ != nullptr) ask_elsewhere(session, item, Call::Kind::forget);
      return;
    case Kind::order:
      return ask_elsewhere(session, item, Call::Kind::order);
    case Kind::lift:
      return ask_elsewhere(session, item, Call::Kind::lift);
    case Kind::orders:
      return ask_elsewhere(session, item, Call::Kind::orders);
    case Kind::metrics:
      return ask_elsewhere(session, item, Call::Kind::metrics);
    case Kind::top:
      return ask_elsewhere(session, item, Call::Kind::top);
  }
}

// Of an exempt or blocked key: nothing is counted, so nothing can be given or put back.
void Service::answer_by_override(Item& item) {
  item.answer = answer_by({&item.request.limit, item.request.treatment}, item.ordered_for);
  item.text_size = 0;
}

void Service::take(Session& session, Item& item) {
  const Ask ask = ask_of(item.request, item.hash, item.place);
  NoteRing* notes = port_ != nullptr ? &port_->notes : nullptr;
  if (!parking_.waits(item.hash)) [[likely]] {
    item.answer = limiter_.take(ask, now_, notes);
    urgent_ = urgent_ || item.answer.urgent;
    if (item.answer.verdict == Verdict::starved) try_park(session, item);
    if (item.request.most != 0 && item.answer.verdict == Verdict::admitted) item.portion = take_portion(ask, item.request.most);
    return;
  }
  // Others wait under this key: nobody passes them. Where there is something now, it is tried for those before first, and
  // the cluster thread is told of what is then still missing.
  item.answer = limiter_.peek(ask, now_);
  item.noted = item.answer.verdict == Verdict::starved && parking_.last(item.hash)->noted;
  if (!item.noted)
    to_retry_.push_back(item.hash);
  else if (limiter_.note_starved(ask, now_, *notes))  // only in a fleet does anybody wait
    urgent_ = true;
  item.answer.verdict = Verdict::starved;
  try_park(session, item);
}

// --- replies ---

void Service::answer_batch(Session& session, size_t count) {
  const MonoTime decided = clock_.mono();
  counters_.requests_of(session.http != nullptr ? Protocol::http : Protocol::resp).add(count);
  for (size_t i = 0; i < count; ++i) {
    Item& item = batch_[i];
    if (item.request.close) session.closing = true;
    if (item.fate == Fate::park) {
      item.parked->held = &session.replies.hold();
      item.parked->held->parked = std::exchange(item.parked, nullptr);
      continue;
    }
    if (item.fate == Fate::call) {
      HeldReply& held = session.replies.hold();
      item.call->held = &held;
      held.call = item.call.get();
      const Call::Kind kind = item.call->kind;
      if (kind == Call::Kind::reload || kind == Call::Kind::metrics || kind == Call::Kind::top || port_ == nullptr) {
        hand_out_(std::move(item.call));
      } else if (port_->calls.push(item.call.get())) {
        item.call.release();
        urgent_ = true;
      } else {
        counters_.failed(Trouble::calls_full);
        if (item.call->question != nullptr) end_wait();
        std::string bytes;
        constexpr std::string_view kBusy = "too many questions are on their way; try again";
        if (item.call->http)
          http_writer(bytes, item.call->http).problem(503, kBusy);
        else
          resp::Writer(bytes, item.call->version).error("BUSY " + std::string(kBusy));
        item.call.reset();
        session.replies.fill(held, std::move(bytes));
      }
      continue;
    }
    if (item.question != nullptr) [[unlikely]] {
      conclude(*item.question, decided);
      if (item.request.http) {
        write_http_question(session.replies.tail(), item.request.http, *std::exchange(item.question, nullptr));
        continue;
      }
      resp::Writer writer(session.replies.tail(), item.request.version);
      write_question(writer, item.request.form, *std::exchange(item.question, nullptr));
      continue;
    }
    item.answer = as_sent(item.answer, decided);
    if (item.request.kind == resp::Request::Kind::take) this->count(*item.request.rule, item.request.key, item.hash, item.answer);
    write_reply(session, item);
  }
  if (count != 0) counters_.batch.observe(decided - now_.mono);
  if (protocol_error_ && count == batch_size_) {
    counters_.faults[static_cast<size_t>(resp::Fault::protocol)].add();
    session.closing = true;
    if (session.http != nullptr) return refuse_http(session);
    resp::Writer(session.replies.tail(), session.about.version).error("ERR " + session.parser.error);
  }
}

void Service::write_reply(Session& session, Item& item) {
  using Kind = resp::Request::Kind;
  const resp::Request& request = item.request;
  if (request.http && request.kind != Kind::answered) return write_http_reply(session.replies.tail(), item);
  resp::Writer writer(session.replies.tail(), request.version);
  switch (request.kind) {
    case Kind::answered:
      session.replies.tail().append(texts_, item.text_at, item.text_size);
      if (request.fault == resp::Fault::unknown_rule) counters_.unknown_rule.add();
      if (request.fault != resp::Fault::none) counters_.faults[static_cast<size_t>(request.fault)].add();
      return;
    case Kind::take:
      if (request.form == resp::Form::lease) return write_lease(writer, *request.rule, item.answer, item.portion);
      [[fallthrough]];
    case Kind::peek:
    case Kind::give:
      return resp::write_answer(writer, request, item.answer);
    case Kind::lease:
      return write_lease(writer, *request.rule, item.answer, item.portion);
    case Kind::reset:
      return writer.simple("OK");
    case Kind::del:
    case Kind::put_back:
      return writer.integer(static_cast<int64_t>(item.text_size));
    case Kind::explain:
    case Kind::peers:
    case Kind::stats:
      return write_own_facts(writer, item);
    case Kind::forget:
      return writer.error("ERR this node is alone: it knows no other");
    case Kind::take_all:  // a question of its own
    case Kind::reload:    // always asked elsewhere
    case Kind::order:
    case Kind::lift:
    case Kind::orders:
    case Kind::metrics:
    case Kind::top:
      return;
  }
}

void Service::count_outcome(const Rule& rule, const Answer& answer) {
  Outcome outcome = Outcome::admitted;
  switch (answer.verdict) {
    case Verdict::admitted:
      break;
    case Verdict::over_limit:
      outcome = Outcome::limited;
      break;
    case Verdict::starved:
      outcome = Outcome::no_grant;
      break;
    case Verdict::isolated:
      outcome = Outcome::isolated;
      break;
    case Verdict::blocked:
      outcome = Outcome::blocked;
      break;
    case Verdict::exempt:
      outcome = Outcome::exempt;
      break;
  }
  if (rule.shadow && outcome != Outcome::admitted && outcome != Outcome::exempt) outcome = Outcome::shadow_limited;
  counters_.decided(rule.id, outcome);
  if (answer.isolated) [[unlikely]]
    counters_.decisions[rule.id].isolated.add();
  if (--until_sample_ == 0) [[unlikely]] {
    until_sample_ = kSampleEvery;
    if (answer.heard != 0) counters_.staleness.observe(age_of(answer.heard, now_.mono));
  }
}

void Service::count_key(const Rule& rule, std::string_view key, const KeyHash& hash, const Answer& answer) {
  const bool limited = resp::is_limited(resp::reason_of(answer, rule));
  counters_.top.count({rule.id, key, hash, limited ? TopKeys::Event::Kind::limited : TopKeys::Event::Kind::admitted}, now_.mono);
}

// What an answer says once it is about to be sent, at `now`: tokens of a lease that has ended meanwhile were
// not there, and what only a grant can end is tried again in one sync interval.
Answer Service::as_sent(Answer answer, MonoTime now) {
  if (answer.verdict == Verdict::admitted && now >= answer.lease_end) [[unlikely]] {
    counters_.failed(Trouble::lease_passed);
    answer.verdict = Verdict::starved;
  }
  if (answer.verdict == Verdict::starved || answer.verdict == Verdict::isolated)
    answer.retry_after = limits_.sync_interval;
  return answer;
}

void Service::drop(Session& session) {
  now_ = clock_.now();
  std::vector<KeyHash> freed;
  for (HeldReply& held : session.replies.held()) {
    if (held.call != nullptr) held.call->session = nullptr;
    if (held.parked == nullptr) continue;
    counters_.waited_dropped.observe(now_.mono - held.parked->since);
    if (held.parked->question != nullptr) give_back_to_redis(*held.parked->question);
    freed.push_back(held.parked->hash);
    parking_.leave(*held.parked);
    end_wait();
  }
  if (session.touched) std::erase(touched_, &session);
  session.replies.held().clear();
  for (const KeyHash hash : freed) retry(hash);
}

void Service::touch(Session& session) {
  if (std::exchange(session.touched, true)) return;
  touched_.push_back(&session);
}

void Service::take_touched(std::vector<Session*>& into) {
  into.swap(touched_);
  touched_.clear();
  for (Session* session : into) session->touched = false;
}

void Service::ring_if_urgent() {
  if (std::exchange(urgent_, false) && port_ != nullptr) port_->cluster.ring();
}

}  // namespace tally
