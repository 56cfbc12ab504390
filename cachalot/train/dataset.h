// SPDX-License-Identifier: Apache-2.0
// A folder of token shards as one list of samples. [docs/formats/token_shards.md]
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/train/token_shard.h"

namespace cachalot::train {

// Cuts samples into shards as they come; nothing is a dataset before Finish has written
// dataset.json, so a build that dies leaves nothing that opens.
class DatasetWriter {
 public:
  // `dir` is created; kInvalidArgument if it holds anything already.
  static Result<DatasetWriter> Create(const std::string& dir, uint32_t vocab_size,
                                      uint64_t tokenizer_checksum);

  Status Add(const Sample& sample);
  // Removes what was written instead.
  void Abandon();
  Status Finish();

  uint64_t num_samples() const { return num_samples_; }
  uint64_t num_tokens() const { return num_tokens_; }

 private:
  DatasetWriter(std::string dir, uint32_t vocab_size, uint64_t tokenizer_checksum);
  Status Flush();

  std::string dir_;
  uint32_t vocab_size_;
  uint64_t tokenizer_checksum_;
  TokenShardBuilder builder_;
  std::vector<std::string> files_;
  uint64_t num_samples_ = 0;
  uint64_t num_tokens_ = 0;
};

// Immutable; const members are thread-safe.
class Dataset {
 public:
  // Reads and checks everything once. kNotFound names what to run; kDataCorruption.
  static Result<std::shared_ptr<const Dataset>> Open(const std::string& dir);

  uint64_t num_samples() const { return first_sample_.back(); }
  uint64_t num_tokens() const { return num_tokens_; }
  uint32_t vocab_size() const { return vocab_size_; }
  // Of the tokenizer.json the ids come from.
  uint64_t tokenizer_checksum() const { return tokenizer_checksum_; }
  size_t num_shards() const { return shards_.size(); }

  uint64_t SampleLength(uint64_t sample) const;
  // Tokens [begin, begin + count) of a sample; beyond its end, nothing is appended.
  void Read(uint64_t sample, uint64_t begin, uint64_t count, Sample& out) const;

 private:
  Dataset() = default;
  size_t ShardOf(uint64_t sample) const;

  std::vector<TokenShard> shards_;
  std::vector<uint64_t> first_sample_;  // of each shard, and one past the last
  uint64_t num_tokens_ = 0;
  uint32_t vocab_size_ = 0;
  uint64_t tokenizer_checksum_ = 0;
};

}  // namespace cachalot::train
