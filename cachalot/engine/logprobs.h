// SPDX-License-Identifier: Apache-2.0
// Logarithms of the model's own probabilities, before penalties, temperature and constraints.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace cachalot::engine {

struct TokenLogprobs {
  float chosen = 0.0f;
  std::vector<std::pair<uint32_t, float>> top;  // id, logprob; best first, ties to the lower id
};

// log softmax(logits) at `token` and at the `num_top` largest. Sums in float64 in id order, so the
// values do not depend on the machine's vector width. O(V).
TokenLogprobs LogprobsOf(std::span<const float> logits, uint32_t token, uint32_t num_top);

}  // namespace cachalot::engine
