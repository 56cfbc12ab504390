// SPDX-License-Identifier: Apache-2.0
// Runs a checkpoint over token ids in any cut, for the golden and invariance tests.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cachalot/checkpoint/checkpoint.h"
#include "cachalot/io/mapped_file.h"
#include "cachalot/kernels/context.h"
#include "cachalot/kvcache/kv_cache.h"
#include "cachalot/model/forward.h"
#include "cachalot/model/weights.h"

namespace cachalot::testing {

using Ids = std::vector<uint32_t>;

// The tensors of one safetensors file (expected results).
class TensorFile {
 public:
  static TensorFile Open(const std::string& path) {
    auto file = io::MappedFile::Open(path);
    EXPECT_TRUE(file.ok()) << file.error().message;
    TensorFile out(std::move(file).value());
    auto tensors = checkpoint::ParseSafetensors(path, out.file_.data(), out.file_.size());
    EXPECT_TRUE(tensors.ok()) << tensors.error().message;
    out.tensors_ = std::move(tensors).value();
    return out;
  }

  bool Has(const std::string& name) const { return Find(name) != nullptr; }
  Ids ReadIds(const std::string& name) const {
    const auto values = Read<int64_t>(name);
    return {values.begin(), values.end()};
  }
  std::vector<float> ReadFloats(const std::string& name) const { return Read<float>(name); }

 private:
  explicit TensorFile(io::MappedFile file) : file_(std::move(file)) {}

  const checkpoint::TensorInfo* Find(const std::string& name) const {
    const auto it = std::ranges::find(tensors_, name, &checkpoint::TensorInfo::name);
    return it == tensors_.end() ? nullptr : &*it;
  }
  template <typename T>
  std::vector<T> Read(const std::string& name) const {
    const checkpoint::TensorInfo* info = Find(name);
    EXPECT_NE(info, nullptr) << name;
    if (info == nullptr) return {};
    std::vector<T> out(info->num_elements());
    std::copy_n(info->data, info->bytes, reinterpret_cast<uint8_t*>(out.data()));
    return out;
  }

  io::MappedFile file_;
  std::vector<checkpoint::TensorInfo> tensors_;
};

// Arbitrary ids.
inline Ids MakeIds(size_t count, uint32_t vocab, uint32_t seed) {
  Ids ids(count);
  uint64_t state = seed;
  for (uint32_t& id : ids) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    id = static_cast<uint32_t>((state >> 33) % vocab);
  }
  return ids;
}

struct RunOptions {
  model::Numerics numerics = model::Numerics::kFast;
  size_t num_threads = 2;
  uint32_t chunk = 0;  // tokens of a step; 0: all at once
  std::optional<kernels::Target> target;
  Ids mtp_next;  // empty: no MTP
  bool window_only = false;
};

struct RunResult {
  std::vector<float> logits;      // [N, V]
  std::vector<float> mtp_logits;  // [N, V] or empty
};

// One model with its threads and cache; sequences are made on demand.
class ModelRunner {
 public:
  ModelRunner(std::shared_ptr<const model::Weights> weights, const RunOptions& options,
              uint32_t max_tokens, uint32_t max_sequences = 1)
      : weights_(std::move(weights)), pool_(options.num_threads) {
    const kernels::Context ctx{
        .pool = &pool_, .target = options.target.value_or(kernels::SupportedTargets().front())};
    auto forward = model::Forward::Create(weights_,
                                          {.numerics = options.numerics,
                                           .max_step_tokens = std::max(max_tokens, 1u),
                                           .max_step_sequences = max_sequences,
                                           .with_mtp = !options.mtp_next.empty(),
                                           .window_only = options.window_only},
                                          ctx);
    EXPECT_TRUE(forward.ok()) << forward.error().message;
    forward_ = std::move(forward).value();
    const auto spec =
        weights_->config.kv_spec(model::KvFormatOf(options.numerics), weights_->mtp.has_value());
    auto blocks = kvcache::BlockPool::Create(spec, 64);
    EXPECT_TRUE(blocks.ok()) << blocks.error().message;
    blocks_ = std::move(blocks).value();
  }

  std::unique_ptr<kvcache::Sequence> NewSequence() {
    auto sequence = kvcache::Sequence::Create(*blocks_);
    EXPECT_TRUE(sequence.ok());
    return std::move(sequence).value();
  }

  // Steps the sequences over the given tokens; returns [sum of tokens, V] logits.
  std::vector<float> Step(const std::vector<model::SequenceInput>& inputs,
                          std::vector<float>* mtp_logits = nullptr) {
    Ids rows;
    for (const auto& input : inputs) {
      EXPECT_TRUE(input.sequence->Reserve(static_cast<uint32_t>(input.tokens.size())).ok());
      for (size_t i = 0; i < input.tokens.size(); ++i) {
        rows.push_back(static_cast<uint32_t>(rows.size()));
      }
    }
    const size_t vocab = weights_->config.vocab_size;
    std::vector<float> logits(rows.size() * vocab);
    model::ForwardOutputs outputs{.logit_rows = rows,
                                  .logits = {logits.data(), rows.size(), vocab}};
    if (mtp_logits != nullptr) {
      mtp_logits->resize(rows.size() * vocab);
      outputs.mtp_logits = {mtp_logits->data(), rows.size(), vocab};
    }
    const Status status = forward_->Step(inputs, outputs);
    EXPECT_TRUE(status.ok()) << status.error().message;
    for (const auto& input : inputs) {
      input.sequence->Advance(static_cast<uint32_t>(input.tokens.size()));
    }
    return logits;
  }

  const model::Weights& weights() const { return *weights_; }
  model::Forward& forward() { return *forward_; }

 private:
  std::shared_ptr<const model::Weights> weights_;
  ThreadPool pool_;
  std::unique_ptr<model::Forward> forward_;
  std::unique_ptr<kvcache::BlockPool> blocks_;
};

// Logits of every position of `ids`, read in steps of options.chunk.
inline RunResult RunIds(std::shared_ptr<const model::Weights> weights, const Ids& ids,
                        const RunOptions& options) {
  const auto total = static_cast<uint32_t>(ids.size());
  const uint32_t chunk = options.chunk == 0 ? total : options.chunk;
  ModelRunner runner(std::move(weights), options, chunk);
  const auto sequence = runner.NewSequence();
  RunResult result;
  for (uint32_t begin = 0; begin < total; begin += chunk) {
    const uint32_t count = std::min(chunk, total - begin);
    model::SequenceInput input{.sequence = sequence.get(),
                               .tokens = std::span(ids).subspan(begin, count)};
    std::vector<float> mtp;
    if (!options.mtp_next.empty()) {
      input.mtp_next = std::span(options.mtp_next).subspan(begin, count);
    }
    const auto logits = runner.Step({input}, options.mtp_next.empty() ? nullptr : &mtp);
    result.logits.insert(result.logits.end(), logits.begin(), logits.end());
    result.mtp_logits.insert(result.mtp_logits.end(), mtp.begin(), mtp.end());
  }
  return result;
}

inline std::shared_ptr<const model::Weights> LoadOrFail(const std::string& dir) {
  auto weights = model::LoadWeights(dir);
  EXPECT_TRUE(weights.ok()) << weights.error().message;
  return weights.ok() ? *weights : nullptr;
}

}  // namespace cachalot::testing
