// SPDX-License-Identifier: Apache-2.0
#include "cachalot/numeric/formats.h"

#include <algorithm>
#include <cmath>

#include "cachalot/base/check.h"

namespace cachalot {
namespace {

// 1/448 and 1/6 as the float32 constants of the released kernels.
constexpr float kInv448 = std::bit_cast<float>(0x3B124925u);
constexpr float kInv6 = std::bit_cast<float>(0x3E2AAAABu);

float MaxAbs(std::span<const float> x) {
  float a = 0.0f;
  for (float v : x) a = std::max(a, std::fabs(v));
  return a;
}

}  // namespace

uint8_t E4M3FromFloat(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint8_t sign = static_cast<uint8_t>((bits >> 24) & 0x80u);
  const float magnitude = std::fabs(x);
  if (std::isnan(x)) return static_cast<uint8_t>(sign | 0x7Fu);
  if (magnitude >= 448.0f) return static_cast<uint8_t>(sign | 0x7Eu);
  if (magnitude < 0x1p-6f) {
    // Subnormal quantum 2^-9. Adding 2^14 (ulp 2^-9) rounds to that quantum, ties to even; the
    // result 8 * 2^-9 is the smallest normal number and has the right code by itself.
    const float rounded = (magnitude + 0x1p14f) - 0x1p14f;
    return static_cast<uint8_t>(sign | static_cast<uint8_t>(rounded * 0x1p9f));
  }
  const uint32_t magnitude_bits = std::bit_cast<uint32_t>(magnitude);
  const uint32_t rounded = magnitude_bits + 0x7FFFFu + ((magnitude_bits >> 20) & 1u);
  const uint32_t code = (rounded >> 20) - (120u << 3);
  return static_cast<uint8_t>(sign | std::min(code, 0x7Eu));
}

uint8_t E2M1FromFloat(float x) {
  const uint8_t sign = std::signbit(x) ? 8 : 0;
  const float a = std::fabs(x);
  // Midpoints between neighbors; a tie goes to the even code. [model.md 3.6]
  uint8_t code = 0;
  if (a > 5.0f) {
    code = 7;
  } else if (a >= 3.5f) {
    code = 6;
  } else if (a > 2.5f) {
    code = 5;
  } else if (a >= 1.75f) {
    code = 4;
  } else if (a > 1.25f) {
    code = 3;
  } else if (a >= 0.75f) {
    code = 2;
  } else if (a > 0.25f) {
    code = 1;
  }
  return static_cast<uint8_t>(sign | code);
}

uint8_t QuantizeBlockE4M3(std::span<const float> x, std::span<uint8_t> codes) {
  CACHALOT_DCHECK(codes.size() == x.size());
  const uint8_t scale = PowTwoCeilCode(std::max(MaxAbs(x), 1e-4f) * kInv448);
  const float s = E8M0ToFloat(scale);
  for (size_t i = 0; i < x.size(); ++i) {
    codes[i] = E4M3FromFloat(std::clamp(x[i] / s, -448.0f, 448.0f));
  }
  return scale;
}

uint8_t QuantizeBlockE2M1(std::span<const float> x, std::span<uint8_t> codes) {
  CACHALOT_DCHECK(codes.size() == x.size());
  const uint8_t scale = PowTwoCeilCode(std::max(MaxAbs(x), 0x1.8p-124f) * kInv6);
  const float s = E8M0ToFloat(scale);
  for (size_t i = 0; i < x.size(); ++i) {
    codes[i] = E2M1FromFloat(std::clamp(x[i] / s, -6.0f, 6.0f));
  }
  return scale;
}

}  // namespace cachalot
