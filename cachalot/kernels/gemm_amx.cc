// SPDX-License-Identifier: Apache-2.0
// The tile of gemm.h with BF16 operands on matrix tiles (Sapphire Rapids and later).
//
// Operands are rounded while they are packed, as pairs of neighboring k in one dword: A as rows
// [rows][64 pairs], B in panels [64 pairs][32 columns]. Both are zero past the end of a block, of A
// and of B, so whole tiles are multiplied: 2 x 2 of them, four products for four loads. The sums of
// a block of k go through memory to c.
#include "cachalot/kernels/gemm_tile.h"

#if !defined(__x86_64__)
namespace cachalot::kernels {
GemmTileFn* AmxGemmTileBF16() { return nullptr; }
}  // namespace cachalot::kernels
#else

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 warns inside its own AVX-512 headers: _mm512_undefined is undefined on purpose (PR105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "hwy/base.h"

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16")
#include "cachalot/kernels/amx_tiles-inl.h"
#include "cachalot/kernels/gemm_pack_x86-inl.h"

namespace cachalot::kernels {
namespace {

constexpr size_t kPanel = 2 * kAmxRows;     // columns of B
constexpr size_t kStrip = 2 * kAmxRows;     // rows of A
constexpr size_t kPairs = kGemmBlockK / 2;  // of a row of packed A
static_assert(kPanel <= kGemmMaxPanelCols && kGemmMaxTileRows % kStrip == 0);

// The scratch of a task.
struct Scratch {
  explicit Scratch(float* base)
      : panel(reinterpret_cast<uint32_t*>(base)),
        sums(base + kPanel * kPairs),
        a(panel + kGemmMaxPanelCols * kGemmBlockK) {}
  uint32_t* panel;  // [kPairs][kPanel]
  float* sums;      // [kStrip][kPanel]
  uint32_t* a;      // [tile rows, whole strips][kPairs]
};

size_t RoundUp(size_t n, size_t to) { return (n + to - 1) / to * to; }

// 16 vectors of 16 dwords, zero from `count` on, each to out + i * stride transposed.
void StoreTransposed(__m512i (&rows)[16], uint32_t* out, size_t stride) {
  TransposeDwords(rows);
  for (size_t i = 0; i < 16; ++i) _mm512_store_si512(out + i * stride, rows[i]);
}

// Rows of x from `row` on, `count` of 16: their pairs [16 * p, 16 * p + 16) as columns of `out`.
void PackRowsAcross(const MatView<const float>& x, const Block& block, size_t row, size_t count,
                    uint32_t* out) {
  alignas(64) uint32_t packed[kAmxRows][kPairs];
  for (size_t i = 0; i < count; ++i) {
    PackRow(x.Row(row + i).data() + block.k0, block.depth, packed[i]);
  }
  for (size_t p = 0; p < block.pairs(); p += kAmxPairs) {
    __m512i rows[16];
    for (size_t i = 0; i < 16; ++i) {
      rows[i] = i < count ? _mm512_load_si512(packed[i] + p) : _mm512_setzero_si512();
    }
    StoreTransposed(rows, out + p * kPanel, kPanel);
  }
}

void PackB(const GemmJob& job, const Block& block, size_t n0, size_t cols, uint32_t* out) {
  for (size_t n = 0; n < kPanel; n += kAmxRows, out += kAmxRows) {
    const size_t count = n < cols ? std::min(kAmxRows, cols - n) : 0;
    if (job.b_transposed) {
      PackRowsAcross(job.b, block, n0 + n, count, out);
      continue;
    }
    const size_t end = block.k0 + block.depth;
    for (size_t p = 0; p < RoundUp(block.pairs(), kAmxPairs); ++p) {
      const bool live = p < block.pairs() && count > 0;
      _mm512_store_si512(
          out + p * kPanel,
          live ? PairOfRows(job.b, block.k0 + 2 * p, end, n0 + n, count) : _mm512_setzero_si512());
    }
  }
}

// Columns of a transposed A, 16 of them, to rows.
void PackColumns(const GemmJob& job, const Block& block, size_t m, size_t count, uint32_t* out) {
  const size_t end = block.k0 + block.depth;
  for (size_t p = 0; p < block.pairs(); p += kAmxPairs) {
    __m512i rows[16];
    for (size_t i = 0; i < 16; ++i) {
      const size_t k = block.k0 + 2 * (p + i);
      rows[i] = k < end ? PairOfRows(job.a, k, end, m, count) : _mm512_setzero_si512();
    }
    StoreTransposed(rows, out + p, kPairs);
  }
}

void PackA(const GemmJob& job, const Block& block, size_t m0, size_t rows, uint32_t* out) {
  for (size_t m = 0; m < RoundUp(rows, kStrip); m += kAmxRows, out += kAmxRows * kPairs) {
    const size_t count = m < rows ? std::min(kAmxRows, rows - m) : 0;
    if (job.a_transposed && count > 0) {
      PackColumns(job, block, m0 + m, count, out);
      continue;
    }
    for (size_t i = 0; i < kAmxRows; ++i) {
      if (i < count) {
        PackRow(job.a.Row(m0 + m + i).data() + block.k0, block.depth, out + i * kPairs);
      } else {
        std::memset(out + i * kPairs, 0, kPairs * sizeof(uint32_t));
      }
    }
  }
}

// A strip of A times a panel: sums [kStrip][kPanel].
void MultiplyStrip(const uint32_t* a, const uint32_t* panel, size_t pairs, float* sums) {
  constexpr size_t kAStride = kPairs * sizeof(uint32_t);
  constexpr size_t kBStride = kPanel * sizeof(uint32_t);
  MemoryFence();
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (size_t p = 0; p < pairs; p += kAmxPairs) {
    _tile_loadd(4, a + p, kAStride);
    _tile_loadd(6, panel + p * kPanel, kBStride);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, panel + p * kPanel + kAmxRows, kBStride);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a + kAmxRows * kPairs + p, kAStride);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, sums, kBStride);
  _tile_stored(1, sums + kAmxRows, kBStride);
  _tile_stored(2, sums + kAmxRows * kPanel, kBStride);
  _tile_stored(3, sums + kAmxRows * kPanel + kAmxRows, kBStride);
  MemoryFence();
}

void AddToC(const float* sums, size_t rows, size_t cols, bool add, float* c, size_t stride) {
  for (size_t r = 0; r < rows; ++r, sums += kPanel, c += stride) {
    for (size_t n = 0; n < cols; n += 16) {
      const size_t count = std::min<size_t>(16, cols - n);
      const auto mask = static_cast<__mmask16>((1u << count) - 1u);
      __m512 sum = _mm512_load_ps(sums + n);
      if (add) sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, c + n), sum);
      _mm512_mask_storeu_ps(c + n, mask, sum);
    }
  }
}

void RunTileAmx(const GemmTile& tile) {
  const GemmJob& job = *tile.job;
  const size_t total = tile.depth();
  const Tiles tiles;
  const Scratch scratch(tile.scratch);
  for (size_t k0 = 0; k0 < total; k0 += kGemmBlockK) {
    const Block block{k0, std::min(kGemmBlockK, total - k0)};
    const bool add = job.accumulate || k0 > 0;
    PackA(job, block, tile.m, tile.rows, scratch.a);
    for (size_t n = 0; n < tile.cols; n += kPanel) {
      const size_t cols = std::min(kPanel, tile.cols - n);
      PackB(job, block, tile.n + n, cols, scratch.panel);
      for (size_t m = 0; m < tile.rows; m += kStrip) {
        MultiplyStrip(scratch.a + m * kPairs, scratch.panel, block.pairs(), scratch.sums);
        AddToC(scratch.sums, std::min(kStrip, tile.rows - m), cols, add,
               job.c.Row(tile.m + m).data() + tile.n + n, job.c.stride);
      }
    }
  }
}

}  // namespace

GemmTileFn* AmxGemmTileBF16() { return &RunTileAmx; }

}  // namespace cachalot::kernels
HWY_POP_ATTRIBUTES
#endif  // __x86_64__
