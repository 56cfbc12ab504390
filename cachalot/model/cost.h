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
  // Weights that are widened to BF16 before they are multiplied; `routed`: those of chosen experts.
  uint64_t fp4_weights = 0, routed_fp4_weights = 0;
  uint64_t fp8_weights = 0, routed_fp8_weights = 0;
};
TokenCost CostPerToken(const Weights& weights, uint32_t context);

// What a step must read and compute once, however its tokens share weights.
struct StepCost {
  uint64_t weight_bytes = 0;
  uint64_t kv_bytes = 0;
  uint64_t flops = 0;
  uint64_t fp4_weights = 0;  // widened once each
  uint64_t fp8_weights = 0;

  uint64_t bytes() const { return weight_bytes + kv_bytes; }
};

// `batch` sequences decode one token each at `context`; their tokens chose `distinct_experts`
// different routed experts a layer (a mean, as counted).
StepCost DecodeStepCost(const Weights& weights, uint32_t context, uint32_t batch,
                        double distinct_experts);

// Tokens [begin, end) of one sequence in steps of `chunk`; each step reads the dense weights and
// its experts once, the entries it sees once, and one row of logits is made.
StepCost PrefillCost(const Weights& weights, uint32_t begin, uint32_t end, uint32_t chunk,
                     double distinct_experts);

// Expected number of different routed experts of a layer that `num_tokens` tokens choose, if every
// choice is as likely: E (1 - (1 - A/E)^n).
double DistinctExperts(const Config& config, uint32_t num_tokens);

}  // namespace cachalot::model
