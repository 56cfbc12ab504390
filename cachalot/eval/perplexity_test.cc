// SPDX-License-Identifier: Apache-2.0
#include "cachalot/eval/perplexity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace cachalot::eval {
namespace {

TEST(NumWindows, DropsAnIncompleteLastWindow) {
  EXPECT_EQ(NumWindows(0, 4), 0u);
  EXPECT_EQ(NumWindows(4, 4), 0u);
  EXPECT_EQ(NumWindows(5, 4), 1u);
  EXPECT_EQ(NumWindows(8, 4), 1u);
  EXPECT_EQ(NumWindows(9, 4), 2u);
}

TEST(NegativeLogLikelihood, OfEqualLogitsIsTheLogOfTheVocabulary) {
  const std::vector<float> logits(8, 3.0f);
  // exp(0) sums exactly; one rounding of log and two of additions around 3.
  EXPECT_NEAR(NegativeLogLikelihood(logits, 5), std::log(8.0),
              8 * std::numeric_limits<double>::epsilon());
}

TEST(NegativeLogLikelihood, DoesNotOverflow) {
  EXPECT_EQ(NegativeLogLikelihood(std::vector<float>{3e38f, -3e38f}, 0), 0.0);
}

TEST(NegativeLogLikelihood, NanLooksInfinitelyBad) {
  const std::vector<float> logits = {0.0f, std::numeric_limits<float>::quiet_NaN()};
  EXPECT_EQ(NegativeLogLikelihood(logits, 0), std::numeric_limits<double>::infinity());
}

}  // namespace
}  // namespace cachalot::eval
