// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/memory_plan.h"

#include <algorithm>
#include <bit>

#include "cachalot/model/inventory.h"
#include "cachalot/train/newton_schulz.h"
#include "cachalot/train/rank_exchange.h"

namespace cachalot::train {
namespace {

constexpr uint32_t kCsaRatio = 4;
constexpr uint64_t kFloatBytes = 4;
constexpr uint64_t kLogitFloats = uint64_t{4} << 20;  // as loss.cc cuts them

// Names and shapes of what is trained; nothing is allocated.
ParameterSet Shapes(const model::Config& config) {
  ParameterSet set;
  for (const model::StoredTensor& t : model::ListTensors(config)) {
    if (t.is_scale || t.dtype == DType::kI64) continue;
    const uint64_t rows = t.shape.size() == 2 ? t.shape[0] : 1;
    set.parameters.push_back(
        {.name = t.name, .rows = rows, .cols = t.shape.back(), .value = {}, .grad = {}});
  }
  return set;
}

// What one rank owns, and computes with.
struct Counts {
  uint64_t muon = 0;
  uint64_t adamw = 0;
  uint64_t plain = 0;           // router biases
  uint64_t matrix_scratch = 0;  // floats Newton-Schulz needs for its largest matrix
  uint64_t working = 0;
  uint64_t own_experts = 0;  // of `working`, what no other rank has
  uint64_t gradients = 0;    // distributed experts have one for each rank's tokens

  uint64_t all() const { return muon + adamw + plain; }
  uint64_t moments() const { return muon + 2 * adamw; }
};

void Count(const Parameter& p, const OptimizerRule& rule, Counts& counts) {
  if (rule.kind == OptimizerKind::kNone) counts.plain += p.size();
  if (rule.kind == OptimizerKind::kAdamW) counts.adamw += p.size();
  if (rule.kind != OptimizerKind::kMuon) return;
  counts.muon += p.size();
  for (const size_t block : rule.blocks) {
    const size_t n = std::min(block, p.cols);
    const size_t m = std::max(block, p.cols);
    counts.matrix_scratch =
        std::max<uint64_t>(counts.matrix_scratch, n * m + NewtonSchulzScratchFloats(n, m));
  }
}

// Of each rank.
std::vector<Counts> CountParameters(const Recipe& recipe, uint32_t ranks, ExpertPlacement experts) {
  const ParameterSet set = Shapes(recipe.model);
  const std::vector<OptimizerRule> rules = RulesFor(recipe.model, set, recipe.optimizer);
  const RankShares shares =
      ShareParameters(set, rules, recipe.model.n_routed_experts, ranks, experts);
  std::vector<Counts> counts(ranks);
  for (size_t i = 0; i < shares.owners.size(); ++i) {
    const Parameter& p = set.parameters[i];
    Counts& owner = counts[shares.owners[i]];
    Count(p, rules[i], owner);
    if (shares.replicated[i] == 0) {
      owner.working += p.size();
      owner.own_experts += p.size();
      owner.gradients += ranks * p.size();
      continue;
    }
    for (Counts& c : counts) {
      c.working += p.size();
      c.gradients += p.size();
    }
  }
  return counts;
}

// Tokens of the largest micro-batch of a stage.
uint64_t LargestMicroBatch(const Schedule& schedule, const Stage& stage) {
  // The batch only grows inside a stage.
  const uint64_t step = std::max(stage.from_step, schedule.batch_ramp_steps);
  const Stage& then = StageAt(schedule, step);
  const uint64_t at = then.from_step == stage.from_step ? step : stage.from_step;
  return MicroBatchSequences(schedule, at) * stage.sequence_length;
}

// k and gate; entries before and after their norm.
uint64_t CompressorFloats(uint64_t head_size, uint64_t ratio) {
  if (ratio == 0) return 0;
  return 2 * (ratio == kCsaRatio ? 2 * head_size : head_size);
}
uint64_t EntryFloats(uint64_t head_size, uint64_t ratio) {
  return ratio == 0 ? 0 : 2 * head_size / ratio;
}

// What one layer's backward pass needs beside what was kept: MoeScratch and LayerScratch, in order.
uint64_t ScratchFloatsPerToken(const model::Config& c, bool indexer, uint64_t length) {
  const uint64_t d = c.head_dim, heads = uint64_t{c.num_attention_heads} * d;
  const uint64_t A = c.num_experts_per_tok, I = c.moe_intermediate_size;
  uint64_t floats = A * (2 * c.hidden_size + 3 * I + 2);
  floats += c.o_groups * c.o_lora_rank + 3 * heads + c.num_attention_heads + 2 * c.q_lora_rank;
  floats += 2 * d;
  uint64_t compressor = 0;
  for (const uint32_t ratio : c.compress_ratios) {
    compressor = std::max(compressor, CompressorFloats(d, ratio) + EntryFloats(d, ratio));
  }
  floats += compressor + A + c.n_routed_experts;
  if (indexer) {
    floats += length / kCsaRatio + c.index_n_heads * (uint64_t{c.index_head_dim} + 1);
  }
  return floats;
}

// Of the whole network: see Network::Impl and MtpState.
uint64_t SharedFloatsPerToken(const model::Config& c) {
  const uint64_t D = c.hidden_size, streams = uint64_t{c.hc_mult} * D;
  const uint64_t maps = uint64_t{c.mix_rows()} + c.hc_mult + c.hc_mult * c.hc_mult;
  // Embeddings; last streams; head; gradients of streams and of hidden rows; those of the maps.
  uint64_t floats = D + streams + 4 * D + streams + 4 * D + maps;
  // The MTP block's streams, inputs and head, and the gradients of its inputs.
  if (c.num_draft_layers() > 0) floats += 2 * streams + 3 * D + 4 * D + 2 * streams;
  return floats;
}

// Micro-batches of one rank in the largest step of a stage.
uint64_t RankSlots(const Schedule& schedule, const Stage& stage, uint64_t ranks) {
  const uint64_t step = std::max(stage.from_step, schedule.batch_ramp_steps);
  const uint64_t micro = MicroBatchSequences(schedule, step);
  const uint64_t slots = (BatchSequences(schedule, step) + micro - 1) / micro;
  return std::min(std::max(std::bit_ceil(slots), ranks) / ranks, slots);
}

// Gradients are summed by a binary tree over the micro-batches of a rank: levels beyond the first.
uint64_t SubtreeLevels(const Schedule& schedule, uint64_t ranks) {
  uint64_t levels = 0;
  for (const Stage& stage : schedule.stages) {
    levels = std::max<uint64_t>(
        levels, static_cast<uint64_t>(std::bit_width(RankSlots(schedule, stage, ranks) - 1)));
  }
  return levels;
}

// Floats that cross between ranks for one token in all MoE layers, if experts are distributed and
// chosen alike: forward its row and weight there and the result back; backward the row, the weight
// and the gradient of the result there, those of the row and of the weight back.
double RowFloatsPerToken(const model::Config& c, uint32_t ranks) {
  const double layers = c.num_hidden_layers + c.num_draft_layers();
  const double pairs = layers * c.num_experts_per_tok * (ranks - 1) / ranks;
  return pairs * (5.0 * c.hidden_size + 3);
}

// Of a step, by the rank that sends most.
uint64_t SentBytes(const Recipe& recipe, const std::vector<Counts>& counts,
                   ExpertPlacement experts) {
  const auto ranks = static_cast<uint32_t>(counts.size());
  if (ranks == 1) return 0;
  uint64_t most = 0;
  uint64_t replicated = counts[0].working;
  if (experts == ExpertPlacement::kDistributed) replicated -= counts[0].own_experts;
  for (const Counts& c : counts) {
    // Gradients to their owners, values to all others.
    const uint64_t owned = c.all() - c.own_experts;
    most = std::max(most, (replicated - owned) + (ranks - 1) * owned);
  }
  if (experts == ExpertPlacement::kDistributed) {
    uint64_t tokens = 0;
    for (const Stage& stage : recipe.schedule.stages) {
      tokens = std::max(tokens, RankSlots(recipe.schedule, stage, ranks) *
                                    LargestMicroBatch(recipe.schedule, stage));
    }
    most +=
        static_cast<uint64_t>(static_cast<double>(tokens) * RowFloatsPerToken(recipe.model, ranks));
  }
  return most * kFloatBytes;
}

struct Activations {
  uint64_t kept = 0;
  uint64_t recomputed = 0;
  uint64_t scratch = 0;
  uint64_t arrived = 0;  // rows and gradients at distributed experts: MoeScratch
};

Activations LargestActivations(const Recipe& recipe) {
  const model::Config& c = recipe.model;
  Activations most;
  for (const Stage& stage : recipe.schedule.stages) {
    const uint64_t tokens = LargestMicroBatch(recipe.schedule, stage);
    const ActivationOptions options{.length = stage.sequence_length,
                                    .indexer = stage.attention != AttentionMode::kDense,
                                    .recompute = recipe.memory.recompute};
    uint64_t kept = 0;
    for (uint32_t l = 0; l < c.num_hidden_layers + c.num_draft_layers(); ++l) {
      kept += tokens * SavedFloatsPerToken(c, l, options);
    }
    const uint64_t scratch = tokens * (ScratchFloatsPerToken(c, options.indexer, options.length) +
                                       SharedFloatsPerToken(c));
    // Buffers keep the largest size they had.
    most.kept = std::max(most.kept, kept);
    most.recomputed = std::max(most.recomputed, tokens * RecomputedFloatsPerToken(c, options));
    most.scratch = std::max(most.scratch, scratch);
    most.arrived = std::max(most.arrived, tokens * c.num_experts_per_tok * (2 * c.hidden_size + 1));
  }
  return most;
}

// What is always kept of a layer: of each half maps, what they came from, the norm's inverse RMS
// and z.
uint64_t FixedFloats(const model::Config& c, uint32_t layer, const ActivationOptions& options) {
  const uint64_t M = c.hc_mult, d = c.head_dim, H = c.num_attention_heads;
  const uint32_t ratio = c.compress_ratios[layer];
  uint64_t floats = 2 * (c.mix_rows() + 2 + 2 * M + M * M + c.hidden_size);
  // Attention output (rotated in place), log-sums, inverse RMS; entries.
  floats += H * d + 2 * H + 2 + EntryFloats(d, ratio);
  if (ratio == kCsaRatio && options.indexer) {
    // Weights; keys; the mass that scores should have.
    floats += c.index_n_heads + EntryFloats(c.index_head_dim, ratio) + options.length / ratio;
  }
  // Router logits and weights, ids.
  return floats + c.n_routed_experts + 2 * c.num_experts_per_tok;
}

// Floats of a tensor that can be made again: in a layer that keeps it, and in the place that all
// share. Both halves share one, and so do the two compressors.
struct TensorFloats {
  uint64_t kept = 0;
  uint64_t place = 0;
};

TensorFloats CountTensor(const model::Config& c, uint32_t layer, const ActivationOptions& options,
                         Recomputable tensor) {
  const uint64_t D = c.hidden_size, d = c.head_dim, A = c.num_experts_per_tok;
  const uint64_t heads = c.num_attention_heads * d;
  const uint32_t ratio = c.compress_ratios[layer];
  const bool indexer = ratio == kCsaRatio && options.indexer;
  const auto once = [](uint64_t floats) { return TensorFloats{floats, floats}; };
  switch (tensor) {
    case Recomputable::kStreams:
      return {};  // by groups: KeptStreams
    case Recomputable::kMixed:
    case Recomputable::kNormed:
      return {2 * D, D};
    case Recomputable::kQueryLatent:
      return once(uint64_t{2} * c.q_lora_rank);
    case Recomputable::kQueryProjection:
    case Recomputable::kQueries:
      return once(heads);
    case Recomputable::kWindowEntries:
      return once(2 * d);
    case Recomputable::kOutputLatent:
      return once(uint64_t{c.o_groups} * c.o_lora_rank);
    case Recomputable::kCompressor: {
      const uint64_t main = CompressorFloats(d, ratio);
      const uint64_t index = indexer ? CompressorFloats(c.index_head_dim, ratio) : 0;
      return {main + index, std::max(main, index)};
    }
    case Recomputable::kIndexQueries:
      return once(indexer ? uint64_t{c.index_n_heads} * c.index_head_dim : 0);
    case Recomputable::kIndexScores:
      return once(indexer ? options.length / ratio : 0);
    case Recomputable::kExpertGateUp:  // and which row is whose
      return once(2 * (A * c.moe_intermediate_size + c.shared_intermediate_size()) + 2 * A);
  }
  return {};
}

// How many of a layer's two halves keep their streams.
uint64_t KeptStreams(const model::Config& c, uint32_t layer, const RecomputeSet& recompute) {
  const size_t group = StreamGroupSize(size_t{2} * c.num_hidden_layers, recompute);
  if (layer >= c.num_hidden_layers) return group > 1 ? 1 : 2;
  const size_t half = size_t{2} * layer;
  return uint64_t{KeepsStreams(half, group)} + uint64_t{KeepsStreams(half + 1, group)};
}

}  // namespace

uint64_t MemoryPlan::total_bytes() const {
  uint64_t sum = 0;
  for (const PlannedMemory& item : items) sum += item.bytes;
  return sum;
}

uint64_t SavedFloatsPerToken(const model::Config& c, uint32_t layer,
                             const ActivationOptions& options) {
  uint64_t floats = FixedFloats(c, layer, options);
  floats += KeptStreams(c, layer, options.recompute) * c.hc_mult * c.hidden_size;
  for (size_t i = 0; i < RecomputableNames().size(); ++i) {
    const auto tensor = static_cast<Recomputable>(i);
    if (options.recompute.contains(tensor)) continue;
    floats += CountTensor(c, layer, options, tensor).kept;
  }
  return floats;
}

uint64_t RecomputedFloatsPerToken(const model::Config& c, const ActivationOptions& options) {
  const size_t group = StreamGroupSize(size_t{2} * c.num_hidden_layers, options.recompute);
  uint64_t floats = (group - 1) * c.hc_mult * c.hidden_size;
  for (size_t i = 0; i < RecomputableNames().size(); ++i) {
    const auto tensor = static_cast<Recomputable>(i);
    if (!options.recompute.contains(tensor)) continue;
    uint64_t most = 0;
    for (uint32_t l = 0; l < c.num_hidden_layers + c.num_draft_layers(); ++l) {
      most = std::max(most, CountTensor(c, l, options, tensor).place);
    }
    floats += most;
  }
  return floats;
}

MemoryPlan PlanMemory(const Recipe& recipe, uint32_t num_threads, uint32_t ranks,
                      ExpertPlacement experts) {
  const std::vector<Counts> counts = CountParameters(recipe, ranks, experts);
  MemoryPlan plan;
  for (const Counts& c : counts) {
    plan.parameters += c.all();
    plan.muon_parameters += c.muon;
  }
  const auto add = [&](const char* what, uint64_t floats) {
    plan.items.push_back({what, floats * kFloatBytes});
  };
  const uint64_t levels = SubtreeLevels(recipe.schedule, ranks);
  const Counts& most = *std::ranges::max_element(counts, {}, [&](const Counts& c) {
    return c.all() + c.moments() + c.matrix_scratch * num_threads + c.working +
           (1 + levels) * c.gradients;
  });
  add("parameters, float32", most.all());
  add("gradients, float32", most.gradients);
  add("weights as the network computes on them", most.working);
  add("gradients of subtrees of micro-batches", levels * most.gradients);
  add("Muon momentum", most.muon);
  add("AdamW moments", 2 * most.adamw);
  add("Newton-Schulz scratch", most.matrix_scratch * num_threads);
  if (ranks > 1) add("buckets to and from other ranks", 2 * ranks * kBucketFloats);
  plan.sent_bytes = SentBytes(recipe, counts, experts);
  const Activations activations = LargestActivations(recipe);
  add("activations kept for the backward pass", activations.kept);
  add("activations made again, of one layer", activations.recomputed);
  add("gradients and scratch of one layer", activations.scratch);
  if (ranks > 1 && experts == ExpertPlacement::kDistributed) {
    add("rows that arrive from other ranks", activations.arrived);
  }
  add("logits of a chunk of tokens", kLogitFloats);
  return plan;
}

}  // namespace cachalot::train
