// SPDX-License-Identifier: Apache-2.0
// y = x W^T and its backward pass. T is float or double throughout this module.
#pragma once

#include "cachalot/kernels/context.h"
#include "cachalot/train/matrix.h"

namespace cachalot::train {

// x [T, K], w [N, K], y [T, N] overwritten.
template <typename T>
void LinearForward(MatView<const T> x, const Weight<T>& w, MatView<T> y,
                   const kernels::Context& ctx);

// d_x += d_y W, or = with Write::kOverwrite (left out if d_x.data is null); w.grad += d_y^T x. Cost
// 4 T N K flop.
template <typename T>
void LinearBackward(MatView<const T> x, const Weight<T>& w, MatView<const T> d_y, MatView<T> d_x,
                    const kernels::Context& ctx, Write write = Write::kAdd);

}  // namespace cachalot::train
