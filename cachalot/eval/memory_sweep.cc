// SPDX-License-Identifier: Apache-2.0
#include "cachalot/eval/memory_sweep.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "cachalot/base/strings.h"
#include "cachalot/eval/bench_stats.h"

namespace cachalot::eval {
namespace {

constexpr double kWidth = 720, kHeight = 320;
constexpr double kLeft = 60, kRight = 60, kTop = 40, kBottom = 60;

double Ratio(double part, double all) { return all > 0 ? part / all : 0.0; }

// Of values between 0 and `high` over budgets between the first and the last.
class Axes {
 public:
  Axes(double low, double high, double top)
      : low_(low), high_(std::max(high, low + 1)), top_(top) {}
  double X(double memory) const {
    return kLeft + (memory - low_) / (high_ - low_) * (kWidth - kLeft - kRight);
  }
  double Y(double value) const {
    return kHeight - kBottom - value / top_ * (kHeight - kTop - kBottom);
  }

 private:
  double low_, high_, top_;
};

}  // namespace

StreamFigures FiguresOf(const DecodeFigures& decode) {
  const double seconds = std::accumulate(decode.step_s.begin(), decode.step_s.end(), 0.0);
  const double tokens = static_cast<double>(decode.step_s.size()) * decode.batch;
  const model::ExpertStats::Layer total = decode.experts.Total();
  const auto read = static_cast<double>(decode.experts.read_bytes);
  return {.tokens_per_s = Ratio(tokens, seconds),
          .hit_rate = total.hit_rate(),
          .read_bytes_per_token = Ratio(read, tokens),
          .wait_share = Ratio(total.wait_seconds, seconds),
          .read_bytes_per_s = Ratio(read, seconds),
          .queue_depth = decode.experts.queue_depth(),
          .over_slower =
              Ratio(seconds, std::max(decode.experts.busy_seconds, seconds - total.wait_seconds))};
}

Json ExpertStatsJson(const model::ExpertStats& stats) {
  Json layers = Json::array();
  for (const auto& layer : stats.layers) {
    layers.push_back({{"wanted", layer.wanted},
                      {"hits", layer.hits},
                      {"late", layer.late},
                      {"wait_s", layer.wait_seconds}});
  }
  return {{"slots", stats.num_slots},
          {"slot_bytes", stats.slot_bytes},
          {"wanted_read_bytes", stats.wanted_read_bytes},
          {"read_bytes", stats.read_bytes},
          {"copy_bytes", stats.copy_bytes},
          {"reads", stats.reads},
          {"retries", stats.retries},
          {"failures", stats.failures},
          {"guessed", stats.guessed},
          {"guessed_right", stats.guessed_right},
          {"busy_s", stats.busy_seconds},
          {"queue_s", stats.queue_seconds},
          {"layers", layers}};
}

std::string MemoryChart(const std::vector<MemoryPoint>& points, const BenchRun& run) {
  std::vector<StreamFigures> figures;
  double most = 1e-9;
  for (const MemoryPoint& point : points) {
    figures.push_back(FiguresOf(point.bench.decode.front()));
    most = std::max(most, figures.back().tokens_per_s);
  }
  const auto memory = [&](size_t i) { return static_cast<double>(points[i].memory_bytes); };
  const double top = most * 1.15;
  const Axes speed(memory(0), memory(points.size() - 1), top);
  const Axes share(memory(0), memory(points.size() - 1), 1.0);
  std::string speed_path, hit_path, marks;
  for (size_t i = 0; i < points.size(); ++i) {
    const double x = speed.X(memory(i));
    const double y = speed.Y(figures[i].tokens_per_s);
    const char* command = i == 0 ? "M" : "L";
    speed_path += fmt::format("{}{:.1f} {:.1f}", command, x, y);
    hit_path += fmt::format("{}{:.1f} {:.1f}", command, x, share.Y(figures[i].hit_rate));
    marks += fmt::format(
        "<circle cx=\"{0:.1f}\" cy=\"{1:.1f}\" r=\"4\" fill=\"#1f7ab8\"/>"
        "<text x=\"{0:.1f}\" y=\"{2:.1f}\" text-anchor=\"middle\">{3:.2f}</text>"
        "<text x=\"{0:.1f}\" y=\"{4:.0f}\" text-anchor=\"middle\">{5:.1f} GB</text>\n",
        x, y, y - 9, figures[i].tokens_per_s, kHeight - kBottom + 18, memory(i) * 1e-9);
  }
  std::string grid;
  for (int i = 0; i <= 4; ++i) {
    const double y = share.Y(i / 4.0);
    grid += fmt::format(
        "<path d=\"M{:.0f} {:.1f}H{:.0f}\" stroke=\"#8884\"/><text x=\"{:.0f}\" y=\"{:.1f}\" "
        "text-anchor=\"end\">{:.2g}</text><text x=\"{:.0f}\" y=\"{:.1f}\">{} %</text>\n",
        kLeft, y, kWidth - kRight, kLeft - 8, y + 4, top * i / 4, kWidth - kRight + 8, y + 4,
        25 * i);
  }
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0f} {:.0f}\" "
      "font-family=\"sans-serif\" font-size=\"12\" fill=\"#777\">\n"
      "<text x=\"{:.0f}\" y=\"20\" font-weight=\"bold\">decode, tokens/s (line, left) and experts "
      "found in memory (dashes, right) against --memory</text>\n{}"
      "<path d=\"{}\" fill=\"none\" stroke=\"#999\" stroke-width=\"2\" "
      "stroke-dasharray=\"5 4\"/>\n"
      "<path d=\"{}\" fill=\"none\" stroke=\"#1f7ab8\" stroke-width=\"2\"/>\n{}"
      "<text x=\"{:.0f}\" y=\"{:.0f}\">{}, commit {}</text>\n</svg>\n",
      kWidth, kHeight, kLeft, grid, hit_path, speed_path, marks, kLeft, kHeight - 12, run.date,
      run.commit);
}

}  // namespace cachalot::eval
