// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/memory_plan.h"

#include <algorithm>

#include "cachalot/model/inventory.h"
#include "cachalot/train/newton_schulz.h"

namespace cachalot::train {
namespace {

constexpr uint32_t kCsaRatio = 4;
constexpr uint64_t kFloatBytes = 4;

struct Counts {
  uint64_t muon = 0;
  uint64_t adamw = 0;
  uint64_t plain = 0;           // router biases
  uint64_t matrix_scratch = 0;  // floats Newton-Schulz needs for its largest matrix
};

Counts CountParameters(const Recipe& recipe) {
  Counts counts;
  for (const model::StoredTensor& t : model::ListTensors(recipe.model)) {
    if (t.is_scale || t.dtype == DType::kI64) continue;
    const uint64_t cols = t.shape.back();
    const uint64_t rows = t.shape.size() == 2 ? t.shape[0] : 1;
    const OptimizerRule rule = RuleFor(recipe.model, t.name, rows, cols);
    if (rule.kind == OptimizerKind::kNone) {
      counts.plain += rows * cols;
    } else if (rule.kind == OptimizerKind::kMuon && recipe.optimizer.muon) {
      counts.muon += rows * cols;
      for (const size_t block : rule.blocks) {
        const size_t n = std::min<size_t>(block, cols);
        const size_t m = std::max<size_t>(block, cols);
        counts.matrix_scratch =
            std::max<uint64_t>(counts.matrix_scratch, n * m + NewtonSchulzScratchFloats(n, m));
      }
    } else {
      counts.adamw += rows * cols;
    }
  }
  return counts;
}

// Tokens of the largest micro-batch of any stage.
uint64_t LargestMicroBatch(const Schedule& schedule) {
  uint64_t tokens = 0;
  for (const Stage& stage : schedule.stages) {
    // The batch only grows inside a stage.
    const uint64_t step = std::max(stage.from_step, schedule.batch_ramp_steps);
    const Stage& then = StageAt(schedule, step);
    const uint64_t at = then.from_step == stage.from_step ? step : stage.from_step;
    tokens = std::max(tokens, MicroBatchSequences(schedule, at) * stage.sequence_length);
  }
  return tokens;
}

}  // namespace

uint64_t MemoryPlan::total_bytes() const {
  uint64_t sum = 0;
  for (const PlannedMemory& item : items) sum += item.bytes;
  return sum;
}

uint64_t SavedFloatsPerToken(const model::Config& c, uint32_t layer) {
  const uint64_t D = c.hidden_size, M = c.hc_mult, d = c.head_dim, H = c.num_attention_heads;
  const uint32_t ratio = c.compress_ratios[layer];
  // Each half: its streams, the mixing coefficients, the collapsed input before and after its norm.
  uint64_t floats = 2 * (M * D + 2 * c.mix_rows() + 2 * D);
  // Query latent before and after its norm, heads likewise, window entry likewise, attention output
  // before and after the inverse rotation, log-sums, group outputs, result.
  floats += 2 * c.q_lora_rank + 2 * H * d + 2 * d + 2 * H * d + H + c.o_groups * c.o_lora_rank + D;
  if (ratio != 0) {
    const uint64_t width = ratio == kCsaRatio ? 2 * d : d;
    floats += 2 * width + 2 * d / ratio;
  }
  if (ratio == kCsaRatio) {
    floats +=
        c.index_n_heads * c.index_head_dim + c.index_n_heads + 4 * c.index_head_dim + c.index_topk;
  }
  // Router logits and weights; gate, up and product of each expert a token visits, their outputs.
  floats += 2 * c.n_routed_experts + 2 * c.num_experts_per_tok;
  floats += 3 * (c.num_experts_per_tok * c.moe_intermediate_size + c.shared_intermediate_size());
  floats += (c.num_experts_per_tok + 1) * D;
  return floats;
}

MemoryPlan PlanMemory(const Recipe& recipe, uint32_t num_threads) {
  const model::Config& c = recipe.model;
  const Counts counts = CountParameters(recipe);
  MemoryPlan plan{.parameters = counts.muon + counts.adamw + counts.plain,
                  .muon_parameters = counts.muon};
  const auto add = [&](const char* what, uint64_t floats) {
    plan.items.push_back({what, floats * kFloatBytes});
  };
  add("parameters, float32", plan.parameters);
  add("gradients, float32", plan.parameters);
  add("weights as the network computes on them", plan.parameters);
  add("Muon momentum", counts.muon);
  add("AdamW moments", 2 * counts.adamw);
  add("Newton-Schulz scratch", counts.matrix_scratch * num_threads);

  const uint64_t tokens = LargestMicroBatch(recipe.schedule);
  const uint32_t layers = c.num_hidden_layers + c.num_draft_layers();
  uint64_t all = 0;
  uint64_t largest = 0;
  for (uint32_t l = 0; l < layers; ++l) {
    all += SavedFloatsPerToken(c, l);
    largest = std::max(largest, SavedFloatsPerToken(c, l));
  }
  const uint64_t streams = uint64_t{c.hc_mult} * c.hidden_size;
  add("activations kept for the backward pass", tokens * all);
  // The gradient of the streams and of the widest thing below them.
  add("gradients of activations", tokens * (2 * streams + largest));
  add("logits and their gradient", tokens * 2 * c.vocab_size);
  return plan;
}

}  // namespace cachalot::train
