// SPDX-License-Identifier: Apache-2.0
// BF16 products with vdpbf16ps (AVX-512 BF16 and VBMI: Zen 4, Sapphire Rapids). Highway 1.0.3 has
// no BF16 dot, hence intrinsics.
//
// An accumulator is one zmm. A vector of 32 columns adds x w of the odd word, then of the even
// word, of dword i to lane i; which columns those are is the reader's Order. Vectors ascend; rows
// end with zeros up to a whole step; lanes end in a tree 8, 4, 2, 1. That order is the same in both
// ways the panel can run:
//   up to 6 tokens   weights are widened in registers and used at once: bound by memory
//   more             blocks of 8 rows are widened into scratch (L1), token tiles of 3 pass over
//   them
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
// Two direct tiles widen a panel twice, the second time from L2; that still costs less than storing
// it (docs/log.md, 2026-11-24: 1.0 to 1.3 times as fast at 8 to 12 tokens, 0.8 to 0.96 at 24).
constexpr size_t kMaxDirectTokens = 2 * kDirectTokens;

// The scratch of a task, see PanelScratchBytes. Widened BF16 fills half of the room of a panel, so
// the packed tokens of a tile (at most 6 rows, a panel has 8 or more) lie in the other half.
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
  uint16_t* packed;   // [kDirectTokens][padded]: x in the reader's order
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

// The columns of each 128 dealt out to four vectors: column 4 j + v is word j of vector v.
HWY_INLINE void DealNibbles(const __m512i* in, uint16_t* out) {
  alignas(64) static constexpr auto kDeal = [] {
    std::array<uint16_t, 32> index{};  // words 4 j of two vectors, then words 4 j + 1
    for (uint16_t i = 0; i < 32; ++i) index[i] = static_cast<uint16_t>(i % 16 * 4 + i / 16);
    return index;
  }();
  const __m512i words01 = _mm512_load_si512(kDeal.data());
  const __m512i words23 = _mm512_add_epi16(words01, _mm512_set1_epi16(2));
  const __m512i ab01 = _mm512_permutex2var_epi16(in[0], words01, in[1]);
  const __m512i cd01 = _mm512_permutex2var_epi16(in[2], words01, in[3]);
  const __m512i ab23 = _mm512_permutex2var_epi16(in[0], words23, in[1]);
  const __m512i cd23 = _mm512_permutex2var_epi16(in[2], words23, in[3]);
  _mm512_store_si512(out, _mm512_shuffle_i64x2(ab01, cd01, 0x44));
  _mm512_store_si512(out + 32, _mm512_shuffle_i64x2(ab01, cd01, 0xEE));
  _mm512_store_si512(out + 64, _mm512_shuffle_i64x2(ab23, cd23, 0x44));
  _mm512_store_si512(out + 96, _mm512_shuffle_i64x2(ab23, cd23, 0xEE));
}

// x of one token, dealt; columns past the end are zero.
void PackNibbles(const BF16* x, size_t cols, uint16_t* out) {
  constexpr size_t kStep = ReaderFP4::kStep;
  size_t k = 0;
  for (; k + kStep <= cols; k += kStep) {
    const __m512i in[4] = {_mm512_loadu_si512(x + k), _mm512_loadu_si512(x + k + 32),
                           _mm512_loadu_si512(x + k + 64), _mm512_loadu_si512(x + k + 96)};
    DealNibbles(in, out + k);
  }
  if (k == cols) return;
  alignas(64) BF16 rest[kStep] = {};
  std::memcpy(rest, x + k, (cols - k) * sizeof(BF16));
  const __m512i in[4] = {_mm512_load_si512(rest), _mm512_load_si512(rest + 32),
                         _mm512_load_si512(rest + 64), _mm512_load_si512(rest + 96)};
  DealNibbles(in, out + k);
}

// x [cols] in the reader's order with zeros up to a whole step: x itself where it already is that,
// else a copy in `packed`.
template <class Reader>
const uint16_t* InOrder(const BF16* x, size_t cols, uint16_t* packed) {
  if constexpr (Reader::kOrder == Order::kNibbles) {
    PackNibbles(x, cols, packed);
  } else {
    if (cols % Reader::kStep == 0) return reinterpret_cast<const uint16_t*>(x);
    std::memcpy(packed, x, cols * sizeof(BF16));
    std::memset(packed + cols, 0, (PaddedCols(cols) - cols) * sizeof(BF16));
  }
  return packed;
}

// The same for tokens [m, m + kTokens) of a job.
template <class Reader, size_t kTokens>
void PackTokens(const Panel& panel, size_t m, uint16_t* packed, const uint16_t* (&x)[kTokens]) {
  const size_t cols = panel.job->w.cols;
  for (size_t i = 0; i < kTokens; ++i) {
    x[i] = InOrder<Reader>(panel.XRow(m + i), cols, packed + i * PaddedCols(cols));
  }
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

// The three sources of widened rows. Not lambdas: those would not get this file's target.
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
struct FromScratch {
  HWY_INLINE void operator()(uint32_t r, __m512i* w) const {
    *w = _mm512_load_si512(widened + r * kVector);
  }
  const uint16_t* widened;
};

// Rows [first, first + kRows) of a group times kTokens tokens, weights widened in registers.
template <size_t kTokens, size_t kRows, class Reader>
HWY_INLINE void MultiplyRows(Reader& reader, Upcoming next, const uint16_t* const* x, size_t cols,
                             uint32_t first, __m512 (&acc)[kTokens][kRows]) {
  Clear(acc);
  constexpr size_t kStep = Reader::kStep;
  const size_t steps = cols / kStep;
  for (size_t step = 0; step < steps; ++step) {
    reader.StartStep(step);
    MultiplyStep<kTokens, kRows, Reader::kVectors>(x, step * kStep, acc,
                                                   FromReader<Reader>{reader, next, first, step});
  }
  if (cols % kStep != 0) {
    reader.StartStep(steps);
    MultiplyStep<kTokens, kRows, Reader::kVectors>(
        x, steps * kStep, acc, FromReaderTail<Reader>{reader, first, steps, cols % kStep});
  }
}

// All rows of a panel times kTokens tokens from m on.
template <size_t kTokens, class Reader>
uint64_t MultiplyDirect(const Panel& panel, const Scratch& scratch, size_t m) {
  constexpr uint32_t kRows = kTokens <= kWideTokens ? 8 : 4;
  const MatMulJob<BF16>& job = *panel.job;
  const size_t cols = job.w.cols;
  const uint16_t* x[kTokens];
  PackTokens<Reader>(panel, m, scratch.packed, x);
  uint64_t slow = 0;
  for (uint32_t g = 0; g < panel.count; g += kGroupRows) {
    const uint32_t count = std::min(kGroupRows, panel.count - g);
    Reader reader(job.w, panel.begin + g, count, scratch.scales);
    for (uint32_t first = 0; first < count; first += kRows) {
      __m512 acc[kTokens][kRows];
      const Upcoming next{job.w.row(panel.begin + g + first) + kRows * job.w.row_bytes(),
                          job.w.row_bytes()};
      MultiplyRows(reader, next, x, cols, first, acc);
      HWY_UNROLL(8)
      for (size_t i = 0; i < kTokens; ++i) {
        StoreOutputs<kRows>(acc[i], static_cast<int>(count - first),
                            job.y.data + (m + i) * job.y.stride + panel.begin + g + first);
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
  PackTokens<Reader>(panel, m, scratch.packed, x);
  for (uint32_t g = 0; g < panel.count; g += kGroupRows) {
    const uint16_t* w = scratch.widened + g * PaddedCols(cols);
    __m512 acc[kTokens][kGroupRows];
    Clear(acc);
    for (size_t k = 0; k < whole; k += kVector, w += kGroupRows * kVector) {
      MultiplyStep<kTokens, kGroupRows, 1>(x, k, acc, FromScratch{w});
    }
    const int count = static_cast<int>(std::min(kGroupRows, panel.count - g));
    HWY_UNROLL(8)
    for (size_t i = 0; i < kTokens; ++i) {
      StoreOutputs<kGroupRows>(acc[i], count,
                               job.y.data + (m + i) * job.y.stride + panel.begin + g);
    }
  }
}

template <class Reader>
uint64_t MultiplyMany(const Panel& panel, const Scratch& scratch) {
  const WeightView& w = panel.job->w;
  uint64_t slow = 0;
  for (uint32_t g = 0; g < panel.count; g += kGroupRows) {
    const uint32_t count = std::min(kGroupRows, panel.count - g);
    Reader reader(w, panel.begin + g, count, scratch.scales);
    const Upcoming next{w.row(panel.begin + g) + kGroupRows * w.row_bytes(), w.row_bytes()};
    WidenGroup(reader, next, w.cols, scratch.widened + g * PaddedCols(w.cols));
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

// At most kDirectTokens tokens from m on.
template <class Reader>
uint64_t MultiplyFew(const Panel& panel, const Scratch& scratch, size_t m, size_t tokens) {
  switch (tokens) {
    case 1:
      return MultiplyDirect<1, Reader>(panel, scratch, m);
    case 2:
      return MultiplyDirect<2, Reader>(panel, scratch, m);
    case 3:
      return MultiplyDirect<3, Reader>(panel, scratch, m);
    case 4:
      return MultiplyDirect<4, Reader>(panel, scratch, m);
    case 5:
      return MultiplyDirect<5, Reader>(panel, scratch, m);
    default:
      return MultiplyDirect<6, Reader>(panel, scratch, m);
  }
}

template <class Reader>
uint64_t Multiply(const Panel& panel, const Scratch& scratch) {
  const size_t tokens = panel.job->y.rows;
  if (tokens > kMaxDirectTokens) return MultiplyMany<Reader>(panel, scratch);
  uint64_t slow = 0;
  for (size_t m = 0; m < tokens; m += kDirectTokens) {
    slow |= MultiplyFew<Reader>(panel, scratch, m, std::min(kDirectTokens, tokens - m));
  }
  return slow;
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
