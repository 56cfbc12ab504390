// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding: interleaved pairs in the last rd dims of a vector. [model.md 1.5, 4.3]
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cachalot/kernels/context.h"
#include "cachalot/tensor/matrix.h"

namespace cachalot::kernels {

struct YarnParams {
  float factor = 1.0f;  // 1: no scaling
  float beta_fast = 32.0f;
  float beta_slow = 1.0f;
  uint32_t original_max_position_embeddings = 65536;
};

// rd/2 angular frequencies, float32 as the released code computes them.
std::vector<float> RopeFrequencies(float theta, uint32_t rope_dim, const YarnParams* yarn);

// cos and sin of float32(position) * frequency (one float32 multiply; then float32 cos / sin of
// that float32 angle). cos, sin [positions.size(), rd/2].
void RopeAngles(std::span<const float> frequencies, std::span<const uint32_t> positions,
                MatView<float> cos, MatView<float> sin);

// Rotates the last 2 * cos.cols dims of every row of x [T * heads, d] in place by the angle of its
// token (row / heads). `inverse` rotates back (attention output).
void ApplyRope(MatView<float> x, size_t heads, MatView<const float> cos, MatView<const float> sin,
               bool inverse, const Context& ctx);

}  // namespace cachalot::kernels
