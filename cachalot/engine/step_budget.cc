// SPDX-License-Identifier: Apache-2.0
#include "cachalot/engine/step_budget.h"

#include <algorithm>

namespace cachalot::engine {
namespace {

// So that a prompt ends, whatever the prediction says.
constexpr uint32_t kLeastTokens = 4;

// First guesses, of a small desktop; a handful of steps replaces them.
constexpr double kSecondsPerByte = 1.0 / 20e9;
constexpr double kSecondsPerFlop = 1.0 / 100e9;

// Weight of a new measurement. One step that was held up by something else must not stop prompts.
constexpr double kLearn = 0.2;

}  // namespace

StepBudget::StepBudget(const model::Weights& weights, double slack)
    : config_(weights.config),
      slack_(slack),
      seconds_per_byte_(kSecondsPerByte),
      seconds_per_flop_(kSecondsPerFlop) {
  const model::TokenCost cost = model::CostPerToken(weights, /*context=*/0);
  const double chosen = std::max<double>(1, config_.num_experts_per_tok);
  dense_bytes_ = static_cast<double>(cost.weight_bytes - cost.routed_bytes);
  expert_bytes_ = static_cast<double>(cost.routed_bytes) / chosen;
  flops_per_token_ = static_cast<double>(cost.flops);
}

double StepBudget::Bytes(uint32_t num_tokens) const {
  return dense_bytes_ + expert_bytes_ * model::DistinctExperts(config_, num_tokens);
}

double StepBudget::Predict(uint32_t num_tokens) const {
  return Bytes(num_tokens) * seconds_per_byte_ + num_tokens * flops_per_token_ * seconds_per_flop_;
}

// The error is charged to the rates by their share in the prediction, so that each kind of step
// corrects what it is made of.
void StepBudget::Measured(uint32_t num_tokens, double seconds) {
  const double predicted = Predict(num_tokens);
  if (predicted <= 0 || seconds <= 0) return;
  const double ratio = std::clamp(seconds / predicted, 0.25, 4.0);
  const double byte_share = Bytes(num_tokens) * seconds_per_byte_ / predicted;
  seconds_per_byte_ *= 1.0 + kLearn * byte_share * (ratio - 1.0);
  seconds_per_flop_ *= 1.0 + kLearn * (1.0 - byte_share) * (ratio - 1.0);
}

uint32_t StepBudget::PromptTokens(uint32_t decodes, uint32_t limit, uint32_t steps) const {
  if (decodes == 0) return limit;
  const double allowed = (1.0 + steps * (slack_ - 1.0)) * Predict(decodes);
  uint32_t tokens = std::min(steps * kLeastTokens, limit);
  while (tokens < limit && Predict(decodes + tokens + 1) <= allowed) ++tokens;
  return tokens;
}

}  // namespace cachalot::engine
