// SPDX-License-Identifier: Apache-2.0
// cachalot plot: the course of training runs as an SVG.
#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <memory>

#include "cachalot/base/strings.h"
#include "cachalot/cli/command.h"
#include "cachalot/cli/engine_flags.h"
#include "cachalot/io/mapped_file.h"
#include "cachalot/train/metrics.h"
#include "cachalot/train/svg_plot.h"

namespace cachalot::cli {
namespace {

struct PlotFlags {
  std::vector<std::string> runs;
  std::string out;
};

using train::StepMetrics;

struct LoadedRun {
  std::string name;
  std::vector<StepMetrics> metrics;
};

// One line a run, named after it; with one run `what` alone.
template <typename Value>
void AddSeries(train::Panel& panel, const std::vector<LoadedRun>& runs, const std::string& what,
               const Value& value) {
  for (const LoadedRun& run : runs) {
    train::Series series{.name = runs.size() == 1 ? what : StrCat(run.name, " ", what)};
    for (const StepMetrics& m : run.metrics) {
      series.points.emplace_back(static_cast<double>(m.step), value(m));
    }
    panel.series.push_back(std::move(series));
  }
}

double LargestLoad(const StepMetrics& m) {
  double load = m.expert_load.empty() ? std::nan("") : 0.0;
  for (const double layer : m.expert_load) load = std::max(load, layer);
  return load;
}

double MeanLoad(const StepMetrics& m) {
  double sum = 0;
  for (const double layer : m.expert_load) sum += layer;
  return sum / static_cast<double>(m.expert_load.size());  // 0 / 0 of none is left out
}

std::vector<train::Panel> Panels(const std::vector<LoadedRun>& runs) {
  std::vector<train::Panel> panels = {
      {"loss, nats a token", "step", {}},
      {"learning rate", "step", {}},
      {"load of the busiest expert over the mean", "step", {}},
      {"log10 of the gain of the composite residual map", "step", {}},
      {"norm of the gradient", "step", {}},
      {"the same over depth, last step", "half-layer", {}}};
  AddSeries(panels[0], runs, "training", [](const StepMetrics& m) { return m.loss; });
  AddSeries(panels[0], runs, "validation",
            [](const StepMetrics& m) { return m.validation_loss.value_or(std::nan("")); });
  AddSeries(panels[1], runs, "rate", [](const StepMetrics& m) { return m.learning_rate; });
  AddSeries(panels[2], runs, "worst layer", LargestLoad);
  AddSeries(panels[2], runs, "mean of layers", MeanLoad);
  AddSeries(panels[3], runs, "gain", [](const StepMetrics& m) { return std::log10(m.mhc_gain); });
  AddSeries(panels[4], runs, "norm", [](const StepMetrics& m) { return m.gradient_norm; });
  for (const LoadedRun& run : runs) {
    train::Series series{.name = runs.size() == 1 ? "gain" : run.name};
    if (run.metrics.empty()) continue;
    for (const double gain : run.metrics.back().residual_gains) {
      series.points.emplace_back(static_cast<double>(series.points.size() + 1), std::log10(gain));
    }
    panels[5].series.push_back(std::move(series));
  }
  return panels;
}

Status Plot(const PlotFlags& flags) {
  std::vector<LoadedRun> runs;
  std::string title;
  for (const std::string& dir : flags.runs) {
    auto metrics = train::ReadMetrics(dir);
    if (!metrics.ok()) return metrics.error();
    std::string name = std::filesystem::path(dir).lexically_normal().filename().string();
    if (name.empty()) {
      name = std::filesystem::path(dir).lexically_normal().parent_path().filename().string();
    }
    title += StrCat(title.empty() ? "" : ", ", name);
    runs.push_back({name, std::move(metrics).value()});
  }
  const std::string out = flags.out.empty() ? StrCat(flags.runs[0], "/plot.svg") : flags.out;
  CACHALOT_RETURN_IF_ERROR(io::WriteFileAtomic(out, train::PlotSvg(title, Panels(runs))));
  fmt::print("{}\n", out);
  return {};
}

}  // namespace

void RegisterPlot(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<PlotFlags>();
  CLI::App* command = app.add_subcommand(
      "plot", "Draw the loss, learning rate, expert load and mHC gain of training runs as an SVG");
  command->add_option("RUN", flags->runs, "Folders of runs, with a metrics.jsonl each")->required();
  command->add_option("--out", flags->out, "File to write (default: RUN/plot.svg)");
  SetExamples(*command,
              "cachalot plot runs/nano\n"
              "cachalot plot runs/muon runs/adamw --out compare.svg");
  command->callback([flags, &exit_code] {
    if (const Status s = Plot(*flags); !s.ok()) exit_code = Report(s.error());
  });
}

}  // namespace cachalot::cli
