// SPDX-License-Identifier: Apache-2.0
#include "cachalot/eval/compare_logits.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace cachalot::eval {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

TEST(KlDivergence, IsZeroForLogitsThatDifferByAConstant) {
  const std::vector<float> a = {1.0f, -2.0f, 0.5f};
  const std::vector<float> b = {11.0f, 8.0f, 10.5f};
  // Each term cancels to about eps * |logit|; three terms of at most 11.
  EXPECT_NEAR(KlDivergence(a, b), 0.0, 3 * 11 * std::numeric_limits<double>::epsilon());
}

TEST(KlDivergence, AgreesWithTheDefinition) {
  // p = (2/3, 1/3), q = (1/3, 2/3): sum p log(p / q) = log(2) / 3.
  const std::vector<float> p = {std::log(2.0f), 0.0f};
  const std::vector<float> q = {0.0f, std::log(2.0f)};
  // The float32 logarithm of 2 is off by up to eps32 / 2; the divergence's slope is below 1.
  EXPECT_NEAR(KlDivergence(p, q), std::log(2.0) / 3, std::numeric_limits<float>::epsilon());
}

TEST(KlDivergence, MaskedLogitsCountNothing) {
  const std::vector<float> a = {0.0f, -kInf};
  EXPECT_EQ(KlDivergence(a, a), 0.0);
}

TEST(KlDivergence, NanIsInfinitelyFar) {
  const std::vector<float> good = {0.0f, 1.0f};
  const std::vector<float> bad = {0.0f, kNan};
  EXPECT_EQ(KlDivergence(good, bad), std::numeric_limits<double>::infinity());
  EXPECT_EQ(KlDivergence(bad, good), std::numeric_limits<double>::infinity());
}

TEST(Argmax, TiesGoToTheLowerIndexAndNanNeverWins) {
  EXPECT_EQ(Argmax(std::vector<float>{1.0f, 3.0f, 3.0f}), 1u);
  EXPECT_EQ(Argmax(std::vector<float>{kNan, -1.0f, kNan}), 1u);
}

TEST(LogitComparer, SumsUpOverAllPromptsAdded) {
  std::vector<float> want = {0.0f, 1.0f, 2.0f, 0.0f};
  std::vector<float> got = {0.0f, 1.0f, 0.0f, 2.0f};
  LogitComparer comparer(0.5);
  comparer.Add(MatView<float>(want.data(), 1, 2), MatView<float>(got.data(), 1, 2));
  comparer.Add(MatView<float>(want.data() + 2, 1, 2), MatView<float>(got.data() + 2, 1, 2));
  const LogitComparison summary = comparer.Summary();
  EXPECT_EQ(summary.num_positions, 2u);
  EXPECT_EQ(summary.argmax_agreement, 0.5);
  EXPECT_EQ(summary.within_tolerance, 0.5);
  EXPECT_EQ(summary.max_abs_error, 2.0);
  EXPECT_EQ(summary.mean_kl, summary.max_kl / 2);
  EXPECT_EQ(summary.median_kl, summary.mean_kl);
}

TEST(LogitComparer, IsAllZeroBeforeTheFirstPosition) {
  EXPECT_EQ(LogitComparer().Summary().num_positions, 0u);
}

}  // namespace
}  // namespace cachalot::eval
