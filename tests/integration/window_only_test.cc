// SPDX-License-Identifier: Apache-2.0
// ForwardOptions::window_only: what lies beyond the windows of all layers reaches nothing, while
// through the compressed entries it does. `cachalot eval mini` relies on it.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/integration/model_harness.h"

namespace cachalot::testing {
namespace {

std::vector<float> LastLogits(std::shared_ptr<const model::Weights> weights, const Ids& ids,
                              bool window_only) {
  const size_t vocab = weights->config.vocab_size;
  const RunOptions options{.chunk = 100, .window_only = window_only};
  const auto all = RunIds(std::move(weights), ids, options).logits;
  return {all.end() - static_cast<ptrdiff_t>(vocab), all.end()};
}

TEST(WindowOnly, OnlyCompressedEntriesReachBeyondTheWindows) {
  const auto weights = LoadOrFail(std::string(CACHALOT_SOURCE_DIR) + "/models/mini");
  ASSERT_NE(weights, nullptr);
  const model::Config& c = weights->config;
  // A layer sees sliding_window - 1 tokens back; the first 128 tokens, one block of HCA and many of
  // CSA, are further back than all layers together.
  constexpr uint32_t kFar = 128;
  const uint32_t reach = c.num_hidden_layers * (c.sliding_window - 1);
  Ids ids = MakeIds(kFar + reach + 1, c.vocab_size, 1);
  const auto window = LastLogits(weights, ids, true);
  const auto whole = LastLogits(weights, ids, false);
  std::ranges::copy(MakeIds(kFar, c.vocab_size, 2), ids.begin());
  EXPECT_EQ(LastLogits(weights, ids, true), window);
  EXPECT_NE(LastLogits(weights, ids, false), whole);
}

// Nothing is compressed before the first block is full.
TEST(WindowOnly, ChangesNothingBeforeTheFirstBlockIsFull) {
  const auto weights = LoadOrFail(std::string(CACHALOT_SOURCE_DIR) + "/models/mini");
  ASSERT_NE(weights, nullptr);
  const Ids ids = MakeIds(8, weights->config.vocab_size, 3);
  const size_t vocab = weights->config.vocab_size;
  const auto whole = RunIds(weights, ids, {}).logits;
  const auto window = RunIds(weights, ids, {.window_only = true}).logits;
  EXPECT_TRUE(
      std::equal(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(3 * vocab), window.begin()));
  EXPECT_NE(whole, window);
}

}  // namespace
}  // namespace cachalot::testing
