// SPDX-License-Identifier: Apache-2.0
// A training run: recipe, data, network, optimizer, checkpoints and metrics put together.
// [V4 4.2; docs/design/train.md]
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "cachalot/base/error.h"
#include "cachalot/comm/communicator.h"
#include "cachalot/kernels/context.h"
#include "cachalot/train/evaluation.h"
#include "cachalot/train/export.h"
#include "cachalot/train/metrics.h"
#include "cachalot/train/optimizer_shares.h"
#include "cachalot/train/parameters.h"
#include "cachalot/train/recipe.h"

namespace cachalot::train {

struct TrainerOptions {
  std::string run_dir;         // created; holds checkpoints/, metrics.csv, metrics.jsonl
  std::string recipe_text;     // kept in checkpoints; a run resumes with the same text only
  double peak_flop_per_s = 0;  // measured, of all threads; 0: MFU is not reported
  // The ranks that share each step's micro-batches; null: this process alone. Outlives the trainer.
  comm::Communicator* comm = nullptr;
  // Changes where memory and messages go and no bit: a run may go on with another placement.
  ExpertPlacement experts = ExpertPlacement::kReplicated;
};

// What a run evaluates at `step`.
EvaluationSet EvaluationSetOf(const Recipe& recipe, std::shared_ptr<const Dataset> validation,
                              uint64_t step);

// One run, of one process or of the ranks of a communicator, which then make every call but the
// accessors together; one on which a call fails ends the others, which may wait for it. Rank 0
// writes metrics and checkpoints, which all ranks read: the run folder is on a file system that
// they share. One caller at a time.
class Trainer {
 public:
  // Opens the data and starts from the recipe's seed, or from the newest checkpoint of the run
  // folder. Same recipe, data, target and step: same bits, whatever the number of threads or ranks
  // and however often the run was stopped in between. kInvalidArgument if the folder's run has
  // another recipe, or the data another vocabulary than the model.
  static Result<std::unique_ptr<Trainer>> Create(const Recipe& recipe,
                                                 const TrainerOptions& options,
                                                 const kernels::Context& ctx);
  ~Trainer();

  uint64_t step() const;  // the next one to take; 0-based
  bool done() const;      // all steps of the schedule are taken
  // False while routing is anticipated, but for every anticipate_lag-th step.
  bool can_save() const;

  // Takes one step: gradients over the batch in micro-batches, clipping, optimizer, router biases;
  // evaluates and saves a checkpoint where the recipe says so; appends the metrics. A loss spike
  // takes the run back to its newest checkpoint instead: the metrics returned are those of the
  // spike, `step()` is smaller than before, and the next steps anticipate their routing.
  // kDataCorruption with the name of the first tensor if a value is no finite number any more:
  // nothing is saved then, and the last checkpoint is the way back.
  Result<StepMetrics> Step();

  // A checkpoint of now, atomic; older ones beyond keep_last are removed. Needs can_save().
  Status Save();

  // Mean next-token loss over the recipe's validation tokens; nullopt without validation data. In
  // the quantization-aware phase it is EvaluateCheckpoint's of what would be exported now (which
  // attends sparsely whatever the stage); before, the network's own on the masters.
  Result<std::optional<double>> Evaluate();

  // Rank 0 writes the model as ExportCheckpoint does.
  Status Export(const ExportOptions& options);

  // Values are those that this rank owns: of one rank, all.
  const ParameterSet& parameters() const;
  // Counted products of a token in forward and backward, for MFU: 6 flop a weight that acts on it.
  double flop_per_token() const;

 private:
  class Impl;
  explicit Trainer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace cachalot::train
