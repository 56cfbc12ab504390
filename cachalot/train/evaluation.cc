// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/evaluation.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "cachalot/base/strings.h"
#include "cachalot/model/forward.h"

namespace cachalot::train {
namespace {

constexpr uint32_t kChunk = 512;  // tokens of a step; no bit depends on it

// -log softmax(logits)[target].
double NegativeLogLikelihood(std::span<const float> logits, uint32_t target) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(double{x} - top);
  return top + std::log(sum) - double{logits[target]};
}

// One sequence that is started over for every sample.
class EngineLoss {
 public:
  static Result<std::unique_ptr<EngineLoss>> Create(const std::string& dir, uint32_t longest,
                                                    const kernels::Context& ctx) {
    auto loss = std::unique_ptr<EngineLoss>(new EngineLoss(ctx));
    CACHALOT_TRY(loss->weights_, model::LoadWeights(dir));
    const model::Config& config = loss->weights_->config;
    const model::ForwardOptions options{.max_step_tokens = kChunk, .max_step_sequences = 1};
    CACHALOT_TRY(loss->forward_, model::Forward::Create(loss->weights_, options, ctx));
    const kvcache::KvSpec spec = config.kv_spec(model::KvFormatOf(options.numerics), false);
    CACHALOT_TRY(loss->blocks_,
                 kvcache::BlockPool::Create(spec, longest / kvcache::kBlockTokens + 1));
    CACHALOT_TRY(loss->sequence_, kvcache::Sequence::Create(*loss->blocks_));
    loss->logits_.resize(size_t{kChunk} * config.vocab_size);
    loss->losses_.resize(kChunk);
    return loss;
  }

  const model::Config& config() const { return weights_->config; }

  Status Add(const TrainBatch& batch, CheckpointLoss& loss) {
    for (size_t s = 0; s < batch.num_samples(); ++s) {
      sequence_->Reset();
      const size_t end = batch.sample_begin[s + 1];
      for (size_t at = batch.sample_begin[s]; at < end; at += kChunk) {
        CACHALOT_RETURN_IF_ERROR(AddChunk(batch, at, std::min<size_t>(kChunk, end - at), loss));
      }
    }
    return {};
  }

 private:
  explicit EngineLoss(const kernels::Context& ctx) : ctx_(ctx) {}

  Status AddChunk(const TrainBatch& batch, size_t begin, size_t count, CheckpointLoss& loss) {
    rows_.clear();
    for (size_t i = 0; i < count; ++i) {
      if (batch.targets[begin + i] != kNoTarget) rows_.push_back(static_cast<uint32_t>(i));
    }
    const auto tokens = static_cast<uint32_t>(count);
    CACHALOT_RETURN_IF_ERROR(sequence_->Reserve(tokens));
    const model::SequenceInput input{
        .sequence = sequence_.get(), .tokens = {batch.ids.data() + begin, count}, .mtp_next = {}};
    model::ForwardOutputs outputs;
    outputs.logit_rows = rows_;
    outputs.logits = {logits_.data(), rows_.size(), config().vocab_size};
    CACHALOT_RETURN_IF_ERROR(forward_->Step({&input, 1}, outputs));
    sequence_->Advance(tokens);
    ctx_.pool->ParallelFor(rows_.size(), [&](size_t i, size_t) {
      losses_[i] = NegativeLogLikelihood(outputs.logits.Row(i), batch.targets[begin + rows_[i]]);
    });
    for (size_t i = 0; i < rows_.size(); ++i) loss.sum += losses_[i];
    loss.targets += rows_.size();
    return {};
  }

  kernels::Context ctx_;
  std::shared_ptr<const model::Weights> weights_;
  std::unique_ptr<model::Forward> forward_;
  std::unique_ptr<kvcache::BlockPool> blocks_;
  std::unique_ptr<kvcache::Sequence> sequence_;
  std::vector<uint32_t> rows_;  // of a chunk, those with a target
  std::vector<float> logits_;   // [kChunk, V]
  std::vector<double> losses_;  // [kChunk]
};

}  // namespace

void AppendSequence(const PackedSequence& row, uint32_t bos, TrainBatch& batch) {
  const size_t base = batch.ids.size();
  if (batch.sample_begin.empty()) batch.sample_begin.push_back(0);
  for (size_t i = 1; i < row.starts.size(); ++i) batch.sample_begin.push_back(base + row.starts[i]);
  batch.sample_begin.push_back(base + row.tokens.size());
  static_assert(kNoTarget == kNoToken);
  batch.ids.insert(batch.ids.end(), row.tokens.begin(), row.tokens.end());
  batch.targets.insert(batch.targets.end(), row.targets.begin(), row.targets.end());
  for (const uint32_t next : row.next) batch.mtp_ids.push_back(next == kNoToken ? bos : next);
  batch.mtp_targets.insert(batch.mtp_targets.end(), row.mtp_targets.begin(), row.mtp_targets.end());
}

Status ForEachEvaluationBatch(const EvaluationSet& set, uint32_t bos, const BatchUse& use) {
  PackedReader reader(set.data, set.seed);
  PackedSequence row;
  uint64_t tokens = 0;
  do {
    reader.Next(set.sequence_length, row);
    TrainBatch batch;
    AppendSequence(row, bos, batch);
    CACHALOT_RETURN_IF_ERROR(use(batch));
    tokens += batch.num_tokens();
  } while (tokens < set.tokens && reader.position().row < reader.num_rows());
  return {};
}

Result<CheckpointLoss> EvaluateCheckpoint(const std::string& dir, const EvaluationSet& set,
                                          const kernels::Context& ctx) {
  CACHALOT_TRY(const auto engine, EngineLoss::Create(dir, set.sequence_length, ctx));
  const model::Config& config = engine->config();
  if (set.data->vocab_size() > config.vocab_size ||
      set.sequence_length > config.max_position_embeddings) {
    return Error{ErrorCode::kInvalidArgument,
                 StrCat(dir, ": has a vocabulary of ", config.vocab_size, " and ",
                        config.max_position_embeddings, " positions, the evaluation's tokens ",
                        set.data->vocab_size(), " and ", set.sequence_length,
                        "; evaluate it with the recipe it was trained by")};
  }
  CheckpointLoss loss;
  CACHALOT_RETURN_IF_ERROR(ForEachEvaluationBatch(
      set, config.bos_token_id, [&](const TrainBatch& batch) { return engine->Add(batch, loss); }));
  return loss;
}

}  // namespace cachalot::train
