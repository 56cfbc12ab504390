// SPDX-License-Identifier: Apache-2.0
// Cuts the scoring of a call into tasks, runs the code of ctx.target, selects.
#include "cachalot/kernels/indexer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "cachalot/base/check.h"
#include "cachalot/kernels/indexer_ref.h"
#include "cachalot/kernels/indexer_tile.h"

namespace cachalot::kernels {
namespace {

// Entries of a task: whole tiles, about 30 us at 64 heads of 128 dims.
constexpr size_t kEntriesPerTask = 4 * kTileRows;

size_t NumTasks(const IndexQuery& query) {
  return (query.num_entries + kEntriesPerTask - 1) / kEntriesPerTask;
}

// Scores of every query with more than `skip_up_to` entries, in one parallel region.
void ScoreQueries(const IndexerArgs& args, uint32_t skip_up_to, const Context& ctx) {
  const auto wanted = [&](const IndexQuery& query) { return query.num_entries > skip_up_to; };
  size_t num_tasks = 0;
  size_t scratch_bytes = 0;
  bool native = true;
  for (const IndexQuery& query : args.queries) {
    if (!wanted(query)) continue;
    CACHALOT_CHECK(query.keys.layout.key_dim > 0 && query.keys.layout.key_dim <= kMaxKeyDim);
    num_tasks += NumTasks(query);
    scratch_bytes =
        std::max(scratch_bytes, IndexScratchBytes(query.keys.layout.key_dim, args.heads));
    native = native && query.keys.layout.format == KvFormat::kNative;
  }
  IndexFn* score = ctx.path == Path::kSimd && native ? HighwayIndexScores(ctx.target) : nullptr;
  ScoreFn* score_bf16 = ctx.target == Target::kAvx512Bf16 ? X86ScoreBF16() : nullptr;
  ctx.pool->ParallelFor(num_tasks, [&](size_t i, size_t worker) {
    const IndexQuery* query = args.queries.data();
    for (; !wanted(*query) || i >= NumTasks(*query); ++query) {
      if (wanted(*query)) i -= NumTasks(*query);
    }
    const size_t begin = i * kEntriesPerTask;
    const size_t end = std::min<size_t>(begin + kEntriesPerTask, query->num_entries);
    if (score == nullptr) return ref::ScoreEntries(*query, args.heads, begin, end);
    score({query, args.heads, begin, end, ctx.pool->WorkerScratch(worker, scratch_bytes)},
          score_bf16);
  });
}

// Larger score first, then lower index; NaN last.
struct Better {
  const float* scores;
  float Key(uint32_t j) const {
    return std::isnan(scores[j]) ? -std::numeric_limits<float>::infinity() : scores[j];
  }
  bool operator()(uint32_t a, uint32_t b) const {
    const float ka = Key(a);
    const float kb = Key(b);
    return ka != kb ? ka > kb : a < b;
  }
};

void SelectTop(const IndexQuery& query, uint32_t topk, const Context& ctx, size_t worker) {
  auto* order = reinterpret_cast<uint32_t*>(
      ctx.pool->WorkerScratch(worker, query.num_entries * sizeof(uint32_t)));
  std::iota(order, order + query.num_entries, 0u);
  std::nth_element(order, order + topk, order + query.num_entries, Better{query.scores});
  std::sort(order, order + topk);
  std::copy_n(order, topk, query.selected);
}

}  // namespace

void IndexScores(const IndexerArgs& args, const Context& ctx) { ScoreQueries(args, 0, ctx); }

void SelectEntries(const IndexerArgs& args, const Context& ctx) {
  ScoreQueries(args, args.topk, ctx);
  ctx.pool->ParallelFor(args.queries.size(), [&](size_t i, size_t worker) {
    const IndexQuery& query = args.queries[i];
    if (query.num_entries > args.topk) {
      SelectTop(query, args.topk, ctx, worker);
    } else {
      std::iota(query.selected, query.selected + query.num_entries, 0u);
    }
  });
}

}  // namespace cachalot::kernels
