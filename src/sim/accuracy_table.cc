#include "sim/accuracy_table.h"

#include <algorithm>
#include <cstdio>

namespace tally::sim {
namespace {

template <typename... Args>
std::string text(const char* format, Args... args) {
  char buffer[400];
  std::snprintf(buffer, sizeof buffer, format, args...);
  return buffer;
}

// 0.0 and not -0.0, and what was not exactly all is not shown as all.
std::string percent(double part) { return text("%.2f", part * 100 + 0.0); }

std::string other(const Accuracy& a) { return text("%.1f / %.1f", a.admitted * 100, a.worst * 100); }

std::string rule_of_columns(std::string_view header) {
  std::string out = "|";
  for (size_t i = 1; i < header.size(); ++i)
    if (header[i] == '|') out += "---|";
  return out + "\n";
}

std::string headed(const std::string& header) { return header + "\n" + rule_of_columns(header); }

std::string line_of(const Row& row) {
  std::string name = row.setting.name;
  if (row.once_offered != 0)
    name += text("; of the keys seen once %.2f %%",
                 100 * static_cast<double>(row.once_admitted) / static_cast<double>(row.once_offered));
  std::string out = text("| %s | %g | %llu | %s | %s | %s | %.0f | %.0f | %.0f | %.0f |", name.c_str(),
                         row.setting.load * 100, static_cast<unsigned long long>(row.admissible),
                         percent(row.fleet.admitted).c_str(), percent(row.fleet.worst).c_str(),
                         percent(row.fleet.mean).c_str(), row.entries, std::max(0.0, row.bytes),
                         row.idle_bytes, row.age_p99_ms);
  for (const Accuracy& a : row.others) out += " " + other(a) + " |";
  return out + "\n";
}

// The value below which a part of them lies.
double quantile(std::vector<double> values, double part) {
  if (values.empty()) return 0;
  std::ranges::sort(values);
  return values[std::min(values.size() - 1, static_cast<size_t>(part * static_cast<double>(values.size())))];
}

std::string quantiles_line(const std::string& name, const std::vector<const Accuracy*>& all) {
  std::vector<double> admitted, worst;
  for (const Accuracy* a : all) {
    admitted.push_back(a->admitted);
    worst.push_back(a->worst);
  }
  return text("| %s | %zu | %s | %s | %s | %s | %s | %s |\n", name.c_str(), all.size(),
              percent(quantile(admitted, 0)).c_str(), percent(quantile(admitted, 0.05)).c_str(),
              percent(quantile(admitted, 0.5)).c_str(), percent(quantile(worst, 0.5)).c_str(),
              percent(quantile(worst, 0.95)).c_str(), percent(quantile(worst, 1)).c_str());
}

std::string drawn_table(std::vector<const Row*> rows, size_t n) {
  std::string out = headed("| no. | setting | load, % | admissible | admitted, % | worst over, % |");
  rows.resize(std::min(rows.size(), n));
  for (const Row* row : rows)
    out += text("| %s | %s | %g | %llu | %s | %s |\n",
                row->setting.name.substr(row->setting.name.find(' ') + 1).c_str(),
                describe(row->setting).c_str(), row->setting.load * 100,
                static_cast<unsigned long long>(row->admissible), percent(row->fleet.admitted).c_str(),
                percent(row->fleet.worst).c_str());
  return out;
}

}  // namespace

std::string table_of(std::span<const Row> rows) {
  std::string header =
      "| setting | load, % | admissible | admitted, % | worst over, % | mean over, % | entries | bytes | "
      "idle, B/s | age p99, ms |";
  for (const Baseline& b : kBaselines) header += " " + std::string(b.name) + " |";
  std::string out = headed(header);
  for (const Row& row : rows) out += line_of(row);
  return out;
}

std::string table_of(std::span<const std::pair<Goal, GoalResult>> goals) {
  std::string out = headed("| goal | wanted, % | worst, % | mean, % | best, % | |");
  for (const auto& [goal, result] : goals) {
    const std::string wanted = goal.most == 0 ? text("at least %g", goal.least * 100)
                                              : text("%g to %g", goal.least * 100, goal.most * 100);
    const bool high = goal.most != 0 && result.most > goal.most;
    out += text("| %s | %s | %s | %s | %s | %s |\n", goal.name.c_str(), wanted.c_str(),
                percent(high ? result.most : result.least).c_str(), percent(result.mean).c_str(),
                percent(high ? result.least : result.most).c_str(),
                result.reached        ? "reached"
                : goal.needs_failover ? "not reached: needs failover"
                                      : "NOT REACHED");
  }
  return out;
}

std::string summary_of(std::span<const Row> rows, size_t worst) {
  std::string out = headed(
      "| | settings | admitted, %: least | 5 of 100 below | median | worst over, %: median | 5 of 100 above "
      "| most |");
  std::vector<const Accuracy*> under, over, all[std::size(kBaselines)];
  for (const Row& row : rows) {
    (row.setting.overcount.unbounded ? over : under).push_back(&row.fleet);
    for (size_t i = 0; i < std::size(kBaselines); ++i) all[i].push_back(&row.others[i]);
  }
  out += quantiles_line("tallyd, bounded", under) + quantiles_line("tallyd, unbounded", over);
  for (size_t i = 0; i < std::size(kBaselines); ++i)
    out += quantiles_line(std::string(kBaselines[i].name), all[i]);

  std::vector<const Row*> order;
  for (const Row& row : rows) order.push_back(&row);
  std::ranges::stable_sort(order, {}, [](const Row* r) { return r->fleet.admitted; });
  out += "\nThose that admitted least:\n\n" + drawn_table(order, worst);
  std::erase_if(order, [](const Row* r) { return r->setting.overcount.unbounded; });
  std::ranges::stable_sort(order, std::greater{}, [](const Row* r) { return r->fleet.worst; });
  return out + "\nThose with a bound that came furthest above L:\n\n" + drawn_table(order, worst / 2);
}

std::string violations_of(std::span<const Row> rows) {
  std::string out;
  for (const Row& row : rows)
    for (const std::string& what : row.violations)
      out += "BOUND BROKEN in " + row.setting.name + ": " + what + "\n";
  return out;
}

}  // namespace tally::sim
