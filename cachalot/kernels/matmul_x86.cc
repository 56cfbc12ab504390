// SPDX-License-Identifier: Apache-2.0
// BF16 products with vdpbf16ps (AVX-512 BF16 and VBMI: Zen 4, Sapphire Rapids). Highway 1.0.3 has
// no BF16 dot, hence intrinsics.
//
// An accumulator is one zmm. A vector of 32 columns adds x w of the odd word, then of the even
// word, of dword i to lane i; which columns those are is the reader's Order. Vectors ascend; rows
// end with zeros up to a whole step; lanes end in a tree 8, 4, 2, 1. That order is the same in all
// ways a panel can run:
//   up to 3 tokens   weights are widened in registers and used at once: bound by memory
//   up to 48         8 rows of a block of columns are widened into L1, tiles of 3 tokens pass over
//                    them; sums wait in memory between blocks
//   more             the panel is widened whole into L2, tiles of 3 tokens pass over it
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
constexpr size_t kLanes = 16;   // float32 of a zmm
// Every loop over accumulators here is unrolled by pragma: at -O2 GCC keeps short loops, and one
// that indexes `acc` at run time holds it in memory (half the speed, seen twice).
//
// A tile is up to 3 tokens by 8 rows: 24 accumulators at most; x, w, the tables and constants of a
// reader share the other 8 registers.
constexpr size_t kTileTokens = 3;

// The scratch of a task, see BF16ScratchBytes.
struct Scratch {
  explicit Scratch(const Panel& panel) : padded(PaddedCols(panel.job->w.cols)) {
    widened = reinterpret_cast<uint16_t*>(panel.scratch);
    sums = reinterpret_cast<float*>(widened + WidenedWords(panel.job->w.cols));
    packed = reinterpret_cast<uint16_t*>(sums + kBlockTokens * kGroupRows * kLanes);
    row = reinterpret_cast<float*>(packed + kBlockTokens * (padded + kVector));
    scales = reinterpret_cast<uint8_t*>(row + padded);
  }
  size_t padded;
  uint16_t* widened;  // [groups or 1][padded / 32 or a block of them][kGroupRows][32]
  float* sums;        // [kBlockTokens][kGroupRows][16]: accumulators between blocks of columns
  uint16_t* packed;   // [kBlockTokens][padded + a line]: x in the reader's order
  float* row;         // [padded]
  uint8_t* scales;    // what a reader makes of a group's scales
};

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
  return InOrder<Reader>(panel.XRow(m), cols, scratch.packed + i * (scratch.padded + kVector));
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

// Stored bytes that will be read soon: the hardware prefetcher of a core does not follow 8 rows at
// once. Few tokens want them in L1, 8 KiB ahead: with 64 KiB ahead (the next group of 8 KiB rows)
// they left L1 again, and L2 alone is 10 to 30 % slower on Zen 5. Widened blocks of many tokens
// fill L1, so those fetch the next group to L2 (docs/log.md, 2026-11-23 and 2026-11-25).
constexpr size_t kLeadBytes = 8192;
constexpr int kToL1 = 3;  // localities of __builtin_prefetch
constexpr int kToL2 = 2;
template <int kLocality>
struct Upcoming {
  Upcoming(const WeightView& w, uint32_t n) : group(w.row(n)), stride(w.row_bytes()) {}
  // What is read `lead` steps after step `step` of `steps`, at most a group later.
  HWY_INLINE void Aim(size_t step, size_t steps, size_t lead, size_t step_bytes) {
    const size_t at = step + std::min(lead, steps);
    ahead =
        group + (at < steps ? at * step_bytes : kGroupRows * stride + (at - steps) * step_bytes);
  }
  HWY_INLINE void Prefetch(size_t r, size_t bytes) const {
    for (size_t b = 0; b < bytes; b += kCacheLineBytes) {
      __builtin_prefetch(ahead + r * stride + b, /*rw=*/0, kLocality);
    }
  }
  const uint8_t* group;  // its first row
  size_t stride;
  const uint8_t* ahead = nullptr;
};

// The sources of widened rows. Not lambdas: those would not get this file's target.
template <class Reader, int kLocality>
struct FromReader {
  HWY_INLINE void operator()(uint32_t r, __m512i* w) const {
    next.Prefetch(r, Reader::kStepBytes);
    reader.Load(r, step, w);
  }
  const Reader& reader;
  const Upcoming<kLocality>& next;
  size_t step;
};
template <class Reader>
struct FromReaderTail {
  HWY_INLINE void operator()(uint32_t r, __m512i* w) const { reader.LoadTail(r, step, cols, w); }
  const Reader& reader;
  size_t step, cols;
};
struct FromScratch {
  HWY_INLINE void operator()(uint32_t r, __m512i* w) const {
    *w = _mm512_load_si512(widened + r * kVector);
  }
  const uint16_t* widened;
};

// A block of columns [begin, end) of K; the last one may end inside a step.
struct Columns {
  size_t begin, end, k;
  bool first() const { return begin == 0; }
  bool last() const { return end == k; }
};

// The rows of a group times kTokens tokens, weights widened in registers.
template <size_t kTokens, class Reader>
HWY_INLINE void MultiplyStored(Reader& reader, Upcoming<kToL1> next, const uint16_t* const* x,
                               size_t cols, __m512 (&acc)[kTokens][kGroupRows]) {
  constexpr size_t kStep = Reader::kStep;
  constexpr size_t kVectors = Reader::kVectors;
  const size_t steps = cols / kStep;
  for (size_t step = 0; step < steps; ++step) {
    reader.StartStep(step);
    next.Aim(step, steps, kLeadBytes / kGroupRows / Reader::kStepBytes, Reader::kStepBytes);
    const FromReader<Reader, kToL1> source{reader, next, step};
    MultiplyStep<kTokens, kGroupRows, kVectors>(x, step * kStep, acc, source);
  }
  if (cols % kStep != 0) {
    reader.StartStep(steps);
    const FromReaderTail<Reader> source{reader, steps, cols % kStep};
    MultiplyStep<kTokens, kGroupRows, kVectors>(x, steps * kStep, acc, source);
  }
}

// The rows of a group to `out` [vectors][kGroupRows][32].
template <class Reader>
void Widen(Reader& reader, Upcoming<kToL2> next, Columns columns, uint16_t* out) {
  constexpr size_t kStep = Reader::kStep;
  for (size_t k = columns.begin; k < columns.end; k += kStep, out += kStep * kGroupRows) {
    const size_t step = k / kStep;
    const size_t steps = columns.k / kStep;
    reader.StartStep(step);
    next.Aim(step, steps, /*lead=*/steps, Reader::kStepBytes);
    for (uint32_t r = 0; r < kGroupRows; ++r) {
      __m512i w[Reader::kVectors];
      if (k + kStep <= columns.end) {
        FromReader<Reader, kToL2>{reader, next, step}(r, w);
      } else {
        FromReaderTail<Reader>{reader, step, columns.end - k}(r, w);
      }
      HWY_UNROLL(8)
      for (size_t v = 0; v < Reader::kVectors; ++v) {
        _mm512_store_si512(out + (v * kGroupRows + r) * kVector, w[v]);
      }
    }
  }
}

// Rows widened at `w`, whole steps of them, times kTokens tokens.
template <class Reader, size_t kTokens>
HWY_INLINE void MultiplyWidened(const uint16_t* w, const uint16_t* const* x, Columns columns,
                                __m512 (&acc)[kTokens][kGroupRows]) {
  const size_t end = (columns.end + Reader::kStep - 1) / Reader::kStep * Reader::kStep;
  for (size_t k = columns.begin; k < end; k += kVector, w += kGroupRows * kVector) {
    MultiplyStep<kTokens, kGroupRows, 1>(x, k, acc, FromScratch{w});
  }
}

// Outputs of tokens [m, m + kTokens), rows from n on, of which `count` are real.
template <size_t kTokens>
HWY_INLINE void StoreTile(const MatView<float>& y, size_t m, size_t n, int count,
                          const __m512 (&acc)[kTokens][kGroupRows]) {
  HWY_UNROLL(8)
  for (size_t i = 0; i < kTokens; ++i) {
    StoreOutputs<kGroupRows>(acc[i], count, y.data + (m + i) * y.stride + n);
  }
}

// All rows of a panel times kTokens tokens, all of them.
template <size_t kTokens, class Reader>
uint64_t MultiplyFew(const Panel& panel, const Scratch& scratch) {
  const WeightView& w = panel.job->w;
  const uint16_t* x[kTokens];
  for (size_t i = 0; i < kTokens; ++i) x[i] = PackToken<Reader>(panel, i, i, scratch);
  uint64_t slow = 0;
  for (uint32_t g = 0; g < panel.count; g += kGroupRows) {
    const uint32_t count = std::min(kGroupRows, panel.count - g);
    const uint32_t n = panel.begin + g;
    Reader reader(w, n, count, scratch.scales);
    __m512 acc[kTokens][kGroupRows];
    Clear(acc);
    MultiplyStored(reader, Upcoming<kToL1>(w, n), x, w.cols, acc);
    StoreTile(panel.job->y, 0, n, static_cast<int>(count), acc);
    slow |= uint64_t{reader.slow} << g;
  }
  return slow;
}

// A block of columns of a group of rows, widened, times tokens.
template <class Reader>
struct BlockProduct {
  const MatView<float>& y;
  const uint16_t* widened;
  Columns columns;
  uint32_t n;                // the group's first row
  int count;                 // its real rows
  size_t begin;              // the first token
  const uint16_t* const* x;  // of the tokens
  float* sums_at;            // of the tokens, if the block is not all of K

  // Tokens [begin + i, begin + i + kTokens).
  template <size_t kTokens>
  HWY_INLINE void Tile(size_t i) const {
    __m512 acc[kTokens][kGroupRows];
    float* sums = sums_at + i * kGroupRows * kLanes;
    if (columns.first()) {
      Clear(acc);
    } else {
      HWY_UNROLL(8)
      for (size_t t = 0; t < kTokens; ++t) {
        HWY_UNROLL(8)
        for (size_t r = 0; r < kGroupRows; ++r) {
          acc[t][r] = _mm512_load_ps(sums + (t * kGroupRows + r) * kLanes);
        }
      }
    }
    MultiplyWidened<Reader>(widened, x + i, columns, acc);
    if (columns.last()) {
      StoreTile(y, begin + i, n, count, acc);
      return;
    }
    HWY_UNROLL(8)
    for (size_t t = 0; t < kTokens; ++t) {
      HWY_UNROLL(8)
      for (size_t r = 0; r < kGroupRows; ++r) {
        _mm512_store_ps(sums + (t * kGroupRows + r) * kLanes, acc[t][r]);
      }
    }
  }

  // Tiles of 3, and 2 and 2 rather than 3 and 1: a token alone waits for its 8 accumulators.
  void Run(size_t tokens) const {
    size_t i = 0;
    while (tokens - i >= 3 && tokens - i != 4) {
      Tile<3>(i);
      i += 3;
    }
    for (; tokens - i >= 2; i += 2) Tile<2>(i);
    if (i < tokens) Tile<1>(i);
  }
};

// Up to kBlockTokens tokens.
template <class Reader>
uint64_t MultiplyBlocks(const Panel& panel, const Scratch& scratch) {
  const WeightView& w = panel.job->w;
  const size_t tokens = panel.job->y.rows;
  const uint16_t* x[kBlockTokens];
  for (size_t i = 0; i < tokens; ++i) x[i] = PackToken<Reader>(panel, i, i, scratch);
  uint64_t slow = 0;
  for (uint32_t g = 0; g < panel.count; g += kGroupRows) {
    const uint32_t count = std::min(kGroupRows, panel.count - g);
    const uint32_t n = panel.begin + g;
    Reader reader(w, n, count, scratch.scales);
    slow |= uint64_t{reader.slow} << g;
    for (size_t k = 0; k < w.cols; k += kBlockCols) {
      const Columns columns{k, std::min<size_t>(k + kBlockCols, w.cols), w.cols};
      Widen(reader, Upcoming<kToL2>(w, n), columns, scratch.widened);
      const BlockProduct<Reader> product{
          panel.job->y, scratch.widened, columns, n, static_cast<int>(count), 0, x, scratch.sums};
      product.Run(tokens);
    }
  }
  return slow;
}

template <class Reader>
uint64_t MultiplyMany(const Panel& panel, const Scratch& scratch) {
  const WeightView& w = panel.job->w;
  const Columns columns{0, w.cols, w.cols};
  uint64_t slow = 0;
  for (uint32_t g = 0; g < panel.count; g += kGroupRows) {
    const uint32_t n = panel.begin + g;
    Reader reader(w, n, std::min(kGroupRows, panel.count - g), scratch.scales);
    Widen(reader, Upcoming<kToL2>(w, n), columns, scratch.widened + g * scratch.padded);
    slow |= uint64_t{reader.slow} << g;
  }
  const size_t tokens = panel.job->y.rows;
  for (size_t m = 0; m < tokens; m += kTileTokens) {
    const size_t size = std::min(kTileTokens, tokens - m);
    const uint16_t* x[kTileTokens];
    for (size_t i = 0; i < size; ++i) x[i] = PackToken<Reader>(panel, m + i, i, scratch);
    for (uint32_t g = 0; g < panel.count; g += kGroupRows) {
      const int count = static_cast<int>(std::min(kGroupRows, panel.count - g));
      const BlockProduct<Reader> product{
          panel.job->y, scratch.widened + g * scratch.padded, columns, panel.begin + g, count, m, x,
          nullptr};
      product.Run(size);
    }
  }
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
      return MultiplyFew<1, Reader>(panel, scratch);
    case 2:
      return MultiplyFew<2, Reader>(panel, scratch);
    case 3:
      return MultiplyFew<3, Reader>(panel, scratch);
    default:
      return panel.job->y.rows <= kBlockTokens ? MultiplyBlocks<Reader>(panel, scratch)
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
