// SPDX-License-Identifier: Apache-2.0
// Attention of a group of heads for every Highway target: each tile of 64 rows is decoded once for
// all heads of the task, then scores (lane = key), softmax, and values (lane = dim).
//
// A product per head and key costs 2 d flop twice; decoding a row costs about 10 operations a
// dim, shared by the heads of the task: a twentieth of the work at 32 heads, so tiles are not also
// shared between tokens.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "cachalot/kernels/attention_tile.h"
#include "cachalot/numeric/formats.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cachalot/kernels/attention_simd.cc"  // re-included once per target
#include "hwy/foreach_target.h"                                  // IWYU pragma: keep
#include "hwy/highway.h"

// After highway.h:
#include "cachalot/kernels/dispatch.h"
#include "cachalot/kernels/score_tile-inl.h"
#if !CACHALOT_NO_VECTORS
#include "hwy/contrib/math/math-inl.h"
#endif

HWY_BEFORE_NAMESPACE();
namespace cachalot::kernels {
namespace HWY_NAMESPACE {

#if CACHALOT_NO_VECTORS

void Attend(const AttentionTask& /*task*/, ScoreFn* /*score_bf16*/) {}

#else

// hn::Exp wraps above 88.7; only a sink far over all scores gets there.
float ExpScalar(float x) {
  return x > 88.0f ? INFINITY : hn::GetLane(hn::Exp(kF32, hn::Set(kF32, x)));
}

// Maximum, sum and unnormalized output [heads][d] of some rows, relative to the maximum.
struct Partial {
  float* out;
  float* max;
  float* sum;
};

class HeadGroup {
 public:
  HeadGroup(const AttentionTask& task, ScoreFn* score_bf16)
      : task_(task),
        score_(score_bf16 != nullptr ? score_bf16 : &ScoreF32),
        bf16_(score_bf16 != nullptr),
        d_(PaddedDim(task.args->head_dim)),
        stride_(TileStride(d_)),
        steps_(bf16_ ? d_ / 2 : d_),
        heads_(RoundUp(task.num_heads, kHeadBlock)) {
    float* at = reinterpret_cast<float*>(task.scratch);
    const auto take = [&at](size_t count) { return std::exchange(at, at + count); };
    // 16 floats at a time from here on, so that all stay 64-byte aligned.
    const size_t scalars = RoundUp(heads_, 16);
    values_ = take(kTileRows * stride_);
    packed_ = reinterpret_cast<uint32_t*>(take(kTileRows * stride_));
    keys_ = reinterpret_cast<uint32_t*>(take(kTileRows * d_));
    q_ = take(heads_ * d_);
    part_.out = take(heads_ * d_);
    total_.out = take(heads_ * d_);
    scores_ = take(heads_ * kTileRows);
    factor_ = take(scalars);
    part_.max = take(scalars);
    part_.sum = take(scalars);
    total_.max = take(scalars);
    total_.sum = take(scalars);
    LoadQueries();
    // Dims that pad a row are zero in every row.
    for (size_t r = 0; r < kTileRows; ++r) {
      std::fill(values_ + r * stride_ + task.args->head_dim, values_ + r * stride_ + d_, 0.0f);
    }
  }

  void Window() {
    const uint32_t t = task_.query->position;
    const uint32_t window = task_.args->sliding_window;
    const uint32_t begin = std::max(t >= window ? t - window + 1 : 0, task_.query->window_begin);
    const ConstKvRows& rows = task_.query->window;
    for (uint32_t tile = begin / kTileRows * kTileRows; tile <= t; tile += kTileRows) {
      const uint32_t lo = std::max(begin, tile) - tile;
      const uint32_t hi = std::min(t - tile + 1, kTileRows);
      for (uint32_t i = lo; i < hi; ++i) LoadRow(rows, (tile + i) % rows.capacity, i);
      Tile(lo, hi);
    }
    FinishPartition();
  }

  void Compressed() {
    const uint32_t count = task_.query->num_compressed;
    for (uint32_t begin = 0; begin < count; begin += kTileRows) {
      const uint32_t hi = std::min(count - begin, kTileRows);
      for (uint32_t i = 0; i < hi; ++i) LoadEntry(begin + i, i);
      Tile(0, hi);
      const uint32_t end = begin + hi;
      if (end == count || end % kPartitionRows == 0) FinishPartition();
    }
  }

  void Finish() {
    const size_t d = task_.args->head_dim;
    for (size_t i = 0; i < task_.num_heads; ++i) {
      const size_t h = task_.head_begin + i;
      // The sink joins the denominator only. [V4 eq. 27]
      const float sum = total_.sum[i] + ExpScalar(task_.args->sink[h] - total_.max[i]);
      const float* from = total_.out + i * d_;
      float* to = task_.query->out + h * d;
      for (size_t k = 0; k < d; ++k) to[k] = from[k] / sum;
    }
  }

 private:
  // Padding heads and dims are zero.
  void LoadQueries() {
    const size_t d = task_.args->head_dim;
    const float* from = task_.query->q + task_.head_begin * d;
    std::memset(q_, 0, heads_ * steps_ * sizeof(float));
    for (size_t h = 0; h < task_.num_heads; ++h) {
      if (!bf16_) {
        std::memcpy(q_ + h * steps_, from + h * d, d * sizeof(float));
        continue;
      }
      uint16_t* to = reinterpret_cast<uint16_t*>(q_ + h * steps_);
      for (size_t k = 0; k < d; ++k) to[k] = ToBF16(from[h * d + k]).bits;
    }
  }

  void LoadEntry(uint32_t i, size_t slot) {
    const AttentionQuery& query = *task_.query;
    const uint32_t j = query.selected != nullptr ? query.selected[i] : i;
    const uint32_t per_block = query.compressed.rows_per_block;
    LoadRow(query.compressed.Block(j / per_block), j % per_block, slot);
  }

  void LoadRow(const ConstKvRows& rows, size_t row, size_t slot) {
    const size_t num_values = rows.layout.head_dim - rows.layout.rope_dim;
    float* to = values_ + slot * stride_;
    const uint8_t* codes = rows.Values(row);
    const uint8_t* scales = rows.Scales(row);
    for (size_t at = 0; at < num_values; at += kKvScaleBlock) {
      const VF scale = hn::Set(kF32, E8M0ToFloat(scales[at / kKvScaleBlock]));
      for (size_t k = at; k < at + kKvScaleBlock; k += hn::Lanes(kF32)) {
        hn::StoreU(hn::Mul(DecodeE4M3(codes + k), scale), kF32, to + k);
      }
    }
    const uint8_t* rope = rows.Rope(row);
    for (size_t k = 0; k < rows.layout.rope_dim; ++k) {
      BF16 value;
      std::memcpy(&value.bits, rope + 2 * k, sizeof(value.bits));
      to[num_values + k] = ToFloat(value);
    }
    if (bf16_) PackBF16(to, d_, packed_ + slot * stride_);
  }

  // One step of the online softmax over rows [lo, hi) of the tile.
  void Tile(size_t lo, size_t hi) {
    const auto* rows = bf16_ ? packed_ : reinterpret_cast<const uint32_t*>(values_);
    TransposeTile(rows, stride_, steps_, lo, hi, keys_);
    for (size_t h = 0; h < heads_; h += kHeadBlock) {
      score_(q_ + h * steps_, keys_, steps_, scores_ + h * kTileRows);
    }
    for (size_t h = 0; h < heads_; ++h) Softmax(h, lo, hi);
    AddValues(lo, hi);
    part_empty_ = false;
  }

  void Softmax(size_t h, size_t lo, size_t hi) {
    float* scores = scores_ + h * kTileRows;
    const size_t lanes = hn::Lanes(kF32);
    const VF scale = hn::Set(kF32, task_.args->scale);
    const VF first = hn::Set(kF32, static_cast<float>(lo));
    const VF end = hn::Set(kF32, static_cast<float>(hi));
    const VF lowest = hn::Set(kF32, -INFINITY);
    VF top = lowest;
    for (size_t i = 0; i < kTileRows; i += lanes) {
      const VF index = hn::Iota(kF32, static_cast<float>(i));
      const auto seen = hn::And(hn::Ge(index, first), hn::Lt(index, end));
      const VF s = hn::IfThenElse(seen, hn::Mul(hn::LoadU(kF32, scores + i), scale), lowest);
      hn::StoreU(s, kF32, scores + i);
      top = hn::Max(top, s);
    }
    const float tile_max = hn::GetLane(hn::MaxOfLanes(kF32, top));
    const float old_max = part_empty_ ? tile_max : part_.max[h];
    const float new_max = tile_max > old_max ? tile_max : old_max;
    const VF new_maxes = hn::Set(kF32, new_max);
    VF sum = hn::Zero(kF32);
    for (size_t i = 0; i < kTileRows; i += lanes) {
      const VF s = hn::LoadU(kF32, scores + i);
      const VF p = hn::Exp(kF32, hn::Sub(s, new_maxes));
      hn::StoreU(p, kF32, scores + i);
      sum = hn::Add(sum, p);
    }
    const float tile_sum = hn::GetLane(hn::SumOfLanes(kF32, sum));
    factor_[h] = old_max == new_max ? 1.0f : ExpScalar(old_max - new_max);
    part_.sum[h] = part_empty_ ? tile_sum : part_.sum[h] * factor_[h] + tile_sum;
    part_.max[h] = new_max;
  }

  // part.out = part.out * factor + p . values. Masked rows are not visited: what lies there may be
  // no number.
  void AddValues(size_t lo, size_t hi) {
    // A strip of columns of the tile stays in L1 for all heads.
    const size_t strip = kTileVecs * hn::Lanes(kF32);
    for (size_t c = 0; c < d_; c += strip) {
      for (size_t h = 0; h < heads_; h += kHeadBlock) AddValuesBlock(h, c, lo, hi);
    }
  }

  HWY_INLINE void AddValuesBlock(size_t h, size_t c, size_t lo, size_t hi) {
    const size_t lanes = hn::Lanes(kF32);
    float* out = part_.out + h * d_ + c;
    VF acc[kHeadBlock][kTileVecs];
    HWY_UNROLL(4)
    for (size_t b = 0; b < kHeadBlock; ++b) {
      const VF factor = hn::Set(kF32, factor_[h + b]);
      HWY_UNROLL(4)
      for (size_t i = 0; i < kTileVecs; ++i) {
        acc[b][i] = part_empty_ ? hn::Zero(kF32)
                                : hn::Mul(hn::LoadU(kF32, out + b * d_ + i * lanes), factor);
      }
    }
    const float* p = scores_ + h * kTileRows;
    for (size_t j = lo; j < hi; ++j) {
      const float* row = values_ + j * stride_ + c;
      VF value[kTileVecs];
      HWY_UNROLL(4)
      for (size_t i = 0; i < kTileVecs; ++i) value[i] = hn::LoadU(kF32, row + i * lanes);
      HWY_UNROLL(4)
      for (size_t b = 0; b < kHeadBlock; ++b) {
        const VF weight = hn::Set(kF32, p[b * kTileRows + j]);
        HWY_UNROLL(4)
        for (size_t i = 0; i < kTileVecs; ++i) {
          acc[b][i] = hn::MulAdd(weight, value[i], acc[b][i]);
        }
      }
    }
    HWY_UNROLL(4)
    for (size_t b = 0; b < kHeadBlock; ++b) {
      HWY_UNROLL(4)
      for (size_t i = 0; i < kTileVecs; ++i) {
        hn::StoreU(acc[b][i], kF32, out + b * d_ + i * lanes);
      }
    }
  }

  // Merges the partition into the total, in order.
  void FinishPartition() {
    part_empty_ = true;
    if (total_empty_) {
      std::swap(part_, total_);
      total_empty_ = false;
      return;
    }
    for (size_t h = 0; h < task_.num_heads; ++h) {
      const float top = part_.max[h] > total_.max[h] ? part_.max[h] : total_.max[h];
      const float a = ExpScalar(total_.max[h] - top);
      const float b = ExpScalar(part_.max[h] - top);
      float* to = total_.out + h * d_;
      const float* from = part_.out + h * d_;
      for (size_t k = 0; k < d_; ++k) to[k] = to[k] * a + from[k] * b;
      total_.sum[h] = total_.sum[h] * a + part_.sum[h] * b;
      total_.max[h] = top;
    }
  }

  const AttentionTask& task_;
  ScoreFn* const score_;
  const bool bf16_;
  const size_t d_;       // head_dim, padded
  const size_t stride_;  // of a row of the tile
  const size_t steps_;   // words of a key
  const size_t heads_;   // padded to kHeadBlock
  bool part_empty_ = true;
  bool total_empty_ = true;
  float* values_ = nullptr;     // [64][stride]
  uint32_t* packed_ = nullptr;  // [64][stride], BF16 pairs
  uint32_t* keys_ = nullptr;    // [steps][64]
  float* q_ = nullptr;          // [heads][steps] words
  float* scores_ = nullptr;     // [heads][64], then the weights p
  float* factor_ = nullptr;     // [heads]: rescales what lies in part
  Partial part_{};
  Partial total_{};
};

void Attend(const AttentionTask& task, ScoreFn* score_bf16) {
  HeadGroup group(task, score_bf16);
  group.Window();
  group.Compressed();
  group.Finish();
}

#endif  // CACHALOT_NO_VECTORS

}  // namespace HWY_NAMESPACE
}  // namespace cachalot::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cachalot::kernels {

AttentionFn* HighwayAttention(Target target) {
#if HWY_STATIC_TARGET == HWY_SCALAR || HWY_STATIC_TARGET == HWY_EMU128
  if (target == Target::kScalar) return nullptr;
#endif
  return CACHALOT_TARGET_FN(Attend, target);
}

}  // namespace cachalot::kernels
#endif  // HWY_ONCE
