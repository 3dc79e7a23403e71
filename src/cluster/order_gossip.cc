#include "cluster/order_gossip.h"

#include <algorithm>
#include <iterator>

namespace tally {
namespace {

constexpr uint8_t kRounds = 10;     // an order is gossiped in so many intervals
constexpr size_t kFreshMost = 256;  // so many at once: what is more, the digest tells
constexpr Duration kAskAgain =
    std::chrono::seconds(1);  // after a question, and after the last news that came
constexpr Duration kAskAgainMost = std::chrono::seconds(64);

}  // namespace

void OrderGossip::spread(const KeyOrder& order) {
  if (fresh_.size() < kFreshMost) fresh_.push_back({order, kRounds});
}

void OrderGossip::tell(uint16_t to, Mail& mail) const {
  for (const Fresh& fresh : fresh_) mail.send(to, fresh.order);
  if (orders_.digest() != 0) mail.send(to, OrdersDigest{orders_.digest(), false});
}

void OrderGossip::round_over() {
  std::erase_if(fresh_, [](Fresh& fresh) { return --fresh.rounds == 0; });
}

Orders::Heard OrderGossip::on_order(const KeyOrder& order, Now now) {
  const Orders::Heard heard = orders_.hear(order, now.wall);
  if (heard != Orders::Heard::news) return heard;
  spread(order);
  ask_not_before_ = now.mono + kAskAgain;  // more may be on its way
  pause_ = kAskAgain;
  return heard;
}

void OrderGossip::on_digest(const OrdersDigest& told, uint16_t from, Mail& mail, Now now) {
  if (told.digest == orders_.digest()) {
    pause_ = Duration(0);
    return;
  }
  if (told.answer) {  // it asks
    if (orders_.size() > 0) asked_by_.try_emplace(from);
    return;
  }
  if (now.mono < ask_not_before_) return;
  pause_ = std::clamp(pause_ * 2, kAskAgain, kAskAgainMost);
  ask_not_before_ = now.mono + pause_;
  mail.send(from, OrdersDigest{orders_.digest(), true});
}

void OrderGossip::tick(Mail& mail, WallTime now) {
  orders_.expire(now);
  for (auto asked = asked_by_.begin(); asked != asked_by_.end();) {
    auto& [to, last] = *asked;
    const std::vector<KeyOrder> some = orders_.some_after(last, kTransferAtATime);
    for (const KeyOrder& order : some) mail.send(to, order);
    if (!some.empty()) last = {some.back().rule, some.back().key};
    asked = some.size() < kTransferAtATime ? asked_by_.erase(asked) : std::next(asked);
  }
}

}  // namespace tally
