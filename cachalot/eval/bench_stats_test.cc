// SPDX-License-Identifier: Apache-2.0
#include "cachalot/eval/bench_stats.h"

#include <gtest/gtest.h>

namespace cachalot::eval {
namespace {

TEST(BenchStats, QuantilesAreValuesThatWereSeen) {
  const std::vector<double> values = {5, 1, 4, 2, 3};
  EXPECT_EQ(Quantile(values, 0.0), 1);
  EXPECT_EQ(Quantile(values, 0.5), 3);
  EXPECT_EQ(Quantile(values, 1.0), 5);
  EXPECT_EQ(Quantile({7}, 0.95), 7);
  EXPECT_EQ(Quantile({}, 0.5), 0);
}

TEST(BenchStats, MeanOfAll) {
  EXPECT_DOUBLE_EQ(Mean({1, 2, 6}), 3.0);
  EXPECT_EQ(Mean({}), 0.0);
}

TEST(BenchStats, SpreadIsTheInterquartileRangeOverTheMedian) {
  EXPECT_DOUBLE_EQ(Spread({10, 10, 10}), 0.0);
  EXPECT_DOUBLE_EQ(Spread({8, 9, 10, 11, 12}), 0.2);
  EXPECT_DOUBLE_EQ(Spread({8, 9, 10, 11, 1000}), 0.2);  // an outlier is not the noise
  EXPECT_EQ(Spread({3}), 0.0);
  EXPECT_EQ(Spread({0, 0, 0}), 0.0);
}

TEST(BenchStats, TokenCountsInPowersOf1024) {
  EXPECT_EQ(*ParseTokens("512"), 512u);
  EXPECT_EQ(*ParseTokens("32k"), 32768u);
  EXPECT_EQ(*ParseTokens("1M"), 1048576u);
  for (const char* bad : {"", "k", "0", "-1", "1.5k", "12 k", "3g", "4096M", "9999999999999999999",
                          "99999999999999999999999", "1kk"}) {
    const auto parsed = ParseTokens(bad);
    ASSERT_FALSE(parsed.ok()) << bad;
    EXPECT_EQ(parsed.error().code, ErrorCode::kInvalidArgument);
  }
}

TEST(BenchStats, ListsAreSortedWithoutRepeats) {
  EXPECT_EQ(*ParseTokenList("8k,512,8192,2k"), (std::vector<uint32_t>{512, 2048, 8192}));
  EXPECT_EQ(*ParseTokenList("1"), std::vector<uint32_t>{1});
  EXPECT_FALSE(ParseTokenList("1,,2").ok());
  EXPECT_FALSE(ParseTokenList("1,").ok());
  EXPECT_FALSE(ParseTokenList("").ok());
}

TEST(BenchStats, FormattingIsParsedBack) {
  for (const uint32_t tokens : {1u, 512u, 1000u, 1024u, 1048560u, 1048576u, 1u << 30}) {
    EXPECT_EQ(*ParseTokens(FormatTokens(tokens)), tokens);
  }
  EXPECT_EQ(FormatTokens(1048576), "1M");
  EXPECT_EQ(FormatTokens(8192), "8k");
}

}  // namespace
}  // namespace cachalot::eval
