// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/svg_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <limits>

namespace cachalot::train {
namespace {

constexpr double kWidth = 800, kPanelHeight = 240;
constexpr double kLeft = 70, kRight = 20, kTop = 34, kBottom = 40, kTitle = 30;
constexpr double kPlotWidth = kWidth - kLeft - kRight;
constexpr double kPlotHeight = kPanelHeight - kTop - kBottom;
// Distinct to most color-blind eyes [Okabe, Ito 2008], readable on white and on black.
constexpr std::array<const char*, 7> kColors = {"#0072b2", "#e69f00", "#009e73", "#cc79a7",
                                                "#d55e00", "#56b4e9", "#8c8c8c"};

std::string Escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      default:
        out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return out;
}

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  void Take(double v) {
    low = std::min(low, v);
    high = std::max(high, v);
  }
  bool empty() const { return low > high; }
  // Something to draw in, even for a single value.
  void Widen() {
    if (high - low > 1e-12 * std::max(std::fabs(low), std::fabs(high))) return;
    const double by = low == 0 ? 1 : 0.05 * std::fabs(low);
    low -= by;
    high += by;
  }
  double Share(double v) const { return (v - low) / (high - low); }
};

// 1, 2 or 5 times a power of ten that cuts the range into about `parts`.
double TickStep(const Range& range, int parts) {
  const double raw = (range.high - range.low) / parts;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= raw) return factor * power;
  }
  return 10 * power;
}

bool Finite(const std::pair<double, double>& p) {
  return std::isfinite(p.first) && std::isfinite(p.second);
}

class PanelWriter {
 public:
  PanelWriter(const Panel& panel, double top, std::string& out)
      : panel_(panel), top_(top + kTop), out_(out) {
    for (const Series& s : panel.series) {
      for (const auto& p : s.points) {
        if (!Finite(p)) continue;
        x_.Take(p.first);
        y_.Take(p.second);
      }
    }
  }

  void Write() {
    Text(kLeft, top_ - 12, "start", 14, panel_.title);
    if (x_.empty()) {
      Text(kLeft + kPlotWidth / 2, top_ + kPlotHeight / 2, "middle", 12, "no values");
      return;
    }
    x_.Widen();
    y_.Widen();
    Grid();
    for (size_t s = 0; s < panel_.series.size(); ++s) Line(s);
    Legend();
  }

 private:
  double X(double v) const { return kLeft + kPlotWidth * x_.Share(v); }
  double Y(double v) const { return top_ + kPlotHeight * (1 - y_.Share(v)); }

  template <typename... Args>
  void Add(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(out_), format, std::forward<Args>(args)...);
  }

  void Text(double x, double y, const char* anchor, int size, const std::string& text) {
    Add("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" font-size=\"{}\">{}</text>\n", x, y,
        anchor, size, Escaped(text));
  }

  void Grid() {
    const double y_step = TickStep(y_, 5);
    for (double v = std::ceil(y_.low / y_step) * y_step; v <= y_.high + 1e-9 * y_step;
         v += y_step) {
      Add("<path d=\"M{:.1f} {:.1f}h{:.1f}\" class=\"grid\"/>\n", kLeft, Y(v), kPlotWidth);
      Text(kLeft - 6, Y(v) + 4, "end", 11,
           fmt::format("{:.6g}", std::fabs(v) < 1e-9 * y_step ? 0 : v));
    }
    const double x_step = TickStep(x_, 8);
    for (double v = std::ceil(x_.low / x_step) * x_step; v <= x_.high + 1e-9 * x_step;
         v += x_step) {
      Add("<path d=\"M{:.1f} {:.1f}v4\" class=\"axis\"/>\n", X(v), top_ + kPlotHeight);
      Text(X(v), top_ + kPlotHeight + 17, "middle", 11,
           fmt::format("{:.6g}", std::fabs(v) < 1e-9 * x_step ? 0 : v));
    }
    Add("<path d=\"M{:.1f} {:.1f}v{:.1f}h{:.1f}\" class=\"axis\"/>\n", kLeft, top_, kPlotHeight,
        kPlotWidth);
    Text(kLeft + kPlotWidth / 2, top_ + kPlotHeight + 33, "middle", 11, panel_.x_label);
  }

  // Consecutive points of one pixel column become its lowest and highest.
  void Line(size_t index) {
    const Series& series = panel_.series[index];
    std::string path;
    double column = -1;
    Range values;
    const auto flush = [&] {
      if (values.empty()) return;
      path += fmt::format("{}{:.0f} {:.1f}", path.empty() ? "M" : "L", column, Y(values.low));
      if (values.high > values.low) path += fmt::format("L{:.0f} {:.1f}", column, Y(values.high));
      values = Range();
    };
    for (const auto& p : series.points) {
      if (!Finite(p)) continue;
      const double at = std::round(X(p.first));
      if (at != column) flush();
      column = at;
      values.Take(p.second);
    }
    flush();
    if (path.empty()) return;
    if (path.find('L') == std::string::npos) path += "h1";  // one point: something to see
    Add("<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\"/>\n", path,
        kColors[index % kColors.size()]);
  }

  void Legend() {
    if (panel_.series.size() < 2) return;
    double x = kLeft + kPlotWidth;
    for (size_t s = panel_.series.size(); s-- > 0;) {
      Text(x, top_ - 12, "end", 11, panel_.series[s].name);
      x -= 7.0 * static_cast<double>(panel_.series[s].name.size()) + 8;
      Add("<path d=\"M{:.1f} {:.1f}h-14\" stroke=\"{}\" stroke-width=\"3\"/>\n", x, top_ - 16,
          kColors[s % kColors.size()]);
      x -= 26;
    }
  }

  const Panel& panel_;
  double top_;
  std::string& out_;
  Range x_, y_;
};

}  // namespace

std::string PlotSvg(const std::string& title, const std::vector<Panel>& panels) {
  const double height = kTitle + kPanelHeight * static_cast<double>(panels.size());
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" width=\"{0:.0f}\" "
      "height=\"{1:.0f}\" font-family=\"sans-serif\">\n"
      "<style>text{{fill:#222}}.grid{{stroke:#8884}}.axis{{stroke:#888;fill:none}}"
      ".page{{fill:#fff}}@media(prefers-color-scheme:dark){{text{{fill:#ddd}}.page{{fill:#111}}}}"
      "</style>\n<rect width=\"100%\" height=\"100%\" class=\"page\"/>\n"
      "<text x=\"{2:.0f}\" y=\"22\" font-size=\"16\">{3}</text>\n",
      kWidth, height, kLeft, Escaped(title));
  for (size_t i = 0; i < panels.size(); ++i) {
    PanelWriter(panels[i], kTitle + kPanelHeight * static_cast<double>(i), out).Write();
  }
  return out + "</svg>\n";
}

}  // namespace cachalot::train
