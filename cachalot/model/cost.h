// SPDX-License-Identifier: Apache-2.0
// What a token must read and compute, from the weights' stored sizes: the measure of every speed
// and the scheduler's clock. [docs/benchmarks.md]
#pragma once

#include <cstdint>

#include "cachalot/model/weights.h"

namespace cachalot::model {

struct TokenCost {
  uint64_t weight_bytes = 0;  // dense matrices, head and the chosen experts
  uint64_t routed_bytes = 0;  // of those: the chosen routed experts, all layers
  uint64_t kv_bytes = 0;      // entries and keys visible at `context`
  uint64_t flops = 0;         // 2 per weight used, attention and indexer at `context`
};
TokenCost CostPerToken(const Weights& weights, uint32_t context);

// Expected number of different routed experts of a layer that `num_tokens` tokens choose, if every
// choice is as likely: E (1 - (1 - A/E)^n).
double DistinctExperts(const Config& config, uint32_t num_tokens);

}  // namespace cachalot::model
