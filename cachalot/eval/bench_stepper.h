// SPDX-License-Identifier: Apache-2.0
// Sequences that the benchmark feeds and times. Internal to eval.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/engine/sampler.h"
#include "cachalot/eval/bench.h"
#include "cachalot/kvcache/kv_cache.h"
#include "cachalot/model/forward.h"

namespace cachalot::eval {

// Different experts of the layers of one step: what the bytes of a step depend on.
class ExpertCounter {
 public:
  ExpertCounter(const model::Config& config, uint32_t max_tokens);

  // Where Forward::Step writes the choices of `num_tokens` tokens.
  std::span<const MatView<uint32_t>> Views(uint32_t num_tokens);
  void Count();  // the step that wrote them is over
  void Clear() { distinct_ = steps_ = 0; }
  double mean() const;  // a layer and step

 private:
  uint32_t num_experts_;
  std::vector<std::vector<uint32_t>> ids_;  // per layer
  std::vector<MatView<uint32_t>> views_;
  std::vector<uint32_t> seen_;  // [E] the last count that met the expert
  uint32_t stamp_ = 0;
  uint64_t distinct_ = 0;
  uint64_t steps_ = 0;  // of a layer
};

// Owns forward pass, blocks and sequences; every sequence has its own random text.
class Stepper {
 public:
  static Result<std::unique_ptr<Stepper>> Create(std::shared_ptr<const model::Weights> weights,
                                                 const BenchOptions& options, ThreadPool& pool);

  // `count` empty sequences; the ones before are gone.
  Status MakeSequences(uint32_t count);
  // Each to `context` by random entries.
  Status Fill(uint32_t context);
  // The only sequence reads up to `context`, in chunks, logits of the last token. Seconds.
  Result<double> Read(uint32_t context);
  // `rounds` times 16 steps of all sequences from where they stand, and back. Appends step times.
  Status Decode(uint32_t rounds, std::vector<double>& step_s);

  // The only sequence, to go back further than a rewind can.
  void Save() { sequences_[0]->SaveState(saved_); }
  Status Restore() { return sequences_[0]->RestoreState(saved_, sequences_[0]->blocks()); }

  const model::Weights& weights() const { return *weights_; }
  model::StepProfile& profile() { return profile_; }
  ExpertCounter& experts() { return experts_; }
  uint32_t position() const { return sequences_[0]->position(); }
  uint64_t kv_bytes() const;
  uint64_t scratch_bytes() const { return forward_->scratch_bytes(); }

 private:
  Stepper(std::shared_ptr<const model::Weights> weights, const BenchOptions& options,
          ThreadPool& pool);
  Status DecodeStep(uint64_t seed);

  std::shared_ptr<const model::Weights> weights_;
  BenchOptions options_;
  ThreadPool& pool_;
  uint32_t vocab_;
  model::StepProfile profile_;
  ExpertCounter experts_;
  engine::Sampler sampler_;
  engine::SamplingParams sampling_;
  std::unique_ptr<model::Forward> forward_;
  std::unique_ptr<kvcache::BlockPool> blocks_;
  std::vector<std::unique_ptr<kvcache::Sequence>> sequences_;  // released before their blocks
  std::vector<model::SequenceInput> inputs_;
  std::vector<uint32_t> next_ids_;  // one per sequence: what it decodes next
  std::vector<uint32_t> chunk_ids_, rows_;
  std::vector<float> logits_;  // [batch, V]
  std::vector<uint8_t> saved_;
  uint64_t round_ = 0;
};

// Tokens of a round of decoding: as many as a rewind takes back.
inline constexpr uint32_t kRoundTokens = kvcache::kMaxRewind;

}  // namespace cachalot::eval
