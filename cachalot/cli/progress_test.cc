// SPDX-License-Identifier: Apache-2.0
#include "cachalot/cli/progress.h"

#include <gtest/gtest.h>

#include "cachalot/cli/terminal.h"

namespace cachalot::cli {
namespace {

TEST(FormatProgress, ShowsBarRateAndEstimate) {
  EXPECT_EQ(FormatProgress("reading", 50, 100, 2.0, 80),
            "reading [" + std::string(14, '=') + ">" + std::string(13, ' ') +
                "] 50/100 tokens, 25.0 tokens/s, 2.0 s left");
}

TEST(FormatProgress, FitsAnyWidth) {
  for (int columns = 1; columns < 120; ++columns) {
    const std::string line = FormatProgress("reading the prompt", 123456, 1000000, 77.0, columns);
    EXPECT_LT(line.size(), static_cast<size_t>(columns)) << columns;
  }
}

TEST(FormatProgress, WithoutATotalHasNoBar) {
  EXPECT_EQ(FormatProgress("x", 10, 0, 1.0, 80), "x 10 tokens, 10.0 tokens/s");
}

TEST(FormatProgress, SurvivesMoreDoneThanTotal) {
  EXPECT_NE(FormatProgress("x", 200, 100, 1.0, 80).find("200/100"), std::string::npos);
}

TEST(FormatDuration, ChangesUnitsWhereRoundingWould) {
  EXPECT_EQ(FormatDuration(0.0), "0 ms");
  EXPECT_EQ(FormatDuration(0.9996), "1.0 s");
  EXPECT_EQ(FormatDuration(59.96), "1 min 00 s");
  EXPECT_EQ(FormatDuration(3725), "1 h 02 min");
}

TEST(FormatBytes, UsesPowersOfThousand) {
  EXPECT_EQ(FormatBytes(999), "999 B");
  EXPECT_EQ(FormatBytes(1000), "1.0 kB");
  EXPECT_EQ(FormatBytes(159609485896), "159.6 GB");
}

TEST(SanitizeForTerminal, RemovesControlsAndKeepsText) {
  EXPECT_EQ(SanitizeForTerminal("a\n\tb"), "a\n\tb");
  EXPECT_EQ(SanitizeForTerminal("\x1b[2J"), "\xEF\xBF\xBD[2J");
  EXPECT_EQ(SanitizeForTerminal("\xC2\x9B"
                                "31m"),
            "\xEF\xBF\xBD"
            "31m");
  EXPECT_EQ(SanitizeForTerminal("\xC3\xA9"), "\xC3\xA9");
}

}  // namespace
}  // namespace cachalot::cli
