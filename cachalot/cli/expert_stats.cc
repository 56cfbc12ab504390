// SPDX-License-Identifier: Apache-2.0
#include "cachalot/cli/expert_stats.h"

#include <fmt/format.h>

#include "cachalot/cli/progress.h"

namespace cachalot::cli {

std::string HitsByLayer(const model::ExpertStats& stats) {
  std::string line;
  for (const auto& layer : stats.layers) line += fmt::format("{:.0f} ", 100 * layer.hit_rate());
  return line + "%";
}

std::string FormatExpertStats(const model::ExpertStats& stats, uint64_t tokens, double seconds) {
  const model::ExpertStats::Layer total = stats.Total();
  return fmt::format(
      "experts {:.1f} % in memory (by layer {}), {} read a token, {:.1f} reads in flight, "
      "{:.2f} of {:.2f} s waiting",
      100 * total.hit_rate(), HitsByLayer(stats),
      FormatBytes(tokens == 0 ? 0 : stats.read_bytes / tokens), stats.queue_depth(),
      total.wait_seconds, seconds);
}

}  // namespace cachalot::cli
