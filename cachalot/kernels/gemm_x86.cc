// SPDX-License-Identifier: Apache-2.0
// The tile of gemm.h with BF16 operands: vdpbf16ps (AVX-512 BF16), twice the multiply-adds of
// float32 an instruction. Highway 1.0.3 has no BF16 dot, hence intrinsics.
//
// Operands are rounded while they are packed. Both lie as pairs of neighboring k in one dword: B in
// panels [k / 2][32 columns], A as rows of pairs (k contiguous) or strips [k / 2][8 rows]
// (transposed). An accumulator adds the pairs of a block in ascending k; within a pair the
// instruction adds the odd k first. An odd last k is paired with zero. Subnormal operands count as
// zero.
#include "cachalot/kernels/gemm_tile.h"

#if !defined(__x86_64__)
namespace cachalot::kernels {
GemmTileFn* X86GemmTileBF16() { return nullptr; }
}  // namespace cachalot::kernels
#else

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 warns inside its own AVX-512 headers: _mm512_undefined is undefined on purpose (PR105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "hwy/base.h"

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")
#include "cachalot/kernels/gemm_pack_x86-inl.h"

namespace cachalot::kernels {
namespace {

constexpr size_t kStrip = 8;
constexpr size_t kPanel = 32;
constexpr size_t kMaxPairs = kGemmBlockK / 2;
static_assert(kPanel <= kGemmMaxPanelCols && kGemmMaxTileRows % kStrip == 0);

void PackB(const GemmJob& job, const Block& block, size_t n0, size_t cols, uint32_t* out) {
  if (!job.b_transposed) {
    const size_t end = block.k0 + block.depth;
    for (size_t p = 0; p < block.pairs(); ++p) {
      const size_t k = block.k0 + 2 * p;
      _mm512_store_si512(out + p * kPanel, PairOfRows(job.b, k, end, n0, cols));
      const __m512i high =
          cols > 16 ? PairOfRows(job.b, k, end, n0 + 16, cols - 16) : _mm512_setzero_si512();
      _mm512_store_si512(out + p * kPanel + 16, high);
    }
    return;
  }
  if (cols < kPanel) std::memset(out, 0, block.pairs() * kPanel * sizeof(uint32_t));
  // Four rows of b at a time: their stores share cache lines.
  alignas(64) uint32_t rows[4][kMaxPairs];
  for (size_t n = 0; n < cols; n += 4) {
    const size_t count = std::min<size_t>(4, cols - n);
    for (size_t i = 0; i < count; ++i) {
      PackRow(job.b.Row(n0 + n + i).data() + block.k0, block.depth, rows[i]);
    }
    for (size_t p = 0; p < block.pairs(); ++p) {
      for (size_t i = 0; i < count; ++i) out[p * kPanel + n + i] = rows[i][p];
    }
  }
}

// Rows of a tile of A in pairs: [rows][kMaxPairs], or strips [rows / 8][pairs][8] if transposed.
void PackA(const GemmJob& job, const Block& block, size_t m0, size_t rows, uint32_t* out) {
  if (!job.a_transposed) {
    for (size_t m = 0; m < rows; ++m) {
      PackRow(job.a.Row(m0 + m).data() + block.k0, block.depth, out + m * kMaxPairs);
    }
    return;
  }
  const size_t strip = block.pairs() * kStrip;
  for (size_t p = 0; p < block.pairs(); ++p) {
    uint32_t* to = out + p * kStrip;
    for (size_t m = 0; m < rows; m += 16, to += 2 * strip) {
      const __m512i pairs =
          PairOfRows(job.a, block.k0 + 2 * p, block.k0 + block.depth, m0 + m, rows - m);
      _mm256_store_si256(reinterpret_cast<__m256i*>(to), _mm512_castsi512_si256(pairs));
      if (m + kStrip < rows) {
        _mm256_store_si256(reinterpret_cast<__m256i*>(to + strip),
                           _mm512_extracti64x4_epi64(pairs, 1));
      }
    }
  }
}

// Where the pair p of row r of a strip lies.
struct StripA {
  HWY_INLINE uint32_t At(size_t r, size_t p) const { return a[p * kStrip + r]; }
  const uint32_t* a;
};
struct RowsA {
  HWY_INLINE uint32_t At(size_t r, size_t p) const { return a[r * kMaxPairs + p]; }
  const uint32_t* a;
};

HWY_INLINE void StoreC(__m512 sum, bool add, size_t count, float* c) {
  const __mmask16 mask =
      count >= 16 ? static_cast<__mmask16>(0xFFFF) : static_cast<__mmask16>((1u << count) - 1u);
  if (add) sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, c), sum);
  _mm512_mask_storeu_ps(c, mask, sum);
}

// kRows rows of A times one panel; `cols` of its columns are real.
template <size_t kRows, class A>
HWY_INLINE void MultiplyStrip(const A& a, const uint32_t* panel, size_t pairs, bool add,
                              size_t cols, float* c, size_t stride) {
  __m512 low[kRows];
  __m512 high[kRows];
  HWY_UNROLL(8)
  for (size_t r = 0; r < kRows; ++r) low[r] = high[r] = _mm512_setzero_ps();
  for (size_t p = 0; p < pairs; ++p) {
    const auto b0 = reinterpret_cast<__m512bh>(_mm512_load_si512(panel + p * kPanel));
    const auto b1 = reinterpret_cast<__m512bh>(_mm512_load_si512(panel + p * kPanel + 16));
    HWY_UNROLL(8)
    for (size_t r = 0; r < kRows; ++r) {
      const auto ar =
          reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int32_t>(a.At(r, p))));
      low[r] = _mm512_dpbf16_ps(low[r], ar, b0);
      high[r] = _mm512_dpbf16_ps(high[r], ar, b1);
    }
  }
  HWY_UNROLL(8)
  for (size_t r = 0; r < kRows; ++r) {
    StoreC(low[r], add, cols, c + r * stride);
    if (cols > 16) StoreC(high[r], add, cols - 16, c + r * stride + 16);
  }
}

struct PanelArgs {
  const GemmTile& tile;
  size_t pairs;
  const uint32_t* a;
  const uint32_t* panel;
  size_t cols;
  float* c;  // first row of the tile, first column of the panel
  bool add;
};

template <size_t kRows>
void RunStrip(const PanelArgs& args, size_t m) {
  const size_t stride = args.tile.job->c.stride;
  float* c = args.c + m * stride;
  if (args.tile.job->a_transposed) {
    const StripA a{args.a + m / kStrip * kStrip * args.pairs + m % kStrip};
    MultiplyStrip<kRows>(a, args.panel, args.pairs, args.add, args.cols, c, stride);
  } else {
    const RowsA a{args.a + m * kMaxPairs};
    MultiplyStrip<kRows>(a, args.panel, args.pairs, args.add, args.cols, c, stride);
  }
}

void RunPanel(const PanelArgs& args) {
  size_t m = 0;
  for (; m + kStrip <= args.tile.rows; m += kStrip) RunStrip<kStrip>(args, m);
  if (m + 4 <= args.tile.rows) {
    RunStrip<4>(args, m);
    m += 4;
  }
  if (m + 2 <= args.tile.rows) {
    RunStrip<2>(args, m);
    m += 2;
  }
  if (m < args.tile.rows) RunStrip<1>(args, m);
}

void RunTileBF16(const GemmTile& tile) {
  const GemmJob& job = *tile.job;
  const size_t total = tile.depth();
  auto* panel = reinterpret_cast<uint32_t*>(tile.scratch);
  uint32_t* packed_a = panel + kGemmMaxPanelCols * kGemmBlockK;
  for (size_t k0 = 0; k0 < total; k0 += kGemmBlockK) {
    const Block block{k0, std::min(kGemmBlockK, total - k0)};
    PackA(job, block, tile.m, tile.rows, packed_a);
    for (size_t n = 0; n < tile.cols; n += kPanel) {
      const size_t cols = std::min(kPanel, tile.cols - n);
      PackB(job, block, tile.n + n, cols, panel);
      RunPanel({.tile = tile,
                .pairs = block.pairs(),
                .a = packed_a,
                .panel = panel,
                .cols = cols,
                .c = job.c.Row(tile.m).data() + tile.n + n,
                .add = job.accumulate || k0 > 0});
    }
  }
}

}  // namespace

GemmTileFn* X86GemmTileBF16() { return &RunTileBF16; }

}  // namespace cachalot::kernels
HWY_POP_ATTRIBUTES
#endif  // __x86_64__
