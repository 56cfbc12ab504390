// SPDX-License-Identifier: Apache-2.0
// Inside of attention and indexer: tiles of 64 keys, and the code that scores them. Not for other
// modules.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cachalot/kernels/attention.h"

namespace cachalot::kernels {

inline constexpr uint32_t kTileRows = 64;         // keys of a softmax tile
inline constexpr uint32_t kPartitionRows = 1024;  // compressed entries that share a maximum
inline constexpr uint32_t kHeadBlock = 4;         // heads of one pass over a tile

// A tile lies transposed, so that a lane is a key and no score needs a sum over lanes:
// keys[step][64] words, a word being one float32 dim, or two BF16 dims, the even one low.
// q [4][steps] in the same words. scores [4][64] = q . key, overwritten; steps ascend.
using ScoreFn = void(const void* q, const void* keys, size_t steps, float* scores);

ScoreFn* X86ScoreBF16();  // vdpbf16ps; null where this build has none

constexpr size_t RoundUp(size_t n, size_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}
constexpr size_t PaddedDim(size_t d) { return RoundUp(d, 64); }
// Rows 33 cache lines apart (for d = 512): 32 would put all rows of a tile into 8 sets of L1.
constexpr size_t TileStride(size_t padded_dim) { return padded_dim + 16; }

// Heads [head_begin, head_begin + num_heads) of one query.
struct AttentionTask {
  const AttentionArgs* args = nullptr;
  const AttentionQuery* query = nullptr;
  uint32_t head_begin = 0;
  uint32_t num_heads = 0;
  uint8_t* scratch = nullptr;  // AttentionScratchBytes, 64-byte aligned
};

// Scratch in float32 words: the tile as it is used for values and twice for keys (rows, then
// transposed), then per head q, two output rows, 64 scores and five scalars.
constexpr size_t AttentionScratchBytes(size_t head_dim, size_t num_heads) {
  const size_t d = PaddedDim(head_dim);
  const size_t heads = RoundUp(num_heads, 16);
  return 4 * (2 * kTileRows * TileStride(d) + kTileRows * d + heads * (3 * d + kTileRows + 5));
}

using AttentionFn = void(const AttentionTask& task, ScoreFn* score_bf16);
AttentionFn* HighwayAttention(Target target);  // null: the reference runs instead

}  // namespace cachalot::kernels
