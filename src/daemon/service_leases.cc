// What processes take to admit by themselves (src/client), and what they put back.
#include "core/windows.h"
#include "daemon/service.h"

namespace tally {

// Whoever waits under the key comes first.
Portion Service::take_portion(const Ask& ask, uint32_t most) {
  if (most == 0 || parking_.waits(ask.hash)) return {};
  const Portion portion = limiter_.take_portion(ask, most, now_, port_ != nullptr ? &port_->notes : nullptr);
  urgent_ = urgent_ || portion.urgent;
  counters_.decisions[ask.rule->id].leased.add(portion.amount);
  return portion;
}

void Service::put_back(Session& session, Item& item) {
  const resp::Request& request = item.request;
  item.text_size = 0;
  if (request.limit.algorithm == Algorithm::token_bucket) return;  // what a process holds too long was taken off the burst beforehand
  const int64_t window = window_at(now_.wall, request.limit.window);
  if (limiter_.account_of(window) != request.account) return;
  if (port_ == nullptr) {
    item.text_size = limiter_.give(Ask{request.rule, &request.limit, request.key, item.hash, 0}, request.cost, now_, window);
    counters_.decisions[request.rule->id].put_back.add(item.text_size);
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
