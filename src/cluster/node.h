// One whole host, without its threads, clocks and sockets: lessee, owner, member of groups, gossip, start.
//
// Thread rule: the cluster thread's (in the simulator: the only thread's). Workers reach it through NoteRings alone.
// Everything is bytes, structs and `now` in; bytes and structs out (take_outbox, take_wakes).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "base/time.h"
#include "cluster/lessee.h"
#include "cluster/mail.h"
#include "cluster/memory.h"
#include "cluster/orders.h"
#include "cluster/pace.h"
#include "cluster/roster.h"
#include "cluster/succession.h"
#include "cluster/wire.h"
#include "core/limiter.h"
#include "core/rules.h"

namespace tally {

struct NodeConfig {
  std::vector<std::string> peers;  // as in cluster.peers; empty or one: alone
  std::vector<std::string> owners{};  // those of the peers that keys may belong to: aggregators; empty: all
  std::string self;                // this node's entry
  bool movable = false;            // which is a name: others may know of its address later than this node begins
  // This node is in no list: a lessee that needs no place, under a name of this life alone. `self` says nothing then.
  std::optional<NodeId> guest{};
  size_t guests_max = 4'096;  // so many such nodes may come to this one
  uint32_t roster_version = 1;
  uint32_t size = 1;  // cluster.size
  std::optional<NodeList> previous;  // the list that this one replaces, until the change is over
  std::vector<std::string> gone;     // those of it that are stopped for good
  Pace pace{};
  // Of tokens of a bucket, at most; the same on all nodes: a member that forgot a bucket's mark has no vote for as long as any
  // owner's lease may run.
  Duration lease = std::chrono::seconds(1);
  Upstream* upstream = nullptr;  // what this node's owner draws from; outlives the node. nullptr: this fleet is the highest level
  bool region = false;           // this node draws for the owner of a region (it is an Upstream's)
  IdKey id_key = kPublicIdKey;
  // The node's datagrams travel sealed (cluster/seal.h): each leaves room for that, and none is taken in twice. Where they do not,
  // anybody on the host can say anything, and a duplicate is as good as the original: the simulator relies on its being harmless.
  bool sealed = false;
  size_t accounts_max = 1'048'576;   // keys that this node may hold an account for as a lessee
  size_t ledgers_max = 1'048'576;    // keys that this node may own at once
  size_t registers_max = 1'048'576;  // marks that this node may keep at once, each by itself
  size_t overflow_cells_max = 262'144;  // in so many cells of 64 bytes it keeps marks that find no room (cluster/mark_sketch.h)
};

// Which life of the node this is, from its state file.
struct Life {
  uint64_t incarnation = 1;  // grows from life to life; ms of the wall clock at its start, unless that was set back
  bool first = true;        // no state file was there
  WallTime reckoned_start{};  // later lives: the larger of the own clock and the horizon in the state file
  Tenure tenure{};            // as the state file has it; of version 0 where there is none
  std::shared_ptr<const Memory> memory{};  // that the last life has left, if it did
};

// The life of a node that keeps no state file: a guest's, whose name is of this life alone. `dice`: so that no two that begin in one
// millisecond are alike.
Life stateless_life(WallTime now, uint64_t dice);

struct Explanation {
  std::string owner;  // entry of the owner as known
  std::string role;   // "owner", "lessee", "alone"
  std::vector<std::string> group;
  uint32_t ballot_counter = 0;
  std::string ballot_node;
  uint64_t used_here = 0, used_fleet = 0, ceiling = 0, floor = 0, mark = 0;  // buckets: in tokens, rounded down
  Duration knowledge_age{-1};  // -1: never heard
  bool isolated = false;
};

// peer: of a fleet whose keys may belong to all; edge: in the list, and keys belong to aggregators alone; guest: in no list; above: of
// the level that this node draws from for its region.
enum class PeerRole : uint8_t { peer, aggregator, edge, guest, above };
constexpr std::string_view peer_role_name(PeerRole role) {
  constexpr std::string_view kNames[] = {"peer", "aggregator", "edge", "guest", "above"};
  return kNames[static_cast<size_t>(role)];
}

struct PeerStatus {
  uint16_t rank = 0;
  std::string name;  // "" for a guest: it goes by its address
  // Where it is spoken to, and how many addresses it has. Of who has the socket: a node knows no addresses.
  std::string address;
  uint64_t addresses = 0;
  PeerRole role = PeerRole::peer;
  bool up = false;  // heard within max(1 s, 5 sync intervals)
  bool self = false;
  Duration last_heard{-1};  // -1: never
  Duration round_trip{0};
  Duration clock_skew{0};   // its wall clock less ours
  uint64_t incarnation = 0;
  bool rules_mismatch = false;
  bool roster_mismatch = false;
  bool gone = false;  // for good, as the operator says
  bool tcp = false;   // it is spoken to by TCP, as UDP does not pass. Of who has the sockets
  uint32_t roster_version = 0;  // of the list that its newest datagram named; 0: never heard
  double loss = 0;              // of the datagrams that it sent here of late, by their numbers: what did not come
  uint64_t bytes_in = 0, bytes_out = 0;
};

struct NodeStats {
  uint64_t datagrams_in = 0, datagrams_out = 0;
  uint64_t entries_in[kEntryKinds]{}, entries_out[kEntryKinds]{};  // between hosts; what stays inside is not counted
  std::map<std::string, uint64_t> dropped;  // by reason: decode errors, foreign, roster, self, replay, table full ...
  uint64_t marks_accepted = 0, marks_refused = 0;
  uint64_t claims_started = 0, claims_won = 0, claims_lost = 0, begun_anew = 0;
  uint64_t accounts = 0, ledgers = 0, registers = 0;
  uint64_t overflow_cells = 0, overflow_cells_max = 0;  // in use, and of how many
  uint64_t marks_overflowed = 0;  // marks and claims that were kept there
  uint64_t keys_without_majority = 0;
  uint32_t roster_version = 0;
  bool roster_settled = true;  // no change of the list of nodes is under way
  uint64_t denied_under_limit = 0;  // owner's count: asked in vain although the fleet had not used the limit
  std::map<uint16_t, double> overcount_seen;  // by rule id: worst key of the last full window, used / limit - 1, 0 or more
};

// What became of something that arrived.
struct Taken {
  std::optional<uint16_t> from{};  // whose it was: its hash is right, and it came from where that node is. It may be of an older life
  bool moved = false;            // `from` is a guest, and is where this came from, from now on
  bool malformed = false;        // no node of this fleet made it
};

class Node {
 public:
  // `limiter` is shared with the workers and outlives the node; `rules` likewise.
  Node(NodeConfig config, Life life, Limiter& limiter, std::shared_ptr<const RuleSet> rules, uint64_t seed, Now now);
  ~Node();
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  // Input.
  void note(const Note& note, Now now);
  // `from`: the rank that the sender's address belongs to, nullopt where it belongs to none: refused and counted, but for guests.
  Taken receive(std::span<const uint8_t> bytes, std::optional<uint16_t> from, Now now);
  // The same of what came by a stream, whose port says nothing: from one of `there`, the nodes at the sender's IP address.
  Taken receive(std::span<const uint8_t> bytes, std::span<const uint16_t> there, Now now);
  // A datagram to `to` that only shows that this node lives. It may go by another way than others.
  Bytes knock(uint16_t to, Now now);
  // The wall clock that is to be gone by from now on. Where it was set back, this must be told before anybody decides by
  // it, and the last time of the old one before that; tick() tells it as well. True where floors were lost by it.
  bool look_at_clock(Now now);
  void tick(Now now);          // does all that is due; call at next_tick() at the latest, any time before is fine
  MonoTime next_tick() const;  // valid after any of the above
  // Writes what has to go out; call after a batch of inputs.
  void flush(Now now);

  // Goes on by `rules`, which follow (RuleSet) those that it had; workers may decide by them from then on. A limit or an overcount
  // that is another holds at once for what is granted, and from the next window on for what is granted already: the bound is the
  // larger's meanwhile. Requires that no rule has another form (same_form) than it ever had under its name: an owner
  // that went back to the first would have forgotten what it issued there.
  void use(std::shared_ptr<const RuleSet> rules, Now now);
  // From now on. How far ahead windows are granted (Standing) stays what it was at the start: 4 of the sync intervals then.
  void use(const Pace& pace, Now now);

  // Output, emptied by taking.
  std::vector<Outgoing> take_outbox();
  std::vector<Wake> take_wakes();

  // A change of the list of nodes: what has to be in the state file before it holds, and that it is there. Ask after every tick.
  std::optional<Tenure> tenure_to_keep() const;
  void tenure_kept(const Tenure& tenure, Now now);
  const Tenure& tenure() const;  // as kept

  // Questions that only the cluster thread can answer. In a fleet.
  // `only_in`: nothing, where the key is counted in another window.
  uint32_t give(const Rule& rule, const Limit& limit, KeyHash hash, const WireId& id, uint32_t n, Now now,
                std::optional<int64_t> only_in = std::nullopt);
  bool reset(const Rule& rule, const Limit& limit, KeyHash hash, const WireId& id, Now now);
  // What an operator orders of a key, fleet-wide: as Orders::set and lift. Workers are to be given what orders() has.
  Result<KeyOrder> order(const Orders::Name& name, OrderKind kind, uint32_t limit, Duration lasts, Now now);
  bool lift(const Orders::Name& name, Now now);
  // Books of these keys may be lost: everything that is held of them is reported, though it was known.
  void tell_all(const std::function<bool(const WireId&)>& of);
  // Books that are no node's (kBooksEntry) may answer about some keys and be silent about others: `heard` tells when they answered last
  // about a key. Isolation goes by that. Before anything is decided.
  void books_heard_by(uint16_t rank, std::function<MonoTime(const WireId&)> heard);
  // What they must know of lists before this one, and of orders. Of a window: whether they may serve it, and
  // whether they have the one before; of a bucket: until when its past counts as charged, in full.
  struct Past {
    bool takes_part = true, knows_before = true;
    bool takes_next = true;  // they may serve the window after, too
    Duration charged{0};
    // The operator's order by which the report states its limit (BooksBegin); 0: none is known, or it was written by another before.
    uint64_t order = 0;
    WallTime order_until{};
  };
  Past past_of(const Report& report, Now now) const;
  void remember(const KeyOrder& order, Now now);  // that an earlier life of this node knew
  const Orders& orders() const;
  // Of a region's bucket (Upstream): see Lessee.
  std::optional<Lessee::RunningLease> running_lease(const WireId& id, Now now) const;
  void hold(const WireId& id, uint64_t amount);
  void spent(const WireId& id, uint64_t amount);
  uint64_t put_back(const WireId& id, uint64_t amount, Now now);
  // Takes (key, window) over, whoever owns it (window 0: a bucket): always safe, and costs what the owner had under its mark and
  // did not issue. False where this node has not heard of the key, or is no member of its group.
  bool claim(const WireId& id, int64_t window, Now now);
  Explanation explain(const Rule& rule, const Limit& limit, KeyHash hash, const WireId& id, Now now) const;
  // The highest reset number of the key that this node's account and its books have taken in; 0: none.
  struct KnownResets {
    uint64_t account = 0, books = 0;
  };
  KnownResets known_resets(const WireId& id) const;
  std::vector<PeerStatus> peers(Now now) const;
  NodeStats stats() const;
  bool alone() const;
  bool ready() const;  // the start is over, and votes were read anew (10 s at the latest)
  const Roster& roster() const;
  const std::shared_ptr<const RuleSet>& rules() const;  // that it goes by
  bool is_guest(uint16_t rank) const;  // of a node in no list
  // The node of that entry is stopped for good, and nobody is to wait for it: not when this one starts again, nor when the list changes.
  // Until this one's next start; then `gone` says it. "": done; else why not.
  std::string forget(const std::string& entry, Now now);
  // For the next life of this node, once this one has said its last word: it must not vote any more.
  Memory memory(Now now) const;
  // Drains: returns what is not used and says the last word; flush afterwards.
  void leave(Now now);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tally
