// SPDX-License-Identifier: Apache-2.0
// BF16 products with vdpbf16ps (AVX-512 BF16 and VBMI: Zen 4, Sapphire Rapids). Highway 1.0.3 has
// no BF16 dot, hence intrinsics.
//
// An accumulator is one zmm. A vector of 32 columns adds x w of the odd word, then of the even
// word, of dword i to lane i; which columns those are is the reader's Order. Vectors ascend; rows
// end with zeros up to a whole step; lanes end in a tree 8, 4, 2, 1. That order is the same in all
// ways a panel can run:
//   up to 6 tokens   weights are widened in registers and used at once: bound by memory
//   up to 48         so for the first tile of tokens, which keeps 4 widened rows for the others
//   more             the panel is widened once into scratch (L2), tiles of 3 tokens pass over it
// The instruction takes subnormal inputs for zero, so weights must widen to normal numbers: scales
// that would not let them send the row through ref::Dot.
#include "cachalot/kernels/matmul_panel.h"
#include "cachalot/kernels/matmul_ref.h"

#if !defined(__x86_64__)
namespace cachalot::kernels {
PanelFn<BF16>* X86PanelBF16() { return nullptr; }
}  // namespace cachalot::kernels
#else

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 warns inside its own AVX-512 headers: _mm512_undefined is undefined on purpose (PR105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "hwy/base.h"

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512bf16")
#include "cachalot/kernels/weight_readers_x86-inl.h"

namespace cachalot::kernels {
namespace {

using Panel = MatMulPanel<BF16>;

constexpr size_t kVector = 32;  // BF16 of a zmm
// Every loop over accumulators here is unrolled by pragma: at -O2 GCC keeps short loops, and one
// that indexes `acc` at run time holds it in memory (half the speed, seen twice).
//
// Tokens by rows of a tile have 24 accumulators at most; x, w, the tables and constants of a reader
// share the other 8 registers.
constexpr size_t kWideTokens = 3;    // by 8 rows
constexpr size_t kDirectTokens = 6;  // by 4 rows where more than 3
// More tokens than this have the whole panel widened first (docs/log.md, 2026-11-24: tiles are 1.0
// to 1.4 times as fast at 8 to 48 tokens), and so have tokens that would not fit Scratch::packed.
constexpr size_t MaxTiledTokens(size_t cols) { return std::min<size_t>(48, PanelRows(cols) - 2); }

// The scratch of a task, see PanelScratchBytes. Widened BF16 fills half of the room of a panel, so
// packed tokens lie in the other half: up to two fewer than the panel has rows, a line apart.
struct Scratch {
  explicit Scratch(const Panel& panel) {
    const size_t padded = PaddedCols(panel.job->w.cols);
    const size_t panel_words = PanelRows(panel.job->w.cols) * padded;
    widened = reinterpret_cast<uint16_t*>(panel.scratch);
    packed = widened + panel_words;
    row = reinterpret_cast<float*>(packed + panel_words);
    scales = reinterpret_cast<uint8_t*>(row + padded);
  }
  uint16_t* widened;  // [groups][padded / 32][kGroupRows][32]
  uint16_t* packed;   // [tokens][padded + a line]: x in the reader's order
  float* row;         // [padded]
  uint8_t* scales;    // [padded]: what a reader makes of a group's scales
};
static_assert(kDirectTokens <= kGroupRows);

HWY_INLINE __m512 Dot(__m512 acc, __m512i x, __m512i w) {
  return _mm512_dpbf16_ps(acc, (__m512bh)x, (__m512bh)w);
}

// Sums of the lanes of four accumulators: halves, quarters, pairs, neighbors.
HWY_INLINE __m128 Reduce4(const __m512* acc) {
  const __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(acc[0], acc[1], 0x44),
                                  _mm512_shuffle_f32x4(acc[0], acc[1], 0xEE));
  const __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(acc[2], acc[3], 0x44),
                                  _mm512_shuffle_f32x4(acc[2], acc[3], 0xEE));
  __m512 u = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xDD));
  u = _mm512_add_ps(u, _mm512_permute_ps(u, 0x4E));
  u = _mm512_add_ps(u, _mm512_permute_ps(u, 0xB1));
  const __m512i firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
  return _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, u));
}

// Writes `count` outputs of one token from kRows accumulators; a negative count writes none.
template <size_t kRows>
HWY_INLINE void StoreOutputs(const __m512* acc, int count, float* y) {
  HWY_UNROLL(2)
  for (int r = 0; r < static_cast<int>(kRows); r += 4) {
    if (r >= count) break;
    _mm_mask_storeu_ps(y + r, static_cast<__mmask8>(LowBits32(static_cast<size_t>(count - r))),
                       Reduce4(acc + r));
  }
}

// x of token m of a job in the reader's order, in slot i of the packed ones. Slots are a line more
// than a row apart: rows a multiple of 4 KiB apart fall into the same set of L1.
template <class Reader>
const uint16_t* PackToken(const Panel& panel, size_t m, size_t i, const Scratch& scratch) {
  const size_t cols = panel.job->w.cols;
  return InOrder<Reader>(panel.XRow(m), cols, scratch.packed + i * (PaddedCols(cols) + kVector));
}
template <class Reader, size_t kTokens>
void PackTokens(const Panel& panel, size_t m, const Scratch& scratch,
                const uint16_t* (&x)[kTokens]) {
  for (size_t i = 0; i < kTokens; ++i) x[i] = PackToken<Reader>(panel, m + i, i, scratch);
}

template <size_t kTokens, size_t kRows>
HWY_INLINE void Clear(__m512 (&acc)[kTokens][kRows]) {
  HWY_UNROLL(8)
  for (auto& row : acc) {
    HWY_UNROLL(8)
    for (__m512& a : row) a = _mm512_setzero_ps();
  }
}

// What `load(r, w)` widens, times the tokens' x at column k.
template <size_t kTokens, size_t kRows, size_t kVectors, class Load>
HWY_INLINE void MultiplyStep(const uint16_t* const* x, size_t k, __m512 (&acc)[kTokens][kRows],
                             Load load) {
  // x of one or two tokens stays in registers for all rows; more would not fit, and then a load
  // for every product is no slower: the core does one of each a cycle.
  constexpr bool kHoist = kTokens * kVectors <= 8;
  __m512i held[kHoist ? kTokens : 1][kVectors];
  if constexpr (kHoist) {
    HWY_UNROLL(8)
    for (size_t i = 0; i < kTokens; ++i) {
      HWY_UNROLL(8)
      for (size_t v = 0; v < kVectors; ++v) {
        held[i][v] = _mm512_loadu_si512(x[i] + k + v * kVector);
      }
    }
  }
  HWY_UNROLL(8)
  for (uint32_t r = 0; r < kRows; ++r) {
    __m512i w[kVectors];
    load(r, w);
    HWY_UNROLL(8)
    for (size_t v = 0; v < kVectors; ++v) {
      HWY_UNROLL(8)
      for (size_t i = 0; i < kTokens; ++i) {
        const __m512i xv =
            kHoist ? held[kHoist ? i : 0][v] : _mm512_loadu_si512(x[i] + k + v * kVector);
        acc[i][r] = Dot(acc[i][r], xv, w[v]);
      }
    }
  }
}

// Rows of stored bytes that will be read soon, to L2. The hardware prefetcher of a core does not
// follow 8 rows at once, and L1 has no room for them beside x (docs/log.md, 2026-11-23).
struct Upcoming {
  HWY_INLINE void Prefetch(size_t r, size_t begin, size_t bytes) const {
    for (size_t b = 0; b < bytes; b += kCacheLineBytes) {
      _mm_prefetch(reinterpret_cast<const char*>(base + r * stride + begin + b), _MM_HINT_T1);
    }
  }
  const uint8_t* base;
  size_t stride;
};

// The sources of widened rows. Not lambdas: those would not get this file's target.
template <class Reader>
struct FromReader {
  HWY_INLINE void operator()(uint32_t r, __m512i* w) const {
    next.Prefetch(r, step * Reader::kStepBytes, Reader::kStepBytes);
    reader.Load(first + r, step, w);
  }
  const Reader& reader;
  Upcoming next;
  uint32_t first;
  size_t step;
};
template <class Reader>
struct FromReaderTail {
  HWY_INLINE void operator()(uint32_t r, __m512i* w) const {
    reader.LoadTail(first + r, step, cols, w);
  }
  const Reader& reader;
  uint32_t first;
  size_t step, cols;
};
// Another source, whose vectors also go to `out` [kVectors][kRows][32].
template <class Source, size_t kVectors, size_t kRows>
struct Keeping {
  HWY_INLINE void operator()(uint32_t r, __m512i* w) const {
    source(r, w);
    HWY_UNROLL(8)
    for (size_t v = 0; v < kVectors; ++v) {
      _mm512_store_si512(out + (v * kRows + r) * kVector, w[v]);
    }
  }
  Source source;
  uint16_t* out;
};
struct FromScratch {
  HWY_INLINE void operator()(uint32_t r, __m512i* w) const {
    *w = _mm512_load_si512(widened + r * kVector);
  }
  const uint16_t* widened;
};

// Rows [first, first + kRows) of a group times kTokens tokens, weights widened in registers; with
// kKeep they go to `keep` [vectors][kRows][32] as well.
template <bool kKeep, size_t kTokens, size_t kRows, class Reader>
HWY_INLINE void MultiplyRows(Reader& reader, Upcoming next, const uint16_t* const* x, size_t cols,
                             uint32_t first, uint16_t* keep, __m512 (&acc)[kTokens][kRows]) {
  Clear(acc);
  constexpr size_t kStep = Reader::kStep;
  constexpr size_t kVectors = Reader::kVectors;
  const size_t steps = cols / kStep;
  for (size_t step = 0; step < steps; ++step) {
    reader.StartStep(step);
    const FromReader<Reader> source{reader, next, first, step};
    if constexpr (kKeep) {
      using Kept = Keeping<FromReader<Reader>, kVectors, kRows>;
      MultiplyStep<kTokens, kRows, kVectors>(x, step * kStep, acc,
                                             Kept{source, keep + step * kStep * kRows});
    } else {
      MultiplyStep<kTokens, kRows, kVectors>(x, step * kStep, acc, source);
    }
  }
  if (cols % kStep != 0) {
    reader.StartStep(steps);
    const FromReaderTail<Reader> source{reader, first, steps, cols % kStep};
    if constexpr (kKeep) {
      using Kept = Keeping<FromReaderTail<Reader>, kVectors, kRows>;
      MultiplyStep<kTokens, kRows, kVectors>(x, steps * kStep, acc,
                                             Kept{source, keep + steps * kStep * kRows});
    } else {
      MultiplyStep<kTokens, kRows, kVectors>(x, steps * kStep, acc, source);
    }
  }
}

// Rows widened at `w` [cols / 32][kRows][32] times kTokens tokens.
template <size_t kTokens, size_t kRows>
HWY_INLINE void MultiplyStored(const uint16_t* w, size_t cols, const uint16_t* const* x,
                               __m512 (&acc)[kTokens][kRows]) {
  Clear(acc);
  for (size_t k = 0; k < cols; k += kVector, w += kRows * kVector) {
    MultiplyStep<kTokens, kRows, 1>(x, k, acc, FromScratch{w});
  }
}

// Outputs of tokens [m, m + kTokens), rows from n on, of which `count` are real.
template <size_t kTokens, size_t kRows>
HWY_INLINE void StoreTile(const MatView<float>& y, size_t m, size_t n, int count,
                          const __m512 (&acc)[kTokens][kRows]) {
  HWY_UNROLL(8)
  for (size_t i = 0; i < kTokens; ++i) {
    StoreOutputs<kRows>(acc[i], count, y.data + (m + i) * y.stride + n);
  }
}

// The rows that follow `rows` rows from n on.
Upcoming RowsAfter(const WeightView& w, uint32_t n, uint32_t rows) {
  return {w.row(n) + rows * w.row_bytes(), w.row_bytes()};
}

// All rows of a panel times kTokens tokens.
template <size_t kTokens, class Reader>
uint64_t MultiplyDirect(const Panel& panel, const Scratch& scratch) {
  constexpr uint32_t kRows = kTokens <= kWideTokens ? 8 : 4;
  const WeightView& w = panel.job->w;
  const uint16_t* x[kTokens];
  PackTokens<Reader>(panel, 0, scratch, x);
  uint64_t slow = 0;
  for (uint32_t g = 0; g < panel.count; g += kGroupRows) {
    const uint32_t count = std::min(kGroupRows, panel.count - g);
    Reader reader(w, panel.begin + g, count, scratch.scales);
    for (uint32_t first = 0; first < count; first += kRows) {
      const uint32_t n = panel.begin + g + first;
      __m512 acc[kTokens][kRows];
      MultiplyRows<false>(reader, RowsAfter(w, n, kRows), x, w.cols, first, nullptr, acc);
      StoreTile(panel.job->y, 0, n, static_cast<int>(count - first), acc);
    }
    slow |= uint64_t{reader.slow} << g;
  }
  return slow;
}

// Four rows times the first tile of tokens, which widens, and times one more tile.
template <size_t kTokens, class Reader>
void MultiplyFirstTile(const Panel& panel, const Scratch& scratch, Reader& reader, uint32_t first,
                       uint32_t n, int count, const uint16_t* const* x) {
  const WeightView& w = panel.job->w;
  __m512 acc[kTokens][4];
  MultiplyRows<true>(reader, RowsAfter(w, n, 4), x, w.cols, first, scratch.widened, acc);
  StoreTile(panel.job->y, 0, n, count, acc);
}
template <size_t kTokens>
void MultiplyNextTile(const Panel& panel, const Scratch& scratch, size_t whole, uint32_t n,
                      int count, size_t m, const uint16_t* const* x) {
  __m512 acc[kTokens][4];
  MultiplyStored(scratch.widened, whole, x, acc);
  StoreTile(panel.job->y, m, n, count, acc);
}

// 7 to MaxTiledTokens tokens: tiles of 3 to 6 that differ by one at most, the larger ones first.
template <class Reader>
uint64_t MultiplyTiled(const Panel& panel, const Scratch& scratch) {
  const WeightView& w = panel.job->w;
  const size_t whole = (w.cols + Reader::kStep - 1) / Reader::kStep * Reader::kStep;
  const size_t tokens = panel.job->y.rows;
  const size_t tiles = (tokens + kDirectTokens - 1) / kDirectTokens;
  const uint16_t* x[kMaxPanelRows];
  for (size_t i = 0; i < tokens; ++i) x[i] = PackToken<Reader>(panel, i, i, scratch);
  uint64_t slow = 0;
  for (uint32_t g = 0; g < panel.count; g += kGroupRows) {
    const uint32_t group_count = std::min(kGroupRows, panel.count - g);
    Reader reader(w, panel.begin + g, group_count, scratch.scales);
    for (uint32_t first = 0; first < group_count; first += 4) {
      const uint32_t n = panel.begin + g + first;
      const int count = static_cast<int>(group_count - first);
      const size_t size = (tokens + tiles - 1) / tiles;
      const auto first_tile = size == 6   ? &MultiplyFirstTile<6, Reader>
                              : size == 5 ? &MultiplyFirstTile<5, Reader>
                                          : &MultiplyFirstTile<4, Reader>;
      first_tile(panel, scratch, reader, first, n, count, x);
      for (size_t tile = 1, m = size; tile < tiles; ++tile) {
        const size_t next = (tokens - m + tiles - tile - 1) / (tiles - tile);
        const auto next_tile = next == 6   ? &MultiplyNextTile<6>
                               : next == 5 ? &MultiplyNextTile<5>
                               : next == 4 ? &MultiplyNextTile<4>
                                           : &MultiplyNextTile<3>;
        next_tile(panel, scratch, whole, n, count, m, x + m);
        m += next;
      }
    }
    slow |= uint64_t{reader.slow} << g;
  }
  return slow;
}

// Widens a group to `out` [whole vectors][kGroupRows][32].
template <class Reader>
void WidenGroup(Reader& reader, Upcoming next, size_t cols, uint16_t* out) {
  constexpr size_t kStep = Reader::kStep;
  for (size_t step = 0; step * kStep < cols; ++step, out += kStep * kGroupRows) {
    reader.StartStep(step);
    for (uint32_t r = 0; r < kGroupRows; ++r) {
      __m512i w[Reader::kVectors];
      if ((step + 1) * kStep <= cols) {
        FromReader<Reader>{reader, next, 0, step}(r, w);
      } else {
        reader.LoadTail(r, step, cols % kStep, w);
      }
      HWY_UNROLL(8)
      for (size_t v = 0; v < Reader::kVectors; ++v) {
        _mm512_store_si512(out + (v * kGroupRows + r) * kVector, w[v]);
      }
    }
  }
}

// A widened panel times kTokens tokens from m on.
template <size_t kTokens, class Reader>
void MultiplyWidened(const Panel& panel, const Scratch& scratch, size_t m) {
  const MatMulJob<BF16>& job = *panel.job;
  const size_t cols = job.w.cols;
  const size_t whole = (cols + Reader::kStep - 1) / Reader::kStep * Reader::kStep;
  const uint16_t* x[kTokens];
  PackTokens<Reader>(panel, m, scratch, x);
  for (uint32_t g = 0; g < panel.count; g += kGroupRows) {
    __m512 acc[kTokens][kGroupRows];
    MultiplyStored(scratch.widened + g * PaddedCols(cols), whole, x, acc);
    StoreTile(job.y, m, panel.begin + g, static_cast<int>(std::min(kGroupRows, panel.count - g)),
              acc);
  }
}

template <class Reader>
uint64_t MultiplyMany(const Panel& panel, const Scratch& scratch) {
  const WeightView& w = panel.job->w;
  uint64_t slow = 0;
  for (uint32_t g = 0; g < panel.count; g += kGroupRows) {
    const uint32_t count = std::min(kGroupRows, panel.count - g);
    Reader reader(w, panel.begin + g, count, scratch.scales);
    WidenGroup(reader, RowsAfter(w, panel.begin + g, kGroupRows), w.cols,
               scratch.widened + g * PaddedCols(w.cols));
    slow |= uint64_t{reader.slow} << g;
  }
  const size_t tokens = panel.job->y.rows;
  size_t m = 0;
  for (; m + kWideTokens <= tokens; m += kWideTokens) {
    MultiplyWidened<kWideTokens, Reader>(panel, scratch, m);
  }
  if (tokens - m == 2) MultiplyWidened<2, Reader>(panel, scratch, m);
  if (tokens - m == 1) MultiplyWidened<1, Reader>(panel, scratch, m);
  return slow;
}

// Rows whose scales do not fit BF16: float32, by the reference.
void MultiplySlowRows(const Panel& panel, uint64_t slow, float* row) {
  const MatMulJob<BF16>& job = *panel.job;
  for (uint32_t r = 0; r < panel.count; ++r) {
    if ((slow >> r & 1) == 0) continue;
    WidenRow(job.w, panel.begin + r, {row, job.w.cols});
    for (size_t m = 0; m < job.y.rows; ++m) {
      job.y.data[m * job.y.stride + panel.begin + r] =
          ref::Dot({panel.XRow(m), job.w.cols}, {row, job.w.cols});
    }
  }
}

// Bits do not depend on the way taken (see the top), so the number of tokens may choose it.
template <class Reader>
uint64_t Multiply(const Panel& panel, const Scratch& scratch) {
  switch (panel.job->y.rows) {
    case 1:
      return MultiplyDirect<1, Reader>(panel, scratch);
    case 2:
      return MultiplyDirect<2, Reader>(panel, scratch);
    case 3:
      return MultiplyDirect<3, Reader>(panel, scratch);
    case 4:
      return MultiplyDirect<4, Reader>(panel, scratch);
    case 5:
      return MultiplyDirect<5, Reader>(panel, scratch);
    case 6:
      return MultiplyDirect<6, Reader>(panel, scratch);
    default:
      return panel.job->y.rows <= MaxTiledTokens(panel.job->w.cols)
                 ? MultiplyTiled<Reader>(panel, scratch)
                 : MultiplyMany<Reader>(panel, scratch);
  }
}

template <class Reader>
void RunPanel(const Panel& panel) {
  const Scratch scratch(panel);
  const uint64_t slow = Multiply<Reader>(panel, scratch);
  if (slow != 0) MultiplySlowRows(panel, slow, scratch.row);
}

void Run(const Panel& panel) {
  switch (panel.job->w.kind) {
    case WeightKind::kF32:
      break;  // refused by MatMul
    case WeightKind::kBF16:
      return RunPanel<ReaderBF16>(panel);
    case WeightKind::kFP8:
      return RunPanel<ReaderFP8>(panel);
    case WeightKind::kFP4:
      return RunPanel<ReaderFP4>(panel);
  }
}

}  // namespace

PanelFn<BF16>* X86PanelBF16() { return &Run; }

}  // namespace cachalot::kernels
HWY_POP_ATTRIBUTES
#endif  // __x86_64__
