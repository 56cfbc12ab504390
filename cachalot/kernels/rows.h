// SPDX-License-Identifier: Apache-2.0
// float32 rows in training: dot, maximum, exponentials, the backward pass of SwiGLU.
#pragma once

#include <cstddef>

#include "cachalot/kernels/context.h"

namespace cachalot::kernels {

// One row of the backward pass of h = weight silu(min(g, limit)) clamp(u, -limit, limit). A clamped
// value passes no gradient. d_g may be d_h.
struct SwiGluBackwardArgs {
  const float* g = nullptr;
  const float* u = nullptr;
  const float* d_h = nullptr;
  float* d_g = nullptr;
  float* d_u = nullptr;
  size_t size = 0;
  float limit = 0.0f;
  float weight = 1.0f;
};

// The functions of one target; thread-safe, any n, any alignment. The order of sums depends on n
// and the target only. NaN stays NaN in all of them but `max`, which may pass over it.
struct RowFns {
  float (*dot)(const float* a, const float* b, size_t n) = nullptr;
  float (*max)(const float* x, size_t n) = nullptr;  // n > 0
  // x <- exp(scale x - shift), relative error about 1e-7, zero below exp(-87); returns the sum.
  float (*exp)(float* x, size_t n, float scale, float shift) = nullptr;
  // Returns the derivative by the weight.
  float (*swiglu_backward)(const SwiGluBackwardArgs& args) = nullptr;
};

RowFns RowsFor(Target target);

}  // namespace cachalot::kernels
