// SPDX-License-Identifier: Apache-2.0
// Inside of matmul_x86.cc and matmul_amx.cc: stored weights to BF16 vectors, a step of columns at a
// time (AVX-512 with VBMI). Included within the file's target attributes.
//
// A reader of kRows rows at once has
//   kStep       columns of a step, kVectors = kStep / 32 vectors of 32 BF16
//   kStepBytes  bytes of a row's step
//   kOrder      which columns of x those vectors meet: see Order
//   StartGroup  points at kRows rows of the panel it was made for
//   slow        after that: rows whose scales leave BF16's normal range
//   StartStep   what the rows of a step share
//   Load        one row's codes; LoadTail the same for the last, partial step, zeros behind it
//   Widen       one vector of those codes
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "cachalot/kernels/matmul_panel.h"
#include "hwy/base.h"

namespace cachalot::kernels {
namespace {  // included by several files with different attributes

// Which columns vector v of a step holds.
enum class Order {
  kNatural,  // 32 v + j
  kNibbles,  // 4 j + v: nibble v of every 16-bit word of FP4 codes, so no code has to change words
};

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

// Word i of a vector of FP4 codes belongs to its block i / 8.
constexpr std::array<uint16_t, 32> MakeSpreadFP4() {
  std::array<uint16_t, 32> index{};
  for (size_t i = 0; i < index.size(); ++i) index[i] = static_cast<uint16_t>(i / 8);
  return index;
}
alignas(64) constexpr std::array<uint16_t, 32> kSpreadFP4 = MakeSpreadFP4();

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

// Bit i is set for i < n.
HWY_INLINE uint64_t LowBits(size_t n) { return n >= 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1; }
HWY_INLINE uint32_t LowBits32(size_t n) { return static_cast<uint32_t>(LowBits(n)); }

// Rows [n, n + kRows) of a weight. Rows past the end of the panel repeat its last, so that a short
// group runs the same code; their results are dropped.
template <uint32_t kRows>
struct GroupRows {
  static constexpr uint32_t kNumRows = kRows;
  void Point(const WeightView& w, uint32_t n, uint32_t count) {
    for (uint32_t r = 0; r < kRows; ++r) row[r] = w.row(n + std::min(r, count - 1));
    slow = 0;
  }
  const uint8_t* row[kRows];
  uint32_t slow = 0;  // bit r: row r needs the float32 path
};

// Stored bytes that will be read soon: the hardware prefetcher of a core does not follow 8 rows at
// once. Where to is found by one comparison a step; an address computed in full cost one token 15
// %.
constexpr int kToL1 = 3;  // localities of __builtin_prefetch
constexpr int kToL2 = 2;
template <int kLocality, uint32_t kRows = kGroupRows>
struct Upcoming {
  // Reads `lead` bytes of each row ahead; past the end of a row, those of the next group's rows.
  Upcoming(const WeightView& w, size_t lead)
      : turn(w.row_bytes() - std::min(lead, w.row_bytes())),
        before(std::min(lead, w.row_bytes())),
        after(before + (kRows - 1) * w.row_bytes()) {}
  HWY_INLINE void Aim(size_t offset) { ahead = offset < turn ? before : after; }
  HWY_INLINE void Prefetch(const uint8_t* at, size_t bytes) const {
    for (size_t b = 0; b < bytes; b += kCacheLineBytes) {
      __builtin_prefetch(at + ahead + b, /*rw=*/0, kLocality);
    }
  }
  size_t turn, before, after;
  size_t ahead = 0;
};

template <uint32_t kRows = kGroupRows>
struct ReaderBF16 : GroupRows<kRows> {
  using GroupRows<kRows>::row;
  using GroupRows<kRows>::slow;
  static constexpr size_t kStep = 64;
  static constexpr size_t kStepBytes = 2 * kStep;
  static constexpr size_t kVectors = kStep / 32;
  static constexpr Order kOrder = Order::kNatural;
  struct Codes {
    __m512i w[kVectors];
  };

  ReaderBF16(const WeightView& w, uint32_t, uint8_t*) : weight(w) {}
  void StartGroup(uint32_t n, uint32_t count) { this->Point(weight, n, count); }

  HWY_INLINE void StartStep(size_t) {}
  HWY_INLINE Codes Load(uint32_t r, size_t step) const {
    const uint8_t* p = row[r] + step * kStepBytes;
    return {{_mm512_loadu_si512(p), _mm512_loadu_si512(p + 64)}};
  }
  HWY_INLINE Codes LoadTail(uint32_t r, size_t step, size_t cols) const {
    const uint8_t* p = row[r] + step * kStepBytes;
    const uint64_t live = LowBits(cols);
    return {{_mm512_maskz_loadu_epi16(static_cast<uint32_t>(live), p),
             _mm512_maskz_loadu_epi16(static_cast<uint32_t>(live >> 32), p + 64)}};
  }
  template <int kVector>
  HWY_INLINE __m512i Widen(const Codes& codes) const {
    return codes.w[kVector];
  }

  const WeightView& weight;
};

template <uint32_t kRows = kGroupRows>
struct ReaderFP4 : GroupRows<kRows> {
  using GroupRows<kRows>::row;
  using GroupRows<kRows>::slow;
  static constexpr size_t kStep = 128;
  static constexpr size_t kStepBytes = kStep / 2;
  static constexpr size_t kVectors = kStep / 32;
  static constexpr Order kOrder = Order::kNibbles;
  struct Codes {
    __m512i codes, drop;
  };

  ReaderFP4(const WeightView& w, uint32_t, uint8_t* scratch)
      : weight(w),
        drop(reinterpret_cast<uint16_t*>(scratch)),
        stride(PaddedCols(w.cols) / kFP4Block),
        table(_mm512_load_si512(kTableFP4.data())),
        spread(_mm512_load_si512(kSpreadFP4.data())) {}

  void StartGroup(uint32_t n, uint32_t count) {
    this->Point(weight, n, count);
    const size_t blocks = weight.cols / kFP4Block;
    // Of the next group: waiting for them here took a quarter of a group's time.
    const uint8_t* next = weight.scales + (n + kRows) * blocks;
    for (size_t b = 0; b < kRows * blocks; b += kCacheLineBytes) __builtin_prefetch(next + b);
    for (uint32_t r = 0; r < kRows; ++r) {
      PrepareScales(weight.scales + (n + std::min(r, count - 1)) * blocks, blocks, r);
    }
  }

  // (252 - s) << 7, what each word of the block loses.
  void PrepareScales(const uint8_t* scales, size_t blocks, uint32_t r) {
    const __m256i least = _mm256_set1_epi8(kMinScaleFP4);
    __m256i most = _mm256_setzero_si256();  // of s - least; those below wrap round to the top
    for (size_t b = 0; b < blocks; b += 32) {
      const __mmask32 live = LowBits32(std::min<size_t>(blocks - b, 32));
      const __m256i s = _mm256_mask_loadu_epi8(least, live, scales + b);
      most = _mm256_max_epu8(most, _mm256_sub_epi8(s, least));
      const __m512i d = _mm512_sub_epi16(_mm512_set1_epi16(kMaxScaleFP4), _mm512_cvtepu8_epi16(s));
      _mm512_mask_storeu_epi16(drop + r * stride + b, live, _mm512_slli_epi16(d, 7));
    }
    const __m256i range = _mm256_set1_epi8(static_cast<char>(kMaxScaleFP4 - kMinScaleFP4));
    if (_mm256_cmpgt_epu8_mask(most, range) != 0) slow |= 1u << r;
  }

  HWY_INLINE void StartStep(size_t) {}
  // Four blocks a vector: each word of the codes meets the drop of its block.
  HWY_INLINE __m512i Drop(uint32_t r, size_t step) const {
    const __m128i blocks =
        _mm_loadl_epi64(reinterpret_cast<const __m128i*>(drop + r * stride + 4 * step));
    return _mm512_permutexvar_epi16(spread, _mm512_castsi128_si512(blocks));
  }
  HWY_INLINE Codes Load(uint32_t r, size_t step) const {
    __m512i codes = _mm512_loadu_si512(row[r] + step * kStepBytes);
    // One load: GCC would load once for every shift, and stored rows are not aligned.
    asm("" : "+v"(codes));
    return {codes, Drop(r, step)};
  }
  // Code 0 is zero whatever the scale, so the scratch behind the last block may hold anything.
  HWY_INLINE Codes LoadTail(uint32_t r, size_t step, size_t cols) const {
    return {_mm512_maskz_loadu_epi8(LowBits(cols / 2), row[r] + step * kStepBytes), Drop(r, step)};
  }
  // A shift brings code v of every word to the 5 index bits of vpermw (bit 4 does not matter: the
  // table repeats).
  template <int kVector>
  HWY_INLINE __m512i Widen(const Codes& c) const {
    const __m512i index = kVector == 0 ? c.codes : _mm512_srli_epi16(c.codes, 4 * kVector);
    return _mm512_subs_epu16(_mm512_permutexvar_epi16(index, table), c.drop);
  }

  const WeightView& weight;
  uint16_t* drop;  // [kRows][stride]
  size_t stride;
  __m512i table, spread;
};

// vpermi2b looks 64 bytes up in 128 entries at once: one table for the low and one for the high
// byte of the BF16 word, both with the scale of a block of 128 columns added. A panel lies in one
// row of blocks, so its tables are made once.
template <uint32_t kRows = kGroupRows>
struct ReaderFP8 : GroupRows<kRows> {
  using GroupRows<kRows>::row;
  using GroupRows<kRows>::slow;
  static constexpr size_t kStep = 64;
  static constexpr size_t kStepBytes = kStep;
  static constexpr size_t kVectors = kStep / 32;
  static constexpr Order kOrder = Order::kNatural;
  struct Codes {
    __m512i lo, hi;
  };

  ReaderFP8(const WeightView& w, uint32_t begin, uint8_t* scratch) : weight(w), tables(scratch) {
    for (size_t k = 0; k < w.cols; k += kFP8Block) {
      // Powers of two have no mantissa bits; 2^-127 has, and is out of range anyway.
      const uint32_t bits = std::bit_cast<uint32_t>(WeightScale(w, begin, k));
      const uint32_t s = bits >> 23;  // 256 and up: negative
      all_slow |= (bits & 0x7FFFFFu) != 0 || s < kMinScaleFP8 || s > kMaxScaleFP8;
      MakeTables(static_cast<uint16_t>((s - 127u) << 7), scratch + k / kFP8Block * kTableBytes);
    }
  }
  void StartGroup(uint32_t n, uint32_t count) {
    this->Point(weight, n, count);
    if (all_slow) slow = (1u << kRows) - 1;
  }

  static void MakeTables(uint16_t rebias, uint8_t* out) {
    const __m512i add = _mm512_set1_epi16(static_cast<short>(rebias));
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
    _mm512_store_si512(out, _mm512_permutex2var_epi8(w0, even, w1));
    _mm512_store_si512(out + 64, _mm512_permutex2var_epi8(w2, even, w3));
    _mm512_store_si512(out + 128, _mm512_permutex2var_epi8(w0, odd, w1));
    _mm512_store_si512(out + 192, _mm512_permutex2var_epi8(w2, odd, w3));
  }

  HWY_INLINE void StartStep(size_t step) {
    constexpr size_t kStepsPerBlock = kFP8Block / kStep;
    const uint8_t* t = tables + step / kStepsPerBlock * kTableBytes;
    lo0 = _mm512_load_si512(t);
    lo1 = _mm512_load_si512(t + 64);
    hi0 = _mm512_load_si512(t + 128);
    hi1 = _mm512_load_si512(t + 192);
  }
  // unpack works in each 16 bytes, so the qwords are first laid out for its results to be in order.
  HWY_INLINE Codes LookUp(__m512i codes) const {
    const __m512i v = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), codes);
    const __m512i lo = _mm512_permutex2var_epi8(lo0, v, lo1);
    const __m512i magnitude = _mm512_permutex2var_epi8(hi0, v, hi1);
    const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
    return {lo, _mm512_ternarylogic_epi32(magnitude, v, sign, 0xF8)};  // a | (b & c)
  }
  HWY_INLINE Codes Load(uint32_t r, size_t step) const {
    return LookUp(_mm512_loadu_si512(row[r] + step * kStepBytes));
  }
  HWY_INLINE Codes LoadTail(uint32_t r, size_t step, size_t cols) const {
    return LookUp(_mm512_maskz_loadu_epi8(LowBits(cols), row[r] + step * kStepBytes));
  }
  template <int kVector>
  HWY_INLINE __m512i Widen(const Codes& c) const {
    return kVector == 0 ? _mm512_unpacklo_epi8(c.lo, c.hi) : _mm512_unpackhi_epi8(c.lo, c.hi);
  }

  static constexpr size_t kTableBytes = 256;
  const WeightView& weight;
  const uint8_t* tables;  // [ceil(K / 128)][kTableBytes]
  bool all_slow = false;
  __m512i lo0, lo1, hi0, hi1;
};

// One row's codes of a step to its place in `out` [vectors][rows of the reader][32].
template <int kVector, class Reader>
HWY_INLINE void StoreCodes(const Reader& reader, const typename Reader::Codes& codes,
                           uint16_t* out) {
  if constexpr (kVector < static_cast<int>(Reader::kVectors)) {
    _mm512_store_si512(out + kVector * Reader::kNumRows * 32,
                       reader.template Widen<kVector>(codes));
    StoreCodes<kVector + 1>(reader, codes, out);
  }
}

// A whole step of all rows, and the last step, of which `cols` columns are left.
template <class Reader, int kLocality>
HWY_INLINE void WidenStep(Reader& from, Upcoming<kLocality, Reader::kNumRows>& next, size_t step,
                          uint16_t* out) {
  from.StartStep(step);
  next.Aim(step * Reader::kStepBytes);
  HWY_UNROLL(16)
  for (uint32_t r = 0; r < Reader::kNumRows; ++r) {
    next.Prefetch(from.row[r] + step * Reader::kStepBytes, Reader::kStepBytes);
    StoreCodes<0>(from, from.Load(r, step), out + r * 32);
  }
}
template <class Reader>
void WidenTail(Reader& from, size_t step, size_t cols, uint16_t* out) {
  from.StartStep(step);
  for (uint32_t r = 0; r < Reader::kNumRows; ++r) {
    StoreCodes<0>(from, from.LoadTail(r, step, cols), out + r * 32);
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
inline void PackNibbles(const BF16* x, size_t cols, uint16_t* out) {
  constexpr size_t kStep = ReaderFP4<>::kStep;
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

}  // namespace
}  // namespace cachalot::kernels
