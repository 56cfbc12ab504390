// SPDX-License-Identifier: Apache-2.0
// The tile of gemm.h for every Highway target.
//
// A block of kGemmBlockK rows of B is packed into panels of two vectors, zero-padded, so that the
// inner loop loads them one after the other (a panel is 16 KiB with AVX-512: it stays in L1 while
// the rows of A pass). A is read where it lies when k is contiguous; transposed, it is packed into
// strips of kStrip rows, or each k would touch a cache line of its own at a large stride.
#include <cstring>

#include "cachalot/kernels/gemm_tile.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cachalot/kernels/gemm_simd.cc"  // re-included once per target
#include "hwy/foreach_target.h"                             // IWYU pragma: keep
#include "hwy/highway.h"

// After highway.h:
#include "cachalot/kernels/dispatch.h"

HWY_BEFORE_NAMESPACE();
namespace cachalot::kernels {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128

// The portable target is the reference: emulated vectors would only be slower.
void RunGemmTile(const GemmTile& tile) { ref::GemmTileReference(tile); }

#else

namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;
constexpr DF kF32;

// kStrip x 2 accumulators, two vectors of B and one of A fit 16 or 32 registers.
constexpr size_t kStrip = (HWY_TARGET == HWY_AVX2) ? 4 : 8;
constexpr size_t kLanes = hn::MaxLanes(DF());
constexpr size_t kPanel = 2 * kLanes;
static_assert(kPanel <= kGemmMaxPanelCols && kGemmMaxTileCols % kPanel == 0 &&
              kGemmMaxTileRows % kStrip == 0);

// B[k0 .. k0 + depth)[n0 .. n0 + cols) to out [depth][kPanel], zeros behind the last column.
void PackB(const GemmJob& job, size_t k0, size_t depth, size_t n0, size_t cols, float* out) {
  if (!job.b_transposed && cols == kPanel) {
    for (size_t k = 0; k < depth; ++k) {
      const float* from = job.b.Row(k0 + k).data() + n0;
      hn::Store(hn::LoadU(kF32, from), kF32, out + k * kPanel);
      hn::Store(hn::LoadU(kF32, from + kLanes), kF32, out + k * kPanel + kLanes);
    }
    return;
  }
  if (!job.b_transposed) {
    for (size_t k = 0; k < depth; ++k) {
      std::memcpy(out + k * kPanel, job.b.Row(k0 + k).data() + n0, cols * sizeof(float));
      for (size_t n = cols; n < kPanel; ++n) out[k * kPanel + n] = 0.0f;
    }
    return;
  }
  if (cols < kPanel) std::memset(out, 0, depth * kPanel * sizeof(float));
  // Four rows of b at a time: their stores share cache lines.
  size_t n = 0;
  for (; n + 4 <= cols; n += 4) {
    const float* b0 = job.b.Row(n0 + n).data() + k0;
    const float* b1 = job.b.Row(n0 + n + 1).data() + k0;
    const float* b2 = job.b.Row(n0 + n + 2).data() + k0;
    const float* b3 = job.b.Row(n0 + n + 3).data() + k0;
    for (size_t k = 0; k < depth; ++k) {
      float* to = out + k * kPanel + n;
      to[0] = b0[k];
      to[1] = b1[k];
      to[2] = b2[k];
      to[3] = b3[k];
    }
  }
  for (; n < cols; ++n) {
    const float* b = job.b.Row(n0 + n).data() + k0;
    for (size_t k = 0; k < depth; ++k) out[k * kPanel + n] = b[k];
  }
}

// A^T: rows [m0, m0 + rows) at k0 .. k0 + depth to strips [rows / kStrip][depth][kStrip], zeros
// behind the last row.
void PackA(const GemmJob& job, size_t k0, size_t depth, size_t m0, size_t rows, float* out) {
  for (size_t k = 0; k < depth; ++k) {
    const float* from = job.a.Row(k0 + k).data() + m0;
    size_t m = 0;
    float* to = out + k * kStrip;
    for (; m + kStrip <= rows; m += kStrip, to += depth * kStrip) {
      std::memcpy(to, from + m, kStrip * sizeof(float));
    }
    for (size_t i = 0; m + i < rows; ++i) to[i] = from[m + i];
  }
}

// Where element (r, k) of a strip of A lies: packed, or in rows `stride` apart.
struct PackedA {
  HWY_INLINE VF Splat(size_t r, size_t k) const { return hn::Set(kF32, a[k * kStrip + r]); }
  const float* a;
};
struct StoredA {
  HWY_INLINE VF Splat(size_t r, size_t k) const { return hn::Set(kF32, a[r * stride + k]); }
  const float* a;
  size_t stride;
};

// Adds or writes a vector of c, of which `count` lanes are real.
HWY_INLINE void StoreC(VF sum, bool add, size_t count, float* c) {
  if (HWY_LIKELY(count >= kLanes)) {
    hn::StoreU(add ? hn::Add(hn::LoadU(kF32, c), sum) : sum, kF32, c);
    return;
  }
  HWY_ALIGN float lanes[kLanes];
  hn::Store(sum, kF32, lanes);
  for (size_t i = 0; i < count; ++i) c[i] = add ? c[i] + lanes[i] : lanes[i];
}

// kRows rows of A times one panel; `cols` of its columns are real.
template <size_t kRows, class A>
HWY_INLINE void MultiplyStrip(const A& a, const float* panel, size_t depth, bool add, size_t cols,
                              float* c, size_t stride) {
  VF low[kRows];
  VF high[kRows];
  HWY_UNROLL(8)
  for (size_t r = 0; r < kRows; ++r) low[r] = high[r] = hn::Zero(kF32);
  for (size_t k = 0; k < depth; ++k) {
    const VF b0 = hn::Load(kF32, panel + k * kPanel);
    const VF b1 = hn::Load(kF32, panel + k * kPanel + kLanes);
    HWY_UNROLL(8)
    for (size_t r = 0; r < kRows; ++r) {
      const VF ar = a.Splat(r, k);
      low[r] = hn::MulAdd(ar, b0, low[r]);
      high[r] = hn::MulAdd(ar, b1, high[r]);
    }
  }
  HWY_UNROLL(8)
  for (size_t r = 0; r < kRows; ++r) {
    StoreC(low[r], add, cols, c + r * stride);
    if (cols > kLanes) StoreC(high[r], add, cols - kLanes, c + r * stride + kLanes);
  }
}

// One block of K of the tile whose B is packed at `panels`, packed A (if any) at `strips`.
struct BlockArgs {
  const GemmTile& tile;
  size_t k0;
  size_t depth;
  const float* panel;
  size_t cols;  // of the panel
  float* c;     // first row of the tile, first column of the panel
  bool add;
};

template <size_t kRows>
void RunStrip(const BlockArgs& args, const float* strips, size_t m) {
  const GemmJob& job = *args.tile.job;
  float* c = args.c + m * job.c.stride;
  if (job.a_transposed) {
    const PackedA a{strips + m / kStrip * kStrip * args.depth + m % kStrip};
    MultiplyStrip<kRows>(a, args.panel, args.depth, args.add, args.cols, c, job.c.stride);
  } else {
    const StoredA a{job.a.data + (args.tile.m + m) * job.a.stride + args.k0, job.a.stride};
    MultiplyStrip<kRows>(a, args.panel, args.depth, args.add, args.cols, c, job.c.stride);
  }
}

void RunPanel(const BlockArgs& args, const float* strips) {
  size_t m = 0;
  for (; m + kStrip <= args.tile.rows; m += kStrip) RunStrip<kStrip>(args, strips, m);
  if (m + 4 <= args.tile.rows) {
    RunStrip<4>(args, strips, m);
    m += 4;
  }
  if (m + 2 <= args.tile.rows) {
    RunStrip<2>(args, strips, m);
    m += 2;
  }
  if (m < args.tile.rows) RunStrip<1>(args, strips, m);
}

void RunGemmTile(const GemmTile& tile) {
  const GemmJob& job = *tile.job;
  const size_t total = tile.depth();
  float* panel = tile.scratch;
  float* strips = tile.scratch + kGemmMaxPanelCols * kGemmBlockK;
  for (size_t k0 = 0; k0 < total; k0 += kGemmBlockK) {
    const size_t depth = HWY_MIN(kGemmBlockK, total - k0);
    if (job.a_transposed) PackA(job, k0, depth, tile.m, tile.rows, strips);
    for (size_t n = 0; n < tile.cols; n += kPanel) {
      const size_t cols = HWY_MIN(kPanel, tile.cols - n);
      PackB(job, k0, depth, tile.n + n, cols, panel);
      RunPanel({.tile = tile,
                .k0 = k0,
                .depth = depth,
                .panel = panel,
                .cols = cols,
                .c = job.c.Row(tile.m).data() + tile.n + n,
                .add = job.accumulate || k0 > 0},
               strips);
    }
  }
}

#endif  // HWY_TARGET

}  // namespace HWY_NAMESPACE
}  // namespace cachalot::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cachalot::kernels {

GemmTileFn* HighwayGemmTile(Target target) { return CACHALOT_TARGET_FN(RunGemmTile, target); }

}  // namespace cachalot::kernels
#endif  // HWY_ONCE
