// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>
#include <new>

#include "cachalot/base/check.h"
#include "cachalot/base/strings.h"
#include "cachalot/kvcache/kv_cache.h"
#include "cachalot/threading/aligned_buffer.h"

namespace cachalot::kvcache {
namespace {

constexpr uint32_t kCsaRatio = 4;

uint32_t WindowCapacity(const KvSpec& spec) { return spec.sliding_window + kMaxRewind; }

// Tokens a compressor may still need, plus those a rewind can bring back: the overlapping CSA
// compressor reads two blocks, HCA one.
uint32_t TailCapacity(uint32_t ratio) {
  return (ratio == kCsaRatio ? 2 * ratio : ratio) + kMaxRewind;
}

uint32_t TailWidth(uint32_t ratio, uint32_t head_size) {
  return ratio == kCsaRatio ? 2 * head_size : head_size;
}

size_t TailBytes(uint32_t ratio, uint32_t head_size) {
  return size_t{2} * sizeof(float) * TailCapacity(ratio) * TailWidth(ratio, head_size);
}

size_t AlignUp(size_t bytes) {
  return (bytes + kCacheLineBytes - 1) / kCacheLineBytes * kCacheLineBytes;
}

size_t BlocksFor(uint64_t num_tokens) { return (num_tokens + kBlockTokens - 1) / kBlockTokens; }

TailView MakeTail(uint8_t* base, uint32_t ratio, uint32_t head_size) {
  TailView tail{.capacity = TailCapacity(ratio), .width = TailWidth(ratio, head_size)};
  tail.k = reinterpret_cast<float*>(base);
  tail.gate = tail.k + size_t{tail.capacity} * tail.width;
  return tail;
}

// What SaveState writes before the slot.
struct StateHeader {
  uint32_t position;
  uint32_t high_water;
  uint32_t rewind_floor;
};

}  // namespace

SlotLayout::SlotLayout(const KvSpec& spec) {
  const size_t layers = spec.compress_ratios.size();
  main_tail.resize(layers);
  index_tail.resize(layers);
  window.resize(layers);
  const auto take = [this](size_t size) {
    const size_t at = bytes;
    bytes += AlignUp(size);
    return at;
  };
  for (size_t l = 0; l < layers; ++l) {
    const uint32_t ratio = spec.compress_ratios[l];
    if (ratio != 0) main_tail[l] = take(TailBytes(ratio, spec.head_dim));
    if (ratio == kCsaRatio) index_tail[l] = take(TailBytes(ratio, spec.index_head_dim));
  }
  for (size_t l = 0; l < layers; ++l) {
    window[l] = take(WindowCapacity(spec) * spec.window_layout().row_bytes());
  }
}

size_t KvSpec::state_bytes() const { return SlotLayout(*this).bytes; }

Sequence::Sequence(BlockPool& pool) : pool_(pool), layout_(pool.spec()) {
  // Whole, so that a growing sequence never allocates; pages of it that are not used cost nothing.
  blocks_.reserve(pool.num_blocks());
}

Result<std::unique_ptr<Sequence>> Sequence::Create(BlockPool& pool) {
  const auto no_memory = [&pool] {
    return Error{ErrorCode::kResourceExhausted,
                 StrCat("no memory for a state slot of ", pool.spec().state_bytes(), " bytes")};
  };
  try {
    std::unique_ptr<Sequence> sequence(new Sequence(pool));
    const size_t bytes = sequence->layout_.bytes;  // a multiple of the alignment
    sequence->slot_.reset(static_cast<uint8_t*>(std::aligned_alloc(kCacheLineBytes, bytes)));
    if (sequence->slot_ == nullptr) return no_memory();
    std::memset(sequence->slot_.get(), 0, bytes);
    return sequence;
  } catch (const std::bad_alloc&) {
    return no_memory();
  }
}

Sequence::~Sequence() { Reset(); }

Status Sequence::Reserve(uint32_t num_tokens) {
  const size_t needed = BlocksFor(uint64_t{position_} + num_tokens);
  if (needed <= blocks_.size()) return {};
  const size_t missing = needed - blocks_.size();
  if (missing > pool_.num_free()) {
    return Error{ErrorCode::kResourceExhausted,
                 StrCat("KV cache: ", missing, " more blocks of ", kBlockTokens, " tokens needed, ",
                        pool_.num_free(), " of ", pool_.num_blocks(), " free")};
  }
  for (size_t i = 0; i < missing; ++i) {
    CACHALOT_TRY(const BlockId id, pool_.Allocate());
    blocks_.push_back(id);
  }
  return {};
}

void Sequence::Advance(uint32_t num_tokens) {
  CACHALOT_CHECK(BlocksFor(uint64_t{position_} + num_tokens) <= blocks_.size());
  position_ += num_tokens;
  high_water_ = std::max(high_water_, position_);
}

Status Sequence::Rewind(uint32_t num_tokens) {
  if (num_tokens == 0) return {};  // also in the middle of a replay
  if (num_tokens > position_ || high_water_ - (position_ - num_tokens) > kMaxRewind ||
      position_ - num_tokens < rewind_floor_) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat("cannot rewind ", num_tokens, " tokens from position ", position_,
                        ": the cache was written up to ", high_water_, ", keeps ", kMaxRewind,
                        " tokens and begins at ", rewind_floor_)};
  }
  position_ -= num_tokens;
  return {};
}

void Sequence::Reset() {
  for (const BlockId id : blocks_) pool_.Release(id);
  blocks_.clear();
  position_ = 0;
  high_water_ = 0;
  rewind_floor_ = 0;
  replay_end_ = 0;
  window_begin_ = 0;
}

void Sequence::ResumeAt(uint32_t position) {
  CACHALOT_CHECK(BlocksFor(position) <= blocks_.size());
  position_ = position;
  high_water_ = position;
  rewind_floor_ = position;
  replay_end_ = 0;
  window_begin_ = 0;
}

void Sequence::Replay(uint32_t begin, uint32_t end) {
  CACHALOT_CHECK(begin <= end && end % kBlockTokens == 0);
  CACHALOT_CHECK(BlocksFor(end) <= blocks_.size());
  position_ = begin;
  high_water_ = begin;
  rewind_floor_ = end;
  replay_end_ = end;
  window_begin_ = begin;
  // Rows before `begin` are read by nobody, but what is there must not depend on who was here.
  std::memset(slot_.get(), 0, layout_.bytes);
}

uint32_t ReplayTokens(const KvSpec& spec, uint32_t num_layers) {
  if (num_layers == 0) return 0;
  return (num_layers - 1) * (spec.sliding_window - 1) + std::max(spec.sliding_window, kCsaRatio);
}

KvRows Sequence::window(size_t layer) {
  const KvSpec& spec = pool_.spec();
  return {spec.window_layout(), slot_.get() + layout_.window[layer], WindowCapacity(spec)};
}

CompressedView Sequence::compressed(size_t layer) const {
  const KvSpec& spec = pool_.spec();
  return {.layout = spec.compressed_layout(layer),
          .slab = pool_.slab(layer),
          .block_bytes = spec.layer_block_bytes(layer),
          .rows_per_block = kBlockTokens / spec.compress_ratios[layer],
          .blocks = blocks_};
}

Sequence::EntrySlot Sequence::entry(size_t layer, uint32_t j) {
  const KvSpec& spec = pool_.spec();
  const uint32_t rows_per_block = kBlockTokens / spec.compress_ratios[layer];
  const size_t block = j / rows_per_block;
  CACHALOT_CHECK(block < blocks_.size());
  uint8_t* base =
      pool_.slab(layer) + static_cast<size_t>(blocks_[block]) * spec.layer_block_bytes(layer);
  return {.rows = {spec.compressed_layout(layer), base, rows_per_block}, .row = j % rows_per_block};
}

TailView Sequence::main_tail(size_t layer) {
  const KvSpec& spec = pool_.spec();
  return MakeTail(slot_.get() + layout_.main_tail[layer], spec.compress_ratios[layer],
                  spec.head_dim);
}

TailView Sequence::index_tail(size_t layer) {
  const KvSpec& spec = pool_.spec();
  return MakeTail(slot_.get() + layout_.index_tail[layer], spec.compress_ratios[layer],
                  spec.index_head_dim);
}

void Sequence::SaveState(std::vector<uint8_t>& out) const {
  const StateHeader header{
      .position = position_, .high_water = high_water_, .rewind_floor = rewind_floor_};
  out.resize(sizeof(header) + layout_.bytes);
  std::memcpy(out.data(), &header, sizeof(header));
  std::memcpy(out.data() + sizeof(header), slot_.get(), layout_.bytes);
}

Status Sequence::RestoreState(std::span<const uint8_t> state, std::span<const BlockId> blocks) {
  StateHeader header{};
  if (state.size() != sizeof(header) + layout_.bytes) {
    return Error{ErrorCode::kInvalidArgument, StrCat("saved state of ", state.size(), " bytes, ",
                                                     sizeof(header) + layout_.bytes, " expected")};
  }
  std::memcpy(&header, state.data(), sizeof(header));
  if (header.high_water < header.position || header.high_water - header.position > kMaxRewind ||
      header.rewind_floor > header.position || blocks.size() < BlocksFor(header.position)) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat("saved state at position ", header.position, " (written to ",
                        header.high_water, ") does not fit ", blocks.size(), " blocks")};
  }
  // Referenced and copied before Reset: they may be our own.
  std::vector<BlockId> table;
  table.reserve(pool_.num_blocks());
  table.assign(blocks.begin(), blocks.end());
  for (const BlockId id : table) pool_.AddRef(id);
  Reset();
  blocks_ = std::move(table);
  position_ = header.position;
  high_water_ = header.high_water;
  rewind_floor_ = header.rewind_floor;
  std::memcpy(slot_.get(), state.data() + sizeof(header), layout_.bytes);
  return {};
}

}  // namespace cachalot::kvcache
