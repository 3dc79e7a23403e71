// Until the cluster's Node is there, so that a daemon alone can be linked. Never reached: main builds a Node
// only in a fleet.
#include "base/fail.h"
#include "cluster/node.h"

namespace tally {

struct Node::Impl {};
Node::Node(NodeConfig, Life, Limiter&, std::shared_ptr<const RuleSet>, uint64_t, Now) { CHECK_THAT(false); }
Node::~Node() = default;
void Node::note(const Note&, Now) {}
void Node::receive(std::span<const uint8_t>, std::optional<uint16_t>, Now) {}
void Node::tick(Now) {}
MonoTime Node::next_tick() const { return {}; }
void Node::flush(Now) {}
std::vector<Outgoing> Node::take_outbox() { return {}; }
std::vector<Wake> Node::take_wakes() { return {}; }
uint32_t Node::give(const Rule&, const Limit&, KeyHash, const WireId&, uint32_t, Now) { return 0; }
bool Node::reset(const Rule&, const Limit&, KeyHash, const WireId&, Now) { return false; }
Explanation Node::explain(const Rule&, const Limit&, KeyHash, const WireId&, Now) const { return {}; }
std::vector<PeerStatus> Node::peers(Now) const { return {}; }
NodeStats Node::stats() const { return {}; }
bool Node::ready() const { return false; }
void Node::leave(Now) {}

}  // namespace tally
