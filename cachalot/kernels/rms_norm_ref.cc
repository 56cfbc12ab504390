// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/rms_norm_ref.h"

#include <cmath>
#include <cstddef>

#include "cachalot/kernels/matmul_ref.h"

namespace cachalot::kernels::ref {
void RmsNorm(std::span<const float> x, std::span<const float> weight, float eps,
             std::span<float> out) {
  const float mean = Dot(x, x) / static_cast<float>(x.size());
  const float scale = 1.0f / std::sqrt(mean + eps);
  for (size_t i = 0; i < x.size(); ++i) {
    const float n = x[i] * scale;
    out[i] = weight.empty() ? n : weight[i] * n;
  }
}

}  // namespace cachalot::kernels::ref
