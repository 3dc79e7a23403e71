// Traffic by shape: the ways in which requests for one limit may come to a fleet.
//
// Thread rule: pure; the same terms give the same arrivals.
//
// Times are random, the number of arrivals is not: it is what the load says, so that what was offered need
// not be estimated. Every arrival costs 1. Key 0 is the one that is limited; only a flood has others.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/fail.h"
#include "base/time.h"
#include "core/rules.h"
#include "sim/traffic.h"

namespace tally::sim {

enum class Shape : uint8_t {
  even,        // every node alike
  two_of_ten,  // a fifth of the nodes, at least one, have all of it
  one_node,    // all at one
  zipf,        // over the nodes: the n-th has 1/n of what the first has
  moving,      // all at one node, which changes every kMoveEvery
  step,        // every node alike: a tenth of the load in the first half, three times the load in the second
  flood,       // key 0 everywhere, and beside each of its requests one of a key that is seen once
  burst,       // load * limit requests at once, dealt out to the nodes in turn
};
inline constexpr Shape kShapes[] = {Shape::even,   Shape::two_of_ten, Shape::one_node, Shape::zipf,
                                    Shape::moving, Shape::step,       Shape::flood,    Shape::burst};
inline constexpr Duration kMoveEvery = std::chrono::seconds(3);

std::string_view shape_name(Shape shape);  // as it is written: "two_of_ten"
Result<Shape> parse_shape(std::string_view name);

struct ShapeTerms {
  Shape shape = Shape::even;
  Limit limit;        // load 1 is limit / window, or the rate of a bucket
  double load = 1;    // offered of key 0, as a part of what the limit allows; 0 or more
  Duration length{};  // from 0; a burst takes none of it
  uint16_t nodes = 1;
  uint64_t seed = 1;
};

// What the limit allows in the long run, a second.
double allowed_per_s(const Limit& limit);

// How many arrivals the terms give.
uint64_t arrival_count(const ShapeTerms& terms);
// Them, in order of time. Requires nodes >= 1.
std::vector<Arrival> arrivals_of(const ShapeTerms& terms);

}  // namespace tally::sim
