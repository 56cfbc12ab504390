// SPDX-License-Identifier: Apache-2.0
// Expert choice, routing weights and the sequence-wise balance loss.  [V4 2.1, 4.2.2; model.md 5]
//
//   s = sqrt(softplus(z));  weight_a = c s_a / sum_b s_b over the chosen,  c =
//   routed_scaling_factor L = mean over samples of sum_i f_i P_i,  P_i = mean_t s_i / sum_j s_j,
//   f_i constant
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "cachalot/kernels/context.h"
#include "cachalot/train/batch.h"
#include "cachalot/train/matrix.h"

namespace cachalot::train {

// The A largest of s + bias, ties to the lower id; ids [T, A] ascending within a token. The choice
// is hard: it has no gradient. bias [E], or null for none.
template <typename T>
void ChooseExperts(MatView<const T> z, const T* bias, MatView<uint32_t> ids,
                   const kernels::Context& ctx);

// z [T, E], ids [T, A] -> weights [T, A].
template <typename T>
void RoutingWeightsForward(MatView<const T> z, MatView<const uint32_t> ids, double scaling,
                           MatView<T> weights, const kernels::Context& ctx);
// d_z overwritten.
template <typename T>
void RoutingWeightsBackward(MatView<const T> z, MatView<const uint32_t> ids, double scaling,
                            MatView<const T> d_weights, MatView<T> d_z,
                            const kernels::Context& ctx);

// Sum over samples of sum_i f_i P_i, f_i = E / (A T) * (tokens t of the sample with i in ids[t]).
// ids is the choice without bias, as the formula has it, not the one the experts run by. If `scale`
// is not zero, d_z += scale * gradient of that sum.
template <typename T>
double BalanceLoss(MatView<const T> z, MatView<const uint32_t> ids, const TrainBatch& batch,
                   double scale, MatView<T> d_z, const kernels::Context& ctx);

}  // namespace cachalot::train
