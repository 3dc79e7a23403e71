// tally-sim: runs random clusters under the checkers and shows, for one that fails, the messages of the
// failing key.
//
//   tally-sim --seed 1 --clusters 1000      seeds 1 to 1000; exits 1 at the first violation, having traced it
//   tally-sim --seed 17 --trace rule-0/key-1    one cluster, every message and ask of that key
//   tally-sim --seed 17 --shrink            a shorter schedule of the same cluster that still fails, and how
//   to
//                                           run that again
//   tally-sim --nightly                     fresh seeds with --liveness, until it is interrupted
#include <cstdio>
#include <cstdlib>
#include <cxxopts.hpp>
#include <exception>
#include <stdexcept>
#include <string>

#include "sim/random_cluster.h"
#include "sim/shrink.h"
#include "sim/trace.h"
#include "sim_nightly.h"

using namespace tally::sim;

namespace {

constexpr uint64_t kShrinkRuns = 5'000;

struct WrongUsage : std::runtime_error {
  using std::runtime_error::runtime_error;
};

void print_line(const std::string& line) { std::printf("%s\n", line.c_str()); }

void print_violations(const ClusterResult& r) {
  for (const Violation& v : r.violations)
    std::printf("  VIOLATION %s/%s at %s: %s\n", v.rule.c_str(), v.key.c_str(), describe(v.at).c_str(),
                v.what.c_str());
}

void print_result(const ClusterResult& r) {
  std::printf("seed %llu: %s\n", static_cast<unsigned long long>(r.seed), r.about.c_str());
  std::printf(
      "  admitted %llu of %llu, %llu windows (%llu at the limit), %llu events, %llu datagrams, "
      "%llu marks overflowed, log %016llx\n",
      static_cast<unsigned long long>(r.admitted), static_cast<unsigned long long>(r.offered),
      static_cast<unsigned long long>(r.windows), static_cast<unsigned long long>(r.windows_full),
      static_cast<unsigned long long>(r.events), static_cast<unsigned long long>(r.traffic.datagrams),
      static_cast<unsigned long long>(r.marks_overflowed), static_cast<unsigned long long>(r.log_hash));
  print_violations(r);
}

void trace(const ClusterPlan& plan, ClusterOptions options, const std::string& rule, const std::string& key) {
  options.trace_rule = rule;
  options.trace_key = key;
  options.trace = print_line;
  print_result(run_cluster(plan, options));
}

// What --steps, --until, --nodes and --dice leave of the plan.
Cut cut_of(const cxxopts::ParseResult& args, const ClusterPlan& plan) {
  Cut cut = whole(plan);
  if (args.count("steps") != 0) {
    const auto steps = parse_steps(args["steps"].as<std::string>());
    if (!steps || (!steps->empty() && steps->back() >= plan.steps.size()))
      throw WrongUsage("--steps wants numbers of steps, rising, as in 0,4-6");
    cut.steps = *steps;
  }
  if (args.count("until") != 0) cut.until = std::chrono::milliseconds(args["until"].as<uint32_t>());
  if (args.count("nodes") != 0) cut.nodes = args["nodes"].as<uint16_t>();
  if (cut.nodes < 1 || cut.nodes > plan.config.nodes) throw WrongUsage("--nodes can only be fewer");
  for (const size_t step : cut.steps)
    if (cut.nodes < plan.config.nodes && plan.steps[step].highest >= cut.nodes)
      throw WrongUsage("--steps has one that names a host that --nodes leaves out");
  cut.dice = args["dice"].as<uint64_t>();
  return cut;
}

int shrink_cluster(const ClusterPlan& plan, const ClusterOptions& options) {
  const ClusterResult first = run_cluster(plan, options);
  if (first.violations.empty()) {
    std::printf("seed %llu: no violation\n", static_cast<unsigned long long>(plan.seed));
    return 0;
  }
  const std::string_view checker = first.violations.front().checker;
  uint64_t runs = 0;
  const auto cut = shrink(
      plan,
      [&](const ClusterPlan& less) -> std::optional<tally::Duration> {
        ++runs;
        for (const Violation& v : run_cluster(less, options).violations)
          if (v.checker == checker) return v.at;
        return std::nullopt;
      },
      kShrinkRuns);
  const ClusterResult last = run_cluster(reduced(plan, *cut), options);
  std::printf("seed %llu, %zu of %zu steps left after %llu runs: %s",
              static_cast<unsigned long long>(plan.seed), cut->steps.size(), plan.steps.size(),
              static_cast<unsigned long long>(runs), schedule(plan, *cut).c_str());
  print_violations(last);
  const Violation& v = last.violations.front();
  std::printf("again: tally-sim --seed %llu %s%s%s%s --trace %s/%s\n",
              static_cast<unsigned long long>(plan.seed), options_of(*cut).c_str(),
              options.faults ? "" : " --no-faults", options.sliding_late ? " --sliding-late" : "",
              options.liveness ? " --liveness" : "", v.rule.c_str(), v.key.c_str());
  return 1;
}

int run_clusters(const cxxopts::ParseResult& args, uint64_t seed, const ClusterOptions& options) {
  const auto clusters = args["clusters"].as<uint64_t>();
  bool found = false;
  uint64_t full = 0, overflowed = 0, by_processes = 0;
  for (uint64_t i = 0; i < clusters; ++i) {
    const ClusterPlan plan = random_cluster(seed + i, options);
    const ClusterPlan less = reduced(plan, cut_of(args, plan));
    const ClusterResult result = run_cluster(less, options);
    full += result.marks_overflowed > 0 ? 1 : 0;
    overflowed += result.marks_overflowed;
    by_processes += result.by_processes;
    if (args["verbose"].as<bool>()) print_result(result);
    if (result.violations.empty()) continue;
    found = true;
    if (args["keep-going"].as<bool>()) {
      print_result(result);
      continue;
    }
    if (args["quiet"].as<bool>())
      print_result(result);
    else
      trace(less, options, result.violations[0].rule, result.violations[0].key);
    return 1;
  }
  if (found) return 1;
  std::printf("%llu clusters from seed %llu: no violation; %llu with full registers, %llu marks in their sketches; %llu admitted by processes\n",
              static_cast<unsigned long long>(clusters), static_cast<unsigned long long>(seed),
              static_cast<unsigned long long>(full), static_cast<unsigned long long>(overflowed),
              static_cast<unsigned long long>(by_processes));
  return 0;
}

// Each failure at once, with what runs it again: on the same seed everything is the same.
int nightly(const cxxopts::ParseResult& args, ClusterOptions options) {
  options.liveness = true;
  const uint64_t base = args.count("seed") != 0 ? args["seed"].as<uint64_t>() : fresh_seed();
  const uint64_t failed = run_nightly(base, options, [&](const ClusterResult& result) {
    print_result(result);
    std::printf("  again: tally-sim --seed %llu --liveness%s%s\n", static_cast<unsigned long long>(result.seed),
                options.faults ? "" : " --no-faults", options.sliding_late ? " --sliding-late" : "");
  });
  return failed == 0 ? 0 : 1;
}

int run(const cxxopts::ParseResult& args) {
  const auto seed = args["seed"].as<uint64_t>();
  ClusterOptions options;
  options.faults = !args["no-faults"].as<bool>();
  options.sliding_late = args["sliding-late"].as<bool>();
  options.liveness = args["liveness"].as<bool>();
  if (args["nightly"].as<bool>()) return nightly(args, options);
  const bool shown = args["plan"].as<bool>(), shrunk = args["shrink"].as<bool>(),
             traced = args.count("trace") != 0;
  if (!shown && !shrunk && !traced) return run_clusters(args, seed, options);
  const ClusterPlan plan = random_cluster(seed, options);
  const Cut cut = cut_of(args, plan);
  if (shown) std::printf("%s", schedule(plan, cut).c_str());
  if (shrunk) return shrink_cluster(plan, options);
  if (!traced) return 0;
  const auto name = args["trace"].as<std::string>();
  const size_t slash = name.find('/');
  if (slash == std::string::npos) throw WrongUsage("--trace wants RULE/KEY, as in rule-0/key-0");
  trace(reduced(plan, cut), options, name.substr(0, slash), name.substr(slash + 1));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 1 << 16);  // what was traced is there when a CHECK ends the run
  cxxopts::Options options("tally-sim",
                           "Random clusters of tallyd's own nodes under the checkers of the bound");
  const auto flag = [] { return cxxopts::value<bool>()->default_value("false"); };
  auto add = options.add_options();
  add("seed", "of the first cluster", cxxopts::value<uint64_t>()->default_value("1"));
  add("clusters", "how many", cxxopts::value<uint64_t>()->default_value("1"));
  add("trace", "RULE/KEY: show every message and ask of this key in the cluster of --seed",
      cxxopts::value<std::string>());
  add("no-faults", "no crashes, pauses and partitions", flag());
  add("q,quiet", "of a violation, the result only", flag());
  add("k,keep-going", "after a violation with the next cluster", flag());
  add("sliding-late", "count what a late clock admitted in a sliding window when another had left it",
      flag());
  add("liveness", "end the faults then, wait, and check that every node serves again", flag());
  add("nightly", "fresh seeds (from --seed on, where it is given) with --liveness, until SIGINT or SIGTERM", flag());
  add("v,verbose", "a line for each cluster", flag());
  add("plan", "show what happens in the cluster of --seed, without running it", flag());
  add("shrink", "leave out of the cluster of --seed all that its failure does not need", flag());
  add("steps", "run these steps of the plan only, as in 0,4-6; or none", cxxopts::value<std::string>());
  add("until", "end after so many milliseconds", cxxopts::value<uint32_t>());
  add("nodes", "run with fewer nodes", cxxopts::value<uint16_t>());
  add("dice", "other dice for links and applications; 0: the plan's",
      cxxopts::value<uint64_t>()->default_value("0"));
  add("h,help", "this text");
  try {
    const auto args = options.parse(argc, argv);
    if (args.count("help") != 0) {
      std::printf("%s", options.help().c_str());
      return 0;
    }
    return run(args);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "tally-sim: %s\n", e.what());
    return 64;
  }
}
