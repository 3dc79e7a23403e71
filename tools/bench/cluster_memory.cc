// tally_cluster_memory KEYS: what a key costs the nodes of a fleet beside its slot, in bytes that they have
// allocated.
//
// Four whole nodes in one process, on one clock, each handed what the others send. One asks for KEYS keys,
// all of which belong to one of the others; the remaining two are the rest of each key's group and keep its
// marks. So the first has accounts alone, the last two marks alone, and the owner books and marks. Every
// allocation is charged to the node that was spoken to. Slot tables are made before and are not in it.
#include <malloc.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "cluster/node.h"

namespace {

constexpr size_t kNodes = 4, kLessee = 0, kOwner = 1, kMember = 2;
size_t charged_to = kNodes;  // the node that is spoken to; kNodes: none
std::array<int64_t, kNodes + 1> allocated{};

// In front of every allocation: whom it is charged to.
struct alignas(16) Charge {
  size_t node;
};

}  // namespace

void* operator new(size_t n) {
  auto* charge = static_cast<Charge*>(std::malloc(n + sizeof(Charge)));
  if (charge == nullptr) throw std::bad_alloc();
  charge->node = charged_to;
  allocated[charged_to] += static_cast<int64_t>(malloc_usable_size(charge) - sizeof(Charge));
  return charge + 1;
}
void operator delete(void* at) noexcept {
  if (at == nullptr) return;
  Charge* charge = static_cast<Charge*>(at) - 1;
  allocated[charge->node] -= static_cast<int64_t>(malloc_usable_size(charge) - sizeof(Charge));
  std::free(charge);
}
void operator delete(void* at, size_t) noexcept { operator delete(at); }

namespace tally {
namespace {

using std::chrono::milliseconds;

struct Host {
  std::shared_ptr<const RuleSet> rules;
  std::unique_ptr<SlotTable> slots;
  std::unique_ptr<Limiter> limiter;
  NoteRing notes{16'384};
  std::unique_ptr<Node> node;
};

class Fleet {
 public:
  explicit Fleet(size_t keys) {
    NodeConfig config;
    config.peers = {"a:1", "b:1", "c:1", "d:1"};
    config.owners = {"b:1", "c:1", "d:1"};
    config.size = kNodes;
    config.accounts_max = config.ledgers_max = config.registers_max = 2 * keys;
    Rule rule;
    rule.name = "r";
    rule.limit.algorithm = Algorithm::fixed_window;
    rule.limit.limit = 1000;
    rule.limit.window = std::chrono::hours(1);
    rule.max_overcount = {0, false};
    for (size_t i = 0; i < kNodes; ++i) {
      Host& host = hosts_[i];
      const Share share{static_cast<uint16_t>(i), kNodes};
      host.rules = std::make_shared<RuleSet>(std::vector<Rule>{rule}, Rule{}, share, kPublicIdKey);
      host.slots = std::make_unique<SlotTable>(i == kLessee ? keys : 1024, 7, true);
      host.limiter = std::make_unique<Limiter>(*host.slots, true);
      config.self = config.peers[i];
      charged_to = i;
      host.node = std::make_unique<Node>(config, Life{}, *host.limiter, host.rules, i + 1, now());
      charged_to = kNodes;
    }
  }

  void pass(Duration d) {
    for (const Duration until = since_ + d; since_ < until;) {
      since_ += milliseconds(5);
      for (size_t i = 0; i < kNodes; ++i) spoken_to(i, [&](Host& host) { host.node->tick(now()); });
      settle();
    }
  }
  bool owned_by(const std::string& key, size_t node) const {
    const Host& host = hosts_[node];
    return host.node->roster().group(wire_id(key, host.rules->by_id(0).id_key)).rank[0] == node;
  }
  void ask(const std::string& key) {
    Host& host = hosts_[kLessee];
    const Rule& rule = host.rules->by_id(0);
    host.limiter->take({&rule, &rule.limit, key, host.limiter->hash(rule, key), 1}, now(), &host.notes);
  }
  void settle() {
    for (bool moved = true; moved;) {
      moved = false;
      for (size_t i = 0; i < kNodes; ++i) moved = speak(i) || moved;
    }
  }
  NodeStats stats(size_t node) const { return hosts_[node].node->stats(); }

 private:
  template <typename Do>
  void spoken_to(size_t node, Do what) {
    charged_to = node;
    what(hosts_[node]);
    charged_to = kNodes;
  }
  bool speak(size_t from) {
    std::vector<Outgoing> out;
    spoken_to(from, [&](Host& host) {
      for (Note note; host.notes.pop(note);) host.node->note(note, now());
      host.node->flush(now());
      host.node->take_wakes();
      out = host.node->take_outbox();
    });
    for (const Outgoing& o : out)
      if (o.to < kNodes)
        spoken_to(o.to, [&](Host& host) { host.node->receive(o.bytes, static_cast<uint16_t>(from), now()); });
    return !out.empty();
  }
  Now now() const {
    return {MonoTime(std::chrono::hours(100)) + since_, WallTime(std::chrono::hours(480'000)) + since_};
  }

  Duration since_{0};
  std::array<Host, kNodes> hosts_;
};

int run(size_t keys) {
  Fleet fleet(keys);
  fleet.pass(milliseconds(200));
  const auto before = allocated;
  for (size_t asked = 0, i = 0; asked < keys; ++i) {
    const std::string key = "key:" + std::to_string(i);
    if (!fleet.owned_by(key, kOwner)) continue;
    fleet.ask(key);
    if (++asked % 1000 == 0) fleet.settle();
  }
  fleet.settle();
  fleet.pass(milliseconds(500));
  const NodeStats lessee = fleet.stats(kLessee), owner = fleet.stats(kOwner), member = fleet.stats(kMember);
  if (lessee.accounts != keys || owner.ledgers != keys || owner.registers != keys ||
      member.registers != keys || member.ledgers != 0) {
    std::fprintf(stderr,
                 "tally_cluster_memory: %zu keys, but %zu accounts, %zu books, %zu and %zu marks, %zu books "
                 "too many\n",
                 keys, size_t{lessee.accounts}, size_t{owner.ledgers}, size_t{owner.registers},
                 size_t{member.registers}, size_t{member.ledgers});
    return 1;
  }
  const auto each = [&](size_t node) {
    return static_cast<double>(allocated[node] - before[node]) / static_cast<double>(keys);
  };
  std::printf("{\"keys\": %zu, \"account\": %.1f, \"book\": %.1f, \"mark\": %.1f}\n", keys, each(kLessee),
              each(kOwner) - each(kMember), each(kMember));
  return 0;
}

}  // namespace
}  // namespace tally

int main(int argc, char** argv) {
  const size_t keys = argc == 2 ? std::strtoull(argv[1], nullptr, 10) : 0;
  if (keys == 0) {
    std::fprintf(stderr, "usage: tally_cluster_memory KEYS\n");
    return 2;
  }
  return tally::run(keys);
}
