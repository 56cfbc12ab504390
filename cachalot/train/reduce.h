// SPDX-License-Identifier: Apache-2.0
// Sums in a fixed order: the bits of a result depend on the data alone, never on threads.
#pragma once

#include <algorithm>
#include <cstddef>

#include "cachalot/kernels/context.h"
#include "cachalot/train/matrix.h"

namespace cachalot::train {

// Sixteen running sums, then a fixed tree: what the compiler can vectorize without reordering.
inline constexpr size_t kDotLanes = 16;

template <typename T>
T SumLanes(T (&lanes)[kDotLanes]) {
  for (size_t width = kDotLanes / 2; width > 0; width /= 2) {
    for (size_t l = 0; l < width; ++l) lanes[l] += lanes[l + width];
  }
  return lanes[0];
}

template <typename T>
T Dot(const T* a, const T* b, size_t n) {
  T lanes[kDotLanes] = {};
  size_t i = 0;
  for (; i + kDotLanes <= n; i += kDotLanes) {
    for (size_t l = 0; l < kDotLanes; ++l) lanes[l] += a[i + l] * b[i + l];
  }
  for (size_t l = 0; i + l < n; ++l) lanes[l] += a[i + l] * b[i + l];
  return SumLanes(lanes);
}

// Tokens whose contributions to the gradient of a small parameter are summed in one partial.
inline constexpr size_t kTokenBlock = 64;

inline size_t NumTokenBlocks(size_t tokens) { return (tokens + kTokenBlock - 1) / kTokenBlock; }

// Calls body(first token, one past the last, partial [width] zeroed, worker) for blocks of
// kTokenBlock tokens in parallel, then adds the partials to grad [width] in ascending order.
template <typename T, typename Body>
void SumOverTokens(size_t tokens, size_t width, T* grad, const kernels::Context& ctx, Body&& body) {
  const size_t blocks = NumTokenBlocks(tokens);
  AlignedBuffer<T> partials(blocks * width);
  ctx.pool->ParallelFor(blocks, [&](size_t b, size_t worker) {
    const size_t begin = b * kTokenBlock;
    body(begin, std::min(tokens, begin + kTokenBlock), partials.data() + b * width, worker);
  });
  for (size_t b = 0; b < blocks; ++b) {
    for (size_t i = 0; i < width; ++i) grad[i] += partials[b * width + i];
  }
}

// Calls body(first, one past the last) for blocks of kTokenBlock rows in parallel.
template <typename Body>
void ForTokenBlocks(size_t tokens, const kernels::Context& ctx, Body&& body) {
  ctx.pool->ParallelFor(NumTokenBlocks(tokens), [&](size_t b, size_t) {
    const size_t begin = b * kTokenBlock;
    body(begin, std::min(tokens, begin + kTokenBlock));
  });
}

// x <- 0, rows contiguous.
template <typename T>
void ZeroRows(MatView<T> x, const kernels::Context& ctx) {
  ForTokenBlocks(x.rows, ctx, [&](size_t begin, size_t end) {
    std::fill_n(x.Row(begin).data(), (end - begin) * x.cols, T{0});
  });
}

}  // namespace cachalot::train
