// SPDX-License-Identifier: Apache-2.0
// Lightning indexer: which compressed entries a query reads.  [V4 2.3.1 eq. 13-17; model.md 4.8]
//
//   score[j] = sum_h w[h] * relu(q[h] . K[j])      keep the index_topk largest
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cachalot/kernels/context.h"
#include "cachalot/tensor/kv_layout.h"

namespace cachalot::kernels {

// One query token.
struct IndexQuery {
  const float* q = nullptr;        // [heads, key_dim], after rope, Hadamard and FP4 round trip
  const float* weights = nullptr;  // [heads], scaled by key_dim^-0.5 * heads^-0.5
  CompressedView keys;             // key_dim > 0
  uint32_t num_entries = 0;        // visible: floor((t + 1) / r)
  uint32_t* selected = nullptr;    // out: min(topk, num_entries) entry indices, ascending
};

struct IndexerArgs {
  std::span<const IndexQuery> queries;
  uint32_t heads = 0;
  uint32_t topk = 0;            // at least 1
  std::span<uint64_t> scratch;  // SelectScratchWords of at least so many queries
};

// Words of scratch for calls with up to `max_queries` queries: 8 KiB a query at topk 512, whatever
// the number of entries.
size_t SelectScratchWords(size_t max_queries, uint32_t topk, size_t num_threads);

// The selected set is the topk largest scores, ties to the lower index, written in ascending index
// order. NaN scores count as the smallest. num_entries <= topk selects all without scoring. Each
// query alone. Scores are used as they are made and never kept; nothing serial grows with
// num_entries. Cost: 2 heads key_dim num_entries op a query, 68 bytes an entry read once.
void SelectEntries(const IndexerArgs& args, const Context& ctx);

// The scores themselves: scores[i][0 .. queries[i].num_entries). For tests; scratch is not used.
void IndexScores(const IndexerArgs& args, std::span<float* const> scores, const Context& ctx);

}  // namespace cachalot::kernels
