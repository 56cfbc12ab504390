// SPDX-License-Identifier: Apache-2.0
// The loss on held-out tokens: which tokens, and what the engine makes of a checkpoint's bytes.
// [docs/design/train.md]
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "cachalot/base/error.h"
#include "cachalot/kernels/context.h"
#include "cachalot/train/batch.h"
#include "cachalot/train/dataset.h"
#include "cachalot/train/packed_reader.h"

namespace cachalot::train {

// The same sequences every time: those of the first epoch until `tokens` are reached or it ends.
struct EvaluationSet {
  std::shared_ptr<const Dataset> data;
  uint64_t seed = 1;
  uint32_t sequence_length = 512;
  uint64_t tokens = 65536;
};

// Appends a packed row as its samples. Beside the last token of a sample the MTP block is fed BOS;
// nothing is predicted from there.
void AppendSequence(const PackedSequence& row, uint32_t bos, TrainBatch& batch);

// Hands out the set, one packed sequence a batch. Ends with the first error of `use`.
using BatchUse = std::function<Status(const TrainBatch&)>;
Status ForEachEvaluationBatch(const EvaluationSet& set, uint32_t bos, const BatchUse& use);

struct CheckpointLoss {
  uint64_t targets = 0;  // tokens predicted
  double sum = 0;        // of their negative log-likelihoods, nats

  double mean() const { return sum / static_cast<double>(targets); }
};

// Next-token loss of the checkpoint in folder `dir`, computed by model::Forward in the numerics
// that `run` and `serve` use: each sample from an empty cache, its tokens in chunks. The bits
// depend on the checkpoint, the set and the target only. kInvalidArgument if the set's vocabulary
// or its samples exceed what the model has; errors of LoadWeights and Forward.
Result<CheckpointLoss> EvaluateCheckpoint(const std::string& dir, const EvaluationSet& set,
                                          const kernels::Context& ctx);

}  // namespace cachalot::train
