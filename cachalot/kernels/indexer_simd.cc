// SPDX-License-Identifier: Apache-2.0
// Index scores for every Highway target: tiles of 64 keys, lane = key, heads ascending.
//
// Queries and keys lie on the FP4 grid, so with BF16 dots every product is exact and only sums
// round. Decoding a key costs about a tenth of 64 heads' products; it is not shared between tokens.
#include <algorithm>
#include <cstring>
#include <utility>

#include "cachalot/kernels/indexer_tile.h"
#include "cachalot/numeric/formats.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cachalot/kernels/indexer_simd.cc"  // re-included once per target
#include "hwy/foreach_target.h"                                // IWYU pragma: keep
#include "hwy/highway.h"

// After highway.h:
#include "cachalot/kernels/dispatch.h"
#include "cachalot/kernels/score_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace cachalot::kernels {
namespace HWY_NAMESPACE {

#if CACHALOT_NO_VECTORS

void ScoreIndex(const IndexTask& /*task*/, ScoreFn* /*score_bf16*/) {}

#else

// One block of 32 dims. E2M1 magnitudes are small multiples of 1/2: a byte table of 2 x.
void DecodeE2M1Block(const uint8_t* packed, float scale, float* to) {
  const hn::Full128<uint8_t> d8;
  const hn::Full128<uint16_t> d16;
  alignas(16) static constexpr int8_t kDoubled[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                                      0, -1, -2, -3, -4, -6, -8, -12};
  const auto table = hn::Load(d8, reinterpret_cast<const uint8_t*>(kDoubled));
  const auto bytes = hn::LoadU(d8, packed);
  const auto mask = hn::Set(d8, 0x0F);
  const auto low = hn::TableLookupBytes(table, hn::And(bytes, mask));
  const auto shifted = hn::BitCast(d8, hn::ShiftRight<4>(hn::BitCast(d16, bytes)));
  const auto high = hn::TableLookupBytes(table, hn::And(shifted, mask));
  alignas(16) int8_t doubled[kKeyScaleBlock];
  hn::Store(hn::InterleaveLower(d8, low, high), d8, reinterpret_cast<uint8_t*>(doubled));
  hn::Store(hn::InterleaveUpper(d8, low, high), d8, reinterpret_cast<uint8_t*>(doubled) + 16);
  const hn::Rebind<int32_t, DF> d32;
  const hn::Rebind<int8_t, DF> di8;
  // Two products, as 0.5 * 2^-127 would be subnormal. Both are exact otherwise.
  const VF half = hn::Set(kF32, 0.5f);
  const VF scales = hn::Set(kF32, scale);
  for (size_t k = 0; k < kKeyScaleBlock; k += hn::Lanes(kF32)) {
    const auto codes = hn::PromoteTo(d32, hn::LoadU(di8, doubled + k));
    hn::StoreU(hn::Mul(hn::Mul(hn::ConvertTo(kF32, codes), half), scales), kF32, to + k);
  }
}

class IndexTile {
 public:
  IndexTile(const IndexTask& task, ScoreFn* score_bf16)
      : task_(task),
        score_(score_bf16 != nullptr ? score_bf16 : &ScoreF32),
        bf16_(score_bf16 != nullptr),
        key_dim_(task.query->keys.layout.key_dim),
        d_(PaddedDim(key_dim_)),
        stride_(TileStride(d_)),
        steps_(bf16_ ? d_ / 2 : d_) {
    float* at = reinterpret_cast<float*>(task.scratch);
    const auto take = [&at](size_t count) { return std::exchange(at, at + count); };
    rows_ = take(kTileRows * stride_);
    packed_ = reinterpret_cast<uint32_t*>(take(kTileRows * stride_));
    keys_ = reinterpret_cast<uint32_t*>(take(kTileRows * d_));
    q_ = take(RoundUp(task.heads, kHeadBlock) * d_);
    scores_ = take(kHeadBlock * kTileRows);
    LoadQueries();
    for (size_t r = 0; r < kTileRows; ++r) {
      std::fill(rows_ + r * stride_ + key_dim_, rows_ + r * stride_ + d_, 0.0f);
    }
  }

  // Scores of entries [begin, begin + count), count <= 64.
  void Run(size_t begin, size_t count) {
    for (size_t i = 0; i < count; ++i) LoadKey(begin + i, i);
    const auto* words = bf16_ ? packed_ : reinterpret_cast<const uint32_t*>(rows_);
    TransposeTile(words, stride_, steps_, 0, count, keys_);
    HWY_ALIGN float sums[kTileRows] = {};
    for (size_t h = 0; h < task_.heads; h += kHeadBlock) {
      score_(q_ + h * steps_, keys_, steps_, scores_);
      const size_t heads = std::min<size_t>(kHeadBlock, task_.heads - h);
      for (size_t b = 0; b < heads; ++b) AddHead(h + b, scores_ + b * kTileRows, sums);
    }
    task_.sink(begin, {sums, count});
  }

 private:
  void LoadQueries() {
    const size_t heads = RoundUp(task_.heads, kHeadBlock);
    std::memset(q_, 0, heads * steps_ * sizeof(float));
    for (size_t h = 0; h < task_.heads; ++h) {
      const float* from = task_.query->q + h * key_dim_;
      if (!bf16_) {
        std::memcpy(q_ + h * steps_, from, key_dim_ * sizeof(float));
        continue;
      }
      uint16_t* to = reinterpret_cast<uint16_t*>(q_ + h * steps_);
      for (size_t k = 0; k < key_dim_; ++k) to[k] = ToBF16(from[k]).bits;
    }
  }

  void LoadKey(size_t j, size_t slot) {
    const CompressedView& keys = task_.query->keys;
    const ConstKvRows block = keys.Block(j / keys.rows_per_block);
    const size_t row = j % keys.rows_per_block;
    const uint8_t* codes = block.KeyCodes(row);
    const uint8_t* scales = block.KeyScales(row);
    float* to = rows_ + slot * stride_;
    for (size_t k = 0; k < key_dim_; k += kKeyScaleBlock) {
      DecodeE2M1Block(codes + k / 2, E8M0ToFloat(scales[k / kKeyScaleBlock]), to + k);
    }
    if (bf16_) PackBF16(to, d_, packed_ + slot * stride_);
  }

  void AddHead(size_t h, const float* dots, float* sums) {
    const VF weight = hn::Set(kF32, task_.query->weights[h]);
    for (size_t i = 0; i < kTileRows; i += hn::Lanes(kF32)) {
      const VF dot = hn::LoadU(kF32, dots + i);
      // Not Max: a NaN has to stay one.
      const VF relu = hn::IfThenElse(hn::Lt(dot, hn::Zero(kF32)), hn::Zero(kF32), dot);
      hn::StoreU(hn::MulAdd(weight, relu, hn::LoadU(kF32, sums + i)), kF32, sums + i);
    }
  }

  const IndexTask& task_;
  ScoreFn* const score_;
  const bool bf16_;
  const size_t key_dim_;
  const size_t d_;              // key_dim, padded
  const size_t stride_;         // of a row of the tile
  const size_t steps_;          // words of a key
  float* rows_ = nullptr;       // [64][stride]
  uint32_t* packed_ = nullptr;  // [64][stride], BF16 pairs
  uint32_t* keys_ = nullptr;    // [steps][64]
  float* q_ = nullptr;          // [heads][steps] words
  float* scores_ = nullptr;     // [4][64]
};

void ScoreIndex(const IndexTask& task, ScoreFn* score_bf16) {
  IndexTile tile(task, score_bf16);
  for (size_t begin = task.begin; begin < task.end; begin += kTileRows) {
    tile.Run(begin, std::min<size_t>(kTileRows, task.end - begin));
  }
}

#endif  // CACHALOT_NO_VECTORS

}  // namespace HWY_NAMESPACE
}  // namespace cachalot::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cachalot::kernels {

IndexFn* HighwayIndexScores(Target target) {
#if HWY_STATIC_TARGET == HWY_SCALAR || HWY_STATIC_TARGET == HWY_EMU128
  if (target == Target::kScalar) return nullptr;
#endif
  return CACHALOT_TARGET_FN(ScoreIndex, target);
}

}  // namespace cachalot::kernels
#endif  // HWY_ONCE
