// SPDX-License-Identifier: Apache-2.0
#include "cachalot/eval/perplexity.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cachalot/base/check.h"
#include "cachalot/base/strings.h"

namespace cachalot::eval {

uint64_t NumWindows(uint64_t num_ids, uint32_t window) {
  return num_ids == 0 || window == 0 ? 0 : (num_ids - 1) / window;
}

double NegativeLogLikelihood(std::span<const float> logits, uint32_t target) {
  CACHALOT_CHECK(target < logits.size());
  float largest = -std::numeric_limits<float>::infinity();
  for (const float x : logits) largest = std::max(largest, x);
  double sum = 0.0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - largest);
  const double nll = std::log(sum) + largest - static_cast<double>(logits[target]);
  return std::isnan(nll) ? std::numeric_limits<double>::infinity() : nll;
}

Result<PerplexityResult> Perplexity(LogitRunner& runner, std::span<const uint32_t> ids,
                                    uint32_t window, const PerplexityProgress& progress) {
  const uint64_t windows = NumWindows(ids.size(), window);
  if (windows == 0) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat("text of ", ids.size(), " tokens: one window needs ", uint64_t{window} + 1,
                        "; give more text or lower --window")};
  }
  double sum = 0.0;
  uint64_t done = 0;
  for (uint64_t i = 0; i < windows; ++i) {
    const std::span<const uint32_t> input = ids.subspan(i * window, window);
    const std::span<const uint32_t> targets = ids.subspan(i * window + 1, window);
    const auto sink = [&](const ChunkOutputs& chunk) -> Status {
      for (uint32_t t = 0; t < chunk.num_tokens; ++t) {
        sum += NegativeLogLikelihood(chunk.logits.Row(t), targets[chunk.first + t]);
      }
      done += chunk.num_tokens;
      if (progress && !progress(done, windows * window, sum / static_cast<double>(done))) {
        return Error{ErrorCode::kCancelled, StrCat("stopped after ", done, " predictions")};
      }
      return {};
    };
    CACHALOT_RETURN_IF_ERROR(runner.Run(input, {}, LogitPositions::kAll, sink));
  }
  const double nll = sum / static_cast<double>(done);
  return PerplexityResult{.num_tokens = done, .nll = nll, .perplexity = std::exp(nll)};
}

}  // namespace cachalot::eval
