// SPDX-License-Identifier: Apache-2.0
#include "cachalot/cli/stream_plan.h"

#include <gtest/gtest.h>

namespace cachalot::cli {
namespace {

TEST(ParseMemory, TakesUnitsOf1024) {
  EXPECT_EQ(*ParseMemory("24G"), uint64_t{24} << 30);
  EXPECT_EQ(*ParseMemory("1.5GiB"), uint64_t{3} << 29);
  EXPECT_EQ(*ParseMemory("800m"), uint64_t{800} << 20);
  EXPECT_EQ(*ParseMemory("4096"), 4096u);
  for (const char* bad : {"", "G", "-1G", "12Q", "1GX", "0", "nan", "1e99T"}) {
    EXPECT_FALSE(ParseMemory(bad).ok()) << bad;
  }
  EXPECT_EQ(*ParseMemoryList("1K,2K"), (std::vector<uint64_t>{1024, 2048}));
  EXPECT_FALSE(ParseMemoryList("1K,").ok());
}

StreamPlan Plan(uint64_t memory) {
  return {.memory_bytes = memory,
          .sizes = {.dense_bytes = 1000, .small_bytes = 10, .slot_bytes = 100, .num_experts = 40},
          .kv_bytes = 200,
          .scratch_bytes = 50,
          .reserved_bytes = 40,
          .chunk = 64,
          .routed_bytes = 400,
          .dense_bytes = 1000,
          .disk_bytes_per_s = 1000,
          .memory_bytes_per_s = 100000};
}

TEST(StreamPlan, TheRestIsSlots) {
  EXPECT_EQ(Plan(2300).num_slots(), 10u);
  EXPECT_EQ(Plan(1 << 20).num_slots(), 40u);
  // Three quarters of 400 bytes are missed: 0.3 s.
  EXPECT_NEAR(Plan(2300).tokens_per_s(), 1 / 0.3, 1e-9);
  EXPECT_NE(Plan(2300).Describe().find("10 of 40 experts"), std::string::npos);
}

TEST(StreamPlan, ASlowDiskIsNamedWithItsFigures) {
  StreamPlan plan = Plan(2300);
  const std::string slow = plan.Describe();
  EXPECT_NE(slow.find("300 ms of a token against 14 ms of memory"), std::string::npos) << slow;
  plan.disk_bytes_per_s = 1e9;
  EXPECT_EQ(plan.Describe().find("the disk is what limits"), std::string::npos);
  plan.disk_bytes_per_s = 0;  // not measured
  EXPECT_EQ(plan.Describe().find("at best"), std::string::npos);
}

TEST(StreamPlan, TooLittleIsRefusedWithWhatWouldDo) {
  EXPECT_TRUE(Plan(1500).Check().ok());
  const Status refused = Plan(1499).Check();
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kResourceExhausted);
  EXPECT_NE(refused.error().message.find("give at least"), std::string::npos);
  EXPECT_EQ(Plan(100).num_slots(), 0u);
}

}  // namespace
}  // namespace cachalot::cli
