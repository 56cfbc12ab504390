// SPDX-License-Identifier: Apache-2.0
#include "cachalot/train/training_data.h"

#include <utility>

#include "cachalot/base/strings.h"
#include "cachalot/train/evaluation.h"

namespace cachalot::train {

Result<TrainingData> TrainingData::Open(const Recipe& recipe) {
  TrainingData data(recipe);
  if (!recipe.data.validation.empty()) {
    CACHALOT_TRY(data.validation_, Dataset::Open(recipe.data.validation));
  }
  CACHALOT_RETURN_IF_ERROR(data.OpenShards(recipe.data.train));
  for (const Stage& stage : recipe.schedule.stages) {
    if (!stage.train.empty()) CACHALOT_RETURN_IF_ERROR(data.OpenShards(stage.train));
  }
  data.reader_ = data.ReaderAt(0);
  return data;
}

Status TrainingData::OpenShards(const std::string& dir) {
  CACHALOT_TRY(const std::shared_ptr<const Dataset> data, Dataset::Open(dir));
  if (data->vocab_size() > recipe_->model.vocab_size) {
    return Error{
        ErrorCode::kInvalidArgument,
        StrCat(dir, ": has a vocabulary of ", data->vocab_size(), ", the recipe's model of ",
               recipe_->model.vocab_size, "; set [model].vocab_size or train another tokenizer")};
  }
  shards_[dir] = data;
  const auto differs = [&](const Dataset& other) {
    return other.tokenizer_checksum() != data->tokenizer_checksum();
  };
  const std::string* other = nullptr;
  if (validation_ != nullptr && differs(*validation_)) other = &recipe_->data.validation;
  for (const auto& [folder, opened] : shards_) {
    if (differs(*opened)) other = &folder;
  }
  if (other == nullptr) return {};
  return Error{ErrorCode::kInvalidArgument, StrCat(*other, ": comes from another tokenizer than ",
                                                   dir, "; build both with the same one")};
}

PackedReader TrainingData::ReaderAt(uint64_t step) const {
  return PackedReader(shards_.find(TrainDataAt(*recipe_, step))->second, recipe_->seed);
}

std::vector<TrainBatch> TrainingData::Read(uint64_t step) {
  const Schedule& schedule = recipe_->schedule;
  const uint64_t rows = BatchSequences(schedule, step);
  const uint64_t micro = MicroBatchSequences(schedule, step);
  const uint32_t length = StageAt(schedule, step).sequence_length;
  std::vector<TrainBatch> batches((rows + micro - 1) / micro);
  if (PackedReader begun = ReaderAt(step); begun.dataset() != reader_->dataset()) {
    reader_ = std::move(begun);
  }
  PackedSequence row;
  for (uint64_t r = 0; r < rows; ++r) {
    reader_->Next(length, row);
    AppendSequence(row, recipe_->model.bos_token_id, batches[r / micro]);
  }
  return batches;
}

// The position is that of the last step read; a new stage's shards begin with the next one.
Status TrainingData::Seek(uint64_t step, const DataPosition& position) {
  reader_ = ReaderAt(step == 0 ? 0 : step - 1);
  return reader_->Seek(position);
}

}  // namespace cachalot::train
