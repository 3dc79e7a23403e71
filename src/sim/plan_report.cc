#include "sim/plan_report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

#include "core/calendar.h"
#include "sim/chart.h"

namespace tally::sim {
namespace {

// How much worse than the best a setting may be and still be advised.
constexpr double kSlack = 0.005;         // of undercount and overcount together

std::string formatted(const char* form, double v) {
  char text[48];
  std::snprintf(text, sizeof text, form, v);
  return text;
}

double milliseconds(Duration d) { return static_cast<double>(nanos(d)) / 1e6; }
double of_limit(const Rule& rule, double n) { return n / rule.limit.limit; }

// Runs that differ in nothing but the sync interval, by it; in order of their first.
std::vector<std::vector<const PlanResult*>> groups_of(std::span<const PlanResult> results) {
  std::vector<std::vector<const PlanResult*>> groups;
  for (const PlanResult& r : results) {
    const auto group = std::ranges::find_if(groups, [&](const auto& g) {
      return g[0]->setting.round_trip == r.setting.round_trip && g[0]->setting.loss == r.setting.loss;
    });
    if (group == groups.end())
      groups.push_back({&r});
    else
      group->push_back(&r);
  }
  for (auto& group : groups)
    std::ranges::stable_sort(group, {}, [](const PlanResult* r) { return r->setting.sync_interval; });
  return groups;
}

std::string of_group(const PlanSetting& s) {
  return short_duration(s.round_trip) + " round trip, " + percent_of(s.loss) + " loss";
}

// --- machines ---

using Fields = std::vector<std::pair<const char*, std::string>>;

Fields fields_of(const PlanResult& r) {
  const auto count = [](uint64_t n) { return std::to_string(n); };
  const auto real = [](double v) { return formatted("%.9g", v); };
  return {{"sync_ms", real(milliseconds(r.setting.sync_interval))},
          {"rtt_ms", real(milliseconds(r.setting.round_trip))},
          {"loss", real(r.setting.loss)},
          {"nodes", count(r.nodes)},
          {"seconds", real(milliseconds(r.length) / 1e3)},
          {"requests", count(r.requests)},
          {"offered", count(r.offered)},
          {"admissible", count(r.admissible)},
          {"admitted", count(r.admitted)},
          {"kept", real(r.kept())},
          {"undercount", count(r.undercount())},
          {"overcount", count(r.overcount)},
          {"overcount_worst", count(r.overcount_worst)},
          {"overcount_mean", real(r.overcount_mean)},
          {"windows_full", count(r.windows_full)},
          {"most_in_window", count(r.most_in_window)},
          {"bound", count(r.bound)},
          {"no_grant", count(r.no_grant)},
          {"waited", count(r.waited)},
          {"wait_p50_ms", real(milliseconds(r.wait_p50))},
          {"wait_p99_ms", real(milliseconds(r.wait_p99))},
          {"datagrams_per_s", real(r.datagrams_per_s())},
          {"bytes_per_s", real(r.bytes_per_s())},
          {"entries", count(r.entries)}};
}

// --- advice ---

std::string advice_for(const Rule& rule, const std::vector<const PlanResult*>& group, bool named) {
  const auto off = [&](const PlanResult* r) {
    return 1 - r->kept() + of_limit(rule, static_cast<double>(r->overcount_worst));
  };
  const double least = off(*std::ranges::min_element(group, {}, off));
  const PlanResult* advised = nullptr;
  for (const PlanResult* r : group)
    if (off(r) <= least + kSlack && (advised == nullptr || r->bytes < advised->bytes)) advised = r;
  std::string text = named ? "At " + of_group(advised->setting) + ": " : "";
  text += short_duration(advised->setting.sync_interval) + " keeps " + percent_of(advised->kept()) +
          " of admissible traffic for " + bytes_rate(advised->bytes_per_s()) + " a node, ";
  text += advised->overcount_worst == 0
              ? "and never passes the limit"
              : "and passes the limit by " +
                    percent_of(of_limit(rule, static_cast<double>(advised->overcount_worst))) +
                    " in the worst window";
  const PlanResult* best =
      *std::ranges::max_element(group, {}, [](const PlanResult* r) { return r->kept(); });
  if (best->kept() > advised->kept() && percent_of(best->kept()) != percent_of(advised->kept()))
    text += "; " + short_duration(best->setting.sync_interval) + " would keep " + percent_of(best->kept()) +
            " for " + bytes_rate(best->bytes_per_s());
  return text + ".";
}

}  // namespace

std::string short_duration(Duration d) {
  constexpr std::pair<Duration, const char*> kWhole[] = {
      {std::chrono::hours(24), "d"}, {std::chrono::hours(1), "h"}, {std::chrono::minutes(1), "m"}};
  for (const auto& [unit, name] : kWhole)
    if (d >= unit && d % unit == Duration(0)) return std::to_string(d / unit) + name;
  constexpr std::pair<double, const char*> kUnits[] = {{1e9, "s"}, {1e6, "ms"}, {1e3, "us"}, {1, "ns"}};
  const auto ns = static_cast<double>(nanos(d));
  if (ns >= 1e12) return formatted("%.0fs", ns / 1e9);
  for (const auto& [unit, name] : kUnits)
    if (ns >= unit) return formatted("%.3g", ns / unit) + name;
  return "0s";
}

std::string percent_of(double part) {
  const double percent = part * 100;
  if (percent == 0 || percent >= 100) return formatted("%.4g%%", percent);
  if (percent < 0.01) return "<0.01%";
  if (percent > 99.99) return ">99.99%";
  return formatted(percent < 1 ? "%.2g%%" : percent < 99.9 ? "%.3g%%" : "%.4g%%", percent);
}

std::string bytes_rate(double bytes_per_s) {
  constexpr std::pair<double, const char*> kUnits[] = {{1e9, " GB/s"}, {1e6, " MB/s"}, {1e3, " kB/s"}};
  for (const auto& [unit, name] : kUnits)
    if (bytes_per_s >= unit)
      return formatted(bytes_per_s < 10 * unit ? "%.1f" : "%.0f", bytes_per_s / unit) + name;
  return formatted("%.0f B/s", bytes_per_s);
}

std::string describe_rule(const Rule& rule) {
  constexpr const char* kNames[] = {"sliding_window", "fixed_window", "token_bucket"};
  const bool bucket = rule.limit.algorithm == Algorithm::token_bucket;
  const bool named = !bucket && is_calendar(rule.limit.window);
  const std::string per = named ? std::string(calendar_name(rule.limit.window)) : short_duration(bucket ? rule.rate_period : rule.limit.window);
  return (bucket ? std::to_string(rule.rate_count) + " per " + per + " with bursts of " +
                       std::to_string(rule.limit.limit)
                 : std::to_string(rule.limit.limit) + " per " + per) +
         ", " + kNames[static_cast<size_t>(rule.limit.algorithm)] + ", overcount " +
         (rule.max_overcount.unbounded ? "unbounded"
                                       : percent_of(rule.max_overcount.ppm / double{kPartsPerMillion}));
}

std::string describe_setting(const PlanSetting& s) {
  return short_duration(s.sync_interval) + " sync, " + of_group(s);
}

Cells plan_table(const Rule& rule, std::span<const PlanResult> results) {
  Cells rows{{"sync", "round trip", "loss", "admitted", "kept", "over, worst", "over, mean", "no grant",
              "waited", "wait p50", "wait p99", "datagrams/s", "bytes/s"}};
  for (const PlanResult& r : results) {
    const bool waits = r.waited != 0;
    rows.push_back({short_duration(r.setting.sync_interval), short_duration(r.setting.round_trip),
                    percent_of(r.setting.loss), std::to_string(r.admitted), percent_of(r.kept()),
                    percent_of(of_limit(rule, static_cast<double>(r.overcount_worst))),
                    percent_of(of_limit(rule, r.overcount_mean)), std::to_string(r.no_grant),
                    std::to_string(r.waited), waits ? short_duration(r.wait_p50) : "-",
                    waits ? short_duration(r.wait_p99) : "-", formatted("%.1f", r.datagrams_per_s()),
                    formatted("%.0f", r.bytes_per_s())});
  }
  return rows;
}

std::string plan_csv(std::span<const PlanResult> results) {
  std::string head, rows;
  for (const PlanResult& r : results) {
    head.clear();
    std::string row;
    for (const auto& [name, value] : fields_of(r)) {
      head += (head.empty() ? "" : ",") + std::string(name);
      row += (row.empty() ? "" : ",") + value;
    }
    rows += row + "\n";
  }
  return head + "\n" + rows;
}

std::string plan_json(std::span<const PlanResult> results) {
  std::string text;
  for (const PlanResult& r : results) {
    std::string row;
    for (const auto& [name, value] : fields_of(r))
      row += (row.empty() ? "\"" : ",\"") + std::string(name) + "\":" + value;
    text += (text.empty() ? "[{" : ",\n {") + row + "}";
  }
  return (text.empty() ? "[" : text) + "]\n";
}

std::vector<std::string> plan_advice(const Rule& rule, std::span<const PlanResult> results) {
  std::vector<std::string> sentences;
  const auto groups = groups_of(results);
  for (const auto& group : groups) sentences.push_back(advice_for(rule, group, groups.size() > 1));
  return sentences;
}

std::vector<std::string> plan_notes(const Rule& rule, std::span<const PlanResult> results) {
  std::vector<std::string> notes;
  const Duration window = rule.limit.window;
  if (rule.limit.algorithm == Algorithm::token_bucket || rule.max_overcount.unbounded) return notes;
  for (const PlanResult& r : results)
    if (r.nodes > 1 && window < 4 * (r.setting.sync_interval + r.setting.round_trip))
      notes.push_back(
          "Note: " + describe_setting(r.setting) + ": a window of " + short_duration(window) +
          " is too short to share quota in time; it needs 4 times the sync interval and the round trip.");
  return notes;
}

std::string plan_svg(const Rule& rule, std::span<const PlanResult> results, const std::string& about) {
  Chart chart;
  chart.title = describe_rule(rule);
  chart.subtitle = about;
  chart.x = {"sync interval", true, {}};
  std::vector<Duration> intervals;
  for (const PlanResult& r : results) intervals.push_back(r.setting.sync_interval);
  std::ranges::sort(intervals);
  intervals.erase(std::ranges::unique(intervals).begin(), intervals.end());
  for (const Duration d : intervals) chart.x.ticks.push_back({milliseconds(d), short_duration(d)});

  ChartPanel over{{"overcount, % of limit", false, {}}, {}},
      under{{"undercount, % of admissible", false, {}}, {}}, bytes{{"kB/s a node", true, {}}, {}};
  const auto groups = groups_of(results);
  for (size_t i = 0; i < groups.size(); ++i) {
    const std::string label = of_group(groups[i][0]->setting);
    const bool only = groups.size() == 1;
    ChartSeries worst{only ? "worst window" : label, chart_colour(i), false, true, {}};
    ChartSeries mean{"mean of full windows", chart_colour(1), true, true, {}};
    ChartSeries lost{only ? "undercount" : label, chart_colour(i), false, true, {}},
        sent{only ? "sent, headers included" : label, chart_colour(i), false, true, {}};
    for (const PlanResult* r : groups[i]) {
      const double x = milliseconds(r->setting.sync_interval);
      worst.points.emplace_back(x, 100 * of_limit(rule, static_cast<double>(r->overcount_worst)));
      mean.points.emplace_back(x, 100 * of_limit(rule, r->overcount_mean));
      lost.points.emplace_back(x, 100 * (1 - r->kept()));
      sent.points.emplace_back(x, r->bytes_per_s() / 1e3);
    }
    over.series.push_back(std::move(worst));
    if (only) over.series.push_back(std::move(mean));
    under.series.push_back(std::move(lost));
    bytes.series.push_back(std::move(sent));
  }
  chart.panels = {std::move(over), std::move(under), std::move(bytes)};
  return svg_of(chart);
}

}  // namespace tally::sim
