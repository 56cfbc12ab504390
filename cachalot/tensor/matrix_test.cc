// SPDX-License-Identifier: Apache-2.0
#include "cachalot/tensor/matrix.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "cachalot/base/rng.h"
#include "cachalot/numeric/formats.h"

namespace cachalot {
namespace {

// Random bytes at an odd address; scales 2^-3 .. 2^4.
struct RandomBytes {
  RandomBytes(WeightKind kind, uint32_t rows, uint32_t cols) {
    view.kind = kind;
    view.rows = rows;
    view.cols = cols;
    data.resize(1 + rows * view.row_bytes());
    for (size_t i = 0; i < data.size(); ++i) {
      data[i] = static_cast<uint8_t>(CounterRandom(1, i, 0) & 0x7Eu);
    }
    scales.resize(1 + size_t{rows} * (cols + 1));
    for (size_t i = 0; i < scales.size(); ++i) {
      scales[i] = static_cast<uint8_t>(124 + CounterRandom(2, i, 0) % 8);
    }
    view.data = data.data() + 1;
    view.scales = scales.data() + 1;
  }
  std::vector<uint8_t> data;
  std::vector<uint8_t> scales;
  WeightView view;
};

std::vector<float> Widen(const WeightView& w, size_t n) {
  std::vector<float> out(w.cols);
  WidenRow(w, n, out);
  return out;
}

TEST(MatrixTest, WidenRowIsCodeTimesScaleOfTheBlock) {
  for (uint32_t cols : {1u, 127u, 128u, 129u, 300u}) {
    const RandomBytes w(WeightKind::kFP8, 260, cols);
    const size_t scale_cols = (cols + 127) / 128;
    for (size_t n : {0u, 1u, 127u, 128u, 255u, 256u, 259u}) {
      const std::vector<float> got = Widen(w.view, n);
      for (size_t k = 0; k < cols; ++k) {
        const float scale = E8M0ToFloat(w.view.scales[n / 128 * scale_cols + k / 128]);
        EXPECT_EQ(WeightScale(w.view, n, k), scale);
        EXPECT_EQ(got[k], E4M3ToFloat(w.view.data[n * cols + k]) * scale);
      }
    }
  }
}

TEST(MatrixTest, FP4ReadsTheLowNibbleFirst) {
  const RandomBytes w(WeightKind::kFP4, 5, 96);
  for (size_t n = 0; n < 5; ++n) {
    const std::vector<float> got = Widen(w.view, n);
    for (size_t k = 0; k < 96; ++k) {
      const uint8_t byte = w.view.data[n * 48 + k / 2];
      const uint8_t code = k % 2 == 0 ? byte & 15 : byte >> 4;
      EXPECT_EQ(got[k], E2M1ToFloat(code) * E8M0ToFloat(w.view.scales[n * 3 + k / 32]));
    }
  }
}

TEST(MatrixTest, UnscaledKindsAreCopied) {
  const RandomBytes f32(WeightKind::kF32, 3, 7);
  const RandomBytes bf16(WeightKind::kBF16, 3, 7);
  const std::vector<float> a = Widen(f32.view, 2);
  const std::vector<float> b = Widen(bf16.view, 2);
  for (size_t k = 0; k < 7; ++k) {
    EXPECT_EQ(std::memcmp(&a[k], f32.view.row(2) + 4 * k, 4), 0);
    uint16_t bits;
    std::memcpy(&bits, bf16.view.row(2) + 2 * k, 2);
    EXPECT_EQ(std::bit_cast<uint32_t>(b[k]), uint32_t{bits} << 16);
  }
}

TEST(MatrixTest, Float32ScalesAreReadUnaligned) {
  RandomBytes w(WeightKind::kFP8, 130, 200);
  const float scales[] = {0.3f, 1.7f, 2.5f, 1e-3f};
  std::vector<uint8_t> bytes(1 + sizeof(scales));
  std::memcpy(bytes.data() + 1, scales, sizeof(scales));
  w.view.scales = bytes.data() + 1;
  w.view.scale_dtype = DType::kF32;
  EXPECT_EQ(WeightScale(w.view, 0, 0), 0.3f);
  EXPECT_EQ(WeightScale(w.view, 127, 128), 1.7f);
  EXPECT_EQ(WeightScale(w.view, 128, 127), 2.5f);
  EXPECT_EQ(Widen(w.view, 129)[199], E4M3ToFloat(w.view.row(129)[199]) * 1e-3f);
}

TEST(MatrixTest, RowsOfAWeightKeepTheirScales) {
  for (WeightKind kind :
       {WeightKind::kF32, WeightKind::kBF16, WeightKind::kFP8, WeightKind::kFP4}) {
    const RandomBytes w(kind, 300, 160);
    for (uint32_t begin : {0u, 128u, 256u}) {
      const WeightView part = w.view.Rows(begin, 300 - begin);
      ASSERT_EQ(part.rows, 300 - begin);
      for (uint32_t n = 0; n < part.rows; n += 17) {
        const std::vector<float> want = Widen(w.view, begin + n);
        const std::vector<float> got = Widen(part, n);
        EXPECT_EQ(std::memcmp(want.data(), got.data(), want.size() * sizeof(float)), 0);
      }
    }
  }
}

TEST(MatrixTest, RowsInsideOneScaleBlockKeepItsScale) {
  const RandomBytes w(WeightKind::kFP8, 256, 160);
  for (uint32_t begin : {1u, 100u, 129u, 255u}) {
    EXPECT_EQ(Widen(w.view.Rows(begin, 1), 0), Widen(w.view, begin));
  }
}

TEST(MatrixDeathTest, RowsOutsideAbort) {
  const RandomBytes w(WeightKind::kFP8, 256, 32);
  EXPECT_DEATH(w.view.Rows(128, 129), "");
  EXPECT_DEATH(w.view.Rows(100, 29), "");  // from inside a block of scales into the next
  EXPECT_DEATH(w.view.Rows(0xFFFFFF80u, 0x90u), "");
}

TEST(MatViewTest, RowsAndColumnsShareTheElements) {
  std::vector<int> data(6 * 5);
  const MatView<int> all(data.data(), 6, 4, 5);
  all.Rows(2, 3).Cols(1, 2).Row(1)[1] = 7;
  EXPECT_EQ(data[3 * 5 + 2], 7);
  const MatView<const int> read = all;
  EXPECT_EQ(read.Row(3)[2], 7);
  EXPECT_EQ(read.Row(3).size(), 4u);
}

}  // namespace
}  // namespace cachalot
