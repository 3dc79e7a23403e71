#include "sim/shapes.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "base/nearest.h"
#include "base/random.h"

namespace tally::sim {
namespace {

constexpr std::array<std::string_view, std::size(kShapes)> kNames = {
    "even", "two_of_ten", "one_node", "zipf", "moving", "step", "flood", "burst"};
constexpr double kStepLow = 0.1, kStepHigh = 3;  // of the load

uint64_t rounded(double n) { return n <= 0 ? 0 : static_cast<uint64_t>(std::llround(n)); }

// Key 0's, of a shape that takes time, in a part of the length.
uint64_t count_in(const ShapeTerms& terms, double load, Duration length) {
  return rounded(load * allowed_per_s(terms.limit) * static_cast<double>(nanos(length)) / 1e9);
}

// `n` of key 0 at random times in [from, until).
void spread(std::vector<Arrival>& out, Random& random, uint64_t n, Duration from, Duration until) {
  for (uint64_t i = 0; i < n; ++i)
    out.push_back(
        {from + Duration(static_cast<int64_t>(random.below(static_cast<uint64_t>(nanos(until - from))))), 0,
         0, 1});
}

// Which node a request comes to, where that does not hang on its time: drawn by weight.
class Nodes {
 public:
  explicit Nodes(const ShapeTerms& terms) {
    const uint16_t used = terms.shape == Shape::one_node     ? uint16_t{1}
                          : terms.shape == Shape::two_of_ten ? std::max<uint16_t>(1, terms.nodes / 5)
                                                             : terms.nodes;
    for (uint16_t node = 0; node < used; ++node)
      up_to_.push_back((up_to_.empty() ? 0 : up_to_.back()) +
                       (terms.shape == Shape::zipf ? 1.0 / (node + 1) : 1));
  }
  uint16_t draw(Random& random) const {
    const auto it = std::ranges::upper_bound(up_to_, random.unit() * up_to_.back());
    return static_cast<uint16_t>(std::min<ptrdiff_t>(it - up_to_.begin(), std::ssize(up_to_) - 1));
  }

 private:
  std::vector<double> up_to_;  // the sum of the weights up to a node and its own
};

uint16_t moving_node(const ShapeTerms& terms, Duration at) {
  return static_cast<uint16_t>((at / kMoveEvery + static_cast<int64_t>(terms.seed % terms.nodes)) %
                               terms.nodes);
}

std::vector<Arrival> burst_of(const ShapeTerms& terms) {
  std::vector<Arrival> out(arrival_count(terms));
  for (size_t i = 0; i < out.size(); ++i) out[i].node = static_cast<uint16_t>(i % terms.nodes);
  return out;
}

}  // namespace

std::string_view shape_name(Shape shape) { return kNames[static_cast<size_t>(shape)]; }

Result<Shape> parse_shape(std::string_view name) {
  for (const Shape shape : kShapes)
    if (shape_name(shape) == name) return shape;
  std::string all;
  for (const std::string_view each : kNames) all += (all.empty() ? "" : ", ") + std::string(each);
  const std::string_view near = nearest_of(name, kNames);
  return Failure{"no shape '" + std::string(name) + "', only " + all +
                 (near.empty() ? "" : "; did you mean '" + std::string(near) + "'?")};
}

double allowed_per_s(const Limit& limit) {
  if (limit.algorithm == Algorithm::token_bucket) return 1e9 / static_cast<double>(nanos(limit.emission));
  return limit.limit * 1e9 / static_cast<double>(nanos(limit.window));
}

uint64_t arrival_count(const ShapeTerms& terms) {
  const Duration half = terms.length / 2;
  switch (terms.shape) {
    case Shape::burst:
      return rounded(terms.load * terms.limit.limit);
    case Shape::step:
      return count_in(terms, terms.load * kStepLow, half) +
             count_in(terms, terms.load * kStepHigh, terms.length - half);
    case Shape::flood:
      return 2 * count_in(terms, terms.load, terms.length);
    default:
      return count_in(terms, terms.load, terms.length);
  }
}

std::vector<Arrival> arrivals_of(const ShapeTerms& terms) {
  CHECK_THAT(terms.nodes >= 1);
  if (terms.shape == Shape::burst) return burst_of(terms);
  Random random(terms.seed);
  std::vector<Arrival> out;
  const uint64_t n = arrival_count(terms);
  out.reserve(n);
  const Duration half = terms.length / 2;
  const uint64_t early = terms.shape == Shape::step ? count_in(terms, terms.load * kStepLow, half) : 0;
  spread(out, random, early, Duration(0), half);
  spread(out, random, n - early, terms.shape == Shape::step ? half : Duration(0), terms.length);
  std::ranges::sort(out, {}, &Arrival::at);
  const Nodes nodes(terms);
  for (Arrival& a : out)
    a.node = terms.shape == Shape::moving ? moving_node(terms, a.at) : nodes.draw(random);
  if (terms.shape != Shape::flood) return out;
  // Half of the requests, which ones is drawn, are of keys that never come again.
  std::vector<uint32_t> keys(n);
  std::iota(keys.begin() + static_cast<ptrdiff_t>(n / 2), keys.end(), 1);
  std::shuffle(keys.begin(), keys.end(), random);
  for (size_t i = 0; i < out.size(); ++i) out[i].key = keys[i];
  return out;
}

}  // namespace tally::sim
