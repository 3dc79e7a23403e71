// tally-sim: runs random clusters under the checkers and shows, for one that fails, the messages of the
// failing key.
//
//   tally-sim --seed 1 --clusters 1000      seeds 1 to 1000; exits 1 at the first violation, having traced it
//   tally-sim --seed 17 --trace rule-0/key-1    one cluster, every message and ask of that key
#include <cstdio>
#include <cstdlib>
#include <cxxopts.hpp>
#include <exception>
#include <string>

#include "sim/random_cluster.h"
#include "sim/trace.h"

using namespace tally::sim;

namespace {

void print_line(const std::string& line) { std::printf("%s\n", line.c_str()); }

void print_result(const ClusterResult& r) {
  std::printf("seed %llu: %s\n", static_cast<unsigned long long>(r.seed), r.about.c_str());
  std::printf(
      "  admitted %llu of %llu, %llu windows (%llu at the limit), %llu events, %llu datagrams, log %016llx\n",
      static_cast<unsigned long long>(r.admitted), static_cast<unsigned long long>(r.offered),
      static_cast<unsigned long long>(r.windows), static_cast<unsigned long long>(r.windows_full),
      static_cast<unsigned long long>(r.events), static_cast<unsigned long long>(r.traffic.datagrams),
      static_cast<unsigned long long>(r.log_hash));
  for (const Violation& v : r.violations)
    std::printf("  VIOLATION %s/%s at %s: %s\n", v.rule.c_str(), v.key.c_str(), describe(v.at).c_str(),
                v.what.c_str());
}

void trace(uint64_t seed, ClusterOptions options, const std::string& rule, const std::string& key) {
  options.trace_rule = rule;
  options.trace_key = key;
  options.trace = print_line;
  print_result(run_random_cluster(seed, options));
}

int run(const cxxopts::ParseResult& args) {
  const auto seed = args["seed"].as<uint64_t>();
  const auto clusters = args["clusters"].as<uint64_t>();
  ClusterOptions options;
  options.faults = !args["no-faults"].as<bool>();
  options.sliding_late = args["sliding-late"].as<bool>();
  bool found = false;
  if (args.count("trace") != 0) {
    const auto name = args["trace"].as<std::string>();
    const size_t slash = name.find('/');
    if (slash == std::string::npos) {
      std::fprintf(stderr, "tally-sim: --trace wants RULE/KEY, as in rule-0/key-0\n");
      return 64;
    }
    trace(seed, options, name.substr(0, slash), name.substr(slash + 1));
    return 0;
  }
  for (uint64_t i = 0; i < clusters; ++i) {
    const ClusterResult result = run_random_cluster(seed + i, options);
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
      trace(seed + i, options, result.violations[0].rule, result.violations[0].key);
    return 1;
  }
  if (found) return 1;
  std::printf("%llu clusters from seed %llu: no violation\n", static_cast<unsigned long long>(clusters),
              static_cast<unsigned long long>(seed));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 1 << 16);  // what was traced is there when a CHECK ends the run
  cxxopts::Options options("tally-sim",
                           "Random clusters of tallyd's own nodes under the checkers of the bound");
  options.add_options()("seed", "of the first cluster", cxxopts::value<uint64_t>()->default_value("1"))(
      "clusters", "how many", cxxopts::value<uint64_t>()->default_value("1"))(
      "trace", "RULE/KEY: show every message and ask of this key in the cluster of --seed",
      cxxopts::value<std::string>())("no-faults", "no crashes, pauses and partitions",
                                     cxxopts::value<bool>()->default_value("false"))(
      "q,quiet", "of a violation, the result only", cxxopts::value<bool>()->default_value("false"))(
      "k,keep-going", "after a violation with the next cluster",
      cxxopts::value<bool>()->default_value("false"))(
      "sliding-late", "count what a late clock admitted in a sliding window when another had left it",
      cxxopts::value<bool>()->default_value("false"))(
      "v,verbose", "a line for each cluster", cxxopts::value<bool>()->default_value("false"))("h,help",
                                                                                              "this text");
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
