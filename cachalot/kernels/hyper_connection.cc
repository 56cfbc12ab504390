// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/hyper_connection.h"

#include <algorithm>
#include <cmath>

#include "cachalot/kernels/matmul_ref.h"

namespace cachalot::kernels {
namespace {

// hc_mult of every released model is 4; 16 leaves room and keeps the maps on the stack.
constexpr size_t kMaxStreams = 16;

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
  for (size_t i = 0; i < y.size(); ++i) {
    float sum = 0.0f;
    for (size_t m = 0; m < pre.size(); ++m) sum += pre[m] * streams[m * y.size() + i];
    y[i] = sum;
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
  CACHALOT_CHECK(m <= kMaxStreams && streams.cols == m * width);
  ctx.pool->ParallelFor(z.rows, [&](size_t t, size_t) {
    float* x = streams.Row(t).data();
    const float* c = comb.Row(t).data();
    for (size_t i = 0; i < width; ++i) {
      float old[kMaxStreams];
      for (size_t j = 0; j < m; ++j) old[j] = x[j * width + i];
      for (size_t k = 0; k < m; ++k) {
        float sum = post.Row(t)[k] * z.Row(t)[i];
        for (size_t j = 0; j < m; ++j) sum += c[j * m + k] * old[j];
        x[k * width + i] = sum;
      }
    }
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
