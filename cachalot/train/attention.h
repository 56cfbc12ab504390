// SPDX-License-Identifier: Apache-2.0
// Attention of all heads over one shared stream of rows (key == value): the window, then compressed
// entries, one softmax with a sink. Forward and backward.  [V4 2.3, eq. 27; model.md 4.4, 4.5]
//
//   s_i = scale q_h . row_i;  p_i = exp(s_i - lse), lse = log(sum_i exp(s_i) + exp(sink_h))
//   o_h = sum_i p_i row_i
//
// Tiles of query tokens with all their heads against the rows they see are dense products, masked
// afterwards. The probabilities are not kept: the backward pass makes them again from lse.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cachalot/kernels/context.h"
#include "cachalot/train/batch.h"
#include "cachalot/train/matrix.h"

namespace cachalot::train {

struct AttentionConfig {
  size_t heads = 0;     // H
  size_t head_dim = 0;  // d
  size_t window = 0;    // W
  double scale = 0;
  bool bf16 = false;  // operands of the products may be rounded (kernels::GemmJobT)
};

// The entries a token reads, ascending, numbered within its sample; [begin[t], begin[t + 1]) of
// ids. Empty `begin`: every visible entry, j < floor((position + 1) / ratio).
struct EntrySelection {
  std::vector<size_t> begin;
  std::vector<uint32_t> ids;
  bool dense() const { return begin.empty(); }
};

template <typename T>
struct AttentionInputs {
  MatView<const T> q;        // [T, H d], rotated
  MatView<const T> kv;       // [T, d], rotated
  MatView<const T> entries;  // [E, d], rotated; rows as `plan` says
};

struct AttentionLayout {
  const AttentionConfig& config;
  const TrainBatch& batch;
  const EntryPlan& plan;  // ratio 0: no entries
  const EntrySelection& selection;
};

template <typename T>
struct AttentionSaved {
  Matrix<T> lse;  // [T, H]
};

// out [T, H d], before the inverse rotation. With `entry_mass` [T, most entries of a sample], also
// the probability each entry got, summed over heads (the indexer's target); columns beyond those a
// token sees are zero. Parallel over samples and tiles.
template <typename T>
void AttentionForward(const AttentionInputs<T>& in, const Weight<T>& sink,
                      const AttentionLayout& layout, MatView<T> out, AttentionSaved<T>& saved,
                      MatView<T> entry_mass, const kernels::Context& ctx);

template <typename T>
struct AttentionGradients {
  MatView<const T> d_out;  // [T, H d]
  MatView<T> d_q;          // overwritten
  MatView<T> d_kv;         // overwritten
  MatView<T> d_entries;    // overwritten
};

// `delta` [T, H] = d_out_h . out_h. Adds to the gradient of the sink. Parallel over samples: the
// tiles of a sample add to the same rows of d_kv, in order.
template <typename T>
void AttentionBackward(const AttentionInputs<T>& in, const Weight<T>& sink,
                       const AttentionLayout& layout, const AttentionSaved<T>& saved,
                       MatView<const T> delta, const AttentionGradients<T>& gradients,
                       const kernels::Context& ctx);

}  // namespace cachalot::train
