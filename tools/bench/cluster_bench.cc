// What the cluster thread costs: whole nodes in one process, every datagram made, sealed, opened, parsed and applied by the code that
// ships, without sockets. The clock is virtual, so that a sync interval comes when the one before is done.
//
// usage: cluster_bench CASE     one of those below; prints its figures as one JSON object (tools/bench/cluster.py reads them)
#include <sodium.h>

#include <array>
#include <barrier>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/secret.h"
#include "cluster/node.h"
#include "cluster/seal.h"

namespace tally {
namespace {

constexpr Duration kSync = std::chrono::milliseconds(100);
constexpr size_t kAroundUdp = 28;      // headers of IP (version 4) and UDP
constexpr size_t kFullAtLeast = 1300;  // a datagram of so many bytes is a full one: one entry more had no room
constexpr size_t kBatch = 64;          // datagrams that are taken in before the answers go out
constexpr uint32_t kLimit = 100'000;

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Time by stage; each call charges what passed since the last.
class Stopwatch {
 public:
  void begin() { last_ = seconds_now(); }
  void charge(double& stage) {
    const double now = seconds_now();
    stage += now - last_;
    last_ = now;
  }

 private:
  double last_ = 0;
};

struct Host {
  std::shared_ptr<const RuleSet> rules;
  std::unique_ptr<SlotTable> slots;
  std::unique_ptr<Limiter> limiter;
  std::unique_ptr<NoteRing> notes;
  std::unique_ptr<Node> node;
};

// What goes one way between two nodes.
struct Stages {
  double pack = 0, seal = 0, open = 0, take_in = 0, parse = 0;  // `take_in`: parse and apply; `parse`: once more by itself, not counted
  uint64_t datagrams = 0, bytes = 0;
  std::array<uint64_t, kEntryKinds> entries{};
  std::array<uint64_t, kEntryKinds> full_entries{}, full_bytes{};  // of full datagrams with entries of one kind alone
  uint64_t all() const {
    uint64_t sum = 0;
    for (const uint64_t n : entries) sum += n;
    return sum;
  }
  double total() const { return pack + seal + open + take_in; }
};

struct Shape {
  uint16_t owners = 3, lessees = 1;
  size_t keys = 100'000;        // of the first owner
  size_t table = 0;             // room for so many; 0: for `keys`
};

class World {
 public:
  explicit World(const Shape& shape) : shape_(shape), secret_(Secret::random()) {
    NodeConfig config;
    for (uint16_t i = 0; i < shape.owners; ++i) config.owners.push_back("aggregator-" + number(i) + ":8381");
    config.peers = config.owners;
    for (uint16_t i = 0; i < shape.lessees; ++i) config.peers.push_back("lessee-" + number(i) + ":8381");
    config.size = static_cast<uint32_t>(config.peers.size());
    config.pace.sync_interval = kSync;
    config.id_key = secret_.id;
    config.sealed = true;
    const size_t room = std::max(shape.table, shape.keys) + 1000;
    config.accounts_max = config.ledgers_max = config.registers_max = room;
    Rule rule;
    rule.name.assign("per-user");
    rule.limit.algorithm = Algorithm::sliding_window;
    rule.limit.limit = kLimit;
    rule.limit.window = std::chrono::hours(1);
    hosts_.resize(config.peers.size());
    for (uint16_t rank = 0; rank < hosts_.size(); ++rank) {
      Host& host = hosts_[rank];
      host.rules = std::make_shared<RuleSet>(std::vector<Rule>{rule}, Rule{}, Share{rank, config.size}, secret_.id);
      host.slots = std::make_unique<SlotTable>(rank < shape.owners ? 1000 : room, 7, true);
      host.limiter = std::make_unique<Limiter>(*host.slots, true);
      host.notes = std::make_unique<NoteRing>(1 << 12);
      config.self = config.peers[rank];
      host.node = std::make_unique<Node>(config, Life{10u + rank, true, {}, {}, {}}, *host.limiter, host.rules, rank + 1u, now());
    }
    for (int i = 0; i < 10; ++i) pass(nullptr);
    for (const Host& host : hosts_)
      if (!host.node->ready()) std::abort();
    const Rule& named = hosts_[0].rules->by_id(0);
    for (size_t i = 0; keys_.size() < shape.keys; ++i) {
      std::string key = "user:" + std::to_string(i);
      if (hosts_[0].node->roster().group(wire_id(key, named.id_key)).rank[0] == 0) keys_.push_back(std::move(key));
    }
  }

  Now now() const { return {MonoTime(std::chrono::hours(5)) + since_, WallTime(std::chrono::hours(480'000)) + std::chrono::minutes(20) + since_}; }
  uint32_t floor() const { return hosts_.back().rules->by_id(0).limit.floor; }
  Node& node(uint16_t rank) { return *hosts_[rank].node; }
  uint16_t owners() const { return shape_.owners; }
  uint16_t hosts() const { return static_cast<uint16_t>(hosts_.size()); }

  // The keys in another order: nothing here shall profit from their being created in the order in which they are used.
  void shuffle() {
    for (size_t i = keys_.size(); i > 1; --i) std::swap(keys_[i - 1], keys_[random_.below(i)]);
  }
  // `n` requests for each of the keys from `first` to `last`, at that lessee; its notes are heard.
  void use(uint16_t rank, size_t first, size_t last, uint32_t n) {
    Host& host = hosts_[rank];
    const Rule& rule = host.rules->by_id(0);
    for (size_t i = first; i < last; ++i) {
      const Ask ask{&rule, &rule.limit, keys_[i], host.limiter->hash(rule, keys_[i]), n};
      host.limiter->take(ask, now(), host.notes.get());
      for (Note note; host.notes->pop(note);) host.node->note(note, now());
    }
  }
  void later(Duration d) { since_ += d; }

  // All that `from` has to say to others: packed, sealed, opened and taken in, in batches; what others answer stays in their nodes.
  // `stages`: where the time goes; by the direction that is measured.
  void deliver(uint16_t from, Stages* stages) {
    Stages ignored;
    Stages& s = stages != nullptr ? *stages : ignored;
    Stopwatch watch;
    watch.begin();
    node(from).flush(now());
    std::vector<Outgoing> out = node(from).take_outbox();
    watch.charge(s.pack);
    for (size_t first = 0; first < out.size(); first += kBatch) {
      const size_t n = std::min(kBatch, out.size() - first);
      watch.begin();
      for (size_t i = 0; i < n; ++i) {
        SealNonce nonce;
        randombytes_buf(nonce.data(), nonce.size());
        sealed_[i] = seal(out[first + i].bytes, secret_.seal, nonce, sealed_bytes_[i]);
      }
      watch.charge(s.seal);
      for (size_t i = 0; i < n; ++i) opened_[i] = open(sealed_[i], secret_, opened_bytes_[i]).content;
      watch.charge(s.open);
      for (size_t i = 0; i < n; ++i) node(out[first + i].to).receive(opened_[i], from, now());
      watch.charge(s.take_in);
      if (stages == nullptr) continue;
      for (size_t i = 0; i < n; ++i) {
        watch.begin();
        if (decode(opened_[i], secret_.id, datagram_) != DecodeError::none) std::abort();
        watch.charge(s.parse);
        count(s, sealed_[i].size() + kAroundUdp);
      }
    }
    s.datagrams += out.size();
  }

  // Every node's tick, and all that comes of it.
  void pass(Stages* stages) {
    since_ += kSync;
    for (uint16_t rank = 0; rank < hosts(); ++rank) node(rank).tick(now());
    settle(stages);
  }
  void settle(Stages* stages) {
    for (int round = 0; round < 6; ++round)
      for (uint16_t rank = 0; rank < hosts(); ++rank) deliver(rank, stages);
  }

 private:
  static std::string number(uint16_t i) { return std::string(i < 10 ? "00" : i < 100 ? "0" : "") + std::to_string(i); }
  void count(Stages& s, size_t bytes) {
    s.bytes += bytes;
    for (const Entry& entry : datagram_.entries) ++s.entries[entry.index()];
    if (bytes < kFullAtLeast || datagram_.entries.empty()) return;
    const size_t kind = datagram_.entries[0].index();
    for (const Entry& entry : datagram_.entries)
      if (entry.index() != kind) return;
    s.full_entries[kind] += datagram_.entries.size();
    s.full_bytes[kind] += bytes;
  }

  const Shape shape_;
  const Secret secret_;
  Duration since_{0};
  std::vector<Host> hosts_;
  std::vector<std::string> keys_;
  Random random_{7};
  std::array<DatagramBuffer, kBatch> sealed_bytes_, opened_bytes_;
  std::array<std::span<const uint8_t>, kBatch> sealed_, opened_;
  Datagram datagram_;
};

// --- figures ---

void figure(const std::string& name, double value) { std::printf("\"%s\": %.6g,\n", name.c_str(), value); }

// Seconds of each part for an entry, in nanoseconds.
void parts(const std::string& name, const Stages& s, double made) {
  const auto each = [&](double t) { return t * 1e9 / static_cast<double>(s.all()); };
  figure(name + " entries", static_cast<double>(s.all()));
  figure(name + " make ns", each(made));
  figure(name + " pack ns", each(s.pack));
  figure(name + " seal ns", each(s.seal));
  figure(name + " open ns", each(s.open));
  figure(name + " parse ns", each(s.parse));
  figure(name + " apply ns", each(s.take_in - s.parse));
  figure(name + " all ns", each(s.total() + made));
  figure(name + " million/s", static_cast<double>(s.all()) / (s.total() + made) * 1e-6);
  for (size_t kind = 0; kind < kEntryKinds; ++kind)
    if (s.full_entries[kind] > 10'000)
      figure(std::string(entry_kind_name(kind)) + " bytes", static_cast<double>(s.full_bytes[kind]) / static_cast<double>(s.full_entries[kind]));
}

// One owner, one lessee that uses all of its keys all the time: a report and a grant for each in every sync interval.
void pairs() {
  const size_t kKeys = getenv("KEYS") ? strtoul(getenv("KEYS"),0,10) : 100'000;
  World world({.keys = kKeys});
  const uint16_t lessee = world.owners();
  const auto idle = [&] {
    for (int i = 0; i < 6; ++i) world.pass(nullptr);
    world.shuffle();
  };
  world.use(lessee, 0, kKeys, 1);  // accounts begin in one order
  idle();
  world.use(lessee, 0, kKeys, world.floor() - 1);  // the owner's books in another; from here on every use is its to grant
  idle();
  for (int i = 0; i < 3; ++i) {  // and they are reported in a third
    world.use(lessee, 0, kKeys, 1);
    world.pass(nullptr);
  }
  Stages reports, grants, marks, accepted;
  double made = 0, owner_ticks = 0;
  for (int round = 0; round < 10; ++round) {
    world.use(lessee, 0, kKeys, 1);
    world.later(kSync);
    Stopwatch watch;
    watch.begin();
    world.node(lessee).tick(world.now());
    watch.charge(made);
    world.deliver(lessee, &reports);
    watch.begin();
    world.node(0).tick(world.now());
    watch.charge(owner_ticks);
    world.deliver(0, &grants);
    world.deliver(1, &accepted);
    world.deliver(2, &accepted);
    for (uint16_t rank = 1; rank < world.owners(); ++rank) world.node(rank).tick(world.now());
    world.settle(nullptr);
  }
  parts("reports", reports, made);
  parts("grants", grants, 0);
  const double all = made + owner_ticks + reports.total() + grants.total() + accepted.total();
  const auto n = static_cast<double>(grants.entries[1]);
  figure("owner's tick ns a key", owner_ticks * 1e9 / n);
  figure("pairs million/s", n / all * 1e-6);
  figure("pair ns", all * 1e9 / n);
  figure("entries million/s", static_cast<double>(reports.all() + grants.all() + accepted.all()) / all * 1e-6);
}

// The first reports of new keys: the owner begins its books, and asks the group for a mark of each.
void marks() {
  World world({});
  const uint16_t lessee = world.owners();
  constexpr size_t kKeys = 100'000;
  world.use(lessee, 0, kKeys, kLimit / 100);  // above the floor
  world.later(kSync);
  world.node(lessee).tick(world.now());
  Stages reports, marks, accepted, grants;
  world.deliver(lessee, &reports);
  world.deliver(0, &marks);
  for (uint16_t rank = 1; rank < world.owners(); ++rank) world.deliver(rank, &accepted);
  parts("marks", marks, 0);
  parts("accepted", accepted, 0);
}

}  // namespace
}  // namespace tally

int main(int argc, char** argv) {
  using namespace tally;
  if (sodium_init() < 0) return 2;
  const std::string which = argc == 2 ? argv[1] : "";
  std::printf("{\n");
  if (which == "pairs") pairs();
  else if (which == "marks") marks();
  else return 2;
  std::printf("\"case\": \"%s\"\n}\n", which.c_str());
}
