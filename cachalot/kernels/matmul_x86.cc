// SPDX-License-Identifier: Apache-2.0
// BF16 products with vdpbf16ps (AVX-512 BF16 and VBMI: Zen 4, Sapphire Rapids). Highway 1.0.3 has
// no BF16 dot, hence intrinsics.
//
// An accumulator is one zmm: each step of 32 columns adds x[2i+1] w[2i+1], then x[2i] w[2i], to
// lane i. Steps ascend; rows end with zeros up to a multiple of 64 columns; lanes end in a tree 8,
// 4, 2,
// 1. That order is the same in both ways the panel can run:
//   up to 3 tokens   weights are widened in registers and used at once: bound by memory
//   more             the panel is widened once into scratch (L2), token tiles of 3 pass over it
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

namespace cachalot::kernels {
namespace {

using Panel = MatMulPanel<BF16>;

constexpr size_t kStep = kPaddedStep;  // columns a step: two vectors of 32 BF16
constexpr size_t kHalf = kStep / 2;
constexpr size_t kTileTokens = 3;  // 3 x 8 accumulators, 3 x, 1 w: 28 of 32 registers

// E2M1 as BF16 times 2^125, twice: the index of vpermw has 5 bits and the code fills 4. Subtracting
// (252 - s) << 7 with unsigned saturation gives code * 2^(s - 127): zeros stay 0, exponents of the
// others end in 1 .. 254 for 2 <= s <= 252. -0 is stored as 0, which no sum can tell apart: an
// accumulator starts at +0.
constexpr uint32_t kMinScaleFP4 = 2;
constexpr uint32_t kMaxScaleFP4 = 252;
constexpr std::array<uint16_t, 32> MakeTableFP4() {
  std::array<uint16_t, 32> table{};
  for (size_t i = 0; i < table.size(); ++i) {
    const uint16_t bits = ToBF16(E2M1ToFloat(static_cast<uint8_t>(i % 16))).bits;
    table[i] = (i & 7) == 0 ? uint16_t{0} : static_cast<uint16_t>(bits + (125u << 7));
  }
  return table;
}
alignas(64) constexpr std::array<uint16_t, 32> kTableFP4 = MakeTableFP4();

// |E4M3| as BF16, all normal: 2^-9 .. 448. With the scale 2^(s - 127) exponents stay in 1 .. 254
// for 10 <= s <= 246.
constexpr uint32_t kMinScaleFP8 = 10;
constexpr uint32_t kMaxScaleFP8 = 246;
constexpr std::array<uint16_t, 128> MakeTableFP8() {
  std::array<uint16_t, 128> table{};
  for (size_t i = 0; i < table.size(); ++i) {
    table[i] = ToBF16(E4M3ToFloat(static_cast<uint8_t>(i))).bits;
  }
  return table;
}
alignas(64) constexpr std::array<uint16_t, 128> kTableFP8 = MakeTableFP8();

// Byte indices that pick the even bytes of two vectors; the odd ones are one higher.
constexpr std::array<uint8_t, 64> MakeEvenBytes() {
  std::array<uint8_t, 64> index{};
  for (size_t i = 0; i < index.size(); ++i) index[i] = static_cast<uint8_t>(2 * i);
  return index;
}
alignas(64) constexpr std::array<uint8_t, 64> kEvenBytes = MakeEvenBytes();

// The scratch of a task, see PanelScratchBytes.
struct Scratch {
  explicit Scratch(const Panel& panel) {
    const size_t padded = PaddedCols(panel.job->w.cols);
    widened = reinterpret_cast<uint16_t*>(panel.scratch);
    row = reinterpret_cast<float*>(panel.scratch + PanelRows(panel.job->w.cols) * padded * 4);
    scales = reinterpret_cast<uint8_t*>(row + padded);
  }
  uint16_t* widened;  // [groups][padded / 32][kGroupRows][32]
  float* row;         // [padded]
  uint8_t* scales;    // [padded]: what the readers below make of a group's scales
};

// How many columns of a step exist: all but in the last one.
struct StepMask {
  explicit StepMask(size_t cols)
      : bytes(cols >= 64 ? ~uint64_t{0} : (uint64_t{1} << cols) - 1),
        lo(static_cast<uint32_t>(bytes)),
        hi(static_cast<uint32_t>(bytes >> 32)) {}
  uint64_t bytes;
  uint32_t lo, hi;
};

}  // namespace
}  // namespace cachalot::kernels

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512bf16")
namespace cachalot::kernels {
namespace {

struct Widened {
  __m512i lo, hi;  // columns 0-31 and 32-63 of a step, BF16
};

HWY_INLINE __m512 Dot(__m512 acc, __m512i x, __m512i w) {
  return _mm512_dpbf16_ps(acc, (__m512bh)x, (__m512bh)w);
}

// Rows [n, n + 8) of a weight, read a step at a time. Rows past the end of the panel repeat its
// last, so that a short group runs the same code; their results are dropped.
struct GroupRows {
  GroupRows(const WeightView& w, uint32_t n, uint32_t count) {
    for (uint32_t r = 0; r < kGroupRows; ++r) row[r] = w.row(n + std::min(r, count - 1));
    next = kGroupRows * w.row_bytes();
  }
  // The same bytes of the next group: 8 rows are too many streams for the hardware prefetcher of
  // one core, and the group after this one is needed microseconds from now. To L2: two groups of
  // 8 rows and x do not fit L1 (docs/log.md, 2026-11-23).
  HWY_INLINE void Prefetch(uint32_t r, size_t byte) const {
    _mm_prefetch(reinterpret_cast<const char*>(row[r] + next + byte), _MM_HINT_T1);
  }
  const uint8_t* row[kGroupRows];
  size_t next;
  uint32_t slow = 0;  // bit r: row r needs the float32 path
};

struct ReaderBF16 : GroupRows {
  ReaderBF16(const WeightView& w, uint32_t n, uint32_t count, uint8_t*) : GroupRows(w, n, count) {}

  HWY_INLINE void StartStep(size_t) {}
  HWY_INLINE Widened Load(uint32_t r, size_t step) const {
    const uint8_t* p = row[r] + step * 2 * kStep;
    Prefetch(r, step * 2 * kStep);
    Prefetch(r, step * 2 * kStep + 64);
    return {_mm512_loadu_si512(p), _mm512_loadu_si512(p + 64)};
  }
  HWY_INLINE Widened LoadTail(uint32_t r, size_t step, const StepMask& mask) const {
    const uint8_t* p = row[r] + step * 2 * kStep;
    return {_mm512_maskz_loadu_epi16(mask.lo, p), _mm512_maskz_loadu_epi16(mask.hi, p + 64)};
  }
};

struct ReaderFP4 : GroupRows {
  ReaderFP4(const WeightView& w, uint32_t n, uint32_t count, uint8_t* scratch)
      : GroupRows(w, n, count),
        drop(reinterpret_cast<uint32_t*>(scratch)),
        stride(PaddedCols(w.cols) / kFP4Block),
        table(_mm512_load_si512(kTableFP4.data())) {
    const size_t blocks = w.cols / kFP4Block;
    for (uint32_t r = 0; r < kGroupRows; ++r) {
      const size_t scale_row = n + std::min(r, count - 1);
      PrepareScales(w.scales + scale_row * blocks, blocks, r);
    }
  }

  // (252 - s) << 7 in both halves of a dword, so that one broadcast load feeds the subtraction.
  void PrepareScales(const uint8_t* scales, size_t blocks, uint32_t r) {
    __mmask16 bad = 0;
    for (size_t b = 0; b < blocks; b += 16) {
      const __mmask16 live = _cvtu32_mask16(StepMask(std::min<size_t>(blocks - b, 16)).lo);
      const __m128i s = _mm_maskz_loadu_epi8(live, scales + b);
      const __m128i above = _mm_sub_epi8(s, _mm_set1_epi8(kMinScaleFP4));
      bad |= _mm_mask_cmpgt_epu8_mask(
          live, above, _mm_set1_epi8(static_cast<char>(kMaxScaleFP4 - kMinScaleFP4)));
      const __m512i d = _mm512_sub_epi32(_mm512_set1_epi32(kMaxScaleFP4), _mm512_cvtepu8_epi32(s));
      const __m512i words = _mm512_or_si512(_mm512_slli_epi32(d, 7), _mm512_slli_epi32(d, 23));
      _mm512_mask_storeu_epi32(drop + r * stride + b, live, words);
    }
    if (bad != 0) slow |= 1u << r;
  }

  HWY_INLINE void StartStep(size_t) {}
  // Words of 4 codes go to the 8 qwords; vpmultishiftqb puts code j at the bottom of word j (what
  // stands above the 5 index bits, and bit 4, does not matter).
  HWY_INLINE __m512i Widen(__m128i codes, uint32_t r, size_t block) const {
    const __m512i shifts = _mm512_set1_epi64(0x000C000800040000);
    const __m512i index = _mm512_multishift_epi64_epi8(shifts, _mm512_cvtepu16_epi64(codes));
    const __m512i d = _mm512_set1_epi32(static_cast<int>(drop[r * stride + block]));
    return _mm512_permutexvar_epi16(index, _mm512_subs_epu16(table, d));
  }
  HWY_INLINE Widened Load(uint32_t r, size_t step) const {
    const __m128i* p = reinterpret_cast<const __m128i*>(row[r] + step * kStep / 2);
    Prefetch(r, step * kStep / 2);
    return {Widen(_mm_loadu_si128(p), r, 2 * step), Widen(_mm_loadu_si128(p + 1), r, 2 * step + 1)};
  }
  // Columns are whole blocks of 32, so only the second half can be missing.
  HWY_INLINE Widened LoadTail(uint32_t r, size_t step, const StepMask&) const {
    const __m128i* p = reinterpret_cast<const __m128i*>(row[r] + step * kStep / 2);
    return {Widen(_mm_loadu_si128(p), r, 2 * step), _mm512_setzero_si512()};
  }

  uint32_t* drop;  // [kGroupRows][stride]
  size_t stride;
  __m512i table;
};

// vpermi2b looks 64 bytes up in 128 entries at once: one table for the low and one for the high
// byte of the BF16 word, both with the scale of this block of 128 columns added.
struct ReaderFP8 : GroupRows {
  ReaderFP8(const WeightView& w, uint32_t n, uint32_t count, uint8_t* scratch)
      : GroupRows(w, n, count), rebias(reinterpret_cast<uint16_t*>(scratch)) {
    bool bad = false;
    for (size_t k = 0; k < w.cols; k += kFP8Block) {
      // Powers of two have no mantissa bits; 2^-127 has, and is out of range anyway.
      const uint32_t bits = std::bit_cast<uint32_t>(WeightScale(w, n, k));
      const uint32_t s = bits >> 23;  // 256 and up: negative
      bad |= (bits & 0x7FFFFFu) != 0 || s < kMinScaleFP8 || s > kMaxScaleFP8;
      rebias[k / kFP8Block] = static_cast<uint16_t>((s - 127u) << 7);
    }
    if (bad) slow = (1u << kGroupRows) - 1;
  }

  HWY_INLINE void StartStep(size_t step) {
    constexpr size_t kStepsPerBlock = kFP8Block / kStep;
    if (step % kStepsPerBlock != 0) return;
    const __m512i add = _mm512_set1_epi16(static_cast<short>(rebias[step / kStepsPerBlock]));
    const __m512i even = _mm512_load_si512(kEvenBytes.data());
    const __m512i odd = _mm512_add_epi8(even, _mm512_set1_epi8(1));
    const uint16_t* t = kTableFP8.data();
    // 0 and NaN (entries 0 and 127) have no exponent to shift.
    const __m512i t0 = _mm512_load_si512(t);
    const __m512i t3 = _mm512_load_si512(t + 96);
    const __m512i w0 = _mm512_mask_add_epi16(t0, 0xFFFFFFFEu, t0, add);
    const __m512i w1 = _mm512_add_epi16(_mm512_load_si512(t + 32), add);
    const __m512i w2 = _mm512_add_epi16(_mm512_load_si512(t + 64), add);
    const __m512i w3 = _mm512_mask_add_epi16(t3, 0x7FFFFFFFu, t3, add);
    lo0 = _mm512_permutex2var_epi8(w0, even, w1);
    lo1 = _mm512_permutex2var_epi8(w2, even, w3);
    hi0 = _mm512_permutex2var_epi8(w0, odd, w1);
    hi1 = _mm512_permutex2var_epi8(w2, odd, w3);
  }
  // unpack works in each 16 bytes, so the qwords are first laid out for its results to be in order.
  HWY_INLINE Widened Widen(__m512i codes) const {
    const __m512i v = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), codes);
    const __m512i lo = _mm512_permutex2var_epi8(lo0, v, lo1);
    const __m512i magnitude = _mm512_permutex2var_epi8(hi0, v, hi1);
    const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
    const __m512i hi = _mm512_ternarylogic_epi32(magnitude, v, sign, 0xF8);  // a | (b & c)
    return {_mm512_unpacklo_epi8(lo, hi), _mm512_unpackhi_epi8(lo, hi)};
  }
  HWY_INLINE Widened Load(uint32_t r, size_t step) const {
    Prefetch(r, step * kStep);
    return Widen(_mm512_loadu_si512(row[r] + step * kStep));
  }
  HWY_INLINE Widened LoadTail(uint32_t r, size_t step, const StepMask& mask) const {
    return Widen(_mm512_maskz_loadu_epi8(mask.bytes, row[r] + step * kStep));
  }

  uint16_t* rebias;  // [ceil(K / 128)]
  __m512i lo0, lo1, hi0, hi1;
};

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

// Writes `count` <= 8 outputs of one token from 8 accumulators.
HWY_INLINE void StoreOutputs(const __m512* acc, uint32_t count, float* y) {
  const __m256 sums = _mm256_set_m128(Reduce4(acc + 4), Reduce4(acc));
  _mm256_mask_storeu_ps(y, static_cast<__mmask8>((1u << count) - 1), sums);
}

// The tokens of a tile: where their x is and where their outputs go.
template <size_t kTokens>
struct Tile {
  Tile(const Panel& panel, size_t m) {
    const MatView<float>& out = panel.job->y;
    for (size_t i = 0; i < kTokens; ++i) {
      x[i] = panel.XRow(m + i);
      y[i] = out.data + (m + i) * out.stride;
    }
  }
  const BF16* x[kTokens];
  float* y[kTokens];
};

// One group of rows times kTokens tokens, weights widened in registers.
template <size_t kTokens, class Reader>
HWY_INLINE void MultiplyGroup(Reader& reader, const Tile<kTokens>& tile, size_t cols, uint32_t n,
                              uint32_t count) {
  __m512 acc[kTokens][kGroupRows];
  for (auto& row : acc) {
    for (__m512& a : row) a = _mm512_setzero_ps();
  }
  const size_t steps = cols / kStep;
  for (size_t step = 0; step < steps; ++step) {
    reader.StartStep(step);
    HWY_UNROLL(8)
    for (uint32_t r = 0; r < kGroupRows; ++r) {
      const Widened w = reader.Load(r, step);
      for (size_t i = 0; i < kTokens; ++i) {
        const BF16* x = tile.x[i] + step * kStep;
        acc[i][r] = Dot(acc[i][r], _mm512_loadu_si512(x), w.lo);
        acc[i][r] = Dot(acc[i][r], _mm512_loadu_si512(x + kHalf), w.hi);
      }
    }
  }
  if (cols % kStep != 0) {
    const StepMask mask(cols % kStep);
    reader.StartStep(steps);
    HWY_UNROLL(8)
    for (uint32_t r = 0; r < kGroupRows; ++r) {
      const Widened w = reader.LoadTail(r, steps, mask);
      for (size_t i = 0; i < kTokens; ++i) {
        const BF16* x = tile.x[i] + steps * kStep;
        acc[i][r] = Dot(acc[i][r], _mm512_maskz_loadu_epi16(mask.lo, x), w.lo);
        acc[i][r] = Dot(acc[i][r], _mm512_maskz_loadu_epi16(mask.hi, x + kHalf), w.hi);
      }
    }
  }
  for (size_t i = 0; i < kTokens; ++i) StoreOutputs(acc[i], count, tile.y[i] + n);
}

// Widens a group into `out` [padded / 32][kGroupRows][32].
template <class Reader>
void WidenGroup(Reader& reader, size_t cols, uint16_t* out) {
  constexpr size_t kStepValues = kGroupRows * kStep;
  const size_t steps = cols / kStep;
  for (size_t step = 0; step < steps; ++step) {
    reader.StartStep(step);
    for (uint32_t r = 0; r < kGroupRows; ++r) {
      const Widened w = reader.Load(r, step);
      _mm512_store_si512(out + step * kStepValues + r * kHalf, w.lo);
      _mm512_store_si512(out + step * kStepValues + (kGroupRows + r) * kHalf, w.hi);
    }
  }
  if (cols % kStep == 0) return;
  const StepMask mask(cols % kStep);
  reader.StartStep(steps);
  for (uint32_t r = 0; r < kGroupRows; ++r) {
    const Widened w = reader.LoadTail(r, steps, mask);
    _mm512_store_si512(out + steps * kStepValues + r * kHalf, w.lo);
    _mm512_store_si512(out + steps * kStepValues + (kGroupRows + r) * kHalf, w.hi);
  }
}

// One widened group times kTokens tokens.
template <size_t kTokens>
HWY_INLINE void MultiplyWidened(const uint16_t* w, const Tile<kTokens>& tile, size_t cols,
                                uint32_t n, uint32_t count) {
  __m512 acc[kTokens][kGroupRows];
  for (auto& row : acc) {
    for (__m512& a : row) a = _mm512_setzero_ps();
  }
  const size_t full = cols / kStep * kStep;
  for (size_t k = 0; k < full; k += kHalf, w += kGroupRows * kHalf) {
    __m512i x[kTokens];
    for (size_t i = 0; i < kTokens; ++i) x[i] = _mm512_loadu_si512(tile.x[i] + k);
    HWY_UNROLL(8)
    for (uint32_t r = 0; r < kGroupRows; ++r) {
      const __m512i wr = _mm512_load_si512(w + r * kHalf);
      for (size_t i = 0; i < kTokens; ++i) acc[i][r] = Dot(acc[i][r], x[i], wr);
    }
  }
  const StepMask mask(cols - full);
  for (size_t k = full; k < PaddedCols(cols); k += kHalf, w += kGroupRows * kHalf) {
    __m512i x[kTokens];
    for (size_t i = 0; i < kTokens; ++i) {
      x[i] = _mm512_maskz_loadu_epi16(k == full ? mask.lo : mask.hi, tile.x[i] + k);
    }
    for (uint32_t r = 0; r < kGroupRows; ++r) {
      const __m512i wr = _mm512_load_si512(w + r * kHalf);
      for (size_t i = 0; i < kTokens; ++i) acc[i][r] = Dot(acc[i][r], x[i], wr);
    }
  }
  for (size_t i = 0; i < kTokens; ++i) StoreOutputs(acc[i], count, tile.y[i] + n);
}

template <size_t kTokens>
void MultiplyPanel(const Panel& panel, const uint16_t* widened, size_t m) {
  const Tile<kTokens> tile(panel, m);
  const size_t cols = panel.job->w.cols;
  for (uint32_t g = 0; g < panel.count; g += kGroupRows) {
    const uint32_t count = std::min(kGroupRows, panel.count - g);
    MultiplyWidened(widened + g * PaddedCols(cols), tile, cols, panel.begin + g, count);
  }
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

template <class Reader>
void RunPanel(const Panel& panel) {
  const WeightView& w = panel.job->w;
  const Scratch scratch(panel);
  const size_t tokens = panel.job->y.rows;
  uint64_t slow = 0;
  for (uint32_t g = 0; g < panel.count; g += kGroupRows) {
    const uint32_t n = panel.begin + g;
    const uint32_t count = std::min(kGroupRows, panel.count - g);
    Reader reader(w, n, count, scratch.scales);
    slow |= uint64_t{reader.slow} << g;
    switch (tokens) {
      case 1:
        MultiplyGroup(reader, Tile<1>(panel, 0), w.cols, n, count);
        break;
      case 2:
        MultiplyGroup(reader, Tile<2>(panel, 0), w.cols, n, count);
        break;
      case 3:
        MultiplyGroup(reader, Tile<3>(panel, 0), w.cols, n, count);
        break;
      default:
        WidenGroup(reader, w.cols, scratch.widened + g * PaddedCols(w.cols));
    }
  }
  if (tokens > kTileTokens) {
    size_t m = 0;
    for (; m + kTileTokens <= tokens; m += kTileTokens) {
      MultiplyPanel<kTileTokens>(panel, scratch.widened, m);
    }
    if (tokens - m == 2) MultiplyPanel<2>(panel, scratch.widened, m);
    if (tokens - m == 1) MultiplyPanel<1>(panel, scratch.widened, m);
  }
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
