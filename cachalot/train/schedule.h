// SPDX-License-Identifier: Apache-2.0
// What changes over a run: learning rate, batch, sequence length, attention, loss weights. Pure
// functions of the 0-based step, so a resumed run needs nothing but its step. [V4 4.2.2]
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cachalot::train {

// How CSA layers attend, and what learns.
enum class AttentionMode : uint8_t {
  kDense,          // to all visible compressed entries; the indexer is idle
  kIndexerWarmup,  // dense, and only the indexer learns, from the attention it should predict
  kSparse,         // to the indexer's choice; it goes on learning from what was chosen
};
std::string_view AttentionModeName(AttentionMode mode);  // "dense", "indexer-warmup", "sparse"

struct Stage {
  uint64_t from_step = 0;
  uint32_t sequence_length = 512;
  AttentionMode attention = AttentionMode::kDense;
  // Folder of token shards that the stage begins to read; empty: those of the stage before go on,
  // in the first stage DataOptions::train.
  std::string train;
  uint64_t batch_tokens = 0;  // of a step; 0: the schedule's
};

struct Schedule {
  uint64_t steps = 0;
  uint64_t warmup_steps = 0;
  uint64_t decay_steps = 0;  // the last ones, along a cosine
  double learning_rate = 2.7e-4;
  double final_learning_rate = 2.7e-5;
  double indexer_learning_rate = 1e-3;  // of kIndexerWarmup stages [V3.2]
  uint64_t batch_tokens = 0;
  uint64_t start_batch_tokens = 0;  // grows to batch_tokens over batch_ramp_steps, linearly
  uint64_t batch_ramp_steps = 0;
  uint64_t micro_batch_tokens = 0;  // forward and backward take this many at a time
  double mtp_weight = 0.3;
  double decay_mtp_weight = 0.1;  // from where the learning rate starts to fall
  std::vector<Stage> stages;      // ascending from_step, the first 0
};

// Warm-up: peak (step + 1) / warmup_steps. Then the peak. Then a half cosine that reaches
// final_learning_rate at the last step. Beyond `steps`: final_learning_rate.
double LearningRate(const Schedule& schedule, uint64_t step);

const Stage& StageAt(const Schedule& schedule, uint64_t step);

// Whole sequences of the step's length, at least 1: batch tokens divided, rounded down.
uint64_t BatchSequences(const Schedule& schedule, uint64_t step);
uint64_t BatchTokens(const Schedule& schedule, uint64_t step);  // of those sequences
// Sequences of one forward and backward, at least 1.
uint64_t MicroBatchSequences(const Schedule& schedule, uint64_t step);

double MtpWeight(const Schedule& schedule, uint64_t step);

// Of all steps before `step`.
uint64_t TokensBefore(const Schedule& schedule, uint64_t step);

}  // namespace cachalot::train
