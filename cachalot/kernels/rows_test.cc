// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "cachalot/kernels/matmul_test_util.h"

namespace cachalot::kernels {
namespace {

class RowsTest : public testing::TestWithParam<Target> {
 protected:
  RowFns fns_ = RowsFor(GetParam());
};

constexpr size_t kSizes[] = {1, 3, 16, 17, 64, 100, 257};

TEST_P(RowsTest, DotAndMax) {
  for (const size_t n : kSizes) {
    const std::vector<float> a = RandomVector<float>(n, 1);
    const std::vector<float> b = RandomVector<float>(n, 2);
    double want = 0;
    double magnitude = 0;
    for (size_t i = 0; i < n; ++i) {
      want += double{a[i]} * double{b[i]};
      magnitude += std::fabs(double{a[i]} * double{b[i]});
    }
    // At most n roundings lie on the way of a product.
    EXPECT_NEAR(double{fns_.dot(a.data(), b.data(), n)}, want,
                static_cast<double>(n + 8) * 0x1p-24 * magnitude);
    EXPECT_EQ(fns_.max(a.data(), n), *std::max_element(a.begin(), a.end()));
  }
}

TEST_P(RowsTest, ExpOfScaledAndShifted) {
  for (const size_t n : kSizes) {
    std::vector<float> x = RandomVector<float>(n, 3);
    for (float& v : x) v *= 30.0f;
    const std::vector<float> before = x;
    const float sum = fns_.exp(x.data(), n, 2.0f, 40.0f);
    double want_sum = 0;
    for (size_t i = 0; i < n; ++i) {
      const double exponent = 2.0 * double{before[i]} - 40.0;
      const double want = exponent < -87 ? 0 : std::exp(exponent);
      want_sum += want;
      // The exponent itself is rounded by 2^-24 of its size, up to 100.
      EXPECT_NEAR(double{x[i]}, want, 1e-5 * want + 1e-37);
    }
    EXPECT_NEAR(double{sum}, want_sum, 2e-5 * want_sum);
  }
}

TEST_P(RowsTest, NanStaysNan) {
  std::vector<float> x(20, 0.5f);
  x[18] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(fns_.dot(x.data(), x.data(), 20)));
  EXPECT_TRUE(std::isnan(fns_.exp(x.data(), 20, 1.0f, 0.0f)));
  EXPECT_TRUE(std::isnan(x[18]));
}

TEST_P(RowsTest, SwiGluBackward) {
  for (const size_t n : kSizes) {
    std::vector<float> g = RandomVector<float>(n, 4);
    const std::vector<float> u = RandomVector<float>(n, 5);
    const std::vector<float> d_h = RandomVector<float>(n, 6);
    for (float& v : g) v *= 3.0f;
    std::vector<float> d_g(n);
    std::vector<float> d_u(n);
    const float d_weight = fns_.swiglu_backward({.g = g.data(),
                                                 .u = u.data(),
                                                 .d_h = d_h.data(),
                                                 .d_g = d_g.data(),
                                                 .d_u = d_u.data(),
                                                 .size = n,
                                                 .limit = 0.75f,
                                                 .weight = 1.25f});
    double want_weight = 0;
    for (size_t i = 0; i < n; ++i) {
      const double gate = std::min(double{g[i]}, 0.75);
      const double up = std::clamp(double{u[i]}, -0.75, 0.75);
      const double sigmoid = 1 / (1 + std::exp(-gate));
      want_weight += double{d_h[i]} * gate * sigmoid * up;
      const double slope = sigmoid * (1 + gate * (1 - sigmoid));
      const double want_g = g[i] > 0.75f ? 0 : 1.25 * double{d_h[i]} * up * slope;
      const double want_u = std::fabs(u[i]) > 0.75f ? 0 : 1.25 * double{d_h[i]} * gate * sigmoid;
      EXPECT_NEAR(double{d_g[i]}, want_g, 2e-6);
      EXPECT_NEAR(double{d_u[i]}, want_u, 2e-6);
    }
    EXPECT_NEAR(double{d_weight}, want_weight, 1e-5 * static_cast<double>(n));
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, RowsTest, testing::ValuesIn(SupportedTargets()),
                         [](const testing::TestParamInfo<Target>& param) {
                           std::string name(TargetName(param.param));
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

}  // namespace
}  // namespace cachalot::kernels
