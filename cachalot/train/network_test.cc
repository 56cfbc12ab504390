// SPDX-License-Identifier: Apache-2.0
// The whole network at a tiny size: finite differences in float64 with all choices frozen, and bits
// that do not depend on threads.
#include "cachalot/train/network.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstring>

#include "cachalot/train/gradient_check.h"

namespace cachalot::train {
namespace {

// Window-only with a hash layer, CSA with more entries than index_topk, HCA (ratio 8 here), MTP.
model::Config TinyConfig() {
  model::Config c;
  c.vocab_size = 13;
  c.hidden_size = 12;
  c.num_hidden_layers = 3;
  c.num_attention_heads = 4;
  c.head_dim = 8;
  c.qk_rope_head_dim = 4;
  c.q_lora_rank = 6;
  c.o_groups = 2;
  c.o_lora_rank = 5;
  c.sliding_window = 5;
  c.compress_ratios = {0, 4, 8, 0};
  c.index_n_heads = 3;
  c.index_head_dim = 6;
  c.index_topk = 2;
  c.n_routed_experts = 5;
  c.num_experts_per_tok = 2;
  c.moe_intermediate_size = 7;
  c.num_hash_layers = 1;
  c.routed_scaling_factor = 1.5f;
  c.swiglu_limit = 0.9f;
  c.hc_mult = 3;
  c.hc_sinkhorn_iters = 5;
  c.num_nextn_predict_layers = 1;
  return c;
}

ParameterSet TinyParameters(const model::Config& config) {
  ParameterSet set = std::move(MakeParameters(config)).value();
  InitializeParameters(config, 5, set);
  // Values of a size at which everything matters: the start of training is nearly linear.
  uint64_t seed = 0;
  for (Parameter& p : set.parameters) {
    ++seed;
    const double center = p.name.ends_with("norm.weight") || p.name.ends_with("_scale") ? 1.0 : 0.0;
    const double scale = center != 0 ? 0.3 : 0.6;
    for (size_t i = 0; i < p.size(); ++i) {
      p.value[i] = static_cast<float>(center + scale * RandomValue(seed, i));
    }
  }
  return set;
}

TrainBatch TinyBatch() {
  std::vector<uint32_t> tokens;
  for (uint32_t i = 0; i < 50; ++i) {
    tokens.push_back(static_cast<uint32_t>(CounterRandom(3, i, 0) % 13));
  }
  TrainBatch batch;
  AppendSample(tokens.data(), 21, batch);
  AppendSample(tokens.data() + 23, 14, batch);
  batch.targets[4] = kNoTarget;
  batch.mtp_targets[9] = kNoTarget;
  return batch;
}

double Total(const LossSums& sums, const LossScales& scales) {
  return scales.ce * sums.ce + scales.mtp * sums.mtp + scales.balance * sums.balance +
         scales.indexer * sums.indexer;
}

class NetworkTest : public testing::Test {
 protected:
  NetworkTest() : config_(TinyConfig()), set_(TinyParameters(config_)), batch_(TinyBatch()) {}

  // Worst relative error over the parameters that `wanted` accepts.
  template <typename Wanted>
  void CheckDifferences(const RunOptions& base, Wanted&& wanted) {
    ParameterSetT<double> set = ToDouble(set_);
    Network<double> network(config_, set, ctx_);
    Selections frozen;
    RunOptions options = base;
    options.record = &frozen;
    network.Run(batch_, options);
    RunOptions probe = base;
    probe.backward = false;
    probe.replay = &frozen;
    const auto loss = [&] { return Total(network.Run(batch_, probe), base.scales); };
    double worst = 0;
    uint64_t seed = 100;
    for (ParameterT<double>& p : set.parameters) {
      if (!wanted(p.name)) continue;
      const std::vector<double> gradient(p.grad.data(), p.grad.data() + p.size());
      const double error = GradientError(p.value.span(), gradient, loss, seed += 10);
      EXPECT_LE(error, 1e-6) << p.name;
      worst = std::max(worst, error);
    }
    RecordProperty("worst", std::to_string(worst));
    std::printf("worst relative error %.2e\n", worst);
  }

  model::Config config_;
  ParameterSet set_;
  TrainBatch batch_;
  ThreadPool pool_{2};
  kernels::Context ctx_{&pool_, kernels::Path::kSimd, kernels::SupportedTargets().front()};
};

bool IsIndexer(const std::string& name) { return name.find(".indexer.") != std::string::npos; }

TEST_F(NetworkTest, GradientsMatchDifferencesWithFrozenChoices) {
  CheckDifferences({.scales = {.ce = 0.03, .mtp = 0.01, .balance = 0.2}},
                   [](const std::string&) { return true; });
}

TEST_F(NetworkTest, DenseStageToo) {
  CheckDifferences({.scales = {.ce = 0.03}, .csa = CsaMode::kDense}, [](const std::string& name) {
    return name.starts_with("layers.1.attn.") || name == "embed.weight";
  });
}

TEST_F(NetworkTest, IndexerLearnsFromItsOwnLossOnly) {
  for (const CsaMode csa : {CsaMode::kDense, CsaMode::kSparse}) {
    const RunOptions options{.scales = {.indexer = 0.1}, .csa = csa, .indexer_loss = true};
    CheckDifferences(options, IsIndexer);
    ParameterSet set = TinyParameters(config_);
    Network<float> network(config_, set, ctx_);
    network.Run(batch_, options);
    for (const Parameter& p : set.parameters) {
      bool zero = true;
      for (const float g : p.grad.span()) zero = zero && g == 0.0f;
      EXPECT_EQ(zero, !IsIndexer(p.name)) << p.name;
    }
  }
}

TEST_F(NetworkTest, BitsDoNotDependOnThreads) {
  const RunOptions options{.scales = {.ce = 0.03, .mtp = 0.01, .balance = 0.2, .indexer = 0.1},
                           .indexer_loss = true};
  ThreadPool one(1);
  ThreadPool four(4);
  ParameterSet other = TinyParameters(config_);
  Network<float> first(config_, set_, {&one, kernels::Path::kSimd, ctx_.target});
  Network<float> second(config_, other, {&four, kernels::Path::kSimd, ctx_.target});
  for (int step = 0; step < 2; ++step) {  // the second reuses every buffer
    const LossSums a = first.Run(batch_, options);
    const LossSums b = second.Run(batch_, options);
    EXPECT_EQ(a.ce, b.ce);
    EXPECT_EQ(a.indexer, b.indexer);
  }
  for (size_t i = 0; i < set_.parameters.size(); ++i) {
    const Parameter& p = set_.parameters[i];
    EXPECT_EQ(std::memcmp(p.grad.data(), other.parameters[i].grad.data(), p.size() * 4), 0)
        << p.name;
  }
}

// Operands of 8 bits of mantissa err by up to 2^-9 each: some 0.3 % a product, 2 % after the sixty
// of this network. At the values of a fresh model and with choices replayed nothing amplifies that;
// the rough values of the other tests do (clamps switch, 9 % found).
TEST_F(NetworkTest, Bf16GradientsStayNearFloat32) {
  Selections frozen;
  RunOptions options{.scales = {.ce = 0.03, .mtp = 0.01}, .record = &frozen};
  ParameterSet rounded = TinyParameters(config_);
  InitializeParameters(config_, 5, set_);
  InitializeParameters(config_, 5, rounded);
  Network<float>(config_, set_, ctx_).Run(batch_, options);
  options.record = nullptr;
  options.replay = &frozen;
  Network<float>(config_, rounded, ctx_, {.precision = Precision::kBf16}).Run(batch_, options);
  double error = 0;
  double norm = 0;
  for (size_t i = 0; i < set_.parameters.size(); ++i) {
    const Parameter& p = set_.parameters[i];
    for (size_t k = 0; k < p.size(); ++k) {
      const double difference = double{p.grad[k]} - double{rounded.parameters[i].grad[k]};
      error += difference * difference;
      norm += double{p.grad[k]} * double{p.grad[k]};
    }
  }
  EXPECT_LE(std::sqrt(error / norm), 0.02);
  std::printf("relative distance %.2e\n", std::sqrt(error / norm));
}

// Packing changes nothing: the gradient of two samples is the sum of those of each alone.
TEST_F(NetworkTest, SamplesAreIndependent) {
  const RunOptions options{.scales = {.ce = 0.03, .mtp = 0.01, .balance = 0.2}};
  ParameterSetT<double> both = ToDouble(set_);
  ParameterSetT<double> parts = ToDouble(set_);
  Network<double>(config_, both, ctx_).Run(batch_, options);
  Network<double> network(config_, parts, ctx_);
  for (size_t s = 0; s < 2; ++s) {
    TrainBatch part;
    const auto begin = static_cast<ptrdiff_t>(batch_.sample_begin[s]);
    const auto end = static_cast<ptrdiff_t>(batch_.sample_begin[s + 1]);
    const auto cut = [&](const std::vector<uint32_t>& all) {
      return std::vector<uint32_t>(all.begin() + begin, all.begin() + end);
    };
    part.sample_begin = {0, static_cast<size_t>(end - begin)};
    part.ids = cut(batch_.ids);
    part.targets = cut(batch_.targets);
    part.mtp_ids = cut(batch_.mtp_ids);
    part.mtp_targets = cut(batch_.mtp_targets);
    network.Run(part, options);
  }
  for (size_t i = 0; i < both.parameters.size(); ++i) {
    const ParameterT<double>& p = both.parameters[i];
    for (size_t k = 0; k < p.size(); ++k) {
      ASSERT_NEAR(p.grad[k], parts.parameters[i].grad[k], 1e-12) << p.name;
    }
  }
}

TEST_F(NetworkTest, ExpertLoadCountsEveryChoice) {
  std::vector<std::vector<uint64_t>> load;
  Network<float> network(config_, set_, ctx_);
  network.Run(batch_, {.backward = false, .expert_load = &load});
  ASSERT_EQ(load.size(), 4u);
  for (const std::vector<uint64_t>& layer : load) {
    uint64_t total = 0;
    for (const uint64_t n : layer) total += n;
    EXPECT_EQ(total, 2 * batch_.num_tokens());
  }
}

}  // namespace
}  // namespace cachalot::train
