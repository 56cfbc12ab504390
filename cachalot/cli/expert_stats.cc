// SPDX-License-Identifier: Apache-2.0
#include "cachalot/cli/expert_stats.h"

#include <fmt/format.h>

#include "cachalot/cli/progress.h"

namespace cachalot::cli {
namespace {

double Percent(const model::ExpertStats::Layer& layer) {
  return layer.wanted == 0
             ? 0.0
             : 100 * static_cast<double>(layer.hits) / static_cast<double>(layer.wanted);
}

}  // namespace

std::string HitsByLayer(const model::ExpertStats& stats) {
  std::string line;
  for (const auto& layer : stats.layers) line += fmt::format("{:.0f} ", Percent(layer));
  return line + "%";
}

std::string FormatExpertStats(const model::ExpertStats& stats, uint64_t tokens, double seconds) {
  const model::ExpertStats::Layer total = stats.Total();
  const double depth = stats.busy_seconds > 0 ? stats.queue_seconds / stats.busy_seconds : 0.0;
  return fmt::format(
      "experts {:.1f} % in memory (by layer {}), {} read a token, {:.1f} reads in flight, "
      "{:.2f} of {:.2f} s waiting",
      Percent(total), HitsByLayer(stats), FormatBytes(tokens == 0 ? 0 : stats.read_bytes / tokens),
      depth, total.wait_seconds, seconds);
}

}  // namespace cachalot::cli
