// SPDX-License-Identifier: Apache-2.0
// Cuts a call into tasks of one token and some heads and runs the code of ctx.target on each.
#include "cachalot/kernels/attention.h"

#include <algorithm>

#include "cachalot/base/check.h"
#include "cachalot/kernels/attention_ref.h"
#include "cachalot/kernels/attention_tile.h"

namespace cachalot::kernels {
namespace {

void AttendReference(const AttentionArgs& args, const AttentionQuery& query, ThreadPool& pool,
                     size_t worker) {
  const size_t most_rows = size_t{args.sliding_window} + query.num_compressed;
  auto* scratch = reinterpret_cast<float*>(
      pool.WorkerScratch(worker, most_rows * (args.head_dim + 1) * sizeof(float)));
  float* scores = scratch + most_rows * args.head_dim;
  const uint32_t num_rows = ref::GatherRows(query, args.sliding_window, scratch);
  for (uint32_t h = 0; h < args.num_heads; ++h) {
    ref::AttendHead(args, query, h, scratch, num_rows, scores);
  }
}

// 32 heads keep a task's scratch in L2 (1 MiB on Zen 4) and share the decoding of a row well; 16
// where a single token must feed all threads. No bit depends on it.
uint32_t HeadsPerTask(size_t num_queries, uint32_t num_heads, size_t num_threads) {
  const size_t num_tasks = num_queries * ((num_heads + 31) / 32);
  return num_tasks >= 2 * num_threads ? 32 : 16;
}

void CheckQuery(const AttentionArgs& args, const AttentionQuery& query) {
  CACHALOT_CHECK(query.window.layout.head_dim == args.head_dim);
  CACHALOT_CHECK(query.window.capacity >= args.sliding_window);
  CACHALOT_CHECK(query.num_compressed == 0 || (query.compressed.layout.head_dim == args.head_dim &&
                                               query.compressed.rows_per_block > 0));
}

}  // namespace

void Attention(const AttentionArgs& args, const Context& ctx) {
  CACHALOT_CHECK(args.sliding_window > 0 && args.sink.size() == args.num_heads);
  bool native = true;
  for (const AttentionQuery& query : args.queries) {
    CheckQuery(args, query);
    native = native && query.window.layout.format == KvFormat::kNative;
  }
  AttentionFn* attend = ctx.path == Path::kSimd && native ? HighwayAttention(ctx.target) : nullptr;
  if (attend == nullptr) {
    ctx.pool->ParallelFor(args.queries.size(), [&](size_t i, size_t worker) {
      AttendReference(args, args.queries[i], *ctx.pool, worker);
    });
    return;
  }
  ScoreFn* score_bf16 = HasBf16Dot(ctx.target) ? X86ScoreBF16() : nullptr;
  const uint32_t per_task =
      HeadsPerTask(args.queries.size(), args.num_heads, ctx.pool->num_threads());
  const size_t groups = (args.num_heads + per_task - 1) / per_task;
  const size_t scratch_bytes = AttentionScratchBytes(args.head_dim, per_task);
  ctx.pool->ParallelFor(args.queries.size() * groups, [&](size_t i, size_t worker) {
    AttentionTask task{.args = &args, .query = &args.queries[i / groups]};
    task.head_begin = static_cast<uint32_t>(i % groups) * per_task;
    task.num_heads = std::min(per_task, args.num_heads - task.head_begin);
    task.scratch = ctx.pool->WorkerScratch(worker, scratch_bytes);
    attend(task, score_bf16);
  });
}

}  // namespace cachalot::kernels
