// SPDX-License-Identifier: Apache-2.0
// Guesses as the cache treats them; that no bit depends on any of it is streaming_test's.
#include "cachalot/stream/expert_cache.h"

#include <gtest/gtest.h>

#include <string>

#include "cachalot/base/temp_dir.h"
#include "cachalot/io/mapped_file.h"

namespace cachalot::stream {
namespace {

constexpr uint64_t kPage = io::kDirectAlignment;
constexpr uint32_t kLayers = 2, kExperts = 8, kSlots = 8;

class ExpertCacheTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(io::WriteFileAtomic(dir_ / "a", std::string(kLayers * kExperts * kPage, 'x')).ok());
    std::vector<ExpertPlace> places(size_t{kLayers} * kExperts);
    for (size_t key = 0; key < places.size(); ++key) {
      places[key].runs = {{0, key * kPage, (key + 1) * kPage, 0}};
    }
    std::vector<FileCopies> files(1);
    files[0].copies.push_back(io::DirectFile::Open(dir_ / "a").value());
    cache_ = ExpertCache::Create(std::move(places), kExperts, std::move(files),
                                 {.num_slots = kSlots, .reader = {.piece_bytes = kPage}})
                 .value();
  }
  void Step(uint32_t layer, std::vector<model::WantedExpert> wanted) {
    cache_->Begin(layer, 1, wanted);
    size_t got = 0;
    while (true) {
      const auto ready = cache_->Next(/*wait=*/true);
      if (ready.empty()) break;
      got += ready.size();
    }
    EXPECT_EQ(got, wanted.size());
  }

  TempDir dir_;
  std::unique_ptr<ExpertCache> cache_;
};

TEST_F(ExpertCacheTest, WhatIsGuessedRightIsAHit) {
  Step(0, {{0, 1}});
  cache_->Prefetch(1, std::vector<model::WantedExpert>{{2, 1}, {3, 1}}, 1e6);
  Step(0, {{1, 1}});  // time for the reads
  cache_->Prefetch(1, std::vector<model::WantedExpert>{{2, 1}, {3, 1}}, 1e6);
  Step(1, {{2, 1}, {3, 1}});
  const model::ExpertStats stats = cache_->stats();
  EXPECT_EQ(stats.guessed, 2u);
  EXPECT_EQ(stats.guessed_right, 2u);
  EXPECT_EQ(stats.layers[1].hits + stats.layers[1].late, 2u);
  EXPECT_EQ(stats.read_bytes, 4 * kPage);
}

}  // namespace
}  // namespace cachalot::stream
