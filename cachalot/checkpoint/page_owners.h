// SPDX-License-Identifier: Apache-2.0
// Which memory node a copy of a shard lies in, page by page.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cachalot/checkpoint/checkpoint.h"
#include "cachalot/threading/placement.h"

namespace cachalot::checkpoint {

// Rows of every matrix of the shard at `data` belong to nodes in the proportion of `parts`, as
// products deal their panels. A huge page is one node's: that with most of its matrix bytes, part 0
// where there are none. Returns a part for each `page_bytes` of the shard. `tensors` may name
// others, which are skipped. Every border between two shares leaves bytes on the wrong side: a
// quarter of a page on average.
std::vector<uint32_t> PageOwners(const uint8_t* data, uint64_t size, uint64_t page_bytes,
                                 std::span<const TensorInfo> tensors, const NodeParts& parts);

// The same as what each part's thread reads, on the CPUs of its workers.
std::vector<io::CopyPart> CopyParts(const io::MappedFile& shard,
                                    std::span<const TensorInfo> tensors,
                                    const Placement& placement);

}  // namespace cachalot::checkpoint
