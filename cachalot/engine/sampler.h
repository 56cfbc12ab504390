// SPDX-License-Identifier: Apache-2.0
// From logits to one token id, as a pure function of (logits, history, params, position).
// [design.md 4, Sampling]
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "cachalot/base/error.h"

namespace cachalot::engine {

struct SamplingParams {
  float temperature = 1.0f;         // 0: the largest logit, ties to the lower id
  float top_p = 1.0f;               // (0, 1]; smallest set of tokens with this much probability
  uint32_t top_k = 0;               // 0: all
  float min_p = 0.0f;               // [0, 1]; drop tokens below min_p * largest probability
  float repetition_penalty = 1.0f;  // > 0; divides positive, multiplies negative logits of seen ids
  float presence_penalty = 0.0f;    // subtracted once from every id generated so far
  float frequency_penalty = 0.0f;   // subtracted per occurrence
  std::vector<std::pair<uint32_t, float>> logit_bias;  // id, added
  uint64_t seed = 0;

  Status Validate(uint32_t vocab_size) const;  // kInvalidArgument naming the field and its range
};

// Restricts which ids may come next (JSON schema, tool grammar). Implemented above the engine.
class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;
  // Clears the bit of every id not allowed now; bit i of mask[i / 64]. At least one stays.
  virtual void ApplyMask(std::span<uint64_t> mask) = 0;
  virtual void Accept(uint32_t token) = 0;
};

// Ids a penalty looks at. `prompt` counts for repetition only, `generated` for all three.
struct TokenHistory {
  std::span<const uint32_t> prompt;
  std::span<const uint32_t> generated;
};

// Reused buffers, so that sampling allocates nothing in the steady state.
class Sampler {
 public:
  explicit Sampler(uint32_t vocab_size);

  // Gumbel-max with noise from (seed, position, id): the same token whatever ran beside it, with or
  // without speculation. NaN logits never win. `constraint` may be null. logits [V] are modified.
  uint32_t Sample(std::span<float> logits, const TokenHistory& history,
                  const SamplingParams& params, uint64_t position, TokenConstraint* constraint);

  // Wall time that constraints' masks have cost, their application to the logits included.
  double mask_seconds() const { return mask_seconds_; }

 private:
  void ApplyPenalties(std::span<float> logits, const TokenHistory& history,
                      const SamplingParams& params);
  void ApplyConstraint(std::span<float> logits, TokenConstraint& constraint);
  std::span<const uint32_t> Truncate(std::span<const float> logits, const SamplingParams& params);
  uint32_t Draw(std::span<const float> logits, std::span<const uint32_t> ids, uint64_t seed,
                uint64_t position);
  uint32_t DrawFromAll(std::span<const float> logits, uint64_t seed, uint64_t position);

  std::vector<uint32_t> order_;
  std::vector<uint64_t> mask_;
  std::vector<uint32_t> counts_;
  double mask_seconds_ = 0;
};

}  // namespace cachalot::engine
