// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/newton_schulz.h"

#include <algorithm>
#include <cmath>

#include "cachalot/kernels/gemm_f32.h"

namespace cachalot::train {
namespace {

using kernels::GemmB;
using kernels::GemmF32Args;

struct Coefficients {
  float a, b, c;
};
constexpr Coefficients kFast{3.4445f, -4.7750f, 2.0315f};
constexpr Coefficients kSettle{2.0f, -1.5f, 0.5f};

// To Frobenius norm 1: no singular value above 1. The sum runs over all elements in order, in
// double: gradients of 1e-30 must not vanish in their squares.
void Normalize(MatView<float> x) {
  double sum = 0;
  for (size_t r = 0; r < x.rows; ++r) {
    for (const float v : x.Row(r)) sum += double{v} * double{v};
  }
  if (sum == 0) return;
  const double inverse = 1.0 / std::sqrt(sum);
  for (size_t r = 0; r < x.rows; ++r) {
    for (float& v : x.Row(r)) v = static_cast<float>(double{v} * inverse);
  }
}

size_t Rounded(size_t floats) { return (floats + 15) / 16 * 16; }  // keeps 64-byte alignment

template <typename Multiply>
void Iterate(MatView<float> x, float* scratch, const Multiply& multiply) {
  const size_t n = x.rows;
  CACHALOT_CHECK(n <= x.cols);
  const MatView<float> g(scratch, n, n);
  const MatView<float> p(scratch + Rounded(n * n), n, n);
  float* packed = scratch + 2 * Rounded(n * n);
  Normalize(x);
  for (int step = 0; step < kNewtonSchulzFast + kNewtonSchulzSettle; ++step) {
    const Coefficients& q = step < kNewtonSchulzFast ? kFast : kSettle;
    multiply(GemmF32Args{.a = x, .b = x, .b_layout = GemmB::kTransposed, .c = g, .symmetric = true},
             packed);
    multiply(
        GemmF32Args{.a = g, .b = g, .c = p, .alpha = q.c, .beta = q.b, .d = g, .symmetric = true},
        packed);
    multiply(GemmF32Args{.a = p, .b = x, .c = x, .beta = q.a, .d = x}, packed);
  }
}

}  // namespace

size_t NewtonSchulzScratchFloats(size_t rows, size_t cols) {
  const MatView<float> x(nullptr, rows, cols);
  const MatView<float> g(nullptr, rows, rows);
  const size_t packed = std::max(
      kernels::GemmF32ScratchFloats({.a = x, .b = x, .b_layout = GemmB::kTransposed, .c = g}),
      kernels::GemmF32ScratchFloats({.a = g, .b = x, .c = x}));
  return 2 * Rounded(rows * rows) + packed;
}

double NewtonSchulzFlop(size_t rows, size_t cols) {
  const auto n = static_cast<double>(rows);
  const auto m = static_cast<double>(cols);
  return (kNewtonSchulzFast + kNewtonSchulzSettle) * n * n * (m + n + 2 * m);
}

void NewtonSchulzSerial(MatView<float> x, float* scratch, kernels::Target target) {
  Iterate(x, scratch, [&](const GemmF32Args& args, float* packed) {
    kernels::GemmF32Serial(args, packed, target);
  });
}

void NewtonSchulz(MatView<float> x, float* scratch, const kernels::Context& ctx) {
  Iterate(x, scratch,
          [&](const GemmF32Args& args, float* packed) { kernels::GemmF32(args, packed, ctx); });
}

}  // namespace cachalot::train
