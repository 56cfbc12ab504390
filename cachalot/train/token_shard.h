// SPDX-License-Identifier: Apache-2.0
// Tokenized samples on disk. [docs/formats/token_shards.md]
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cachalot/base/error.h"
#include "cachalot/io/mapped_file.h"

namespace cachalot::train {

// One sample: its tokens, and which of them the model learns to predict.
struct Sample {
  std::vector<uint32_t> ids;
  std::vector<uint8_t> is_target;  // 0 or 1; ids.size()
};

// Collects samples in memory and writes them as one file.
class TokenShardBuilder {
 public:
  // `vocab_size` bounds the ids and chooses their width: two bytes up to 65,536.
  TokenShardBuilder(uint32_t vocab_size, uint64_t tokenizer_checksum);

  // Pre: a sample of at least 2 tokens, all below vocab_size.
  void Add(const Sample& sample);
  uint64_t num_samples() const { return ends_.size(); }
  uint64_t num_tokens() const { return ends_.empty() ? 0 : ends_.back(); }

  // The file's bytes; the builder is empty afterwards.
  std::string Take();

 private:
  uint32_t vocab_size_;
  uint32_t token_bytes_;
  uint64_t tokenizer_checksum_;
  std::vector<uint64_t> ends_;
  std::string targets_;  // one bit a token
  std::string tokens_;
};

// A shard in memory or mapped, checked whole when it is opened: sizes, checksum, sample ends, and
// every id, so that nothing later needs to look again. Movable.
class TokenShard {
 public:
  static Result<TokenShard> Open(const std::string& path);
  // The same on bytes that outlive the shard; `name` starts every message. kDataCorruption,
  // kVersionMismatch.
  static Result<TokenShard> Parse(std::string_view name, const uint8_t* data, uint64_t size);

  uint64_t num_samples() const { return num_samples_; }
  uint64_t num_tokens() const { return num_tokens_; }
  uint32_t vocab_size() const { return vocab_size_; }
  uint64_t tokenizer_checksum() const { return tokenizer_checksum_; }

  // Sample s is tokens [begin(s), begin(s + 1)).
  uint64_t begin(uint64_t sample) const;
  uint32_t token(uint64_t i) const;
  bool is_target(uint64_t i) const { return ((targets_[i / 8] >> (i % 8)) & 1) != 0; }

 private:
  TokenShard() = default;

  std::unique_ptr<io::MappedFile> file_;
  const uint8_t* ends_ = nullptr;
  const uint8_t* targets_ = nullptr;
  const uint8_t* tokens_ = nullptr;
  uint64_t num_samples_ = 0;
  uint64_t num_tokens_ = 0;
  uint64_t tokenizer_checksum_ = 0;
  uint32_t vocab_size_ = 0;
  uint32_t token_bytes_ = 2;
};

}  // namespace cachalot::train
