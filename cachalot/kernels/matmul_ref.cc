// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/matmul_ref.h"

namespace cachalot::kernels::ref {
namespace {

constexpr size_t kLanes = 16;

float AsFloat(float x) { return x; }
float AsFloat(BF16 x) { return ToFloat(x); }

template <typename X>
float LaneDot(const X* x, const float* w, size_t size) {
  float acc[kLanes] = {};
  size_t k = 0;
  for (; k + kLanes <= size; k += kLanes) {
    for (size_t i = 0; i < kLanes; ++i) acc[i] += AsFloat(x[k + i]) * w[k + i];
  }
  for (size_t i = 0; k + i < size; ++i) acc[i] += AsFloat(x[k + i]) * w[k + i];
  for (size_t half = kLanes / 2; half > 0; half /= 2) {
    for (size_t i = 0; i < half; ++i) acc[i] += acc[i + half];
  }
  return acc[0];
}

}  // namespace

float Dot(std::span<const float> x, std::span<const float> w) {
  return LaneDot(x.data(), w.data(), w.size());
}

float Dot(std::span<const BF16> x, std::span<const float> w) {
  return LaneDot(x.data(), w.data(), w.size());
}

template <typename X>
void MatMulRows(const MatMulJob<X>& job, uint32_t begin, uint32_t count, std::span<float> widened) {
  const size_t k = job.w.cols;
  for (size_t n = begin; n < size_t{begin} + count; ++n) {
    WidenRow(job.w, n, widened.first(k));
    for (size_t m = 0; m < job.y.rows; ++m) {
      const size_t x_row = job.x_rows != nullptr ? job.x_rows[m] : m;
      job.y.Row(m)[n] = Dot(job.x.Row(x_row), widened.first(k));
    }
  }
}

template void MatMulRows<float>(const MatMulJob<float>&, uint32_t, uint32_t, std::span<float>);
template void MatMulRows<BF16>(const MatMulJob<BF16>&, uint32_t, uint32_t, std::span<float>);

}  // namespace cachalot::kernels::ref
