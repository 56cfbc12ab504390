// SPDX-License-Identifier: Apache-2.0
// mHC around a sublayer and hc_head, forward and backward.  [V4 2.2; model.md 3.3, 3.4]
//
//   rs = 1 / sqrt(mean(u^2) + eps), mix = (fn u) rs      u = the M streams of a token
//   pre = sigmoid(mix scale0 + base) + hc_eps, post = 2 sigmoid(mix scale1 + base)
//   comb = Sinkhorn(mix scale2 + base)
//   y = sum_m pre[m] X[m];      X'[k] = post[k] z + sum_j comb[j][k] X[j]
//
// Sinkhorn's iterates are not kept: the backward pass computes them again and walks them in reverse
// [V4 3.4.2].
#pragma once

#include <cstddef>
#include <cstdint>

#include "cachalot/kernels/context.h"
#include "cachalot/train/matrix.h"

namespace cachalot::train {

// What becomes of the streams beside a sublayer. kSinkhorn is V4; the others exist for comparison
// and cannot be exported.
enum class ResidualMap : uint8_t {
  kSinkhorn,       // mHC: comb is doubly stochastic
  kUnconstrained,  // hyper-connections: comb = mix scale2 + base; pre and post as in mHC
  // pre 1 / M, post 1, comb the identity: streams that start equal stay equal, so every one of them
  // is a plain residual x + F(x). fn, base and scale get no gradient.
  kIdentity,
};

struct HyperConfig {
  ResidualMap map = ResidualMap::kSinkhorn;
  size_t streams = 4;  // M
  size_t sinkhorn_iters = 20;
  double hc_eps = 1e-6;
  double norm_eps = 1e-6;
};

template <typename T>
struct HyperWeights {
  Weight<T> fn;     // [(2 + M) M, M D]; hc_head: [M, M D]
  Weight<T> base;   // [1, (2 + M) M] or [1, M]
  Weight<T> scale;  // [1, 3] or [1, 1]
};

// The maps of a token and what they came from. For hc_head, post and comb stay empty.
template <typename T>
struct HyperSaved {
  Matrix<T> fn_u;         // [T, rows of fn]
  Matrix<T> inverse_rms;  // [T, 1]
  Matrix<T> pre, post;    // [T, M]
  Matrix<T> comb;         // [T, M M], comb[j M + k]

  size_t bytes() const {
    return fn_u.bytes() + inverse_rms.bytes() + pre.bytes() + post.bytes() + comb.bytes();
  }
};

// Gradients on their way from HyperPostBackward to HyperPreBackward.
template <typename T>
struct HyperGradients {
  Matrix<T> d_post;  // [T, M]
  Matrix<T> d_comb;  // [T, M M]
  Matrix<T> d_mix;   // [T, rows of fn], scratch of the backward passes
};

// streams [T, M D] -> maps, all of `saved`.
template <typename T>
void HyperMapsForward(MatView<const T> streams, const HyperWeights<T>& w, const HyperConfig& config,
                      HyperSaved<T>& saved, const kernels::Context& ctx);
// y [T, D] by the pre map in `saved`: little work, so y need not be kept.
template <typename T>
void HyperPreForward(MatView<const T> streams, const HyperSaved<T>& saved, MatView<T> y,
                     const kernels::Context& ctx);
// z [T, D], streams [T, M D] -> next [T, M D], which must not alias streams.
template <typename T>
void HyperPostForward(MatView<const T> z, MatView<const T> streams, const HyperSaved<T>& saved,
                      MatView<T> next, const kernels::Context& ctx);

// d_streams [T, M D] holds the gradient of `next` and leaves as the part of the gradient of
// `streams` that went through comb; d_z overwritten.
template <typename T>
void HyperPostBackward(MatView<const T> z, MatView<const T> streams, const HyperSaved<T>& saved,
                       MatView<T> d_streams, MatView<T> d_z, HyperGradients<T>& gradients,
                       const kernels::Context& ctx);
// d_streams += through y and through the maps; adds to the gradients of fn, base and scale.
template <typename T>
void HyperPreBackward(MatView<const T> streams, const HyperWeights<T>& w, const HyperConfig& config,
                      const HyperSaved<T>& saved, MatView<const T> d_y,
                      HyperGradients<T>& gradients, MatView<T> d_streams,
                      const kernels::Context& ctx);

// hc_head: only y.
template <typename T>
void HyperHeadForward(MatView<const T> streams, const HyperWeights<T>& w, const HyperConfig& config,
                      MatView<T> y, HyperSaved<T>& saved, const kernels::Context& ctx);
template <typename T>
void HyperHeadBackward(MatView<const T> streams, const HyperWeights<T>& w,
                       const HyperConfig& config, const HyperSaved<T>& saved, MatView<const T> d_y,
                       HyperGradients<T>& gradients, MatView<T> d_streams,
                       const kernels::Context& ctx);

}  // namespace cachalot::train
