// SPDX-License-Identifier: Apache-2.0
#include "cachalot/model/step_profile.h"

#include <gtest/gtest.h>

#include <set>
#include <string_view>

namespace cachalot::model {
namespace {

TEST(StepProfile, EveryOperationHasItsOwnName) {
  std::set<std::string_view> names;
  for (size_t i = 0; i < kNumStepOps; ++i) {
    const std::string_view name = StepOpName(static_cast<StepOp>(i));
    EXPECT_FALSE(name.empty());
    EXPECT_TRUE(names.insert(name).second) << name;
  }
}

TEST(StepProfile, LapsSumUpByOperationAndKind) {
  StepProfile profile;
  profile.Start();
  profile.Lap(StepOp::kNorm);
  profile.Lap(StepOp::kQueryUp);
  profile.Lap(StepOp::kNorm);
  profile.Lap(StepOp::kAttention);
  EXPECT_GT(profile.seconds(StepOp::kNorm), 0.0);
  EXPECT_EQ(profile.seconds(StepOp::kHead), 0.0);
  EXPECT_EQ(profile.seconds(StepOpKind::kRest), profile.seconds(StepOp::kNorm));
  const double kinds = profile.seconds(StepOpKind::kProduct) +
                       profile.seconds(StepOpKind::kAttention) + profile.seconds(StepOpKind::kRest);
  EXPECT_NEAR(kinds, profile.total_seconds(), 1e-12);
  StepProfile twice = profile;
  twice.Add(profile);
  EXPECT_DOUBLE_EQ(twice.seconds(StepOp::kNorm), 2 * profile.seconds(StepOp::kNorm));
  profile.Clear();
  EXPECT_EQ(profile.total_seconds(), 0.0);
}

TEST(StepProfile, NobodyMeasuresThroughNull) { Lap(nullptr, StepOp::kNorm); }

}  // namespace
}  // namespace cachalot::model
