// SPDX-License-Identifier: Apache-2.0
// A small SVG of two panels: decode above, prefill below; tokens a second against context depth.
#include <algorithm>
#include <cmath>

#include "cachalot/base/strings.h"
#include "cachalot/eval/bench_report.h"
#include "cachalot/eval/bench_stats.h"

namespace cachalot::eval {
namespace {

constexpr double kWidth = 720;
constexpr double kPanelHeight = 230;
constexpr double kLeft = 70, kRight = 20, kTop = 46, kBottom = 34;

struct Point {
  uint32_t context;
  double value;  // measured, tokens/s
  double limit;  // what the machine would allow
  bool filled;
};

std::string Escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '&') {
      out += "&amp;";
    } else if (static_cast<unsigned char>(c) >= 0x20) {
      out += c;
    }
  }
  return out;
}

// A power of ten times 1, 2 or 5 at or above `value`.
double NiceCeiling(double value) {
  const double power = std::pow(10.0, std::floor(std::log10(std::max(value, 1e-9))));
  for (const double step : {1.0, 2.0, 5.0}) {
    if (value <= step * power) return step * power;
  }
  return 10 * power;
}

class Panel {
 public:
  Panel(double top, const std::vector<Point>& points) : top_(top), points_(points) {
    for (const Point& p : points) {
      high_ = std::max({high_, p.value, p.limit});
      low_context_ = std::min(low_context_, std::log2(p.context));
      high_context_ = std::max(high_context_, std::log2(p.context));
    }
    high_ = NiceCeiling(high_);
    if (high_context_ - low_context_ < 1) {  // one context: in the middle
      low_context_ -= 1;
      high_context_ += 1;
    }
  }

  std::string Draw(const std::string& title) const {
    std::string svg =
        fmt::format("<text x=\"{:.0f}\" y=\"{:.0f}\" font-weight=\"bold\">{}</text>\n", kLeft,
                    top_ + 18, title);
    for (int i = 0; i <= 4; ++i) {
      const double value = high_ * i / 4;
      svg += fmt::format(
          "<path d=\"M{:.0f} {:.1f}H{:.0f}\" stroke=\"#8884\"/><text x=\"{:.0f}\" y=\"{:.1f}\" "
          "text-anchor=\"end\">{:g}</text>\n",
          kLeft, Y(value), kWidth - kRight, kLeft - 8, Y(value) + 4, value);
    }
    for (const Point& p : points_) {
      svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.0f}\" text-anchor=\"middle\">{}</text>\n",
                         X(p.context), top_ + kPanelHeight - kBottom + 18, FormatTokens(p.context));
    }
    svg += Line(&Point::limit, "#999", "stroke-dasharray=\"5 4\"");
    svg += Line(&Point::value, "#1f7ab8", "");
    for (const Point& p : points_) svg += Dot(p);
    return svg;
  }

 private:
  double X(uint32_t context) const {
    return kLeft + (std::log2(context) - low_context_) / (high_context_ - low_context_) *
                       (kWidth - kLeft - kRight);
  }
  double Y(double value) const {
    const double height = kPanelHeight - kTop - kBottom;
    return top_ + kPanelHeight - kBottom - value / high_ * height;
  }
  std::string Line(double Point::*field, const char* color, const char* extra) const {
    std::string path;
    for (const Point& p : points_) {
      path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", X(p.context), Y(p.*field));
    }
    return fmt::format("<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\" {}/>\n", path,
                       color, extra);
  }
  // Hollow where the cache was filled, not read; the figure above it.
  std::string Dot(const Point& p) const {
    return fmt::format(
        "<circle cx=\"{0:.1f}\" cy=\"{1:.1f}\" r=\"4\" fill=\"{3}\" stroke=\"#1f7ab8\"/>"
        "<text x=\"{0:.1f}\" y=\"{2:.1f}\" text-anchor=\"middle\">{4:.1f}</text>\n",
        X(p.context), Y(p.value), Y(p.value) + 18, p.filled ? "#fff" : "#1f7ab8", p.value);
  }

  double top_;
  const std::vector<Point>& points_;
  double high_ = 0;
  double low_context_ = 64, high_context_ = 0;  // log2
};

double LimitSpeed(const model::StepCost& cost, double tokens, const Bench& bench) {
  const double seconds = LimitOf(cost, bench.limits, bench.widening).seconds();
  return seconds > 0 ? tokens / seconds : 0.0;
}

}  // namespace

std::string BenchChart(const Bench& bench, const BenchRun& run) {
  std::vector<Point> decode, prefill;
  for (const DecodeFigures& f : bench.decode) {
    if (f.batch == 1 && !f.step_s.empty()) {
      decode.push_back({f.context, f.tokens_per_s(), LimitSpeed(f.cost, 1, bench), f.filled});
    }
  }
  for (const PrefillFigures& f : bench.prefill) {
    if (!f.run_s.empty()) {
      prefill.push_back(
          {f.context, f.tokens_per_s(), LimitSpeed(f.cost, f.tokens, bench), f.filled()});
    }
  }
  const double height = 2 * kPanelHeight + 40;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" "
      "font-family=\"sans-serif\" font-size=\"12\" fill=\"#777\">\n",
      kWidth, height);
  if (!decode.empty()) {
    svg += Panel(0, decode).Draw("decode, tokens/s (line), machine's limit (dashes)");
  }
  if (!prefill.empty()) {
    svg += Panel(kPanelHeight, prefill).Draw("prefill, tokens/s (line), machine's limit (dashes)");
  }
  svg += fmt::format(
      "<text x=\"{:.0f}\" y=\"{:.0f}\">context in tokens; hollow: cache filled with random "
      "entries. {}, {}, commit {}</text>\n</svg>\n",
      kLeft, height - 14, Escape(run.machine.cpu), Escape(run.date), Escape(run.commit));
  return svg;
}

}  // namespace cachalot::eval
