// SPDX-License-Identifier: Apache-2.0
// Manifold-constrained hyper-connections (mHC): the maps around a sublayer.  [V4 2.2; model.md 3.3]
//
//   rs    = rsqrt(mean(u^2) + norm_eps), u = the M streams of a token, flattened
//   mix   = (fn u) * rs                          ((2 + M) M values; fn u is a MatMul, done before)
//   pre   = sigmoid(mix[0..M) * scale[0] + base) + hc_eps
//   post  = 2 sigmoid(mix[M..2M) * scale[1] + base)
//   comb  = Sinkhorn(mix[2M..] * scale[2] + base)      [M][M], rows first, last step columns
//   y     = sum_m pre[m] X[m]
//   X'[k] = post[k] z + sum_j comb[j][k] X[j]          z = sublayer(norm(y))
#pragma once

#include <cstdint>
#include <span>

#include "cachalot/kernels/context.h"
#include "cachalot/tensor/matrix.h"

namespace cachalot::kernels {

struct HcParams {
  std::span<const float> base;   // [(2+M) M], or [M] for the head
  std::span<const float> scale;  // [3], or [1] for the head
  uint32_t sinkhorn_iters = 20;
  float hc_eps = 1e-6f;
  float norm_eps = 1e-6f;
};

// streams [T, M*D]; fn_u [T, (2+M) M] = fn u without rs; y [T, D]; post [T, M]; comb [T, M*M]
// (comb[j*M + k]). Outputs overwritten, no aliasing. float32, each token alone.
void HcPre(MatView<const float> streams, MatView<const float> fn_u, const HcParams& params,
           MatView<float> y, MatView<float> post, MatView<float> comb, const Context& ctx);

// streams [T, M*D] updated in place from z [T, D].
void HcPost(MatView<const float> z, MatView<const float> post, MatView<const float> comb,
            MatView<float> streams, const Context& ctx);

// hc_head (3.4): only the pre part; fn_u [T, M].
void HcHead(MatView<const float> streams, MatView<const float> fn_u, const HcParams& params,
            MatView<float> y, const Context& ctx);

}  // namespace cachalot::kernels
