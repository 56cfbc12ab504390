// SPDX-License-Identifier: Apache-2.0
// How KV entries lie in memory: the one description shared by the cache that owns them and the
// kernels that read and write them. [report.md 2.3.4, model.md 8.2, design.md 4]
//
// A *row* is one entry: the vector that is both key and value of every head (head_dim = d), whose
// last rope_dim (rd) dims are rotated, and, in CSA layers, the index key beside it.
// Rows are kept as structure of arrays. For `capacity` rows, native format, Flash sizes:
//
//   values  fp8   [capacity][d - rd]        448   E4M3 codes
//   rope    bf16  [capacity][rd]            128
//   scales  e8m0  [capacity][scale_bytes]     8   one per 64 values (7 used), rest zero
//   key_codes  fp4 [capacity][key_dim / 2]   64   only if key_dim > 0; low nibble first
//   key_scales e8m0 [capacity][key_dim / 32]  4
//
// i.e. 584 bytes an entry and 68 an index key. The f32 format (`exact` numerics, gradients) holds
// float32 values[capacity][d] and keys[capacity][key_dim] instead.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "cachalot/base/check.h"

namespace cachalot {

enum class KvFormat : uint8_t { kNative, kF32 };

enum class BlockId : uint32_t {};

inline constexpr uint32_t kKvScaleBlock = 64;   // values per E8M0 scale
inline constexpr uint32_t kKeyScaleBlock = 32;  // index key dims per E8M0 scale

struct KvLayout {
  KvFormat format = KvFormat::kNative;
  uint32_t head_dim = 0;  // d; d - rd is a multiple of 64 in the native format
  uint32_t rope_dim = 0;  // rd
  uint32_t key_dim = 0;   // 0: no index keys (window rows, HCA)

  constexpr size_t value_bytes() const {
    return format == KvFormat::kNative ? head_dim - rope_dim : size_t{4} * head_dim;
  }
  constexpr size_t rope_bytes() const {
    return format == KvFormat::kNative ? size_t{2} * rope_dim : 0;
  }
  constexpr size_t num_scales() const {
    return format == KvFormat::kNative ? (head_dim - rope_dim) / kKvScaleBlock : 0;
  }
  // Padded to 8 so that a Flash entry is 584 bytes, as the released caches have it.
  constexpr size_t scale_bytes() const { return (num_scales() + 7) / 8 * 8; }
  constexpr size_t key_code_bytes() const {
    return format == KvFormat::kNative ? key_dim / 2 : size_t{4} * key_dim;
  }
  constexpr size_t key_scale_bytes() const {
    return format == KvFormat::kNative ? key_dim / kKeyScaleBlock : 0;
  }
  constexpr size_t row_bytes() const {
    return value_bytes() + rope_bytes() + scale_bytes() + key_code_bytes() + key_scale_bytes();
  }
};

// `capacity` rows starting at `base`. Byte is uint8_t or const uint8_t. No alignment is promised.
template <typename Byte>
struct BasicKvRows {
  KvLayout layout;
  Byte* base = nullptr;
  uint32_t capacity = 0;

  BasicKvRows() = default;
  BasicKvRows(const KvLayout& l, Byte* b, uint32_t c) : layout(l), base(b), capacity(c) {}
  template <typename Other>
  requires std::is_convertible_v<Other*, Byte*> BasicKvRows(
      const BasicKvRows<Other>& o)  // NOLINT: implicit
      : layout(o.layout), base(o.base), capacity(o.capacity) {}

  Byte* Values(size_t row) const { return base + row * layout.value_bytes(); }
  Byte* Rope(size_t row) const {
    return base + capacity * layout.value_bytes() + row * layout.rope_bytes();
  }
  Byte* Scales(size_t row) const {
    return base + capacity * (layout.value_bytes() + layout.rope_bytes()) +
           row * layout.scale_bytes();
  }
  Byte* KeyCodes(size_t row) const {
    return base + capacity * (layout.value_bytes() + layout.rope_bytes() + layout.scale_bytes()) +
           row * layout.key_code_bytes();
  }
  Byte* KeyScales(size_t row) const {
    return base +
           capacity * (layout.value_bytes() + layout.rope_bytes() + layout.scale_bytes() +
                       layout.key_code_bytes()) +
           row * layout.key_scale_bytes();
  }
};
using KvRows = BasicKvRows<uint8_t>;
using ConstKvRows = BasicKvRows<const uint8_t>;

// The compressed entries of one sequence in one layer, through its block table. Entry j lives in
// block j / rows_per_block at row j % rows_per_block; a block is `capacity = rows_per_block` rows.
struct CompressedView {
  KvLayout layout;
  const uint8_t* slab = nullptr;  // this layer's blocks
  size_t block_bytes = 0;         // from block to block
  uint32_t rows_per_block = 0;    // CSA 32, HCA 1
  std::span<const BlockId> blocks;

  ConstKvRows Block(size_t i) const {
    return {layout, slab + static_cast<size_t>(blocks[i]) * block_bytes, rows_per_block};
  }
};

}  // namespace cachalot
