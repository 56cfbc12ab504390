// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/rms_norm_ref.h"

#include <cmath>
#include <cstddef>

namespace cachalot::kernels::ref {
namespace {

constexpr size_t kLanes = 16;

}  // namespace

float Dot(std::span<const float> a, std::span<const float> b) {
  float lanes[kLanes] = {};
  const size_t whole = a.size() / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes) {
    for (size_t l = 0; l < kLanes; ++l) lanes[l] += a[i + l] * b[i + l];
  }
  for (size_t i = whole; i < a.size(); ++i) lanes[i - whole] += a[i] * b[i];
  for (size_t half = kLanes / 2; half > 0; half /= 2) {
    for (size_t l = 0; l < half; ++l) lanes[l] += lanes[l + half];
  }
  return lanes[0];
}

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
