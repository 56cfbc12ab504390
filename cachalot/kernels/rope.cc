// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "cachalot/base/check.h"

namespace cachalot::kernels {
namespace {

// The pair index at which a frequency makes `rotations` turns over the original context.
double YarnCorrectionDim(double rotations, double theta, uint32_t rope_dim, uint32_t original) {
  return rope_dim * std::log(original / (rotations * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(theta));
}

}  // namespace

std::vector<float> RopeFrequencies(float theta, uint32_t rope_dim, const YarnParams* yarn) {
  std::vector<float> frequencies(rope_dim / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(rope_dim);
    // pow in double, rounded once, is the correctly rounded float32 power in all but rare ties.
    const float power = static_cast<float>(std::pow(double{theta}, double{exponent}));
    frequencies[i] = 1.0f / power;
  }
  if (yarn == nullptr) return frequencies;

  const uint32_t original = yarn->original_max_position_embeddings;
  const double lo =
      std::max(std::floor(YarnCorrectionDim(yarn->beta_fast, theta, rope_dim, original)), 0.0);
  double hi = std::min(std::ceil(YarnCorrectionDim(yarn->beta_slow, theta, rope_dim, original)),
                       static_cast<double>(rope_dim) - 1.0);
  if (lo == hi) hi += 0.001;
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const auto ramp =
        static_cast<float>(std::clamp((static_cast<double>(i) - lo) / (hi - lo), 0.0, 1.0));
    frequencies[i] = frequencies[i] / yarn->factor * ramp + frequencies[i] * (1.0f - ramp);
  }
  return frequencies;
}

void RopeAngles(std::span<const float> frequencies, std::span<const uint32_t> positions,
                MatView<float> cos, MatView<float> sin) {
  CACHALOT_CHECK(cos.rows == positions.size() && cos.cols == frequencies.size());
  CACHALOT_CHECK(sin.rows == cos.rows && sin.cols == cos.cols);
  for (size_t t = 0; t < positions.size(); ++t) {
    for (size_t i = 0; i < frequencies.size(); ++i) {
      // The float32 rounding of the product is part of the released numbers. [model.md 1.5]
      const float angle = static_cast<float>(positions[t]) * frequencies[i];
      cos.Row(t)[i] = static_cast<float>(std::cos(double{angle}));
      sin.Row(t)[i] = static_cast<float>(std::sin(double{angle}));
    }
  }
}

void ApplyRope(MatView<float> x, size_t heads, MatView<const float> cos, MatView<const float> sin,
               bool inverse, const Context& ctx) {
  CACHALOT_CHECK(x.rows == cos.rows * heads && x.cols >= 2 * cos.cols);
  const size_t offset = x.cols - 2 * cos.cols;
  ctx.pool->ParallelFor(cos.rows, [&](size_t t, size_t) {
    const std::span<const float> c = cos.Row(t);
    const std::span<const float> s = sin.Row(t);
    for (size_t h = 0; h < heads; ++h) {
      float* pairs = x.Row(t * heads + h).data() + offset;
      for (size_t i = 0; i < c.size(); ++i) {
        const float a = pairs[2 * i];
        const float b = pairs[2 * i + 1];
        const float sine = inverse ? -s[i] : s[i];
        pairs[2 * i] = a * c[i] - b * sine;
        pairs[2 * i + 1] = a * sine + b * c[i];
      }
    }
  });
}

}  // namespace cachalot::kernels
