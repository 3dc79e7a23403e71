#include "sim/chart.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

namespace tally::sim {
namespace {

constexpr double kWidth = 900, kLeft = 78, kRight = 230, kTop = 74, kPanelHeight = 170, kGap = 34,
                 kBottom = 56;
constexpr double kLegendRow = 19;
constexpr int kTicksAbout = 5;
constexpr double kHeadroom = 0.06;

std::string number(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", v);
  return text;
}

// As a label: 0.5, 20, 1500.
std::string plain(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", v);
  return text;
}

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else
      out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;  // no control character is XML
  }
  return out;
}

// Where values of an axis lie between two places of the page.
class Scale {
 public:
  Scale(double low, double high, bool logarithmic, double from, double to)
      : low_(place(low, logarithmic)),
        high_(place(high, logarithmic)),
        logarithmic_(logarithmic),
        from_(from),
        to_(to) {}
  bool shows(double v) const { return std::isfinite(v) && (!logarithmic_ || v > 0); }
  double at(double v) const {
    return from_ + (place(v, logarithmic_) - low_) / (high_ - low_) * (to_ - from_);
  }

 private:
  static double place(double v, bool logarithmic) { return logarithmic ? std::log10(v) : v; }
  double low_, high_;
  bool logarithmic_;
  double from_, to_;
};

struct Range {
  double low = INFINITY, high = -INFINITY;
  void hold(double v) {
    low = std::min(low, v);
    high = std::max(high, v);
  }
  bool empty() const { return low > high; }
};

// 1, 2 or 5 times a power of ten.
double nice_step(double span) {
  const double rough = span / kTicksAbout, power = std::pow(10, std::floor(std::log10(rough)));
  for (const double step : {1.0, 2.0, 5.0})
    if (rough <= step * power * 1.0001) return step * power;
  return 10 * power;
}

std::vector<ChartTick> linear_ticks(Range& range) {
  const double step = nice_step(range.high - range.low);
  range.low = std::floor(range.low / step + 1e-9) * step;
  range.high = std::ceil(range.high / step - 1e-9) * step;
  std::vector<ChartTick> ticks;
  const auto n = static_cast<int>(std::lround((range.high - range.low) / step));
  for (int i = 0; i <= n; ++i) ticks.push_back({range.low + i * step, plain(range.low + i * step)});
  return ticks;
}

std::vector<ChartTick> logarithmic_ticks(Range& range) {
  const bool wide = range.high / range.low > 1e3;
  std::vector<ChartTick> ticks;
  Range whole;
  for (auto power = static_cast<int>(std::floor(std::log10(range.low))); power <= std::log10(range.high) + 1;
       ++power)
    for (const double digit : {1.0, 2.0, 5.0}) {
      const double v = digit * std::pow(10, power);
      if (wide && digit > 1) continue;
      ticks.push_back({v, plain(v)});
    }
  for (const ChartTick& t : ticks) {
    if (t.at <= range.low * 1.0001) whole.low = t.at;
    if (t.at >= range.high * 0.9999 && whole.high < 0) whole.high = t.at;
  }
  range = whole;
  std::erase_if(ticks,
                [&](const ChartTick& t) { return t.at < range.low * 0.9999 || t.at > range.high * 1.0001; });
  return ticks;
}

// The ends of an axis and its ticks; a y axis is stretched to these, an x axis ends where its values do.
std::vector<ChartTick> fit(const ChartAxis& axis, Range& range, bool stretched) {
  if (!axis.logarithmic && !range.empty()) range.hold(0);
  if (range.empty()) range = axis.logarithmic ? Range{1, 10} : Range{0, 1};
  if (range.low == range.high)
    range = axis.logarithmic ? Range{range.low / 2, range.low * 2} : Range{range.low, range.low + 1};
  if (!axis.ticks.empty()) return axis.ticks;
  Range whole = range;
  auto ticks = axis.logarithmic ? logarithmic_ticks(whole) : linear_ticks(whole);
  if (stretched) {
    range = whole;
    if (!axis.logarithmic) range.high += kHeadroom * (whole.high - whole.low);  // no line lies on the frame
  } else {
    std::erase_if(ticks, [&](const ChartTick& t) { return t.at < range.low || t.at > range.high; });
  }
  return ticks;
}

bool same_labels(const ChartPanel& a, const ChartPanel& b) {
  return std::ranges::equal(a.series, b.series, {}, &ChartSeries::label, &ChartSeries::label);
}

class Drawing {
 public:
  explicit Drawing(const Chart& chart) : chart_(chart) {}

  std::string draw() {
    const auto panels = static_cast<double>(chart_.panels.size());
    const double height = kTop + panels * kPanelHeight + std::max(0.0, panels - 1) * kGap + kBottom;
    out_ = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + plain(kWidth) + "\" height=\"" +
           plain(height) + "\" viewBox=\"0 0 " + plain(kWidth) + " " + plain(height) +
           "\" font-family=\"DejaVu Sans, Helvetica, Arial, sans-serif\" font-size=\"12\" fill=\"#222222\">\n"
           "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n";
    text(kLeft, 28, chart_.title, "font-size=\"16\" font-weight=\"bold\"");
    text(kLeft, 48, chart_.subtitle, "fill=\"#555555\"");
    Range x;
    for (const ChartPanel& panel : chart_.panels)
      for (const ChartSeries& s : panel.series)
        for (const auto& [at, value] : s.points)
          if (!chart_.x.logarithmic || at > 0) x.hold(at);
    const auto ticks = fit(chart_.x, x, false);
    const Scale across(x.low, x.high, chart_.x.logarithmic, kLeft + 10, kWidth - kRight - 10);
    double top = kTop;
    for (const ChartPanel& panel : chart_.panels) {
      draw_panel(panel, across, ticks, top);
      top += kPanelHeight + kGap;
    }
    const double foot = top - kGap;
    for (const ChartTick& tick : ticks)
      text(across.at(tick.at), foot + 18, tick.label, "text-anchor=\"middle\"");
    text((kLeft + kWidth - kRight) / 2, foot + 40, chart_.x.label, "text-anchor=\"middle\"");
    return out_ + "</svg>\n";
  }

 private:
  void text(double x, double y, const std::string& what, const std::string& how = "") {
    out_ += "<text x=\"" + number(x) + "\" y=\"" + number(y) + "\"" + (how.empty() ? "" : " " + how) + ">" +
            escaped(what) + "</text>\n";
  }
  void line(double x1, double y1, double x2, double y2, const std::string& how) {
    out_ += "<line x1=\"" + number(x1) + "\" y1=\"" + number(y1) + "\" x2=\"" + number(x2) + "\" y2=\"" +
            number(y2) + "\" " + how + "/>\n";
  }

  void draw_panel(const ChartPanel& panel, const Scale& across, const std::vector<ChartTick>& x_ticks,
                  double top) {
    const double foot = top + kPanelHeight, right = kWidth - kRight;
    Range y;
    for (const ChartSeries& s : panel.series)
      for (const auto& [at, value] : s.points)
        if (std::isfinite(value) && (!panel.y.logarithmic || value > 0)) y.hold(value);
    const auto ticks = fit(panel.y, y, true);
    const Scale up(y.low, y.high, panel.y.logarithmic, foot, top);
    for (const ChartTick& tick : ticks) {
      line(kLeft, up.at(tick.at), right, up.at(tick.at), "stroke=\"#e4e4e4\"");
      text(kLeft - 8, up.at(tick.at) + 4, tick.label, "text-anchor=\"end\"");
    }
    for (const ChartTick& tick : x_ticks)
      line(across.at(tick.at), top, across.at(tick.at), foot, "stroke=\"#f0f0f0\"");
    out_ += "<rect x=\"" + number(kLeft) + "\" y=\"" + number(top) + "\" width=\"" + number(right - kLeft) +
            "\" height=\"" + number(kPanelHeight) + "\" fill=\"none\" stroke=\"#888888\"/>\n";
    const double middle = top + kPanelHeight / 2;
    text(20, middle, panel.y.label,
         "text-anchor=\"middle\" transform=\"rotate(-90 20 " + number(middle) + ")\"");
    for (const ChartSeries& s : panel.series) draw_series(s, across, up);
    // Where the panel above has the same lines, its legend is good for both.
    if (&panel != &chart_.panels.front() && same_labels(panel, *(&panel - 1))) return;
    double row = top + 10;
    for (const ChartSeries& s : panel.series) {
      line(right + 14, row, right + 44, row, stroke(s));
      if (s.dots) dot(right + 29, row, s);
      text(right + 52, row + 4, s.label);
      row += kLegendRow;
    }
  }

  static std::string stroke(const ChartSeries& s) {
    return "stroke=\"" + escaped(s.colour) + "\" stroke-width=\"2\" fill=\"none\"" +
           (s.dashed ? " stroke-dasharray=\"6 4\"" : "");
  }
  void dot(double x, double y, const ChartSeries& s) {
    out_ += "<circle cx=\"" + number(x) + "\" cy=\"" + number(y) + "\" r=\"3.2\" stroke=\"" +
            escaped(s.colour) + "\" fill=\"" + (s.dashed ? "#ffffff" : escaped(s.colour)) + "\"/>\n";
  }

  void draw_series(const ChartSeries& s, const Scale& across, const Scale& up) {
    std::vector<std::pair<double, double>> places;
    for (const auto& [x, y] : s.points)
      if (across.shows(x) && up.shows(y)) places.emplace_back(across.at(x), up.at(y));
    if (places.size() > 1) {
      out_ += "<polyline points=\"";
      for (const auto& [x, y] : places) out_ += (out_.back() == '"' ? "" : " ") + number(x) + "," + number(y);
      out_ += "\" " + stroke(s) + "/>\n";
    }
    if (!s.dots && places.size() > 1) return;
    for (const auto& [x, y] : places) dot(x, y, s);
  }

  const Chart& chart_;
  std::string out_;
};

}  // namespace

std::string chart_colour(size_t number) {
  static constexpr std::array<const char*, 8> kColours = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                          "#e69f00", "#56b4e9", "#000000", "#a0a000"};
  return kColours[number % kColours.size()];
}

std::string svg_of(const Chart& chart) { return Drawing(chart).draw(); }

}  // namespace tally::sim
