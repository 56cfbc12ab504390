// SPDX-License-Identifier: Apache-2.0
// A random cache and random queries for the tests and benchmarks of attention and indexer.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "cachalot/base/rng.h"
#include "cachalot/kernels/attention.h"
#include "cachalot/kernels/quantize.h"

namespace cachalot::kernels {

inline float TestFloat(uint64_t seed, uint64_t a, uint64_t b) {
  return static_cast<float>(2.0 * UniformOpen(CounterRandom(seed, a, b)) - 1.0);
}

struct TestCacheShape {
  KvLayout layout;
  uint32_t window_capacity = 0;
  uint32_t num_positions = 0;  // written to the window
  uint32_t rows_per_block = 32;
  uint32_t num_entries = 0;
};

// Entries are a function of (seed, position) alone. Blocks lie in reverse order.
class TestCache {
 public:
  TestCache(const TestCacheShape& shape, uint64_t seed)
      : shape_(shape), window_layout_(shape.layout) {
    window_layout_.key_dim = 0;
    window_bytes_.assign(shape.window_capacity * window_layout_.row_bytes(), 0xFF);
    std::vector<float> entry(shape.layout.head_dim);
    const KvRows window(window_layout_, window_bytes_.data(), shape.window_capacity);
    for (uint32_t p = 0; p < shape.num_positions; ++p) {
      Fill(seed, p, entry);
      StoreKvEntry(entry, window, p % shape.window_capacity);
    }
    const uint32_t num_blocks =
        (shape.num_entries + shape.rows_per_block - 1) / shape.rows_per_block;
    block_bytes_ = shape.rows_per_block * shape.layout.row_bytes();
    slab_.assign(num_blocks * block_bytes_, 0xFF);
    for (uint32_t b = 0; b < num_blocks; ++b) blocks_.push_back(BlockId{num_blocks - 1 - b});
    std::vector<float> key(shape.layout.key_dim);
    for (uint32_t j = 0; j < shape.num_entries; ++j) {
      const BlockId id = blocks_[j / shape.rows_per_block];
      const KvRows rows(shape.layout, slab_.data() + static_cast<size_t>(id) * block_bytes_,
                        shape.rows_per_block);
      Fill(seed + 1, j, entry);
      StoreKvEntry(entry, rows, j % shape.rows_per_block);
      if (key.empty()) continue;
      Fill(seed + 2, j, key);
      StoreIndexKey(key, rows, j % shape.rows_per_block);
    }
  }

  ConstKvRows window() const {
    return {window_layout_, window_bytes_.data(), shape_.window_capacity};
  }
  CompressedView compressed() const {
    return {shape_.layout, slab_.data(), block_bytes_, shape_.rows_per_block, blocks_};
  }

 private:
  static void Fill(uint64_t seed, uint64_t row, std::vector<float>& v) {
    for (size_t i = 0; i < v.size(); ++i) v[i] = TestFloat(seed, row, i);
  }

  TestCacheShape shape_;
  KvLayout window_layout_;
  size_t block_bytes_ = 0;
  std::vector<uint8_t> window_bytes_;
  std::vector<uint8_t> slab_;
  std::vector<BlockId> blocks_;
};

inline std::vector<float> TestVector(size_t size, uint64_t seed) {
  std::vector<float> v(size);
  for (size_t i = 0; i < size; ++i) v[i] = TestFloat(seed, i, 0);
  return v;
}

// What rounding allows between `got` and the exact output of one head: the error e of a score
// turns every weight by at most exp(2 e), and sums of n terms add n + 64 roundings (the rescalings
// of tiles and partitions, exp at 4 ulp).
inline double AttentionErrorBound(double score_error, double weighted_magnitude, size_t num_rows) {
  const double roundings = static_cast<double>(num_rows) + 64;
  return (std::expm1(2 * score_error) + 2 * roundings * 0x1p-24) * weighted_magnitude;
}

// Relative error of a product q . k against the sum of magnitudes: BF16 rounds q by 2^-9 where the
// target does so, and d products and sums round by 2^-24.
inline double ScoreRounding(Target target, Path path, size_t d) {
  const bool bf16 = path == Path::kSimd && HasBf16Dot(target);
  return (bf16 ? 0x1p-9 : 0.0) + static_cast<double>(d + 8) * 0x1p-24;
}

}  // namespace cachalot::kernels
