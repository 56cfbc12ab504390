// SPDX-License-Identifier: Apache-2.0
#include "cachalot/eval/bench_limits.h"

#include <gtest/gtest.h>

namespace cachalot::eval {
namespace {

constexpr kernels::MachineLimits kMachine = {
    .read_bytes_per_s = 100, .f32_flop_per_s = 10, .bf16_flop_per_s = 20, .int8_op_per_s = 40};

TEST(BenchLimits, TheSlowerOfReadingAndComputingLimits) {
  const StepLimit reads =
      LimitOf({.weight_bytes = 300, .kv_bytes = 100, .flops = 20}, kMachine, {});
  EXPECT_DOUBLE_EQ(reads.read_s, 4.0);
  EXPECT_DOUBLE_EQ(reads.compute_s, 1.0);
  EXPECT_DOUBLE_EQ(reads.seconds(), 4.0);
  const StepLimit computes = LimitOf({.weight_bytes = 100, .flops = 200}, kMachine, {});
  EXPECT_DOUBLE_EQ(computes.seconds(), 10.0);
}

TEST(BenchLimits, WideningIsAddedToTheMultiplicationsOnly) {
  const model::StepCost cost{
      .weight_bytes = 300, .flops = 20, .fp4_weights = 30, .fp8_weights = 40};
  const StepLimit limit = LimitOf(cost, kMachine, {.fp4_per_s = 10, .fp8_per_s = 20});
  EXPECT_DOUBLE_EQ(limit.widening_s, 5.0);
  EXPECT_DOUBLE_EQ(limit.seconds(), 3.0);
  EXPECT_DOUBLE_EQ(limit.seconds_with_widening(), 6.0);
}

TEST(BenchLimits, WithoutBf16DotsFloat32IsThePeakAndUnknownRatesCostNothing) {
  const StepLimit limit = LimitOf({.weight_bytes = 10, .flops = 20, .fp4_weights = 5},
                                  {.read_bytes_per_s = 0, .f32_flop_per_s = 10}, {});
  EXPECT_DOUBLE_EQ(limit.compute_s, 2.0);
  EXPECT_DOUBLE_EQ(limit.read_s, 0.0);
  EXPECT_DOUBLE_EQ(limit.widening_s, 0.0);
}

}  // namespace
}  // namespace cachalot::eval
