// SPDX-License-Identifier: Apache-2.0
// Scores of a tile with vdpbf16ps, which Highway 1.0.3 lacks: lane = key, a step adds the odd, then
// the even dim. Subnormal inputs count as zero: |x| < 2^-126 beside sums of order 1.
#include "cachalot/kernels/attention_tile.h"

#if !defined(__x86_64__)
namespace cachalot::kernels {
ScoreFn* X86ScoreBF16() { return nullptr; }
}  // namespace cachalot::kernels
#else

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 warns inside its own AVX-512 headers: _mm512_undefined is undefined on purpose (PR105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include "hwy/base.h"

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")
namespace cachalot::kernels {
namespace {

constexpr size_t kKeyVecs = kTileRows / 16;

void ScoreBF16(const void* q_words, const void* key_words, size_t steps, float* scores) {
  const auto* q = static_cast<const int*>(q_words);
  const auto* keys = static_cast<const int*>(key_words);
  __m512 acc[kHeadBlock][kKeyVecs];
  HWY_UNROLL(4)
  for (auto& head : acc) {
    HWY_UNROLL(4)
    for (__m512& a : head) a = _mm512_setzero_ps();
  }
  for (size_t k = 0; k < steps; ++k) {
    __m512i key[kKeyVecs];
    HWY_UNROLL(4)
    for (size_t i = 0; i < kKeyVecs; ++i) {
      key[i] = _mm512_loadu_si512(keys + k * kTileRows + 16 * i);
    }
    HWY_UNROLL(4)
    for (size_t h = 0; h < kHeadBlock; ++h) {
      const __m512i x = _mm512_set1_epi32(q[h * steps + k]);
      HWY_UNROLL(4)
      for (size_t i = 0; i < kKeyVecs; ++i) {
        acc[h][i] = _mm512_dpbf16_ps(acc[h][i], (__m512bh)x, (__m512bh)key[i]);
      }
    }
  }
  HWY_UNROLL(4)
  for (size_t h = 0; h < kHeadBlock; ++h) {
    HWY_UNROLL(4)
    for (size_t i = 0; i < kKeyVecs; ++i) {
      _mm512_storeu_ps(scores + h * kTileRows + 16 * i, acc[h][i]);
    }
  }
}

}  // namespace
}  // namespace cachalot::kernels
HWY_POP_ATTRIBUTES

namespace cachalot::kernels {
ScoreFn* X86ScoreBF16() { return &ScoreBF16; }
}  // namespace cachalot::kernels

#endif  // __x86_64__
