// SPDX-License-Identifier: Apache-2.0
// Per-target parts shared by attention and indexer: transposing a tile, float32 scores, decoding.
#include <cstddef>
#include <cstdint>

#include "cachalot/kernels/attention_tile.h"
#include "hwy/highway.h"

#if defined(CACHALOT_SCORE_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CACHALOT_SCORE_TILE_INL_H_
#undef CACHALOT_SCORE_TILE_INL_H_
#else
#define CACHALOT_SCORE_TILE_INL_H_
#endif

// The portable target is the reference: emulated vectors would only be slower.
#undef CACHALOT_NO_VECTORS
#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
#define CACHALOT_NO_VECTORS 1
#else
#define CACHALOT_NO_VECTORS 0
#endif

#if !CACHALOT_NO_VECTORS
HWY_BEFORE_NAMESPACE();
namespace cachalot::kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;
using DU32 = hn::RebindToUnsigned<DF>;

constexpr DF kF32;
// kHeadBlock x kTileVecs accumulators, kTileVecs operands and a broadcast fit 16 or 32 registers.
constexpr size_t kTileVecs = (HWY_TARGET == HWY_AVX2) ? 2 : 4;
static_assert(kTileRows % (kTileVecs * hn::MaxLanes(DF())) == 0);

// Rows [begin, end) of from [64][stride], `cols` words each (a multiple of 4), to to[cols][64].
// Rows next to them up to multiples of 4 are carried along.
HWY_INLINE void TransposeTile(const uint32_t* from, size_t stride, size_t cols, size_t begin,
                              size_t end, uint32_t* to) {
  const hn::Full128<uint32_t> d32;
  const hn::Full128<uint64_t> d64;
  for (size_t c = 0; c < cols; c += 4) {
    for (size_t r = begin / 4 * 4; r < end; r += 4) {
      const uint32_t* at = from + r * stride + c;
      const auto a0 = hn::LoadU(d32, at);
      const auto a1 = hn::LoadU(d32, at + stride);
      const auto a2 = hn::LoadU(d32, at + 2 * stride);
      const auto a3 = hn::LoadU(d32, at + 3 * stride);
      const auto low01 = hn::BitCast(d64, hn::InterleaveLower(d32, a0, a1));
      const auto low23 = hn::BitCast(d64, hn::InterleaveLower(d32, a2, a3));
      const auto high01 = hn::BitCast(d64, hn::InterleaveUpper(d32, a0, a1));
      const auto high23 = hn::BitCast(d64, hn::InterleaveUpper(d32, a2, a3));
      uint32_t* out = to + c * kTileRows + r;
      hn::StoreU(hn::BitCast(d32, hn::InterleaveLower(d64, low01, low23)), d32, out);
      hn::StoreU(hn::BitCast(d32, hn::InterleaveUpper(d64, low01, low23)), d32, out + kTileRows);
      hn::StoreU(hn::BitCast(d32, hn::InterleaveLower(d64, high01, high23)), d32,
                 out + 2 * kTileRows);
      hn::StoreU(hn::BitCast(d32, hn::InterleaveUpper(d64, high01, high23)), d32,
                 out + 3 * kTileRows);
    }
  }
}

// ScoreFn for float32 words.
HWY_INLINE void ScoreF32(const void* q_words, const void* key_words, size_t steps, float* scores) {
  const float* q = static_cast<const float*>(q_words);
  const size_t lanes = hn::Lanes(kF32);
  for (size_t row = 0; row < kTileRows; row += kTileVecs * lanes) {
    const float* keys = static_cast<const float*>(key_words) + row;
    VF acc[kHeadBlock][kTileVecs];
    HWY_UNROLL(4)
    for (auto& head : acc) {
      HWY_UNROLL(4)
      for (VF& a : head) a = hn::Zero(kF32);
    }
    for (size_t k = 0; k < steps; ++k) {
      VF key[kTileVecs];
      HWY_UNROLL(4)
      for (size_t i = 0; i < kTileVecs; ++i) key[i] = hn::LoadU(kF32, keys + i * lanes);
      HWY_UNROLL(4)
      for (size_t h = 0; h < kHeadBlock; ++h) {
        const VF x = hn::Set(kF32, q[h * steps + k]);
        HWY_UNROLL(4)
        for (size_t i = 0; i < kTileVecs; ++i) acc[h][i] = hn::MulAdd(x, key[i], acc[h][i]);
      }
      keys += kTileRows;
    }
    HWY_UNROLL(4)
    for (size_t h = 0; h < kHeadBlock; ++h) {
      HWY_UNROLL(4)
      for (size_t i = 0; i < kTileVecs; ++i) {
        hn::StoreU(acc[h][i], kF32, scores + h * kTileRows + row + i * lanes);
      }
    }
  }
}

// E4M3: exponent and mantissa moved to their places. With exponent 0 there is no implicit one:
// (1 + m/8) 2^-6 - 2^-6, which avoids the slow subnormal numbers.
HWY_INLINE VF DecodeE4M3(const uint8_t* codes) {
  const DU32 du32;
  const hn::Rebind<uint8_t, DF> du8;
  const auto code = hn::PromoteTo(du32, hn::LoadU(du8, codes));
  const auto magnitude = hn::And(code, hn::Set(du32, 0x7Fu));
  const auto is_small = hn::Lt(magnitude, hn::Set(du32, 8u));
  const auto bits = hn::Add(hn::ShiftLeft<20>(magnitude), hn::Set(du32, 120u << 23));
  const VF normal = hn::BitCast(kF32, bits);
  const VF small =
      hn::Sub(hn::BitCast(kF32, hn::Add(bits, hn::Set(du32, 1u << 23))), hn::Set(kF32, 0x1p-6f));
  const VF value = hn::IfThenElse(hn::RebindMask(kF32, is_small), small, normal);
  const auto is_nan = hn::RebindMask(kF32, hn::Eq(magnitude, hn::Set(du32, 0x7Fu)));
  const VF nan = hn::BitCast(kF32, hn::Set(du32, 0x7FC00000u));
  const auto sign = hn::ShiftLeft<24>(hn::And(code, hn::Set(du32, 0x80u)));
  return hn::Or(hn::IfThenElse(is_nan, nan, value), hn::BitCast(kF32, sign));
}

// `count` floats that are exact in BF16, two a word, the first low.
HWY_INLINE void PackBF16(const float* from, size_t count, uint32_t* words) {
  const hn::Rebind<uint16_t, DF> du16;
  uint16_t* to = reinterpret_cast<uint16_t*>(words);
  for (size_t k = 0; k < count; k += hn::Lanes(kF32)) {
    const auto bits = hn::BitCast(DU32(), hn::LoadU(kF32, from + k));
    hn::StoreU(hn::TruncateTo(du16, hn::ShiftRight<16>(bits)), du16, to + k);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace cachalot::kernels
HWY_AFTER_NAMESPACE();
#endif  // !CACHALOT_NO_VECTORS

#endif  // CACHALOT_SCORE_TILE_INL_H_
