// SPDX-License-Identifier: Apache-2.0
// Dots, exponentials and maxima of rows: vectors of the target in float32, plain loops in float64.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <type_traits>

#include "cachalot/kernels/context.h"
#include "cachalot/kernels/rows.h"
#include "cachalot/train/reduce.h"

namespace cachalot::train {

template <typename T>
T DotRow(const T* a, const T* b, size_t n, const kernels::Context& ctx) {
  if constexpr (std::is_same_v<T, float>) return kernels::RowsFor(ctx.target).dot(a, b, n);
  return Dot(a, b, n);
}

// The largest of x [n], n > 0.
template <typename T>
T MaxRow(const T* x, size_t n, const kernels::Context& ctx) {
  if constexpr (std::is_same_v<T, float>) return kernels::RowsFor(ctx.target).max(x, n);
  T top = x[0];
  for (size_t i = 1; i < n; ++i) top = std::max(top, x[i]);
  return top;
}

// x <- exp(scale x - shift); returns the sum, in a fixed order.
template <typename T>
T ExpRow(T* x, size_t n, T scale, T shift, const kernels::Context& ctx) {
  if constexpr (std::is_same_v<T, float>) {
    return kernels::RowsFor(ctx.target).exp(x, n, scale, shift);
  }
  T lanes[kDotLanes] = {};
  for (size_t i = 0; i < n; ++i) {
    x[i] = std::exp(scale * x[i] - shift);
    lanes[i % kDotLanes] += x[i];
  }
  return SumLanes(lanes);
}

}  // namespace cachalot::train
