// A small chart as SVG: panels one above the other over one x axis, each with its lines, and a legend.
//
// Thread rule: pure. For the plots of `tally plan` and `tally try`; no library for it is packaged.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace tally::sim {

struct ChartSeries {
  std::string label;
  std::string colour;  // "#4477aa"
  bool dashed = false;
  bool dots = true;                               // at every point
  std::vector<std::pair<double, double>> points;  // x, y; in order of x
};

struct ChartTick {
  double at = 0;
  std::string label;
};

struct ChartAxis {
  std::string label;  // with the unit
  bool logarithmic = false;
  std::vector<ChartTick> ticks;  // none: chosen to fit
};

struct ChartPanel {
  ChartAxis y;  // linear ones begin at 0
  std::vector<ChartSeries> series;
};

struct Chart {
  std::string title;
  std::string subtitle;
  ChartAxis x;
  std::vector<ChartPanel> panels;
};

// Eight colours that colour-blind readers tell apart (Okabe and Ito 2008), again from the first after the
// last.
std::string chart_colour(size_t number);

// A whole SVG document. Points that an axis cannot show (not above 0 where it is logarithmic) are left out.
std::string svg_of(const Chart& chart);

}  // namespace tally::sim
