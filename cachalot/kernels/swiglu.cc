// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/swiglu.h"

#include <algorithm>
#include <cmath>

#include "cachalot/base/check.h"
#include "cachalot/kernels/elementwise_simd.h"

namespace cachalot::kernels {
namespace {

void SwiGluRow(std::span<const float> g, std::span<const float> u, float limit, float weight,
               std::span<float> h) {
  for (size_t i = 0; i < h.size(); ++i) {
    const float gate = std::min(g[i], limit);
    const float up = std::clamp(u[i], -limit, limit);
    const auto silu = static_cast<float>(double{gate} / (1.0 + std::exp(-double{gate})));
    h[i] = weight * (silu * up);
  }
}

}  // namespace

void SwiGlu(MatView<const float> g, MatView<const float> u, float limit,
            std::span<const float> row_weights, MatView<float> h, const Context& ctx) {
  CACHALOT_CHECK(g.rows == h.rows && u.rows == h.rows && g.cols == h.cols && u.cols == h.cols);
  CACHALOT_CHECK(row_weights.empty() || row_weights.size() == h.rows);
  SwiGluFn* vectors = ctx.path == Path::kSimd ? HighwaySwiGlu(ctx.target) : nullptr;
  ctx.pool->ParallelFor(h.rows, [&](size_t r, size_t) {
    const float weight = row_weights.empty() ? 1.0f : row_weights[r];
    if (vectors == nullptr) return SwiGluRow(g.Row(r), u.Row(r), limit, weight, h.Row(r));
    vectors({g.Row(r).data(), u.Row(r).data(), h.Row(r).data(), h.cols, limit, weight});
  });
}

}  // namespace cachalot::kernels
