// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "cachalot/base/check.h"

namespace cachalot::train {
namespace {

uint64_t DecayStart(const Schedule& s) { return s.steps - std::min(s.steps, s.decay_steps); }

uint64_t WantedTokens(const Schedule& s, uint64_t step) {
  if (const uint64_t own = StageAt(s, step).batch_tokens; own > 0) return own;
  if (step >= s.batch_ramp_steps) return s.batch_tokens;
  const double share = static_cast<double>(step) / static_cast<double>(s.batch_ramp_steps);
  const auto grown = static_cast<double>(s.batch_tokens - s.start_batch_tokens) * share;
  return s.start_batch_tokens + static_cast<uint64_t>(grown);
}

}  // namespace

std::string_view AttentionModeName(AttentionMode mode) {
  switch (mode) {
    case AttentionMode::kDense:
      return "dense";
    case AttentionMode::kIndexerWarmup:
      return "indexer-warmup";
    case AttentionMode::kSparse:
      return "sparse";
  }
  return "";
}

double LearningRate(const Schedule& s, uint64_t step) {
  if (StageAt(s, step).attention == AttentionMode::kIndexerWarmup) return s.indexer_learning_rate;
  if (step < s.warmup_steps) {
    return s.learning_rate * static_cast<double>(step + 1) / static_cast<double>(s.warmup_steps);
  }
  const uint64_t start = DecayStart(s);
  if (step < start) return s.learning_rate;
  if (step >= s.steps) return s.final_learning_rate;
  const double share = static_cast<double>(step + 1 - start) / static_cast<double>(s.decay_steps);
  return s.final_learning_rate + (s.learning_rate - s.final_learning_rate) * 0.5 *
                                     (1.0 + std::cos(std::numbers::pi * share));
}

const Stage& StageAt(const Schedule& s, uint64_t step) {
  CACHALOT_CHECK(!s.stages.empty());
  size_t i = 0;
  while (i + 1 < s.stages.size() && s.stages[i + 1].from_step <= step) ++i;
  return s.stages[i];
}

uint64_t BatchSequences(const Schedule& s, uint64_t step) {
  return std::max<uint64_t>(1, WantedTokens(s, step) / StageAt(s, step).sequence_length);
}

uint64_t BatchTokens(const Schedule& s, uint64_t step) {
  return BatchSequences(s, step) * StageAt(s, step).sequence_length;
}

uint64_t MicroBatchSequences(const Schedule& s, uint64_t step) {
  const uint64_t fit = s.micro_batch_tokens / StageAt(s, step).sequence_length;
  return std::clamp<uint64_t>(fit, 1, BatchSequences(s, step));
}

double MtpWeight(const Schedule& s, uint64_t step) {
  return step < DecayStart(s) ? s.mtp_weight : s.decay_mtp_weight;
}

uint64_t TokensBefore(const Schedule& s, uint64_t step) {
  // Step by step while the batch grows, then stage by stage.
  uint64_t tokens = 0;
  uint64_t at = 0;
  for (; at < std::min(step, s.batch_ramp_steps); ++at) tokens += BatchTokens(s, at);
  while (at < step) {
    uint64_t end = step;
    for (const Stage& stage : s.stages) {
      if (stage.from_step > at) {
        end = std::min(end, stage.from_step);
        break;
      }
    }
    tokens += (end - at) * BatchTokens(s, at);
    at = end;
  }
  return tokens;
}

}  // namespace cachalot::train
