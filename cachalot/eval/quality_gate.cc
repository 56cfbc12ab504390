// SPDX-License-Identifier: Apache-2.0
#include "cachalot/eval/quality_gate.h"

#include <algorithm>

#include "cachalot/base/strings.h"

namespace cachalot::eval {
namespace {

// All logits of one run: the sequences of the gate are a few thousand tokens of small vocabularies.
Status Collect(LogitRunner& runner, std::span<const uint32_t> ids, std::vector<float>& logits) {
  logits.clear();
  return runner.Run(ids, {}, LogitPositions::kAll, [&](const ChunkOutputs& chunk) -> Status {
    const float* rows = chunk.logits.data;
    logits.insert(logits.end(), rows, rows + chunk.logits.rows * chunk.logits.cols);
    return {};
  });
}

}  // namespace

Result<LogitComparison> CompareNumerics(std::shared_ptr<const model::Weights> weights,
                                        std::span<const std::vector<uint32_t>> sequences,
                                        const RunnerOptions& want, const RunnerOptions& got) {
  size_t longest = 1;
  for (const auto& ids : sequences) longest = std::max(longest, ids.size());
  RunnerOptions want_options = want;
  RunnerOptions got_options = got;
  want_options.max_tokens = got_options.max_tokens = static_cast<uint32_t>(longest);
  CACHALOT_TRY(const auto want_runner, LogitRunner::Create(weights, want_options));
  CACHALOT_TRY(const auto got_runner, LogitRunner::Create(weights, got_options));
  const size_t vocab = weights->config.vocab_size;
  LogitComparer comparer;
  std::vector<float> want_logits, got_logits;
  for (const auto& ids : sequences) {
    CACHALOT_RETURN_IF_ERROR(Collect(*want_runner, ids, want_logits));
    CACHALOT_RETURN_IF_ERROR(Collect(*got_runner, ids, got_logits));
    comparer.Add({want_logits.data(), ids.size(), vocab}, {got_logits.data(), ids.size(), vocab});
  }
  return comparer.Summary();
}

std::vector<GateCheck> KlChecks(const std::string& name, const LogitComparison& comparison,
                                const GateBounds& bounds) {
  return {{.what = StrCat(name, ": mean KL"), .value = comparison.mean_kl, .bound = bounds.mean_kl},
          {.what = StrCat(name, ": median KL"),
           .value = comparison.median_kl,
           .bound = bounds.median_kl}};
}

}  // namespace cachalot::eval
