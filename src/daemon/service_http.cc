// What a worker does with the bytes of connections over HTTP: what service.cc does of RESP, and by the same
// decisions.
#include <utility>

#include "daemon/facts.h"
#include "daemon/page.h"
#include "daemon/service.h"
#include "doors/http_requests.h"

namespace tally {

http::Writer Service::http_writer(std::string& out, http::Form form) {
  return {out, form, date_.at(clock_.now().wall)};
}

// As read_batch.
size_t Service::read_http_batch(Session& session, std::string_view input) {
  HttpSession& http = *session.http;
  const http::Env env{env_, session.unix_socket, overview_.ready.load(std::memory_order_relaxed), kPage,
                      date_.at(now_.wall)};
  size_t done = 0;
  batch_size_ = 0;
  texts_.clear();
  protocol_error_ = false;
  while (batch_size_ < batch_.size() && texts_.size() < limits_.pipeline_bytes) {
    if (const size_t bytes = http.repeat.read(input.substr(done), env_, batch_[batch_size_].request))
        [[likely]] {
      ++http.requests;
      begin_item(done);
      done += bytes;
      http.parser.forget();
      if (done == input.size()) break;
      continue;
    }
    const http::Parse parsed = http.parser.next(input.substr(done));
    if (parsed == http::Parse::incomplete) break;
    if (parsed == http::Parse::error) {
      protocol_error_ = true;
      break;
    }
    ++http.requests;
    const size_t text_at = texts_.size();
    resp::Request& request = batch_[batch_size_].request;
    http::read_request(http.parser.message, env, request, texts_, http.key);
    Item& item = begin_item(done);
    http.repeat.remember(input.substr(done, http.parser.consumed), http.parser.message, request, env_);
    done += http.parser.consumed;
    item.text_at = text_at;
    item.text_size = texts_.size() - text_at;
    // In http.key until the next is read.
    const bool borrowed =
        !request.parts.empty() || (!request.key.empty() && request.key.data() == http.key.data());
    if (request.barrier || request.close || borrowed || done == input.size()) break;
  }
  return done;
}

void Service::write_http_reply(std::string& out, const Item& item) {
  using Kind = resp::Request::Kind;
  const resp::Request& request = item.request;
  http::Writer writer(out, request.http, date_.at(now_.wall));
  switch (request.kind) {
    case Kind::take:
      return writer.answer(*request.rule, request.limit, item.answer,
                           resp::reason_of(item.answer, *request.rule));
    case Kind::peek:
      return writer.answer(*request.rule, request.limit, item.answer,
                           resp::reason_of_peek(item.answer, *request.rule));
    case Kind::explain:
      return writer.map(own_explanation(item));
    case Kind::peers:
      return writer.table({});
    case Kind::stats:
      return writer.map(stats_fields(overview_, nullptr, now_.mono));
    case Kind::reset:
      return writer.done();
    default:  // nothing else is asked over HTTP, or it is always answered elsewhere
      return;
  }
}

void Service::write_http_question(std::string& out, http::Form form, const Question& question) {
  http::Writer writer = http_writer(out, form);
  if (form.kind != http::Form::Kind::all) {
    const Question::Part& one = question.deciding();
    return writer.answer(*one.rule, one.limit, one.answer, one.reason);
  }
  std::vector<http::Taken> taken;
  question.for_each_take([&](const Question::Part& part) {
    taken.push_back({*part.rule, part.answer, part.reason});
  });
  writer.all(question.refused_take(), taken);
}

std::string Service::http_answer(const Call& call) {
  std::string bytes;
  http::Writer writer = http_writer(bytes, call.http);
  switch (call.kind) {
    case Call::Kind::explain:
      writer.map(explanation(call));
      break;
    case Call::Kind::peers:
      writer.table(peer_rows(call.peers));
      break;
    case Call::Kind::stats:
      writer.map(stats_fields(overview_, &call.stats, clock_.mono()));
      break;
    case Call::Kind::top:
      writer.top(call.top_span, call.top);
      break;
    case Call::Kind::metrics:
      writer.text(200, "text/plain; version=0.0.4; charset=utf-8", call.text);
      break;
    default:  // a reset, a reload
      call.error.empty() ? writer.done() : writer.problem(409, call.error);
      break;
  }
  return bytes;
}

// What came was no request. What follows it cannot be told from its rest, so the connection ends.
void Service::refuse_http(Session& session) {
  const http::Refusal& why = session.http->parser.refusal;
  session.http->refused = true;
  http_writer(session.replies.tail(), {.kind = http::Form::Kind::json, .close = true})
      .problem(why.status, why.detail);
}

void Service::refuse_slow(Session& session) {
  session.closing = session.http->refused = true;
  http_writer(session.replies.tail(), {.kind = http::Form::Kind::json, .close = true})
      .problem(408, "the request did not arrive within 10 s");
}

}  // namespace tally
