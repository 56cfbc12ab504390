// SPDX-License-Identifier: Apache-2.0
// BF16 products with vdpbf16ps (AVX-512 BF16 and VBMI: Zen 4, Sapphire Rapids). Highway 1.0.3 has
// no BF16 dot, hence intrinsics.
//
// An accumulator is one zmm. A vector of 32 columns adds x w of the odd word, then of the even
// word, of dword i to lane i; which columns those are is the reader's Order. Vectors ascend; rows
// end with zeros up to a whole step; lanes end in a tree 8, 4, 2, 1. That order is the same in all
// ways a panel can run:
//   up to 8 tokens   weights are widened in registers and used at once
//   up to 48         8 rows of a block of columns are widened into L1, tiles of 3 tokens pass over
//                    them; sums wait in memory between blocks
//   more             the panel is widened whole into L2, tiles of 3 tokens pass over it
// The instruction takes subnormal inputs for zero, so weights must widen to normal numbers: scales
// that would not let them send the row through ref::Dot.
#include "cachalot/kernels/matmul_panel.h"

#if !defined(__x86_64__)
namespace cachalot::kernels {
PanelFn<BF16>* X86PanelBF16() { return nullptr; }
void X86DealRow(const BF16*, size_t, BF16*) {}
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
constexpr size_t kFewTokens = 8;
constexpr size_t kTileTokens = 3;  // of widened rows
// Every loop over accumulators here is unrolled by pragma: at -O2 GCC keeps short loops, and one
// that indexes `acc` at run time holds it in memory (half the speed, seen twice).
//
// A tile is kTokens by kRows accumulators: at most 24, x, w, the tables and constants of a reader
// share the other 8 registers; 12 or more where there are that many, since a dot waits 6 to 7
// cycles for the last one of its accumulator and two could start each cycle.

// The scratch of a task, see BF16ScratchBytes.
struct Scratch {
  explicit Scratch(const Panel& panel) : padded(PaddedCols(panel.job->w.cols)) {
    widened = reinterpret_cast<uint16_t*>(panel.scratch);
    sums = reinterpret_cast<float*>(widened + WidenedWords(panel.job->w.cols));
    packed = reinterpret_cast<uint16_t*>(sums + kBlockTokens * kGroupRows * kLanes);
    row = reinterpret_cast<float*>(packed + kBlockTokens * (padded + kVector));
    reader = reinterpret_cast<uint8_t*>(row + padded);
  }
  size_t padded;
  uint16_t* widened;  // [groups or 1][padded / 32 or a block of them][kGroupRows][32]
  float* sums;        // [kBlockTokens][kGroupRows][16]: accumulators between blocks of columns
  uint16_t* packed;   // [kBlockTokens][padded + a line]: x in the reader's order
  float* row;         // [padded]
  uint8_t* reader;    // what a reader makes of scales
};

HWY_INLINE __m512 Dot(__m512 acc, __m512i x, __m512i w) {
  return _mm512_dpbf16_ps(acc, (__m512bh)x, (__m512bh)w);
}

// Sums of the lanes of the four accumulators at `acc`: halves, quarters, pairs, neighbors.
HWY_INLINE __m128 Reduce4(const float* acc) {
  const __m512 a = _mm512_load_ps(acc), b = _mm512_load_ps(acc + kLanes);
  const __m512 c = _mm512_load_ps(acc + 2 * kLanes), d = _mm512_load_ps(acc + 3 * kLanes);
  const __m512 ab =
      _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xEE));
  const __m512 cd =
      _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xEE));
  __m512 u = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xDD));
  u = _mm512_add_ps(u, _mm512_permute_ps(u, 0x4E));
  u = _mm512_add_ps(u, _mm512_permute_ps(u, 0xB1));
  const __m512i firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
  return _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, u));
}

// Outputs of tokens [m, m + tokens), rows from n on, of which `count` are real, from their sums.
void StoreOutputs(const float* sums, const MatView<float>& y, size_t m, size_t tokens, uint32_t n,
                  uint32_t count) {
  const auto first = static_cast<__mmask8>(LowBits32(count));
  for (size_t i = 0; i < tokens; ++i, sums += kGroupRows * kLanes) {
    float* out = y.data + (m + i) * y.stride + n;
    _mm_mask_storeu_ps(out, first, Reduce4(sums));
    if (count > 4) _mm_mask_storeu_ps(out + 4, first >> 4, Reduce4(sums + 4 * kLanes));
  }
}

// x of token m of a job in the reader's order, in slot i of the packed ones. Slots are a line more
// than a row apart: rows a multiple of 4 KiB apart fall into the same set of L1.
template <class Reader>
const uint16_t* PackToken(const Panel& panel, size_t m, size_t i, const Scratch& scratch) {
  const size_t cols = panel.job->w.cols;
  if (Reader::kOrder == Order::kNibbles && panel.job->dealt.data != nullptr) {
    return reinterpret_cast<const uint16_t*>(panel.DealtRow(m));
  }
  return InOrder<Reader>(panel.XRow(m), cols, scratch.packed + i * (scratch.padded + kVector));
}

// Few tokens want stored bytes in L1, 1 KiB of each row ahead: with the next group of rows ahead
// they left L1 again, and L2 alone is 10 to 30 % slower on Zen 5. Widened blocks of many tokens
// fill L1, so those fetch the next group to L2 (docs/log.md, 2026-11-23 and 2026-11-25).
constexpr size_t kLeadBytes = 1024;

// A block of columns [begin, end) of K; the last one may end inside a step.
struct Columns {
  size_t begin, end, k;
  bool first() const { return begin == 0; }
  bool last() const { return end == k; }
};

// Vector kVector of a step's codes of kRows rows times kTokens tokens, then the vectors after it: a
// row's codes are widened where they are used, four widened rows would not fit beside the sums.
template <int kVector, class Reader, size_t kTokens, size_t kRows>
HWY_INLINE void MultiplyCodes(const Reader& reader, const typename Reader::Codes (&codes)[kRows],
                              const uint16_t* const (&x)[kTokens], size_t k,
                              __m512 (&acc)[kTokens][kRows]) {
  if constexpr (kVector < Reader::kVectors) {
    __m512i w[kRows];
    HWY_UNROLL(8)
    for (size_t r = 0; r < kRows; ++r) w[r] = reader.template Widen<kVector>(codes[r]);
    HWY_UNROLL(8)
    for (size_t i = 0; i < kTokens; ++i) {
      __m512i xv = _mm512_loadu_si512(x[i] + k + kVector * 32);
      asm("" : "+v"(xv));  // one load for all rows
      HWY_UNROLL(8)
      for (size_t r = 0; r < kRows; ++r) acc[i][r] = Dot(acc[i][r], xv, w[r]);
    }
    MultiplyCodes<kVector + 1>(reader, codes, x, k, acc);
  }
}

// x of a step in registers.
template <size_t kTokens, size_t kVectors>
struct HeldX {
  HWY_INLINE HeldX(const uint16_t* const (&x)[kTokens], size_t k) {
    HWY_UNROLL(8)
    for (size_t i = 0; i < kTokens; ++i) {
      HWY_UNROLL(8)
      for (size_t v = 0; v < kVectors; ++v) vector[i][v] = _mm512_loadu_si512(x[i] + k + v * 32);
    }
  }
  __m512i vector[kTokens][kVectors];
};
// One row's codes, all vectors of a step, times x.
template <int kVector, class Reader, size_t kTokens, size_t kRows>
HWY_INLINE void MultiplyRow(const Reader& reader, const typename Reader::Codes& codes, size_t r,
                            const HeldX<kTokens, Reader::kVectors>& x,
                            __m512 (&acc)[kTokens][kRows]) {
  if constexpr (kVector < Reader::kVectors) {
    const __m512i w = reader.template Widen<kVector>(codes);
    HWY_UNROLL(8)
    for (size_t i = 0; i < kTokens; ++i) acc[i][r] = Dot(acc[i][r], x.vector[i][kVector], w);
    MultiplyRow<kVector + 1>(reader, codes, r, x, acc);
  }
}

// Rows [row, row + kRows) of a group, widened in registers.
template <class Reader>
struct StoredRows {
  template <size_t kTokens, size_t kRows>
  HWY_INLINE void Multiply(const uint16_t* const (&x)[kTokens], Columns columns,
                           __m512 (&acc)[kTokens][kRows]) const {
    constexpr size_t kStep = Reader::kStep;
    Reader from = reader;  // a copy in registers
    Upcoming<kToL1> upcoming = next;
    typename Reader::Codes codes[kRows];
    size_t step = columns.begin / kStep;
    for (; step < columns.end / kStep; ++step) {
      from.StartStep(step);
      upcoming.Aim(step * Reader::kStepBytes);
      if constexpr (kTokens <= 2) {
        // x of one or two tokens stays in registers for all rows.
        const HeldX<kTokens, Reader::kVectors> held(x, step * kStep);
        HWY_UNROLL(8)
        for (uint32_t r = 0; r < kRows; ++r) {
          upcoming.Prefetch(from.row[row + r] + step * Reader::kStepBytes, Reader::kStepBytes);
          MultiplyRow<0>(from, from.Load(row + r, step), r, held, acc);
        }
      } else {
        HWY_UNROLL(8)
        for (uint32_t r = 0; r < kRows; ++r) {
          upcoming.Prefetch(from.row[row + r] + step * Reader::kStepBytes, Reader::kStepBytes);
          codes[r] = from.Load(row + r, step);
        }
        MultiplyCodes<0>(from, codes, x, step * kStep, acc);
      }
    }
    if (columns.end % kStep != 0) {
      from.StartStep(step);
      HWY_UNROLL(8)
      for (uint32_t r = 0; r < kRows; ++r) {
        codes[r] = from.LoadTail(row + r, step, columns.end % kStep);
      }
      MultiplyCodes<0>(from, codes, x, step * kStep, acc);
    }
  }
  const Reader& reader;
  Upcoming<kToL1> next;
  uint32_t row;
};

// All rows of a group, widened at `w`, whole steps of them.
template <class Reader>
struct WidenedRows {
  template <size_t kTokens>
  HWY_INLINE void Multiply(const uint16_t* const (&x)[kTokens], Columns columns,
                           __m512 (&acc)[kTokens][kGroupRows]) const {
    const size_t end = (columns.end + Reader::kStep - 1) / Reader::kStep * Reader::kStep;
    const uint16_t* at = w;
    for (size_t k = columns.begin; k < end; k += kVector, at += kGroupRows * kVector) {
      __m512i xv[kTokens];
      HWY_UNROLL(8)
      for (size_t i = 0; i < kTokens; ++i) xv[i] = _mm512_loadu_si512(x[i] + k);
      HWY_UNROLL(8)
      for (size_t r = 0; r < kGroupRows; ++r) {
        const __m512i wv = _mm512_load_si512(at + r * kVector);
        HWY_UNROLL(8)
        for (size_t i = 0; i < kTokens; ++i) acc[i][r] = Dot(acc[i][r], xv[i], wv);
      }
    }
  }
  const uint16_t* w;
};

// Adds the products of a block of columns to the sums of kTokens by kRows outputs; the first block
// begins them. `sums` are those of the first token and row.
template <size_t kTokens, size_t kRows, class Rows>
HWY_INLINE void Tile(const Rows& rows, const uint16_t* const* x, Columns columns, float* sums) {
  const uint16_t* xs[kTokens];
  __m512 acc[kTokens][kRows];
  HWY_UNROLL(8)
  for (size_t i = 0; i < kTokens; ++i) {
    xs[i] = x[i];
    HWY_UNROLL(8)
    for (size_t r = 0; r < kRows; ++r) {
      acc[i][r] = columns.first() ? _mm512_setzero_ps()
                                  : _mm512_load_ps(sums + (i * kGroupRows + r) * kLanes);
    }
  }
  rows.Multiply(xs, columns, acc);
  HWY_UNROLL(8)
  for (size_t i = 0; i < kTokens; ++i) {
    HWY_UNROLL(8)
    for (size_t r = 0; r < kRows; ++r) {
      _mm512_store_ps(sums + (i * kGroupRows + r) * kLanes, acc[i][r]);
    }
  }
}

// All rows of a group, kRows at a time.
template <size_t kTokens, size_t kRows, class Reader>
HWY_NOINLINE void GroupTiles(const Reader& reader, Upcoming<kToL1> next, const uint16_t* const* x,
                             Columns columns, float* sums) {
  for (uint32_t r = 0; r < kGroupRows; r += kRows) {
    Tile<kTokens, kRows>(StoredRows<Reader>{reader, next, r}, x, columns, sums + r * kLanes);
  }
}

// Tiles of 4 tokens and what is left. Tiles of 5 to 8 tokens by 2 rows are faster while the weights
// are in L2 and slower when they come from memory (docs/log.md, 2026-11-25).
template <class Reader>
void FewTokens(size_t tokens, const Reader& reader, Upcoming<kToL1> next, const uint16_t* const* x,
               Columns columns, float* sums) {
  for (; tokens >= 4; tokens -= 4, x += 4, sums += 4 * kGroupRows * kLanes) {
    GroupTiles<4, 4>(reader, next, x, columns, sums);
  }
  switch (tokens) {
    case 1:
      return GroupTiles<1, 8>(reader, next, x, columns, sums);
    case 2:
      return GroupTiles<2, 8>(reader, next, x, columns, sums);
    case 3:
      return GroupTiles<3, 4>(reader, next, x, columns, sums);
    default:
      return;
  }
}

// The rows of a group to `out` [vectors][kGroupRows][32].
template <class Reader>
void Widen(const Reader& reader, Upcoming<kToL2> next, Columns columns, uint16_t* out) {
  constexpr size_t kStep = Reader::kStep;
  Reader from = reader;  // a copy in registers
  size_t step = columns.begin / kStep;
  for (; step < columns.end / kStep; ++step, out += kStep * kGroupRows) {
    WidenStep(from, next, step, out);
  }
  if (columns.end % kStep != 0) WidenTail(from, step, columns.end % kStep, out);
}

// Tiles of 3, and 2 and 2 rather than 3 and 1: a token alone waits for its 8 accumulators.
template <class Reader>
void WidenedTiles(size_t tokens, const uint16_t* w, const uint16_t* const* x, Columns columns,
                  float* sums) {
  const WidenedRows<Reader> rows{w};
  size_t i = 0;
  while (tokens - i >= 3 && tokens - i != 4) {
    Tile<3, kGroupRows>(rows, x + i, columns, sums + i * kGroupRows * kLanes);
    i += 3;
  }
  for (; tokens - i >= 2; i += 2) {
    Tile<2, kGroupRows>(rows, x + i, columns, sums + i * kGroupRows * kLanes);
  }
  if (i < tokens) Tile<1, kGroupRows>(rows, x + i, columns, sums + i * kGroupRows * kLanes);
}

// Up to kBlockTokens tokens, a group of rows and a block of columns at a time.
template <class Reader>
uint64_t MultiplyBlocks(const Panel& panel, const Scratch& scratch) {
  const WeightView& w = panel.job->w;
  const size_t tokens = panel.job->y.rows;
  const uint16_t* x[kBlockTokens];
  for (size_t i = 0; i < tokens; ++i) x[i] = PackToken<Reader>(panel, i, i, scratch);
  Reader reader(w, panel.begin, scratch.reader);
  uint64_t slow = 0;
  for (uint32_t g = 0; g < panel.count; g += kGroupRows) {
    const uint32_t count = std::min(kGroupRows, panel.count - g);
    const uint32_t n = panel.begin + g;
    reader.StartGroup(n, count);
    slow |= uint64_t{reader.slow} << g;
    for (size_t k = 0; k == 0 || k < w.cols; k += kBlockCols) {  // once for no columns, too
      const Columns columns{k, std::min<size_t>(k + kBlockCols, w.cols), w.cols};
      if (tokens <= kFewTokens) {
        FewTokens(tokens, reader, Upcoming<kToL1>(w, kLeadBytes), x, columns, scratch.sums);
      } else {
        Widen(reader, Upcoming<kToL2>(w, w.row_bytes()), columns, scratch.widened);
        WidenedTiles<Reader>(tokens, scratch.widened, x, columns, scratch.sums);
      }
    }
    StoreOutputs(scratch.sums, panel.job->y, 0, tokens, n, count);
  }
  return slow;
}

template <class Reader>
uint64_t MultiplyMany(const Panel& panel, const Scratch& scratch) {
  const WeightView& w = panel.job->w;
  const Columns columns{0, w.cols, w.cols};
  Reader reader(w, panel.begin, scratch.reader);
  uint64_t slow = 0;
  for (uint32_t g = 0; g < panel.count; g += kGroupRows) {
    const uint32_t n = panel.begin + g;
    reader.StartGroup(n, std::min(kGroupRows, panel.count - g));
    Widen(reader, Upcoming<kToL2>(w, w.row_bytes()), columns, scratch.widened + g * scratch.padded);
    slow |= uint64_t{reader.slow} << g;
  }
  const size_t tokens = panel.job->y.rows;
  for (size_t m = 0; m < tokens; m += kTileTokens) {
    const size_t size = std::min(kTileTokens, tokens - m);
    const uint16_t* x[kTileTokens];
    for (size_t i = 0; i < size; ++i) x[i] = PackToken<Reader>(panel, m + i, i, scratch);
    for (uint32_t g = 0; g < panel.count; g += kGroupRows) {
      WidenedTiles<Reader>(size, scratch.widened + g * scratch.padded, x, columns, scratch.sums);
      StoreOutputs(scratch.sums, panel.job->y, m, size, panel.begin + g,
                   std::min(kGroupRows, panel.count - g));
    }
  }
  return slow;
}

// Bits do not depend on the way taken (see the top), so the number of tokens may choose it.
template <class Reader>
uint64_t Multiply(const Panel& panel, const Scratch& scratch) {
  return panel.job->y.rows <= kBlockTokens ? MultiplyBlocks<Reader>(panel, scratch)
                                           : MultiplyMany<Reader>(panel, scratch);
}

template <class Reader>
void RunPanel(const Panel& panel) {
  const Scratch scratch(panel);
  const uint64_t slow = Multiply<Reader>(panel, scratch);
  if (slow != 0) MultiplyByReference(panel, slow, scratch.row);
}

void Run(const Panel& panel) {
  switch (panel.job->w.kind) {
    case WeightKind::kF32:
      break;  // refused by MatMul
    case WeightKind::kBF16:
      return RunPanel<ReaderBF16<> >(panel);
    case WeightKind::kFP8:
      return RunPanel<ReaderFP8<> >(panel);
    case WeightKind::kFP4:
      return RunPanel<ReaderFP4<> >(panel);
  }
}

}  // namespace

PanelFn<BF16>* X86PanelBF16() { return &Run; }

void X86DealRow(const BF16* x, size_t cols, BF16* out) {
  PackNibbles(x, cols, reinterpret_cast<uint16_t*>(out));
}

}  // namespace cachalot::kernels
HWY_POP_ATTRIBUTES
#endif  // __x86_64__
