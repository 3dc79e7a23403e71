// Gossip: what a node tells some others in each interval, unasked.
#include <algorithm>
#include <iterator>

#include "cluster/node_impl.h"

namespace tally {
namespace {

constexpr size_t kGossipFanout = 3;        // others told in each interval
constexpr size_t kMembersPerGossip = 40;   // what is told of others in one datagram
constexpr Duration kGossipEvery = std::chrono::milliseconds(50);  // at most so often, however short the sync interval
constexpr Duration kGuestCallsEvery = std::chrono::milliseconds(500);  // at least so often a guest asks whether owners are there

}  // namespace

std::vector<uint16_t> Node::Impl::some_of(std::vector<uint16_t> ranks, size_t n) {
  n = std::min(n, ranks.size());
  for (size_t i = 0; i < n; ++i)  // the first n of a shuffle (Fisher and Yates)
    std::swap(ranks[i], ranks[i + random.below(ranks.size() - i)]);
  ranks.resize(n);
  return ranks;
}

void Node::Impl::gossip(Now now) {
  next_gossip = now.mono + std::max(pace.sync_interval, kGossipEvery);
  const std::vector<uint16_t> told = some_of(others, kMembersPerGossip);
  std::vector<uint16_t> hearers = some_of(others, kGossipFanout);
  std::ranges::copy(some_of(peers.guests_up(now.mono), kGossipFanout), std::back_inserter(hearers));
  const bool calls = config.guest && now.mono >= next_call;
  if (calls) next_call = now.mono + std::min(kGuestCallsEvery, pace.isolation_after / 4);
  for (const uint16_t to : hearers) {
    bool said = false;
    // No gossip comes to a guest of its own accord as often as it has to know who is there.
    if (calls) mail.send(to, Hello{});
    for (const uint16_t rank : told) {
      const Peer& peer = peers[rank];
      if (rank == to || peer.remembered == 0) continue;
      const auto ago = [&](MonoTime t) {
        return static_cast<uint64_t>(
            std::max<int64_t>(0, std::chrono::duration_cast<std::chrono::milliseconds>(now.mono - t).count()));
      };
      const MonoTime asked = peers.asked_in_vain(rank) ? peer.asked : peer.asked_by_other;
      mail.send(to, Member{roster.id(rank), peer.remembered, ago(peer.heard_of), asked > peer.heard_of ? ago(asked) : 0});
      said = true;
    }
    succession.tell(to, told, mail);
    resets.tell([&](const Reset& reset) { mail.send(to, reset); });
    orders.tell(to, mail);
    // Where nothing is known to tell, the node itself: a datagram shows that its sender lives.
    if (!said) mail.send(to, Member{peers.id(peers.self()), incarnation, 0});
  }
  resets.round_over(now.mono);
  orders.round_over();
}

}  // namespace tally
