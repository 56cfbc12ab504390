// SPDX-License-Identifier: Apache-2.0
#include "cachalot/engine/logprobs.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace cachalot::engine {

TokenLogprobs LogprobsOf(std::span<const float> logits, uint32_t token, uint32_t num_top) {
  const double largest = *std::ranges::max_element(logits);
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  const double log_sum = std::log(sum);
  // In this order nothing is lost to the size of the logits.
  const auto logprob = [&](uint32_t id) {
    return static_cast<float>((logits[id] - largest) - log_sum);
  };
  TokenLogprobs logprobs{.chosen = logprob(token)};
  if (num_top == 0) return logprobs;
  std::vector<uint32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0u);
  const auto n = static_cast<ptrdiff_t>(std::min<size_t>(num_top, ids.size()));
  std::partial_sort(ids.begin(), ids.begin() + n, ids.end(), [&](uint32_t a, uint32_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  });
  for (const uint32_t id : std::span(ids).first(static_cast<size_t>(n))) {
    logprobs.top.emplace_back(id, logprob(id));
  }
  return logprobs;
}

}  // namespace cachalot::engine
