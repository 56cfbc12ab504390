// SPDX-License-Identifier: Apache-2.0
// Sequences driven through random schedules of steps, rewinds and restores.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <numeric>

#include "cachalot/kvcache/stamped_sequence.h"

namespace cachalot::kvcache {
namespace {

constexpr size_t kPoolBlocks = 24;
constexpr uint32_t kMaxPosition = 1000;

// A sequence fed with stamps that nobody had before.
struct Model : StampedSequence {
  Model(BlockPool& pool, uint32_t* next_stamp) : StampedSequence(pool), next(next_stamp) {}
  void Step(uint32_t num_tokens) {
    std::vector<uint32_t> fresh(num_tokens);
    std::iota(fresh.begin(), fresh.end(), *next);
    *next += num_tokens;
    Feed(fresh);
  }
  uint32_t* next;
};

// Moves the sequence into a new one by way of its saved state, as a resumed session does.
void SaveAndRestore(BlockPool& pool, std::unique_ptr<Model>& model, uint32_t* next_stamp) {
  std::vector<uint8_t> state;
  model->sequence().SaveState(state);
  auto restored = std::make_unique<Model>(pool, next_stamp);
  RC_ASSERT(restored->sequence().RestoreState(state, model->sequence().blocks()).ok());
  restored->SetStamps(model->stamps());
  model = std::move(restored);
}

void RunSchedule(KvFormat format) {
  const auto pool = std::move(BlockPool::Create(SmallSpec(format), kPoolBlocks)).value();
  uint32_t next_stamp = 1;
  std::unique_ptr<Model> models[2] = {std::make_unique<Model>(*pool, &next_stamp),
                                      std::make_unique<Model>(*pool, &next_stamp)};
  // What is left of kMaxRewind below the furthest position reached.
  uint32_t furthest[2] = {0, 0};
  const auto num_actions = *rc::gen::inRange(1, 25);
  for (int i = 0; i < num_actions; ++i) {
    const auto which = *rc::gen::inRange<size_t>(0, 2);
    auto& model = models[which];
    const auto position = static_cast<uint32_t>(model->stamps().size());
    const auto action = *rc::gen::inRange(0, 8);
    if (action < 4) {
      const auto count = *rc::gen::element(1u, 2u, 5u, 15u, 16u, 17u, 40u, 129u);
      if (position + count <= kMaxPosition) model->Step(count);
    } else if (action < 6) {
      const uint32_t floor = furthest[which] > kMaxRewind ? furthest[which] - kMaxRewind : 0;
      model->Rewind(*rc::gen::inRange(0u, position - floor + 1));
      RC_ASSERT(!model->sequence().Rewind(kMaxRewind + 1).ok());
    } else if (action == 6) {
      SaveAndRestore(*pool, model, &next_stamp);
    } else {
      model->sequence().Reset();
      model->SetStamps({});
      furthest[which] = 0;
    }
    furthest[which] = std::max(furthest[which], static_cast<uint32_t>(model->stamps().size()));
  }
  models[0].reset();
  models[1].reset();
  RC_ASSERT(pool->num_free() == kPoolBlocks);
}

TEST(RewindTest, AnyScheduleFindsEveryRowItNeeds) {
  // A fixed seed: a failure here is the same failure everywhere.
  const rc::detail::TestMetadata metadata{.id = "rewind", .description = "any schedule"};
  rc::detail::TestParams params;
  params.seed = 20261123;
  params.maxSuccess = 40;
  for (const KvFormat format : {KvFormat::kNative, KvFormat::kF32}) {
    const auto result =
        rc::detail::checkTestable([format] { RunSchedule(format); }, metadata, params);
    EXPECT_TRUE(result.is<rc::detail::SuccessResult>()) << rc::toString(result);
  }
}

TEST(RewindTest, RestoringFromItsOwnBlocksKeepsThem) {
  const auto pool = std::move(BlockPool::Create(SmallSpec(KvFormat::kNative), 4)).value();
  const auto sequence = std::move(Sequence::Create(*pool)).value();
  ASSERT_TRUE(sequence->Reserve(300).ok());
  sequence->Advance(300);
  const std::vector<BlockId> before(sequence->blocks().begin(), sequence->blocks().end());
  std::vector<uint8_t> state;
  sequence->SaveState(state);
  ASSERT_TRUE(sequence->RestoreState(state, sequence->blocks()).ok());
  EXPECT_TRUE(std::ranges::equal(sequence->blocks(), before));
  EXPECT_EQ(pool->num_free(), 1u);
}

// Every byte of a block belongs to exactly one part of one row: what the spec promises is used
// whole, and rows cannot run into each other.
TEST(BlockLayoutTest, RowsCoverABlockExactlyOnce) {
  for (const KvFormat format : {KvFormat::kNative, KvFormat::kF32}) {
    const KvSpec spec = SmallSpec(format);
    const auto pool = std::move(BlockPool::Create(spec, 3)).value();
    const auto sequence = std::move(Sequence::Create(*pool)).value();
    ASSERT_TRUE(sequence->Reserve(2 * kBlockTokens).ok());
    for (size_t l = 1; l < spec.compress_ratios.size(); ++l) {
      std::vector<int> hits(3 * spec.layer_block_bytes(l));
      const uint32_t rows = kBlockTokens / spec.compress_ratios[l];
      for (uint32_t j = rows; j < 2 * rows; ++j) {
        const auto slot = sequence->entry(l, j);
        for (const Part& part : PartsOf(slot.rows, slot.row)) {
          for (size_t i = 0; i < part.bytes; ++i) {
            ++hits[static_cast<size_t>(part.data - pool->slab(l)) + i];
          }
        }
      }
      const size_t begin = static_cast<size_t>(sequence->blocks()[1]) * spec.layer_block_bytes(l);
      for (size_t i = 0; i < hits.size(); ++i) {
        const bool inside = i >= begin && i < begin + spec.layer_block_bytes(l);
        ASSERT_EQ(hits[i], inside ? 1 : 0) << "layer " << l << ", byte " << i;
      }
    }
  }
}

// 61 layers of Pro: 31 HCA (two of them first), 30 CSA.
TEST(BlockLayoutTest, ProTakes5031BytesAToken) {
  KvSpec spec{.head_dim = 512, .rope_dim = 64, .index_head_dim = 128, .sliding_window = 128};
  spec.compress_ratios = {128, 128};
  while (spec.compress_ratios.size() < 61) {
    spec.compress_ratios.push_back(spec.compress_ratios.size() % 2 == 0 ? 4 : 128);
  }
  EXPECT_EQ(static_cast<double>(spec.block_bytes()) / kBlockTokens, 5031.4375);
  const auto pool = std::move(BlockPool::Create(spec, 2)).value();
  ASSERT_TRUE(pool->Allocate().ok());
  EXPECT_EQ(pool->bytes_in_use(), 644024u);
}

}  // namespace
}  // namespace cachalot::kvcache
