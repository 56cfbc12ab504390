// SPDX-License-Identifier: Apache-2.0
#include "cachalot/kernels/attention.h"

#include "cachalot/kernels/attention_ref.h"

namespace cachalot::kernels {

void Attention(const AttentionArgs& args, const Context& ctx) {
  ctx.pool->ParallelFor(args.queries.size(), [&](size_t i, size_t worker) {
    const AttentionQuery& query = args.queries[i];
    const size_t most_rows = size_t{args.sliding_window} + query.num_compressed;
    auto* scratch = reinterpret_cast<float*>(
        ctx.pool->WorkerScratch(worker, most_rows * (args.head_dim + 1) * sizeof(float)));
    float* scores = scratch + most_rows * args.head_dim;
    const uint32_t num_rows = ref::GatherRows(query, args.sliding_window, scratch);
    for (uint32_t h = 0; h < args.num_heads; ++h) {
      ref::AttendHead(args, query, h, scratch, num_rows, scores);
    }
  });
}

}  // namespace cachalot::kernels
