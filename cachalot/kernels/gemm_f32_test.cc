// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/gemm_f32.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "cachalot/base/rng.h"
#include "cachalot/kernels/gemm_f32_ref.h"

namespace cachalot::kernels {
namespace {

// A matrix whose rows have room behind them.
struct Matrix {
  Matrix(size_t r, size_t c, uint64_t seed) : rows(r), cols(c), values(r * (c + 3) + 1) {
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<float>(2.0 * UniformOpen(CounterRandom(seed, i, 0)) - 1.0);
    }
  }
  MatView<float> view() { return {values.data() + 1, rows, cols, cols + 3}; }  // no alignment
  size_t rows, cols;
  std::vector<float> values;
};

class GemmF32Test : public testing::TestWithParam<Target> {
 protected:
  std::vector<float> Scratch(const GemmF32Args& args) const {
    return std::vector<float>(GemmF32ScratchFloats(args) + 16);
  }
  static float* Aligned(std::vector<float>& scratch) {
    void* p = scratch.data();
    size_t space = scratch.size() * sizeof(float);
    return static_cast<float*>(std::align(64, 4, p, space));
  }
};

// K chained roundings of at most 2^-24 of the sum of magnitudes, alpha, beta and their sum 3 more;
// without fma each product rounds as well.
void ExpectNear(MatView<float> got, MatView<float> want, const GemmF32Args& args) {
  for (size_t i = 0; i < got.rows; ++i) {
    for (size_t j = 0; j < got.cols; ++j) {
      const double magnitude = static_cast<double>(args.a.cols) * std::fabs(double{args.alpha}) +
                               std::fabs(double{args.beta});  // all values are below 1
      const double bound = (2.0 * static_cast<double>(args.a.cols) + 4) * 0x1p-24 * magnitude;
      ASSERT_NEAR(got.Row(i)[j], want.Row(i)[j], bound)
          << "i " << i << " j " << j << " M " << got.rows << " N " << got.cols << " K "
          << args.a.cols;
    }
  }
}

TEST_P(GemmF32Test, MatchesDoubleSums) {
  for (const size_t m : {1u, 3u, 8u, 9u, 50u, 97u}) {
    for (const size_t n : {1u, 31u, 32u, 33u, 70u}) {
      for (const size_t k : {1u, 4u, 7u, 129u}) {
        for (const GemmB layout : {GemmB::kPlain, GemmB::kTransposed}) {
          const bool plain = layout == GemmB::kPlain;
          Matrix a(m, k, 1), b(plain ? k : n, plain ? n : k, 2), c(m, n, 3), d(m, n, 4), e(m, n, 5);
          GemmF32Args args{a.view(), b.view(), layout, c.view(), 0.5f, -0.75f, d.view()};
          auto scratch = Scratch(args);
          GemmF32Serial(args, Aligned(scratch), GetParam());
          args.c = e.view();
          ref::GemmF32(args);
          ExpectNear(c.view(), e.view(), args);
        }
      }
    }
  }
}

TEST_P(GemmF32Test, SymmetricEqualsFullToTheBit) {
  for (const size_t n : {1u, 7u, 8u, 33u, 100u, 128u}) {
    Matrix x(n, 57, 1), full(n, n, 2), half(n, n, 3);
    GemmF32Args args{x.view(), x.view(), GemmB::kTransposed, full.view()};
    auto scratch = Scratch(args);
    GemmF32Serial(args, Aligned(scratch), GetParam());
    args.c = half.view();
    args.symmetric = true;
    GemmF32Serial(args, Aligned(scratch), GetParam());
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = 0; j < n; ++j) {
        ASSERT_EQ(half.view().Row(i)[j], full.view().Row(i)[j]) << n << " " << i << " " << j;
        ASSERT_EQ(half.view().Row(i)[j], half.view().Row(j)[i]);
      }
    }
  }
}

TEST_P(GemmF32Test, ThreadsAndNeighborsDoNotChangeBits) {
  Matrix a(131, 77, 1), b(77, 90, 2), serial(131, 90, 3), parallel(131, 90, 4), part(21, 90, 5);
  GemmF32Args args{a.view(), b.view(), GemmB::kPlain, serial.view()};
  auto scratch = Scratch(args);
  GemmF32Serial(args, Aligned(scratch), GetParam());
  ThreadPool pool(3);
  args.c = parallel.view();
  GemmF32(args, Aligned(scratch), {&pool, Path::kSimd, GetParam()});
  args.a = a.view().Rows(110, 21);
  args.c = part.view();
  GemmF32Serial(args, Aligned(scratch), GetParam());
  for (size_t i = 0; i < 131; ++i) {
    const auto want = serial.view().Row(i);
    EXPECT_EQ(std::memcmp(want.data(), parallel.view().Row(i).data(), want.size_bytes()), 0) << i;
    if (i < 110) continue;
    EXPECT_EQ(std::memcmp(want.data(), part.view().Row(i - 110).data(), want.size_bytes()), 0) << i;
  }
}

TEST_P(GemmF32Test, OutputMayBeTheRightOperand) {
  Matrix a(40, 40, 1), x(40, 65, 2), y(40, 65, 3);
  GemmF32Args args{a.view(), x.view(), GemmB::kPlain, y.view(), 1.0f, 2.0f, x.view()};
  auto scratch = Scratch(args);
  GemmF32Serial(args, Aligned(scratch), GetParam());
  args.c = x.view();
  GemmF32Serial(args, Aligned(scratch), GetParam());
  for (size_t i = 0; i < 40; ++i) {
    for (size_t j = 0; j < 65; ++j) ASSERT_EQ(x.view().Row(i)[j], y.view().Row(i)[j]);
  }
}

std::string Name(const testing::TestParamInfo<Target>& info) {
  std::string name(TargetName(info.param));
  std::erase(name, '-');
  return name;
}
INSTANTIATE_TEST_SUITE_P(Targets, GemmF32Test, testing::ValuesIn(SupportedTargets()), Name);

}  // namespace
}  // namespace cachalot::kernels
