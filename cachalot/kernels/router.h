// SPDX-License-Identifier: Apache-2.0
// Expert choice and weights.  [V4 2.4; model.md 5]
//
//   s = sqrt(softplus(z));  chosen = top-A of s + bias (ties to the lower id), or a table row
//   weight = routed_scaling_factor * s[chosen] / sum(s[chosen])
#pragma once

#include <cstdint>
#include <span>

#include "cachalot/kernels/context.h"
#include "cachalot/tensor/matrix.h"

namespace cachalot::kernels {

struct RouterArgs {
  MatView<const float> z;       // [T, E] router logits
  std::span<const float> bias;  // [E]; used when `fixed` is empty
  // Non-empty: the choice itself, [T * A] expert ids < E (hash layers, replayed selections).
  std::span<const uint32_t> fixed;
  uint32_t num_experts_per_tok = 0;  // A <= E
  float routed_scaling_factor = 1.0f;
};

// ids [T, A] ascending within a token, weights [T, A] beside them. NaN logits give some valid ids.
void Route(const RouterArgs& args, MatView<uint32_t> ids, MatView<float> weights,
           const Context& ctx);

}  // namespace cachalot::kernels
