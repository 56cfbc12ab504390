// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/compressor.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cachalot/base/check.h"

namespace cachalot::kernels {
namespace {

// One token's part in the pool, at the first channel it contributes.
struct Row {
  const float* k;
  const float* gate;
};

}  // namespace

void PoolBlock(const CompressorTail& tail, uint32_t j, uint32_t r, bool overlap, std::span<float> y,
               const Context& /*ctx*/) {
  constexpr size_t kMaxRows = 128;  // r of HCA; 2 r of CSA is 8
  const size_t head_size = y.size();
  CACHALOT_CHECK(tail.width == (overlap ? 2 : 1) * head_size && r <= kMaxRows / (overlap ? 2 : 1));
  Row rows[kMaxRows];
  size_t count = 0;
  const auto append = [&](uint32_t position, size_t channel) {
    const size_t at = size_t{position % tail.capacity} * tail.width + channel;
    rows[count++] = {tail.k + at, tail.gate + at};
  };
  if (overlap && j > 0) {
    for (uint32_t p = r * (j - 1); p < r * j; ++p) append(p, 0);
  }
  for (uint32_t p = r * j; p < r * (j + 1); ++p) append(p, overlap ? head_size : 0);

  for (size_t i = 0; i < head_size; ++i) {
    float top = -std::numeric_limits<float>::infinity();
    for (size_t n = 0; n < count; ++n) top = std::max(top, rows[n].gate[i]);
    float sum = 0.0f;
    float weighted = 0.0f;
    for (size_t n = 0; n < count; ++n) {
      const auto w = static_cast<float>(std::exp(double{rows[n].gate[i]} - double{top}));
      sum += w;
      weighted += w * rows[n].k[i];
    }
    y[i] = weighted / sum;
  }
}

}  // namespace cachalot::kernels
