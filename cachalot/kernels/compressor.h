// SPDX-License-Identifier: Apache-2.0
// Token-level compression: r tokens (2r with overlap) pooled into one entry by a gated softmax per
// channel.  [V4 2.3.1 eq. 9-12, 2.3.2; model.md 4.7]
#pragma once

#include <cstdint>
#include <span>

#include "cachalot/kernels/context.h"

namespace cachalot::kernels {

// A ring of raw rows by position: token p's k and gate (ape added) of width `width` lie at
// k + (p % capacity) * width and gate + (p % capacity) * width.
struct CompressorTail {
  const float* k = nullptr;
  const float* gate = nullptr;
  uint32_t capacity = 0;
  uint32_t width = 0;  // head size, or 2 * head size with overlap
};

// y [hd] = entry `j` before its norm: softmax over the rows of block j, per channel.
// overlap (r = 4): channels [0, hd) of the r tokens of block j-1 (none for j = 0) and channels
// [hd, 2 hd) of the r tokens of block j. Else width == hd, tokens of block j only.
// float32, rows ascending by position.
void PoolBlock(const CompressorTail& tail, uint32_t j, uint32_t r, bool overlap, std::span<float> y,
               const Context& ctx);

}  // namespace cachalot::kernels
