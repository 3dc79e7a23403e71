// What the cluster thread costs (cluster_world.h).
//
// usage: cluster_bench pairs | marks | groups OWNERS | ledger KEYS ACTIVE | accounts KEYS ACTIVE |
//        hot KEYS LESSEES THREADS
//
// Prints its figures as one JSON object (tools/bench/cluster.py reads them).
#include <algorithm>
#include <barrier>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "cluster_world.h"

namespace tally::bench {
namespace {

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

// Finding the group of a key, which every mark needs where it arrives, and every new key.
void groups(size_t owners) {
  std::vector<std::string> entries;
  for (size_t i = 0; i < owners; ++i)
    entries.push_back("10.0." + std::to_string(i / 250) + "." + std::to_string(i % 250 + 1) + ":8381");
  const Roster roster(entries, 1, static_cast<uint32_t>(owners), kPublicIdKey);
  Random random(1);
  WireId id;
  uint64_t sum = 0;
  constexpr int kTimes = 200'000;
  const double began = seconds_now();
  for (int i = 0; i < kTimes; ++i) {
    id.bytes[0] = static_cast<uint8_t>(random.next());
    id.bytes[1] = static_cast<uint8_t>(i);
    sum += roster.groups(id).current.rank[0];
  }
  figure("group ns", (seconds_now() - began) * 1e9 / kTimes);
  figure("mean rank", static_cast<double>(sum) / kTimes);  // so that nothing of it is left out
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
}  // namespace tally::bench

int main(int argc, char** argv) {
  using namespace tally::bench;
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
  else if (is("groups", 1))
    groups(number(1));
  else if (is("hot", 3))
    hot(number(1), static_cast<uint16_t>(number(2)), number(3));
  else {
    std::fprintf(stderr,
                 "usage: cluster_bench pairs | marks | groups OWNERS | ledger KEYS ACTIVE | accounts KEYS "
                 "ACTIVE | hot KEYS "
                 "LESSEES THREADS\n");
    return 2;
  }
  std::printf("\"case\": \"%s\"\n}\n", words[0].c_str());
}
