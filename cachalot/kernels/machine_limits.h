// SPDX-License-Identifier: Apache-2.0
// What this machine can do, measured: the denominators of every speed we report. [design.md 2]
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cachalot/kernels/context.h"

namespace cachalot::kernels {

struct MachineLimits {
  double read_bytes_per_s = 0;  // streaming reads of memory that no cache holds
  double f32_flop_per_s = 0;    // float32 multiply-add, widest vectors
  double bf16_flop_per_s = 0;   // BF16 dot; 0 without the instruction
  double int8_op_per_s = 0;     // INT8 dot (VNNI); 0 without the instruction
};

// Bytes whose reads no cache answers for: twice the last level's, at least 256 MiB, at most 1 GiB
// (hosts of virtual machines have caches of 480 MiB).
size_t BytesPastCaches();

// All of ctx.pool's threads at once; best of a few runs, about half a second in all.
// `buffer_bytes` is allocated, filled and freed; 1 GiB is past every cache.
MachineLimits MeasureMachineLimits(const Context& ctx, size_t buffer_bytes = size_t{1} << 30);

// Bytes per second with 1, 2, .. `max_threads` threads, all reading at once; best of a few runs
// each. Makes its own pools: the caller's should sleep.
std::vector<double> ReadBandwidths(Target target, uint32_t max_threads, size_t buffer_bytes);

// Weights per second that all of ctx.pool's threads turn into what the product multiplies, from the
// cache, dots not counted. 0 where it costs nothing that can be measured beside them.
struct WideningRates {
  double fp4_per_s = 0;
  double fp8_per_s = 0;
};
WideningRates MeasureWidening(const Context& ctx);

// The larger of each.
MachineLimits Best(const MachineLimits& a, const MachineLimits& b);

}  // namespace cachalot::kernels
