// SPDX-License-Identifier: Apache-2.0
// Compressor: r tokens (2r with overlap) pooled into one entry by a softmax over tokens, channel by
// channel.  [V4 2.3.1 eq. 9-12, 2.3.2; model.md 4.7]
//
//   y_j[i] = sum_p w_p k_p[i],   w = softmax over the rows p of entry j of gate_p[i]
//
// Without overlap the rows are the tokens of block j. With overlap (k and gate 2 hd wide) they are
// the tokens of block j - 1 by their first half and those of block j by their second, so a (token,
// channel) belongs to at most one entry and the backward pass writes each gradient once.
#pragma once

#include "cachalot/kernels/context.h"
#include "cachalot/train/batch.h"
#include "cachalot/train/matrix.h"

namespace cachalot::train {

// gate [T, width] += ape[position mod r], position within the sample.
template <typename T>
void AddPositionBias(const Weight<T>& ape, const TrainBatch& batch, MatView<T> gate,
                     const kernels::Context& ctx);
// ape.grad += d_gate, tokens ascending.
template <typename T>
void PositionBiasBackward(const Weight<T>& ape, const TrainBatch& batch, MatView<const T> d_gate,
                          const kernels::Context& ctx);

// k, gate [T, hd or 2 hd] -> y [E, hd].
template <typename T>
void PoolForward(MatView<const T> k, MatView<const T> gate, const EntryPlan& plan, bool overlap,
                 MatView<T> y, const kernels::Context& ctx);
// d_k, d_gate overwritten, zero where a token reaches no entry. The softmax is computed again.
template <typename T>
void PoolBackward(MatView<const T> k, MatView<const T> gate, const EntryPlan& plan, bool overlap,
                  MatView<const T> d_y, MatView<T> d_k, MatView<T> d_gate,
                  const kernels::Context& ctx);

}  // namespace cachalot::train
