// SPDX-License-Identifier: Apache-2.0
#include "cachalot/threading/topology.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace cachalot {
namespace {

// A control group hierarchy in a temporary folder.
class CgroupTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    root_ = std::filesystem::path(::testing::TempDir()) / (std::string("cgroup_") + info->name());
    std::filesystem::remove_all(root_);
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void SetMax(const std::string& group, const std::string& text) {
    std::filesystem::create_directories(root_ / group);
    std::ofstream(root_ / group / "cpu.max") << text;
  }
  uint32_t Limit(std::string_view self) const { return CgroupCpuLimit(self, root_.string()); }

  std::filesystem::path root_;
};

TEST_F(CgroupTest, SmallestQuotaUpTheTreeCounts) {
  SetMax("a/b", "max 100000\n");
  SetMax("a", "300000 100000\n");
  EXPECT_EQ(Limit("0::/a/b\n"), 3u);
  SetMax("a/b", "150000 100000\n");
  EXPECT_EQ(Limit("1:cpu:/x\n0::/a/b\n"), 2u) << "one and a half CPUs";
}

TEST_F(CgroupTest, PathOutsideTheNamespaceFallsBackToTheRoot) {
  SetMax("", "50000 100000\n");
  EXPECT_EQ(Limit("0::/docker/0123\n"), 1u);
  EXPECT_EQ(Limit("0::/\n"), 1u);
}

TEST_F(CgroupTest, NothingReadableIsNoLimit) {
  EXPECT_EQ(Limit("0::/a\n"), 0u);
  EXPECT_EQ(Limit(""), 0u);
  EXPECT_EQ(Limit("0::a"), 0u);
  for (const char* text : {"", "max", "max 100000", "1", "0 100000", "5 0", "x y"}) {
    SetMax("a", text);
    EXPECT_EQ(Limit("0::/a\n"), 0u) << text;
  }
}

TEST(TopologyTest, ThereIsAtLeastOneCore) { EXPECT_GE(NumPhysicalCores(), 1u); }

}  // namespace
}  // namespace cachalot
