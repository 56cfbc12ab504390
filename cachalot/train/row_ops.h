// SPDX-License-Identifier: Apache-2.0
// Exponentials and maxima of rows.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "cachalot/kernels/context.h"
#include "cachalot/train/reduce.h"

namespace cachalot::train {

// The largest of x [n], n > 0.
template <typename T>
T MaxRow(const T* x, size_t n, const kernels::Context& /*ctx*/) {
  T top = x[0];
  for (size_t i = 1; i < n; ++i) top = std::max(top, x[i]);
  return top;
}

// x <- exp(scale x - shift); returns the sum, in the fixed order of Dot.
template <typename T>
T ExpRow(T* x, size_t n, T scale, T shift, const kernels::Context& /*ctx*/) {
  T lanes[kDotLanes] = {};
  for (size_t i = 0; i < n; ++i) {
    x[i] = std::exp(scale * x[i] - shift);
    lanes[i % kDotLanes] += x[i];
  }
  return SumLanes(lanes);
}

}  // namespace cachalot::train
