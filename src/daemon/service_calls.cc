// What a worker cannot answer by itself: questions to the cluster thread, to main and to the admin thread, and what it says of a key when they
// are back, or alone.
#include <utility>

#include "daemon/facts.h"
#include "daemon/service.h"

namespace tally {
namespace {

bool has_own_limit(const Rule& rule) { return rule.name != kInlineRule; }

// For EXPLAIN; "" where nothing is ordered.
std::string ordered_text(const OrderTable::Order* order, WallTime now) {
  if (order == nullptr) return "";
  const std::string what = order->treatment == Treatment::blocked  ? "block"
                           : order->treatment == Treatment::exempt ? "allow"
                                                                   : "limit " + std::to_string(order->limit.limit);
  return what + ", for " + std::to_string(resp::milliseconds_up(order->until - now)) + " ms more";
}

}  // namespace

void Service::ask_elsewhere(Session& session, Item& item, Call::Kind kind) {
  const resp::Request& request = item.request;
  auto call = std::make_unique<Call>();
  call->kind = kind;
  call->rules = rules_;
  call->rule = request.rule;
  call->limit = request.limit;
  call->n = kind == Call::Kind::order ? request.most : request.cost;
  call->ordered = request.ordered;
  call->lasts = request.lasts;
  static_cast<ReplyTo&>(*call) = ReplyTo(session, request);
  call->key = request.key;
  call->count_wanted = request.kind == resp::Request::Kind::del || request.kind == resp::Request::Kind::put_back;
  if (request.kind == resp::Request::Kind::del) {
    for (const std::string_view key : request.keys)
      call->keys.push_back({limiter_.hash(*request.rule, key), wire_id(key, request.rule->id_key)});
  } else if (request.rule != nullptr) {
    call->keys.push_back({item.hash, wire_id(request.key, request.rule->id_key)});
  }
  item.call = std::move(call);
  item.fate = Fate::call;
}

// To the cluster thread, which nobody waits for. A call that finds no room is lost: what was not given back is still charged.
void Service::tell(Call::Kind kind, std::shared_ptr<const RuleSet> rules, const Ask& about, std::optional<int64_t> only_in) {
  auto call = std::make_unique<Call>();
  call->kind = kind;
  call->rules = std::move(rules);
  call->rule = about.rule;
  call->limit = *about.limit;
  call->n = about.cost;
  call->only_in = only_in;
  call->keys.push_back({about.hash, wire_id(about.key, about.rule->id_key)});
  if (!port_->calls.push(call.get())) return counters_.failed(Trouble::calls_full);
  call.release();
  urgent_ = true;
}

// What holds for the rules that `request`'s takes along.
void Service::give_along(const resp::Request& request) {
  for (const Rule* rule : request.rule->also) {
    const KeyHash hash = limiter_.hash(*rule, request.key);
    const Applied holds = applied(*rule, request.key, hash, now_.wall);
    if (holds.treatment != Treatment::limited) continue;
    const Ask ask{rule, holds.limit, request.key, hash, request.cost};
    if (port_ != nullptr)
      tell(Call::Kind::give, rules_, ask, std::nullopt);
    else
      limiter_.give(ask, request.cost, now_);
  }
}

void Service::reset_along(const resp::Request& request) {
  for (const Rule* rule : request.rule->also) {
    const Ask ask{rule, rule->for_key(request.key).limit, request.key, limiter_.hash(*rule, request.key), 0};
    if (port_ != nullptr)
      tell(Call::Kind::reset, rules_, ask, std::nullopt);
    else
      limiter_.reset(ask, now_);
  }
}

void Service::write_own_facts(resp::Writer& writer, const Item& item) {
  const resp::Request& request = item.request;
  if (request.kind == resp::Request::Kind::stats)
    return resp::write_map(writer, stats_fields(overview_, nullptr, now_.mono));
  if (request.kind == resp::Request::Kind::peers) return resp::write_table(writer, {});
  resp::write_map(writer, own_explanation(item));
}

// Of a node alone.
std::vector<resp::Field> Service::own_explanation(const Item& item) const {
  const resp::Request& request = item.request;
  Answer answer;
  const Answer* known = nullptr;
  if (has_own_limit(*request.rule)) {
    answer = request.treatment == Treatment::limited ? peek(Ask{request.rule, &request.limit, request.key, item.hash}, now_)
                                                     : answer_by({&request.limit, request.treatment});
    known = &answer;
  }
  return explain_fields(explain_alone(overview_.node, known), *request.rule, request.key, rules_->share().size, known,
                        ordered_text(order_of(item.hash, now_.wall), now_.wall));
}

Answer Service::peek(const Ask& ask, Now now) const {
  Ask state = ask;
  state.cost = 0;
  return resp::peeked(limiter_.peek(ask, now), limiter_.peek(state, now));
}

std::vector<resp::Field> Service::explanation(const Call& call) const {
  const bool own = has_own_limit(*call.rule);
  const Now now = clock_.now();
  const KeyHash hash = call.keys.front().hash;
  const Applied holds = applied(*call.rule, call.key, hash, now.wall);
  const Answer answer = holds.treatment != Treatment::limited ? answer_by(holds)
                        : !own                                ? Answer{}
                        : call.rule->mode == Mode::central    ? peek_of(call, now)
                                                              : peek(Ask{call.rule, &call.limit, call.key, hash}, now);
  return explain_fields(call.rule->mode == Mode::central ? explain_central(call.limit, own ? &answer : nullptr) : call.explanation, *call.rule, call.key, call.rules->share().size, own ? &answer : nullptr,
                        ordered_text(order_of(hash, now.wall), now.wall));
}

void Service::finish(std::unique_ptr<Call> call) {
  if (call->question != nullptr) return finish_question(std::move(call));
  if (call->session == nullptr) return;  // the connection went
  if (call->http) {
    call->session->replies.fill(*call->held, http_answer(*call));
    return touch(*call->session);
  }
  std::string bytes;
  resp::Writer writer(bytes, call->version);
  switch (call->kind) {
    case Call::Kind::give: {
      if (call->count_wanted) {
        now_ = clock_.now();
        count_portion(*call->rule, call->key, call->keys.front().hash, call->count, TopKeys::Event::Kind::put_back);
        writer.integer(call->count);
        break;
      }
      if (!call->error.empty()) {
        writer.error("ERR " + call->error);
        break;
      }
      const Answer answer = call->state ? central_answer(*call->state, call->limit, 0)
                                        : limiter_.peek(Ask{call->rule, &call->limit, call->key, call->keys.front().hash, 0}, clock_.now());
      resp::write_six(writer, answer, resp::reason_of_peek(answer, *call->rule));
      break;
    }
    case Call::Kind::reset:
      if (!call->error.empty())
        writer.error("ERR " + call->error);
      else if (call->count_wanted)
        writer.integer(call->count);
      else
        writer.simple("OK");
      break;
    case Call::Kind::explain:
      resp::write_map(writer, explanation(*call));
      break;
    case Call::Kind::peers:
      resp::write_table(writer, peer_rows(call->peers));
      break;
    case Call::Kind::stats:
      resp::write_map(writer, stats_fields(overview_, &call->stats, clock_.mono()));
      break;
    case Call::Kind::lift:
      writer.integer(call->count);
      break;
    case Call::Kind::orders:
      resp::write_maps(writer, order_maps(call->orders, clock_.now().wall));
      break;
    case Call::Kind::top:
      resp::write_top(writer, call->top);
      break;
    case Call::Kind::forget:
    case Call::Kind::order:
    case Call::Kind::reload:
      if (call->error.empty())
        writer.simple("OK");
      else
        writer.error("ERR " + call->error);
      break;
    case Call::Kind::metrics:  // over HTTP alone
    case Call::Kind::take:     // has a question
      break;
  }
  call->session->replies.fill(*call->held, std::move(bytes));
  touch(*call->session);
}

}  // namespace tally
