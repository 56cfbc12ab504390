// SPDX-License-Identifier: Apache-2.0
// The data of a run: which shards a step reads, and its micro-batches. [docs/design/train.md]
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/train/batch.h"
#include "cachalot/train/dataset.h"
#include "cachalot/train/packed_reader.h"
#include "cachalot/train/recipe.h"

namespace cachalot::train {

// A copy reads on by itself and shares the mapped shards. One caller at a time.
class TrainingData {
 public:
  // The shards of all stages, so that what is wrong with a later one shows now, not after hours,
  // and of the validation, if the recipe has one. kInvalidArgument if they come from different
  // tokenizers or have more ids than the model; errors of Dataset::Open. `recipe` outlives it.
  static Result<TrainingData> Open(const Recipe& recipe);

  const std::shared_ptr<const Dataset>& validation() const { return validation_; }  // may be null

  // The micro-batches of `step`. Steps are read one after the other; a stage with shards of its own
  // begins them at its first step.
  std::vector<TrainBatch> Read(uint64_t step);

  // Behind the last step read.
  const DataPosition& position() const { return reader_->position(); }
  // Goes on as if steps [0, step) had been read and ended at `position`. Errors of
  // PackedReader::Seek.
  Status Seek(uint64_t step, const DataPosition& position);

 private:
  explicit TrainingData(const Recipe& recipe) : recipe_(&recipe) {}
  Status OpenShards(const std::string& dir);
  PackedReader ReaderAt(uint64_t step) const;

  const Recipe* recipe_;
  std::map<std::string, std::shared_ptr<const Dataset>> shards_;  // by folder
  std::shared_ptr<const Dataset> validation_;
  std::optional<PackedReader> reader_;
};

}  // namespace cachalot::train
