// SPDX-License-Identifier: Apache-2.0
// Prefill and decode speed of a model, with the bytes and flops that explain it.
// [docs/benchmarks.md]
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/kernels/machine_limits.h"
#include "cachalot/model/cost.h"
#include "cachalot/model/forward.h"

namespace cachalot::eval {

struct SpeedOptions {
  model::Numerics numerics = model::Numerics::kFast;
  kernels::Target target = kernels::Target::kScalar;
  uint32_t num_threads = 1;
  uint32_t prompt_tokens = 512;
  uint32_t decode_tokens = 32;
  uint32_t runs = 5;  // of the prompt; medians are reported
};

struct Speed {
  kernels::MachineLimits limits;    // the best of before and after
  model::TokenCost cost;            // at the end of the prompt
  double prefill_tokens_per_s = 0;  // median
  double decode_tokens_per_s = 0;   // from the median step
  double decode_p95_ms = 0;
  std::vector<double> prefill_runs_s, decode_steps_s;
  uint64_t peak_resident_bytes = 0;  // of the process, mapped weights included
  uint64_t private_bytes = 0;        // resident and not mapped from files: scratch and KV
  uint64_t kv_bytes_in_use = 0;
};

// Random ids; a first run warms caches and maps pages and is not counted. `progress` (done, total)
// may be empty; returning false cancels.
Result<Speed> MeasureSpeed(std::shared_ptr<const model::Weights> weights,
                           const SpeedOptions& options,
                           const std::function<bool(uint64_t, uint64_t)>& progress);

}  // namespace cachalot::eval
