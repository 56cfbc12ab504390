// SPDX-License-Identifier: Apache-2.0
#include "cachalot/engine/logprobs.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

namespace cachalot::engine {
namespace {

TEST(Logprobs, AreTheLogarithmsOfTheSoftmax) {
  const std::vector<float> logits = {0.0f, std::log(2.0f), std::log(5.0f)};
  const TokenLogprobs logprobs = LogprobsOf(logits, 1, 3);
  // Rounded once to float32 from a float64 sum: half a unit in the last place of log(1/4).
  EXPECT_NEAR(logprobs.chosen, std::log(2.0 / 8.0), 1.2e-7);
  double sum = 0.0;
  for (const auto& [id, logprob] : logprobs.top) sum += std::exp(double{logprob});
  EXPECT_NEAR(sum, 1.0, 1e-6);
}

TEST(Logprobs, TheBestComeFirstAndTiesGoToTheLowerId) {
  const std::vector<float> logits = {1.0f, 3.0f, 2.0f, 3.0f, 2.0f};
  const TokenLogprobs logprobs = LogprobsOf(logits, 0, 3);
  ASSERT_EQ(logprobs.top.size(), 3u);
  EXPECT_EQ(logprobs.top[0].first, 1u);
  EXPECT_EQ(logprobs.top[1].first, 3u);
  EXPECT_EQ(logprobs.top[2].first, 2u);
  EXPECT_EQ(logprobs.top[0].second, logprobs.top[1].second);
}

TEST(Logprobs, NoMoreThanThereAreAndNoneUnasked) {
  const std::vector<float> logits = {1.0f, 2.0f};
  EXPECT_EQ(LogprobsOf(logits, 0, 20).top.size(), 2u);
  EXPECT_TRUE(LogprobsOf(logits, 0, 0).top.empty());
}

TEST(Logprobs, KeepTheirDigitsWhateverTheSizeOfTheLogits) {
  const std::vector<float> logits = {3e38f, 3e38f, 0.0f};
  EXPECT_NEAR(LogprobsOf(logits, 0, 0).chosen, -std::log(2.0), 1e-7);
  EXPECT_EQ(LogprobsOf(logits, 2, 0).chosen, -3e38f);
}

}  // namespace
}  // namespace cachalot::engine
