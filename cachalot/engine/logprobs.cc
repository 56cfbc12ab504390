// SPDX-License-Identifier: Apache-2.0
#include "cachalot/engine/logprobs.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace cachalot::engine {
namespace {

double LogSumExp(std::span<const float> logits) {
  const double largest = *std::ranges::max_element(logits);
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  return largest + std::log(sum);
}

}  // namespace

float ChosenLogprob(std::span<const float> logits, uint32_t token) {
  return static_cast<float>(logits[token] - LogSumExp(logits));
}

std::vector<std::pair<uint32_t, float>> TopLogprobs(std::span<const float> logits,
                                                    uint32_t num_top) {
  const double normalizer = LogSumExp(logits);
  std::vector<uint32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0u);
  const auto n = static_cast<ptrdiff_t>(std::min<size_t>(num_top, ids.size()));
  std::partial_sort(ids.begin(), ids.begin() + n, ids.end(), [&](uint32_t a, uint32_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  });
  std::vector<std::pair<uint32_t, float>> top;
  for (ptrdiff_t i = 0; i < n; ++i) {
    const uint32_t id = ids[static_cast<size_t>(i)];
    top.emplace_back(id, static_cast<float>(logits[id] - normalizer));
  }
  return top;
}

}  // namespace cachalot::engine
