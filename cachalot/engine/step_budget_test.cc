// SPDX-License-Identifier: Apache-2.0
#include "cachalot/engine/step_budget.h"

#include <gtest/gtest.h>

namespace cachalot::engine {
namespace {

// A machine with other rates than the first guess, and a model that obeys the formula.
double Machine(const model::Weights& weights, uint32_t tokens) {
  const model::TokenCost cost = model::CostPerToken(weights, 0);
  const double expert = static_cast<double>(cost.routed_bytes) / weights.config.num_experts_per_tok;
  const double bytes = static_cast<double>(cost.weight_bytes - cost.routed_bytes) +
                       expert * model::DistinctExperts(weights.config, tokens);
  return bytes / 3e9 + tokens * static_cast<double>(cost.flops) / 20e9;
}

class StepBudgetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto loaded = model::LoadWeights(CACHALOT_SOURCE_DIR "/models/mini");
    ASSERT_TRUE(loaded.ok()) << loaded.error().message;
    weights_ = *loaded;
  }
  std::shared_ptr<const model::Weights> weights_;
};

TEST_F(StepBudgetTest, LearnsTheMachineFromStepsOfBothKinds) {
  StepBudget budget(*weights_, 2.5);
  for (int i = 0; i < 200; ++i) {
    const uint32_t tokens = i % 3 == 0 ? 512 : 1 + static_cast<uint32_t>(i) % 8;
    budget.Measured(tokens, Machine(*weights_, tokens));
  }
  for (const uint32_t tokens : {1u, 16u, 512u}) {
    const double real = Machine(*weights_, tokens);
    EXPECT_NEAR(budget.Predict(tokens), real, 0.3 * real) << tokens;
  }
}

TEST_F(StepBudgetTest, PromptsFillTheSlackAndNoMore) {
  const StepBudget budget(*weights_, 2.5);
  const uint32_t tokens = budget.PromptTokens(2, 4096);
  ASSERT_GT(tokens, 4u);
  ASSERT_LT(tokens, 4096u);
  EXPECT_LE(budget.Predict(2 + tokens), 2.5 * budget.Predict(2));
  EXPECT_GT(budget.Predict(2 + tokens + 1), 2.5 * budget.Predict(2));
}

TEST_F(StepBudgetTest, WhatStepsLeftIsThereForALaterOne) {
  const StepBudget budget(*weights_, 2.5);
  const uint32_t tokens = budget.PromptTokens(2, 4096, 4);
  EXPECT_LE(budget.Predict(2 + tokens), 7.0 * budget.Predict(2));
  EXPECT_GT(budget.Predict(2 + tokens + 1), 7.0 * budget.Predict(2));
  // No fewer than each of them would have taken.
  EXPECT_EQ(StepBudget(*weights_, 1.0 + 1e-9).PromptTokens(3, 512, 4), 16u);
}

TEST_F(StepBudgetTest, NobodyToHoldUpMeansAllAndNothingMeansAFew) {
  EXPECT_EQ(StepBudget(*weights_, 2.5).PromptTokens(0, 512), 512u);
  const StepBudget tight(*weights_, 1.0 + 1e-9);
  EXPECT_EQ(tight.PromptTokens(3, 512), 4u);
  EXPECT_EQ(tight.PromptTokens(3, 2), 2u);
}

TEST(DistinctExpertsTest, OneTokenHasItsOwnAndManyMeetAll) {
  model::Config config;
  config.n_routed_experts = 256;
  config.num_experts_per_tok = 6;
  EXPECT_NEAR(model::DistinctExperts(config, 1), 6.0, 1e-9);
  EXPECT_NEAR(model::DistinctExperts(config, 8), 44.2, 0.1);
  EXPECT_NEAR(model::DistinctExperts(config, 100000), 256.0, 1e-6);
}

}  // namespace
}  // namespace cachalot::engine
