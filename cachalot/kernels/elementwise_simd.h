// SPDX-License-Identifier: Apache-2.0
// Inside of swiglu, hyper_connection and matmul: their rows as vectors. Not for other modules.
#pragma once

#include <cstddef>

#include "cachalot/kernels/context.h"
#include "cachalot/numeric/formats.h"

namespace cachalot::kernels {

// h[i] = weight * (silu(min(g[i], limit)) * clamp(u[i], -limit, limit)).
struct SwiGluArgs {
  const float* g = nullptr;
  const float* u = nullptr;
  float* h = nullptr;
  size_t size = 0;
  float limit = 0.0f;
  float weight = 1.0f;
};
using SwiGluFn = void(const SwiGluArgs& args);
SwiGluFn* HighwaySwiGlu(Target target);  // null: the reference runs instead

// x[k] = post[k] z + sum_j comb[j][k] x[j] over `size` columns of four streams `stride` apart.
// Each product and sum rounds once, j ascends: the bits of the reference.
struct HcPostArgs {
  const float* z = nullptr;
  const float* post = nullptr;
  const float* comb = nullptr;
  float* x = nullptr;
  size_t stride = 0;
  size_t size = 0;
};
inline constexpr size_t kVectorStreams = 4;  // hc_mult of every released model
using HcPostFn = void(const HcPostArgs& args);
HcPostFn* HighwayHcPost(Target target);  // null: the reference runs instead

// out[i] = ToBF16(x[i]), the same bits.
struct RoundBF16Args {
  const float* x = nullptr;
  BF16* out = nullptr;
  size_t size = 0;
};
using RoundBF16Fn = void(const RoundBF16Args& args);
RoundBF16Fn* HighwayRoundBF16(Target target);  // null: the reference runs instead

}  // namespace cachalot::kernels
