// tally-accuracy: how exact the fleet is, beside other ways to keep a limit; the tables of docs/accuracy.md.
//
//   tally-accuracy                       everything
//   tally-accuracy --only 'round trips'  sections whose title, or settings whose name, contains that; also
//   "goals",
//                                        "random"
//
// Exits 1 where a goal was missed that can be reached, or a bound was broken; 64: misused.
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cxxopts.hpp>
#include <exception>
#include <string>

#include "sim/accuracy_table.h"

using namespace tally::sim;

namespace {

struct Options {
  uint64_t seed = 1;
  std::string only;  // lower case
  size_t settings = 200;
};

std::string lower(std::string s) {
  std::ranges::transform(s, s.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return s;
}
bool wanted(const Options& options, const std::string& name) {
  return lower(name).find(options.only) != std::string::npos;
}

// What is being measured, on a terminal alone.
void progress(const std::string& what) {
  static const bool shown = isatty(STDERR_FILENO) != 0;
  if (shown) std::fprintf(stderr, "\r\033[K%s", what.c_str());
}

std::vector<Row> measure_all(const std::vector<AccuracySetting>& settings, const Options& options) {
  std::vector<Row> rows;
  for (const AccuracySetting& s : settings) {
    progress(s.name);
    rows.push_back(measure(s, options.seed));
  }
  progress("");
  return rows;
}

void print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

// Whether all was kept.
bool run_goals(const Options& options) {
  std::vector<std::pair<Goal, GoalResult>> results;
  std::string broken;
  for (const Goal& goal : accuracy_goals()) {
    if (!wanted(options, "goals") && !wanted(options, goal.name)) continue;
    progress(goal.name);
    results.emplace_back(goal, pursue(goal, options.seed));
    for (const std::string& what : results.back().second.violations) broken += "BOUND BROKEN: " + what + "\n";
  }
  progress("");
  if (results.empty()) return true;
  print("## Goals\n\n" + table_of(results) + "\n" + broken);
  return broken.empty() && std::ranges::all_of(results, [](const auto& r) {
           return r.second.reached || r.first.needs_failover;
         });
}

bool run_section(const Section& section, const Options& options) {
  std::vector<AccuracySetting> settings = section.settings;
  if (!wanted(options, section.title))
    std::erase_if(settings, [&](const AccuracySetting& s) { return !wanted(options, s.name); });
  if (settings.empty()) return true;
  const std::vector<Row> rows = measure_all(settings, options);
  const std::string broken = violations_of(rows);
  print("## " + section.title + "\n\n" + (section.about.empty() ? "" : section.about + "\n\n") +
        table_of(rows) + "\n" + broken);
  return broken.empty();
}

bool run_random(const Options& options) {
  std::vector<AccuracySetting> settings = random_settings(options.seed, options.settings);
  if (settings.empty()) return true;
  const std::string title = std::to_string(settings.size()) + " settings at random";
  if (!wanted(options, title)) {  // one or a few of them, as rows
    std::erase_if(settings, [&](const AccuracySetting& s) { return lower(s.name) != options.only; });
    for (const Row& row : measure_all(settings, options))
      print(describe(row.setting) + "\n\n" + table_of({&row, 1}));
    return true;
  }
  const std::vector<Row> rows = measure_all(settings, options);
  const std::string broken = violations_of(rows);
  print("## " + title + "\n\n" + summary_of(rows, 16) + "\n" + broken);
  return broken.empty();
}

int run(const Options& options) {
  bool kept = run_goals(options);
  for (const Section& section : accuracy_sections()) kept &= run_section(section, options);
  kept &= run_random(options);
  return kept ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  cxxopts::Options about("tally-accuracy", "How exact a fleet of tallyd's own nodes is, in virtual time");
  about.add_options()("seed", "of everything that is random", cxxopts::value<uint64_t>()->default_value("1"))(
      "only", "sections and settings whose names contain this",
      cxxopts::value<std::string>()->default_value(""))(
      "settings", "how many at random", cxxopts::value<size_t>()->default_value("200"))("h,help",
                                                                                        "this text");
  try {
    const auto args = about.parse(argc, argv);
    if (args.count("help") != 0) {
      std::printf("%s", about.help().c_str());
      return 0;
    }
    return run(
        {args["seed"].as<uint64_t>(), lower(args["only"].as<std::string>()), args["settings"].as<size_t>()});
  } catch (const std::exception& e) {
    std::fprintf(stderr, "tally-accuracy: %s\n", e.what());
    return 64;
  }
}
