// SPDX-License-Identifier: Apache-2.0
// What a run will need, before it starts: `cachalot train --plan`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cachalot/train/optimizer_shares.h"
#include "cachalot/train/recipe.h"

namespace cachalot::train {

struct PlannedMemory {
  std::string what;
  uint64_t bytes = 0;
};

struct MemoryPlan {
  std::vector<PlannedMemory> items;  // what stays for the whole run, then the largest step's
  uint64_t parameters = 0;           // trained values, the MTP block's included
  uint64_t muon_parameters = 0;
  uint64_t sent_bytes = 0;  // between ranks in a step, by the rank that sends most

  uint64_t total_bytes() const;
};

// Peak memory of training `recipe` on `num_threads` threads, of the rank that needs most if `ranks`
// share it. Distributed experts are counted with as many tokens each: a rank whose experts are
// chosen more often needs more. Token shards are mapped and can be
// dropped by the system at any time, so they are not counted. Pure; costs a walk over tensor names.
MemoryPlan PlanMemory(const Recipe& recipe, uint32_t num_threads, uint32_t ranks = 1,
                      ExpertPlacement experts = ExpertPlacement::kReplicated);

// How activations are counted: in sequences of `length`; `indexer`: whether CSA layers run it.
struct ActivationOptions {
  uint64_t length = 0;
  bool indexer = false;
  RecomputeSet recompute;
};
// Floats one token leaves in one layer (index num_hidden_layers: the MTP block) for the backward
// pass.
uint64_t SavedFloatsPerToken(const model::Config& config, uint32_t layer,
                             const ActivationOptions& options);
// Floats of a token in the memory that all layers share for what they make again.
uint64_t RecomputedFloatsPerToken(const model::Config& config, const ActivationOptions& options);

}  // namespace cachalot::train
