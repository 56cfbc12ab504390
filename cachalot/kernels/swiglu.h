// SPDX-License-Identifier: Apache-2.0
// Clamped SwiGLU: h = weight * silu(min(g, limit)) * clamp(u, -limit, limit).  [model.md 5.4]
#pragma once

#include <span>

#include "cachalot/kernels/context.h"
#include "cachalot/tensor/matrix.h"

namespace cachalot::kernels {

// g, u, h [T, I] (h may be g); row_weights [T] or empty (shared expert: no weight).
void SwiGlu(MatView<const float> g, MatView<const float> u, float limit,
            std::span<const float> row_weights, MatView<float> h, const Context& ctx);

}  // namespace cachalot::kernels
