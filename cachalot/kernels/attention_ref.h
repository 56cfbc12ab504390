// SPDX-License-Identifier: Apache-2.0
// Plain two-pass attention of one head, float32, rows in order: what attention.h's tiles and
// partitions compute, without them.
#pragma once

#include <cstdint>
#include <span>

#include "cachalot/kernels/attention.h"

namespace cachalot::kernels::ref {

// Decodes every row the query sees into `rows` [num_rows, d], window first, both ascending.
uint32_t GatherRows(const AttentionQuery& query, uint32_t sliding_window, float* rows);

// out [d] of head h over gathered rows; `scores` is scratch of num_rows floats.
void AttendHead(const AttentionArgs& args, const AttentionQuery& query, uint32_t h,
                const float* rows, uint32_t num_rows, float* scores);

}  // namespace cachalot::kernels::ref
