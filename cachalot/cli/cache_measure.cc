// SPDX-License-Identifier: Apache-2.0
#include "cachalot/cli/cache_measure.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "cachalot/base/json.h"
#include "cachalot/base/rng.h"
#include "cachalot/base/strings.h"
#include "cachalot/cli/cache_first_token.h"
#include "cachalot/cli/engine_flags.h"
#include "cachalot/engine/disk_tier.h"
#include "cachalot/eval/bench_fill.h"
#include "cachalot/io/direct_read.h"
#include "cachalot/kvcache/packed_state.h"
#include "cachalot/model/config.h"
#include "cachalot/threading/topology.h"

namespace cachalot::cli {
namespace {

using Clock = std::chrono::steady_clock;
using kvcache::kBlockTokens;

constexpr kvcache::CacheScope kScope{};
constexpr uint32_t kSliceBlocks = 128;  // put before a flush: what the queue takes

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

struct Bench {
  model::Config config;
  std::unique_ptr<kvcache::BlockPool> blocks;
  std::shared_ptr<diskcache::Store> store;
  engine::DiskOptions disk;
  std::vector<uint32_t> ids;                      // the prefix and one more
  std::shared_ptr<const model::Weights> weights;  // null: only bytes are moved
  std::string identity = "cache bench";

  engine::DiskTier Tier(engine::WindowStrategy strategy) {
    engine::DiskOptions options = disk;
    options.strategy = strategy;
    return {options, identity, *blocks, config.num_hidden_layers};
  }
};

// Blocks in slices, then what the strategy has at the end of a prompt; seconds with the flushes.
Result<double> StoreAll(Bench& bench, kvcache::Sequence& sequence) {
  const std::span<const uint32_t> tokens(bench.ids);
  const auto total = static_cast<uint32_t>(tokens.size() - 1);
  const Clock::time_point begin = Clock::now();
  engine::DiskTier blocks_only = bench.Tier(engine::WindowStrategy::kZero);
  engine::SavedPath saved;
  for (uint32_t end = 0; end < total;) {
    end = std::min(total, end + kSliceBlocks * kBlockTokens);
    blocks_only.Save(kScope, tokens.first(end), sequence, false, saved);
    CACHALOT_RETURN_IF_ERROR(bench.store->Flush());
  }
  engine::DiskTier tier = bench.Tier(bench.disk.strategy);
  tier.Save(kScope, tokens.first(total), sequence, true, saved);
  CACHALOT_RETURN_IF_ERROR(bench.store->Flush());
  return SecondsSince(begin);
}

struct Restored {
  double seconds = 0;
  uint32_t begin = 0;
  bool equal = true;
};

Result<Restored> RestoreOnce(Bench& bench, kvcache::Sequence& original) {
  CACHALOT_TRY(const auto sequence, kvcache::Sequence::Create(*bench.blocks));
  engine::DiskTier tier = bench.Tier(bench.disk.strategy);
  const Clock::time_point begin = Clock::now();
  engine::DiskPlan plan = tier.Find(kScope, bench.ids);
  CACHALOT_TRY(const auto restore, tier.Start(std::move(plan), bench.ids, *sequence));
  CACHALOT_TRY(const bool done, restore->Poll(true));
  Restored out{.seconds = SecondsSince(begin), .begin = restore->plan().begin, .equal = done};
  std::vector<uint8_t> a(bench.blocks->spec().block_bytes());
  std::vector<uint8_t> b(a.size());
  for (uint32_t i = 0; i < restore->plan().end / kBlockTokens; ++i) {
    kvcache::PackBlock(*bench.blocks, original.blocks()[i], a);
    kvcache::PackBlock(*bench.blocks, sequence->blocks()[i], b);
    out.equal = out.equal && a == b;
  }
  return out;
}

// 0 where no segment is large enough to tell.
double DirectReadRate(const std::string& dir) {
  double best = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir)) {
    if (entry.path().extension() != ".kv") continue;
    const auto speed =
        io::MeasureDirectReads(entry.path().string(), {.depth = 16, .max_seconds = 1.0});
    if (speed.ok()) best = std::max(best, speed->bytes_per_s);
  }
  return best;
}

Status Measure(Bench& bench, const CacheBenchOptions& options) {
  CACHALOT_TRY(const auto original, kvcache::Sequence::Create(*bench.blocks));
  {
    ThreadPool pool(NumPhysicalCores());
    CACHALOT_RETURN_IF_ERROR(
        eval::FillSequence(*original, bench.blocks->spec(), options.tokens, 1, pool));
  }
  CACHALOT_TRY(const double store_seconds, StoreAll(bench, *original));
  const diskcache::StoreStats stats = bench.store->stats();
  std::vector<double> seconds;
  Restored restored;
  for (uint32_t i = 0; i < options.repeats; ++i) {
    CACHALOT_TRY(restored, RestoreOnce(bench, *original));
    if (!restored.equal)
      return Error{ErrorCode::kInternal, "what was read is not what was written"};
    seconds.push_back(restored.seconds);
  }
  const double direct = DirectReadRate(options.dir);
  std::vector<double> sorted = seconds;
  std::ranges::sort(sorted);
  const double median = sorted[sorted.size() / 2];
  const double native = static_cast<double>(bench.blocks->spec().block_bytes()) / kBlockTokens;
  const auto bytes = static_cast<double>(stats.bytes);
  FirstToken first;
  if (bench.weights != nullptr) {
    CACHALOT_TRY(first,
                 MeasureFirstToken(bench.weights, bench.disk, bench.ids, kScope, options.repeats));
  }
  fmt::print("{}\n", Json({{"tokens", options.tokens},
                           {"strategy", options.strategy},
                           {"record_bytes", stats.bytes},
                           {"states", stats.states},
                           {"bytes_per_token", bytes / options.tokens},
                           {"native_bytes_per_token", native},
                           {"store_s", store_seconds},
                           {"restore_s", seconds},
                           {"restore_median_s", median},
                           {"restore_bytes_per_s", bytes / median},
                           {"direct_read_bytes_per_s", direct},
                           {"tokens_not_run", restored.begin},
                           {"first_token_s", first.seconds},
                           {"first_token_computed", first.computed}})
                         .dump());
  return {};
}

// With the weights, where a first token is asked for.
Status LoadAndMeasure(Bench& bench, const CacheBenchOptions& options) {
  if (options.first_token) {
    EngineFlags flags;
    const LoadUse use{.context = options.tokens};
    CACHALOT_TRY(bench.weights, LoadModelWeights(flags, options.model, use));
    CACHALOT_TRY(bench.identity, StoreIdentity(bench.weights, bench.disk, options.tokens + 2));
  }
  return Measure(bench, options);
}

}  // namespace

Status RunCacheBench(const CacheBenchOptions& options) {
  Bench bench;
  CACHALOT_TRY(bench.config, model::LoadConfig(options.model));
  const uint32_t num_blocks = (options.tokens + kBlockTokens - 1) / kBlockTokens;
  CACHALOT_TRY(bench.blocks,
               kvcache::BlockPool::Create(bench.config.kv_spec(KvFormat::kNative, false),
                                          2 * size_t{num_blocks} + 2));
  if (std::filesystem::exists(options.dir)) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat(options.dir, " exists; the bench makes a directory and removes it")};
  }
  bench.disk.min_tokens = kBlockTokens;
  CACHALOT_RETURN_IF_ERROR(engine::ParseWindowStrategy(options.strategy, bench.disk));
  for (uint32_t i = 0; i <= options.tokens; ++i) {
    bench.ids.push_back(static_cast<uint32_t>(CounterRandom(1, 2, i) % bench.config.vocab_size));
  }
  CACHALOT_TRY(auto storage, diskcache::OpenDirectory(options.dir, /*lock=*/true));
  Status status;
  auto store = diskcache::Store::Open(std::move(storage), {.max_bytes = UINT64_MAX});
  if (store.ok()) {
    bench.store = bench.disk.store = std::move(*store);
    status = LoadAndMeasure(bench, options);
    bench.store.reset();
    bench.disk.store.reset();
  } else {
    status = store.error();
  }
  std::error_code error;
  std::filesystem::remove_all(options.dir, error);
  return status;
}

}  // namespace cachalot::cli
