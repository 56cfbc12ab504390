// SPDX-License-Identifier: Apache-2.0
// The reference of indexer.h: plain float32, the same bits on every machine.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cachalot/kernels/indexer.h"

namespace cachalot::kernels::ref {

// scores[0 .. end - begin): of entries begin, begin + 1, ...
void ScoreEntries(const IndexQuery& query, uint32_t heads, size_t begin, size_t end, float* scores);

}  // namespace cachalot::kernels::ref
