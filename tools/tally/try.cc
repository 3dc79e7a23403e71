// tally try: one rule against one stream on a single node, by the limiter that ships, in virtual time.
#include <cstdio>
#include <cxxopts.hpp>
#include <string>

#include "files.h"
#include "planning.h"
#include "rule_text.h"
#include "sim/plan_report.h"
#include "sim/trial.h"

namespace tally::tool {
namespace {

using namespace sim;

constexpr int kDone = 0, kUsage = 2;
constexpr uint64_t kRequestsMax = 10'000'000;
constexpr double kPerSecondMax = 1e6;
constexpr Duration kLengthMax = std::chrono::hours(24 * 366);
constexpr size_t kListedUnasked = 40;  // so few requests are shown one by one
constexpr size_t kRows = 24;

int usage(const std::string& message) {
  std::fprintf(stderr, "tally: %s\n", message.c_str());
  return kUsage;
}

void show(const cxxopts::ParseResult& args, const TrialTerms& terms, const std::vector<Trial>& trials) {
  if (args.count("json") != 0) {
    for (const Trial& t : trials) std::printf("%s\n", trial_json(t).c_str());
    return;
  }
  std::printf("%s\n\n", describe_rule(terms.rule).c_str());
  const bool list = args.count("list") != 0 || (trials.size() <= kListedUnasked && args.count("plot") == 0);
  if (list)
    for (const Trial& t : trials) std::printf("%s\n", trial_line(t).c_str());
  if (!list || args.count("plot") != 0) std::printf("%s", trial_plot(terms, trials, kRows).c_str());
  std::printf("\n%s\n", trial_summary(terms, trials).c_str());
}

int try_rule(const cxxopts::ParseResult& args) {
  TrialTerms terms;
  const auto rule = parse_rule_text(args["rule"].as<std::string>());
  if (!rule) return usage(rule.error());
  terms.rule = rule.value();
  terms.per_s = args["rps"].as<double>();
  if (!(terms.per_s > 0 && terms.per_s <= kPerSecondMax))
    return usage("--rps: must be above 0 and at most 1000000 a second");
  const auto length = parse_duration(args["for"].as<std::string>());
  if (!length) return usage("--for: " + length.error());
  terms.length = length.value();
  if (terms.length <= Duration(0) || terms.length > kLengthMax)
    return usage("--for: must be above 0 and at most " + format_duration(kLengthMax));
  terms.cost = args["cost"].as<uint32_t>();
  if (terms.cost < 1 || terms.cost > kLimitMax)
    return usage("--cost: must be 1 to " + std::to_string(kLimitMax));
  terms.random = args.count("random") != 0;
  terms.seed = args["seed"].as<uint64_t>();
  if (trial_count(terms) > kRequestsMax)
    return usage("--rps and --for make " + std::to_string(trial_count(terms)) + " requests; " +
                 std::to_string(kRequestsMax) + " at most");
  const bool svg = args.count("svg") != 0;
  if (svg)
    if (const auto may = may_write(args["svg"].as<std::string>()); !may) return usage(may.error());
  const std::vector<Trial> trials = run_trial(terms);
  if (svg)
    if (const auto done = write_file(args["svg"].as<std::string>(), trial_svg(terms, trials)); !done)
      return usage(done.error());
  show(args, terms, trials);
  return kDone;
}

}  // namespace

int run_try_command(int argc, char** argv) {
  cxxopts::Options options("tally try", "One rule against one stream on a single node, in virtual time\n");
  options.positional_help("RULE").custom_help("[OPTION...]");
  options.add_options()                                                                 //
      ("rps", "requests a second", cxxopts::value<double>()->default_value("1"), "N")   //
      ("for", "how long", cxxopts::value<std::string>()->default_value("1m"), "TIME")   //
      ("cost", "of each request", cxxopts::value<uint32_t>()->default_value("1"), "N")  //
      ("random", "at random times, not evenly")                                         //
      ("seed", "of these", cxxopts::value<uint64_t>()->default_value("1"), "N")         //
      ("list", "request by request, however many")                                      //
      ("plot", "as a plot, however few")                                                //
      ("svg", "a plot, into a file", cxxopts::value<std::string>(), "FILE")             //
      ("json", "print JSON, a line for each request")                                   //
      ("h,help", "print this help");
  options.add_options("hidden")("rule", "", cxxopts::value<std::string>())(
      "rest", "", cxxopts::value<std::vector<std::string>>());
  options.parse_positional({"rule", "rest"});
  const auto args = options.parse(argc, argv);
  if (args.count("help") != 0)
    return std::printf("%s\nRULE: the fields of a rule, as in 'limit=100 window=1m'.\n",
                       options.help({""}).c_str()),
           kDone;
  if (args.count("rule") == 0) return usage("try: a rule is missing, such as 'limit=100 window=1m'");
  if (args.count("rest") != 0)
    return usage("try: one rule at a time, in quotation marks; what is '" +
                 args["rest"].as<std::vector<std::string>>()[0] + "'?");
  return try_rule(args);
}

}  // namespace tally::tool
