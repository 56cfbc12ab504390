// SPDX-License-Identifier: Apache-2.0
// The nearest semi-orthogonal matrix, approximately: the direction Muon steps in. [V4 2.4 eq. 28]
//
//   X_0 = X / |X|_F,   X_k = a X + b (X X^T) X + c (X X^T)^2 X
//
// eight times with (a, b, c) = (3.4445, -4.7750, 2.0315), which drives every singular value that is
// not tiny near 1, then twice with (2, -1.5, 0.5), which settles it there. Singular vectors stay.
#pragma once

#include <cstddef>

#include "cachalot/kernels/context.h"
#include "cachalot/tensor/matrix.h"

namespace cachalot::train {

inline constexpr int kNewtonSchulzFast = 8;
inline constexpr int kNewtonSchulzSettle = 2;

size_t NewtonSchulzScratchFloats(size_t rows, size_t cols);

// Multiply-adds times two of all iterations, as computed: half for the symmetric products.
double NewtonSchulzFlop(size_t rows, size_t cols);

// Overwrites x, rows <= cols, on the calling thread. A zero matrix stays zero. `scratch` is 64-byte
// aligned. Each step is P = b G + c G G with G = X X^T, then X = a X + P X: rows^2 (2 rows + 3
// cols) flop or so, against rows^2 4 cols with the three products written out.
void NewtonSchulzSerial(MatView<float> x, float* scratch, kernels::Target target);

// The same bits on all threads of ctx.pool.
void NewtonSchulz(MatView<float> x, float* scratch, const kernels::Context& ctx);

}  // namespace cachalot::train
