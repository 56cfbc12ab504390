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

double LargestLoad(const StepMetrics& m) {
  double load = m.expert_load.empty() ? std::nan("") : 0.0;
  for (const double layer : m.expert_load) load = std::max(load, layer);
  return load;
}

// One line a run. What is not finite is left out.
template <typename Value>
train::Panel StepPanel(const std::vector<LoadedRun>& runs, const char* title, const Value& value) {
  train::Panel panel{.title = title, .x_label = "step", .series = {}};
  for (const LoadedRun& run : runs) {
    train::Series& series = panel.series.emplace_back();
    series.name = run.name;
    for (const StepMetrics& m : run.metrics) {
      series.points.emplace_back(static_cast<double>(m.step), value(m));
    }
  }
  return panel;
}

train::Panel DepthPanel(const std::vector<LoadedRun>& runs) {
  train::Panel panel{
      .title = "that gain over depth, last step, log10", .x_label = "half-layer", .series = {}};
  for (const LoadedRun& run : runs) {
    train::Series& series = panel.series.emplace_back();
    series.name = run.name;
    if (run.metrics.empty()) continue;
    for (const double gain : run.metrics.back().residual_gains) {
      series.points.emplace_back(static_cast<double>(series.points.size() + 1), std::log10(gain));
    }
  }
  return panel;
}

std::vector<train::Panel> Panels(const std::vector<LoadedRun>& runs) {
  const auto validation = [](const StepMetrics& m) {
    return m.validation_loss.value_or(std::nan(""));
  };
  const auto gain = [](const StepMetrics& m) { return std::log10(m.mhc_gain); };
  return {
      StepPanel(runs, "training loss, nats", [](const StepMetrics& m) { return m.loss; }),
      StepPanel(runs, "validation loss, nats", validation),
      StepPanel(runs, "learning rate", [](const StepMetrics& m) { return m.learning_rate; }),
      StepPanel(runs, "norm of the gradient", [](const StepMetrics& m) { return m.gradient_norm; }),
      StepPanel(runs, "busiest expert's load over the mean", LargestLoad),
      StepPanel(runs, "gain of the composite residual map, log10", gain),
      DepthPanel(runs)};
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
  CLI::App* command = app.add_subcommand("plot",
                                         "Draw loss, learning rate, gradient norm, expert load and "
                                         "mHC gain of training runs as an SVG");
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
