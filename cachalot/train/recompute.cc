// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/recompute.h"

#include <array>

namespace cachalot::train {
namespace {

constexpr std::array<std::string_view, 12> kNames = {
    "streams",          "mixed",         "normed",         "query_latent",
    "query_projection", "queries",       "window_entries", "output_latent",
    "compressor",       "index_queries", "index_scores",   "expert_gate_up"};
static_assert(kNames.size() == static_cast<size_t>(Recomputable::kExpertGateUp) + 1);

}  // namespace

std::span<const std::string_view> RecomputableNames() { return kNames; }

size_t StreamGroupSize(size_t halves, const RecomputeSet& recompute) {
  if (!recompute.contains(Recomputable::kStreams)) return 1;
  const auto streams = [&](size_t group) { return halves / group + group - 1; };
  size_t best = 1;
  for (size_t group = 2; group <= halves; ++group) {
    if (streams(group) < streams(best)) best = group;
  }
  return best;
}

}  // namespace cachalot::train
