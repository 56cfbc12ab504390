// SPDX-License-Identifier: Apache-2.0
// Lightning indexer in training: scores, the selection they make, and the scores' backward pass for
// the KL loss.  [V4 2.3.1 eq. 13-17; model.md 4.8]
//
//   score[t][j] = sum_h w[t][h] relu(q[t][h] . key[j])
//
// The Hadamard transform of queries and keys is left out: it is orthogonal, so without FP4 rounding
// the scores are the same; with it, activation_format.h transforms there and back.
#pragma once

#include <cstddef>

#include "cachalot/kernels/context.h"
#include "cachalot/train/attention.h"
#include "cachalot/train/matrix.h"

namespace cachalot::train {

template <typename T>
struct IndexerInputs {
  size_t heads = 0;
  size_t topk = 0;
  MatView<const T> q;        // [T, heads * dim], rotated
  MatView<const T> weights;  // [T, heads], scaled
  MatView<const T> keys;     // [E, dim], rotated; rows as `plan` says
};

// The min(topk, visible) entries of the largest scores of every token, ties to the lower index.
// scores [T, most entries of a sample] if not null, zero where a token does not see.
template <typename T>
EntrySelection SelectEntries(const IndexerInputs<T>& in, const TrainBatch& batch,
                             const EntryPlan& plan, MatView<T> scores, const kernels::Context& ctx);

template <typename T>
struct IndexerGradients {
  MatView<T> d_q;        // overwritten
  MatView<T> d_weights;  // overwritten
  MatView<T> d_keys;     // added to
};

// d_scores [T, ..] is zero where it does not count. Parallel over samples.
template <typename T>
void IndexerBackward(const IndexerInputs<T>& in, const TrainBatch& batch, const EntryPlan& plan,
                     MatView<const T> d_scores, const IndexerGradients<T>& gradients,
                     const kernels::Context& ctx);

}  // namespace cachalot::train
