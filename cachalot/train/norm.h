// SPDX-License-Identifier: Apache-2.0
// RMSNorm with or without weight, and rotary position embedding, forward and backward.
#pragma once

#include "cachalot/kernels/context.h"
#include "cachalot/train/matrix.h"

namespace cachalot::train {

// What the backward pass needs besides x: 1 / sqrt(mean(x^2) + eps) of each row.
template <typename T>
struct NormSaved {
  Matrix<T> inverse_rms;  // [T, 1]
};

// y = w * x * inverse_rms(x), each row alone [model.md 3.2]. x, y [T, D]; w [1, D], or a null view
// for none (the per-head norm of q: pass it as [T H, d]). y may be x when the weight is null and
// the caller keeps x elsewhere.
template <typename T>
void RmsNormForward(MatView<const T> x, const Weight<T>& w, T eps, MatView<T> y,
                    NormSaved<T>& saved, const kernels::Context& ctx);

// With g = d_y * w, r = inverse_rms:   d_x += r (g - x r^2 mean(g x));   w.grad += sum_t d_y x r
// (d_x = with Write::kOverwrite).
template <typename T>
void RmsNormBackward(MatView<const T> x, const Weight<T>& w, const NormSaved<T>& saved,
                     MatView<const T> d_y, MatView<T> d_x, const kernels::Context& ctx,
                     Write write = Write::kAdd);

// cos and sin of positions 0 .. S-1, [S, rd / 2], the float32 values of the released code.
template <typename T>
struct RotaryTable {
  Matrix<T> cos, sin;
};
template <typename T>
RotaryTable<T> MakeRotaryTable(std::span<const float> frequencies, size_t positions);

// Rotates the last rd dims of every row of x [N * heads, d] in place, by the angle of positions[n].
// The rotation is orthogonal: its backward pass is the inverse rotation of the gradient, and that
// of the inverse is the rotation. [model.md 4.3]
template <typename T>
void Rotate(MatView<T> x, size_t heads, std::span<const uint32_t> positions,
            const RotaryTable<T>& table, bool inverse, const kernels::Context& ctx);

}  // namespace cachalot::train
