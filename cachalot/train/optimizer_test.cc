// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "cachalot/base/rng.h"
#include "cachalot/base/strings.h"
#include "cachalot/checkpoint/checkpoint.h"
#include "cachalot/train/newton_schulz.h"

namespace cachalot::train {
namespace {

using kernels::Context;
using kernels::Target;

float Random(uint64_t seed, uint64_t i) {
  // Sum of uniforms: near enough to a normal variable.
  double sum = 0;
  for (uint64_t k = 0; k < 6; ++k) sum += UniformOpen(CounterRandom(seed, i, k)) - 0.5;
  return static_cast<float>(sum);
}

// Ratios 4 and 128, two groups: every kind of tensor.
model::Config TestConfig() {
  model::Config c;
  c.hidden_size = 24;
  c.head_dim = 16;
  c.index_head_dim = 8;
  c.o_groups = 2;
  c.hc_mult = 4;
  return c;
}

Parameter MakeParameter(std::string name, size_t rows, size_t cols, uint64_t seed) {
  Parameter p{std::move(name), rows, cols, AlignedBuffer<float>(rows * cols),
              AlignedBuffer<float>(rows * cols)};
  for (size_t i = 0; i < p.size(); ++i) {
    p.value[i] = Random(seed, i);
    p.grad[i] = 0.01f * Random(seed + 1, i);
  }
  return p;
}

ParameterSet TestSet() {
  ParameterSet set;
  set.parameters.push_back(MakeParameter("embed.weight", 40, 24, 1));
  set.parameters.push_back(MakeParameter("layers.0.attn_norm.weight", 1, 24, 3));
  set.parameters.push_back(MakeParameter("layers.0.attn.wq_a.weight", 12, 24, 5));
  set.parameters.push_back(MakeParameter("layers.0.attn.wq_b.weight", 64, 12, 7));
  set.parameters.push_back(MakeParameter("layers.0.attn.wo_a.weight", 16, 32, 9));
  set.parameters.push_back(MakeParameter("layers.0.hc_attn_fn", 24, 96, 11));
  set.parameters.push_back(MakeParameter("layers.0.ffn.gate.bias", 1, 8, 13));
  for (uint64_t e = 0; e < 6; ++e) {
    set.parameters.push_back(
        MakeParameter(StrCat("layers.0.ffn.experts.", e, ".w1.weight"), 20, 24, 15 + 2 * e));
  }
  return set;
}

TEST(OptimizerRules, FollowTheReport) {
  const model::Config c = TestConfig();
  const auto kind = [&](std::string_view name, size_t rows, size_t cols) {
    return RuleFor(c, name, rows, cols).kind;
  };
  for (const char* name : {"embed.weight", "head.weight"}) {
    EXPECT_EQ(kind(name, 40, 24), OptimizerKind::kAdamW);
    EXPECT_TRUE(RuleFor(c, name, 40, 24).decay);
  }
  for (const char* name :
       {"norm.weight", "layers.0.attn_norm.weight", "layers.0.attn.q_norm.weight",
        "layers.0.attn.compressor.norm.weight", "layers.0.hc_attn_base", "layers.0.hc_ffn_scale",
        "hc_head_base", "layers.0.attn.attn_sink", "mtp.0.enorm.weight"}) {
    EXPECT_EQ(kind(name, 1, 24), OptimizerKind::kAdamW) << name;
    EXPECT_FALSE(RuleFor(c, name, 1, 24).decay) << name;
  }
  EXPECT_EQ(kind("layers.0.attn.compressor.ape", 4, 32), OptimizerKind::kAdamW);
  EXPECT_FALSE(RuleFor(c, "layers.0.attn.compressor.ape", 4, 32).decay);
  EXPECT_EQ(kind("layers.0.ffn.gate.bias", 1, 8), OptimizerKind::kNone);
  for (const char* name :
       {"layers.0.attn.wq_a.weight", "layers.0.ffn.gate.weight", "mtp.0.e_proj.weight",
        "layers.0.ffn.experts.3.w2.weight", "layers.0.ffn.shared_experts.w1.weight",
        "layers.0.attn.indexer.weights_proj.weight"}) {
    EXPECT_EQ(kind(name, 8, 24), OptimizerKind::kMuon) << name;
    EXPECT_EQ(RuleFor(c, name, 8, 24).blocks, std::vector<size_t>{8}) << name;
  }
}

TEST(OptimizerRules, StackedMatricesAreCut) {
  const model::Config c = TestConfig();
  using Blocks = std::vector<size_t>;
  EXPECT_EQ(RuleFor(c, "layers.0.attn.wo_a.weight", 16, 32).blocks, (Blocks{8, 8}));
  EXPECT_EQ(RuleFor(c, "layers.1.attn.compressor.wkv.weight", 32, 24).blocks, (Blocks{16, 16}));
  EXPECT_EQ(RuleFor(c, "layers.2.attn.compressor.wgate.weight", 16, 24).blocks, Blocks{16});
  EXPECT_EQ(RuleFor(c, "layers.1.attn.indexer.compressor.wkv.weight", 16, 24).blocks,
            (Blocks{8, 8}));
  EXPECT_EQ(RuleFor(c, "layers.0.hc_ffn_fn", 24, 96).blocks, (Blocks{4, 4, 16}));
  EXPECT_EQ(RuleFor(c, "hc_head_fn", 4, 96).blocks, Blocks{4});
}

class NewtonSchulzTest : public testing::TestWithParam<Target> {
 protected:
  static void Run(MatView<float> x) {
    AlignedBuffer<float> scratch(NewtonSchulzScratchFloats(x.rows, x.cols));
    NewtonSchulzSerial(x, scratch.data(), GetParam());
  }
};

// |X X^T - I| in its largest element.
double Deviation(MatView<const float> x) {
  double worst = 0;
  for (size_t i = 0; i < x.rows; ++i) {
    for (size_t j = 0; j < x.rows; ++j) {
      double dot = i == j ? -1.0 : 0.0;
      for (size_t k = 0; k < x.cols; ++k) dot += double{x.Row(i)[k]} * double{x.Row(j)[k]};
      worst = std::max(worst, std::fabs(dot));
    }
  }
  return worst;
}

// The float64 results of an independent implementation. A rounding error of 2^-24 |X| along the
// singular vector of a small value grows with that value, to 1. The smallest of the three inputs is
// 3.1e-5 of the norm (muon.0, 64 x 64; the others 1.2e-2 and 4.8e-4), and one such direction is
// 1 / sqrt(64) of the whole: 2^-24 / 3.1e-5 / 8 = 2.4e-4. Seen: 9e-7.
TEST_P(NewtonSchulzTest, MatchesGolden) {
  const auto opened =
      checkpoint::Checkpoint::Open(StrCat(CACHALOT_SOURCE_DIR, "/tests/golden/muon"));
  ASSERT_TRUE(opened.ok()) << opened.error().message;
  for (int k = 0; k < 3; ++k) {
    const checkpoint::TensorInfo* in = (*opened)->Find(StrCat("muon.", k, ".in"));
    const checkpoint::TensorInfo* out = (*opened)->Find(StrCat("muon.", k, ".out"));
    ASSERT_TRUE(in != nullptr && out != nullptr);
    const size_t rows = in->shape[0], cols = in->shape[1];
    std::vector<float> x(rows * cols), want(rows * cols);
    std::memcpy(x.data(), in->data, in->bytes);
    std::memcpy(want.data(), out->data, out->bytes);
    const bool tall = rows > cols;
    std::vector<float> wide = x;
    const size_t n = std::min(rows, cols), m = std::max(rows, cols);
    for (size_t r = 0; tall && r < rows; ++r) {
      for (size_t c = 0; c < cols; ++c) wide[c * rows + r] = x[r * cols + c];
    }
    Run({wide.data(), n, m});
    double error = 0, norm = 0;
    for (size_t r = 0; r < rows; ++r) {
      for (size_t c = 0; c < cols; ++c) {
        const double got = tall ? wide[c * rows + r] : wide[r * cols + c];
        error += std::pow(got - want[r * cols + c], 2);
        norm += std::pow(double{want[r * cols + c]}, 2);
      }
    }
    RecordProperty(StrCat("relative_error_", k), StrCat(std::sqrt(error / norm)));
    EXPECT_LE(std::sqrt(error / norm), 2.4e-4) << k;
  }
}

// Singular values end where the .sv vectors say: within 1 % of 1 for a random matrix whose values
// do not start below 1e-3 of the norm. |X X^T - I| bounds sv^2 - 1.
TEST_P(NewtonSchulzTest, ResultIsSemiOrthogonal) {
  for (const auto& [n, m] : {std::pair<size_t, size_t>{1, 1}, {1, 9}, {20, 64}, {48, 160}}) {
    std::vector<float> x(n * m);
    for (size_t i = 0; i < x.size(); ++i) x[i] = 1e-12f * Random(5, i);  // size does not matter
    Run({x.data(), n, m});
    EXPECT_LE(Deviation({x.data(), n, m}), 0.02) << n << " x " << m;
  }
}

TEST_P(NewtonSchulzTest, ZeroStaysZero) {
  std::vector<float> x(6 * 8, 0.0f);
  Run({x.data(), 6, 8});
  for (const float v : x) EXPECT_EQ(v, 0.0f);
}

std::string Name(const testing::TestParamInfo<Target>& info) {
  std::string name(kernels::TargetName(info.param));
  std::erase(name, '-');
  return name;
}
INSTANTIATE_TEST_SUITE_P(Targets, NewtonSchulzTest, testing::ValuesIn(kernels::SupportedTargets()),
                         Name);

Context BestContext(ThreadPool& pool) {
  return {&pool, kernels::Path::kSimd, kernels::SupportedTargets().front()};
}

TEST(Optimizer, SameBitsOnAnyNumberOfThreads) {
  std::vector<ParameterSet> sets;
  for (const size_t threads : {1u, 2u, 5u}) {
    ThreadPool pool(threads);
    ParameterSet set = TestSet();
    Optimizer optimizer(TestConfig(), set, {});
    for (int step = 0; step < 3; ++step) optimizer.Step(set, 0.01f, {}, BestContext(pool));
    sets.push_back(std::move(set));
  }
  for (size_t s = 1; s < sets.size(); ++s) {
    for (size_t i = 0; i < sets[0].parameters.size(); ++i) {
      const Parameter& want = sets[0].parameters[i];
      EXPECT_EQ(std::memcmp(want.value.data(), sets[s].parameters[i].value.data(),
                            want.value.span().size_bytes()),
                0)
          << want.name;
    }
  }
}

TEST(Optimizer, MuonUpdateHasTheWantedSizePerBlock) {
  ThreadPool pool(2);
  ParameterSet set = TestSet();
  const ParameterSet before = TestSet();
  Optimizer optimizer(TestConfig(), set, {.weight_decay = 0.0f});
  optimizer.Step(set, 0.5f, {}, BestContext(pool));
  for (size_t i = 0; i < set.parameters.size(); ++i) {
    if (optimizer.rules()[i].kind != OptimizerKind::kMuon) continue;
    size_t row = 0;
    for (const size_t rows : optimizer.rules()[i].blocks) {
      const size_t cols = set.parameters[i].cols;
      double sum = 0;
      for (size_t k = row * cols; k < (row + rows) * cols; ++k) {
        sum += std::pow(double{set.parameters[i].value[k]} - before.parameters[i].value[k], 2);
      }
      // lr * 0.18, if every singular value is 1; they are within 1 %.
      EXPECT_NEAR(std::sqrt(sum / static_cast<double>(rows * cols)), 0.5 * 0.18, 0.09 * 0.02)
          << set.parameters[i].name << " row " << row;
      row += rows;
    }
  }
}

TEST(Optimizer, MomentumAndDecayAreAlgorithmOne) {
  ThreadPool pool(1);
  ParameterSet set;
  set.parameters.push_back(MakeParameter("layers.0.attn.wq_a.weight", 6, 10, 1));
  Optimizer optimizer(TestConfig(), set, {});
  std::vector<float> momentum(60), value(60);
  for (size_t i = 0; i < 60; ++i) value[i] = set.parameters[0].value[i];
  AlignedBuffer<float> scratch(NewtonSchulzScratchFloats(6, 10));
  for (uint64_t step = 0; step < 3; ++step) {
    std::vector<float> x(60);
    for (size_t i = 0; i < 60; ++i) {
      const float g = Random(100 + step, i);
      set.parameters[0].grad[i] = g;
      momentum[i] = 0.95f * momentum[i] + g;
      x[i] = 0.95f * momentum[i] + g;
    }
    NewtonSchulzSerial({x.data(), 6, 10}, scratch.data(), BestContext(pool).target);
    for (size_t i = 0; i < 60; ++i) {
      value[i] = value[i] * (1.0f - 0.02f * 0.1f) - 0.02f * 0.18f * std::sqrt(10.0f) * x[i];
    }
    optimizer.Step(set, 0.02f, {}, BestContext(pool));
    for (size_t i = 0; i < 60; ++i) {
      EXPECT_NEAR(set.parameters[0].value[i], value[i], 1e-6) << step << " " << i;
    }
  }
}

// Two steps of AdamW in double.
TEST(Optimizer, AdamWMatchesDoubleArithmetic) {
  ThreadPool pool(2);
  ParameterSet set;
  set.parameters.push_back(MakeParameter("head.weight", 5, 7, 1));
  set.parameters.push_back(MakeParameter("norm.weight", 1, 7, 3));
  Optimizer optimizer(TestConfig(), set, {});
  std::vector<std::vector<double>> value(2), m(2), v(2);
  for (size_t p = 0; p < 2; ++p) {
    value[p].assign(set.parameters[p].value.span().begin(), set.parameters[p].value.span().end());
    m[p].resize(value[p].size());
    v[p].resize(value[p].size());
  }
  for (int step = 1; step <= 2; ++step) {
    for (size_t p = 0; p < 2; ++p) {
      const double keep = p == 0 ? 1 - 0.01 * 0.1 : 1.0;  // norms do not decay
      for (size_t i = 0; i < value[p].size(); ++i) {
        const double g = set.parameters[p].grad[i];
        m[p][i] = 0.9 * m[p][i] + 0.1 * g;
        v[p][i] = 0.95 * v[p][i] + 0.05 * g * g;
        const double mean = m[p][i] / (1 - std::pow(0.9, step));
        const double square = v[p][i] / (1 - std::pow(0.95, step));
        value[p][i] = value[p][i] * keep - 0.01 * mean / (std::sqrt(square) + 1e-20);
      }
    }
    optimizer.Step(set, 0.01f, {}, BestContext(pool));
  }
  // A dozen roundings of values of order one.
  for (size_t p = 0; p < 2; ++p) {
    for (size_t i = 0; i < value[p].size(); ++i) {
      EXPECT_NEAR(set.parameters[p].value[i], value[p][i], 2e-6) << p << " " << i;
    }
  }
}

TEST(Optimizer, FrozenParametersKeepEverything) {
  ThreadPool pool(1);
  ParameterSet set = TestSet();
  const ParameterSet before = TestSet();
  Optimizer optimizer(TestConfig(), set, {});
  std::vector<uint8_t> frozen(set.parameters.size(), 1);
  frozen[2] = 0;
  optimizer.Step(set, 0.01f, frozen, BestContext(pool));
  for (size_t i = 0; i < set.parameters.size(); ++i) {
    const bool same = std::memcmp(set.parameters[i].value.data(), before.parameters[i].value.data(),
                                  set.parameters[i].value.span().size_bytes()) == 0;
    EXPECT_EQ(same, i != 2) << set.parameters[i].name;
    EXPECT_EQ(optimizer.state()[i].steps, i == 2 ? 1u : 0u);
  }
}

TEST(Gradients, NormScaleAndFirstNonFinite) {
  ThreadPool pool(2);
  ParameterSet set = TestSet();
  double sum = 0;
  for (const Parameter& p : set.parameters) {
    for (const float g : p.grad.span()) sum += double{g} * g;
  }
  const auto norm = [&] { return NormOf(GradientSquares(set, BestContext(pool))); };
  EXPECT_NEAR(norm(), std::sqrt(sum), 1e-12 * std::sqrt(sum));
  ScaleGradients(set, 0.5f, BestContext(pool));
  EXPECT_NEAR(norm(), 0.5 * std::sqrt(sum), 1e-12 * std::sqrt(sum));
  EXPECT_FALSE(FirstNonFinite(set, BestContext(pool)).has_value());
  set.parameters[4].grad[17] = std::numeric_limits<float>::infinity();
  const auto gradient = FirstNonFinite(set, BestContext(pool));
  ASSERT_TRUE(gradient.has_value());
  EXPECT_EQ(gradient->parameter, 4u);
  EXPECT_TRUE(gradient->gradient);
  set.parameters[3].value[2] = std::numeric_limits<float>::quiet_NaN();
  const auto value = FirstNonFinite(set, BestContext(pool));
  ASSERT_TRUE(value.has_value());
  EXPECT_EQ(value->parameter, 3u);
  EXPECT_FALSE(value->gradient);
}

// Two ranks, each with every other parameter: what each holds moves as if it held all, and their
// slices of the norm add up to the same bits.
TEST(Optimizer, StepsWhatItHoldsAsIfItHeldAll) {
  ThreadPool pool(2);
  const Context ctx = BestContext(pool);
  ParameterSet whole = TestSet();
  Optimizer all(TestConfig(), whole, {});
  const std::vector<double> squares = GradientSquares(whole, ctx);
  all.Step(whole, 0.1f, {}, ctx);
  std::vector<double> sum(squares.size());
  for (size_t rank = 0; rank < 2; ++rank) {
    ParameterSet part = TestSet();
    for (size_t i = 0; i < part.parameters.size(); ++i) {
      if (i % 2 != rank) part.parameters[i].value = {};
    }
    Optimizer optimizer(TestConfig(), part, {});
    const std::vector<double> mine = GradientSquares(part, ctx);
    for (size_t k = 0; k < sum.size(); ++k) sum[k] += mine[k];
    optimizer.Step(part, 0.1f, {}, ctx);
    for (size_t i = 0; i < part.parameters.size(); ++i) {
      EXPECT_EQ(optimizer.state()[i].steps, all.state()[i].steps);
      if (i % 2 != rank) {
        EXPECT_EQ(optimizer.state()[i].first.size(), 0u);
        continue;
      }
      EXPECT_EQ(std::memcmp(part.parameters[i].value.data(), whole.parameters[i].value.data(),
                            whole.parameters[i].value.span().size_bytes()),
                0)
          << whole.parameters[i].name;
    }
  }
  EXPECT_EQ(sum, squares);
}

}  // namespace
}  // namespace cachalot::train
