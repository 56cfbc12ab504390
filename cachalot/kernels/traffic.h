// SPDX-License-Identifier: Apache-2.0
// What matrix products read and widen, counted: the part of a kernel's cost that a change must not
// raise unnoticed, exact on any machine, where instruction counters do not reach (AVX-512 under
// valgrind).
#pragma once

#include <atomic>
#include <cstdint>

#include "cachalot/tensor/matrix.h"

namespace cachalot::kernels {

// Relaxed: totals are read after the parallel regions that add to them.
struct TrafficCounters {
  std::atomic<uint64_t> weight_bytes{0};     // codes as stored, without scales
  std::atomic<uint64_t> widened_weights{0};  // FP4 and FP8
  std::atomic<uint64_t> dots{0};             // multiply-adds

  // `rows` rows of `w`, read and widened once for `tokens` tokens.
  void Add(const WeightView& w, uint64_t rows, uint64_t tokens) {
    weight_bytes.fetch_add(rows * w.row_bytes(), std::memory_order_relaxed);
    dots.fetch_add(rows * w.cols * tokens, std::memory_order_relaxed);
    if (w.kind == WeightKind::kFP4 || w.kind == WeightKind::kFP8) {
      widened_weights.fetch_add(rows * w.cols, std::memory_order_relaxed);
    }
  }
};

}  // namespace cachalot::kernels
