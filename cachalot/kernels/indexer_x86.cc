// SPDX-License-Identifier: Apache-2.0
// Index scores with vpdpbusd (AVX-512 VNNI), which Highway 1.0.3 lacks. Queries and keys lie on the
// FP4 grid, so their products are integers times powers of two, and exact in int32.
//
//   key     2^e K,  K = 2 code << (its block's scale - the key's smallest): |K| <= 12 * 8 = 96
//   query   2^f Q,  one f a head, the smallest that keeps |Q| < 128
//   score   2^e sum_h (w[h] 2^f[h]) relu(Q[h] . K)
//
// |Q . K| <= 127 * 96 * 1024 < 2^24: the product is exact in float32 too, only the weighted sum of
// the heads rounds. Keys whose scales are more than a factor 8 apart, queries that are no integers
// below 128, NaN and scales near the ends of float32 go to the products of floats, a tile or a
// stretch at a time: which, is decided by the query and its own visible keys.
//
// vpdpbusd multiplies unsigned by signed bytes. Keys are the unsigned ones, K + 96; accumulators
// start at -96 sum Q. A lane is a head: keys need no transposing, a pair of nibbles is looked up
// where it lies (even dims and odd dims of 128 apart, the query dealt out to match), and the
// query, which is transposed, is transposed once for all keys.
#include "cachalot/kernels/indexer_tile.h"

#if !defined(__x86_64__)
namespace cachalot::kernels {
void X86IndexScores(const IndexTask& /*task*/, IndexFn* /*floats*/, ScoreFn* /*score_bf16*/) {}
bool HasX86IndexScores(Target /*target*/) { return false; }
}  // namespace cachalot::kernels
#else

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 warns inside its own AVX-512 headers: _mm512_undefined is undefined on purpose (PR105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "hwy/base.h"

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
namespace cachalot::kernels {
namespace {

constexpr size_t kLanes = 16;          // heads of a vector
constexpr size_t kChunk = 128;         // dims whose codes fill a vector
constexpr size_t kQuad = 4;            // dims of a product of vpdpbusd
constexpr size_t kKeys = 4;            // with 4 vectors of heads: 16 accumulators
constexpr size_t kMaxHeadVectors = 4;  // more heads take several passes
constexpr int32_t kKeyOffset = 96;
constexpr uint32_t kMaxShift = 3;  // 12 << 3 = 96
// Keys with scales below are left to floats: half of 2^(8 - 127) is a normal number.
constexpr uint32_t kLeastScale = 8;
// So are heads whose largest value leaves no normal unit 2^f.
constexpr int kLeastExponent = -100;
constexpr int kLargestExponent = 100;

constexpr size_t PaddedKeyDim(size_t key_dim) { return RoundUp(key_dim, kChunk); }

// (2 x code << s) + 96 for the 16 codes of E2M1, s = 0 .. 3.
struct CodeTables {
  constexpr CodeTables() {
    constexpr std::array<int, 8> kDoubled = {0, 1, 2, 3, 4, 6, 8, 12};
    for (size_t s = 0; s <= kMaxShift; ++s) {
      for (size_t code = 0; code < 16; ++code) {
        const int magnitude = kDoubled[code % 8] << s;
        bytes[16 * s + code] =
            static_cast<uint8_t>(kKeyOffset + (code < 8 ? magnitude : -magnitude));
      }
    }
  }
  alignas(64) std::array<uint8_t, 64> bytes{};
};
constexpr CodeTables kCodeTables;

// acc + u . s, four bytes a lane. GCC 12 copies the accumulators of the intrinsic back and forth:
// a third of the speed.
HWY_INLINE __m512i AddDots(__m512i acc, __m512i u, __m512i s) {
  asm("vpdpbusd %[s], %[u], %[acc]" : [acc] "+v"(acc) : [u] "v"(u), [s] "v"(s));
  return acc;
}

HWY_INLINE __m512 Relu(__m512i dots) {
  return _mm512_max_ps(_mm512_cvtepi32_ps(dots), _mm512_setzero_ps());
}

// Sums of the lanes of four vectors: halves, quarters, pairs, neighbors.
HWY_INLINE __m128 SumLanes4(const __m512* v) {
  const __m512 ab =
      _mm512_add_ps(_mm512_shuffle_f32x4(v[0], v[1], 0x44), _mm512_shuffle_f32x4(v[0], v[1], 0xEE));
  const __m512 cd =
      _mm512_add_ps(_mm512_shuffle_f32x4(v[2], v[3], 0x44), _mm512_shuffle_f32x4(v[2], v[3], 0xEE));
  __m512 u = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xDD));
  u = _mm512_add_ps(u, _mm512_permute_ps(u, 0x4E));
  u = _mm512_add_ps(u, _mm512_permute_ps(u, 0xB1));
  const __m512i firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
  return _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, u));
}

// A query as integers.
class IntegerQuery {
 public:
  IntegerQuery(const IndexQuery& query, size_t heads, uint8_t* scratch)
      : key_dim_(query.keys.layout.key_dim),
        padded_(PaddedKeyDim(key_dim_)),
        padded_heads_(RoundUp(heads, kLanes)) {
    quads_ = reinterpret_cast<int32_t*>(scratch);
    start_ = quads_ + padded_ / kQuad * padded_heads_;
    weights_ = reinterpret_cast<float*>(start_ + padded_heads_);
    fits_ = true;
    for (size_t h = 0; h < padded_heads_; ++h) {
      if (h >= heads) {
        SetHead(h, {}, 0.0f);
        continue;
      }
      AddHead(h, query.q + h * key_dim_, query.weights[h]);
    }
  }

  bool fits() const { return fits_; }
  size_t padded_dim() const { return padded_; }
  size_t head_vectors() const { return padded_heads_ / kLanes; }
  size_t stride() const { return padded_heads_; }
  size_t scratch_bytes() const { return (padded_ / kQuad + 2) * padded_heads_ * 4; }
  // Four dims of each head: [padded dim / 4][heads].
  const int32_t* quads() const { return quads_; }
  const int32_t* start() const { return start_; }    // [heads] -96 sum Q
  const float* weights() const { return weights_; }  // [heads] w 2^f

 private:
  using Bytes = std::array<int8_t, kMaxKeyDim>;

  // The largest magnitude must be in [64, 128) units, all others whole units.
  void AddHead(size_t h, const float* q, float weight) {
    __m512 top = _mm512_setzero_ps();
    for (size_t k = 0; k < key_dim_; k += kLanes) {
      top = _mm512_max_ps(top, _mm512_abs_ps(_mm512_loadu_ps(q + k)));
    }
    const float largest = _mm512_reduce_max_ps(top);
    if (largest == 0.0f) return SetHead(h, {}, 0.0f);
    const int exponent = std::ilogb(largest);
    // NaN and infinity have exponents far above.
    if (exponent < kLeastExponent || exponent > kLargestExponent) {
      fits_ = false;
      return;
    }
    const int unit = exponent - 6;
    Bytes bytes{};
    fits_ = ToBytes(q, std::ldexp(1.0f, -unit), bytes) && fits_;
    SetHead(h, bytes, weight * std::ldexp(1.0f, unit));
  }

  // Even dims of a block of 32 go to the first half of a chunk, odd ones to the second, as the
  // nibbles of the keys lie.
  bool ToBytes(const float* q, float per_unit, Bytes& bytes) const {
    const __m512 scale = _mm512_set1_ps(per_unit);
    __mmask16 whole = 0xFFFF;
    for (size_t k = 0; k < key_dim_; k += kKeyScaleBlock) {
      const __m512 low = _mm512_mul_ps(_mm512_loadu_ps(q + k), scale);
      const __m512 high = _mm512_mul_ps(_mm512_loadu_ps(q + k + kLanes), scale);
      const __m512i low_int = _mm512_cvtps_epi32(low);
      const __m512i high_int = _mm512_cvtps_epi32(high);
      whole &= _mm512_cmp_ps_mask(_mm512_cvtepi32_ps(low_int), low, _CMP_EQ_OQ);
      whole &= _mm512_cmp_ps_mask(_mm512_cvtepi32_ps(high_int), high, _CMP_EQ_OQ);
      const __m256i dims = _mm256_set_m128i(_mm512_cvtepi32_epi8(high_int),  //
                                            _mm512_cvtepi32_epi8(low_int));
      int8_t* to = bytes.data() + k / kChunk * kChunk + k % kChunk / 2;
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtepi16_epi8(dims));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + kChunk / 2),
                       _mm256_cvtepi16_epi8(_mm256_srli_epi16(dims, 8)));
    }
    return whole == 0xFFFF;
  }

  void SetHead(size_t h, const Bytes& bytes, float weight) {
    int32_t sum = 0;
    for (size_t k = 0; k < padded_; ++k) sum += bytes[k];
    for (size_t i = 0; i < padded_ / kQuad; ++i) {
      std::memcpy(&quads_[i * padded_heads_ + h], bytes.data() + kQuad * i, kQuad);
    }
    start_[h] = -kKeyOffset * sum;
    weights_[h] = weight;
  }

  size_t key_dim_, padded_, padded_heads_;
  int32_t* quads_;
  int32_t* start_;
  float* weights_;
  bool fits_;
};

// Up to kTileRows keys as unsigned bytes, and what 2^e makes of their integers.
class KeyTile {
 public:
  KeyTile(size_t key_dim, uint8_t* scratch)
      : padded_(PaddedKeyDim(key_dim)),
        bytes_(scratch),
        scales_(reinterpret_cast<float*>(scratch + kTileRows * padded_)) {}

  // Whether all fit; then bytes() and scales() are set, also for slots up to a multiple of kKeys.
  bool Load(const CompressedView& keys, size_t begin, size_t count) {
    const size_t per_block = keys.rows_per_block;
    for (size_t i = 0; i < count;) {
      const size_t row = (begin + i) % per_block;
      const size_t rows = std::min(per_block - row, count - i);
      if (!LoadRows(keys.Block((begin + i) / per_block), row, rows, i)) return false;
      i += rows;
    }
    for (size_t i = count; i % kKeys != 0; ++i) {
      std::memset(bytes_ + i * padded_, 0, padded_);
      scales_[i] = 0.0f;
    }
    return true;
  }

  // Asks for the codes and scales of a tile: blocks lie apart, so the core's own prefetcher starts
  // anew in each (1.3 times the time at 262,144 entries).
  static void Prefetch(const CompressedView& keys, size_t begin, size_t count) {
    const size_t per_block = keys.rows_per_block;
    for (size_t i = 0; i < count;) {
      const size_t row = (begin + i) % per_block;
      const size_t rows = std::min(per_block - row, count - i);
      const ConstKvRows block = keys.Block((begin + i) / per_block);
      PrefetchBytes(block.KeyCodes(row), rows * block.layout.key_code_bytes());
      PrefetchBytes(block.KeyScales(row), rows * block.layout.key_scale_bytes());
      i += rows;
    }
  }

  const uint8_t* bytes(size_t i) const { return bytes_ + i * padded_; }
  const float* scales() const { return scales_; }

 private:
  static void PrefetchBytes(const uint8_t* p, size_t bytes) {
    for (size_t b = 0; b < bytes; b += kCacheLineBytes) {
      _mm_prefetch(reinterpret_cast<const char*>(p + b), _MM_HINT_T0);
    }
  }

  // Rows [row, row + rows) of a block to slots from `slot` on.
  bool LoadRows(const ConstKvRows& block, size_t row, size_t rows, size_t slot) {
    const size_t key_dim = block.layout.key_dim;
    const size_t num_scales = block.layout.key_scale_bytes();
    const uint8_t* codes = block.KeyCodes(row);
    const uint8_t* scales = block.KeyScales(row);
    for (size_t i = 0; i < rows; ++i, codes += key_dim / 2, scales += num_scales) {
      uint32_t base = scales[0];
      uint32_t most = scales[0];
      for (size_t b = 1; b < num_scales; ++b) {
        base = std::min<uint32_t>(base, scales[b]);
        most = std::max<uint32_t>(most, scales[b]);
      }
      if (most - base > kMaxShift || base < kLeastScale || most == 0xFF) return false;
      uint8_t* to = bytes_ + (slot + i) * padded_;
      for (size_t k = 0; k < key_dim; k += kChunk) {
        DecodeChunk(codes + k / 2, std::min(kChunk, key_dim - k), scales + k / kKeyScaleBlock, base,
                    to + k);
      }
      // Integers count halves of the code unit: 2^(base - 127 - 1), a normal number.
      scales_[slot + i] = std::bit_cast<float>((base - 1) << 23);
    }
    return true;
  }

  // A 128-bit lane holds the codes of a block, so each lane looks them up in its own table. Codes
  // beyond `dims` read as 0, and the query's bytes there are 0.
  HWY_INLINE static void DecodeChunk(const uint8_t* codes, size_t dims, const uint8_t* scales,
                                     uint32_t base, uint8_t* to) {
    const __m512i packed = _mm512_maskz_loadu_epi8(~uint64_t{0} >> (64 - dims / 2), codes);
    const auto blocks = static_cast<__mmask16>((1u << dims / kKeyScaleBlock) - 1);
    const __m128i shifts = _mm_maskz_sub_epi8(blocks, _mm_maskz_loadu_epi8(blocks, scales),
                                              _mm_set1_epi8(static_cast<char>(base)));
    // Table s is words 2 s and 2 s + 1 of 64 bits.
    const __m128i firsts = _mm_add_epi8(shifts, shifts);
    const __m128i words = _mm_unpacklo_epi8(firsts, _mm_add_epi8(firsts, _mm_set1_epi8(1)));
    const __m512i tables = _mm512_permutexvar_epi64(_mm512_cvtepu8_epi64(words),
                                                    _mm512_load_si512(kCodeTables.bytes.data()));
    const __m512i nibble = _mm512_set1_epi8(0x0F);
    _mm512_store_si512(to, _mm512_shuffle_epi8(tables, _mm512_and_si512(packed, nibble)));
    _mm512_store_si512(
        to + kChunk / 2,
        _mm512_shuffle_epi8(tables, _mm512_and_si512(_mm512_srli_epi16(packed, 4), nibble)));
  }

  size_t padded_;
  uint8_t* bytes_;
  float* scales_;
};

// sums[i] += weight relu(Q . K_i) of 16 kVectors heads from `head` on.
template <size_t kVectors>
HWY_INLINE void AddHeads(const IntegerQuery& query, size_t head, const uint8_t* const* keys,
                         __m512* sums) {
  __m512i acc[kKeys][kVectors];
  HWY_UNROLL(4)
  for (size_t v = 0; v < kVectors; ++v) {
    const __m512i start = _mm512_load_si512(query.start() + head + v * kLanes);
    HWY_UNROLL(4)
    for (size_t i = 0; i < kKeys; ++i) acc[i][v] = start;
  }
  const int32_t* q = query.quads() + head;
  for (size_t k = 0; k < query.padded_dim(); k += kQuad, q += query.stride()) {
    __m512i quad[kVectors];
    HWY_UNROLL(4)
    for (size_t v = 0; v < kVectors; ++v) quad[v] = _mm512_load_si512(q + v * kLanes);
    HWY_UNROLL(4)
    for (size_t i = 0; i < kKeys; ++i) {
      int32_t key;
      std::memcpy(&key, keys[i] + k, sizeof(key));
      const __m512i dims = _mm512_set1_epi32(key);
      HWY_UNROLL(4)
      for (size_t v = 0; v < kVectors; ++v) {
        acc[i][v] = AddDots(acc[i][v], dims, quad[v]);
      }
    }
  }
  HWY_UNROLL(4)
  for (size_t v = 0; v < kVectors; ++v) {
    const __m512 weight = _mm512_load_ps(query.weights() + head + v * kLanes);
    HWY_UNROLL(4)
    for (size_t i = 0; i < kKeys; ++i) {
      sums[i] = _mm512_fmadd_ps(weight, Relu(acc[i][v]), sums[i]);
    }
  }
}

// Scores of four keys.
HWY_INLINE __m128 ScoreKeys(const IntegerQuery& query, const uint8_t* const* keys) {
  __m512 sums[kKeys];
  HWY_UNROLL(4)
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  size_t v = 0;
  for (; v + kMaxHeadVectors <= query.head_vectors(); v += kMaxHeadVectors) {
    AddHeads<kMaxHeadVectors>(query, v * kLanes, keys, sums);
  }
  for (; v < query.head_vectors(); ++v) AddHeads<1>(query, v * kLanes, keys, sums);
  return SumLanes4(sums);
}

void ScoreTile(const IntegerQuery& query, const KeyTile& tile, size_t count, float* scores) {
  for (size_t i = 0; i < count; i += kKeys) {
    const uint8_t* keys[kKeys];
    HWY_UNROLL(4)
    for (size_t r = 0; r < kKeys; ++r) keys[r] = tile.bytes(i + r);
    _mm_store_ps(scores + i, _mm_mul_ps(ScoreKeys(query, keys), _mm_load_ps(tile.scales() + i)));
  }
}

void Run(const IndexTask& task, IndexFn* floats, ScoreFn* score_bf16) {
  const KvLayout& layout = task.query->keys.layout;
  const IntegerQuery query(*task.query, task.heads, task.scratch);
  if (!query.fits()) return floats(task, score_bf16);
  KeyTile tile(layout.key_dim, task.scratch + query.scratch_bytes());
  alignas(64) float scores[kTileRows];
  for (size_t begin = task.begin; begin < task.end; begin += kTileRows) {
    const size_t count = std::min<size_t>(kTileRows, task.end - begin);
    const size_t next = begin + count;
    KeyTile::Prefetch(task.query->keys, next, std::min<size_t>(kTileRows, task.end - next));
    if (tile.Load(task.query->keys, begin, count)) {
      ScoreTile(query, tile, count, scores);
      task.sink(begin, {scores, count});
      continue;
    }
    IndexTask rest = task;
    rest.begin = begin;
    rest.end = begin + count;
    rest.scratch = task.scratch + IntegerIndexScratchBytes(layout.key_dim, task.heads);
    floats(rest, score_bf16);
  }
}

}  // namespace

void X86IndexScores(const IndexTask& task, IndexFn* floats, ScoreFn* score_bf16) {
  Run(task, floats, score_bf16);
}
bool HasX86IndexScores(Target target) { return HasVnni(target); }

}  // namespace cachalot::kernels
HWY_POP_ATTRIBUTES
#endif  // __x86_64__
