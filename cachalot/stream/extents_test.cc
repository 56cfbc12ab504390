// SPDX-License-Identifier: Apache-2.0
#include "cachalot/stream/extents.h"

#include <gtest/gtest.h>

#include "cachalot/base/rng.h"

namespace cachalot::stream {
namespace {

TEST(PlanReads, NeighborsBecomeOneRun) {
  const std::vector<FileRange> ranges = {{0, 9000, 9100}, {0, 100, 5000}, {0, 5000, 9000}};
  const ReadLayout layout = PlanReads(ranges);
  ASSERT_EQ(layout.runs.size(), 1u);
  EXPECT_EQ(layout.runs[0].begin, 0u);
  EXPECT_EQ(layout.runs[0].end, 9100u);
  EXPECT_EQ(layout.bytes, 12288u);
  EXPECT_EQ(layout.places, (std::vector<uint64_t>{9000, 100, 5000}));
}

TEST(PlanReads, PagesInBetweenAreNotRead) {
  const std::vector<FileRange> ranges = {{0, 100, 200}, {0, 8192, 8193}, {1, 8193, 8194}};
  const ReadLayout layout = PlanReads(ranges);
  ASSERT_EQ(layout.runs.size(), 3u);
  EXPECT_EQ(layout.bytes, 3 * 4096u);
  EXPECT_EQ(layout.places, (std::vector<uint64_t>{100, 4096, 8193}));
}

TEST(PlanReads, EveryRangeLiesInItsRun) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    std::vector<FileRange> ranges;
    for (uint64_t i = 0; i < 1 + seed % 7; ++i) {
      const uint64_t begin = CounterRandom(seed, 1, i) % 60000;
      ranges.push_back({static_cast<uint32_t>(CounterRandom(seed, 2, i) % 2), begin,
                        begin + 1 + CounterRandom(seed, 3, i) % 9000});
    }
    const ReadLayout layout = PlanReads(ranges);
    for (size_t i = 0; i < ranges.size(); ++i) {
      bool found = false;
      for (const auto& run : layout.runs) {
        if (run.file != ranges[i].file || ranges[i].begin < run.begin) continue;
        if (ranges[i].end > run.end) continue;
        found |= layout.places[i] == run.at + ranges[i].begin - run.begin;
      }
      EXPECT_TRUE(found) << "seed " << seed << " range " << i;
    }
    for (size_t i = 1; i < layout.runs.size(); ++i) {
      EXPECT_GE(layout.runs[i].at, layout.runs[i - 1].at + layout.runs[i - 1].bytes());
    }
  }
}

TEST(PlanReads, NothingIsNothing) { EXPECT_EQ(PlanReads({}).bytes, 0u); }

}  // namespace
}  // namespace cachalot::stream
