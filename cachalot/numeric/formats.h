// SPDX-License-Identifier: Apache-2.0
// The number formats of DeepSeek-V4 checkpoints and caches, one scalar at a time.
// [model.md 2.5, 3.6]
//
//   BF16       s eeeeeeee mmmmmmm     top half of a float32
//   F8_E4M3    s eeee mmm             bias 7, max 448 (0x7E), 0x7F/0xFF NaN, no infinities,
//                                     e == 0: m * 2^-9
//   F8_E8M0    eeeeeeee               2^(byte - 127), 255 NaN
//   FP4 E2M1   s ee m                 {0, .5, 1, 1.5, 2, 3, 4, 6}; two a byte, low nibble first
//
// All encoders round to nearest, ties to even, and saturate (except BF16, which overflows to
// infinity as float32 does). All functions are pure and thread-safe.
#pragma once

#include <bit>
#include <cstdint>
#include <span>

namespace cachalot {

struct BF16 {
  uint16_t bits = 0;
  friend bool operator==(BF16, BF16) = default;
};

constexpr float ToFloat(BF16 x) {
  return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16);
}

// NaN stays NaN (quieted); everything else rounds to nearest even.
constexpr BF16 ToBF16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return BF16{static_cast<uint16_t>((bits >> 16) | 0x40u)};
  return BF16{static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16)};
}
constexpr float RoundToBF16(float x) { return ToFloat(ToBF16(x)); }

constexpr float E4M3ToFloat(uint8_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80u) << 24;
  const uint32_t exponent = (code >> 3) & 0xFu;
  const uint32_t mantissa = code & 7u;
  if (exponent == 15 && mantissa == 7) return std::bit_cast<float>(sign | 0x7FC00000u);
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-9f;
    return sign != 0 ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | ((exponent + 120u) << 23) | (mantissa << 20));
}
uint8_t E4M3FromFloat(float x);  // saturates to +-448; NaN -> 0x7F or 0xFF by its sign

constexpr float E8M0ToFloat(uint8_t code) {
  if (code == 255) return std::bit_cast<float>(0x7FC00000u);
  if (code == 0) return 0x1p-127f;  // subnormal in float32
  return std::bit_cast<float>(static_cast<uint32_t>(code) << 23);
}

// Low 4 bits.
constexpr float E2M1ToFloat(uint8_t code) {
  constexpr float kMagnitude[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
  const float magnitude = kMagnitude[code & 7u];
  return (code & 8u) != 0 ? -magnitude : magnitude;
}
uint8_t E2M1FromFloat(float x);  // saturates to +-6; -0 keeps its sign; NaN -> 0

// The exponent byte (E8M0 code) of 2^ceil(log2 v) for v > 0 and normal. [model.md 3.6 pow2ceil]
constexpr uint8_t PowTwoCeilCode(float v) {
  const uint32_t bits = std::bit_cast<uint32_t>(v);
  return static_cast<uint8_t>((bits >> 23) + ((bits & 0x7FFFFFu) != 0 ? 1u : 0u));
}

// Block quantization [model.md 3.6]: one power-of-two scale for all of `x`, returned as its E8M0
// code. `codes` has x.size() entries; for FP4 one code (0..15) an entry, not packed.
uint8_t QuantizeBlockE4M3(std::span<const float> x, std::span<uint8_t> codes);
uint8_t QuantizeBlockE2M1(std::span<const float> x, std::span<uint8_t> codes);

}  // namespace cachalot
