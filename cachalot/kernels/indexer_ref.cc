// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/indexer_ref.h"

#include <algorithm>

#include "cachalot/base/check.h"
#include "cachalot/kernels/indexer_tile.h"
#include "cachalot/kernels/matmul_ref.h"
#include "cachalot/kernels/quantize.h"

namespace cachalot::kernels::ref {

void ScoreEntries(const IndexQuery& query, uint32_t heads, size_t begin, size_t end,
                  float* scores) {
  const size_t key_dim = query.keys.layout.key_dim;
  CACHALOT_CHECK(key_dim <= kMaxKeyDim);
  float key[kMaxKeyDim];
  for (size_t j = begin; j < end; ++j) {
    const ConstKvRows block = query.keys.Block(j / query.keys.rows_per_block);
    LoadIndexKey(block, j % query.keys.rows_per_block, {key, key_dim});
    float score = 0.0f;
    for (uint32_t h = 0; h < heads; ++h) {
      const float dot = Dot({query.q + h * key_dim, key_dim}, {key, key_dim});
      score += query.weights[h] * std::max(dot, 0.0f);
    }
    *scores++ = score;
  }
}

}  // namespace cachalot::kernels::ref
