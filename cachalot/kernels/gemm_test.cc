// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "cachalot/kernels/matmul_test_util.h"

namespace cachalot::kernels {
namespace {

class GemmTest : public testing::TestWithParam<Target> {
 protected:
  Context Ctx(ThreadPool& pool) const { return {&pool, Path::kSimd, GetParam()}; }
};

struct Shape {
  size_t m, n, k;
};

// One product with operands of their own, rows padded by three so that strides matter.
struct Case {
  Case(Shape s, bool ta, bool tb, bool accumulate) : shape(s) {
    const size_t a_rows = ta ? s.k : s.m;
    const size_t a_cols = ta ? s.m : s.k;
    const size_t b_rows = tb ? s.n : s.k;
    const size_t b_cols = tb ? s.k : s.n;
    a = RandomVector<float>(a_rows * (a_cols + 3), 1);
    b = RandomVector<float>(b_rows * (b_cols + 3), 2);
    before = RandomVector<float>(s.m * (s.n + 3), 3);
    job = {.a = {a.data(), a_rows, a_cols, a_cols + 3},
           .b = {b.data(), b_rows, b_cols, b_cols + 3},
           .c = {nullptr, s.m, s.n, s.n + 3},
           .a_transposed = ta,
           .b_transposed = tb,
           .accumulate = accumulate};
  }
  std::vector<float> Run(const Context& ctx) {
    std::vector<float> c = before;
    job.c.data = c.data();
    Gemm(job, ctx);
    return c;
  }
  double A(size_t m, size_t k) const {
    return double{job.a_transposed ? job.a.Row(k)[m] : job.a.Row(m)[k]};
  }
  double B(size_t k, size_t n) const {
    return double{job.b_transposed ? job.b.Row(n)[k] : job.b.Row(k)[n]};
  }

  Shape shape;
  std::vector<float> a, b, before;
  GemmJob job;
};

// A product and its sums round at most K + K / kGemmBlockK + 2 times, each by 2^-24 of the sum of
// magnitudes. The padding between rows of c must stay as it was.
void ExpectExact(const Case& test, const std::vector<float>& c) {
  const auto [rows, cols, depth] = test.shape;
  for (size_t m = 0; m < rows; ++m) {
    for (size_t n = 0; n < cols + 3; ++n) {
      const size_t at = m * (cols + 3) + n;
      if (n >= cols) {
        ASSERT_TRUE(m + 1 == rows || c[at] == test.before[at]) << "padding of row " << m;
        continue;
      }
      double want = test.job.accumulate ? double{test.before[at]} : 0.0;
      double magnitude = std::fabs(want);
      for (size_t k = 0; k < depth; ++k) {
        want += test.A(m, k) * test.B(k, n);
        magnitude += std::fabs(test.A(m, k) * test.B(k, n));
      }
      const double bound =
          (static_cast<double>(depth + depth / kGemmBlockK) + 2) * 0x1p-24 * magnitude;
      ASSERT_NEAR(double{c[at]}, want, bound) << "m " << m << " n " << n;
    }
  }
}

TEST_P(GemmTest, MatchesExactSumsInEveryOrientation) {
  ThreadPool pool(2);
  const Shape shapes[] = {{1, 1, 1},      {3, 5, 7},     {8, 32, 128},  {17, 33, 129},
                          {130, 24, 300}, {64, 300, 17}, {600, 40, 31}, {2, 70, 0}};
  for (const Shape& shape : shapes) {
    for (int bits = 0; bits < 8; ++bits) {
      Case test(shape, (bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0);
      SCOPED_TRACE(testing::Message()
                   << shape.m << "x" << shape.n << "x" << shape.k << " bits " << bits);
      ExpectExact(test, test.Run(Ctx(pool)));
    }
  }
}

// Against exact sums of rounded operands; targets without the instruction are given operands that
// are rounded already.
TEST_P(GemmTest, Bf16OperandsInEveryOrientation) {
  ThreadPool pool(2);
  const bool rounds = HasBf16Dot(GetParam());
  const Shape shapes[] = {{1, 1, 1},      {3, 5, 7},     {17, 33, 129},
                          {130, 24, 300}, {600, 40, 31}, {2, 70, 0}};
  for (const Shape& shape : shapes) {
    for (int bits = 0; bits < 8; ++bits) {
      Case test(shape, (bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0);
      SCOPED_TRACE(testing::Message()
                   << shape.m << "x" << shape.n << "x" << shape.k << " bits " << bits);
      test.job.bf16 = true;
      for (float& v : test.a) v = rounds ? v : ToFloat(ToBF16(v));
      for (float& v : test.b) v = rounds ? v : ToFloat(ToBF16(v));
      const std::vector<float> c = test.Run(Ctx(pool));
      for (float& v : test.a) v = ToFloat(ToBF16(v));
      for (float& v : test.b) v = ToFloat(ToBF16(v));
      ExpectExact(test, c);
    }
  }
}

TEST_P(GemmTest, BitsDoNotDependOnThreadsOrOtherRows) {
  ThreadPool one(1);
  ThreadPool five(5);
  for (int bits = 0; bits < 8; ++bits) {
    Case test({203, 77, 260}, (bits & 1) != 0, (bits & 2) != 0, true);
    test.job.bf16 = (bits & 4) != 0;
    const std::vector<float> want = test.Run(Ctx(one));
    EXPECT_EQ(std::memcmp(want.data(), test.Run(Ctx(five)).data(), want.size() * 4), 0);

    // Rows 5.. alone, in the same c, by the serial entry.
    std::vector<float> c = test.before;
    GemmJob part = test.job;
    part.c = {c.data() + 5 * 80, 198, 77, 80};
    part.a = test.job.a_transposed ? test.job.a.Cols(5, 198) : test.job.a.Rows(5, 198);
    AlignedBuffer<uint8_t> scratch(kGemmScratchBytes);
    GemmSerial(part, scratch.data(), Ctx(one));
    EXPECT_EQ(std::memcmp(want.data() + 5 * 80, c.data() + 5 * 80, (198 * 80 - 3) * 4), 0);
  }
}

TEST_P(GemmTest, SeveralJobsGiveTheBitsOfEachAlone) {
  ThreadPool pool(3);
  Case first({40, 64, 100}, false, true, false);
  Case second({0, 16, 100}, false, false, true);
  Case third({9, 500, 33}, true, false, true);
  std::vector<float> c1 = first.before;
  std::vector<float> c3 = third.before;
  first.job.c.data = c1.data();
  third.job.c.data = c3.data();
  const GemmJob jobs[] = {first.job, second.job, third.job};
  Gemm(jobs, Ctx(pool));
  EXPECT_EQ(c1, first.Run(Ctx(pool)));
  EXPECT_EQ(c3, third.Run(Ctx(pool)));
}

TEST_P(GemmTest, NonFiniteOperandsReachTheirOutputsOnly) {
  ThreadPool pool(1);
  Case test({20, 40, 50}, false, true, false);
  test.a[7 * 53 + 4] = std::numeric_limits<float>::infinity();
  const std::vector<float> c = test.Run(Ctx(pool));
  for (size_t m = 0; m < 20; ++m) {
    for (size_t n = 0; n < 40; ++n) EXPECT_EQ(std::isfinite(c[m * 43 + n]), m != 7);
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, GemmTest, testing::ValuesIn(SupportedTargets()),
                         [](const testing::TestParamInfo<Target>& param) {
                           std::string name(TargetName(param.param));
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

}  // namespace
}  // namespace cachalot::kernels
