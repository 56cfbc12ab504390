// SPDX-License-Identifier: Apache-2.0
// Inside of gemm_x86.cc and gemm_amx.cc: float32 operands to pairs of BF16, neighboring k in one
// dword, even k low. Included within the file's target attributes (AVX-512 BF16).
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "cachalot/kernels/gemm_tile.h"
#include "hwy/base.h"

namespace cachalot::kernels {
namespace {  // included by several files with different attributes

// Lanes [0, count) of a row, zeros behind.
HWY_INLINE __m512 LoadFirst(const float* p, size_t count) {
  if (HWY_LIKELY(count >= 16)) return _mm512_loadu_ps(p);
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1u), p);
}

// Dword i: BF16 of even[i] in the low half, of odd[i] in the high half.
HWY_INLINE __m512i Interleave(__m512 even, __m512 odd) {
  const __m512i low = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(even)));
  const __m512i high = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(odd)));
  return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

// Rows 2 p and 2 p + 1 of `x` from column `from` on, `count` of them, interleaved.
HWY_INLINE __m512i PairOfRows(const MatView<const float>& x, size_t k, size_t end, size_t from,
                              size_t count) {
  const __m512 even = LoadFirst(x.data + k * x.stride + from, count);
  const __m512 odd =
      k + 1 < end ? LoadFirst(x.data + (k + 1) * x.stride + from, count) : _mm512_setzero_ps();
  return Interleave(even, odd);
}

// `depth` floats to (depth + 1) / 2 pairs, zeros up to a whole vector of 16 pairs.
HWY_INLINE void PackRow(const float* from, size_t depth, uint32_t* to) {
  for (size_t k = 0; k < depth; k += 32) {
    const __m512 low = LoadFirst(from + k, depth - k);
    const __m512 high =
        depth - k > 16 ? LoadFirst(from + k + 16, depth - k - 16) : _mm512_setzero_ps();
    _mm512_storeu_si512(to + k / 2, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
  }
}

struct Block {
  size_t k0;
  size_t depth;
  size_t pairs() const { return (depth + 1) / 2; }
};

}  // namespace
}  // namespace cachalot::kernels
