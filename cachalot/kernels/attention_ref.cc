// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/attention_ref.h"

#include <algorithm>
#include <cmath>

#include "cachalot/kernels/matmul_ref.h"
#include "cachalot/kernels/quantize.h"

namespace cachalot::kernels::ref {

uint32_t GatherRows(const AttentionQuery& query, uint32_t sliding_window, float* rows) {
  const size_t d = query.window.layout.head_dim;
  uint32_t count = 0;
  const auto next = [&] { return std::span<float>(rows + size_t{count++} * d, d); };
  const uint32_t t = query.position;
  const uint32_t oldest = t + 1 >= sliding_window ? t + 1 - sliding_window : 0;
  for (uint32_t p = std::max(oldest, query.window_begin); p <= t; ++p) {
    LoadKvEntry(query.window, p % query.window.capacity, next());
  }
  for (uint32_t i = 0; i < query.num_compressed; ++i) {
    const uint32_t j = query.selected != nullptr ? query.selected[i] : i;
    const uint32_t per_block = query.compressed.rows_per_block;
    LoadKvEntry(query.compressed.Block(j / per_block), j % per_block, next());
  }
  return count;
}

void AttendHead(const AttentionArgs& args, const AttentionQuery& query, uint32_t h,
                const float* rows, uint32_t num_rows, float* scores) {
  const size_t d = args.head_dim;
  const std::span<const float> q(query.q + h * d, d);
  float top = -INFINITY;
  for (uint32_t i = 0; i < num_rows; ++i) {
    scores[i] = args.scale * Dot(q, {rows + i * d, d});
    top = std::max(top, scores[i]);
  }
  // The sink joins the denominator only. [V4 eq. 27]
  auto denominator = static_cast<float>(std::exp(double{args.sink[h]} - double{top}));
  float* out = query.out + h * d;
  // q was read above: out may be q.
  std::fill_n(out, d, 0.0f);
  for (uint32_t i = 0; i < num_rows; ++i) {
    const auto p = static_cast<float>(std::exp(double{scores[i]} - double{top}));
    denominator += p;
    const float* row = rows + i * d;
    for (size_t k = 0; k < d; ++k) out[k] += p * row[k];
  }
  for (size_t k = 0; k < d; ++k) out[k] /= denominator;
}

}  // namespace cachalot::kernels::ref
