// SPDX-License-Identifier: Apache-2.0
// The reference of matmul.h: plain float32, the same bits on every machine.
//
// Each output has 16 virtual lanes; lane i sums products k = i, i + 16, ... ascending, each product
// rounded before it is added (no fma); lanes are added as a tree 8, 4, 2, 1. Sixteen lanes instead
// of one let the compiler vectorize without changing a bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "cachalot/kernels/matmul.h"

namespace cachalot::kernels::ref {

// sum_k x[k] * w[k]; x.size() == w.size().
float Dot(std::span<const float> x, std::span<const float> w);
float Dot(std::span<const BF16> x, std::span<const float> w);

// Rows [begin, begin + count) of the product, all tokens. `widened` holds job.w.cols floats.
template <typename X>
void MatMulRows(const MatMulJob<X>& job, uint32_t begin, uint32_t count, std::span<float> widened);

}  // namespace cachalot::kernels::ref
