// SPDX-License-Identifier: Apache-2.0
// Sizes counted on real allocations, and which rows survive a rewind.
#include "cachalot/kvcache/kv_cache.h"

#include <gtest/gtest.h>

#include <cstring>

namespace cachalot::kvcache {
namespace {

KvSpec Spec(std::vector<uint32_t> ratios) {
  return {.head_dim = 512,
          .rope_dim = 64,
          .index_head_dim = 128,
          .sliding_window = 128,
          .compress_ratios = std::move(ratios)};
}

// Layers of Flash: 2 window only, 21 CSA, 20 HCA.
KvSpec Flash() {
  std::vector<uint32_t> ratios = {0, 0};
  for (uint32_t l = 2; l < 43; ++l) ratios.push_back(l % 2 == 0 ? 4 : 128);
  return Spec(ratios);
}

std::unique_ptr<BlockPool> MakePool(const KvSpec& spec, size_t blocks) {
  auto pool = BlockPool::Create(spec, blocks);
  EXPECT_TRUE(pool.ok()) << pool.error().message;
  return std::move(pool).value();
}

std::unique_ptr<Sequence> MakeSequence(BlockPool& pool) {
  auto sequence = Sequence::Create(pool);
  EXPECT_TRUE(sequence.ok());
  return std::move(sequence).value();
}

TEST(KvSpecTest, EntriesHaveTheReleasedSize) {
  const KvSpec spec = Flash();
  EXPECT_EQ(spec.window_layout().row_bytes(), 584u);
  EXPECT_EQ(spec.compressed_layout(2).row_bytes(), 584u + 68u);
  EXPECT_EQ(spec.compressed_layout(3).row_bytes(), 584u);
  EXPECT_EQ(spec.block_bytes(), 449824u);  // 3,514.25 bytes a token
}

TEST(KvSpecTest, BadShapesAreRefusedByName) {
  const auto message = [](KvSpec spec) {
    const Status status = spec.Validate();
    return status.ok() ? std::string("ok") : status.error().message;
  };
  KvSpec spec = Flash();
  spec.compress_ratios[5] = 7;
  EXPECT_NE(message(spec).find("ratio 7"), std::string::npos);
  spec = Flash();
  spec.head_dim = 500;
  EXPECT_NE(message(spec).find("436"), std::string::npos);
  spec = Flash();
  spec.sliding_window = 0;
  EXPECT_NE(message(spec).find("sliding_window"), std::string::npos);
}

// The slabs of all layers together are exactly num_blocks * block_bytes: nothing padded.
TEST(BlockPoolTest, WholeBlocksCostWhatTheSpecSays) {
  const KvSpec spec = Flash();
  constexpr size_t kBlocks = 7;
  const auto pool = MakePool(spec, kBlocks);
  size_t bytes = 0;
  for (size_t l = 0; l < spec.compress_ratios.size(); ++l) {
    EXPECT_EQ(static_cast<size_t>(pool->slab(l) - pool->slab(0)), bytes) << "layer " << l;
    bytes += kBlocks * spec.layer_block_bytes(l);
  }
  EXPECT_EQ(bytes, kBlocks * 449824u);
  EXPECT_EQ(pool->bytes_in_use(), 0u);
  const auto sequence = MakeSequence(*pool);
  ASSERT_TRUE(sequence->Reserve(129).ok());
  EXPECT_EQ(pool->bytes_in_use(), 2 * 449824u);
}

TEST(BlockPoolTest, BlocksReturnWithTheLastReference) {
  const auto pool = MakePool(Flash(), 2);
  const BlockId a = *pool->Allocate();
  pool->AddRef(a);
  pool->Release(a);
  EXPECT_EQ(pool->num_free(), 1u);
  pool->Release(a);
  EXPECT_EQ(pool->num_free(), 2u);
}

TEST(BlockPoolTest, RunningOutSaysHowMany) {
  const auto pool = MakePool(Flash(), 2);
  const auto sequence = MakeSequence(*pool);
  const Status status = sequence->Reserve(3 * kBlockTokens);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kResourceExhausted);
  EXPECT_NE(status.error().message.find("3 more blocks"), std::string::npos);
  EXPECT_EQ(pool->num_free(), 2u) << "a failed reservation takes nothing";
}

// Stamps every ring row a token owns with the token's position.
void WriteToken(Sequence& sequence, const KvSpec& spec, uint32_t position) {
  for (size_t l = 0; l < spec.compress_ratios.size(); ++l) {
    const KvRows window = sequence.window(l);
    std::memcpy(window.Values(position % window.capacity), &position, sizeof(position));
    if (spec.compress_ratios[l] == 0) continue;
    const TailView tail = sequence.main_tail(l);
    tail.k[size_t{position % tail.capacity} * tail.width] = static_cast<float>(position);
    tail.gate[size_t{position % tail.capacity} * tail.width + tail.width - 1] =
        static_cast<float>(position);
    if (spec.compress_ratios[l] != 4) continue;
    const TailView index = sequence.index_tail(l);
    index.k[size_t{position % index.capacity} * index.width] = static_cast<float>(position);
  }
}

void ExpectTailRow(const TailView& tail, uint32_t p, uint32_t now) {
  const size_t row = size_t{p % tail.capacity} * tail.width;
  EXPECT_EQ(tail.k[row], static_cast<float>(p)) << "position " << now;
}

// Every row that a token at `position` or later may read from the past is intact.
void ExpectPastIntact(Sequence& sequence, const KvSpec& spec) {
  const uint32_t now = sequence.position();
  for (size_t l = 0; l < spec.compress_ratios.size(); ++l) {
    const KvRows window = sequence.window(l);
    for (uint32_t p = now >= spec.sliding_window ? now - spec.sliding_window + 1 : 0; p < now;
         ++p) {
      uint32_t stamp = 0;
      std::memcpy(&stamp, window.Values(p % window.capacity), sizeof(stamp));
      ASSERT_EQ(stamp, p) << "window, position " << now;
    }
    const uint32_t r = spec.compress_ratios[l];
    if (r == 0) continue;
    // The block in progress, and for CSA the one before it.
    const uint32_t block = now / r * r;
    const uint32_t first = r == 4 && block >= r ? block - r : block;
    for (uint32_t p = first; p < now; ++p) {
      ExpectTailRow(sequence.main_tail(l), p, now);
      if (r == 4) ExpectTailRow(sequence.index_tail(l), p, now);
    }
  }
}

TEST(SequenceTest, RewindKeepsEveryRowTheFutureNeeds) {
  const KvSpec spec = Spec({0, 4, 128});
  const auto pool = MakePool(spec, 8);
  const auto sequence = MakeSequence(*pool);
  uint32_t rewind = 1;
  for (uint32_t step = 0; step < 60; ++step) {
    // 17 tokens forward, 1..16 back: every phase of every ring is met.
    const uint32_t forward = 17;
    ASSERT_TRUE(sequence->Reserve(forward).ok());
    for (uint32_t i = 0; i < forward; ++i) {
      WriteToken(*sequence, spec, sequence->position());
      sequence->Advance(1);
    }
    ExpectPastIntact(*sequence, spec);
    rewind = rewind % kMaxRewind + 1;
    ASSERT_TRUE(sequence->Rewind(rewind).ok());
    ExpectPastIntact(*sequence, spec);
  }
}

TEST(SequenceTest, RewindIsBoundedFromTheFurthestPosition) {
  const auto pool = MakePool(Flash(), 4);
  const auto sequence = MakeSequence(*pool);
  ASSERT_TRUE(sequence->Reserve(200).ok());
  sequence->Advance(200);
  EXPECT_TRUE(sequence->Rewind(10).ok());
  EXPECT_FALSE(sequence->Rewind(7).ok()) << "17 back from 200";
  EXPECT_TRUE(sequence->Rewind(6).ok());
  EXPECT_EQ(sequence->position(), 184u);
  sequence->Advance(5);
  EXPECT_FALSE(sequence->Rewind(6).ok()) << "the ring still holds what was written up to 200";
  const Status status = sequence->Rewind(1000);
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.error().message.find("1000"), std::string::npos);
}

TEST(SequenceTest, SavedStateRestoresWithItsBlocks) {
  const KvSpec spec = Spec({0, 4, 128});
  const auto pool = MakePool(spec, 8);
  const auto first = MakeSequence(*pool);
  ASSERT_TRUE(first->Reserve(150).ok());
  for (uint32_t p = 0; p < 150; ++p) WriteToken(*first, spec, p);
  first->Advance(150);
  std::vector<uint8_t> state;
  first->SaveState(state);

  const auto second = MakeSequence(*pool);
  ASSERT_TRUE(second->RestoreState(state, first->blocks()).ok());
  EXPECT_EQ(second->position(), 150u);
  ExpectPastIntact(*second, spec);
  first->Reset();
  EXPECT_EQ(pool->num_free(), 6u) << "the second sequence holds both blocks";

  EXPECT_FALSE(second->RestoreState(std::span(state).first(100), second->blocks()).ok());
  EXPECT_FALSE(second->RestoreState(state, second->blocks().first(1)).ok());
  EXPECT_EQ(second->position(), 150u) << "a refused state changes nothing";
}

}  // namespace
}  // namespace cachalot::kvcache
