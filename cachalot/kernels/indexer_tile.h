// SPDX-License-Identifier: Apache-2.0
// Inside of indexer: the task and the code that runs it. Not for other modules.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cachalot/kernels/attention_tile.h"
#include "cachalot/kernels/indexer.h"

namespace cachalot::kernels {

inline constexpr size_t kMaxKeyDim = 1024;

// Entries [begin, end) of one query; begin is a multiple of kTileRows.
struct IndexTask {
  const IndexQuery* query = nullptr;
  uint32_t heads = 0;
  size_t begin = 0;
  size_t end = 0;
  uint8_t* scratch = nullptr;  // IndexScratchBytes, 64-byte aligned
};

// In 4-byte words: the tile as rows, packed and transposed, q, and scores of four heads.
constexpr size_t IndexScratchBytes(size_t key_dim, size_t heads) {
  const size_t d = PaddedDim(key_dim);
  return 4 * (2 * kTileRows * TileStride(d) + kTileRows * d + RoundUp(heads, kHeadBlock) * d +
              kHeadBlock * kTileRows);
}

using IndexFn = void(const IndexTask& task, ScoreFn* score_bf16);
IndexFn* HighwayIndexScores(Target target);  // null: the reference runs instead

}  // namespace cachalot::kernels
