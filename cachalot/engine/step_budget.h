// SPDX-License-Identifier: Apache-2.0
// How many prompt tokens may join a step without holding up the streams that run.
// [docs/design/engine.md, Budget]
#pragma once

#include <cstdint>

#include "cachalot/model/cost.h"

namespace cachalot::engine {

// Predicts a step's duration as bytes * seconds per byte + flops * seconds per flop, where the
// bytes are the dense weights once and those of the distinct experts. Both rates are learned from
// the steps themselves: few tokens teach the first, many the second. What it says changes when
// tokens come, never which.
class StepBudget {
 public:
  // A step may last `slack` times what it would without prompts. > 1.
  StepBudget(const model::Weights& weights, double slack);

  double Predict(uint32_t num_tokens) const;  // seconds
  void Measured(uint32_t num_tokens, double seconds);

  // Prompt tokens to feed beside `decodes` tokens: at most `limit`; all of it when nobody decodes,
  // and never less than a few, or a prompt would starve. `steps`: of so many steps the slack, for a
  // step after others that prompts let pass. Cost: O(limit).
  uint32_t PromptTokens(uint32_t decodes, uint32_t limit, uint32_t steps = 1) const;

 private:
  double Bytes(uint32_t num_tokens) const;

  model::Config config_;
  double slack_;
  double dense_bytes_;
  double expert_bytes_;  // one expert in every layer
  double flops_per_token_;
  double seconds_per_byte_;
  double seconds_per_flop_;
};

}  // namespace cachalot::engine
