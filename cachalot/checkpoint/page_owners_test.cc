// SPDX-License-Identifier: Apache-2.0
#include "cachalot/checkpoint/page_owners.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <vector>

#include "cachalot/threading/topology.h"

namespace cachalot::checkpoint {
namespace {

constexpr uint64_t kPage = 100;

TensorInfo Matrix(const uint8_t* data, uint64_t rows, uint64_t row_bytes) {
  return {.name = "w",
          .dtype = DType::kF8E4M3,
          .shape = {rows, row_bytes},
          .data = data,
          .bytes = rows * row_bytes};
}

TEST(PageOwnersTest, RowsGoToTheNodesOfTheirWorkers) {
  const std::vector<uint8_t> shard(1000);
  const std::vector<TensorInfo> tensors = {Matrix(shard.data(), 40, 10),         // pages 0 to 3
                                           Matrix(shard.data() + 400, 60, 10)};  // 4 to 9
  EXPECT_EQ(PageOwners(shard.data(), shard.size(), kPage, tensors, NodeParts({0, 1, 2})),
            (std::vector<uint32_t>{0, 0, 1, 1, 0, 0, 0, 1, 1, 1}));
  EXPECT_EQ(PageOwners(shard.data(), shard.size(), kPage, tensors, NodeParts({0, 3, 4})),
            (std::vector<uint32_t>{0, 0, 0, 1, 0, 0, 0, 0, 0, 1}))
      << "45 of 60 rows end in the middle of page 8: the first has it";
  EXPECT_EQ(PageOwners(shard.data(), shard.size(), kPage, tensors, NodeParts({0, 2})),
            std::vector<uint32_t>(10, 0));
}

TEST(PageOwnersTest, APageIsTheNodesWithMostOfIt) {
  const std::vector<uint8_t> shard(250);
  const std::vector<TensorInfo> tensors = {Matrix(shard.data() + 70, 2, 90)};  // 70..160, 160..250
  EXPECT_EQ(PageOwners(shard.data(), shard.size(), kPage, tensors, NodeParts({0, 1, 2})),
            (std::vector<uint32_t>{0, 0, 1}));
}

TEST(PageOwnersTest, VectorsAndOtherShardsDoNotCount) {
  const std::vector<uint8_t> shard(300);
  const std::vector<uint8_t> other(300);
  std::vector<TensorInfo> tensors = {Matrix(other.data(), 3, 100), Matrix(shard.data(), 3, 100)};
  tensors[1].shape = {300};
  EXPECT_EQ(PageOwners(shard.data(), shard.size(), kPage, tensors, NodeParts({0, 1, 2})),
            std::vector<uint32_t>(3, 0));
}

// The whole way on a machine of two nodes that this one is not: the bytes are the file's.
TEST(PageOwnersTest, CopiesOfTwoNodesHaveTheSameBytes) {
  const std::string dir = ::testing::TempDir() + "page_owners";
  std::filesystem::create_directories(dir);
  std::vector<uint8_t> bytes(size_t{9} << 20);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 2654435761u >> 24);
  ASSERT_TRUE(
      WriteSafetensors(dir + "/model.safetensors", {Matrix(bytes.data(), 9, 1 << 20)}).ok());
  const Placement placement = PlaceWorkers(PhysicalCores("numa:2 core:1 pu:1"), 2, Pinning::kAuto);
  uint64_t done = 0;
  const auto opened = Checkpoint::Open(dir, {.memory = io::FileMemory::kHugePages,
                                             .progress =
                                                 [&](uint64_t more) {
                                                   done += more;
                                                   return true;
                                                 },
                                             .placement = placement});
  ASSERT_TRUE(opened.ok()) << opened.error().message;
  const TensorInfo* tensor = (*opened)->Find("w");
  ASSERT_NE(tensor, nullptr);
  EXPECT_EQ(std::memcmp(tensor->data, bytes.data(), bytes.size()), 0);
  EXPECT_EQ(done, std::filesystem::file_size(dir + "/model.safetensors"));

  const auto stopped = Checkpoint::Open(dir, {.memory = io::FileMemory::kHugePages,
                                              .progress = [](uint64_t) { return false; },
                                              .placement = placement});
  ASSERT_FALSE(stopped.ok());
  EXPECT_EQ(stopped.error().code, ErrorCode::kCancelled);
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace cachalot::checkpoint
