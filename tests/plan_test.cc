// Plans: what a run of the fleet comes to beside the exact limiter, and how that is shown.
#include "sim/plan.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "seed.h"
#include "sim/chart.h"
#include "sim/exact.h"
#include "sim/fleet.h"
#include "sim/plan_report.h"
#include "sim/shapes.h"
#include "sim/trial.h"

using namespace tally;
using namespace tally::sim;
using namespace std::chrono_literals;

namespace {

constexpr Algorithm kFixed = Algorithm::fixed_window;
constexpr Algorithm kSliding = Algorithm::sliding_window;

PlanTerms terms_of(Rule rule, uint16_t nodes) {
  PlanTerms terms;
  terms.rule = std::move(rule);
  terms.nodes = nodes;
  terms.seed = test_seed(3);
  return terms;
}

std::vector<Arrival> shaped(const PlanTerms& terms, Shape shape, double load, Duration length = 30s) {
  ShapeTerms s;
  s.shape = shape;
  s.limit = terms.rule.limit;
  s.load = load;
  s.length = length;
  s.nodes = terms.nodes;
  s.seed = terms.seed;
  return arrivals_of(s);
}

void must_hold(const PlanResult& r) {
  CHECK(r.violations.empty());
  CHECK(r.admitted <= r.offered);
  CHECK(r.admissible <= r.offered);
  CHECK(r.overcount <= r.admitted);
  CHECK(r.overcount_worst <= r.overcount);
  CHECK(r.kept() <= 1);
  CHECK(r.wait_p50 <= r.wait_p99);
}

// Opened and closed in order, quoted, escaped: enough of XML for what the charts write.
bool well_formed(const std::string& xml) {
  std::vector<std::string> open;
  for (size_t at = 0; at < xml.size();) {
    if (xml[at] == '>') return false;
    if (xml[at] == '&' && xml.find(';', at) > at + 6) return false;
    if (xml[at] != '<') {
      ++at;
      continue;
    }
    const size_t end = xml.find('>', at);
    if (end == std::string::npos) return false;
    const std::string tag = xml.substr(at + 1, end - at - 1);
    if (tag.find('<') != std::string::npos || std::ranges::count(tag, '"') % 2 != 0) return false;
    if (tag.starts_with('/')) {
      if (open.empty() || open.back() != tag.substr(1)) return false;
      open.pop_back();
    } else if (!tag.ends_with('/')) {
      open.push_back(tag.substr(0, tag.find(' ')));
    }
    at = end + 1;
  }
  return open.empty();
}

size_t times(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

PlanResult made_up(Duration sync, uint64_t admitted, uint64_t worst, uint64_t bytes, Duration rtt = 1ms) {
  PlanResult r;
  r.setting.sync_interval = sync;
  r.setting.round_trip = rtt;
  r.offered = 2000;
  r.admissible = 1000;
  r.admitted = admitted + worst;
  r.overcount = r.overcount_worst = worst;
  r.bytes = bytes;
  r.length = 10s;
  r.nodes = 10;
  return r;
}

Rule api() { return window_rule("api", kSliding, 1000, 1min, 50'000); }

}  // namespace

TEST_CASE("five doors: of 80 at each at once the limit is admissible, and comes in") {
  const PlanTerms terms = terms_of(window_rule("club", kFixed, 100, 1min, 50'000), 5);
  const PlanResult r = run_plan(terms, {}, shaped(terms, Shape::burst, 4));
  must_hold(r);
  CHECK(r.requests == 400);
  CHECK(r.offered == 400);
  CHECK(r.admissible == 100);
  CHECK(r.bound == 105);
  CHECK(r.windows_full == 1);
  CHECK(r.most_in_window == r.admitted);
  CHECK(r.overcount == r.admitted - std::min<uint64_t>(100, r.admitted));
  CHECK(r.kept() >= 0.99);
  CHECK(r.waited > 0);
}

TEST_CASE("a fixed window admits of each window's offer no more than the limit, however it is spread") {
  const PlanTerms terms = terms_of(window_rule("api", kFixed, 50, 10s, 0), 3);
  std::vector<Arrival> arrivals;
  for (const auto& [second, n] : {std::pair(1, 30), {11, 80}, {21, 50}})
    for (int i = 0; i < n; ++i)
      arrivals.push_back({second * 1s + i * 10ms, static_cast<uint16_t>(i % 3), 0, 1});
  const PlanResult r = run_plan(terms, {}, arrivals);
  CHECK(r.admissible == 30 + 50 + 50);
  CHECK(r.windows_full == 1);
}

TEST_CASE("windows lie where the traffic's own time has them") {
  PlanTerms terms = terms_of(window_rule("api", kFixed, 50, 10s, 0), 1);
  std::vector<Arrival> arrivals;
  for (int i = 0; i < 100; ++i) arrivals.push_back({i * 10ms, 0, 0, 1});  // one second
  CHECK(run_plan(terms, {}, arrivals).admitted == 50);
  terms.origin = 1'000'009'500ms;  // a boundary half way through
  CHECK(run_plan(terms, {}, arrivals).admitted == 100);
}

TEST_CASE(
    "a strict rule never overcounts, whatever the algorithm, the shape, the round trip and the losses") {
  for (const Rule& rule : {window_rule("f", kFixed, 60, 2s, 0), window_rule("s", kSliding, 60, 2s, 0),
                           bucket_rule("b", 60, 30, 1s, 0)})
    for (const Shape shape : {Shape::even, Shape::moving, Shape::burst, Shape::step})
      for (const auto& [round_trip, loss] : {std::pair<Duration, double>(500us, 0.0), {40ms, 0.1}}) {
        PlanTerms terms = terms_of(rule, 5);
        terms.rule.on_isolation = OnIsolation::closed;
        PlanSetting setting;
        setting.round_trip = round_trip;
        setting.loss = loss;
        const PlanResult r = run_plan(terms, setting, shaped(terms, shape, 3, 8s));
        CAPTURE(rule.name);
        CAPTURE(shape_name(shape));
        must_hold(r);
        CHECK(r.overcount == 0);
        CHECK(r.overcount_mean == 0);
        CHECK(r.admitted <= r.admissible + (rule.limit.algorithm == kFixed ? 0 : 60));
      }
}

TEST_CASE("a window's overcount stays within the bound") {
  for (const uint32_t percent : {1u, 5u, 50u}) {
    PlanTerms terms = terms_of(window_rule("api", kFixed, 200, 2s, percent * 10'000), 10);
    terms.rule.on_isolation = OnIsolation::closed;
    PlanSetting setting;
    setting.loss = 0.3;
    const PlanResult r = run_plan(terms, setting, shaped(terms, Shape::zipf, 3, 10s));
    must_hold(r);
    CHECK(r.most_in_window <= r.bound);
    CHECK(r.overcount_worst <= 2 * percent);
  }
}

TEST_CASE("what an unbounded rule lets in beyond its limit is overcount, and nothing is missing") {
  const PlanTerms terms = terms_of(window_rule("api", kFixed, 10, 1min, 50'000), 3);
  PlanTerms unbounded = terms;
  unbounded.rule.max_overcount.unbounded = true;
  const PlanResult r = run_plan(unbounded, {}, shaped(unbounded, Shape::burst, 6));
  must_hold(r);
  CHECK(r.offered == 60);
  CHECK(r.admitted == 30);  // the whole limit at each node
  CHECK(r.overcount == 20);
  CHECK(r.overcount_worst == 20);
  CHECK(r.overcount_mean == 20);
  CHECK(r.undercount() == 0);
}

TEST_CASE("losses cost admissible traffic") {
  PlanTerms terms = terms_of(window_rule("api", kFixed, 100, 10s, 0), 5);
  const auto arrivals = shaped(terms, Shape::even, 1);
  PlanSetting lossy;
  lossy.loss = 0.8;
  const PlanResult clean = run_plan(terms, {}, arrivals), bad = run_plan(terms, lossy, arrivals);
  CHECK(clean.kept() > 0.95);
  CHECK(bad.kept() < clean.kept() - 0.1);
  CHECK(bad.no_grant > clean.no_grant);
}

TEST_CASE(
    "bytes are what the nodes sent from the first request on, with 28 bytes of headers to each datagram") {
  PlanTerms terms = terms_of(api(), 3);
  terms.length = 5s;
  const PlanSetting setting;
  const PlanResult idle = run_plan(terms, setting, {});
  FleetConfig config;
  config.nodes = 3;
  config.rules = {api()};
  config.seed = terms.seed;
  Fleet fleet(config);
  fleet.run_until(2s + 2 * (setting.sync_interval + setting.round_trip));
  const Fleet::Traffic before = fleet.traffic();
  fleet.run_for(5s);
  const Fleet::Traffic sent = fleet.traffic() - before;
  CHECK(idle.datagrams == sent.datagrams);
  CHECK(idle.bytes == sent.bytes + 28 * sent.datagrams);
  CHECK(idle.bytes_per_s() == doctest::Approx(static_cast<double>(idle.bytes) / 5 / 3));
  CHECK(idle.kept() == 1);
}

TEST_CASE("a node alone is the exact limiter: all of the admissible, nothing beyond, and not a byte") {
  for (const Rule& rule :
       {api(), bucket_rule("b", 100, 50, 1s, 0), window_rule("f", kFixed, 100, 1s, 50'000)}) {
    const PlanTerms terms = terms_of(rule, 1);
    const PlanResult r = run_plan(terms, {}, shaped(terms, Shape::even, 2));
    CHECK(r.admitted == r.admissible);
    CHECK(r.kept() == 1);
    CHECK(r.overcount == 0);
    CHECK(r.bytes == 0);
  }
}

TEST_CASE("the same seed gives the same result, and another sync interval other traffic") {
  const PlanTerms terms = terms_of(window_rule("api", kSliding, 200, 10s, 50'000), 5);
  const auto arrivals = shaped(terms, Shape::zipf, 1.5);
  PlanSetting setting;
  setting.loss = 0.05;
  std::vector<PlanResult> results{run_plan(terms, setting, arrivals), run_plan(terms, setting, arrivals)};
  CHECK(plan_json({&results[0], 1}) == plan_json({&results[1], 1}));
  setting.sync_interval = 1s;
  const PlanResult slow = run_plan(terms, setting, arrivals);
  CHECK(slow.datagrams < results[0].datagrams);
  CHECK(slow.bytes < results[0].bytes);
  CHECK(slow.admissible == results[0].admissible);
}

TEST_CASE("a flood of keys that are seen once leaves them all in and the attacker at its limit") {
  const PlanTerms terms = terms_of(window_rule("api", kFixed, 100, 10s, 50'000), 4);
  const PlanResult r = run_plan(terms, {}, shaped(terms, Shape::flood, 10, 10s));
  must_hold(r);
  CHECK(r.offered == 2000);
  CHECK(r.admissible == 1000 + 100);
  CHECK(r.kept() > 0.99);
  CHECK(r.windows_full == 1);
}

TEST_CASE("who waits is counted, and how long it took") {
  PlanTerms terms = terms_of(window_rule("login", kFixed, 5, 1min, 0), 3);
  std::vector<Arrival> arrivals{{0s, 0, 0, 1}, {1s, 1, 0, 1}, {2s, 2, 0, 1}};
  PlanSetting setting;
  setting.round_trip = 4ms;
  const PlanResult r = run_plan(terms, setting, arrivals);
  CHECK(r.admitted == 3);
  CHECK(r.waited >= 2);      // a strict rule's first request waits, but perhaps where the owner is
  CHECK(r.wait_p50 >= 4ms);  // to the owner and back
  CHECK(r.wait_p50 < 5ms);
  CHECK(r.wait_p99 <= 9ms);  // and as it may be, once more to one of its group
  terms.rule.wait = 0s;
  const PlanResult impatient = run_plan(terms, setting, arrivals);
  CHECK(impatient.waited == 0);
  CHECK(impatient.no_grant == impatient.offered - impatient.admitted);
}

TEST_CASE("the advice is the cheapest setting that is nearly as good as the best") {
  const std::vector<PlanResult> results{made_up(10ms, 994, 2, 1'400'000), made_up(100ms, 992, 4, 310'000),
                                        made_up(1s, 900, 4, 50'000)};
  CHECK(plan_advice(api(), results) ==
        std::vector<std::string>{
            "100ms keeps 99.2% of admissible traffic for 3.1 kB/s a node, and passes the limit by "
            "0.4% in the worst window; 10ms would keep 99.4% for 14 kB/s."});
  const std::vector<PlanResult> two{made_up(1s, 1000, 0, 100, 1ms), made_up(1s, 1000, 0, 100, 50ms)};
  CHECK(plan_advice(api(), two) ==
        std::vector<std::string>{"At 1ms round trip, 0% loss: 1s keeps 100% of admissible traffic for 1 B/s "
                                 "a node, and never passes the limit.",
                                 "At 50ms round trip, 0% loss: 1s keeps 100% of admissible traffic for 1 B/s "
                                 "a node, and never passes the limit."});
}

TEST_CASE("advice weighs undercount and overcount alike, and prefers no setting for its price alone") {
  const std::vector<PlanResult> results{made_up(10ms, 800, 10, 900'000), made_up(1s, 1000, 900, 1'000)};
  CHECK(plan_advice(api(), results)[0].starts_with("10ms keeps 80% "));
}

TEST_CASE("a window that is too short to share quota in is noted, and no other") {
  const Rule rule = window_rule("api", kSliding, 1000, 10s, 50'000);
  const std::vector<PlanResult> results{made_up(2s, 1000, 0, 1), made_up(3s, 1000, 0, 1)};
  CHECK(plan_notes(rule, results) ==
        std::vector<std::string>{
            "Note: 3s sync, 1ms round trip, 0% loss: a window of 10s is too short to share quota in "
            "time; it needs 4 times the sync interval and the round trip."});
  CHECK(plan_notes(bucket_rule("b", 10, 1, 1s, 0), results).empty());
}

TEST_CASE("figures are short and never rounded to nothing") {
  CHECK(percent_of(0) == "0%");
  CHECK(percent_of(0.00001) == "<0.01%");
  CHECK(percent_of(0.0004) == "0.04%");
  CHECK(percent_of(0.992) == "99.2%");
  CHECK(percent_of(0.99999) == ">99.99%");
  CHECK(percent_of(1) == "100%");
  CHECK(percent_of(3) == "300%");
  CHECK(short_duration(0s) == "0s");
  CHECK(short_duration(500us) == "500us");
  CHECK(short_duration(1'520us) == "1.52ms");
  CHECK(short_duration(90s) == "90s");
  CHECK(short_duration(1min) == "1m");
  CHECK(short_duration(24h) == "1d");
  CHECK(bytes_rate(3'100) == "3.1 kB/s");
  CHECK(describe_rule(api()) == "1000 per 1m, sliding_window, overcount 5%");
  CHECK(describe_rule(bucket_rule("b", 100, 50, 1s, 0)) ==
        "50 per 1s with bursts of 100, token_bucket, overcount 0%");
}

TEST_CASE("the table and the CSV have a row for each run and a cell for each column") {
  const std::vector<PlanResult> results{made_up(10ms, 994, 2, 1'400'000), made_up(100ms, 992, 4, 310'000)};
  const Cells table = plan_table(api(), results);
  REQUIRE(table.size() == 3);
  for (const auto& row : table) CHECK(row.size() == table[0].size());
  CHECK(table[2][0] == "100ms");
  const std::string csv = plan_csv(results);
  CHECK(times(csv, "\n") == 3);
  const std::string head = csv.substr(0, csv.find('\n'));
  CHECK(times(csv, ",") == 3 * times(head, ","));
  CHECK(csv.find("\n100,1,0,10,10,0,2000,1000,996,0.992,8,4,4,") != std::string::npos);
}

TEST_CASE("plots are well-formed, with a line for each measure and setting, and escape what they are given") {
  std::vector<PlanResult> results;
  for (const Duration rtt : {1ms, 50ms})
    for (const Duration sync : {10ms, 100ms, 1000ms}) results.push_back(made_up(sync, 990, 5, 100'000, rtt));
  const std::string svg = plan_svg(api(), results, "a <trace> & \"more\"");
  CHECK(well_formed(svg));
  CHECK(times(svg, "<polyline") == 3 * 2);
  CHECK(svg.find("a &lt;trace&gt; &amp; &quot;more&quot;") != std::string::npos);
  for (const char* label : {">10ms<", ">100ms<", ">1s<", ">sync interval<", ">50ms round trip, 0% loss<"})
    CHECK(times(svg, label) == 1);
  CHECK(svg.find("nan") == std::string::npos);
  CHECK(well_formed(plan_svg(api(), {results.data(), 1}, "one point")));
  CHECK_FALSE(well_formed("<a><b></a>"));
  CHECK_FALSE(well_formed("<a x=\"1>"));
}

TEST_CASE("a chart of nothing, of zeros and of what it cannot show is still a chart") {
  Chart chart;
  chart.panels = {
      {{"linear", false, {}},
       {{"zeros", "#000", false, true, {{0, 0}, {1, 0}}}, {"none", "#000", true, true, {}}}},
      {{"logarithmic", true, {}}, {{"from 0", "#000", false, false, {{0, 0}, {1, 5}, {2, INFINITY}}}}}};
  const std::string svg = svg_of(chart);
  CHECK(well_formed(svg));
  CHECK(svg.find("inf") == std::string::npos);
  CHECK(svg.find("nan") == std::string::npos);
  CHECK(well_formed(svg_of(Chart{})));
}

TEST_CASE("a trial decides as the limiter does: the limit at once, and no more until its window is over") {
  TrialTerms terms;
  terms.rule = window_rule("r", kFixed, 100, 1min, 0);
  terms.per_s = 3;
  terms.length = 2min;
  const auto trials = run_trial(terms);
  REQUIRE(trials.size() == 360);
  for (size_t i = 0; i < trials.size(); ++i) CHECK(trials[i].admitted() == (i % 180 < 100));
  CHECK(trial_summary(terms, trials) == "200 of 360 requests admitted in 2m, the first refused at 33.3s");
  CHECK(trial_line(trials[0]) == "     0.000s  admitted  99 left, all back in 1m");
  CHECK(trial_line(trials[120]) == "    40.000s  limited   0 left, try again in 20s");
  CHECK(trial_json(trials[120]) ==
        "{\"at_ms\":40000,\"allowed\":false,\"limit\":100,\"remaining\":0,"
        "\"retry_after_ms\":20000,\"reset_after_ms\":20000}");
}

TEST_CASE("a trial's plots count every request") {
  TrialTerms terms;
  terms.rule = bucket_rule("b", 10, 5, 1s, 0);
  terms.per_s = 20;
  terms.length = 10s;
  terms.random = true;
  const auto trials = run_trial(terms);
  REQUIRE(trials.size() == 200);
  const std::string plot = trial_plot(terms, trials, 5);
  CHECK(times(plot, "\n") == 6);
  const auto admitted = static_cast<size_t>(std::ranges::count_if(trials, &Trial::admitted));
  CHECK(admitted >= 55);  // the burst and what comes back in the time
  CHECK(admitted <= 60);
  CHECK(times(plot.substr(plot.find('\n')), "#") == admitted);
  CHECK(times(plot.substr(plot.find('\n')), "-") == 200 - admitted);
  CHECK(well_formed(trial_svg(terms, trials)));
}
