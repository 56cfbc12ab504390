// SPDX-License-Identifier: Apache-2.0
// The small ops: norm, rope, mHC, router, SwiGLU and pooling against float64, on every target.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "cachalot/kernels/attention_test_util.h"
#include "cachalot/kernels/compressor.h"
#include "cachalot/kernels/hyper_connection.h"
#include "cachalot/kernels/rms_norm.h"
#include "cachalot/kernels/rope.h"
#include "cachalot/kernels/router.h"
#include "cachalot/kernels/swiglu.h"

namespace cachalot::kernels {
namespace {

constexpr double kEps = 0x1p-24;  // of one rounding

class OpsTest : public testing::TestWithParam<Target> {
 protected:
  ThreadPool pool_{2};
  Context Ctx(Path path = Path::kSimd) { return {&pool_, path, GetParam()}; }
};

double Sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

TEST_P(OpsTest, RmsNormIsNearExact) {
  for (size_t d : {1u, 3u, 16u, 17u, 512u, 4096u}) {
    const std::vector<float> x = TestVector(3 * d, 1);
    const std::vector<float> weight = TestVector(d, 2);
    for (bool weighted : {false, true}) {
      std::vector<float> out(x.size());
      RmsNorm({x.data(), 3, d},
              weighted ? std::span<const float>(weight) : std::span<const float>{}, 1e-6f,
              {out.data(), 3, d}, Ctx());
      for (size_t r = 0; r < 3; ++r) {
        double sum = 0;
        for (size_t i = 0; i < d; ++i) sum += double{x[r * d + i]} * double{x[r * d + i]};
        const double scale = 1.0 / std::sqrt(sum / static_cast<double>(d) + double{1e-6f});
        for (size_t i = 0; i < d; ++i) {
          const double want = double{x[r * d + i]} * scale * (weighted ? double{weight[i]} : 1.0);
          // Half the roundings of the sum (square root), and those of six operations.
          const double bound = (static_cast<double>(d) / 32 + 12) * kEps * std::fabs(want);
          ASSERT_LE(std::fabs(double{out[r * d + i]} - want), bound) << d;
        }
      }
    }
  }
}

TEST_P(OpsTest, RopeTurnsPairsAndBack) {
  const YarnParams yarn{.factor = 16.0f};
  const std::vector<float> f = RopeFrequencies(160000.0f, 64, &yarn);
  ASSERT_EQ(f.size(), 32u);
  // [model.md 1.5]
  EXPECT_FLOAT_EQ(f[0], 1.0f);
  EXPECT_FLOAT_EQ(f[16], 0.002265625f);
  EXPECT_NEAR(f[20], 2.96978e-4f, 1e-9f);
  EXPECT_FLOAT_EQ(f[24], 1.953125e-5f);
  EXPECT_NEAR(f[31], 5.68053e-7f, 1e-12f);

  const std::vector<uint32_t> positions = {0, 7, 1000003};
  std::vector<float> cos(3 * 32), sin(3 * 32);
  RopeAngles(f, positions, {cos.data(), 3, 32}, {sin.data(), 3, 32});
  for (size_t i = 0; i < 32; ++i) {
    const float angle = 1000003.0f * f[i];
    EXPECT_EQ(cos[64 + i], static_cast<float>(std::cos(double{angle})));
    EXPECT_EQ(sin[64 + i], static_cast<float>(std::sin(double{angle})));
  }
  const std::vector<float> x = TestVector(3 * 2 * 70, 4);
  std::vector<float> y = x;
  ApplyRope({y.data(), 6, 70}, 2, {cos.data(), 3, 32}, {sin.data(), 3, 32}, false, Ctx());
  for (size_t row = 0; row < 6; ++row) {
    for (size_t i = 0; i < 6; ++i) EXPECT_EQ(y[row * 70 + i], x[row * 70 + i]);
    for (size_t i = 0; i < 32; ++i) {
      const double c = double{cos[row / 2 * 32 + i]};
      const double s = double{sin[row / 2 * 32 + i]};
      const double a = double{x[row * 70 + 6 + 2 * i]};
      const double b = double{x[row * 70 + 7 + 2 * i]};
      EXPECT_NEAR(y[row * 70 + 6 + 2 * i], a * c - b * s, 3 * kEps * 2);
      EXPECT_NEAR(y[row * 70 + 7 + 2 * i], a * s + b * c, 3 * kEps * 2);
    }
  }
  ApplyRope({y.data(), 6, 70}, 2, {cos.data(), 3, 32}, {sin.data(), 3, 32}, true, Ctx());
  for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(y[i], x[i], 16 * kEps);
}

TEST_P(OpsTest, SwiGluIsNearExact) {
  for (Path path : {Path::kReference, Path::kSimd}) {
    for (size_t n : {1u, 3u, 15u, 16u, 17u, 33u, 200u}) {
      std::vector<float> g = TestVector(2 * n, 5);
      std::vector<float> u = TestVector(2 * n, 6);
      for (float& v : g) v *= 30.0f;
      for (float& v : u) v *= 30.0f;
      g[0] = -200.0f;
      const std::vector<float> weights = {0.25f, 3.0f};
      std::vector<float> h = g;  // h may be g
      SwiGlu({h.data(), 2, n}, {u.data(), 2, n}, 10.0f, weights, {h.data(), 2, n}, Ctx(path));
      for (size_t i = 0; i < 2 * n; ++i) {
        const double gate = std::min(double{g[i]}, 10.0);
        const double up = std::clamp(double{u[i]}, -10.0, 10.0);
        const double want = double{weights[i / n]} * gate * Sigmoid(gate) * up;
        // exp at 4 ulp, five operations; below -88 the result is 0 to 1e-33.
        ASSERT_LE(std::fabs(double{h[i]} - want), 16 * kEps * std::fabs(want) + 1e-33)
            << TargetName(GetParam()) << " n " << n << " i " << i << " g " << g[i];
      }
    }
  }
}

TEST_P(OpsTest, SwiGluKeepsNotANumber) {
  std::vector<float> g = {NAN, 1.0f, INFINITY, -INFINITY};
  std::vector<float> u = {1.0f, NAN, 1.0f, 1.0f};
  std::vector<float> h(4);
  SwiGlu({g.data(), 1, 4}, {u.data(), 1, 4}, 10.0f, {}, {h.data(), 1, 4}, Ctx());
  EXPECT_TRUE(std::isnan(h[0]));
  EXPECT_TRUE(std::isnan(h[1]));
  EXPECT_NEAR(h[2], 10.0 * Sigmoid(10.0), 1e-5);
}

// The definition in float64. [model.md 3.3]
std::vector<double> ExactSinkhorn(std::vector<double> c, size_t m, uint32_t iters, double eps) {
  const auto normalize = [&](size_t outer, size_t inner, double add) {
    for (size_t a = 0; a < m; ++a) {
      double sum = add;
      for (size_t b = 0; b < m; ++b) sum += c[a * outer + b * inner];
      for (size_t b = 0; b < m; ++b) c[a * outer + b * inner] /= sum;
    }
  };
  for (double& v : c) v = std::exp(v);
  normalize(m, 1, 0.0);
  for (double& v : c) v += eps;
  normalize(1, m, eps);
  for (uint32_t i = 1; i < iters; ++i) {
    normalize(m, 1, eps);
    normalize(1, m, eps);
  }
  return c;
}

TEST_P(OpsTest, HyperConnectionMapsAreNearExact) {
  for (size_t m : {1u, 2u, 4u}) {
    const size_t width = 37;
    const size_t maps = (2 + m) * m;
    const std::vector<float> streams = TestVector(2 * m * width, 1);
    const std::vector<float> fn_u = TestVector(2 * maps, 2);
    const std::vector<float> base = TestVector(maps, 3);
    const std::vector<float> scale = {0.7f, 1.3f, 2.0f};
    const HcParams params{.base = base, .scale = scale};
    std::vector<float> y(2 * width), post(2 * m), comb(2 * m * m);
    HcPre({streams.data(), 2, m * width}, {fn_u.data(), 2, maps}, params, {y.data(), 2, width},
          {post.data(), 2, m}, {comb.data(), 2, m * m}, Ctx());
    for (size_t t = 0; t < 2; ++t) {
      double squares = 0;
      const float* x = streams.data() + t * m * width;
      for (size_t i = 0; i < m * width; ++i) squares += double{x[i]} * double{x[i]};
      const double rs = 1.0 / std::sqrt(squares / static_cast<double>(m * width) + 1e-6);
      const auto mix = [&](size_t i, size_t s) {
        return double{fn_u[t * maps + i]} * rs * double{scale[s]} + double{base[i]};
      };
      // rs carries about 20 roundings, mix is under 6, and neither sigmoid nor Sinkhorn (whose
      // steps are non-expanding) enlarges an error; 40 normalizations round about 6 times each.
      const double bound = 6 * 40 * kEps + 40 * 6 * kEps;
      std::vector<double> c(m * m);
      for (size_t i = 0; i < m * m; ++i) c[i] = mix(2 * m + i, 2);
      c = ExactSinkhorn(c, m, params.sinkhorn_iters, 1e-6);
      for (size_t i = 0; i < m * m; ++i) EXPECT_NEAR(comb[t * m * m + i], c[i], bound);
      for (size_t k = 0; k < m; ++k) {
        EXPECT_NEAR(post[t * m + k], 2 * Sigmoid(mix(m + k, 1)), bound);
      }
      for (size_t i = 0; i < width; ++i) {
        double want = 0;
        for (size_t k = 0; k < m; ++k) {
          want += (Sigmoid(mix(k, 0)) + 1e-6) * double{x[k * width + i]};
        }
        EXPECT_NEAR(y[t * width + i], want, bound * static_cast<double>(m));
      }
    }
  }
}

TEST_P(OpsTest, HcPostHasTheBitsOfTheReference) {
  for (size_t m : {1u, 3u, 4u}) {
    for (size_t width : {1u, 15u, 16u, 17u, 2048u, 2051u}) {
      const std::vector<float> z = TestVector(2 * width, 1);
      const std::vector<float> post = TestVector(2 * m, 2);
      const std::vector<float> comb = TestVector(2 * m * m, 3);
      const std::vector<float> x = TestVector(2 * m * width, 4);
      std::vector<float> got = x;
      std::vector<float> reference = x;
      HcPost({z.data(), 2, width}, {post.data(), 2, m}, {comb.data(), 2, m * m},
             {got.data(), 2, m * width}, Ctx());
      HcPost({z.data(), 2, width}, {post.data(), 2, m}, {comb.data(), 2, m * m},
             {reference.data(), 2, m * width}, Ctx(Path::kReference));
      EXPECT_EQ(got, reference);
      for (size_t k = 0; k < m; ++k) {  // last column of the last token, C transposed
        double want = double{post[m + k]} * double{z[2 * width - 1]};
        for (size_t j = 0; j < m; ++j) {
          want += double{comb[m * m + j * m + k]} * double{x[(m + j + 1) * width - 1]};
        }
        EXPECT_NEAR(got[(m + k + 1) * width - 1], want, 16 * kEps);
      }
    }
  }
}

TEST_P(OpsTest, RouterTakesTheLargestAndBreaksTiesLow) {
  const std::vector<float> z = {1.0f, 2.0f, 2.0f, -1.0f, 30.0f, 2.0f};
  const std::vector<float> bias = {0.0f, 0.0f, 0.0f, 100.0f, -100.0f, 0.0f};
  std::vector<uint32_t> ids(3);
  std::vector<float> weights(3);
  RouterArgs args{
      .z = {z.data(), 1, 6}, .bias = bias, .num_experts_per_tok = 3, .routed_scaling_factor = 1.5f};
  Route(args, {ids.data(), 1, 3}, {weights.data(), 1, 3}, Ctx());
  EXPECT_EQ(ids, (std::vector<uint32_t>{1, 2, 3}));
  const auto score = [](double v) { return std::sqrt(std::log1p(std::exp(v))); };
  const double sum = 2 * score(2.0) + score(-1.0);
  EXPECT_NEAR(weights[0], 1.5 * score(2.0) / sum, 16 * kEps);
  EXPECT_NEAR(weights[2], 1.5 * score(-1.0) / sum, 16 * kEps);

  const std::vector<uint32_t> fixed = {4, 0, 3};
  args.fixed = fixed;
  Route(args, {ids.data(), 1, 3}, {weights.data(), 1, 3}, Ctx());
  EXPECT_EQ(ids, (std::vector<uint32_t>{0, 3, 4}));
  EXPECT_NEAR(std::accumulate(weights.begin(), weights.end(), 0.0f), 1.5f, 16 * kEps);
}

TEST_P(OpsTest, RouterGivesValidIdsForNotANumber) {
  const std::vector<float> z(5, NAN);
  const std::vector<float> bias(5, 0.0f);
  std::vector<uint32_t> ids(2, 99);
  std::vector<float> weights(2);
  Route({.z = {z.data(), 1, 5}, .bias = bias, .num_experts_per_tok = 2}, {ids.data(), 1, 2},
        {weights.data(), 1, 2}, Ctx());
  EXPECT_EQ(ids, (std::vector<uint32_t>{0, 1}));
}

TEST_P(OpsTest, PoolingIsASoftmaxPerChannel) {
  constexpr size_t kHead = 5;
  for (bool overlap : {false, true}) {
    const uint32_t r = overlap ? 4 : 128;
    const size_t width = overlap ? 2 * kHead : kHead;
    const uint32_t capacity = 2 * r + 16;
    const std::vector<float> k = TestVector(capacity * width, 1);
    const std::vector<float> gate = TestVector(capacity * width, 2);
    for (uint32_t j : {0u, 1u, 7u}) {
      std::vector<float> y(kHead);
      PoolBlock({k.data(), gate.data(), capacity, static_cast<uint32_t>(width)}, j, r, overlap, y,
                Ctx());
      for (size_t i = 0; i < kHead; ++i) {
        double sum = 0;
        double weighted = 0;
        const uint32_t first = overlap && j > 0 ? r * (j - 1) : r * j;
        for (uint32_t p = first; p < r * (j + 1); ++p) {
          const size_t channel = overlap && p >= r * j ? kHead + i : i;
          const size_t at = p % capacity * width + channel;
          sum += std::exp(double{gate[at]});
          weighted += std::exp(double{gate[at]}) * double{k[at]};
        }
        EXPECT_NEAR(y[i], weighted / sum, 2 * (2 * r + 8) * kEps);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, OpsTest, testing::ValuesIn(SupportedTargets()),
                         [](const auto& target) {
                           std::string name(TargetName(target.param));
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace cachalot::kernels
