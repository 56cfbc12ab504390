// SPDX-License-Identifier: Apache-2.0
#include "cachalot/cli/expert_stats.h"

#include <gtest/gtest.h>

namespace cachalot::cli {
namespace {

TEST(FormatExpertStats, NamesHitsReadsQueueAndWaiting) {
  model::ExpertStats stats;
  stats.layers = {{.wanted = 10, .hits = 5, .wait_seconds = 0.25},
                  {.wanted = 10, .hits = 10, .wait_seconds = 0.5},
                  {}};
  stats.read_bytes = 40'000'000;
  stats.busy_seconds = 2;
  stats.queue_seconds = 64;
  EXPECT_EQ(FormatExpertStats(stats, 4, 3.0),
            "experts 75.0 % in memory (by layer 50 100 0 %), 10.0 MB read a token, 32.0 reads in "
            "flight, 0.75 of 3.00 s waiting");
}

TEST(FormatExpertStats, NothingHappened) {
  const std::string text = FormatExpertStats({}, 0, 0);
  EXPECT_NE(text.find("experts 0.0 % in memory"), std::string::npos) << text;
}

}  // namespace
}  // namespace cachalot::cli
