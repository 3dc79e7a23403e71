// tally plan: what a rule does on a fleet under settings to choose from, by the engine that ships, in virtual
// time.
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cxxopts.hpp>
#include <optional>
#include <string>
#include <vector>

#include "files.h"
#include "planning.h"
#include "rule_text.h"
#include "sim/plan.h"
#include "sim/plan_report.h"
#include "sim/shapes.h"
#include "sim/trace_file.h"
#include "table.h"

namespace tally::tool {
namespace {

using namespace sim;

constexpr int kDone = 0, kBroken = 1, kUsage = 2;
constexpr uint32_t kNodesMax = 1'000;
constexpr size_t kRunsMax = 1'000;
constexpr double kLossMax = 0.9, kLoadMax = 1'000;
constexpr Duration kRoundTripMax = std::chrono::seconds(10);
constexpr Duration kLengthMax = kTraceSpanMax;
constexpr Duration kLengthLeast = std::chrono::seconds(10), kLengthUsual = std::chrono::minutes(5);

struct Job {
  PlanTerms terms;
  std::vector<Arrival> arrivals;
  std::vector<PlanSetting> settings;
  std::string about;  // the traffic
};

// --- options ---

struct Wrong {
  std::string what;
};

template <typename T>
T need(Result<T> result, const std::string& option = "") {
  if (!result) throw Wrong{option.empty() ? result.error() : option + ": " + result.error()};
  return std::move(result.value());
}

// "5%", "0.05", "2": a part of one, or how often.
double need_part(const std::string& text, const std::string& option, double most) {
  const bool percent = text.ends_with('%');
  const char* end = text.data() + text.size() - (percent ? 1 : 0);
  double value = 0;
  const auto [stop, failed] = std::from_chars(text.data(), end, value, std::chars_format::fixed);
  if (percent) value /= 100;
  if (failed != std::errc() || stop != end || !(value >= 0 && value <= most)) {
    char range[64];
    std::snprintf(range, sizeof range, "0 to %g (0%% to %g%%)", most, most * 100);
    throw Wrong{option + ": expected a part such as 0.05 or 5%, " + range + ", got '" + text + "'"};
  }
  return value;
}

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> items;
  for (size_t from = 0;;) {
    const size_t comma = list.find(',', from);
    items.push_back(list.substr(from, comma - from));
    if (comma == std::string::npos) return items;
    from = comma + 1;
  }
}

Duration need_duration(const std::string& text, const std::string& option, Duration low, Duration high) {
  const Duration d = need(parse_duration(text), option);
  if (d < low || d > high)
    throw Wrong{option + ": must be " + format_duration(low) + " to " + format_duration(high) + ", got " +
                format_duration(d)};
  return d;
}

std::vector<PlanSetting> settings_of(const cxxopts::ParseResult& args) {
  std::vector<PlanSetting> settings;
  for (const std::string& rtt : split(args["rtt"].as<std::string>()))
    for (const std::string& loss : split(args["loss"].as<std::string>()))
      for (const std::string& sync : split(args["sync"].as<std::string>())) {
        const Config::Cluster cluster = need(parse_sync_interval(sync));
        PlanSetting s;
        s.sync_interval = cluster.sync_interval;
        s.isolation_after = cluster.isolation();
        s.lease = cluster.lease_length();
        s.round_trip = need_duration(rtt, "--rtt", Duration(0), kRoundTripMax);
        s.loss = need_part(loss, "--loss", kLossMax);
        settings.push_back(s);
      }
  if (settings.size() > kRunsMax)
    throw Wrong{"--sync, --rtt and --loss make " + std::to_string(settings.size()) + " runs; " +
                std::to_string(kRunsMax) + " at most"};
  return settings;
}

void read_shape(const cxxopts::ParseResult& args, Job& job) {
  ShapeTerms terms;
  terms.shape = need(parse_shape(args["shape"].as<std::string>()), "--shape");
  terms.limit = job.terms.rule.limit;
  terms.load = need_part(args["load"].as<std::string>(), "--load", kLoadMax);
  terms.nodes = job.terms.nodes;
  terms.seed = job.terms.seed;
  const bool bucket = terms.limit.algorithm == Algorithm::token_bucket;
  const Duration window = bucket ? terms.limit.burst_span() : terms.limit.window;
  terms.length = args.count("for") != 0 ? need_duration(args["for"].as<std::string>(), "--for",
                                                        std::chrono::milliseconds(1), kLengthMax)
                                        : std::max(kLengthLeast, std::min(kLengthUsual, window * 3));
  const double most =
      terms.load * allowed_per_s(terms.limit) * static_cast<double>(nanos(terms.length)) / 1e9;
  if (most > static_cast<double>(kTraceRequestsMax) || arrival_count(terms) > kTraceRequestsMax) {
    char n[32];
    std::snprintf(n, sizeof n, "%.3g", most);
    throw Wrong{"--load and --for make " + std::string(n) + " requests; " +
                std::to_string(kTraceRequestsMax) + " at most"};
  }
  job.arrivals = arrivals_of(terms);
  job.terms.length = terms.length;
  job.about = "shape " + std::string(shape_name(terms.shape)) + ", load " + percent_of(terms.load);
}

void read_trace(const std::string& file, Job& job) {
  const std::string text = need(read_file(file));
  auto trace = parse_trace(text, {job.terms.nodes, job.terms.seed});
  if (!trace) throw Wrong{(file == "-" ? "(standard input)" : file) + ":" + trace.error()};
  job.arrivals = std::move(trace.value().arrivals);
  job.terms.keys = std::move(trace.value().keys);
  job.terms.origin = trace.value().origin;
  job.about =
      "trace of " + std::to_string(job.terms.keys.size()) + (job.terms.keys.size() == 1 ? " key" : " keys");
}

// The rule named `name` of a configuration, and its cluster.
Config need_config(const std::string& file, const std::string& name, Job& job) {
  Parsed parsed = parse_config(need(read_file(file)));
  if (!parsed.errors.empty()) {
    std::string all;
    for (const Problem& problem : parsed.errors)
      all += (all.empty() ? "" : "\ntally: ") + format_problem(file, problem);
    throw Wrong{all};
  }
  const auto rule = std::ranges::find(parsed.config.rules, name, &Rule::name);
  if (rule == parsed.config.rules.end()) throw Wrong{file + ": no rule '" + name + "'"};
  job.terms.rule = *rule;
  return std::move(parsed.config);
}

Job job_of(const cxxopts::ParseResult& args) {
  Job job;
  const auto rule = args["rule"].as<std::string>();
  uint32_t nodes = 3;
  if (args.count("config") != 0)
    nodes = std::max<uint32_t>(1, need_config(args["config"].as<std::string>(), rule, job).cluster.nodes());
  else
    job.terms.rule = need(parse_rule_text(rule));
  if (args.count("nodes") != 0) nodes = args["nodes"].as<uint32_t>();
  if (nodes < 1 || nodes > kNodesMax)
    throw Wrong{"--nodes: must be 1 to " + std::to_string(kNodesMax) + ", got " + std::to_string(nodes)};
  job.terms.nodes = static_cast<uint16_t>(nodes);
  job.terms.seed = args["seed"].as<uint64_t>();
  job.settings = settings_of(args);
  if (args.count("trace") == 0) {
    read_shape(args, job);
  } else {
    for (const char* other : {"shape", "load", "for"})
      if (args.count(other) != 0)
        throw Wrong{"--trace and --" + std::string(other) +
                    " exclude each other: a trace says who asks when"};
    read_trace(args["trace"].as<std::string>(), job);
  }
  return job;
}

// --- running ---

// One line on the standard error, written over and over while somebody looks at a terminal.
class Progress {
 public:
  explicit Progress(size_t runs) : runs_(runs), shown_(isatty(STDERR_FILENO) == 1) {}
  ~Progress() {
    if (shown_) std::fputs("\r\033[K", stderr);
  }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void show(size_t run, const PlanSetting& setting, double part) const {
    if (!shown_) return;
    std::fprintf(stderr, "\r\033[Krun %zu of %zu: %s: %.0f%%", run + 1, runs_,
                 describe_setting(setting).c_str(), part * 100);
    std::fflush(stderr);
  }

 private:
  const size_t runs_;
  const bool shown_;
};

std::vector<PlanResult> run_all(const Job& job) {
  const Progress progress(job.settings.size());
  std::vector<PlanResult> results;
  for (size_t i = 0; i < job.settings.size(); ++i)
    results.push_back(run_plan(job.terms, job.settings[i], job.arrivals,
                               [&](double part) { progress.show(i, job.settings[i], part); }));
  return results;
}

std::string about_traffic(const Job& job, const PlanResult& any) {
  return std::to_string(any.requests) + " requests in " + short_duration(any.length) + " at " +
         std::to_string(any.nodes) + (any.nodes == 1 ? " node" : " nodes") + " (" + job.about +
         "): offered " + std::to_string(any.offered) + ", admissible " + std::to_string(any.admissible);
}

int told_of_violations(const std::vector<PlanResult>& results) {
  int code = kDone;
  for (const PlanResult& r : results)
    for (const std::string& violation : r.violations) {
      std::fprintf(
          stderr, "tally: a promise was broken, which is a bug; please report it with this command: %s: %s\n",
          describe_setting(r.setting).c_str(), violation.c_str());
      code = kBroken;
    }
  return code;
}

int plan(const cxxopts::ParseResult& args) {
  const auto path = [&](const char* option) {
    return args.count(option) != 0 ? std::optional(args[option].as<std::string>()) : std::nullopt;
  };
  const auto csv = path("csv"), svg = path("svg");
  for (const auto& file : {csv, svg})
    if (file) need(may_write(*file));  // not first after all the runs
  const Job job = job_of(args);
  const std::vector<PlanResult> results = run_all(job);
  const std::string about = about_traffic(job, results[0]);
  if (csv) need(write_file(*csv, plan_csv(results)));
  if (svg) need(write_file(*svg, plan_svg(job.terms.rule, results, about)));
  if (args.count("json") != 0) {
    std::printf("%s", plan_json(results).c_str());
  } else {
    std::printf("%s\n%s\n\n", describe_rule(job.terms.rule).c_str(), about.c_str());
    print_aligned(plan_table(job.terms.rule, results));
    std::printf("\n");
    for (const auto& sentences : {plan_notes(job.terms.rule, results), plan_advice(job.terms.rule, results)})
      for (const std::string& sentence : sentences) std::printf("%s\n", sentence.c_str());
  }
  return told_of_violations(results);
}

cxxopts::Options plan_options() {
  cxxopts::Options options("tally plan",
                           "What a rule does on a fleet, by the engine that ships, in virtual time\n");
  options.positional_help("RULE").custom_help("[OPTION...]");
  const auto text = [](const char* otherwise = nullptr) {
    const auto value = cxxopts::value<std::string>();
    return otherwise == nullptr ? value : value->default_value(otherwise);
  };
  options.add_options()                                                                                     //
      ("c,config", "RULE is the name of a rule in this configuration", text(), "FILE")                      //
      ("nodes", "how many nodes; else as the configuration says, else 3", cxxopts::value<uint32_t>(), "N")  //
      ("shape", "of the traffic: even, two_of_ten, one_node, zipf, moving, step, flood or burst",
       text("even"), "NAME")                                                                   //
      ("load", "offered, as a part of what the limit allows: 0.9, 90%, 3", text("1"), "PART")  //
      ("for", "how long the traffic takes; else three windows, 10s to 5m", text(), "TIME")     //
      ("trace",
       "the traffic from a file: CSV with the header time,key,cost,node (cost and node may be missing) or a "
       "web server's "
       "common log; - is the standard input",
       text(), "FILE")                                                                              //
      ("sync", "sync intervals to compare", text("10ms,30ms,100ms,300ms,1s"), "LIST")               //
      ("rtt", "round trips between nodes to compare", text("500us"), "LIST")                        //
      ("loss", "parts of the datagrams lost to compare: 0,1%", text("0"), "LIST")                   //
      ("seed", "of everything that is drawn", cxxopts::value<uint64_t>()->default_value("1"), "N")  //
      ("csv", "the figures, into a file", text(), "FILE")                                           //
      ("svg", "overcount, undercount and bytes a second against the sync interval, into a file", text(),
       "FILE")                //
      ("json", "print JSON")  //
      ("h,help", "print this help");
  options.add_options("hidden")("rule", "", cxxopts::value<std::string>())(
      "rest", "", cxxopts::value<std::vector<std::string>>());
  options.parse_positional({"rule", "rest"});
  return options;
}

}  // namespace

int run_plan_command(int argc, char** argv) {
  cxxopts::Options options = plan_options();
  const auto args = options.parse(argc, argv);
  if (args.count("help") != 0)
    return std::printf("%s\nRULE: the fields of a rule, as in 'limit=1000 window=1m max_overcount=5%%'.\n",
                       options.help({""}).c_str()),
           kDone;
  try {
    if (args.count("rule") == 0) throw Wrong{"plan: a rule is missing, such as 'limit=1000 window=1m'"};
    if (args.count("rest") != 0)
      throw Wrong{"plan: one rule at a time, in quotation marks; what is '" +
                  args["rest"].as<std::vector<std::string>>()[0] + "'?"};
    return plan(args);
  } catch (const Wrong& wrong) {
    std::fprintf(stderr, "tally: %s\n", wrong.what.c_str());
    return kUsage;
  }
}

}  // namespace tally::tool
