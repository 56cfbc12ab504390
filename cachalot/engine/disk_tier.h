// SPDX-License-Identifier: Apache-2.0
// Prefixes on disk: which to write, which record to go on from. [docs/design/disk-cache.md]
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/diskcache/reading.h"
#include "cachalot/diskcache/store.h"
#include "cachalot/kvcache/prefix_cache.h"

namespace cachalot::engine {

// What is written of windows. [report.md 10.3]
enum class WindowStrategy : uint8_t {
  kFull,      // a state at every block edge
  kPeriodic,  // every `period` tokens of a prompt, at its end and at the end of an answer
  kZero,      // nothing: replay
  kBounded,   // nothing: replay of W tokens, approximate
};

struct DiskOptions {
  std::shared_ptr<diskcache::Store> store;  // null: no disk
  WindowStrategy strategy = WindowStrategy::kPeriodic;
  uint32_t period = 4096;     // of kPeriodic, a multiple of kvcache::kBlockTokens
  uint32_t min_tokens = 512;  // shorter prefixes are not written
  bool second_sight = false;  // write only what was asked for before

  Status Validate() const;
};

// "full", "periodic:4096" (a multiple of 128), "zero" or "bounded".
Status ParseWindowStrategy(std::string_view text, DiskOptions& options);

// Of one sequence: what of it is known to be on disk.
struct SavedPath {
  uint32_t blocks = 0;
  std::optional<diskcache::Key> node;  // of the last of them; none before the first Save
  bool unwanted = false;               // seen for the first time
};

// Where a prompt can go on.
struct DiskPlan {
  std::vector<diskcache::FoundRecord> records;  // blocks, then perhaps a state
  uint32_t begin = 0;                           // the first token to run
  uint32_t end = 0;  // tokens whose compressed entries are there; > begin: replay from begin
  bool has_state = false;
  bool approximate = false;  // what follows is no longer exact: nobody may save it
};

// A sequence on its way from disk. Its blocks are reserved; nobody steps it before it is done.
class Restore {
 public:
  // True once the sequence stands at plan().begin. With `wait`, returns only then. After an error
  // the sequence is of no use: reset it and look again, what failed is no longer found.
  Result<bool> Poll(bool wait);
  const DiskPlan& plan() const { return plan_; }

 private:
  friend class DiskTier;
  Restore(DiskPlan plan, kvcache::Sequence& sequence)
      : plan_(std::move(plan)), sequence_(sequence) {}

  DiskPlan plan_;
  kvcache::Sequence& sequence_;
  std::unique_ptr<diskcache::Reading> reading_;
};

// Thread-safety: none; the engine's thread.
class DiskTier {
 public:
  // `identity` names everything that bits depend on. `pool` outlives the tier.
  DiskTier(const DiskOptions& options, std::string identity, kvcache::BlockPool& pool,
           uint32_t num_layers);

  // The plan that runs the fewest of `tokens`, at least the last; begin == 0: nothing is stored.
  DiskPlan Find(kvcache::CacheScope scope, std::span<const uint32_t> tokens);
  // `sequence` is fresh. kResourceExhausted without blocks.
  Result<std::unique_ptr<Restore>> Start(DiskPlan plan, std::span<const uint32_t> tokens,
                                         kvcache::Sequence& sequence);

  // Queues what is new of a sequence that was fed `tokens`: blocks, and a state where the strategy
  // has one. `end`: of a prompt or an answer. What does not fit the queue is left out.
  void Save(kvcache::CacheScope scope, std::span<const uint32_t> tokens,
            kvcache::Sequence& sequence, bool end, SavedPath& saved);
  // A prompt's chunk is to end where Save has something to do: the next such position.
  uint32_t NextSave(uint32_t position) const;

  void Purge(kvcache::CacheScope scope);
  diskcache::StoreStats stats() const { return options_.store->stats(); }

 private:
  diskcache::Key Root(kvcache::CacheScope scope);
  bool Wanted(const diskcache::Key& root, std::span<const uint32_t> tokens);
  bool SaveBlocks(std::span<const uint32_t> tokens, kvcache::Sequence& sequence, SavedPath& saved);

  DiskOptions options_;
  std::string identity_;
  kvcache::BlockPool& pool_;
  uint32_t replay_tokens_;
  std::unordered_set<diskcache::Key, diskcache::KeyHash> seen_;
};

}  // namespace cachalot::engine
