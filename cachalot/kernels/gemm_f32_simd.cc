// SPDX-License-Identifier: Apache-2.0
// gemm_f32 for every Highway target.
//
// A tile is kRows rows of C and one panel of op(B), two vectors wide on AVX-512: 16 accumulators
// hide the 4 cycles of an fma at two a cycle, and a step loads 2 vectors and broadcasts 8 floats
// for 16 fma, so loads are no limit. Eight rows and not the 12 that would fit: the matrices of
// these models have powers of two rows. The accumulators stay in registers over all of K, since a
// panel of K = 2048 is 256 KiB and L2 feeds 16 bytes a cycle easily. A is broadcast from where it
// lies: it is row-major, so eight streams of consecutive floats.
#include "cachalot/kernels/gemm_f32_simd.h"

#include <algorithm>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cachalot/kernels/gemm_f32_simd.cc"  // re-included once per target
#include "hwy/foreach_target.h"                                 // IWYU pragma: keep
#include "hwy/highway.h"

// After highway.h:
#include "cachalot/kernels/dispatch.h"

HWY_BEFORE_NAMESPACE();
namespace cachalot::kernels {
namespace HWY_NAMESPACE {

// The portable target keeps one chain an element as well, without fma.
#undef CACHALOT_GEMM_VECTORS
#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
#define CACHALOT_GEMM_VECTORS 0
#else
#define CACHALOT_GEMM_VECTORS 1
#endif

#if CACHALOT_GEMM_VECTORS

namespace hn = hwy::HWY_NAMESPACE;
using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;
constexpr DF kF32;
constexpr size_t kLanes = hn::MaxLanes(DF());
// AVX2 has 16 registers: 4 rows x 2 vectors. Narrower vectors take several passes over a panel.
constexpr size_t kVectors = 2;
constexpr size_t kRows = HWY_TARGET == HWY_AVX2 ? 4 : 8;

// out[r][0 .. kVectors * kLanes) = sum_k a[r][k] * panel[k][..]
HWY_INLINE void Tile(const float* HWY_RESTRICT a, size_t stride, size_t size_k,
                     const float* HWY_RESTRICT panel, float* HWY_RESTRICT out) {
  VF sum[kRows][kVectors];
  HWY_UNROLL(8)
  for (size_t r = 0; r < kRows; ++r) {
    HWY_UNROLL(2)
    for (size_t v = 0; v < kVectors; ++v) sum[r][v] = hn::Zero(kF32);
  }
  for (size_t k = 0; k < size_k; ++k) {
    VF b[kVectors];
    HWY_UNROLL(2)
    for (size_t v = 0; v < kVectors; ++v) b[v] = hn::LoadU(kF32, panel + v * kLanes);
    panel += kGemmPanel;
    HWY_UNROLL(8)
    for (size_t r = 0; r < kRows; ++r) {
      const VF x = hn::Set(kF32, a[r * stride + k]);
      HWY_UNROLL(2)
      for (size_t v = 0; v < kVectors; ++v) sum[r][v] = hn::MulAdd(x, b[v], sum[r][v]);
    }
  }
  HWY_UNROLL(8)
  for (size_t r = 0; r < kRows; ++r) {
    HWY_UNROLL(2)
    for (size_t v = 0; v < kVectors; ++v) {
      hn::StoreU(sum[r][v], kF32, out + r * kGemmPanel + v * kLanes);
    }
  }
}

// Four floats of four rows, transposed: out[k * kGemmPanel + r] = in[r * stride + k].
HWY_INLINE void Transpose4x4(const float* in, size_t stride, float* out) {
  const hn::FixedTag<float, 4> d;
  const hn::FixedTag<double, 2> d64;
  const auto r0 = hn::LoadU(d, in);
  const auto r1 = hn::LoadU(d, in + stride);
  const auto r2 = hn::LoadU(d, in + 2 * stride);
  const auto r3 = hn::LoadU(d, in + 3 * stride);
  const auto lo01 = hn::BitCast(d64, hn::InterleaveLower(d, r0, r1));  // 00 10 01 11
  const auto hi01 = hn::BitCast(d64, hn::InterleaveUpper(d, r0, r1));  // 02 12 03 13
  const auto lo23 = hn::BitCast(d64, hn::InterleaveLower(d, r2, r3));
  const auto hi23 = hn::BitCast(d64, hn::InterleaveUpper(d, r2, r3));
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d64, lo01, lo23)), d, out);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d64, lo01, lo23)), d, out + kGemmPanel);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d64, hi01, hi23)), d, out + 2 * kGemmPanel);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d64, hi01, hi23)), d, out + 3 * kGemmPanel);
}

#else

constexpr size_t kRows = 8;

void Tile(const float* a, size_t stride, size_t size_k, const float* panel, float* out) {
  for (size_t r = 0; r < kRows; ++r) {
    float sum[kGemmPanel] = {};
    for (size_t k = 0; k < size_k; ++k) {
      const float x = a[r * stride + k];
      for (size_t j = 0; j < kGemmPanel; ++j) sum[j] += x * panel[k * kGemmPanel + j];
    }
    std::memcpy(out + r * kGemmPanel, sum, sizeof(sum));
  }
}

#endif

// Columns [j, j + cols) of B^T, from rows of B.
void PackTransposed(const MatView<const float>& b, size_t j, size_t cols, float* out) {
  size_t c = 0;
#if CACHALOT_GEMM_VECTORS
  for (; c + 4 <= cols; c += 4) {
    const float* in = b.data + (j + c) * b.stride;
    size_t k = 0;
    for (; k + 4 <= b.cols; k += 4) Transpose4x4(in + k, b.stride, out + k * kGemmPanel + c);
    for (; k < b.cols; ++k) {
      for (size_t r = 0; r < 4; ++r) out[k * kGemmPanel + c + r] = in[r * b.stride + k];
    }
  }
#endif
  for (; c < cols; ++c) {
    const float* in = b.data + (j + c) * b.stride;
    for (size_t k = 0; k < b.cols; ++k) out[k * kGemmPanel + c] = in[k];
  }
}

void Pack(const GemmF32Args& args, size_t p, float* scratch) {
  const size_t size_k = args.a.cols;
  const size_t j = p * kGemmPanel;
  const size_t cols = std::min(kGemmPanel, args.c.cols - j);
  float* out = scratch + p * kGemmPanel * size_k;
  if (cols < kGemmPanel) std::memset(out, 0, size_k * kGemmPanel * sizeof(float));
  if (args.b_layout == GemmB::kTransposed) return PackTransposed(args.b, j, cols, out);
  for (size_t k = 0; k < size_k; ++k) {
    std::memcpy(out + k * kGemmPanel, args.b.data + k * args.b.stride + j, cols * sizeof(float));
  }
}

// c = alpha sums + beta d. Products and sum round apart, in vectors as in the tail.
HWY_INLINE void ScaleRow(const GemmF32Args& args, size_t i, size_t j, size_t first, size_t cols,
                         const float* sums) {
  float* c = args.c.data + i * args.c.stride + j;
  const float* d = args.beta == 0.0f ? nullptr : args.d.data + i * args.d.stride + j;
  size_t n = first;
#if CACHALOT_GEMM_VECTORS
  const VF alpha = hn::Set(kF32, args.alpha);
  const VF beta = hn::Set(kF32, args.beta);
  for (; n + kLanes <= cols; n += kLanes) {
    VF x = hn::Mul(alpha, hn::LoadU(kF32, sums + n));
    if (d != nullptr) x = hn::Add(x, hn::Mul(beta, hn::LoadU(kF32, d + n)));
    hn::StoreU(x, kF32, c + n);
  }
#endif
  for (; n < cols; ++n) {
    const float x = args.alpha * sums[n];
    c[n] = d == nullptr ? x : x + args.beta * d[n];
  }
}

// One row of a tile to its place, and to its mirror image in a symmetric C. Only elements with
// j >= i are taken then, so each element has one writer whatever the tiles are.
HWY_INLINE void StoreRow(const GemmF32Args& args, size_t i, size_t j, size_t cols,
                         const float* sums) {
  const size_t first = args.symmetric && i > j ? std::min(i - j, cols) : 0;
  ScaleRow(args, i, j, first, cols, sums);
  if (!args.symmetric) return;
  const float* c = args.c.data + i * args.c.stride + j;
  for (size_t n = first; n < cols; ++n) args.c.data[(j + n) * args.c.stride + i] = c[n];
}

void Rows(const GemmF32Args& args, size_t begin, size_t count, const float* scratch) {
  const size_t size_k = args.a.cols;
  alignas(64) float sums[kRows * kGemmPanel];
#if CACHALOT_GEMM_VECTORS
  constexpr size_t kPass = kVectors * kLanes;
#else
  constexpr size_t kPass = kGemmPanel;
#endif
  for (size_t p = 0; p < GemmPanels(args.c.cols); ++p) {
    const size_t j = p * kGemmPanel;
    const size_t cols = std::min(kGemmPanel, args.c.cols - j);
    const float* panel = scratch + j * size_k;
    for (size_t r = 0; r < count; r += kRows) {
      const size_t i = begin + r;
      if (args.symmetric && j + cols <= i) continue;  // all of it is below the diagonal
      // The last tile steps back to full height; rows computed twice get the same bits, and are
      // stored once.
      const size_t rows = std::min(kRows, count - r);
      const size_t top = rows == kRows || args.a.rows < kRows ? i : i + rows - kRows;
      if (args.a.rows < kRows) {
        // No full tile fits anywhere: single rows, stride 0 repeats them.
        for (size_t q = 0; q < rows; ++q) {
          for (size_t v = 0; v < kGemmPanel; v += kPass) {
            Tile(args.a.data + (i + q) * args.a.stride, 0, size_k, panel + v, sums + v);
          }
          StoreRow(args, i + q, j, cols, sums);
        }
        continue;
      }
      for (size_t v = 0; v < kGemmPanel; v += kPass) {
        Tile(args.a.data + top * args.a.stride, args.a.stride, size_k, panel + v, sums + v);
      }
      for (size_t q = i - top; q < i - top + rows; ++q) {
        StoreRow(args, top + q, j, cols, sums + q * kGemmPanel);
      }
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace cachalot::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cachalot::kernels {

void PackGemmPanel(const GemmF32Args& args, size_t p, float* scratch, Target target) {
  CACHALOT_TARGET_FN(Pack, target)(args, p, scratch);
}

void GemmRows(const GemmF32Args& args, size_t begin, size_t count, const float* scratch,
              Target target) {
  CACHALOT_TARGET_FN(Rows, target)(args, begin, count, scratch);
}

}  // namespace cachalot::kernels
#endif  // HWY_ONCE
