// SPDX-License-Identifier: Apache-2.0
#include "cachalot/numeric/formats.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "cachalot/base/rng.h"

namespace cachalot {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The formats as their definitions read, in double.
double SlowE4M3(uint32_t code) {
  const uint32_t exponent = (code >> 3) & 15u;
  const double mantissa = code & 7u;
  if ((code & 0x7Fu) == 0x7Fu) return double{kNaN};
  const double magnitude = exponent == 0
                               ? std::ldexp(mantissa, -9)
                               : std::ldexp(1.0 + mantissa / 8.0, static_cast<int>(exponent) - 7);
  return (code & 0x80u) != 0 ? -magnitude : magnitude;
}

// The code nearest to x >= 0 among 0 .. last, ties to the even code. Codes ascend with values.
template <typename Decode>
uint32_t NearestCode(double x, uint32_t last, const Decode& decode) {
  // Far beyond the last value a double could not tell the distances apart.
  x = std::min(x, 2 * decode(last));
  uint32_t best = 0;
  for (uint32_t code = 1; code <= last; ++code) {
    const double distance = std::fabs(decode(code) - x);
    const double best_distance = std::fabs(decode(best) - x);
    if (distance < best_distance || (distance == best_distance && code % 2 == 0)) best = code;
  }
  return best;
}

uint8_t SlowE4M3FromFloat(float x) {
  const uint32_t sign = std::signbit(x) ? 0x80u : 0;
  if (std::isnan(x)) return static_cast<uint8_t>(sign | 0x7Fu);
  return static_cast<uint8_t>(sign | NearestCode(std::fabs(double{x}), 0x7E, SlowE4M3));
}

double SlowE2M1(uint32_t code) {
  const uint32_t exponent = (code >> 1) & 3u;
  const double half = code & 1u;
  const double magnitude =
      exponent == 0 ? half / 2 : std::ldexp(1.0 + half / 2, static_cast<int>(exponent) - 1);
  return (code & 8u) != 0 ? -magnitude : magnitude;
}

uint8_t SlowE2M1FromFloat(float x) {
  const uint32_t sign = std::signbit(x) ? 8u : 0;
  if (std::isnan(x)) return static_cast<uint8_t>(sign);
  return static_cast<uint8_t>(sign | NearestCode(std::fabs(double{x}), 7, SlowE2M1));
}

// Every value a rounding could stumble over: all BF16 numbers and, around the midpoints of the
// codes 0 .. last, the midpoint itself and its float neighbors.
template <typename Decode>
std::vector<float> Stumbling(uint32_t last, const Decode& decode) {
  std::vector<float> values;
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    values.push_back(ToFloat(BF16{static_cast<uint16_t>(bits)}));
  }
  for (uint32_t code = 0; code < last; ++code) {
    const float middle = static_cast<float>((decode(code) + decode(code + 1)) / 2);
    for (float sign : {1.0f, -1.0f}) {
      values.push_back(sign * middle);
      values.push_back(sign * std::nextafter(middle, 0.0f));
      values.push_back(sign * std::nextafter(middle, kInfinity));
    }
  }
  return values;
}

TEST(E4M3Test, DecodesAll256CodesBitExactly) {
  for (uint32_t code = 0; code < 256; ++code) {
    const float got = E4M3ToFloat(static_cast<uint8_t>(code));
    const double want = SlowE4M3(code);
    if (std::isnan(want)) {
      EXPECT_TRUE(std::isnan(got)) << code;
    } else {
      EXPECT_EQ(std::bit_cast<uint64_t>(double{got}), std::bit_cast<uint64_t>(want)) << code;
    }
    EXPECT_EQ(std::signbit(got), code >= 128) << code;
  }
}

TEST(E4M3Test, EncodingInvertsDecoding) {
  for (uint32_t code = 0; code < 256; ++code) {
    EXPECT_EQ(E4M3FromFloat(E4M3ToFloat(static_cast<uint8_t>(code))), code);
  }
}

TEST(E4M3Test, RoundsAllBF16InputsAndMidpointsAsTheOracle) {
  for (float x : Stumbling(0x7E, SlowE4M3)) {
    ASSERT_EQ(int{E4M3FromFloat(x)}, int{SlowE4M3FromFloat(x)}) << x;
  }
}

TEST(E4M3Test, Saturates) {
  for (float x : {448.0f, 464.0f, 1e30f, kInfinity}) {
    EXPECT_EQ(E4M3FromFloat(x), 0x7E);
    EXPECT_EQ(E4M3FromFloat(-x), 0xFE);
  }
}

TEST(E2M1Test, DecodesAll16CodesBitExactly) {
  for (uint32_t code = 0; code < 16; ++code) {
    EXPECT_EQ(std::bit_cast<uint64_t>(double{E2M1ToFloat(static_cast<uint8_t>(code))}),
              std::bit_cast<uint64_t>(SlowE2M1(code)))
        << code;
    // Only the low four bits count.
    EXPECT_EQ(E2M1ToFloat(static_cast<uint8_t>(code | 0xA0u)),
              E2M1ToFloat(static_cast<uint8_t>(code)));
    EXPECT_EQ(E2M1FromFloat(E2M1ToFloat(static_cast<uint8_t>(code))), code);
  }
}

TEST(E2M1Test, RoundsAllBF16InputsAndMidpointsAsTheOracle) {
  for (float x : Stumbling(7, SlowE2M1)) {
    if (std::isnan(x)) continue;
    ASSERT_EQ(int{E2M1FromFloat(x)}, int{SlowE2M1FromFloat(x)}) << x;
  }
  EXPECT_EQ(E2M1FromFloat(kNaN) & 7, 0);
}

TEST(E2M1Test, TiesGoToTheEvenCode) {
  const float ties[] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f};
  const float want[] = {0.0f, 1.0f, 1.0f, 2.0f, 2.0f, 4.0f, 4.0f};
  for (size_t i = 0; i < std::size(ties); ++i) {
    EXPECT_EQ(E2M1ToFloat(E2M1FromFloat(ties[i])), want[i]);
    EXPECT_EQ(E2M1ToFloat(E2M1FromFloat(-ties[i])), -want[i]);
  }
}

TEST(E8M0Test, DecodesAll256CodesBitExactly) {
  for (int code = 0; code < 255; ++code) {
    EXPECT_EQ(double{E8M0ToFloat(static_cast<uint8_t>(code))}, std::ldexp(1.0, code - 127));
  }
  EXPECT_TRUE(std::isnan(E8M0ToFloat(255)));
}

TEST(BF16Test, AllCodesSurviveARoundTrip) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const BF16 x{static_cast<uint16_t>(bits)};
    if (std::isnan(ToFloat(x))) {
      EXPECT_TRUE(std::isnan(RoundToBF16(ToFloat(x))));
    } else {
      EXPECT_EQ(ToBF16(ToFloat(x)), x);
    }
  }
}

TEST(BF16Test, RoundsToNearestTiesToEven) {
  for (uint32_t bits = 0; bits < 0x7F80; ++bits) {
    const uint32_t base = bits << 16;
    const uint16_t down = static_cast<uint16_t>(bits);
    const uint16_t up = static_cast<uint16_t>(bits + 1);  // after 0x7F7F: infinity, as float32 does
    EXPECT_EQ(ToBF16(std::bit_cast<float>(base + 0x7FFFu)).bits, down);
    EXPECT_EQ(ToBF16(std::bit_cast<float>(base + 0x8000u)).bits, bits % 2 == 0 ? down : up);
    EXPECT_EQ(ToBF16(std::bit_cast<float>(base + 0x8001u)).bits, up);
    EXPECT_EQ(ToBF16(std::bit_cast<float>(0x80000000u | (base + 0x8001u))).bits, 0x8000u | up);
  }
}

TEST(BF16Test, SignalingNanWhosePayloadIsInTheLowHalfStaysNan) {
  EXPECT_TRUE(std::isnan(RoundToBF16(std::bit_cast<float>(0x7F800001u))));
  EXPECT_TRUE(std::isnan(RoundToBF16(std::bit_cast<float>(0xFF800001u))));
}

TEST(PowTwoCeilTest, IsTheSmallestPowerNotBelow) {
  for (int exponent = -126; exponent <= 126; ++exponent) {
    const float power = std::ldexp(1.0f, exponent);
    EXPECT_EQ(PowTwoCeilCode(power), exponent + 127);
    EXPECT_EQ(PowTwoCeilCode(std::nextafter(power, kInfinity)), exponent + 128);
    EXPECT_EQ(PowTwoCeilCode(power * 1.5f), exponent + 128);
  }
}

struct BlockFormat {
  const char* name;
  uint8_t (*quantize)(std::span<const float>, std::span<uint8_t>);
  float (*decode)(uint8_t);
  float max;
  float smallest;  // positive value
  float half_ulp;  // of normal numbers, relative
};
constexpr BlockFormat kBlockFormats[] = {
    {"E4M3", QuantizeBlockE4M3, E4M3ToFloat, 448.0f, 0x1p-9f, 0x1p-4f},
    {"E2M1", QuantizeBlockE2M1, E2M1ToFloat, 6.0f, 0.5f, 0x1p-2f}};

class BlockTest : public testing::TestWithParam<BlockFormat> {};

TEST_P(BlockTest, ErrorIsHalfAQuantumAndTheScaleIsTheSmallest) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    std::vector<float> x(1 + seed % 65);
    float largest = 0;
    const float size = std::ldexp(1.0f, static_cast<int>(seed % 40) - 10);
    for (size_t i = 0; i < x.size(); ++i) {
      x[i] = size * static_cast<float>(2 * UniformOpen(CounterRandom(seed, i, 0)) - 1);
      largest = std::max(largest, std::fabs(x[i]));
    }
    std::vector<uint8_t> codes(x.size());
    const uint8_t scale_code = GetParam().quantize(x, codes);
    const float scale = E8M0ToFloat(scale_code);
    // One part in 2^23 for the product with the rounded reciprocal.
    EXPECT_LE(largest, GetParam().max * scale * (1 + 0x1p-22f));
    if (largest > 1e-4f) {
      EXPECT_GT(largest, GetParam().max * scale / 2 * (1 - 0x1p-22f));
    }
    for (size_t i = 0; i < x.size(); ++i) {
      const float bound =
          scale * std::max(GetParam().half_ulp * std::fabs(x[i] / scale), GetParam().smallest / 2);
      EXPECT_LE(std::fabs(GetParam().decode(codes[i]) * scale - x[i]), bound)
          << GetParam().name << " seed " << seed << " at " << i;
    }
  }
}

TEST_P(BlockTest, ZerosEmptyAndTinyBlocksGetTheFloorScale) {
  std::vector<uint8_t> codes(4);
  const std::vector<float> zeros(4);
  const uint8_t floor_scale = GetParam().quantize(zeros, codes);
  for (uint8_t code : codes) EXPECT_EQ(code, 0);
  EXPECT_GE(floor_scale, 1);
  EXPECT_EQ(GetParam().quantize({}, {}), floor_scale);
  const std::vector<float> tiny(4, 1e-45f);
  EXPECT_EQ(GetParam().quantize(tiny, codes), floor_scale);
}

TEST_P(BlockTest, PowersOfTwoAndTheMaximumAreExact) {
  for (int exponent = -10; exponent <= 100; exponent += 11) {
    const float s = std::ldexp(1.0f, exponent);
    const std::vector<float> x = {GetParam().max * s, -GetParam().max * s, s, 0.0f};
    std::vector<uint8_t> codes(x.size());
    const float scale = E8M0ToFloat(GetParam().quantize(x, codes));
    for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(GetParam().decode(codes[i]) * scale, x[i]);
  }
}

TEST_P(BlockTest, LargestFiniteValuesDoNotOverflow) {
  const std::vector<float> x = {std::numeric_limits<float>::max(), -1.0f};
  std::vector<uint8_t> codes(x.size());
  const uint8_t scale = GetParam().quantize(x, codes);
  EXPECT_LT(scale, 255);
  EXPECT_GT(GetParam().decode(codes[0]), 0.0f);
}

INSTANTIATE_TEST_SUITE_P(Formats, BlockTest, testing::ValuesIn(kBlockFormats),
                         [](const testing::TestParamInfo<BlockFormat>& param) {
                           return std::string(param.param.name);
                         });

TEST(BlockTest, ScalesAreThoseOfTheReleasedKernels) {
  // amax 1e-4 floor: 1e-4 / 448 = 2.23e-7, next power 2^-22.
  const std::vector<float> zeros(3);
  std::vector<uint8_t> codes(3);
  EXPECT_EQ(QuantizeBlockE4M3(zeros, codes), 127 - 22);
  // 6 * 2^-126 / 6: the smallest normal power.
  EXPECT_EQ(QuantizeBlockE2M1(zeros, codes), 1);
  const std::vector<float> ones(3, 1.0f);
  EXPECT_EQ(QuantizeBlockE4M3(ones, codes), 127 - 8);  // 1/448 -> 2^-8
  EXPECT_EQ(QuantizeBlockE2M1(ones, codes), 127 - 2);  // 1/6 -> 2^-2
}

}  // namespace
}  // namespace cachalot
