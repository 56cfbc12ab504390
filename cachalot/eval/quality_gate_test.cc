// SPDX-License-Identifier: Apache-2.0
// The bounds themselves are held by `cachalot eval --gate`, which ctest runs (quality_gate).
#include "cachalot/eval/quality_gate.h"

#include <gtest/gtest.h>

#include <limits>

namespace cachalot::eval {
namespace {

TEST(QualityGate, ABoundHoldsUpToItselfAndNeverForNaN) {
  EXPECT_TRUE((GateCheck{.value = 1, .bound = 1}.ok()));
  EXPECT_FALSE((GateCheck{.value = 1.0001, .bound = 1}.ok()));
  EXPECT_FALSE((GateCheck{.value = std::numeric_limits<double>::quiet_NaN(), .bound = 1}.ok()));
}

TEST(QualityGate, ARunAgainstItselfIsAtDistanceZero) {
  auto weights = model::LoadWeights(std::string(CACHALOT_SOURCE_DIR) + "/tests/golden/tiny-flash");
  ASSERT_TRUE(weights.ok()) << weights.error().message;
  const std::vector<std::vector<uint32_t>> sequences = {{1, 2, 3, 4, 5, 6, 7}, {9}};
  const RunnerOptions fast{.numerics = model::Numerics::kFast, .num_threads = 1};
  const auto same = CompareNumerics(*weights, sequences, fast, fast);
  ASSERT_TRUE(same.ok()) << same.error().message;
  EXPECT_EQ(same->num_positions, 8u);
  EXPECT_EQ(same->max_abs_error, 0.0);
  EXPECT_NEAR(same->max_kl, 0.0, 1e-12);
  for (const GateCheck& check : KlChecks("tiny", *same, kTinyBounds)) EXPECT_TRUE(check.ok());
}

}  // namespace
}  // namespace cachalot::eval
