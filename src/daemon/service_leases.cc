// What processes take to admit by themselves (src/client), and what they put back.
#include "core/windows.h"
#include "daemon/service.h"

namespace tally {

// Whoever waits under the key comes first.
Portion Service::take_portion(const Ask& ask, uint32_t most) {
  if (most == 0 || parking_.waits(ask.hash)) return {};
  const Portion portion = limiter_.take_portion(ask, most, now_, port_ != nullptr ? &port_->notes : nullptr);
  urgent_ = urgent_ || portion.urgent;
  count_portion(*ask.rule, ask.key, ask.hash, portion.amount, TopKeys::Event::Kind::admitted);
  return portion;
}

// `n` tokens went to a process, or came back. What they were for is not known here: for TALLY.TOP each is a decision.
void Service::count_portion(const Rule& rule, std::string_view key, const KeyHash& hash, uint64_t n, TopKeys::Event::Kind kind) {
  RuleCounters::PerRule& counters = counters_.decisions[rule.id];
  (kind == TopKeys::Event::Kind::put_back ? counters.put_back : counters.leased).add(n);
  if (n != 0 && counters_.top.due()) counters_.top.count({rule.id, key, hash, kind, n}, now_.mono);
}

void Service::put_back(Session& session, Item& item) {
  const resp::Request& request = item.request;
  item.text_size = 0;
  if (request.limit.algorithm == Algorithm::token_bucket) return;  // what a process holds too long was taken off the burst beforehand
  const int64_t window = window_at(now_.wall, request.limit.window);
  if (limiter_.account_of(window) != request.account) return;
  if (port_ == nullptr) {
    item.text_size = limiter_.give(Ask{request.rule, &request.limit, request.key, item.hash, 0}, request.cost, now_, window);
    count_portion(*request.rule, request.key, item.hash, item.text_size, TopKeys::Event::Kind::put_back);
    return;
  }
  ask_elsewhere(session, item, Call::Kind::give);
  item.call->only_in = window;
}

void Service::write_lease(resp::Writer& writer, const Rule& rule, const Answer& answer, const Portion& portion) const {
  const bool bucket = rule.limit.algorithm == Algorithm::token_bucket;
  const int64_t account = bucket || portion.amount == 0 ? 0 : limiter_.account_of(portion.window);
  resp::write_lease(writer, answer, resp::reason_of(answer, rule), {portion.amount, portion.lasts, account});
}

}  // namespace tally
