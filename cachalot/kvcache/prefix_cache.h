// SPDX-License-Identifier: Apache-2.0
// Prefixes that were computed before, for any sequence to go on from. [design.md 4, Resuming;
// report.md 10; docs/design/kvcache.md]
//
// A block alone cannot be resumed: windows and compressor tails belong to a position. So the unit
// of reuse is a checkpoint: a saved state slot, the complete blocks before it (shared) and a copy
// of the block it stands in. Checkpoints hang on a tree of blocks, one node per 128 tokens;
// a node lives as long as a checkpoint needs it.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/kvcache/kv_cache.h"

namespace cachalot::kvcache {

// Who may share: a prefix is found only by requests of the scope that stored it, so that timing
// tells nobody what others asked.
enum class CacheScope : uint64_t {};

struct PrefixCacheStats {
  size_t bytes = 0;  // of distinct blocks and states held
  size_t checkpoints = 0;
  uint64_t hits = 0;     // Restore calls that reused something
  uint64_t misses = 0;   // and those that did not
  uint64_t evicted = 0;  // checkpoints dropped for room
};

// Thread-safety: none; one owner, the same as the pool's.
class PrefixCache {
 public:
  // Holds at most `max_bytes`, least recently used checkpoints go first. The pool outlives it and
  // has blocks for that beside those of running sequences; if it has not, less is stored.
  PrefixCache(BlockPool& pool, size_t max_bytes);
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  // Puts `sequence` (whatever it was) at the furthest position <= tokens.size() - 1 from which it
  // can go on with `tokens`, and returns that position; 0: the sequence was reset. A checkpoint up
  // to kMaxRewind tokens past the common prefix serves too, by rewinding. The continuation has the
  // bits of a run without the cache. Cost: one pass over the tokens, one copy of a state slot.
  uint32_t Restore(CacheScope scope, std::span<const uint32_t> tokens, Sequence& sequence);

  // The position Restore would return.
  uint32_t Find(CacheScope scope, std::span<const uint32_t> tokens) const {
    return FindBest(scope, tokens).position;
  }

  // Remembers the state of `sequence`, which was fed exactly `tokens`. False if there is no room
  // (never an error: a cache that is full forgets) or the sequence is in the middle of a replay.
  bool Save(CacheScope scope, std::span<const uint32_t> tokens, const Sequence& sequence);

  // A new bound, from now on: running sequences need the rest.
  void SetMaxBytes(size_t max_bytes);
  void Purge(CacheScope scope);

  const PrefixCacheStats& stats() const { return stats_; }

 private:
  struct Node;
  struct Checkpoint;
  struct Match {
    Checkpoint* checkpoint = nullptr;
    uint32_t position = 0;  // where the sequence goes on: at most the checkpoint's
  };
  using CheckpointList = std::list<std::unique_ptr<Checkpoint>>;  // most recently used first

  Match FindBest(CacheScope scope, std::span<const uint32_t> tokens) const;
  bool RestoreFrom(Checkpoint& checkpoint, uint32_t position, Sequence& sequence);
  Node& PathTo(CacheScope scope, std::span<const uint32_t> tokens, std::span<const BlockId> blocks);
  Result<BlockId> CopyBlock(BlockId from);
  void Evict();
  void DropOldest();
  void Touch(Checkpoint& checkpoint);
  void Drop(Checkpoint& checkpoint);
  void DropUnused(Node* node);

  BlockPool& pool_;
  size_t max_bytes_;
  PrefixCacheStats stats_;
  CheckpointList checkpoints_;
  std::unordered_map<uint64_t, std::unique_ptr<Node>> roots_;
};

}  // namespace cachalot::kvcache
