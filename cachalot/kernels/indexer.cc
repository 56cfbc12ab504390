// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/indexer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "cachalot/kernels/matmul_ref.h"
#include "cachalot/kernels/quantize.h"

namespace cachalot::kernels {
namespace {

// Entries scored by one task; one key is decoded once for all heads.
constexpr size_t kEntriesPerTask = 256;
constexpr size_t kMaxKeyDim = 1024;

void ScoreEntries(const IndexQuery& query, uint32_t heads, size_t begin, size_t end) {
  const size_t key_dim = query.keys.layout.key_dim;
  CACHALOT_CHECK(key_dim <= kMaxKeyDim);
  float key[kMaxKeyDim];
  for (size_t j = begin; j < end; ++j) {
    const ConstKvRows block = query.keys.Block(j / query.keys.rows_per_block);
    LoadIndexKey(block, j % query.keys.rows_per_block, {key, key_dim});
    float score = 0.0f;
    for (uint32_t h = 0; h < heads; ++h) {
      const float dot = ref::Dot({query.q + h * key_dim, key_dim}, {key, key_dim});
      score += query.weights[h] * std::max(dot, 0.0f);
    }
    query.scores[j] = score;
  }
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

void IndexScores(const IndexerArgs& args, const Context& ctx) {
  for (const IndexQuery& query : args.queries) {
    const size_t tasks = (query.num_entries + kEntriesPerTask - 1) / kEntriesPerTask;
    ctx.pool->ParallelFor(tasks, [&](size_t task, size_t) {
      const size_t begin = task * kEntriesPerTask;
      ScoreEntries(query, args.heads, begin,
                   std::min<size_t>(begin + kEntriesPerTask, query.num_entries));
    });
  }
}

void SelectEntries(const IndexerArgs& args, const Context& ctx) {
  for (const IndexQuery& query : args.queries) {
    if (query.num_entries > args.topk) {
      IndexScores({.queries = {&query, 1}, .heads = args.heads, .topk = args.topk}, ctx);
    }
  }
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
