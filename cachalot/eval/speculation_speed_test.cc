// SPDX-License-Identifier: Apache-2.0
#include "cachalot/eval/speculation_speed.h"

#include <gtest/gtest.h>

namespace cachalot::eval {
namespace {

TEST(SpeculationSpeed, FormulaAndGainFollowFromTheParts) {
  const SpeculationFigures f{.acceptance = 0.5,
                             .verify_s = 0.010,
                             .draft_s = 0.002,
                             .tokens_per_s = 120,
                             .plain_tokens_per_s = 100};
  EXPECT_DOUBLE_EQ(f.formula_tokens_per_s(), 125);
  EXPECT_DOUBLE_EQ(f.of_formula(), 0.96);
  EXPECT_DOUBLE_EQ(f.gain(), 1.2);
}

TEST(SpeculationSpeed, NothingMeasuredIsZeroNotNan) {
  EXPECT_EQ(SpeculationFigures().of_formula(), 0);
  EXPECT_EQ(SpeculationFigures().gain(), 0);
}

}  // namespace
}  // namespace cachalot::eval
