// SPDX-License-Identifier: Apache-2.0
#include "cachalot/engine/disk_tier.h"

#include <sys/mman.h>

#include <algorithm>
#include <charconv>

#include "cachalot/base/strings.h"
#include "cachalot/kvcache/packed_state.h"

namespace cachalot::engine {
namespace {

using diskcache::FoundRecord;
using diskcache::Key;
using diskcache::RecordKind;
using diskcache::RecordName;
using kvcache::kBlockTokens;

static_assert(diskcache::kBlockTokens == kBlockTokens);

// Prefixes seen once, as keys of 16 bytes: forgotten together when they are so many.
constexpr size_t kMaxSeen = size_t{1} << 20;

// Fresh blocks about to be filled: a page fault per 4 KiB costs more than reading them does. Only
// huge pages wholly inside are asked for, so no memory is used that the blocks would not use.
void PreferHugePages(kvcache::BlockPool& pool, std::span<const BlockId> blocks) {
  constexpr uintptr_t kHugePage = uintptr_t{2} << 20;
  if (blocks.empty()) return;
  const auto [low, high] = std::ranges::minmax(blocks);
  const size_t count = static_cast<size_t>(high) - static_cast<size_t>(low) + 1;
  if (count != blocks.size()) return;  // others' blocks are in between
  for (size_t layer = 0; layer < pool.spec().compress_ratios.size(); ++layer) {
    const size_t bytes = pool.spec().layer_block_bytes(layer);
    const auto first =
        reinterpret_cast<uintptr_t>(pool.slab(layer)) + static_cast<size_t>(low) * bytes;
    const uintptr_t begin = (first + kHugePage - 1) / kHugePage * kHugePage;
    const uintptr_t end = (first + count * bytes) / kHugePage * kHugePage;
    // A wish: where the system has no huge pages, small ones serve.
    if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
  }
}

}  // namespace

Status DiskOptions::Validate() const {
  if (strategy == WindowStrategy::kPeriodic && (period == 0 || period % kBlockTokens != 0)) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat("period ", period, " of saved windows: expected a positive multiple of ",
                        kBlockTokens)};
  }
  return {};
}

Status ParseWindowStrategy(std::string_view text, DiskOptions& options) {
  constexpr std::string_view kPeriodicPrefix = "periodic:";
  if (text == "full") {
    options.strategy = WindowStrategy::kFull;
  } else if (text == "zero") {
    options.strategy = WindowStrategy::kZero;
  } else if (text == "bounded") {
    options.strategy = WindowStrategy::kBounded;
  } else if (text.starts_with(kPeriodicPrefix)) {
    options.strategy = WindowStrategy::kPeriodic;
    const std::string_view number = text.substr(kPeriodicPrefix.size());
    const auto result = std::from_chars(number.begin(), number.end(), options.period);
    if (result.ec != std::errc() || result.ptr != number.end()) options.period = 0;
  } else {
    return Error{
        ErrorCode::kInvalidArgument,
        StrCat("window strategy '", text, "': expected full, periodic:TOKENS, zero or bounded")};
  }
  return options.Validate();
}

Result<bool> Restore::Poll(bool wait) {
  CACHALOT_TRY(const bool done, reading_->Poll(wait));
  if (!done) return false;
  if (plan_.end > plan_.begin) sequence_.Replay(plan_.begin, plan_.end);
  return true;
}

DiskTier::DiskTier(const DiskOptions& options, std::string identity, kvcache::BlockPool& pool,
                   uint32_t num_layers)
    : options_(options),
      identity_(std::move(identity)),
      pool_(pool),
      replay_tokens_(options.strategy == WindowStrategy::kBounded
                         ? pool.spec().sliding_window
                         : kvcache::ReplayTokens(pool.spec(), num_layers)) {}

Key DiskTier::Root(kvcache::CacheScope scope) {
  return options_.store->Root(identity_, static_cast<uint64_t>(scope));
}

DiskPlan DiskTier::Find(kvcache::CacheScope scope, std::span<const uint32_t> tokens) {
  DiskPlan plan;
  if (tokens.empty()) return plan;
  // The last token is always run: its logits are wanted.
  diskcache::StoredPath path = options_.store->Find(Root(scope), tokens.first(tokens.size() - 1));
  const auto hit = static_cast<uint32_t>(path.blocks.size()) * kBlockTokens;
  const uint32_t replay_begin = hit - std::min(hit, replay_tokens_);
  const uint32_t state_at = path.state ? path.state->position : 0;
  if (std::max(replay_begin, state_at) == 0) return plan;
  plan.records = std::move(path.blocks);
  if (state_at >= replay_begin) {
    // Entries after the state come out of the tokens that run anyway.
    plan.records.resize(state_at / kBlockTokens);
    plan.records.push_back(*path.state);
    plan.begin = plan.end = state_at;
    plan.has_state = true;
  } else {
    plan.begin = replay_begin;
    plan.end = hit;
    plan.approximate = options_.strategy == WindowStrategy::kBounded;
  }
  return plan;
}

Result<std::unique_ptr<Restore>> DiskTier::Start(DiskPlan plan, std::span<const uint32_t> tokens,
                                                 kvcache::Sequence& sequence) {
  CACHALOT_RETURN_IF_ERROR(sequence.Reserve(plan.end));
  PreferHugePages(pool_, sequence.blocks());
  const std::span<const uint32_t> prefix = tokens.first(plan.end);
  std::vector<FoundRecord> records = std::move(plan.records);
  plan.records.clear();
  const size_t num_blocks = records.size() - (plan.has_state ? 1 : 0);
  const size_t block_bytes = pool_.spec().block_bytes();
  auto restore = std::unique_ptr<Restore>(new Restore(std::move(plan), sequence));
  const uint32_t position = restore->plan_.end;
  const auto sink = [this, &sequence, num_blocks, block_bytes, position](
                        size_t i, std::span<const uint8_t> payload) {
    if (i >= num_blocks) return kvcache::UnpackState(payload, position, sequence).ok();
    if (payload.size() != block_bytes) return false;
    kvcache::UnpackBlock(pool_, sequence.blocks()[i], payload);
    return true;
  };
  CACHALOT_TRY(restore->reading_,
               options_.store->Read(std::move(records), {prefix.begin(), prefix.end()}, sink));
  return restore;
}

// Whether this prefix is worth a write: asked for twice, if that is wanted.
bool DiskTier::Wanted(const Key& root, std::span<const uint32_t> tokens) {
  if (!options_.second_sight) return true;
  Key node = root;
  const size_t blocks = std::max<size_t>(options_.min_tokens / kBlockTokens, 1);
  for (size_t i = 0; i < blocks && (i + 1) * kBlockTokens <= tokens.size(); ++i) {
    node = diskcache::KeyOf({.kind = RecordKind::kBlock,
                             .parent = node,
                             .position = static_cast<uint32_t>((i + 1) * kBlockTokens),
                             .ids = tokens.subspan(i * kBlockTokens, kBlockTokens)});
  }
  if (options_.store->Contains(node)) return true;
  if (seen_.size() >= kMaxSeen) seen_.clear();
  return !seen_.insert(node).second;
}

// False if the queue has no room: the rest is tried again with the next Save.
bool DiskTier::SaveBlocks(std::span<const uint32_t> tokens, kvcache::Sequence& sequence,
                          SavedPath& saved) {
  const auto complete = static_cast<uint32_t>(tokens.size() / kBlockTokens);
  for (; saved.blocks < complete; ++saved.blocks) {
    const uint32_t begin = saved.blocks * kBlockTokens;
    const RecordName name{.kind = RecordKind::kBlock,
                          .parent = *saved.node,
                          .position = begin + kBlockTokens,
                          .ids = tokens.subspan(begin, kBlockTokens)};
    const Key key = diskcache::KeyOf(name);
    if (!options_.store->Contains(key)) {
      std::vector<uint8_t> payload(pool_.spec().block_bytes());
      kvcache::PackBlock(pool_, sequence.blocks()[saved.blocks], payload);
      if (!options_.store->Put(name, std::move(payload))) {
        // What it stands on may have been evicted: then from the beginning.
        if (!options_.store->Contains(name.parent)) saved = {};
        return false;
      }
    }
    saved.node = key;
  }
  return true;
}

void DiskTier::Save(kvcache::CacheScope scope, std::span<const uint32_t> tokens,
                    kvcache::Sequence& sequence, bool end, SavedPath& saved) {
  const auto position = static_cast<uint32_t>(tokens.size());
  if (position < options_.min_tokens || position < sequence.replay_end() || saved.unwanted) return;
  if (!saved.node) {
    const Key root = Root(scope);
    saved.unwanted = !Wanted(root, tokens);
    if (saved.unwanted) return;
    saved.node = root;
  }
  if (!SaveBlocks(tokens, sequence, saved)) return;
  const bool wanted = options_.strategy == WindowStrategy::kFull ? position % kBlockTokens == 0
                      : options_.strategy == WindowStrategy::kPeriodic
                          ? end || position % options_.period == 0
                          : false;
  if (!wanted) return;
  const RecordName name{.kind = RecordKind::kState,
                        .parent = *saved.node,
                        .position = position,
                        .ids = tokens.subspan(size_t{saved.blocks} * kBlockTokens)};
  if (options_.store->Contains(diskcache::KeyOf(name))) return;
  std::vector<uint8_t> payload;
  kvcache::PackState(sequence, payload);
  options_.store->Put(name, std::move(payload));  // false: a hit replays instead
}

uint32_t DiskTier::NextSave(uint32_t position) const {
  const uint32_t step = options_.strategy == WindowStrategy::kFull       ? kBlockTokens
                        : options_.strategy == WindowStrategy::kPeriodic ? options_.period
                                                                         : UINT32_MAX;
  const uint64_t next = (uint64_t{position} / step + 1) * step;
  return static_cast<uint32_t>(std::min<uint64_t>(next, UINT32_MAX));
}

void DiskTier::Purge(kvcache::CacheScope scope) { options_.store->Purge(Root(scope)); }

}  // namespace cachalot::engine
