// SPDX-License-Identifier: Apache-2.0
// Blocks and states as the bytes that leave memory: without the rows of a ring that nobody will
// read, and without padding. The same for every process of the same KvSpec.
// [docs/formats/disk-cache.md; report.md 10.3, 10.5]
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/kvcache/kv_cache.h"

namespace cachalot::kvcache {

// `out` and `in` have spec().block_bytes() bytes: layer after layer, as the slabs hold them. A
// packed block is complete. Cost: one copy.
void PackBlock(BlockPool& pool, BlockId id, std::span<uint8_t> out);
void UnpackBlock(BlockPool& pool, BlockId id, std::span<const uint8_t> in);

// What a sequence at `position` needs beside its complete blocks: the last W window rows of every
// layer, the rows of the block it stands in, and the raw compressor rows that entries to come will
// read. Depends on the position only through its remainder by 128 and whether W tokens are there.
size_t PackedStateBytes(const KvSpec& spec, uint32_t position);

// Pre: no replay is going on. Appends to `out`. Rows of rewound tokens are not among what is
// packed.
void PackState(Sequence& sequence, std::vector<uint8_t>& out);

// The inverse: `sequence` has room reserved for `position` and its complete blocks are filled;
// afterwards it stands there and cannot be rewound. kDataCorruption, and nothing changed, if the
// size is not that of this spec and position.
Status UnpackState(std::span<const uint8_t> in, uint32_t position, Sequence& sequence);

}  // namespace cachalot::kvcache
