// What the cluster thread costs: whole nodes in one process, every datagram made, sealed, opened, parsed and
// applied by the code that ships, without sockets. The clock is virtual, so that a sync interval comes when
// the one before is done.
//
// usage: cluster_bench pairs | marks | ledger KEYS ACTIVE | accounts KEYS ACTIVE | hot KEYS LESSEES THREADS
// prints its figures as one JSON object (tools/bench/cluster.py reads them)
#include <sodium.h>

#include <algorithm>
#include <array>
#include <barrier>
#include <chrono>
#include <cstdio>
#include <iterator>
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
constexpr size_t kAroundUdp = 28;  // headers of IP (version 4) and UDP
constexpr size_t kFullAtLeast =
    1300;                      // a datagram of so many bytes is a full one: one entry more had no room
constexpr size_t kBatch = 64;  // datagrams that are taken in before the answers go out
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
  // `take_in`: parse and apply; `answer`: packing what the receiver has to say to it; `parse`: once more by
  // itself, not counted.
  double pack = 0, seal = 0, open = 0, take_in = 0, answer = 0, parse = 0;
  uint64_t datagrams = 0, bytes = 0;
  std::array<uint64_t, kEntryKinds> entries{};
  std::array<uint64_t, kEntryKinds> full_entries{},
      full_bytes{};  // of full datagrams with entries of one kind alone
  uint64_t all() const {
    uint64_t sum = 0;
    for (const uint64_t n : entries) sum += n;
    return sum;
  }
  double total() const { return pack + seal + open + take_in; }
};

struct Shape {
  uint16_t owners = 3, lessees = 1;
  size_t keys = 100'000;  // of the first owner
  size_t table = 0;       // room for so many; 0: for `keys`
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
    pending_.resize(config.peers.size());
    for (uint16_t rank = 0; rank < hosts_.size(); ++rank) {
      Host& host = hosts_[rank];
      host.rules =
          std::make_shared<RuleSet>(std::vector<Rule>{rule}, Rule{}, Share{rank, config.size}, secret_.id);
      host.slots = std::make_unique<SlotTable>(rank < shape.owners ? 1000 : room, 7, true);
      host.limiter = std::make_unique<Limiter>(*host.slots, true);
      host.notes = std::make_unique<NoteRing>(1 << 12);
      config.self = config.peers[rank];
      host.node = std::make_unique<Node>(config, Life{10u + rank, true, {}, {}, {}}, *host.limiter,
                                         host.rules, rank + 1u, now());
    }
    for (int i = 0; i < 10; ++i) pass();
    for (const Host& host : hosts_)
      if (!host.node->ready()) std::abort();
    const Rule& named = hosts_[0].rules->by_id(0);
    for (size_t i = 0; keys_.size() < shape.keys; ++i) {
      std::string key = "user:" + std::to_string(i);
      if (hosts_[0].node->roster().group(wire_id(key, named.id_key)).rank[0] == 0)
        keys_.push_back(std::move(key));
    }
  }

  Now now() const {
    return {MonoTime(std::chrono::hours(5)) + since_,
            WallTime(std::chrono::hours(480'000)) + std::chrono::minutes(20) + since_};
  }
  uint32_t floor() const { return hosts_.back().rules->by_id(0).limit.floor; }
  Node& node(uint16_t rank) { return *hosts_[rank].node; }
  uint16_t owners() const { return shape_.owners; }
  uint16_t hosts() const { return static_cast<uint16_t>(hosts_.size()); }

  // The keys in another order: nothing here shall profit from their being created in the order in which they
  // are used.
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

  // All that `from` has to say to others: packed, sealed, opened and taken in, in batches; what the others
  // answer is packed after each batch, as a daemon does it, and waits for its own turn.
  void deliver(uint16_t from, Stages& s) {
    Stopwatch watch;
    watch.begin();
    collect(from);
    watch.charge(s.pack);
    std::vector<Outgoing> out = std::exchange(pending_[from], {});
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
      for (size_t i = 0; i < n; ++i)
        if (i == 0 || out[first + i].to != out[first + i - 1].to) collect(out[first + i].to);
      watch.charge(s.answer);
      for (size_t i = 0; i < n; ++i) {
        watch.begin();
        if (decode(opened_[i], secret_.id, datagram_) != DecodeError::none) std::abort();
        watch.charge(s.parse);
        count(s, sealed_[i].size() + kAroundUdp);
      }
    }
    s.datagrams += out.size();
  }
  void deliver(uint16_t from) {
    Stages ignored;
    deliver(from, ignored);
  }

  // Every node's tick, and all that comes of it.
  void pass() {
    since_ += kSync;
    for (uint16_t rank = 0; rank < hosts(); ++rank) node(rank).tick(now());
    settle();
  }
  void settle() {
    for (int round = 0; round < 6; ++round)
      for (uint16_t rank = 0; rank < hosts(); ++rank) deliver(rank);
  }
  double tick(uint16_t rank) {  // how long it took
    const double began = seconds_now();
    node(rank).tick(now());
    return seconds_now() - began;
  }

  // The first owner gets `n` more keys, of which it hears once: reports as the last lessee would make them.
  void fill_ledger(size_t n) {
    const auto from = static_cast<uint16_t>(hosts() - 1);
    const Rule& rule = hosts_[from].rules->by_id(0);
    const Roster& roster = node(0).roster();
    Header header{
        roster.id(from), roster.id(0), 10u + from, roster.version(), roster.hash(), 1u << 30, 0, 0, 0, 0};
    Report report;
    report.rule = static_cast<uint32_t>(rule.seed);
    report.terms = {rule.limit.algorithm, rule.limit.limit, rule.max_overcount, rule.limit.window,
                    rule.limit.emission};
    report.window = nanos(now().wall) / nanos(rule.limit.window);
    report.floor = rule.limit.floor;
    report.used = report.ceiling = report.floor;
    report.wanted = report.used + 1;
    for (size_t made = 0; made < n;) {
      ++header.sequence;
      header.sent_mono_ns = static_cast<uint64_t>(nanos(now().mono));
      header.sent_wall_ns = nanos(now().wall);
      DatagramWriter writer(header, secret_.id, kDatagramMax);
      do {
        if (report.line == made) {  // the one before was written
          ++report.line;
          do {
            for (uint8_t& b : report.key.bytes) b = static_cast<uint8_t>(random_.next());
          } while (roster.group(report.key).rank[0] != 0);
        }
      } while (made < n && writer.add(report) && ++made != 0);
      node(0).receive(writer.finish(), from, now());
      deliver(0);
      deliver(1);
      deliver(2);
    }
  }

 private:
  void collect(uint16_t rank) {
    node(rank).flush(now());
    std::vector<Outgoing> out = node(rank).take_outbox();
    std::move(out.begin(), out.end(), std::back_inserter(pending_[rank]));
  }
  static std::string number(uint16_t i) {
    return std::string(i < 10 ? "00" : i < 100 ? "0" : "") + std::to_string(i);
  }
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
  std::vector<std::vector<Outgoing>> pending_;  // by rank: packed, not delivered
  std::vector<std::string> keys_;
  Random random_{7};
  std::array<DatagramBuffer, kBatch> sealed_bytes_, opened_bytes_;
  std::array<std::span<const uint8_t>, kBatch> sealed_, opened_;
  Datagram datagram_;
};

// --- figures ---

void figure(const std::string& name, double value) { std::printf("\"%s\": %.6g,\n", name.c_str(), value); }

// Of one direction: nanoseconds an entry. `made`: seconds that the sender's tick took, `packed`: that it took
// to pack them.
void parts(const std::string& name, const Stages& s, double made, double packed) {
  const auto each = [&](double t) { return t * 1e9 / static_cast<double>(s.all()); };
  const double all = made + packed + s.seal + s.open + s.take_in;
  figure(name + ": made ns", each(made));
  figure(name + ": packed ns", each(packed));
  figure(name + ": sealed ns", each(s.seal));
  figure(name + ": opened ns", each(s.open));
  figure(name + ": parsed ns", each(s.parse));
  figure(name + ": applied ns", each(s.take_in - s.parse));
  figure(name + ": all ns", each(all));
  figure(name + ": million/s", static_cast<double>(s.all()) / all * 1e-6);
}
void bytes(const Stages& s) {
  for (size_t kind = 0; kind < kEntryKinds; ++kind)
    if (s.full_entries[kind] > 10'000)
      figure(std::string(entry_kind_name(kind)) + ": bytes",
             static_cast<double>(s.full_bytes[kind]) / static_cast<double>(s.full_entries[kind]));
}

void become_idle(World& world) {
  for (int i = 0; i < 5; ++i) world.pass();
  world.shuffle();
}

// Every key is in use at every lessee, above its floor; accounts, books and reports are each in another
// order.
void warm_up(World& world, size_t keys) {
  const auto all_use = [&](uint32_t n) {
    for (uint16_t rank = world.owners(); rank < world.hosts(); ++rank) world.use(rank, 0, keys, n);
  };
  all_use(1);
  become_idle(world);
  all_use(world.floor() - 1);
  become_idle(world);
  for (int i = 0; i < 3; ++i) {
    all_use(1);
    world.pass();
  }
}

// One owner, one lessee that uses all of its keys all the time: a report and a grant for each in every sync
// interval.
void pairs() {
  constexpr size_t kKeys = 100'000;
  World world({});
  const uint16_t lessee = world.owners();
  warm_up(world, kKeys);
  Stages reports, grants, accepted;
  double made = 0, owner_ticks = 0, member_ticks = 0;
  for (int round = 0; round < 10; ++round) {
    world.use(lessee, 0, kKeys, 1);
    world.later(kSync);
    made += world.tick(lessee);
    world.deliver(lessee, reports);
    owner_ticks += world.tick(0);
    world.deliver(0, grants);
    for (uint16_t rank = 1; rank < world.owners(); ++rank) {
      member_ticks += world.tick(rank);
      world.deliver(rank, accepted);
    }
    world.settle();
  }
  parts("reports", reports, made, reports.pack);
  parts("grants", grants, 0, reports.answer + grants.pack);
  bytes(reports);
  bytes(grants);
  const double all = made + owner_ticks + reports.total() + grants.total() + accepted.total();
  const auto n = static_cast<double>(grants.entries[Entry(Grant{}).index()]);
  figure("owner's tick: ns a key", owner_ticks * 1e9 / n);
  figure("pair ns", all * 1e9 / n);
  figure("pairs million/s", n / all * 1e-6);
  figure("entries million/s",
         static_cast<double>(reports.all() + grants.all() + accepted.all()) / all * 1e-6);
}

// The first reports of new keys: the owner begins its books, and asks the group for a mark of each.
void marks() {
  constexpr size_t kKeys = 100'000;
  World world({});
  const uint16_t lessee = world.owners();
  world.use(lessee, 0, kKeys, world.floor());
  world.later(kSync);
  world.node(lessee).tick(world.now());
  Stages reports, marks, accepted, grants;
  world.deliver(lessee, reports);
  world.deliver(0, marks);
  for (uint16_t rank = 1; rank < world.owners(); ++rank) world.deliver(rank, accepted);
  parts("marks", marks, 0, reports.answer + marks.pack);
  parts("accepted", accepted, 0, marks.answer + accepted.pack);
  bytes(marks);
  bytes(accepted);
}

// A tick of an owner that has so many keys in its books, `active` of which are in use; and of a member that
// has their marks.
void ledger(size_t keys, size_t active) {
  World world({.lessees = 2, .keys = active, .table = keys});
  const uint16_t lessee = world.owners();
  world.fill_ledger(keys - active);
  world.use(lessee, 0, active, world.floor());
  constexpr int kWarm = 70, kRounds = 64;  // the tables are looked at in 64 rounds
  double owner = 0, member = 0, worst = 0;
  for (int round = -kWarm; round < kRounds; ++round) {
    world.use(lessee, 0, active, 1);
    world.later(kSync);
    world.node(lessee).tick(world.now());
    world.deliver(lessee);
    const double owner_took = world.tick(0), member_took = world.tick(1);
    world.tick(2);
    for (uint16_t rank = 0; rank < world.owners(); ++rank) world.deliver(rank);
    if (round < 0) continue;
    owner += owner_took;
    member += member_took;
    worst = std::max(worst, owner_took);
  }
  figure("owner's tick us", owner * 1e6 / kRounds);
  figure("owner's tick us worst", worst * 1e6);
  figure("member's tick us", member * 1e6 / kRounds);
  figure("ledgers", static_cast<double>(world.node(0).stats().ledgers));
  figure("registers", static_cast<double>(world.node(1).stats().registers));
}

// The same of a lessee that has so many accounts.
void accounts(size_t keys, size_t active) {
  World world({.keys = keys});
  const uint16_t lessee = world.owners();
  world.use(lessee, 0, keys, 1);
  constexpr int kWarm = 70, kRounds = 64;
  double all = 0, worst = 0;
  for (int round = -kWarm; round < kRounds; ++round) {
    world.use(lessee, 0, active, 1);
    world.later(kSync);
    const double took = world.tick(lessee);
    world.deliver(lessee);
    if (round < 0) continue;
    all += took;
    worst = std::max(worst, took);
  }
  figure("lessee's tick us", all * 1e6 / kRounds);
  figure("lessee's tick us worst", worst * 1e6);
  figure("accounts", static_cast<double>(world.node(lessee).stats().accounts));
}

struct HotFigures {
  double owner = 0;  // seconds of the owner's thread, in each interval
  double bytes_in = 0, bytes_out = 0, datagrams_in = 0, datagrams_out = 0, reports = 0, grants = 0;
};

// One owner, keys that are in use at all of many lessees in every interval.
HotFigures hot(size_t keys, uint16_t lessees, std::barrier<>& together) {
  World world({.lessees = lessees, .keys = keys});
  warm_up(world, keys);
  constexpr int kRounds = 3;
  Stages in, out;
  double ticks = 0;
  together.arrive_and_wait();
  for (int round = 0; round < kRounds; ++round) {
    for (uint16_t rank = world.owners(); rank < world.hosts(); ++rank) world.use(rank, 0, keys, 1);
    world.later(kSync);
    for (uint16_t rank = world.owners(); rank < world.hosts(); ++rank) world.tick(rank);
    together.arrive_and_wait();  // with the other owners, so that all of them work at once
    for (uint16_t rank = world.owners(); rank < world.hosts(); ++rank) world.deliver(rank, in);
    ticks += world.tick(0);
    world.deliver(0, out);
    together.arrive_and_wait();
    world.settle();
  }
  const auto each = [](double all) { return all / kRounds; };
  return {each(in.open + in.take_in + in.answer + ticks + out.pack + out.seal),
          each(static_cast<double>(in.bytes)),
          each(static_cast<double>(out.bytes)),
          each(static_cast<double>(in.datagrams)),
          each(static_cast<double>(out.datagrams)),
          each(static_cast<double>(in.entries[Entry(Report{}).index()])),
          each(static_cast<double>(out.entries[Entry(Grant{}).index()]))};
}

// In `threads` threads, each with its part of the keys; the figures of the slowest.
void hot(size_t keys, uint16_t lessees, size_t threads) {
  std::vector<HotFigures> all(threads);
  std::barrier<> together(static_cast<std::ptrdiff_t>(threads));
  std::vector<std::thread> running;
  for (size_t i = 0; i < threads; ++i)
    running.emplace_back([&, i] { all[i] = hot(keys / threads, lessees, together); });
  for (std::thread& thread : running) thread.join();
  const HotFigures& slowest = *std::ranges::max_element(all, {}, &HotFigures::owner);
  figure("owner ms an interval", slowest.owner * 1e3);
  figure("reports", slowest.reports * static_cast<double>(threads));
  figure("reports million/s", slowest.reports * static_cast<double>(threads) / slowest.owner * 1e-6);
  figure("grants", slowest.grants * static_cast<double>(threads));
  figure("MB in", slowest.bytes_in * static_cast<double>(threads) * 1e-6);
  figure("MB out", slowest.bytes_out * static_cast<double>(threads) * 1e-6);
  figure("datagrams in", slowest.datagrams_in * static_cast<double>(threads));
  figure("datagrams out", slowest.datagrams_out * static_cast<double>(threads));
}

}  // namespace
}  // namespace tally

int main(int argc, char** argv) {
  using namespace tally;
  const std::vector<std::string> words(argv + 1, argv + argc);
  const auto is = [&](const char* name, size_t numbers) {
    return words.size() == numbers + 1 && words[0] == name;
  };
  const auto number = [&](size_t i) { return std::stoul(words[i]); };
  if (sodium_init() < 0) return 2;
  std::printf("{\n");
  if (is("pairs", 0))
    pairs();
  else if (is("marks", 0))
    marks();
  else if (is("ledger", 2))
    ledger(number(1), number(2));
  else if (is("accounts", 2))
    accounts(number(1), number(2));
  else if (is("hot", 3))
    hot(number(1), static_cast<uint16_t>(number(2)), number(3));
  else {
    std::fprintf(stderr,
                 "usage: cluster_bench pairs | marks | ledger KEYS ACTIVE | accounts KEYS ACTIVE | hot KEYS "
                 "LESSEES THREADS\n");
    return 2;
  }
  std::printf("\"case\": \"%s\"\n}\n", words[0].c_str());
}
