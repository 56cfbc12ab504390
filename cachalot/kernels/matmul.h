// SPDX-License-Identifier: Apache-2.0
// Matrix products with weights in their stored format.
//
//   y[m][n] = sum_k x[m][k] * w[n][k],      w = code * scale, exact in BF16
//
// One kernel serves one token and many. Each output has exactly one accumulator vector; k ascends
// in fixed steps; one fixed lane tree ends it [design.md 3]. So y[m][n] depends on x[m], w[n] and
// the target only: not on M, on the tile it fell into, on threads or on the other jobs of the call.
#pragma once

#include <cstdint>
#include <span>

#include "cachalot/kernels/context.h"
#include "cachalot/numeric/formats.h"
#include "cachalot/tensor/matrix.h"

namespace cachalot::kernels {

// One product. X is float (any weight kind; float32 multiply-add) or BF16 (kBF16, kFP8, kFP4
// weights; BF16 products, float32 accumulation).
//   x       [*, K], rows padded or not; row m of the product is x row (x_rows ? x_rows[m] : m)
//   w       [N, K]; K % 32 == 0 for kFP4; any N >= 0
//   y       [M, N], overwritten; must not alias x. M = y.rows
// x_rows lets an expert read its tokens where they are. M == 0 is allowed and does nothing.
//   dealt   rows of x as RoundRowsToBF16 deals them, or empty: then kFP4 weights have them dealt
//           anew for every 64 rows of w, a tenth of the time. Never changes a bit.
template <typename X>
struct MatMulJob {
  MatView<const X> x;
  const uint32_t* x_rows = nullptr;
  WeightView w;
  MatView<float> y;
  MatView<const X> dealt = {};
};

// Runs all jobs in one parallel region (the experts of a step, the projections of one input): each
// weight is read once per call however many rows use it. Wrong shapes are a bug and abort.
// Non-finite weights or scales give non-finite outputs, never a crash. Scales whose products leave
// BF16's normal range, or that are no powers of two, take a slower float32 path for that row,
// chosen by the weights alone. Path::kReference with X = float is the scalar reference.
// Cost: 2 M N K flop, N * row_bytes read. Allocates nothing once each thread's panel scratch
// exists.
void MatMul(std::span<const MatMulJob<float>> jobs, const Context& ctx);
void MatMul(std::span<const MatMulJob<BF16>> jobs, const Context& ctx);

// x rounded to nearest even BF16, row by row; same shape. With `dealt` [x.rows, DealtCols(x.cols,
// ctx)], rows apart by a multiple of 32 elements and at addresses that are multiples of 64, also
// writes the rows in the order in which products with FP4 weights meet them.
void RoundRowsToBF16(MatView<const float> x, MatView<BF16> out, const Context& ctx,
                     MatView<BF16> dealt = {});

// Columns of a dealt row of `cols`; 0 where the code for ctx reads x as it is.
size_t DealtCols(size_t cols, const Context& ctx);

}  // namespace cachalot::kernels
