#include "sim/attack.h"

#include <algorithm>
#include <memory>
#include <optional>

#include "base/random.h"
#include "sim/trace.h"

namespace tally::sim {
namespace {

constexpr std::string_view kNames[] = {"noise", "damaged datagrams", "old datagrams",
                                       "datagrams of earlier lives", "datagrams of strangers"};
constexpr int kTries = 50;         // to find a datagram of the kind that is looked for
constexpr uint64_t kHarm = 1'000;  // what a stranger adds to numbers; more than any limit that is drawn

uint16_t other_than(Random& random, const Fleet& fleet, uint16_t rank) {
  const auto other = static_cast<uint16_t>(random.below(fleet.nodes() - 1u));
  return other < rank ? other : static_cast<uint16_t>(other + 1);
}

void noise(Fleet& fleet, Random& random) {
  const auto to = static_cast<uint16_t>(random.below(fleet.nodes()));
  Bytes bytes(random.below(kDatagramMax + 100));
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.next());
  fleet.inject(random.chance(0.5) ? std::nullopt : std::optional(other_than(random, fleet, to)), to,
               std::move(bytes));
}

void damage(Fleet& fleet, Random& random) {
  Fleet::Sent sent = fleet.datagrams()[random.below(fleet.datagrams().size())];
  switch (random.below(3)) {
    case 0:
      sent.bytes.resize(random.below(sent.bytes.size()));
      break;
    case 1:
      for (uint64_t flips = 1 + random.below(3); flips > 0; --flips)
        sent.bytes[random.below(sent.bytes.size())] ^= static_cast<uint8_t>(1u << random.below(8));
      break;
    default:
      sent.to = other_than(random, fleet, sent.from);
      break;
  }
  fleet.inject(sent.from, sent.to, std::move(sent.bytes));
}

void replay(Fleet& fleet, Random& random) {
  const Fleet::Sent& sent = fleet.datagrams()[random.below(fleet.datagrams().size())];
  fleet.inject(sent.from, sent.to, sent.bytes);
}

void replay_earlier_life(Fleet& fleet, Random& random) {
  uint16_t youngest = 0;
  for (uint16_t rank = 1; rank < fleet.nodes(); ++rank)
    if (fleet.born(rank) > fleet.born(youngest)) youngest = rank;
  const auto& all = fleet.datagrams();
  const auto before = std::ranges::lower_bound(all, fleet.born(youngest), {}, &Fleet::Sent::at) - all.begin();
  for (int tries = before > 0 ? kTries : 0; tries > 0; --tries) {
    const Fleet::Sent& sent = all[random.below(static_cast<uint64_t>(before))];
    if (sent.to == youngest || sent.from == youngest) return fleet.inject(sent.from, sent.to, sent.bytes);
  }
}

void harm(Entry& entry) {
  if (auto* grant = std::get_if<Grant>(&entry)) grant->granted += kHarm;
  if (auto* report = std::get_if<Report>(&entry)) report->returned += kHarm, report->refunded = report->used;
  if (auto* accepted = std::get_if<Accepted>(&entry)) accepted->mark = kHarm, accepted->refused = false;
}

void stranger(Fleet& fleet, Random& random) {
  const Fleet::Sent& sent = fleet.datagrams()[random.below(fleet.datagrams().size())];
  // A clone's would be a life of its name from the right address: no stranger's.
  if (sent.from >= fleet.nodes()) return;
  Datagram datagram;
  if (decode(sent.bytes, kPublicIdKey, datagram) != DecodeError::none) return;
  std::optional<uint16_t> from = sent.from;
  switch (random.below(3)) {
    case 0:
      ++datagram.header.roster_version;
      break;
    case 1:
      datagram.header.roster_hash ^= 1;
      break;
    default:
      from = other_than(random, fleet, sent.to);
      if (from == sent.from) from.reset();
      break;
  }
  DatagramWriter writer(datagram.header, kPublicIdKey);
  for (Entry& entry : datagram.entries) {
    harm(entry);
    writer.add(entry);  // where it does not fit any more, the others are there
  }
  if (!writer.empty()) fleet.inject(from, sent.to, writer.finish());
}

void strike(Fleet& fleet, Attack attack, Random& random) {
  if (attack == Attack::noise) return noise(fleet, random);
  if (fleet.datagrams().empty()) return;
  switch (attack) {
    case Attack::noise:
      break;
    case Attack::damage:
      return damage(fleet, random);
    case Attack::replay:
      return replay(fleet, random);
    case Attack::earlier_lives:
      return replay_earlier_life(fleet, random);
    case Attack::stranger:
      return stranger(fleet, random);
  }
}

void go_on(Fleet& fleet, const AttackSeries& series, Duration at, const std::shared_ptr<Random>& random) {
  if (at > series.until) return;
  fleet.at(at, [&fleet, series, at, random] {
    for (uint32_t i = 0; i < series.each; ++i) strike(fleet, series.attack, *random);
    go_on(fleet, series, at + series.every, random);
  });
}

}  // namespace

void arrange(Fleet& fleet, const AttackSeries& series) {
  go_on(fleet, series, series.from, std::make_shared<Random>(series.seed));
}

std::string describe(const AttackSeries& series) {
  return std::to_string(series.each) + " " + std::string(kNames[static_cast<size_t>(series.attack)]) +
         " every " + describe(series.every) + " until " + describe(series.until);
}

}  // namespace tally::sim
