// SPDX-License-Identifier: Apache-2.0
#include "cachalot/eval/bench_fill.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "cachalot/kernels/quantize.h"

namespace cachalot::eval {
namespace {

kvcache::KvSpec SmallSpec(KvFormat format) {
  return {.format = format,
          .head_dim = 128,
          .rope_dim = 64,
          .index_head_dim = 32,
          .sliding_window = 24,
          .compress_ratios = {0, 4, 128}};
}

struct Moments {
  double mean = 0, variance = 0;
};
Moments MomentsOf(const std::vector<float>& values) {
  Moments m;
  for (const float v : values) m.mean += v / static_cast<double>(values.size());
  for (const float v : values) {
    m.variance += (v - m.mean) * (v - m.mean) / static_cast<double>(values.size());
  }
  return m;
}

// All entries of the CSA layer, as attention would read them, keys behind them.
std::vector<float> ReadCsa(kvcache::Sequence& sequence, uint32_t entries) {
  std::vector<float> all;
  for (uint32_t j = 0; j < entries; ++j) {
    const auto slot = sequence.entry(1, j);
    std::vector<float> entry(slot.rows.layout.head_dim), key(slot.rows.layout.key_dim);
    kernels::LoadKvEntry(slot.rows, slot.row, entry);
    kernels::LoadIndexKey(slot.rows, slot.row, key);
    all.insert(all.end(), entry.begin(), entry.end());
    all.insert(all.end(), key.begin(), key.end());
  }
  return all;
}

class BenchFill : public ::testing::TestWithParam<KvFormat> {};

TEST_P(BenchFill, EntriesAreFiniteOfVarianceOneAndTheSameOnAnyThreads) {
  constexpr uint32_t kTokens = 1000;
  const kvcache::KvSpec spec = SmallSpec(GetParam());
  std::vector<float> first;
  for (const size_t threads : {1, 3}) {
    ThreadPool pool(threads);
    const auto blocks = std::move(kvcache::BlockPool::Create(spec, 9)).value();
    const auto sequence = std::move(kvcache::Sequence::Create(*blocks)).value();
    ASSERT_TRUE(FillSequence(*sequence, spec, kTokens, 7, pool).ok());
    EXPECT_EQ(sequence->position(), kTokens);
    const std::vector<float> values = ReadCsa(*sequence, kTokens / 4);
    for (const float v : values) ASSERT_TRUE(std::isfinite(v));
    // 40,000 draws: the mean within 0.03 and the variance within 0.05 are six standard deviations,
    // with room for the rounding to FP4 of a fifth of them.
    const Moments m = MomentsOf(values);
    EXPECT_NEAR(m.mean, 0.0, 0.03);
    EXPECT_NEAR(m.variance, 1.0, 0.05);
    if (first.empty()) first = values;
    EXPECT_EQ(values, first);
  }
}

TEST_P(BenchFill, SeedsDiffer) {
  const kvcache::KvSpec spec = SmallSpec(GetParam());
  ThreadPool pool(1);
  const auto blocks = std::move(kvcache::BlockPool::Create(spec, 2)).value();
  const auto a = std::move(kvcache::Sequence::Create(*blocks)).value();
  const auto b = std::move(kvcache::Sequence::Create(*blocks)).value();
  ASSERT_TRUE(FillSequence(*a, spec, 100, 1, pool).ok());
  ASSERT_TRUE(FillSequence(*b, spec, 100, 2, pool).ok());
  EXPECT_NE(ReadCsa(*a, 25), ReadCsa(*b, 25));
}

TEST_P(BenchFill, WithoutBlocksNothingHappens) {
  const kvcache::KvSpec spec = SmallSpec(GetParam());
  ThreadPool pool(1);
  const auto blocks = std::move(kvcache::BlockPool::Create(spec, 1)).value();
  const auto sequence = std::move(kvcache::Sequence::Create(*blocks)).value();
  const Status status = FillSequence(*sequence, spec, 129, 1, pool);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(sequence->position(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Formats, BenchFill, ::testing::Values(KvFormat::kNative, KvFormat::kF32));

}  // namespace
}  // namespace cachalot::eval
