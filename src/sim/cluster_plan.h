// What a random cluster is, as data: a fleet, and steps that can be left out one by one.
//
// Thread rule: a plan is one owner's; arranging its steps touches only the fleet that they are given. Times
// are true time: how long ago the run began.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/random.h"
#include "sim/fleet.h"

namespace tally::sim {

inline constexpr uint16_t kNodesMost = 60;

// What a cluster is to try most.
enum class Kind : uint8_t {
  mixed,
  pressed,  // every node is asked for more than there is, under the tightest bound, and faults are short: the
            // smallest amount too much shows
  crowded,  // pressed, in slot tables with too little room: keys in use are evicted and come back
  forgetful,  // pressed, and one node loses its state file again and again, where others remember its name
  quiet,      // buckets that lie idle between bursts about as long as a member keeps their marks
  boundary,   // windows: bursts, claims and faults around their ends, clocks that differ little
};
std::string_view kind_name(Kind kind);

// Something that happens: traffic, or a fault.
struct Step {
  Duration at{0};                       // when, or when it begins
  std::string what;                     // for people
  uint16_t highest = 0;                 // the highest rank that it names: without that host it cannot happen
  std::function<void(Fleet&)> arrange;  // before the run: calls at() or what does
};

struct ClusterPlan {
  uint64_t seed = 0;
  FleetConfig config;
  Kind kind = Kind::mixed;
  std::vector<std::pair<std::string, std::string>> keys;  // rule, key
  Duration length{0};
  bool unheard_claims = false;  // and then nothing is given back: docs/mutations.md, the first hole
  bool wide = false;            // draw_wide had its say
  std::vector<Step> steps;      // in the order in which they are arranged

  bool pressed() const { return kind != Kind::mixed; }
  const Rule& rule(std::string_view name) const;
  Group group(std::string_view rule, std::string_view key) const;
  uint16_t any_node(Random& random) const { return static_cast<uint16_t>(random.below(config.nodes)); }
  // Calls `act` at `at`.
  void add(Duration at, uint16_t highest, std::string what, std::function<void(Fleet&)> act);
  // Does `arrange` before the run begins.
  void add_ahead(Duration at, uint16_t highest, std::string what, std::function<void(Fleet&)> arrange);
};

std::string describe(const Rule& rule);
std::string about(const ClusterPlan& plan);  // in a line

// A time in the run, about a boundary of the windows of `limit`; a bucket: any.
Duration near_boundary(Random& random, const Limit& limit, Duration length);
Duration up_to(Random& random, Duration most);
LinkTerms draw_link(Random& random);
HostClock draw_clock(Random& random, Kind kind);

template <typename T>
T pick(Random& random, std::initializer_list<T> from) {
  return from.begin()[random.below(from.size())];
}

// The parts of a plan, drawn in this order.
ClusterPlan draw_cluster(Random& random, bool faults);  // the fleet; no steps yet
// Registers too small for the keys, with few cells for what finds no room in them.
void draw_full_registers(Random& random, ClusterPlan& plan);
// Some of the nodes are aggregators: keys belong to no others. Of a fleet of two or more.
void draw_owners(Random& random, ClusterPlan& plan);
// Many nodes instead, `least` to `most` (kNodesMost at most), for a shorter time and with fewer keys: it costs no more
// than others.
void grow(Random& random, ClusterPlan& plan, uint16_t least, uint16_t most);
void draw_links(Random& random, ClusterPlan& plan);
void draw_traffic(Random& random, ClusterPlan& plan);
void draw_faults(Random& random, ClusterPlan& plan);
void draw_attacks(Random& random, ClusterPlan& plan);
void draw_clones(Random& random, ClusterPlan& plan);
void draw_own_rules(Random& random, ClusterPlan& plan);
// Rules change while the fleet runs. Requires a plan without rules of hosts' own.
void draw_reloads(Random& random, ClusterPlan& plan);
// Hosts have sync intervals of their own, the configured one at most, and change them.
void draw_paces(Random& random, ClusterPlan& plan);
void draw_wide(Random& random, ClusterPlan& plan);
// Processes that admit by themselves, beside hosts of the list.
void draw_processes(Random& random, ClusterPlan& plan);
// Hosts that are in no list. After the clones, which stand before them.
void draw_guests(Random& random, ClusterPlan& plan);

}  // namespace tally::sim
