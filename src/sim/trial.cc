#include "sim/trial.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/random.h"
#include "core/windows.h"
#include "sim/chart.h"
#include "sim/exact.h"
#include "sim/plan_report.h"

namespace tally::sim {
namespace {

constexpr Duration kAround = std::chrono::seconds(1'800'000'000);
constexpr size_t kPlotWidth = 60;        // characters
constexpr size_t kSvgPointsMax = 2'000;  // of a line

template <typename... Values>
std::string formatted(const char* form, Values... values) {
  char text[256];
  std::snprintf(text, sizeof text, form, values...);
  return text;
}

double seconds(Duration d) { return static_cast<double>(nanos(d)) / 1e9; }

Now clock_at(const TrialTerms& terms, Duration at) {
  const Duration window = terms.rule.limit.window;
  const WallTime start = window > Duration(0) ? window_start(window_at(WallTime(kAround), window), window) : WallTime(kAround);
  return {MonoTime(kAround + at), start + at};
}

const char* word_of(const Trial& t) { return t.admitted() ? "admitted" : "limited"; }

struct Slice {
  uint64_t admitted = 0, refused = 0;
};

// Whole seconds, minutes, hours or days, a handful of them.
std::vector<ChartTick> time_ticks(Duration length) {
  constexpr int64_t kMinute = 60, kHour = 60 * kMinute, kDay = 24 * kHour;
  constexpr int64_t kSteps[] = {1,         2,           5,           10,           15,        30,
                                kMinute,   2 * kMinute, 5 * kMinute, 15 * kMinute, kHour / 2, kHour,
                                3 * kHour, 6 * kHour,   kDay,        7 * kDay,     30 * kDay};
  if (length < std::chrono::seconds(4)) return {};  // as numbers come
  constexpr int64_t kTicksMost = 8;
  const int64_t whole = length / std::chrono::seconds(1);
  const auto* step = std::ranges::find_if(kSteps, [&](int64_t s) { return whole / s <= kTicksMost; });
  if (step == std::end(kSteps)) --step;
  std::vector<ChartTick> ticks;
  for (int64_t at = 0; at <= whole; at += *step)
    ticks.push_back({static_cast<double>(at), at == 0 ? "0" : short_duration(std::chrono::seconds(at))});
  return ticks;
}

std::vector<Slice> slices_of(const TrialTerms& terms, std::span<const Trial> trials, size_t rows) {
  std::vector<Slice> slices(rows);
  for (const Trial& t : trials) {
    const auto row = static_cast<size_t>(static_cast<__int128>(nanos(t.at)) * static_cast<__int128>(rows) /
                                         nanos(terms.length));
    ++(t.admitted() ? slices[row].admitted : slices[row].refused);
  }
  return slices;
}

// At most kSvgPointsMax of a line's points, the last among them.
std::vector<std::pair<double, double>> thinned(const std::vector<std::pair<double, double>>& points) {
  const size_t step = points.size() / kSvgPointsMax + 1;
  std::vector<std::pair<double, double>> out;
  for (size_t i = 0; i < points.size(); i += step) out.push_back(points[i]);
  if (!points.empty() && out.back() != points.back()) out.push_back(points.back());
  return out;
}

}  // namespace

uint64_t trial_count(const TrialTerms& terms) {
  return static_cast<uint64_t>(std::max(1.0, std::ceil(terms.per_s * seconds(terms.length) - 1e-9)));
}

std::vector<Trial> run_trial(const TrialTerms& terms) {
  const uint64_t n = trial_count(terms);
  std::vector<Trial> trials(n);
  Random random(terms.seed);
  for (uint64_t i = 0; i < n; ++i)
    trials[i].at =
        terms.random
            ? Duration(static_cast<int64_t>(random.below(static_cast<uint64_t>(nanos(terms.length)))))
            : Duration(static_cast<int64_t>(static_cast<double>(i) / terms.per_s * 1e9));
  std::ranges::sort(trials, {}, &Trial::at);
  ExactLimiter limiter(terms.rule, 1);
  for (Trial& t : trials) t.answer = limiter.take("key", terms.cost, clock_at(terms, t.at));
  return trials;
}

std::string trial_line(const Trial& t) {
  const std::string left = std::to_string(t.answer.remaining) + " left, ";
  const std::string next = t.admitted() ? "all back in " + short_duration(t.answer.reset_after)
                           : t.answer.retry_after < Duration(0)
                               ? "never possible"
                               : "try again in " + short_duration(t.answer.retry_after);
  return formatted("%10.3fs  %-8s  ", seconds(t.at), word_of(t)) + left + next;
}

std::string trial_json(const Trial& t) {
  const auto ms = [](Duration d) { return d < Duration(0) ? -1.0 : static_cast<double>(nanos(d)) / 1e6; };
  return formatted(
      "{\"at_ms\":%.9g,\"allowed\":%s,\"limit\":%u,\"remaining\":%u,\"retry_after_ms\":%.9g,\"reset_after_"
      "ms\":%.9g}",
      ms(t.at), t.admitted() ? "true" : "false", t.answer.limit, t.answer.remaining, ms(t.answer.retry_after),
      ms(t.answer.reset_after));
}

std::string trial_summary(const TrialTerms& terms, std::span<const Trial> trials) {
  const auto admitted = static_cast<uint64_t>(std::ranges::count_if(trials, &Trial::admitted));
  const auto refused = std::ranges::find_if(trials, [](const Trial& t) { return !t.admitted(); });
  return std::to_string(admitted) + " of " + std::to_string(trials.size()) + " requests admitted in " +
         short_duration(terms.length) +
         (refused == trials.end() ? ", none refused"
                                  : ", the first refused at " + short_duration(refused->at));
}

std::string trial_plot(const TrialTerms& terms, std::span<const Trial> trials, size_t rows) {
  const auto slices = slices_of(terms, trials, rows);
  uint64_t most = 1;
  for (const Slice& s : slices) most = std::max(most, s.admitted + s.refused);
  const uint64_t each = (most + kPlotWidth - 1) / kPlotWidth;
  std::string text = formatted("%10s  # %llu admitted, - %llu refused\n", "from",
                               static_cast<unsigned long long>(each), static_cast<unsigned long long>(each));
  for (size_t row = 0; row < rows; ++row) {
    const Slice& s = slices[row];
    text +=
        formatted("%9.3fs  ", seconds(terms.length) * static_cast<double>(row) / static_cast<double>(rows));
    text +=
        std::string((s.admitted + each - 1) / each, '#') + std::string((s.refused + each - 1) / each, '-');
    text += formatted("  %llu of %llu\n", static_cast<unsigned long long>(s.admitted),
                      static_cast<unsigned long long>(s.admitted + s.refused));
  }
  return text;
}

std::string trial_svg(const TrialTerms& terms, std::span<const Trial> trials) {
  ChartSeries offered{"offered", chart_colour(6), true, false, {{0, 0}}},
      admitted{"admitted", chart_colour(0), false, false, {{0, 0}}};
  ChartSeries left{"left", chart_colour(2), false, false, {}};
  double asked = 0, got = 0;
  for (const Trial& t : trials) {
    const double at = seconds(t.at);
    // Steps: what there was until now, and what there is.
    offered.points.emplace_back(at, asked);
    admitted.points.emplace_back(at, got);
    asked += terms.cost;
    got += t.admitted() ? terms.cost : 0;
    offered.points.emplace_back(at, asked);
    admitted.points.emplace_back(at, got);
    left.points.emplace_back(at, t.answer.remaining);
  }
  Chart chart;
  chart.title = describe_rule(terms.rule);
  chart.subtitle = trial_summary(terms, trials);
  chart.x = {"time", false, time_ticks(terms.length)};
  if (chart.x.ticks.empty()) chart.x.label = "seconds";
  for (ChartSeries* s : {&offered, &admitted})
    s->points.emplace_back(seconds(terms.length), s->points.back().second);
  for (ChartSeries* s : {&offered, &admitted, &left}) s->points = thinned(s->points);
  chart.panels = {{{"cost so far", false, {}}, {std::move(offered), std::move(admitted)}},
                  {{"left after each", false, {}}, {std::move(left)}}};
  return svg_of(chart);
}

}  // namespace tally::sim
