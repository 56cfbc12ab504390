// SPDX-License-Identifier: Apache-2.0
// float32 matrix products in all the orientations that training needs; `matmul.h` is the one for
// stored weights.
//
//   c[m][n] (+)= sum_k A[m][k] B[k][n]        A is a or its transpose, B is b or its transpose
//
//   forward          y  = x W^T        a = x,  b = W  transposed
//   input gradient   dx += dy W        a = dy, b = W
//   weight gradient  dW += dy^T x      a = dy transposed, b = x
//
// Each output is summed over k ascending, in blocks of kGemmBlockK: one multiply-add chain a block,
// the blocks added to c in order. So its bits depend on row m of A, column n of B and the target
// only, never on the number of threads, on tiles or on the other jobs. [design.md 3]
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "cachalot/kernels/context.h"
#include "cachalot/tensor/matrix.h"

namespace cachalot::kernels {

inline constexpr size_t kGemmBlockK = 128;

// One product. Views may have any stride >= cols; c aliases neither operand. Sizes of 0 are
// allowed: K == 0 is a sum of nothing.
template <typename T>
struct GemmJobT {
  MatView<const T> a;  // [M, K], or [K, M] if a_transposed
  MatView<const T> b;  // [K, N], or [N, K] if b_transposed
  MatView<T> c;        // [M, N]
  bool a_transposed = false;
  bool b_transposed = false;
  bool accumulate = false;  // adds to c instead of overwriting it
  // Operands may be rounded to BF16 (nearest even, subnormals to zero), products and sums stay
  // float32. Only targets with such an instruction do; on others it would cost time
  // and precision. Ignored for double and by Path::kReference.
  bool bf16 = false;
};

using GemmJob = GemmJobT<float>;

// All jobs in one parallel region, cut over outputs only. Wrong shapes are a bug and abort.
// Path::kReference is scalar. Cost 2 M N K flop; allocates nothing once each worker has scratch.
void Gemm(std::span<const GemmJob> jobs, const Context& ctx);
// float64 on plain loops, for checking gradients by finite differences.
void Gemm(std::span<const GemmJobT<double>> jobs, const Context& ctx);
template <typename T>
void Gemm(const GemmJobT<T>& job, const Context& ctx) {
  Gemm(std::span<const GemmJobT<T>>(&job, 1), ctx);
}

// The same bits on the calling thread alone, for code that is inside a parallel region already.
// `scratch` is at least kGemmScratchBytes, 64-byte aligned.
void GemmSerial(const GemmJob& job, uint8_t* scratch, const Context& ctx);
void GemmSerial(const GemmJobT<double>& job, uint8_t* scratch, const Context& ctx);

// Packed operands: a panel of B, [kGemmBlockK][up to 64], and [512][kGemmBlockK] of A.
inline constexpr size_t kGemmScratchBytes = (64 + 512) * kGemmBlockK * sizeof(float);

}  // namespace cachalot::kernels
