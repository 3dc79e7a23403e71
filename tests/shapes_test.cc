// Shapes of traffic: how many requests, where, when and of which key.
#include "sim/shapes.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <set>

#include "seed.h"

using namespace tally;
using namespace tally::sim;
using namespace std::chrono_literals;

namespace {

ShapeTerms terms_of(Shape shape, double load = 1, uint16_t nodes = 10) {
  ShapeTerms terms;
  terms.shape = shape;
  terms.limit.limit = 1000;
  terms.limit.window = 10s;
  terms.load = load;
  terms.length = 60s;
  terms.nodes = nodes;
  terms.seed = test_seed(5);
  return terms;
}

std::map<uint16_t, uint64_t> by_node(const std::vector<Arrival>& arrivals) {
  std::map<uint16_t, uint64_t> counts;
  for (const Arrival& a : arrivals) ++counts[a.node];
  return counts;
}

uint64_t of_key_0(const std::vector<Arrival>& arrivals) {
  return static_cast<uint64_t>(std::ranges::count(arrivals, 0u, &Arrival::key));
}

bool same(const std::vector<Arrival>& a, const std::vector<Arrival>& b) {
  return std::ranges::equal(a, b, [](const Arrival& x, const Arrival& y) {
    return x.at == y.at && x.node == y.node && x.key == y.key && x.cost == y.cost;
  });
}

}  // namespace

TEST_CASE("a shape has as many requests as its load says, in order of time, within its length, of cost 1") {
  for (const Shape shape : kShapes)
    for (const double load : {0.0, 0.5, 1.0, 3.0})
      for (const uint16_t nodes : {uint16_t{1}, uint16_t{3}, uint16_t{10}}) {
        CAPTURE(shape_name(shape));
        CAPTURE(load);
        const ShapeTerms terms = terms_of(shape, load, nodes);
        const auto arrivals = arrivals_of(terms);
        const double windows = shape == Shape::burst ? 1 : shape == Shape::step ? 3 * 0.1 + 3 * 3 : 6;
        CHECK(of_key_0(arrivals) == static_cast<uint64_t>(load * 1000 * windows + 0.5));
        CHECK(arrivals.size() == arrival_count(terms));
        CHECK(std::ranges::is_sorted(arrivals, {}, &Arrival::at));
        CHECK(std::ranges::all_of(arrivals, [&](const Arrival& a) {
          return a.at >= 0s && a.at < terms.length && a.node < nodes && a.cost == 1;
        }));
      }
}

TEST_CASE("the same seed gives the same requests, another seed others") {
  for (const Shape shape : kShapes) {
    CAPTURE(shape_name(shape));
    ShapeTerms terms = terms_of(shape);
    const auto once = arrivals_of(terms);
    CHECK(same(once, arrivals_of(terms)));
    ++terms.seed;
    CHECK(same(once, arrivals_of(terms)) == (shape == Shape::burst));  // nothing of a burst is drawn
  }
}

TEST_CASE("each shape goes to the nodes that it names") {
  const auto even = by_node(arrivals_of(terms_of(Shape::even, 10)));  // 60,000 over ten nodes
  CHECK(even.size() == 10);
  for (const auto& [node, n] : even) CHECK(std::abs(static_cast<double>(n) - 6000) < 400);

  const auto two = by_node(arrivals_of(terms_of(Shape::two_of_ten)));
  CHECK(two.size() == 2);
  CHECK((two.contains(0) && two.contains(1)));
  CHECK(by_node(arrivals_of(terms_of(Shape::two_of_ten, 1, 3))).size() == 1);
  CHECK(by_node(arrivals_of(terms_of(Shape::two_of_ten, 1, 20))).size() == 4);
  CHECK(by_node(arrivals_of(terms_of(Shape::one_node))).size() == 1);

  const auto zipf = by_node(arrivals_of(terms_of(Shape::zipf, 10)));
  const double first = 60'000 / 2.9290;  // the sum of 1/n for ten
  for (const auto& [node, n] : zipf) CHECK(std::abs(static_cast<double>(n) - first / (node + 1)) < 500);

  for (const auto& [node, n] : by_node(arrivals_of(terms_of(Shape::burst, 4, 5)))) CHECK(n == 800);
}

TEST_CASE("moving traffic is at one node at a time, and at the next after a few seconds") {
  std::map<int64_t, std::set<uint16_t>> at;
  for (const Arrival& a : arrivals_of(terms_of(Shape::moving))) at[a.at / kMoveEvery].insert(a.node);
  CHECK(at.size() == 20);
  for (const auto& [turn, nodes] : at) {
    CHECK(nodes.size() == 1);
    if (turn > 0) CHECK(*nodes.begin() == (*at[turn - 1].begin() + 1) % 10);
  }
}

TEST_CASE("a step is a tenth of the load until half of the time, and then three times the load") {
  const auto arrivals = arrivals_of(terms_of(Shape::step));
  CHECK(std::ranges::count_if(arrivals, [](const Arrival& a) { return a.at < 30s; }) == 300);
  CHECK(arrivals.size() == 9300);
}

TEST_CASE("a flood is half of one key at every node, and half of keys that are seen once") {
  const auto arrivals = arrivals_of(terms_of(Shape::flood, 2));
  std::map<uint32_t, uint64_t> by_key;
  std::set<uint16_t> attacked;
  for (const Arrival& a : arrivals) {
    ++by_key[a.key];
    if (a.key == 0) attacked.insert(a.node);
  }
  CHECK(by_key.size() == 12'001);
  CHECK(by_key[0] == 12'000);
  for (const auto& [key, n] : by_key) CHECK((key == 0 || n == 1));
  CHECK(attacked.size() == 10);
}

TEST_CASE("a burst is all at once") {
  for (const Arrival& a : arrivals_of(terms_of(Shape::burst))) CHECK(a.at == 0s);
}

TEST_CASE("a bucket's load is a part of its rate, and a burst a part of what it holds") {
  ShapeTerms terms = terms_of(Shape::even, 0.5);
  terms.limit = {};
  terms.limit.algorithm = Algorithm::token_bucket;
  terms.limit.limit = 100;
  terms.limit.emission = 20ms;
  CHECK(arrivals_of(terms).size() == 1500);  // half of 50 a second for a minute
  terms.shape = Shape::burst;
  CHECK(arrivals_of(terms).size() == 50);
}

TEST_CASE("shapes are found by their names") {
  for (const Shape shape : kShapes) {
    const auto found = parse_shape(shape_name(shape));
    REQUIRE(found);
    CHECK(found.value() == shape);
  }
  CHECK(parse_shape("bust").error() ==
        "no shape 'bust', only even, two_of_ten, one_node, zipf, moving, step, flood, burst; did you mean "
        "'burst'?");
  CHECK(parse_shape("").error() ==
        "no shape '', only even, two_of_ten, one_node, zipf, moving, step, flood, burst");
}
