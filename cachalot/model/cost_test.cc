// SPDX-License-Identifier: Apache-2.0
#include "cachalot/model/cost.h"

#include <gtest/gtest.h>

namespace cachalot::model {
namespace {

// Views without bytes: only shapes count.
WeightView View(WeightKind kind, uint32_t rows, uint32_t cols) {
  return {.kind = kind, .rows = rows, .cols = cols};
}

// One window layer, 8 experts of which 2 are chosen.
Weights SmallWeights() {
  Weights w;
  w.config.n_routed_experts = 8;
  w.config.num_experts_per_tok = 2;
  w.config.num_hidden_layers = 1;
  w.config.head_dim = 128;
  w.config.qk_rope_head_dim = 64;
  w.config.num_attention_heads = 2;
  w.config.sliding_window = 16;
  w.config.compress_ratios = {0};
  w.head = View(WeightKind::kBF16, 100, 64);
  LayerWeights layer;
  layer.attn.wq_a = View(WeightKind::kFP8, 128, 128);
  layer.ffn.experts.resize(8);
  for (ExpertWeights& e : layer.ffn.experts) e.w1 = View(WeightKind::kFP4, 32, 64);
  w.layers.push_back(layer);
  return w;
}

TEST(StepCost, OneSequenceIsOneToken) {
  const Weights w = SmallWeights();
  const TokenCost token = CostPerToken(w, 10);
  const StepCost step = DecodeStepCost(w, 10, 1, /*distinct_experts=*/2);
  EXPECT_EQ(step.weight_bytes, token.weight_bytes);
  EXPECT_EQ(step.kv_bytes, token.kv_bytes);
  EXPECT_EQ(step.flops, token.flops);
  EXPECT_EQ(step.fp4_weights, 2u * 32 * 64);
  EXPECT_EQ(step.fp8_weights, 128u * 128);
}

TEST(StepCost, ABatchSharesWeightsButNotKvAndFlops) {
  const Weights w = SmallWeights();
  const StepCost one = DecodeStepCost(w, 10, 1, 2);
  const StepCost four = DecodeStepCost(w, 10, 4, 6);
  const TokenCost token = CostPerToken(w, 10);
  EXPECT_EQ(four.weight_bytes, one.weight_bytes + 2 * token.routed_bytes);  // 6 experts, not 2
  EXPECT_EQ(four.kv_bytes, 4 * one.kv_bytes);
  EXPECT_EQ(four.flops, 4 * one.flops);
  EXPECT_EQ(four.fp4_weights, 3 * one.fp4_weights);
  EXPECT_EQ(four.fp8_weights, one.fp8_weights);
}

TEST(StepCost, APromptReadsWeightsOnceAChunkAndMakesOneRowOfLogits) {
  const Weights w = SmallWeights();
  const uint64_t head = 2u * 100 * 64;
  const StepCost one = DecodeStepCost(w, 1000, 1, 8);
  const StepCost prompt = PrefillCost(w, 900, 1000, 64, 8);
  EXPECT_EQ(prompt.weight_bytes, 2 * one.weight_bytes);
  // Past the window every token of this layer costs the same.
  EXPECT_EQ(prompt.flops, 100 * (one.flops - head) + head);
  EXPECT_EQ(prompt.kv_bytes, 2 * one.kv_bytes);
  EXPECT_EQ(PrefillCost(w, 5, 5, 64, 8).flops, 0u);
}

TEST(StepCost, EarlyTokensSeeLess) {
  const Weights w = SmallWeights();
  EXPECT_LT(PrefillCost(w, 0, 16, 64, 8).flops, PrefillCost(w, 100, 116, 64, 8).flops);
}

}  // namespace
}  // namespace cachalot::model
