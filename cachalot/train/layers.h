// SPDX-License-Identifier: Apache-2.0
// The two sublayers of a layer in training, and what a step shares. Internal to train: Network owns
// all of it.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <vector>

#include "cachalot/train/attention.h"
#include "cachalot/train/indexer.h"
#include "cachalot/train/kept.h"
#include "cachalot/train/moe.h"
#include "cachalot/train/network.h"
#include "cachalot/train/network_params.h"
#include "cachalot/train/norm.h"

namespace cachalot::train {

// Buffers that live within one sublayer's call.
template <typename T>
struct LayerScratch {
  MoeScratch<T> moe;
  Matrix<T> d_mid, d_out, delta, d_q, d_q_raw, d_qr, d_qr_raw, d_kv, d_kv_raw;
  Matrix<T> d_entries, d_pooled, d_k, d_gate;
  Matrix<T> d_weights, d_logits, d_scores, d_index_q, d_index_weights;
};

// Where the tensors lie that layers make again instead of keeping them: of one layer at a time, the
// streams of one group at a time. The places of what is kept stay empty.
template <typename T>
struct SharedPlaces {
  std::deque<SharedPlace<Matrix<T>>> streams;
  SharedPlace<Matrix<T>> mixed, normed;
  SharedPlace<Matrix<T>> qr_raw, qr, q_raw, q, kv_raw, kv, mid;
  SharedPlace<Matrix<T>> k, gate;  // of both compressors
  SharedPlace<Matrix<T>> index_q, index_scores;
  SharedPlace<MoeSaved<T>> gate_up;

  size_t bytes() const {
    size_t total = gate_up.values.bytes();
    for (const SharedPlace<Matrix<T>>& place : streams) total += place.values.bytes();
    for (const SharedPlace<Matrix<T>>* place : {&mixed, &normed, &qr_raw, &qr, &q_raw, &q, &kv_raw,
                                                &kv, &mid, &k, &gate, &index_q, &index_scores}) {
      total += place->values.bytes();
    }
    return total;
  }
};

template <typename T>
struct StepEnv {
  const model::Config& config;
  RunOptions options;
  const kernels::Context& ctx;
  const TrainBatch* batch = nullptr;
  std::vector<uint32_t> positions;    // [T], within the sample
  std::map<size_t, EntryPlan> plans;  // by ratio
  RotaryTable<T> window_rope;         // ratio 0
  RotaryTable<T> compressed_rope;     // the others
  const RotaryTable<T>& rope(size_t ratio) const {
    return ratio == 0 ? window_rope : compressed_rope;
  }
  LayerScratch<T> scratch;

  // Columns of per-entry matrices: entries of the longest sample.
  size_t most_entries(size_t ratio) const { return batch->max_length() / ratio; }
};

template <typename T>
struct CompressorSaved {
  Kept<Matrix<T>> k, gate;  // [T, c hd], gate with position bias
  Matrix<T> pooled;         // [E, hd] before the norm
  NormSaved<T> norm;
  Matrix<T> entries;  // [E, hd] rotated
};

template <typename T>
struct IndexerSaved {
  Kept<Matrix<T>> q;  // [T, heads * dim] rotated
  Matrix<T> weights;  // [T, heads] scaled
  CompressorSaved<T> compressor;
  Kept<Matrix<T>> scores;  // [T, most entries]
  Matrix<T> mass;          // likewise
};

// One layer's attention: x [T, D] (normed) -> z [T, D].
template <typename T>
class AttentionLayer {
 public:
  AttentionLayer(const model::Config& config, const AttentionParams<T>& params);
  // What is in `recompute` lies in `places` and is made again. Before the first step.
  void Share(const RecomputeSet& recompute, SharedPlaces<T>& places);
  // `replay` may be null. Returns the indexer's loss (0 without). `env` and `x` are needed until
  // the backward pass is over.
  double Forward(const StepEnv<T>& env, Kept<Matrix<T>>& x, const EntrySelection* replay,
                 MatView<T> z);
  // d_x overwritten.
  void Backward(StepEnv<T>& env, MatView<const T> x, MatView<const T> d_z, MatView<T> d_x);
  const EntrySelection& selection() const { return selection_; }
  size_t bytes() const;

 private:
  void ForwardQueries(const StepEnv<T>& env, Kept<Matrix<T>>& x);
  void ForwardKv(const StepEnv<T>& env, Kept<Matrix<T>>& x);
  void ForwardCompressor(const StepEnv<T>& env, const CompressorParams<T>& p, Kept<Matrix<T>>& x,
                         size_t head_size, CompressorSaved<T>& saved);
  // `d_entries` is rotated back in place; d_x may be null.
  void BackwardCompressor(StepEnv<T>& env, const CompressorParams<T>& p, CompressorSaved<T>& saved,
                          MatView<const T> x, MatView<T> d_entries, MatView<T> d_x);
  void ForwardIndexer(const StepEnv<T>& env, Kept<Matrix<T>>& x, const EntrySelection* replay);
  void ForwardIndexQueries(const StepEnv<T>& env, MatView<const T> x);
  void ForwardOutput(const StepEnv<T>& env, MatView<T> z);
  void BackwardIndexer(StepEnv<T>& env, MatView<const T> x);
  // The first to write d_x; the ones below add.
  void BackwardQuery(StepEnv<T>& env, MatView<const T> x, MatView<T> d_q, MatView<T> d_x);
  void BackwardKv(StepEnv<T>& env, MatView<const T> x, MatView<T> d_kv, MatView<T> d_x);
  MatView<T> BackwardOutput(StepEnv<T>& env, MatView<const T> d_z);
  IndexerInputs<T> IndexInputs();
  AttentionInputs<T> Inputs();
  AttentionLayout Layout(const StepEnv<T>& env) const;
  bool WantsIndexerLoss(const StepEnv<T>& env) const;

  AttentionParams<T> p_;
  AttentionConfig shape_;
  size_t groups_;
  size_t index_heads_, index_dim_, index_topk_, rope_dim_;
  T eps_;
  Kept<Matrix<T>> qr_raw_, qr_, q_raw_, q_, kv_raw_, kv_, mid_;
  Matrix<T> out_;
  NormSaved<T> qr_norm_, q_norm_, kv_norm_;
  AttentionSaved<T> saved_;
  CompressorSaved<T> compressor_;
  IndexerSaved<T> indexer_;
  EntrySelection selection_;
};

// One layer's MoE: x [T, D] (normed) -> z [T, D].
template <typename T>
class FfnLayer {
 public:
  FfnLayer(const model::Config& config, const FfnParams<T>& params);
  void Share(const RecomputeSet& recompute, SharedPlaces<T>& places);  // as AttentionLayer
  // `ids` are the tokens of the positions, for hash layers; `replay` may be null. Returns the
  // balance loss's sum over samples (0 in hash layers and without `balance`). `env` and `input` (x)
  // are needed until the backward pass is over.
  double Forward(StepEnv<T>& env, Kept<Matrix<T>>& input, std::span<const uint32_t> ids,
                 const Selections* replay, size_t layer, bool balance, MatView<T> z);
  // d_x overwritten.
  void Backward(StepEnv<T>& env, MatView<const T> x, MatView<const T> d_z, bool balance,
                MatView<T> d_x);
  // What other ranks' tokens need of this rank's experts, when it has no tokens.
  void ServeForward(StepEnv<T>& env);
  void ServeBackward(StepEnv<T>& env);
  const std::vector<uint32_t>& experts() const { return ids_; }
  const std::vector<uint32_t>& unbiased() const { return unbiased_; }
  size_t bytes() const;

 private:
  MatView<uint32_t> Ids(size_t tokens) { return {ids_.data(), tokens, per_token_}; }
  MatView<uint32_t> Unbiased(size_t tokens) { return {unbiased_.data(), tokens, per_token_}; }

  FfnParams<T> p_;
  size_t per_token_;
  double scaling_;
  Matrix<T> logits_;   // [T, E]
  Matrix<T> weights_;  // [T, A]
  std::vector<uint32_t> ids_;
  std::vector<uint32_t> unbiased_;  // the choice the balance loss counts
  Kept<MoeSaved<T>> saved_;
};

}  // namespace cachalot::train
