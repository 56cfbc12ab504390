// SPDX-License-Identifier: Apache-2.0
// Line charts as one SVG text; no library draws four lines shorter.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace cachalot::train {

struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;  // ascending x; others than finite are left out
};

struct Panel {
  std::string title;
  std::string x_label;
  std::vector<Series> series;
};

// Panels below one another, each with axes, round tick values, a grid and a legend. Colors suit
// light and dark pages. A line of more points than pixels is drawn as the smallest and largest of
// each pixel column, so that a spike of one step stays visible. Texts are escaped. Never fails; a
// panel without points says so.
std::string PlotSvg(const std::string& title, const std::vector<Panel>& panels);

}  // namespace cachalot::train
