// SPDX-License-Identifier: Apache-2.0
// Prefixes that were seen before: in memory, and on disk if there is one.
#include <algorithm>

#include "cachalot/engine/engine_internal.h"

namespace cachalot::engine {

// From memory, or from disk where that saves a block's worth of tokens more.
Status Engine::Impl::GoOnFromCache(Task& task) {
  const kvcache::CacheScope scope = *task.request.cache;
  if (disk != nullptr) {
    const uint32_t in_memory = cache->Find(scope, task.tokens);
    DiskPlan plan = disk->Find(scope, task.tokens);
    if (plan.begin >= in_memory + kvcache::kBlockTokens) {
      auto restore = disk->Start(std::move(plan), task.tokens, *task.sequence);
      if (restore.ok()) {
        task.restore = std::move(*restore);
        task.restore_begin = Clock::now();
        return {};
      }
      // A file that is gone, no memory: it is a cache, the prompt can be computed.
      ++stats.disk_failures;
      task.sequence->Reset();
    }
  }
  task.reused = cache->Restore(scope, task.tokens, *task.sequence);
  stats.reused_tokens += task.reused;
  return {};
}

// Takes what has come from disk. Waits for it only when there is nothing else to do.
Status Engine::Impl::PollRestores() {
  if (disk == nullptr) return {};
  const bool wait = std::ranges::none_of(running, [](const auto& task) { return task->ready(); });
  for (const auto& task : running) {
    if (!task->ready()) CACHALOT_RETURN_IF_ERROR(PollRestore(*task, wait));
  }
  return {};
}

Status Engine::Impl::PollRestore(Task& task, bool wait) {
  // Each failure removes a record from the store, so this ends.
  while (!task.ready()) {
    const Result<bool> done = task.restore->Poll(wait);
    if (done.ok() && !*done) return {};
    stats.restore_seconds += SecondsSince(task.restore_begin);
    if (done.ok()) {
      task.reused = task.restore->plan().begin;
      task.approximate = task.restore->plan().approximate;
      stats.reused_tokens += task.reused;
      stats.disk_tokens += task.reused;
      ++stats.disk_restores;
      task.restore.reset();
      return {};
    }
    ++stats.disk_failures;
    task.restore.reset();
    task.sequence->Reset();
    CACHALOT_RETURN_IF_ERROR(GoOnFromCache(task));
  }
  return {};
}

// So that a later prompt which begins with what this one has seen goes on from here.
void Engine::Impl::Remember(Task& task, bool end) {
  if (!task.request.cache || task.approximate || task.broken || !task.ready()) return;
  cache->Save(*task.request.cache, std::span(task.tokens).first(task.fed()), *task.sequence);
  SaveToDisk(task, end);
}

void Engine::Impl::SaveToDisk(Task& task, bool end) {
  if (disk == nullptr || !task.request.cache || task.approximate) return;
  disk->Save(*task.request.cache, std::span(task.tokens).first(task.fed()), *task.sequence, end,
             task.saved);
}

}  // namespace cachalot::engine
