// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/hyper_connection.h"

#include <algorithm>
#include <cmath>

#include "cachalot/base/check.h"
#include "cachalot/kernels/elementwise_simd.h"
#include "cachalot/kernels/matmul_ref.h"

namespace cachalot::kernels {
namespace {

// hc_mult of every released model is 4; 16 leaves room and keeps the maps on the stack.
constexpr size_t kMaxStreams = 16;
// Columns of an HcPost task: about 2 us as vectors.
constexpr size_t kStripColumns = 2048;

float Sigmoid(float x) { return static_cast<float>(1.0 / (1.0 + std::exp(-double{x}))); }

float InverseRms(std::span<const float> u, float eps) {
  return 1.0f / std::sqrt(ref::Dot(u, u) / static_cast<float>(u.size()) + eps);
}

void NormalizeRows(std::span<float> comb, size_t m, float eps) {
  for (size_t j = 0; j < m; ++j) {
    float sum = 0.0f;
    for (size_t k = 0; k < m; ++k) sum += comb[j * m + k];
    for (size_t k = 0; k < m; ++k) comb[j * m + k] /= sum + eps;
  }
}

void NormalizeColumns(std::span<float> comb, size_t m, float eps) {
  for (size_t k = 0; k < m; ++k) {
    float sum = 0.0f;
    for (size_t j = 0; j < m; ++j) sum += comb[j * m + k];
    for (size_t j = 0; j < m; ++j) comb[j * m + k] /= sum + eps;
  }
}

// Onto the doubly stochastic matrices. The paper writes rows after columns; the released code ends
// with columns, and so do we. [V4 2.2; model.md 3.3.6]
void Sinkhorn(std::span<float> comb, size_t m, uint32_t iters, float eps) {
  for (size_t j = 0; j < m; ++j) {
    const std::span<float> row = comb.subspan(j * m, m);
    const float top = *std::ranges::max_element(row);
    float sum = 0.0f;
    for (float& v : row) {
      v = static_cast<float>(std::exp(double{v} - double{top}));
      sum += v;
    }
    for (float& v : row) v = v / sum + eps;
  }
  NormalizeColumns(comb, m, eps);
  for (uint32_t i = 1; i < iters; ++i) {
    NormalizeRows(comb, m, eps);
    NormalizeColumns(comb, m, eps);
  }
}

// y = sum_m pre[m] X[m], streams ascending.
void MixStreams(std::span<const float> streams, std::span<const float> pre, std::span<float> y) {
  // Stream by stream, the compiler vectorizes; the additions of an element keep their order.
  std::ranges::fill(y, 0.0f);
  for (size_t m = 0; m < pre.size(); ++m) {
    const std::span<const float> x = streams.subspan(m * y.size(), y.size());
    for (size_t i = 0; i < y.size(); ++i) y[i] += pre[m] * x[i];
  }
}

void HcPostReference(const HcPostArgs& args, size_t m) {
  for (size_t i = 0; i < args.size; ++i) {
    float old[kMaxStreams];
    for (size_t j = 0; j < m; ++j) old[j] = args.x[j * args.stride + i];
    for (size_t k = 0; k < m; ++k) {
      float sum = args.post[k] * args.z[i];
      for (size_t j = 0; j < m; ++j) sum += args.comb[j * m + k] * old[j];
      args.x[k * args.stride + i] = sum;
    }
  }
}

}  // namespace

void HcPre(MatView<const float> streams, MatView<const float> fn_u, const HcParams& params,
           MatView<float> y, MatView<float> post, MatView<float> comb, const Context& ctx) {
  const size_t m = post.cols;
  CACHALOT_CHECK(m <= kMaxStreams && comb.cols == m * m && fn_u.cols == (2 + m) * m);
  CACHALOT_CHECK(streams.cols == m * y.cols && params.base.size() == fn_u.cols);
  ctx.pool->ParallelFor(streams.rows, [&](size_t t, size_t) {
    const float rs = InverseRms(streams.Row(t), params.norm_eps);
    const std::span<const float> mix = fn_u.Row(t);
    float pre[kMaxStreams];
    for (size_t i = 0; i < m; ++i) {
      pre[i] = Sigmoid(mix[i] * rs * params.scale[0] + params.base[i]) + params.hc_eps;
      post.Row(t)[i] = 2.0f * Sigmoid(mix[m + i] * rs * params.scale[1] + params.base[m + i]);
    }
    for (size_t i = 0; i < m * m; ++i) {
      comb.Row(t)[i] = mix[2 * m + i] * rs * params.scale[2] + params.base[2 * m + i];
    }
    Sinkhorn(comb.Row(t), m, params.sinkhorn_iters, params.hc_eps);
    MixStreams(streams.Row(t), {pre, m}, y.Row(t));
  });
}

void HcPost(MatView<const float> z, MatView<const float> post, MatView<const float> comb,
            MatView<float> streams, const Context& ctx) {
  const size_t m = post.cols;
  const size_t width = z.cols;
  CACHALOT_CHECK(m <= kMaxStreams && streams.cols == m * width && comb.cols == m * m);
  HcPostFn* vectors =
      ctx.path == Path::kSimd && m == kVectorStreams ? HighwayHcPost(ctx.target) : nullptr;
  // Columns are independent: a single token still feeds all threads.
  const size_t strips = (width + kStripColumns - 1) / kStripColumns;
  ctx.pool->ParallelFor(z.rows * strips, [&](size_t i, size_t) {
    const size_t t = i / strips;
    const size_t begin = i % strips * kStripColumns;
    const HcPostArgs strip{.z = z.Row(t).data() + begin,
                           .post = post.Row(t).data(),
                           .comb = comb.Row(t).data(),
                           .x = streams.Row(t).data() + begin,
                           .stride = width,
                           .size = std::min(kStripColumns, width - begin)};
    if (vectors != nullptr) return vectors(strip);
    HcPostReference(strip, m);
  });
}

void HcHead(MatView<const float> streams, MatView<const float> fn_u, const HcParams& params,
            MatView<float> y, const Context& ctx) {
  const size_t m = fn_u.cols;
  CACHALOT_CHECK(m <= kMaxStreams && streams.cols == m * y.cols && params.base.size() == m);
  ctx.pool->ParallelFor(streams.rows, [&](size_t t, size_t) {
    const float rs = InverseRms(streams.Row(t), params.norm_eps);
    float pre[kMaxStreams];
    for (size_t i = 0; i < m; ++i) {
      pre[i] = Sigmoid(fn_u.Row(t)[i] * rs * params.scale[0] + params.base[i]) + params.hc_eps;
    }
    MixStreams(streams.Row(t), {pre, m}, y.Row(t));
  });
}

}  // namespace cachalot::kernels
