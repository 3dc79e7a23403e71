// A plan that fails is cut down to what its failure needs, and the cut can be said and run again.
#include "sim/shrink.h"

#include <doctest/doctest.h>

#include "sim/random_cluster.h"

using namespace tally;
using namespace tally::sim;
using namespace std::chrono_literals;

namespace {

// As if a bound had been set too low: fails where one key was admitted more than so often.
Fails fails_above(uint64_t bound) {
  return [bound](const ClusterPlan& plan) -> std::optional<Duration> {
    if (run_cluster(plan).admitted > bound) return plan.length;
    return std::nullopt;
  };
}

ClusterPlan made_of_bursts(size_t steps) {
  ClusterPlan plan;
  plan.config.nodes = 5;
  plan.config.rules = {window_rule("api", Algorithm::fixed_window, 1000, 60s, 0)};
  plan.config.rules[0].on_isolation = OnIsolation::closed;
  plan.keys = {{"api", "k"}};
  plan.length = 8s;
  for (size_t i = 0; i < steps; ++i)
    plan.add(1s + 100ms * i, static_cast<uint16_t>(i % 5), "an ask", [i](Fleet& fleet) {
      const auto rank = static_cast<uint16_t>(i % 5);
      if (rank < fleet.nodes()) fleet.take(rank, "api", "k", i % 5 == 1 ? 50 : 1);
    });
  return plan;
}

}  // namespace

TEST_CASE("what a failure does not need is left out: steps, nodes, and the time after it") {
  const ClusterPlan plan = made_of_bursts(40);
  const auto cut = shrink(plan, fails_above(90), 2'000);
  REQUIRE(cut);
  CHECK(cut->steps.size() == 2);  // two asks of fifty
  for (const size_t step : cut->steps) CHECK(step % 5 == 1);
  CHECK(cut->nodes < 5);
  CHECK(cut->until < 5s);
  CHECK(fails_above(90)(reduced(plan, *cut)));
}

TEST_CASE(
    "a plan that does not fail is not cut, and one of a random cluster that does still fails when cut") {
  CHECK(!shrink(made_of_bursts(10), fails_above(1'000), 100));
  const ClusterPlan plan = random_cluster(4);
  const auto cut = shrink(plan, fails_above(50), 150);
  REQUIRE(cut);
  CHECK(cut->steps.size() < plan.steps.size() / 2);
  CHECK(fails_above(50)(reduced(plan, *cut)));
  CHECK(schedule(plan, *cut).find("#" + std::to_string(cut->steps[0])) != std::string::npos);
}

TEST_CASE("a cut that keeps all of a plan is the plan") {
  const ClusterPlan plan = random_cluster(3);
  CHECK(run_cluster(reduced(plan, whole(plan))).log_hash == run_cluster(plan).log_hash);
}

TEST_CASE("steps are said in short, and what is said is read") {
  CHECK(options_of({{0, 4, 5, 6}, 3201ms, 3, 2}) == "--steps 0,4-6 --until 3201 --nodes 3 --dice 2");
  CHECK(options_of({{}, 1ms, 3, 0}) == "--steps none --until 1 --nodes 3 --dice 0");
  CHECK(parse_steps("0,4-6") == std::vector<size_t>{0, 4, 5, 6});
  CHECK(parse_steps("7") == std::vector<size_t>{7});
  CHECK(parse_steps("none") == std::vector<size_t>{});
  for (const char* wrong : {"", ",", "1,", "a", "3-1", "2,2", "1-", "1-99999999999", "1;2"}) {
    CAPTURE(wrong);
    CHECK(!parse_steps(wrong));
  }
}
