// SPDX-License-Identifier: Apache-2.0
// Sequences driven through random schedules of steps, rewinds and restores. Every row carries the
// stamp of the token that wrote it, so a row of a rejected token, or of another sequence, is told
// from the one that belongs there. Before a token "attends", every row it may read is checked.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <cstring>

#include "cachalot/kvcache/kv_cache.h"

namespace cachalot::kvcache {
namespace {

constexpr uint32_t kWindow = 24;  // no divisor of a ring size, to meet every phase
constexpr size_t kPoolBlocks = 24;
constexpr uint32_t kMaxPosition = 1000;

KvSpec SmallSpec(KvFormat format) {
  return {.format = format,
          .head_dim = 128,
          .rope_dim = 64,
          .index_head_dim = 32,
          .sliding_window = kWindow,
          .compress_ratios = {0, 4, 128, 4}};
}

struct Part {
  uint8_t* data;
  size_t bytes;
};

std::vector<Part> PartsOf(const KvRows& rows, size_t row) {
  const KvLayout& l = rows.layout;
  std::vector<Part> parts = {{rows.Values(row), l.value_bytes()},
                             {rows.Rope(row), l.rope_bytes()},
                             {rows.Scales(row), l.scale_bytes()},
                             {rows.KeyCodes(row), l.key_code_bytes()},
                             {rows.KeyScales(row), l.key_scale_bytes()}};
  std::erase_if(parts, [](const Part& part) { return part.bytes == 0; });
  return parts;
}

// All bytes of a row are its stamp's low byte; the first part starts with the whole stamp.
void StampRow(const KvRows& rows, size_t row, uint32_t stamp) {
  for (const Part& part : PartsOf(rows, row)) {
    std::memset(part.data, static_cast<int>(stamp & 0xFF), part.bytes);
  }
  std::memcpy(rows.Values(row), &stamp, sizeof(stamp));
}

bool RowHas(const KvRows& rows, size_t row, uint32_t stamp) {
  uint32_t found = 0;
  std::memcpy(&found, rows.Values(row), sizeof(found));
  if (found != stamp) return false;
  for (const Part& part : PartsOf(rows, row)) {
    if (part.data[part.bytes - 1] != static_cast<uint8_t>(stamp)) return false;
  }
  return true;
}

// Stamps stay below 2^24, where float32 is exact.
void StampTail(const TailView& tail, uint32_t position, uint32_t stamp) {
  const size_t row = size_t{position % tail.capacity} * tail.width;
  std::fill_n(tail.k + row, tail.width, static_cast<float>(stamp));
  std::fill_n(tail.gate + row, tail.width, static_cast<float>(stamp));
}

bool TailHas(const TailView& tail, uint32_t position, uint32_t stamp) {
  const size_t row = size_t{position % tail.capacity} * tail.width;
  const auto wanted = static_cast<float>(stamp);
  return tail.k[row] == wanted && tail.k[row + tail.width - 1] == wanted &&
         tail.gate[row] == wanted && tail.gate[row + tail.width - 1] == wanted;
}

// A sequence and the tokens it should hold, as stamps by position.
class Model {
 public:
  Model(BlockPool& pool, uint32_t* next_stamp)
      : spec_(pool.spec()),
        sequence_(std::move(Sequence::Create(pool)).value()),
        next_(next_stamp) {}

  Sequence& sequence() { return *sequence_; }
  const std::vector<uint32_t>& stamps() const { return stamps_; }
  void SetStamps(const std::vector<uint32_t>& stamps) { stamps_ = stamps; }

  // As the forward pass does it: waves of at most kMaxRewind tokens write, then attend.
  void Step(uint32_t num_tokens) {
    RC_ASSERT(sequence_->Reserve(num_tokens).ok());
    for (uint32_t done = 0; done < num_tokens;) {
      const uint32_t wave = std::min(kMaxRewind, num_tokens - done);
      const auto begin = static_cast<uint32_t>(stamps_.size());
      for (uint32_t i = 0; i < wave; ++i) stamps_.push_back((*next_)++);
      for (uint32_t p = begin; p < begin + wave; ++p) Write(p);
      for (uint32_t p = begin; p < begin + wave; ++p) CheckAndEmit(p);
      done += wave;
    }
    sequence_->Advance(num_tokens);
    RC_ASSERT(sequence_->position() == stamps_.size());
  }

  void Rewind(uint32_t num_tokens) {
    RC_ASSERT(sequence_->Rewind(num_tokens).ok());
    stamps_.resize(stamps_.size() - num_tokens);
  }

 private:
  void Write(uint32_t p) {
    for (size_t l = 0; l < spec_.compress_ratios.size(); ++l) {
      const KvRows window = sequence_->window(l);
      StampRow(window, p % window.capacity, stamps_[p]);
      if (spec_.compress_ratios[l] != 0) StampTail(sequence_->main_tail(l), p, stamps_[p]);
      if (spec_.compress_ratios[l] == 4) StampTail(sequence_->index_tail(l), p, stamps_[p]);
    }
  }

  void CheckAndEmit(uint32_t p) {
    for (size_t l = 0; l < spec_.compress_ratios.size(); ++l) {
      const KvRows window = sequence_->window(l);
      for (uint32_t q = p + 1 > kWindow ? p + 1 - kWindow : 0; q <= p; ++q) {
        RC_ASSERT(RowHas(window, q % window.capacity, stamps_[q]));
      }
      const uint32_t ratio = spec_.compress_ratios[l];
      if (ratio == 0) continue;
      if ((p + 1) % ratio == 0) Emit(l, p);
      CheckEntries(l, (p + 1) / ratio);
    }
  }

  // The entry that token `p` completes reads its own block, in CSA layers also the one before.
  void Emit(size_t l, uint32_t p) {
    const uint32_t ratio = spec_.compress_ratios[l];
    const uint32_t reach = ratio == 4 ? 2 * ratio : ratio;
    for (uint32_t q = p + 1 > reach ? p + 1 - reach : 0; q <= p; ++q) {
      RC_ASSERT(TailHas(sequence_->main_tail(l), q, stamps_[q]));
      if (ratio == 4) RC_ASSERT(TailHas(sequence_->index_tail(l), q, stamps_[q]));
    }
    const auto slot = sequence_->entry(l, p / ratio);
    StampRow(slot.rows, slot.row, stamps_[p]);
  }

  // Through the view that attention reads.
  void CheckEntries(size_t l, uint32_t num_entries) {
    const uint32_t ratio = spec_.compress_ratios[l];
    const CompressedView view = sequence_->compressed(l);
    for (uint32_t j = 0; j < num_entries; ++j) {
      const ConstKvRows rows = view.Block(j / view.rows_per_block);
      const KvRows writable(rows.layout, const_cast<uint8_t*>(rows.base), rows.capacity);
      RC_ASSERT(RowHas(writable, j % view.rows_per_block, stamps_[(j + 1) * ratio - 1]));
    }
  }

  const KvSpec& spec_;
  std::unique_ptr<Sequence> sequence_;
  std::vector<uint32_t> stamps_;
  uint32_t* next_;
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
