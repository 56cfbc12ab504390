// SPDX-License-Identifier: Apache-2.0
// RMSNorm: out = w * x * rsqrt(mean(x^2) + eps), float32 throughout.  [model.md 3.2]
#pragma once

#include <span>

#include "cachalot/kernels/context.h"
#include "cachalot/tensor/matrix.h"

namespace cachalot::kernels {

// x, out [T, D] (out may be x); weight [D], or empty for none (the per-head norm of q, 4.1: pass
// q as [T * H, d]). Each row alone, fixed reduction order. Runs serially when T is 1.
void RmsNorm(MatView<const float> x, std::span<const float> weight, float eps, MatView<float> out,
             const Context& ctx);

}  // namespace cachalot::kernels
