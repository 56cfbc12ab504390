// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/matmul.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "cachalot/kernels/matmul_ref.h"
#include "cachalot/kernels/matmul_test_util.h"
#include "cachalot/threading/aligned_buffer.h"
#include "cachalot/threading/placement.h"

namespace cachalot::kernels {
namespace {

constexpr WeightKind kAllKinds[] = {WeightKind::kF32, WeightKind::kBF16, WeightKind::kFP8,
                                    WeightKind::kFP4};

float AsFloat(float x) { return x; }
float AsFloat(BF16 x) { return ToFloat(x); }

template <typename X>
constexpr bool Supports(WeightKind kind) {
  return std::is_same_v<X, float> || kind != WeightKind::kF32;
}

class MatMulTest : public testing::TestWithParam<Target> {
 protected:
  Context Ctx(ThreadPool& pool) const { return {&pool, Path::kSimd, GetParam()}; }
};

// One product with dense x, M tokens.
template <typename X>
std::vector<float> Multiply(const std::vector<X>& x, const WeightView& w, size_t m,
                            const Context& ctx) {
  // A NaN that survives shows an output nobody wrote.
  std::vector<float> y(m * w.rows, std::numeric_limits<float>::quiet_NaN());
  const MatMulJob<X> job{{x.data(), m, w.cols}, nullptr, w, {y.data(), m, w.rows}};
  MatMul(std::span<const MatMulJob<X>>(&job, 1), ctx);
  return y;
}

// Each of K/lanes steps of a lane rounds once (bf16 dot: two products a step, each rounds), the
// lane tree log2(lanes) times, and a product without fma once: at most K/lanes + log2(lanes) + 2
// roundings on the way of any product, each of relative size 2^-24 to the sum of magnitudes. The
// fewest lanes are 4 (NEON); the bf16 dot has the step count of 16 lanes. It also flushes
// subnormal products and sums: less than 2^-126 each, K products and at most as many sums.
double ErrorBound(size_t k, double sum_magnitudes) {
  const double roundings = static_cast<double>(k) / 4 + 8;
  return roundings * 0x1p-24 * sum_magnitudes + 2 * static_cast<double>(k) * 0x1p-126;
}

template <typename X>
void ExpectNearExact(const std::vector<float>& y, const std::vector<X>& x, const WeightView& w,
                     size_t m) {
  std::vector<float> row(w.cols);
  for (size_t n = 0; n < w.rows; ++n) {
    WidenRow(w, n, row);
    for (size_t i = 0; i < m; ++i) {
      double sum = 0;
      double magnitudes = 0;
      for (size_t k = 0; k < w.cols; ++k) {
        const double product = double{AsFloat(x[i * w.cols + k])} * double{row[k]};
        sum += product;
        magnitudes += std::fabs(product);
      }
      const double got = double{y[i * w.rows + n]};
      ASSERT_LE(std::fabs(got - sum), ErrorBound(w.cols, magnitudes))
          << WeightKindName(w.kind) << " m " << i << " n " << n << " N " << w.rows << " K "
          << w.cols << " got " << got << " want " << sum;
    }
  }
}

template <typename X>
void CheckShape(WeightKind kind, size_t m, uint32_t n, uint32_t k, const Context& ctx) {
  const uint64_t seed = m + 100 * n + 100000 * k;
  const TestWeight w = RandomWeight(kind, n, k, seed);
  const std::vector<X> x = RandomVector<X>(m * k, seed + 1);
  ExpectNearExact(Multiply(x, w.view, m, ctx), x, w.view, m);
}

template <typename X>
void CheckShapes(const Context& ctx) {
  for (WeightKind kind : kAllKinds) {
    if (!Supports<X>(kind)) continue;
    // Lanes are 4, 8, 16 (32 for the bf16 dot), steps up to 64, groups 8 rows, panels 64.
    for (uint32_t k : {0,  1,  3,  4,  5,  7,  8,   9,   15,  16,  17, 31,
                       32, 33, 63, 64, 65, 96, 127, 128, 129, 160, 257}) {
      if (kind == WeightKind::kFP4 && k % 32 != 0) continue;
      CheckShape<X>(kind, 3, 9, k, ctx);
    }
    for (uint32_t n : {0, 1, 2, 7, 8, 9, 15, 63, 64, 65, 130}) {
      CheckShape<X>(kind, 2, n, 96, ctx);
    }
    for (size_t m : {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 17, 49})
      CheckShape<X>(kind, m, 17, 160, ctx);
    CheckShape<X>(kind, 1, 20, 4096, ctx);
    // Sums that wait between blocks of 1,024 columns; whole blocks, and a last one inside a step.
    for (size_t m : {4, 5, 48}) CheckShape<X>(kind, m, 9, 2048, ctx);
    CheckShape<X>(kind, 7, 9, kind == WeightKind::kFP4 ? 2144 : 2131, ctx);
  }
}

TEST_P(MatMulTest, IsNearTheExactProductForEveryShape) {
  ThreadPool pool(1);
  CheckShapes<float>(Ctx(pool));
  CheckShapes<BF16>(Ctx(pool));
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// `blocks` of 1,024 columns and a rest that ends inside a step.
template <typename X>
void CheckInvariance(Target target, uint32_t num_rows, uint32_t blocks) {
  constexpr size_t kM = 52;  // every way of every kernel: up to 3, up to 48, more
  ThreadPool one(1);
  for (WeightKind kind : kAllKinds) {
    if (!Supports<X>(kind)) continue;
    const uint32_t cols = 1024 * blocks + (kind == WeightKind::kFP4 ? 224 : 211);
    const TestWeight w = RandomWeight(kind, num_rows, cols, 7);
    const std::vector<X> x = RandomVector<X>(kM * cols, 8);
    const std::vector<float> want = Multiply(x, w.view, kM, {&one, Path::kSimd, target});
    for (size_t threads = 1; threads <= 3; ++threads) {
      ThreadPool pool(threads);
      const Context ctx{&pool, Path::kSimd, target};
      EXPECT_TRUE(SameBits(want, Multiply(x, w.view, kM, ctx))) << threads;
      // Every sub-batch, gathered in reverse, beside another job.
      for (size_t m = 1; m <= kM; m += m < 14 ? 1 : 5) {
        std::vector<uint32_t> rows(m);
        for (size_t i = 0; i < m; ++i) rows[i] = static_cast<uint32_t>(kM - 1 - i);
        std::vector<float> y(m * num_rows);
        std::vector<float> other(kM * num_rows);
        const MatMulJob<X> jobs[] = {
            {{x.data(), kM, cols}, nullptr, w.view, {other.data(), kM, num_rows}},
            {{x.data(), kM, cols}, rows.data(), w.view, {y.data(), m, num_rows}}};
        MatMul(std::span<const MatMulJob<X>>(jobs), ctx);
        EXPECT_TRUE(SameBits(want, other));
        for (size_t i = 0; i < m; ++i) {
          EXPECT_EQ(
              std::memcmp(&y[i * num_rows], &want[rows[i] * num_rows], num_rows * sizeof(float)), 0)
              << TargetName(target) << " " << WeightKindName(kind) << " M " << m << " row " << i;
        }
      }
    }
  }
}

TEST_P(MatMulTest, BitsDependOnlyOnTheRowAndTheWeights) {
  CheckInvariance<float>(GetParam(), 77, 0);
  CheckInvariance<BF16>(GetParam(), 77, 0);
}

TEST_P(MatMulTest, BitsDoNotDependOnBlocksOfColumns) { CheckInvariance<BF16>(GetParam(), 9, 2); }

TEST_P(MatMulTest, BitsOfARowDoNotDependOnItsPlaceInTheMatrix) {
  ThreadPool pool(1);
  const TestWeight w = RandomWeight(WeightKind::kFP4, 67, 128, 3);
  const std::vector<BF16> x = RandomVector<BF16>(2 * 128, 4);
  const std::vector<float> all = Multiply(x, w.view, 2, Ctx(pool));
  for (uint32_t n = 0; n < w.view.rows; ++n) {
    const std::vector<float> one = Multiply(x, w.view.Rows(n, 1), 2, Ctx(pool));
    EXPECT_EQ(one[0], all[n]);
    EXPECT_EQ(one[1], all[w.view.rows + n]);
  }
}

// A weight row with one non-zero code, x all ones: the output is that weight, exactly. Runs every
// code through every position of a vector, which also shows that subnormal E4M3 are not flushed.
template <typename X>
void CheckAllCodes(WeightKind kind, uint8_t scale, const Context& ctx) {
  constexpr uint32_t kCols = 256;
  const uint32_t num_codes = kind == WeightKind::kFP8 ? 256 : 16;
  for (uint32_t shift : {0u, 1u, 37u}) {
    TestWeight w = RandomWeight(kind, num_codes, kCols, 1);
    std::memset(w.data.data(), 0, w.data.size());
    std::memset(w.scales.data(), scale, w.scales.size());
    for (uint32_t code = 0; code < num_codes; ++code) {
      const uint32_t k = (code * 5 + shift) % kCols;
      uint8_t* row = w.data.data() + 1 + code * w.view.row_bytes();
      if (kind == WeightKind::kFP8) {
        row[k] = static_cast<uint8_t>(code);
      } else {
        row[k / 2] = static_cast<uint8_t>(code << (4 * (k % 2)));
      }
    }
    for (size_t m : {1u, 5u}) {
      std::vector<X> x(m * kCols);
      for (X& v : x) {
        if constexpr (std::is_same_v<X, float>) {
          v = 1.0f;
        } else {
          v = ToBF16(1.0f);
        }
      }
      const std::vector<float> y = Multiply(x, w.view, m, ctx);
      for (size_t i = 0; i < y.size(); ++i) {
        const uint8_t code = static_cast<uint8_t>(i % num_codes);
        const float value = kind == WeightKind::kFP8 ? E4M3ToFloat(code) : E2M1ToFloat(code);
        const float want = value * E8M0ToFloat(scale);
        if (std::isnan(want)) {
          EXPECT_TRUE(std::isnan(y[i])) << int{code};
        } else {
          EXPECT_EQ(y[i], want) << WeightKindName(kind) << " code " << int{code} << " scale "
                                << int{scale} << " M " << m;
        }
      }
    }
  }
}

TEST_P(MatMulTest, EveryCodeAndScaleIsExact) {
  ThreadPool pool(1);
  for (uint32_t scale = 0; scale < 256; ++scale) {
    // All scales near the ends and the middle, where ranges and slow paths begin.
    if (scale > 16 && scale < 240 && scale % 13 != 0) continue;
    for (WeightKind kind : {WeightKind::kFP8, WeightKind::kFP4}) {
      CheckAllCodes<float>(kind, static_cast<uint8_t>(scale), Ctx(pool));
      CheckAllCodes<BF16>(kind, static_cast<uint8_t>(scale), Ctx(pool));
    }
  }
}

TEST_P(MatMulTest, Float32ScalesGiveTheSameWeights) {
  ThreadPool pool(1);
  for (uint32_t cols : {128u, 300u}) {
    TestWeight w = RandomWeight(WeightKind::kFP8, 150, cols, 5);
    const size_t num_scales = w.scales.size();
    std::vector<uint8_t> f32(4 * num_scales);
    for (bool power_of_two : {true, false}) {
      for (size_t i = 0; i < num_scales; ++i) {
        const float scale = E8M0ToFloat(w.scales[i]) * (power_of_two ? 1.0f : 1.25f + 0.01f);
        std::memcpy(&f32[4 * i], &scale, 4);
      }
      WeightView view = w.view;
      view.scales = f32.data();
      view.scale_dtype = DType::kF32;
      const std::vector<BF16> x = RandomVector<BF16>(2 * cols, 6);
      const std::vector<float> got = Multiply(x, view, 2, Ctx(pool));
      ExpectNearExact(got, x, view, 2);
      if (!power_of_two) continue;
      EXPECT_TRUE(SameBits(got, Multiply(x, w.view, 2, Ctx(pool))));
    }
  }
}

TEST_P(MatMulTest, NonFiniteWeightsStayInTheirRow) {
  ThreadPool pool(1);
  constexpr uint32_t kCols = 96;
  TestWeight w = RandomWeight(WeightKind::kBF16, 20, kCols, 2);
  const BF16 nan = ToBF16(std::numeric_limits<float>::quiet_NaN());
  const BF16 inf = ToBF16(std::numeric_limits<float>::infinity());
  std::memcpy(w.data.data() + 1 + 3 * w.view.row_bytes() + 2 * 50, &nan, 2);
  std::memcpy(w.data.data() + 1 + 9 * w.view.row_bytes() + 2 * 7, &inf, 2);
  const std::vector<BF16> x = RandomVector<BF16>(4 * kCols, 3);
  const std::vector<float> y = Multiply(x, w.view, 4, Ctx(pool));
  for (size_t i = 0; i < y.size(); ++i) {
    EXPECT_EQ(std::isfinite(y[i]), i % 20 != 3 && i % 20 != 9) << i;
    EXPECT_EQ(std::isnan(y[i]), i % 20 == 3) << i;
  }
}

TEST_P(MatMulTest, NoJobsAndNoTokensDoNothing) {
  ThreadPool pool(2);
  MatMul(std::span<const MatMulJob<BF16>>(), Ctx(pool));
  const TestWeight w = RandomWeight(WeightKind::kFP8, 5, 32, 1);
  const MatMulJob<BF16> job{{}, nullptr, w.view, {nullptr, 0, 5}};
  MatMul(std::span<const MatMulJob<BF16>>(&job, 1), Ctx(pool));
}

INSTANTIATE_TEST_SUITE_P(Targets, MatMulTest, testing::ValuesIn(SupportedTargets()),
                         [](const testing::TestParamInfo<Target>& param) {
                           std::string name(TargetName(param.param));
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

// More stretches than the index remembers, jobs of no, few and many panels, odd shares of them.
TEST(MatMulNodesTest, MemoryNodesChangeNoBit) {
  ThreadPool one(1);
  const std::vector<Core> cores = {
      {.cpu = 0, .node = 0}, {.cpu = 1, .node = 1}, {.cpu = 2, .node = 2}};
  ThreadPool nodes(PlaceWorkers(cores, 5, Pinning::kOff));
  ASSERT_EQ(nodes.parts().num(), 3u);
  constexpr uint32_t kRowsOfJob[] = {0, 1, 64, 65, 200, 330};
  constexpr uint32_t kCols = 64;
  const TestWeight w = RandomWeight(WeightKind::kFP4, 330, kCols, 1);
  const std::vector<BF16> x = RandomVector<BF16>(2 * kCols, 2);
  const auto run = [&](ThreadPool& pool) {
    constexpr size_t kJobs = 400;
    std::vector<float> y(kJobs * 2 * 330);
    std::vector<MatMulJob<BF16>> jobs;
    for (size_t j = 0; j < kJobs; ++j) {
      WeightView view = w.view;
      view.rows = kRowsOfJob[j % std::size(kRowsOfJob)];
      jobs.push_back({.x = {x.data(), 2, kCols},
                      .w = view,
                      .y = {y.data() + j * 660, j % 7 == 0 ? size_t{0} : 2, view.rows}});
    }
    MatMul(std::span<const MatMulJob<BF16>>(jobs),
           {&pool, Path::kSimd, SupportedTargets().front()});
    return y;
  };
  EXPECT_TRUE(SameBits(run(one), run(nodes)));
}

TEST(MatMulReferenceTest, IsTheSameWhateverTheTarget) {
  ThreadPool pool(2);
  const TestWeight w = RandomWeight(WeightKind::kFP8, 40, 200, 1);
  const std::vector<float> x = RandomVector<float>(3 * 200, 2);
  const std::vector<float> want =
      Multiply(x, w.view, 3, {&pool, Path::kReference, Target::kScalar});
  ExpectNearExact(want, x, w.view, 3);
  for (Target target : SupportedTargets()) {
    EXPECT_TRUE(SameBits(want, Multiply(x, w.view, 3, {&pool, Path::kReference, target})));
  }
}

TEST(RoundRowsToBF16Test, RoundsEveryRowOfAPaddedMatrix) {
  ThreadPool pool(2);
  for (size_t cols : {0u, 1u, 15u, 16u, 17u, 100u}) {
    const std::vector<float> x = RandomVector<float>(5 * (cols + 3), 9);
    std::vector<BF16> out(5 * (cols + 1));
    RoundRowsToBF16({x.data(), 5, cols, cols + 3}, {out.data(), 5, cols, cols + 1},
                    {&pool, Path::kSimd, SupportedTargets().front()});
    for (size_t r = 0; r < 5; ++r) {
      for (size_t c = 0; c < cols; ++c) {
        EXPECT_EQ(out[r * (cols + 1) + c], ToBF16(x[r * (cols + 3) + c]));
      }
    }
  }
}

// Halves between neighbors, signs, subnormals, infinities, NaN of every kind; every target.
TEST(RoundRowsToBF16Test, HasTheBitsOfToBF16OnEveryTarget) {
  ThreadPool pool(1);
  std::vector<float> x;
  for (uint32_t upper = 0; upper < 0x10000; upper += 7) {
    for (uint32_t lower : {0x0u, 0x1u, 0x7FFFu, 0x8000u, 0x8001u, 0xFFFFu}) {
      x.push_back(std::bit_cast<float>(upper << 16 | lower));
    }
  }
  for (uint32_t special : {0x7F800000u, 0xFF800000u, 0x7F800001u, 0xFFBFFFFFu, 0x7FC00000u}) {
    x.push_back(std::bit_cast<float>(special));
  }
  for (Target target : SupportedTargets()) {
    std::vector<BF16> out(x.size());
    RoundRowsToBF16({x.data(), 1, x.size()}, {out.data(), 1, x.size()},
                    {&pool, Path::kSimd, target});
    for (size_t i = 0; i < x.size(); ++i) {
      ASSERT_EQ(out[i].bits, ToBF16(x[i]).bits)
          << TargetName(target) << " " << std::hex << std::bit_cast<uint32_t>(x[i]);
    }
  }
}

// Experts read dealt rows where they lie, through x_rows; a partial step and every way through a
// panel.
TEST(RoundRowsToBF16Test, DealtRowsChangeNoBit) {
  ThreadPool pool(2);
  const Context ctx{&pool, Path::kSimd, SupportedTargets().front()};
  constexpr uint32_t kRows = 70;
  constexpr uint32_t kCols = 1184;
  if (DealtCols(kCols, ctx) == 0) GTEST_SKIP() << "this target reads rows as they are";
  const size_t stride = DealtCols(kCols, ctx) + 32;
  const TestWeight w = RandomWeight(WeightKind::kFP4, kRows, kCols, 3);
  for (size_t m : {1u, 3u, 8u, 9u, 50u}) {
    const std::vector<float> x = RandomVector<float>(m * kCols, 4);
    std::vector<BF16> rounded(m * kCols);
    AlignedBuffer<BF16> dealt(m * stride);
    std::vector<uint32_t> rows(m);
    for (size_t i = 0; i < m; ++i) rows[i] = static_cast<uint32_t>(m - 1 - i);
    MatMulJob<BF16> job{.x = {rounded.data(), m, kCols}, .x_rows = rows.data(), .w = w.view};
    RoundRowsToBF16({x.data(), m, kCols}, {rounded.data(), m, kCols}, ctx,
                    {dealt.data(), m, DealtCols(kCols, ctx), stride});
    std::vector<float> want(m * kRows);
    job.y = {want.data(), m, kRows};
    MatMul(std::span<const MatMulJob<BF16>>(&job, 1), ctx);
    std::vector<float> got(m * kRows);
    job.y = {got.data(), m, kRows};
    job.dealt = {dealt.data(), m, DealtCols(kCols, ctx), stride};
    MatMul(std::span<const MatMulJob<BF16>>(&job, 1), ctx);
    EXPECT_TRUE(SameBits(want, got)) << m << " tokens";
  }
}

}  // namespace
}  // namespace cachalot::kernels
