// Who tells whom of orders (orders.h): each to all at once, then by gossip for some rounds, and all of them
// to a node that asks.
//
// Thread rule: the cluster thread's.
//
// Gossip carries a digest of all that the sender knows. Who knows others asks for them, one node at a time,
// so that in a large fleet a newcomer is not sent the same by everybody; and it is asked in its turn where it
// knows what the others do not. Between nodes that differ for good (a clock that is wrong forgets sooner, one
// that is full takes no more) asking becomes rare.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "base/time.h"
#include "cluster/mail.h"
#include "cluster/orders.h"

namespace tally {

class OrderGossip {
 public:
  static constexpr size_t kTransferAtATime = 256;  // to each that asked, at each sync interval

  Orders& orders() { return orders_; }
  const Orders& orders() const { return orders_; }

  // It is news here: to be told in the next rounds of gossip.
  void spread(const KeyOrder& order);
  // A round of gossip: to each that hears it, then once.
  void tell(uint16_t to, Mail& mail) const;
  void round_over();

  Orders::Heard on_order(const KeyOrder& order, Now now);
  void on_digest(const OrdersDigest& told, uint16_t from, Mail& mail, Now now);
  // At every sync interval: goes on telling those that asked.
  void tick(Mail& mail, WallTime now);

 private:
  struct Fresh {
    KeyOrder order;
    uint8_t rounds = 0;  // still to be told in
  };
  Orders orders_;
  std::vector<Fresh> fresh_;
  std::map<uint16_t, Orders::Name> asked_by_;  // by rank: the last that it was told
  MonoTime ask_not_before_{};
  Duration pause_{0};  // between two questions
};

}  // namespace tally
