// SPDX-License-Identifier: Apache-2.0
#include "cachalot/eval/memory_sweep.h"

#include <gtest/gtest.h>

namespace cachalot::eval {
namespace {

TEST(StreamFigures, TimesAndBytesOfAllSteps) {
  DecodeFigures decode{.batch = 2, .step_s = {1.0, 3.0}};
  decode.experts.layers = {{.wanted = 6, .hits = 3, .wait_seconds = 0.5},
                           {.wanted = 2, .hits = 1, .wait_seconds = 0.5}};
  decode.experts.read_bytes = 800;
  decode.experts.busy_seconds = 2;
  decode.experts.queue_seconds = 20;
  const StreamFigures f = FiguresOf(decode);
  EXPECT_DOUBLE_EQ(f.tokens_per_s, 1.0);
  EXPECT_DOUBLE_EQ(f.hit_rate, 0.5);
  EXPECT_DOUBLE_EQ(f.read_bytes_per_token, 200);
  EXPECT_DOUBLE_EQ(f.read_bytes_per_s, 200);
  EXPECT_DOUBLE_EQ(f.wait_share, 0.25);
  EXPECT_DOUBLE_EQ(f.queue_depth, 10);
  EXPECT_DOUBLE_EQ(f.over_slower, 4.0 / 3.0);  // computing takes 3 s, the disk 2
  decode.experts.busy_seconds = 4;
  EXPECT_DOUBLE_EQ(FiguresOf(decode).over_slower, 1.0);
}

TEST(StreamFigures, NothingStreamed) {
  EXPECT_DOUBLE_EQ(FiguresOf({}).tokens_per_s, 0);
  EXPECT_DOUBLE_EQ(FiguresOf({}).over_slower, 0);
}

}  // namespace
}  // namespace cachalot::eval
