// SPDX-License-Identifier: Apache-2.0
// Inside of the code for Target::kAmxBf16: the eight tile registers as 16 rows of 64 bytes.
//
//   c[16][16] += a[16][32] b[32][16]     tdpbf16ps; a: BF16 rows; b: 16 rows of pairs of k, so that
//                                        row p holds k = 2 p and 2 p + 1 of 16 columns
//
// Each output adds its products of even k in one chain and of odd k in another, float32, and both
// to c, subnormals taken as zero; it depends on its row of a, its column of b and itself only.
// Included within the file's target attributes.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "hwy/base.h"

namespace cachalot::kernels {
namespace {  // included by several files with different attributes

constexpr size_t kAmxRows = 16;
constexpr size_t kAmxK = 32;      // BF16 of a row of a
constexpr size_t kAmxPairs = 16;  // rows of b

// The thread's tiles, from here to the end of the scope: 0 to 3 are c, 4 and 5 a, 6 and 7 b.
// With `columns` of c and b fewer than 16, their rows in memory may be that much shorter.
class Tiles {
 public:
  explicit Tiles(size_t columns = kAmxRows) {
    struct alignas(64) Config {
      uint8_t palette = 1;
      uint8_t start_row = 0;
      uint8_t reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    for (size_t i = 0; i < 8; ++i) {
      config.rows[i] = kAmxRows;
      config.row_bytes[i] = static_cast<uint16_t>(i == 4 || i == 5 ? 64 : 4 * columns);
    }
    _tile_loadconfig(&config);
  }
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

// GCC 12's tile loads and stores do not say that they touch memory: between them and other accesses
// to the same bytes stands one of these.
HWY_INLINE void MemoryFence() { asm volatile("" ::: "memory"); }

// 16 x 16 dwords, in place.
HWY_INLINE void TransposeDwords(__m512i (&r)[16]) {
  __m512i t[16];
  HWY_UNROLL(8)
  for (size_t i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  HWY_UNROLL(4)
  for (size_t i = 0; i < 4; ++i) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  HWY_UNROLL(4)
  for (size_t i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
    t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xDD);
    t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
    t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xDD);
  }
  HWY_UNROLL(4)
  for (size_t i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
    r[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
    r[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xDD);
    r[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xDD);
  }
}

}  // namespace
}  // namespace cachalot::kernels
