// SPDX-License-Identifier: Apache-2.0
// Plain float32 matrix products on row-major operands: what Newton-Schulz is made of.
//
//   C = alpha A op(B) + beta D,      op(B) = B or B^T
//
// Unlike matmul.h, nothing here is a stored weight and every operand changes with every call. Each
// element of A op(B) is one chain of fused multiply-adds over ascending k, so its bits depend on
// its row of A, its column of op(B) and whether the target has FMA: not on the shape around it, on
// threads, or on which of the two ways below ran it.
#pragma once

#include <cstddef>

#include "cachalot/kernels/context.h"
#include "cachalot/tensor/matrix.h"

namespace cachalot::kernels {

enum class GemmB : uint8_t {
  kPlain,       // B is [K, N]
  kTransposed,  // B is [N, K]; C is A B^T
};

// A [M, K], C [M, N]; rows may be padded. C may be B or D (the same view), never A.
struct GemmF32Args {
  MatView<const float> a;
  MatView<const float> b;
  GemmB b_layout = GemmB::kPlain;
  MatView<float> c;
  float alpha = 1.0f;
  float beta = 0.0f;
  MatView<const float> d;  // [M, N]; read only where beta != 0
  // The caller knows that C is symmetric (A A^T, a polynomial of a symmetric matrix): only the
  // tiles on and above the diagonal are computed, and C is symmetric to the bit. M == N.
  bool symmetric = false;
};

// Floats of scratch a product needs: op(B), cut into column panels that vectors load from.
size_t GemmF32ScratchFloats(const GemmF32Args& args);

// 2 M N K flop (half, if symmetric) on the calling thread; `scratch` is 64-byte aligned. For many
// products at once, one a task. Wrong shapes are a bug and abort.
void GemmF32Serial(const GemmF32Args& args, float* scratch, Target target);

// The same bits, on all threads of ctx.pool; for a product that is alone. Path is ignored: the
// reference is gemm_f32_ref.h.
void GemmF32(const GemmF32Args& args, float* scratch, const Context& ctx);

}  // namespace cachalot::kernels
