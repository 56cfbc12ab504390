// SPDX-License-Identifier: Apache-2.0
// The two halves of a layer and the scratch they share. Internal to model: Forward owns all of it.
// [V4 2; model.md 3.3, 4, 5]
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cachalot/base/check.h"
#include "cachalot/kernels/attention.h"
#include "cachalot/kernels/context.h"
#include "cachalot/kernels/indexer.h"
#include "cachalot/kernels/rope.h"
#include "cachalot/model/linear.h"
#include "cachalot/model/step_plan.h"
#include "cachalot/model/weights.h"
#include "cachalot/tensor/matrix.h"
#include "cachalot/threading/aligned_buffer.h"

namespace cachalot::model {

// A [rows, cols] buffer of which a step uses the first rows.
struct Activation {
  Activation() = default;
  Activation(size_t rows, size_t cols) : buffer(rows * cols), max_rows(rows), num_cols(cols) {}
  MatView<float> Rows(size_t rows) {
    CACHALOT_DCHECK(rows <= max_rows);
    return {buffer.data(), rows, num_cols};
  }
  size_t bytes() const { return buffer.size() * sizeof(float); }

  AlignedBuffer<float> buffer;
  size_t max_rows = 0;
  size_t num_cols = 0;
};

// cos and sin of every token of the step, for one frequency set.
struct RopeTable {
  std::vector<float> frequencies;
  Activation cos, sin;  // [T, rd/2]
};

// Everything a sublayer may touch besides its input and output.
struct StepEnv {
  const Config& config;
  const ForwardOptions& options;
  const kernels::Context& ctx;
  const StepPlan& plan;
  Linear& linear;
  const RopeTable& window_rope;      // layers with ratio 0
  const RopeTable& compressed_rope;  // ratio 4 and 128
  ExpertSource* expert_source;       // null: all experts are in memory

  // The time since the last mark was `op`'s. [step_profile.h]
  void Mark(StepOp op) const { Lap(options.profile, op); }
  // The products collected so far, as `op`; what came before was rounding their inputs.
  void RunProducts(StepOp op) const {
    Mark(StepOp::kRound);
    linear.Run();
    Mark(op);
  }
};

// Attention half: x [T, D] (normed) -> z [T, D]; writes window rows, compressor tails and
// compressed entries of KV layer `kv_layer` for every token of the step.
class AttentionHalf {
 public:
  AttentionHalf(const Config& config, const ForwardOptions& options, size_t num_threads);
  void Run(const StepEnv& env, const LayerWeights& w, size_t kv_layer, MatView<const float> x,
           MatView<float> z);
  size_t scratch_bytes() const;

 private:
  // A compressed entry completed in the current wave.
  struct Emission {
    kvcache::Sequence* sequence;
    uint32_t j;
  };

  void ProjectTile(const StepEnv& env, const LayerWeights& w, const Tile& tile,
                   MatView<const float> x);
  void RotateTile(const StepEnv& env, const LayerWeights& w, const Tile& tile);
  void StoreWave(const StepEnv& env, const LayerWeights& w, size_t kv_layer, const Tile& tile,
                 const Wave& wave);
  void EmitEntries(const StepEnv& env, const LayerWeights& w, size_t kv_layer, const Wave& wave);
  void EmitMain(const StepEnv& env, const LayerWeights& w, size_t kv_layer);
  void EmitIndex(const StepEnv& env, const LayerWeights& w, size_t kv_layer);
  void SelectWave(const StepEnv& env, size_t kv_layer, const Tile& tile, const Wave& wave);
  void AttendWave(const StepEnv& env, const LayerWeights& w, size_t kv_layer, const Tile& tile,
                  const Wave& wave);
  void OutputTile(const StepEnv& env, const LayerWeights& w, const Tile& tile, MatView<float> z);

  // All [tile, ...]; names as in model.md 4.
  Activation qr_, q_, kv_, wo_a_out_;
  Activation main_k_, main_gate_;    // compressor projections, [tile, c * d]
  Activation index_k_, index_gate_;  // [tile, 2 * index_head_dim]
  Activation index_q_, index_weights_;
  Activation entries_, keys_;  // emitted in a wave, before they are stored
  Activation emission_cos_, emission_sin_;
  std::vector<uint32_t> emission_positions_;
  std::vector<Emission> emissions_;
  std::vector<uint32_t> selected_;  // [tile, index_topk]
  std::vector<uint64_t> select_scratch_;
  std::vector<kernels::AttentionQuery> queries_;
  std::vector<kernels::IndexQuery> index_queries_;
};

// FFN half: x [T, D] (normed) -> z [T, D]. Chosen experts [T, A] go to `experts` if not empty.
class MoeHalf {
 public:
  MoeHalf(const Config& config, const ForwardOptions& options);
  void Run(const StepEnv& env, const FfnWeights& w, uint32_t layer, MatView<const float> x,
           MatView<float> z, MatView<uint32_t> experts);
  // Asks the source for the experts of a hash layer: they follow from the plan's tokens alone.
  void PrefetchHashed(const StepEnv& env, const FfnWeights& w, uint32_t layer);
  // Asks for the experts that the router would choose if x were its input.
  void PrefetchLikely(const StepEnv& env, const FfnWeights& w, uint32_t layer,
                      MatView<const float> x, double seconds);
  // Of the tokens since ClearFailed: whether an expert it chose could not be read.
  bool failed(size_t token) const { return failed_[token] != 0; }
  bool any_failed() const { return any_failed_; }
  void ClearFailed(size_t num_tokens);
  size_t scratch_bytes() const;
  // [T * max(A, M), D], free between layers.
  MatView<float> Spare(size_t rows) { return slot_out_.Rows(rows); }

 private:
  void ChooseExperts(const StepEnv& env, const FfnWeights& w, MatView<const float> x);
  void FixedExperts(const StepEnv& env, const FfnWeights& w);
  void GroupByExpert(const Config& config, size_t num_tokens);
  void CollectWanted(size_t num_experts);
  void RunResident(const StepEnv& env, const FfnWeights& w, MatView<const float> x);
  void RunStreamed(const StepEnv& env, const FfnWeights& w, uint32_t layer, MatView<const float> x);
  void RunGroup(const StepEnv& env, const FfnWeights& w, MatView<const float> x,
                const Linear::Input& input, bool with_shared);
  void SwiGluGroup(const StepEnv& env);
  void AddDown(const StepEnv& env);
  template <typename Fn>
  void ForEachStretch(const Fn& fn) const;
  void RankWanted(size_t num_slots);
  void FailGroup();
  MatView<float> ExpertRows(Activation& rows, uint32_t expert) {
    return {rows.buffer.data() + first_row_[expert] * rows.num_cols, NumRows(expert),
            rows.num_cols};
  }
  size_t NumRows(uint32_t expert) const { return first_row_[expert + 1] - first_row_[expert]; }
  void Combine(const StepEnv& env, MatView<float> z);

  Activation router_logits_;  // [T, E]
  Activation gate_, up_;      // [T * A, I], rows grouped by expert
  Activation shared_gate_, shared_up_, shared_out_;
  Activation slot_out_;              // [T * A, D], rows grouped by expert
  std::vector<uint32_t> ids_;        // [T, A]
  std::vector<float> weights_;       // [T, A]
  std::vector<uint32_t> fixed_;      // [T, A] hash layers
  std::vector<uint32_t> first_row_;  // [E + 1] rows of an expert in the grouped buffers
  std::vector<uint32_t> next_row_;   // [E] fill cursors of GroupByExpert
  std::vector<uint32_t> row_token_;  // [T * A] grouped row -> token
  std::vector<float> row_weight_;    // [T * A]
  std::vector<uint32_t> slot_row_;   // [T, A] slot -> grouped row
  std::vector<ReadyExpert> group_;   // computed together
  std::vector<WantedExpert> wanted_;
  std::vector<float> likelihood_;  // [E] of RankWanted
  std::vector<uint8_t> failed_;    // [T]
  bool any_failed_ = false;
};

}  // namespace cachalot::model
