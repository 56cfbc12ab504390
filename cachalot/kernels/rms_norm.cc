// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/rms_norm.h"

#include "cachalot/base/check.h"
#include "cachalot/kernels/rms_norm_ref.h"

namespace cachalot::kernels {

// One path: the reference's 16 lanes vectorize, and a norm is a few microseconds beside the
// products around it.
void RmsNorm(MatView<const float> x, std::span<const float> weight, float eps, MatView<float> out,
             const Context& ctx) {
  CACHALOT_CHECK(x.rows == out.rows && x.cols == out.cols);
  CACHALOT_CHECK(weight.empty() || weight.size() == x.cols);
  // 8 rows a task: a head row of 512 floats takes about 0.1 us, a task switch as much.
  constexpr size_t kRowsPerTask = 8;
  ctx.pool->ParallelFor((x.rows + kRowsPerTask - 1) / kRowsPerTask, [&](size_t task, size_t) {
    const size_t end = std::min(x.rows, (task + 1) * kRowsPerTask);
    for (size_t r = task * kRowsPerTask; r < end; ++r) {
      ref::RmsNorm(x.Row(r), weight, eps, out.Row(r));
    }
  });
}

}  // namespace cachalot::kernels
