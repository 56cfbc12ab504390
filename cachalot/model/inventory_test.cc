// SPDX-License-Identifier: Apache-2.0
#include "cachalot/model/inventory.h"

#include <gtest/gtest.h>

namespace cachalot::model {
namespace {

Config Published(const char* name) {
  auto config = PublishedConfig(name);
  EXPECT_TRUE(config.ok());
  return *config;
}

TEST(InventoryTest, ReproducesThePublishedTotals) {
  struct Row {
    const char* name;
    uint64_t tensors, bytes;
  };
  for (const Row& row :
       {Row{"flash", 69187, 159609485896}, Row{"pro", 145116, 864704792696},
        Row{"flash-0731", 72317, 166878536440}, Row{"pro-0813", 149782, 892727580904}}) {
    const Totals totals = ComputeTotals(Published(row.name));
    EXPECT_EQ(totals.tensors, row.tensors) << row.name;
    EXPECT_EQ(totals.bytes, row.bytes) << row.name;
  }
}

TEST(InventoryTest, ReproducesThePublishedParameters) {
  const Totals flash = ComputeTotals(Published("flash"));
  EXPECT_EQ(flash.parameters, 284332240471u);
  EXPECT_EQ(flash.parameters_with_draft, 284332240471u + 6610048891u);
  EXPECT_EQ(flash.activated, 13270101591u);
  const std::map<std::string, uint64_t> census = {
      {"BF16", 433}, {"F32", 417}, {"F8_E4M3", 375}, {"F8_E8M0", 34167}, {"I8", 33792}, {"I64", 3}};
  EXPECT_EQ(flash.tensors_by_dtype, census);
  const Totals pro = ComputeTotals(Published("pro"));
  EXPECT_EQ(pro.parameters, 1572997201763u);
  EXPECT_EQ(pro.parameters_with_draft, 1572997201763u + 25840145979u);
  EXPECT_EQ(pro.activated, 48852402019u);
}

TEST(InventoryTest, CacheCostsWhatTheNativeFormatSays) {
  const auto flash = Published("flash").kv_spec(KvFormat::kNative, false);
  const auto pro = Published("pro").kv_spec(KvFormat::kNative, false);
  EXPECT_EQ(flash.block_bytes(), 449824u);
  EXPECT_EQ(static_cast<double>(flash.block_bytes()) / kvcache::kBlockTokens, 3514.25);
  EXPECT_NEAR(static_cast<double>(pro.block_bytes()) / kvcache::kBlockTokens, 5031.44, 0.005);
}

TEST(InventoryTest, ConfigJsonRoundTrips) {
  for (const char* name : {"flash", "pro", "flash-base", "flash-0731", "pro-0813"}) {
    const std::string json = ConfigToJson(Published(name));
    const auto parsed = ParseConfig(json, name);
    ASSERT_TRUE(parsed.ok()) << parsed.error().message;
    EXPECT_EQ(ConfigToJson(*parsed), json);
    EXPECT_EQ(ComputeTotals(*parsed).bytes, ComputeTotals(Published(name)).bytes);
  }
}

}  // namespace
}  // namespace cachalot::model
