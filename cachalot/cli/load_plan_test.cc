// SPDX-License-Identifier: Apache-2.0
#include "cachalot/cli/load_plan.h"

#include <gtest/gtest.h>

#include "cachalot/model/forward.h"

namespace cachalot::cli {
namespace {

LoadPlan Plan(uint64_t weights, uint64_t available, bool must_stay) {
  return {.weight_bytes = weights,
          .kv_bytes = 100,
          .scratch_bytes = 50,
          .available_bytes = available,
          .memory_bytes = 10000,
          .context = 512,
          .sequences = 1,
          .must_stay = must_stay};
}

TEST(LoadPlan, SaysWhatFits) {
  EXPECT_TRUE(Plan(1000, 1150, true).fits());
  EXPECT_NE(Plan(1000, 1150, true).Describe().find("all fits"), std::string::npos);
  EXPECT_FALSE(Plan(1000, 1149, false).fits());
  EXPECT_NE(Plan(1000, 650, false).Describe().find("50 % of the weights fit"), std::string::npos);
  EXPECT_NE(Plan(1000, 100, false).Describe().find("0 % of the weights fit"), std::string::npos);
}

TEST(LoadPlan, OnlyWhatMustStayIsRefused) {
  EXPECT_TRUE(Plan(1000, 650, false).Check().ok());
  EXPECT_TRUE(Plan(1000, 1150, true).Check().ok());
  const Status refused = Plan(1000, 650, true).Check();
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kResourceExhausted);
  EXPECT_NE(refused.error().message.find("--huge-pages"), std::string::npos);
}

TEST(LoadPlan, ShardsAreSummed) {
  const std::string mini = std::string(CACHALOT_SOURCE_DIR) + "/models/mini";
  EXPECT_GT(ShardBytes(mini), 1'000'000u);
  EXPECT_EQ(ShardBytes(mini + "/none"), 0u);
}

TEST(LoadPlan, ScratchIsEstimatedWithinAFifth) {
  const auto weights = model::LoadWeights(std::string(CACHALOT_SOURCE_DIR) + "/models/mini");
  ASSERT_TRUE(weights.ok());
  ThreadPool pool(1);
  for (const uint32_t tokens : {64u, 512u}) {
    const auto forward =
        model::Forward::Create(*weights, {.max_step_tokens = tokens}, {.pool = &pool});
    ASSERT_TRUE(forward.ok());
    const auto taken = static_cast<double>((*forward)->scratch_bytes());
    const auto estimate = static_cast<double>(EstimateScratchBytes((*weights)->config, tokens));
    EXPECT_NEAR(estimate / taken, 1.0, 0.2) << tokens;
  }
}

}  // namespace
}  // namespace cachalot::cli
