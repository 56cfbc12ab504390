// SPDX-License-Identifier: Apache-2.0
// A sequence that was packed and unpacked elsewhere has every row its later tokens read.
#include "cachalot/kvcache/packed_state.h"

#include <gtest/gtest.h>

#include "cachalot/kvcache/stamped_sequence.h"

namespace cachalot::kvcache {
namespace {

std::vector<uint32_t> Stamps(uint32_t begin, uint32_t count) {
  std::vector<uint32_t> stamps;
  for (uint32_t i = 0; i < count; ++i) stamps.push_back(1000 + (begin + i) * 7);
  return stamps;
}

std::unique_ptr<BlockPool> MakePool(KvFormat format) {
  return std::move(BlockPool::Create(SmallSpec(format), 40)).value();
}

// Moves the complete blocks and the state of `from` into `to`.
void Move(BlockPool& from_pool, Sequence& from, BlockPool& to_pool, Sequence& to) {
  const uint32_t position = from.position();
  RC_ASSERT(to.Reserve(position).ok());
  std::vector<uint8_t> block(from_pool.spec().block_bytes());
  for (uint32_t i = 0; i < position / kBlockTokens; ++i) {
    PackBlock(from_pool, from.blocks()[i], block);
    UnpackBlock(to_pool, to.blocks()[i], block);
  }
  std::vector<uint8_t> state;
  PackState(from, state);
  RC_ASSERT(UnpackState(state, position, to).ok());
}

// Positions around block edges and inside entries of both kinds, in both formats.
TEST(PackedStateTest, AnUnpackedSequenceGoesOn) {
  rc::check("every row that is read is there", [] {
    const auto format = *rc::gen::element(KvFormat::kNative, KvFormat::kF32);
    const auto from_pool = MakePool(format);
    const auto to_pool = MakePool(format);
    const auto edge = *rc::gen::inRange(0, 5) * static_cast<int>(kBlockTokens);
    const auto offset = *rc::gen::oneOf(rc::gen::inRange(-9, 10), rc::gen::inRange(0, 128));
    const auto position = static_cast<uint32_t>(std::max(1, edge + offset));
    StampedSequence from(*from_pool);
    from.Feed(Stamps(0, position));
    StampedSequence to(*to_pool);
    Move(*from_pool, from.sequence(), *to_pool, to.sequence());
    to.SetStamps(from.stamps());
    RC_ASSERT(to.sequence().position() == position);
    const auto more = *rc::gen::element<uint32_t>(1, 3, 16, 150, 300);
    to.Feed(Stamps(position, more));
    // What was fed since can be rewound, what came before cannot.
    const uint32_t rewind = std::min(more, kMaxRewind);
    RC_ASSERT(more >= kMaxRewind || !to.sequence().Rewind(more + 1).ok());
    to.Rewind(rewind);
    to.Feed(Stamps(5000, 40));
  });
}

TEST(PackedStateTest, OnlyWhatIsReadIsPacked) {
  std::vector<uint32_t> ratios = {0, 0};
  for (uint32_t l = 2; l < 43; ++l) ratios.push_back(l % 2 == 0 ? 4 : 128);
  const KvSpec flash{.head_dim = 512,
                     .rope_dim = 64,
                     .index_head_dim = 128,
                     .sliding_window = 128,
                     .compress_ratios = ratios};
  // 43 windows, and of 21 CSA layers 4 tokens' k and gate of stream b, main and index.
  const size_t edge = 43 * 128 * 584 + 21 * 4 * 2 * 4 * (512 + 128);
  EXPECT_EQ(PackedStateBytes(flash, 4096), edge);
  EXPECT_EQ(PackedStateBytes(flash, 4096 + 4) - edge,
            20u * 4 * 2 * 4 * 512 + 21u * (584 + 68));  // HCA rows, one entry of the open block
}

TEST(PackedStateTest, AnotherSizeIsRefused) {
  const auto pool = MakePool(KvFormat::kNative);
  const auto sequence = std::move(Sequence::Create(*pool)).value();
  ASSERT_TRUE(sequence->Reserve(200).ok());
  std::vector<uint8_t> state(PackedStateBytes(pool->spec(), 200) - 1);
  const Status status = UnpackState(state, 200, *sequence);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kDataCorruption);
  EXPECT_EQ(sequence->position(), 0u);
}

}  // namespace
}  // namespace cachalot::kvcache
