// SPDX-License-Identifier: Apache-2.0
// Embedding, head with cross-entropy, and the indexer's KL loss, forward and backward.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "cachalot/kernels/context.h"
#include "cachalot/train/attention.h"
#include "cachalot/train/matrix.h"

namespace cachalot::train {

// out[t] = embed[ids[t]], out [T, D].
template <typename T>
void EmbedForward(const Weight<T>& embed, std::span<const uint32_t> ids, MatView<T> out,
                  const kernels::Context& ctx);
// embed.grad[ids[t]] += d_out[t], tokens ascending. Parallel over columns.
template <typename T>
void EmbedBackward(const Weight<T>& embed, std::span<const uint32_t> ids, MatView<const T> d_out,
                   const kernels::Context& ctx);

template <typename T>
struct HeadScratch {
  Matrix<T> logits;
  std::vector<double> losses;
};

// Sum over tokens with a target of -log softmax(head y)[target]. If `scale` is not zero, d_y =
// scale * its gradient and head.grad += its share, from the same logits: both passes in one, since
// V logits a token are too many to keep. Chunks of tokens depend on V only.
template <typename T>
double HeadLoss(MatView<const T> y, const Weight<T>& head, std::span<const uint32_t> targets,
                double scale, MatView<T> d_y, HeadScratch<T>& scratch, const kernels::Context& ctx);

// Sum over tokens that see entries of KL(p || softmax(scores)) over the entries the token reads
// (`selection`; dense: all it sees); p is `mass` of those entries divided by its sum, a constant.
// scores, mass [T, entries]; d_scores overwritten with scale * gradient, zero elsewhere.
// [report.md 7.3]
template <typename T>
double IndexerLoss(MatView<const T> scores, MatView<const T> mass, const AttentionLayout& layout,
                   double scale, MatView<T> d_scores, const kernels::Context& ctx);

}  // namespace cachalot::train
