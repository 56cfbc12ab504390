// SPDX-License-Identifier: Apache-2.0
// float32 products for every Highway target; BF16 activations are promoted as they are loaded.
//
// An accumulator is one vector of the target: step i adds columns [i N, i N + N) with one fma a
// lane, and SumOfLanes ends it. BF16 and float32 rows are promoted as they are loaded, for every
// tile of tokens anew: two operations beside three fma. FP8 and FP4 rows are first widened to
// float32 in scratch, zero-padded; up to a tile of tokens each group of rows is used while it is in
// L1 or L2, more tokens pass over a whole panel.
#include <cstring>

#include "cachalot/kernels/matmul_panel.h"
#include "cachalot/kernels/matmul_ref.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cachalot/kernels/matmul_simd.cc"  // re-included once per target
#include "hwy/foreach_target.h"                               // IWYU pragma: keep
#include "hwy/highway.h"

// After highway.h:
#include "cachalot/kernels/dispatch.h"

HWY_BEFORE_NAMESPACE();
namespace cachalot::kernels {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128

// The portable target is the reference: emulated vectors would only be slower.
template <typename X>
void RunPanel(const MatMulPanel<X>& panel) {
  ref::MatMulRows(*panel.job, panel.begin, panel.count,
                  {reinterpret_cast<float*>(panel.scratch), panel.job->w.cols});
}

#else

namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;
using DU32 = hn::RebindToUnsigned<DF>;

constexpr DF kF32;
constexpr size_t kTileTokens = 3;
// Accumulators and operands of a tile must fit the 16 or 32 registers of the target.
constexpr size_t kTileRows = (HWY_TARGET == HWY_AVX2) ? 4 : kGroupRows;
static_assert(kPaddedStep % hn::MaxLanes(DF()) == 0);

// Floats from one widened row to the next: a cache line more than the columns, since rows a
// multiple of 4 KiB apart fall into the same set of L1 and evict each other.
constexpr size_t RowStride(size_t cols) { return PaddedCols(cols) + kRowPadFloats; }

HWY_INLINE VF LoadX(const float* x) { return hn::LoadU(kF32, x); }
HWY_INLINE VF LoadX(const BF16* x) {
  const hn::Rebind<uint16_t, DF> du16;
  const auto bits = hn::LoadU(du16, reinterpret_cast<const uint16_t*>(x));
  return hn::BitCast(kF32, hn::ShiftLeft<16>(hn::PromoteTo(DU32(), bits)));
}

// One block of 32 columns. Sixteen-entry byte tables give the halves of the BF16 word.
void WidenBlockFP4(const uint8_t* codes, float scale, float* out) {
  const hn::Full128<uint8_t> d8;
  const hn::Full128<uint16_t> d16;
  alignas(16) static constexpr uint8_t kHigh[16] = {0x00, 0x3F, 0x3F, 0x3F, 0x40, 0x40, 0x40, 0x40,
                                                    0x80, 0xBF, 0xBF, 0xBF, 0xC0, 0xC0, 0xC0, 0xC0};
  alignas(16) static constexpr uint8_t kLow[16] = {0x00, 0x00, 0x80, 0xC0, 0x00, 0x40, 0x80, 0xC0,
                                                   0x00, 0x00, 0x80, 0xC0, 0x00, 0x40, 0x80, 0xC0};
  const auto high_table = hn::Load(d8, kHigh);
  const auto low_table = hn::Load(d8, kLow);
  const auto bytes = hn::LoadU(d8, codes);
  const auto even = hn::And(bytes, hn::Set(d8, 0x0F));
  const auto odd = hn::BitCast(d8, hn::ShiftRight<4>(hn::BitCast(d16, bytes)));
  const auto odd_codes = hn::And(odd, hn::Set(d8, 0x0F));
  alignas(16) BF16 words[kFP4Block];
  uint16_t* to = reinterpret_cast<uint16_t*>(words);
  for (size_t half = 0; half < 2; ++half) {
    const auto index = half == 0 ? hn::InterleaveLower(d8, even, odd_codes)
                                 : hn::InterleaveUpper(d8, even, odd_codes);
    const auto low = hn::TableLookupBytes(low_table, index);
    const auto high = hn::TableLookupBytes(high_table, index);
    hn::Store(hn::BitCast(d16, hn::InterleaveLower(d8, low, high)), d16, to + 16 * half);
    hn::Store(hn::BitCast(d16, hn::InterleaveUpper(d8, low, high)), d16, to + 16 * half + 8);
  }
  const VF scales = hn::Set(kF32, scale);
  for (size_t k = 0; k < kFP4Block; k += hn::Lanes(kF32)) {
    hn::StoreU(hn::Mul(LoadX(words + k), scales), kF32, out + k);
  }
}

// Exponent and mantissa moved to their places in a float32, times 2^120 for the difference of the
// biases: exact for subnormal codes too, which are subnormal before the product and normal after.
VF DecodeFP8(const uint8_t* codes) {
  const DU32 du32;
  const hn::Rebind<uint8_t, DF> du8;
  const auto code = hn::PromoteTo(du32, hn::LoadU(du8, codes));
  const auto magnitude_code = hn::And(code, hn::Set(du32, 0x7Fu));
  const VF magnitude =
      hn::Mul(hn::BitCast(kF32, hn::ShiftLeft<20>(magnitude_code)), hn::Set(kF32, 0x1p120f));
  const auto is_nan = hn::RebindMask(kF32, hn::Eq(magnitude_code, hn::Set(du32, 0x7Fu)));
  const VF nan = hn::BitCast(kF32, hn::Set(du32, 0x7FC00000u));
  const auto sign = hn::ShiftLeft<24>(hn::AndNot(hn::Set(du32, 0x7Fu), code));
  return hn::Or(hn::IfThenElse(is_nan, nan, magnitude), hn::BitCast(kF32, sign));
}

void WidenBlockFP8(const uint8_t* codes, size_t count, float scale, float* out) {
  const size_t lanes = hn::Lanes(kF32);
  const VF scales = hn::Set(kF32, scale);
  size_t k = 0;
  for (; k + lanes <= count; k += lanes) {
    hn::StoreU(hn::Mul(DecodeFP8(codes + k), scales), kF32, out + k);
  }
  for (; k < count; ++k) out[k] = E4M3ToFloat(codes[k]) * scale;
}

// Row n to `out` [PaddedCols], the same values as WidenRow and zeros behind them.
void WidenPaddedRow(const WeightView& w, size_t n, float* out) {
  const uint8_t* row = w.row(n);
  switch (w.kind) {
    case WeightKind::kF32:
    case WeightKind::kBF16:
      break;  // StoredRows
    case WeightKind::kFP8:
      for (size_t k = 0; k < w.cols; k += kFP8Block) {
        WidenBlockFP8(row + k, HWY_MIN(kFP8Block, w.cols - k), WeightScale(w, n, k), out + k);
      }
      break;
    case WeightKind::kFP4:
      for (size_t k = 0; k < w.cols; k += kFP4Block) {
        WidenBlockFP4(row + k / 2, WeightScale(w, n, k), out + k);
      }
      break;
  }
  std::memset(out + w.cols, 0, (PaddedCols(w.cols) - w.cols) * sizeof(float));
}

// The rows of a tile, as float32 at column k. Rows past `count` repeat the last one: their results
// are dropped.
struct WidenedRows {
  WidenedRows(const float* first, size_t cols) : w(first), stride(RowStride(cols)) {}
  HWY_INLINE VF Load(size_t r, size_t k) const { return hn::Load(kF32, w + r * stride + k); }
  HWY_INLINE VF LoadTail(size_t r, size_t k) const { return Load(r, k); }  // zeros behind the row
  const float* w;
  size_t stride;
};

template <typename W>
struct StoredRows {
  StoredRows(const WeightView& w, uint32_t n, size_t count) : cols(w.cols), next(w.row_bytes()) {
    for (size_t r = 0; r < kTileRows; ++r) {
      row[r] = w.row(n + HWY_MIN(static_cast<uint32_t>(r), static_cast<uint32_t>(count - 1)));
    }
    next *= kTileRows;
  }
  // Asks for the same columns of the next tile's rows, to L2: so many rows are too many streams
  // for the hardware prefetcher.
  HWY_INLINE VF Load(size_t r, size_t k) const {
    const uint8_t* p = row[r] + k * sizeof(W);
    __builtin_prefetch(p + next, 0, 2);
    return LoadX(reinterpret_cast<const W*>(p));
  }
  HWY_INLINE VF LoadTail(size_t r, size_t k) const {
    HWY_ALIGN W tail[hn::MaxLanes(DF())] = {};
    std::memcpy(static_cast<void*>(tail), row[r] + k * sizeof(W), (cols - k) * sizeof(W));
    return LoadX(tail);
  }
  const uint8_t* row[kTileRows];
  size_t cols;
  size_t next;  // bytes from a row to its counterpart in the next tile
};

// kTokens tokens from m on times kTileRows rows from n on, of which `count` are real.
template <size_t kTokens, typename X, class Rows>
HWY_INLINE void MultiplyTile(const MatMulPanel<X>& panel, const Rows& rows, size_t m, uint32_t n,
                             size_t count) {
  const size_t cols = panel.job->w.cols;
  const size_t lanes = hn::Lanes(kF32);
  const X* x[kTokens];
  HWY_UNROLL(3)
  for (size_t i = 0; i < kTokens; ++i) x[i] = panel.XRow(m + i);
  VF acc[kTokens][kTileRows];
  HWY_UNROLL(3)
  for (size_t i = 0; i < kTokens; ++i) {
    HWY_UNROLL(8)
    for (size_t r = 0; r < kTileRows; ++r) acc[i][r] = hn::Zero(kF32);
  }
  size_t k = 0;
  for (; k + lanes <= cols; k += lanes) {
    VF xs[kTokens];
    HWY_UNROLL(3)
    for (size_t i = 0; i < kTokens; ++i) xs[i] = LoadX(x[i] + k);
    // Unrolled whole, or the compiler keeps the accumulators in memory.
    HWY_UNROLL(8)
    for (size_t r = 0; r < kTileRows; ++r) {
      const VF wr = rows.Load(r, k);
      HWY_UNROLL(3)
      for (size_t i = 0; i < kTokens; ++i) acc[i][r] = hn::MulAdd(xs[i], wr, acc[i][r]);
    }
  }
  if (k < cols) {
    HWY_UNROLL(3)
    for (size_t i = 0; i < kTokens; ++i) {
      HWY_ALIGN X tail[hn::MaxLanes(DF())] = {};
      std::memcpy(static_cast<void*>(tail), x[i] + k, (cols - k) * sizeof(X));
      const VF xs = LoadX(tail);
      HWY_UNROLL(8)
      for (size_t r = 0; r < kTileRows; ++r) {
        acc[i][r] = hn::MulAdd(xs, rows.LoadTail(r, k), acc[i][r]);
      }
    }
  }
  const MatView<float>& y = panel.job->y;
  HWY_UNROLL(3)
  for (size_t i = 0; i < kTokens; ++i) {
    HWY_UNROLL(8)
    for (size_t r = 0; r < kTileRows; ++r) {
      if (r >= count) break;
      y.data[(m + i) * y.stride + n + r] = hn::GetLane(hn::SumOfLanes(kF32, acc[i][r]));
    }
  }
}

// Where the rows of a tile come from: rows [first, first + count) of the panel.
template <typename W>
struct FromStored {
  StoredRows<W> Tile(uint32_t first, size_t count) const { return {w, begin + first, count}; }
  const WeightView& w;
  uint32_t begin;
};
struct FromScratch {
  WidenedRows Tile(uint32_t first, size_t) const {
    return {widened + (first - begin) * RowStride(cols), cols};
  }
  const float* widened;
  uint32_t begin;  // the row of the panel at `widened`
  size_t cols;
};

// Tokens [m, m + kTokens) times the rows [first, first + count) of the panel.
template <size_t kTokens, typename X, class Source>
void MultiplyRows(const MatMulPanel<X>& panel, const Source& source, size_t m, uint32_t first,
                  uint32_t count) {
  for (uint32_t r = first; r < first + count; r += kTileRows) {
    const size_t live = HWY_MIN(kTileRows, size_t{first + count - r});
    MultiplyTile<kTokens>(panel, source.Tile(r, live), m, panel.begin + r, live);
  }
}

template <typename X, class Source>
void MultiplyTokens(const MatMulPanel<X>& panel, const Source& source, uint32_t first,
                    uint32_t count) {
  const size_t tokens = panel.job->y.rows;
  size_t m = 0;
  for (; m + kTileTokens <= tokens; m += kTileTokens) {
    MultiplyRows<kTileTokens>(panel, source, m, first, count);
  }
  if (tokens - m == 2) MultiplyRows<2>(panel, source, m, first, count);
  if (tokens - m == 1) MultiplyRows<1>(panel, source, m, first, count);
}

template <typename X>
void RunWidened(const MatMulPanel<X>& panel) {
  const WeightView& w = panel.job->w;
  float* widened = reinterpret_cast<float*>(panel.scratch);
  const uint32_t at_once = panel.job->y.rows <= kTileTokens ? kGroupRows : panel.count;
  for (uint32_t first = 0; first < panel.count; first += at_once) {
    const uint32_t count = HWY_MIN(at_once, panel.count - first);
    for (uint32_t r = 0; r < count; ++r) {
      WidenPaddedRow(w, panel.begin + first + r, widened + r * RowStride(w.cols));
    }
    MultiplyTokens(panel, FromScratch{widened, first, w.cols}, first, count);
  }
}

template <typename X>
void RunPanel(const MatMulPanel<X>& panel) {
  const WeightView& w = panel.job->w;
  switch (w.kind) {
    case WeightKind::kF32:
      return MultiplyTokens(panel, FromStored<float>{w, panel.begin}, 0, panel.count);
    case WeightKind::kBF16:
      return MultiplyTokens(panel, FromStored<BF16>{w, panel.begin}, 0, panel.count);
    case WeightKind::kFP8:
    case WeightKind::kFP4:
      return RunWidened(panel);
  }
}

#endif  // HWY_TARGET

void PanelF32(const MatMulPanel<float>& panel) { RunPanel(panel); }
void PanelBF16(const MatMulPanel<BF16>& panel) { RunPanel(panel); }

}  // namespace HWY_NAMESPACE
}  // namespace cachalot::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cachalot::kernels {

PanelFn<float>* HighwayPanelF32(Target target) { return CACHALOT_TARGET_FN(PanelF32, target); }
PanelFn<BF16>* HighwayPanelBF16(Target target) { return CACHALOT_TARGET_FN(PanelBF16, target); }

}  // namespace cachalot::kernels
#endif  // HWY_ONCE
